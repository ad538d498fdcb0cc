"""A log of 200,000 lines read by the `log` check's own code, beside plain Python that matches each line and counts statuses.

Ours finds the file and its mark, cuts pages, reads time, path and duration of each line, groups paths, looks for three error
patterns and makes the events; without the journal. Theirs is a loop over the file with one regular expression. CPU time of
the process: reading is its thread's business.
"""

import random
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Final

from sixfbd_plugins.logs import forms
from sixfbd_plugins.logs.check import PAGE_BYTES
from sixfbd_plugins.logs.files import Files
from sixfbd_plugins.logs.tally import Patterns, Tally
from tests.bench.passes import Effort, Goal, Row, Side, row, take_turns

LINES: Final = 200_000
START: Final = 1_795_769_411.0
ERRORS: Final = {"no_memory": "Out of memory", "timeout": "upstream (timed out|closed)", "panic": r"\bpanic\b"}
PATTERN: Final = (
    r'\S+ \S+ \S+ \[(?P<time>[^\]]+)\] "(?P<method>\S+) (?P<path>\S+) [^"]*" (?P<status>\d+) \d+'
    r' "[^"]*" "[^"]*" (?P<duration>\S+)'
)


def _line(number: int, chance: random.Random) -> tuple[str, str]:
    """Return a request as a line of `combined` with its duration, and as one of JSON."""
    at = time.gmtime(START + number / 100)
    path = chance.choice(
        (f"/orders/{number}", f"/cities/dallas?page={number % 9}", "/", "/api/checkout", "/static/a.js")
    )
    status, took = chance.choice((200, 200, 200, 304, 404, 500)), chance.expovariate(10)
    agent = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    plain = (
        f"203.0.113.{number % 256} - - [{time.strftime('%d/%b/%Y:%H:%M:%S', at)} +0000]"
        f' "GET {path} HTTP/1.1" {status} {number % 9000} "https://shop.example/" "{agent}" {took:.3f}'
    )
    json = (
        f'{{"time":"{time.strftime("%Y-%m-%dT%H:%M:%SZ", at)}","method":"GET","path":"{path}","status":{status},'
        f'"duration":{took:.3f},"agent":"{agent}"}}'
    )
    return plain, json


def _write(directory: Path, lines: int) -> tuple[Path, Path]:
    chance = random.Random(1)
    made = [_line(number, chance) for number in range(lines)]
    paths = directory / "plain.log", directory / "json.log"
    for place, path in enumerate(paths):
        path.write_text("".join(f"{both[place]}\n" for both in made))
    return paths


def ours(path: Path, read: forms.Read, lines: int) -> Side:
    def measure() -> Mapping[str, float]:
        files, patterns = Files((str(path),)), Patterns(ERRORS)
        began, taken, events = time.process_time(), 0, 0
        places = files.look((), from_end=False).places
        while piece := files.read(places[0], PAGE_BYTES, START):
            tally = Tally("bench", read, patterns, START)
            places = files.look((files.after(piece, tally.take(piece.lines)),), from_end=False).places
            taken, events = taken + tally.lines - tally.unread, events + len(tally.events("page"))
        spent = time.process_time() - began
        files.close()
        assert taken == lines and events, f"{taken} of {lines} lines were read"
        return {"us": spent / lines * 1e6}

    return measure


def plain(path: Path, lines: int) -> Side:
    def measure() -> Mapping[str, float]:
        match, statuses = re.compile(PATTERN).match, Counter[str]()
        began = time.process_time()
        with path.open() as file:
            for line in file:
                if found := match(line):
                    statuses[found["status"]] += 1
        spent = time.process_time() - began
        assert statuses.total() == lines
        return {"us": spent / lines * 1e6}

    return measure


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of reading logs."""
    lines = effort.pick(LINES, 5000)
    combined, json = _write(directory, lines)
    fields = {name: name for name in forms.GROUPS}
    beside = "a loop with re"
    measured = take_turns(
        {
            "combined": ours(combined, forms.combined("s"), lines),
            "json": ours(json, forms.json(fields, "s", UTC), lines),
            "pattern": ours(combined, forms.pattern(PATTERN, "s", UTC), lines),
            beside: plain(combined, lines),
        },
        effort,
    )
    return [
        row("log lines, combined, CPU a line", "µs", measured, "us", "combined", beside, Goal(10)),
        row("log lines, JSON, CPU a line", "µs", measured, "us", "json", beside, Goal(10)),
        row("log lines, a pattern, CPU a line", "µs", measured, "us", "pattern", beside, Goal(20)),
    ]
