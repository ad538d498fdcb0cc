"""What lines of a log add up to: requests by minute, error patterns that matched, lines that could not be read.

Keeps no line, address or name of anybody: paths by their groups, a line that could not be read as its shape.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import re2

from sixfbd.plugin import Event
from sixfbd_plugins.business.requests import OTHER, SLOW_S, known_method, paths
from sixfbd_plugins.logs.files import LONGEST_LINE
from sixfbd_plugins.logs.forms import Entry, Other, Read

MOST_MINUTES: Final = 60  # of one page: each becomes an event or two
MOST_ANSWERS: Final = 300  # of one event, which may have 64 KiB
BINS: Final = math.log(1.01 / 0.99)
"""Of durations: as wide as those of the sketches that they go into, so that nothing gets less exact."""
SHAPE: Final = 160  # characters


class Patterns:
    """The error patterns by name: RE2 expressions, all looked for at once. Raises ValueError for one that is wrong."""

    def __init__(self, expressions: Mapping[str, str]) -> None:
        self.names = tuple(expressions)
        options = re2.Options()
        options.log_errors = False
        self._set = re2.Set.SearchSet(options)
        for expression in expressions.values():
            self._set.Add(expression)
        if expressions:
            self._set.Compile()

    def of(self, line: bytes) -> Sequence[str]:
        """Return the names of those that match a line."""
        return [self.names[place] for place in self._set.Match(line) or ()] if self.names else ()


class _Minute:
    """The sums of a minute. `answers` by path, method and status: count, timed, ms, slow, slowest ms."""

    __slots__ = ("answers", "bins", "latest", "lines", "matches", "unread")

    def __init__(self) -> None:
        self.latest = 0.0
        self.lines = 0
        self.unread = 0
        self.answers: dict[tuple[str, str, int], list[float]] = {}
        self.bins: dict[int, list[float]] = {}
        self.matches: Counter[str] = Counter()

    def add(self, entry: Entry) -> None:
        key = (
            paths.group(entry.path, entry.status) if entry.path != "-" else OTHER,
            known_method(entry.method),
            entry.status,
        )
        sums = self.answers.get(key)
        if sums is None:
            sums = self.answers[key] = [0, 0, 0.0, 0, 0.0]
        sums[0] += 1
        took = entry.duration
        if took is None:
            return
        sums[1] += 1
        sums[2] += took
        if took > SLOW_S * 1000:
            sums[3] += 1
            sums[4] = max(sums[4], took)
        number = math.ceil(math.log(took / 1000) / BINS) if took > 1e-6 else -(10**6)
        held = self.bins.get(number)
        if held is None:
            self.bins[number] = [1, took]
        else:
            held[0] += 1
            held[1] += took


class Tally:
    """Adds up the lines of a page that is read at `now`, which is when a line was written that says no time."""

    def __init__(self, log: str, read: Read, patterns: Patterns, now: float) -> None:
        self._log = log
        self._read = read
        self._patterns = patterns
        self._now = now
        self._minutes: dict[int, _Minute] = {}
        self.lines = 0
        self.cut = 0
        self.unread = 0
        self.requests = 0
        self.example: tuple[int, str] | None = None
        """Of the lines that could not be read the first: which one it was of those taken, and its shape."""

    def take(self, lines: Sequence[bytes], times: Sequence[float] | None = None) -> int:
        """Take lines, and when each was written if it does not say so; return how many: some are left to the next page if
        they are of too many minutes."""
        read, patterns = self._read, self._patterns
        for place, line in enumerate(lines):
            if len(line) > LONGEST_LINE:
                line = line[:LONGEST_LINE]
                self.cut += 1
            found = read(line)
            at = (None if found is None else found.time) or (self._now if times is None else times[place])
            minute = self._minutes.get(int(at // 60))
            if minute is None:
                if len(self._minutes) >= MOST_MINUTES:
                    return place
                minute = self._minutes[int(at // 60)] = _Minute()
            minute.lines += 1
            minute.latest = max(minute.latest, at)
            if found is None:
                minute.unread += 1
                self.unread += 1
                self.example = self.example or (place, shape(line))
            elif not isinstance(found, Other):
                minute.add(found)
                self.requests += 1
            if patterns.names:
                minute.matches.update(patterns.of(line))
            self.lines += 1
        return len(lines)

    def events(self, page: str, gaps: int = 0) -> tuple[Event, ...]:
        """Return what was taken as events; `page` makes their ids. Lines that were cut, and gaps, are of now."""
        found: list[Event] = []
        for number, minute in sorted(self._minutes.items()):
            at = min(minute.latest, self._now)
            sums = {"lines": minute.lines, "unparsed": minute.unread, "matches": dict(minute.matches)}
            found.append(self._event(f"{page}-{number}", "log_lines", at, sums))
            found += self._requests(f"{page}-{number}", at, minute)
        if self.cut or gaps:
            found.append(self._event(f"{page}-now", "log_lines", self._now, {"cut": self.cut, "gaps": gaps}))
        return tuple(found)

    def _event(self, name: str, kind: str, at: float, data: Mapping[str, Any]) -> Event:
        return Event(name, kind, at, {"log": self._log, **{key: value for key, value in data.items() if value}})

    def _requests(self, page: str, at: float, minute: _Minute) -> list[Event]:
        answers = [
            {"path": path, "method": method, "statusCode": status, "count": count}
            | ({"timed": timed, "duration": round(took, 3)} if timed else {})
            | ({"slow": slow, "slowest": round(slowest, 3)} if slow else {})
            for (path, method, status), (count, timed, took, slow, slowest) in sorted(minute.answers.items())
        ]
        durations = [[count, round(took, 6)] for _, (count, took) in sorted(minute.bins.items())]
        parts = [answers[first : first + MOST_ANSWERS] for first in range(0, len(answers), MOST_ANSWERS)]
        return [
            self._event(
                f"{page}-{place}r", "logged_requests", at, {"answers": part, "durations": [] if place else durations}
            )
            for place, part in enumerate(parts)
        ]


def shape(line: bytes) -> str:
    """Return what a line looks like without what it says: words are "a", numbers "0"."""
    plain = line[: SHAPE * 4].decode("utf-8", "replace")
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d]+", "a", "".join(c if c.isprintable() else "?" for c in plain)))[:SHAPE]
