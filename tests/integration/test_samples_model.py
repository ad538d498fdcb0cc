"""The window and samples.db together against a dict of lists: random reports, seals, regroupings, restarts."""

import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd.journal.samples import open_samples
from sixfbd.model import MetricKind, Series
from sixfbd.window.blocks import ABSENT_BITS, STALE_BITS
from sixfbd.window.window import Window

POOL = [Series(f"m{i % 3}", (("i", f"{i:02}"),), MetricKind.GAUGE) for i in range(70)]
ODD_BITS = [0x7FF8000000000001, 0x8000000000000000, 0x7FF0000000000000, 0x0000000000000001]
CHECKS = ("shop", "host")
STALE_AFTER_MS = 300_000

values = st.one_of(
    st.floats(-1e9, 1e9).map(lambda value: int(np.float64(value).view(np.uint64))), st.sampled_from(ODD_BITS)
)
members = st.one_of(
    st.lists(st.integers(0, 69), max_size=8, unique=True),
    st.integers(0, 70).map(lambda n: list(range(n))),
    st.integers(0, 69).map(lambda n: [n]),
)
report = st.tuples(
    st.just("report"),
    st.sampled_from(CHECKS),
    members,
    st.lists(values, min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([1, 1, 1, 2, 40, 130]),
    st.sampled_from([5000, 5000, 0, 1, 3_600_000]),
)
growth = st.tuples(st.just("grow"), st.sampled_from(CHECKS), st.integers(1, 22), values)
operations = st.lists(
    st.one_of(
        report,
        report,
        growth,
        st.tuples(st.just("end"), st.sampled_from(CHECKS)),
        st.tuples(st.just("restart")),
    ),
    min_size=1,
    max_size=12,
)


class Model:
    """Every series of each check as a list of (time, bits)."""

    def __init__(self):
        self.rows = defaultdict(list)
        self.last_ms = {}

    def report(self, check, at_ms, samples, complete):
        at_ms = max(at_ms, self.last_ms.get(check, at_ms - 1) + 1)
        samples = dict(samples)
        for (owner, series), rows in self.rows.items():
            ends = complete or rows[-1][0] < at_ms - STALE_AFTER_MS
            if owner == check and ends and series not in samples and rows[-1][1] != STALE_BITS:
                rows.append((at_ms, STALE_BITS))
        for series, bits in samples.items():
            self.rows[check, series].append((at_ms, bits))
        self.last_ms[check] = at_ms

    def end(self, check, at_ms):
        if any(owner == check and rows[-1][1] != STALE_BITS for (owner, _), rows in self.rows.items()):
            self.report(check, at_ms, [], True)

    def select(self, lo_ms, hi_ms):
        found = {}
        for key, rows in self.rows.items():
            inside = [row for row in rows if lo_ms <= row[0] <= hi_ms]
            if inside:
                found[key] = inside
        return found


def select(window, lo_ms, hi_ms):
    found = {}
    for block in window.snapshot().select((), lo_ms, hi_ms):
        assert block.v.shape == (len(block.t_ms), len(block.series))
        assert (np.diff(block.t_ms) > 0).all()
        for column, series in enumerate(block.series):
            assert (block.check, series) not in found
            bits = np.ascontiguousarray(block.v[:, column]).view(np.uint64).tolist()
            rows = [(t, b) for t, b in zip(block.t_ms.tolist(), bits, strict=True) if b != ABSENT_BITS]
            if rows:
                found[block.check, series] = rows
    return found


class Pair:
    """A window with its store and the model beside them."""

    def __init__(self):
        self.model = Model()
        self.now = 1_764_000_000_000

    def report(self, window, store, check, samples, complete):
        named = [(Series(one.metric, (("check", check), *one.labels), one.kind), bits) for one, bits in samples]
        floats = [(one, float(np.uint64(bits).view(np.float64))) for one, bits in named]
        store.put(window.append(check, self.now, floats, complete=complete, stale_after_ms=STALE_AFTER_MS).rows)
        self.model.report(check, self.now, named, complete)

    def play(self, window, store, operation):
        if operation[0] == "report":
            _, check, chosen, bits, complete, repeats, step_ms = operation
            for turn in range(repeats):
                self.now += step_ms
                samples = [(POOL[one], bits[(turn + place) % len(bits)]) for place, one in enumerate(chosen)]
                self.report(window, store, check, samples, complete)
        elif operation[0] == "grow":
            _, check, count, bits = operation
            for upto in range(1, count + 1):
                self.now += 5000
                self.report(window, store, check, [(one, bits) for one in POOL[-upto:]], True)
        elif operation[0] == "end":
            self.now += 5000
            store.put(window.end_check(operation[1], self.now).rows)
            self.model.end(operation[1], self.now)

    def compare(self, window, spans):
        for lo, hi in [(0, 10**9), *spans]:
            lo_ms, hi_ms = self.now - hi, self.now - lo
            assert select(window, lo_ms, hi_ms) == self.model.select(lo_ms, hi_ms)
        for check in CHECKS:
            running = [key for key, rows in self.model.rows.items() if key[0] == check and rows[-1][1] != STALE_BITS]
            assert window.series_count(check) == len(running)


async def play(path, operations, spans):
    pair = Pair()
    for process in split(operations):
        window = Window(memory_bytes=20_000)  # so small that chunks are read back
        async with open_samples(path, window) as store:
            pair.compare(window, spans)
            for operation in process:
                pair.play(window, store, operation)
            pair.compare(window, spans)
    window = Window()
    async with open_samples(path, window) as store:
        pair.compare(window, spans)
        assert store.verify() == []


def split(operations):
    """The operations of each process: a restart begins a new one."""
    processes = [[]]
    for operation in operations:
        if operation[0] == "restart":
            processes.append([])
        else:
            processes[-1].append(operation)
    return processes


@settings(max_examples=60, deadline=None)
@given(operations, st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**7)), max_size=3))
def test_what_is_selected_is_what_was_reported_across_seals_regroupings_and_restarts(operations, spans):
    with tempfile.TemporaryDirectory() as directory:
        trio.run(play, Path(directory) / "samples.db", operations, spans)
