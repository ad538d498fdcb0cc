"""Which series a selector means, and where their values are: an index by metric name with remembered answers.

Grows only (`Window.forget` builds a new one), is written by the window's thread and read by any: every read is of lists
that are appended to, up to a length taken before, or a single dict operation.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import re2
from msgspec import Struct

from sixfbd.model import LayoutId, Series, SeriesId
from sixfbd.window.chunks import BAND
from sixfbd.window.layouts import Entry, Layout, Place
from sixfbd.window.snapshot import Matcher

REMEMBERED: Final = 4096  # selectors; more than that are somebody's typing, not rules

Selector = tuple[Matcher, ...]
Columns = npt.NDArray[np.intp]

_RE2: Final = re2.Options()
_RE2.log_errors = False  # RE2 would write to standard error what we raise
_RE2.dot_nl = True  # as Prometheus 3


class Band(Struct, frozen=True, eq=False):
    """Columns of one band of a layout's chunks (None: all of them in order), and where they go in the selection."""

    number: int
    columns: Columns | None
    into: slice | Columns


class Part(Struct, frozen=True, eq=False):
    """Columns of one layout (None: all of them in order), as a whole and by band."""

    layout: Layout
    columns: Columns | None
    bands: tuple[Band, ...]


class Group(Struct, frozen=True, eq=False):
    """Series that went through the same layouts in turn: they share their times and become one Block."""

    check: str
    series: tuple[Series, ...]
    ids: tuple[SeriesId, ...]
    parts: tuple[Part, ...]


class Selection(Struct, frozen=True, eq=False):
    """Where to find what a selector means. `at`: how many changes of the index it knows of."""

    at: int
    groups: tuple[Group, ...]
    steps: tuple[Entry, ...]


class Index:
    """Series by name. `changes` counts what was added: series and places."""

    def __init__(self) -> None:
        self.changes = 0
        self.entries: list[Entry] = []
        self._positions: dict[str, list[int]] = {}  # by metric
        self._of_label: dict[str, dict[tuple[str, str], list[int]]] = {}  # by metric, then label and value
        self._changed: dict[str, int] = {}
        self._resolved: dict[Selector, tuple[int, list[Entry]]] = {}
        self._selections: dict[Selector, Selection] = {}

    def add(self, entry: Entry) -> None:
        """Add a series that is not in here."""
        metric, position = entry.series.metric, len(self.entries)
        self._positions.setdefault(metric, []).append(position)
        of_label = self._of_label.setdefault(metric, {})
        for pair in entry.series.labels:
            if (positions := of_label.get(pair)) is None:
                of_label[pair] = [position]
            else:
                positions.append(position)
        self.entries.append(entry)
        self.note(entry)

    def note(self, entry: Entry) -> None:
        """Take note that a series got a place."""
        self.changes += 1
        self._changed[entry.series.metric] = self.changes

    def resolve(self, selector: Selector) -> list[Entry]:
        """Return the series that match, in the order in which they came. Raises ValueError for a bad expression."""
        count = len(self.entries)
        known, found = self._resolved.get(selector, (0, []))
        if known >= count:
            return found
        tests = [_test(matcher) for matcher in selector]
        news = [entry for entry in self._since(selector, known, count) if all(test(entry) for test in tests)]
        found = [*found, *news] if news else found
        _remember(self._resolved, selector, (count, found))
        return found

    def _since(self, selector: Selector, known: int, count: int) -> Iterable[Entry]:
        name = _name(selector)
        if name is None:
            return self._since_of_any(selector, known, count)
        positions = self._positions.get(name, [])
        for matcher in selector:
            if matcher.op == "=" and matcher.value and matcher.name != "__name__":
                of_label = self._of_label.get(name, {}).get((matcher.name, matcher.value), [])
                positions = min(positions, of_label, key=len)
        first = bisect_left(positions, known)
        return [self.entries[position] for position in positions[first:] if position < count]

    def _since_of_any(self, selector: Selector, known: int, count: int) -> Iterable[Entry]:
        """The same where a metric is not named: what the matchers say of its name is asked of each metric once."""
        tests = [_fits(matcher) for matcher in selector if matcher.name == "__name__"]
        if not tests:
            return self.entries[known:count]
        metrics = [metric for metric in list(self._positions) if all(test(metric) for test in tests)]
        positions = sorted(chain.from_iterable(map(self._positions.__getitem__, metrics)))
        return [self.entries[position] for position in positions if known <= position < count]

    def select(self, selector: Selector, at: int, next_layout: int) -> Selection:
        """Return the selection as of the change numbered `at`, when `next_layout` was the next layout's id."""
        name = _name(selector)
        changed = self.changes if name is None else self._changed.get(name, 0)
        known = self._selections.get(selector)
        if known is not None and changed <= min(at, known.at):
            return known
        selection = _selection(self.resolve(selector), at, next_layout)
        if changed <= at:
            _remember(self._selections, selector, selection)
        return selection


def _remember(memory: dict[Selector, Any], selector: Selector, answer: object) -> None:
    if len(memory) >= REMEMBERED and selector not in memory:
        memory.clear()
    memory[selector] = answer


def _name(selector: Selector) -> str | None:
    for matcher in selector:
        if matcher.name == "__name__" and matcher.op == "=":
            return matcher.value
    return None


def _test(matcher: Matcher) -> Callable[[Entry], bool]:
    """A matcher as a function; a label that a series does not have is ""."""
    name, fits = matcher.name, _fits(matcher)
    return lambda entry: fits(entry.label(name))


def _fits(matcher: Matcher) -> Callable[[str], bool]:
    """A matcher as a function of a label's value."""
    wanted = matcher.op in ("=", "=~")
    if matcher.op in ("=", "!="):
        return lambda value: (value == matcher.value) is wanted
    pattern = _pattern(matcher.value)
    known: dict[str, bool] = {}  # a label has few values for many series

    def fits(value: str) -> bool:
        answer = known.get(value)
        if answer is None:
            answer = known[value] = (pattern.fullmatch(value) is not None) is wanted
        return answer

    return fits


@lru_cache(maxsize=1024)
def _pattern(text: str) -> Any:
    try:
        return re2.compile(text, _RE2)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else ""
        raise ValueError(f"{text!r} is not a regular expression of RE2: {reason}") from None


def _selection(entries: Sequence[Entry], at: int, next_layout: int) -> Selection:
    groups: dict[tuple[LayoutId, ...], list[tuple[Entry, list[Place]]]] = {}
    steps: list[Entry] = []
    for entry in entries:
        if entry.id < 0:
            steps.append(entry)
            continue
        places = [place for place in entry.places if place.layout.id < next_layout]
        if places:
            groups.setdefault(tuple(place.layout.id for place in places), []).append((entry, places))
    return Selection(at, tuple(_group(members) for members in groups.values()), tuple(steps))


def _group(members: Sequence[tuple[Entry, Sequence[Place]]]) -> Group:
    layouts = [place.layout for place in members[0][1]]
    parts = tuple(
        _part(layout, np.array([places[turn].column for _, places in members], dtype=np.intp))
        for turn, layout in enumerate(layouts)
    )
    entries = [entry for entry, _ in members]
    return Group(
        layouts[-1].check, tuple(entry.series for entry in entries), tuple(entry.id for entry in entries), parts
    )


def _part(layout: Layout, columns: Columns) -> Part:
    numbers = columns // BAND
    bands = []
    for number in sorted(set(numbers.tolist())):
        into = np.flatnonzero(numbers == number)
        local = columns[into] - number * BAND
        everything = slice(None) if len(into) == len(columns) else into
        bands.append(Band(number, _or_all(local, min(BAND, layout.width - number * BAND)), everything))
    return Part(layout, _or_all(columns, layout.width), tuple(bands))


def _or_all(columns: Columns, width: int) -> Columns | None:
    return None if len(columns) == width and bool((columns == np.arange(width)).all()) else columns
