"""Fixtures of the unit tests: a snapshot in memory, written as promtool writes its series."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import pytest

from sixfbd.model import Labels, Series, SeriesId, labels_of
from sixfbd.promql import matches
from sixfbd.window.blocks import ABSENT, STALE, Block
from sixfbd.window.snapshot import Matcher

_SERIES: Final = re.compile(r"\s*([a-zA-Z_:]\w*)?(\{[^}]*\})?\s*(.*)")
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')


class HasBlocks(Protocol):
    """What the tests read of a snapshot in memory."""

    blocks: list[Block]
    on_disk: bool
    selects: int


@dataclass(eq=False)
class MemorySnapshot:
    """`Snapshot` over blocks in memory; `on_disk` makes it say that its chunks are not loaded."""

    blocks: list[Block]
    on_disk: bool = False
    selects: int = 0

    def select(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> list[Block]:
        self.selects += 1
        return [_cut(block, columns, lo_ms, hi_ms) for block, columns in self._matching(matchers)]

    def points(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> int:
        cut = [_cut(block, columns, lo_ms, hi_ms) for block, columns in self._matching(matchers)]
        return sum(block.v.size for block in cut)

    def loaded(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> bool:
        return not self.on_disk

    def look_back_ms(self, matchers: Sequence[Matcher]) -> int:
        return max((b.stale_after_ms for b, _ in self._matching(matchers) if not b.step), default=0)

    def _matching(self, matchers: Sequence[Matcher]) -> list[tuple[Block, list[int]]]:
        columns = [[c for c, one in enumerate(block.series) if matches(matchers, one)] for block in self.blocks]
        return [(block, some) for block, some in zip(self.blocks, columns, strict=True) if some]


def _cut(block: Block, columns: list[int], lo_ms: int, hi_ms: int) -> Block:
    begin = int(np.searchsorted(block.t_ms, lo_ms))
    if block.step:  # back to the row that holds at the left edge
        begin = max(int(np.searchsorted(block.t_ms, lo_ms, side="right")) - 1, 0)
    rows = slice(begin, np.searchsorted(block.t_ms, hi_ms, side="right"))
    return Block(
        tuple(block.series[c] for c in columns),
        tuple(block.ids[c] for c in columns),
        block.t_ms[rows],
        np.ascontiguousarray(block.v[rows][:, columns]),
        block.stale_after_ms,
        block.check,
        block.step,
    )


def _parsed(line: str) -> tuple[str, Labels, str]:
    found = _SERIES.fullmatch(line)
    assert found is not None, line
    return found[1] or "", labels_of(dict(_LABEL.findall(found[2] or ""))), found[3]


def _values(text: str) -> list[float]:
    values: list[float] = []
    for mark in text.split():
        if repeated := re.fullmatch(r"(-?[\d.]+)([+-][\d.]+)x(\d+)", mark):
            start, more, times = float(repeated[1]), float(repeated[2]), int(repeated[3])
            values += [start + more * i for i in range(times + 1)]
        else:
            values.append({"_": ABSENT, "stale": STALE}.get(mark) or float(mark.replace("_", "0")))
    return values


@pytest.fixture
def snapshot_of() -> Callable[..., MemorySnapshot]:
    """Return `make(text, every_s=60, start_s=0, stale_after_s=300, check="test", steps="")`.

    `text`: a series a line, `name{label="x"} 1 2 _ stale 0+10x3`, one block for all lines, a row each `every_s` seconds.
    `steps`: step series, `name{...} 30:2 90:5` is 2 from second 30 on and 5 from second 90 on.
    """

    def make(
        text: str = "",
        *,
        every_s: float = 60,
        start_s: float = 0,
        stale_after_s: float = 300,
        check: str = "test",
        steps: str = "",
    ) -> MemorySnapshot:
        blocks = []
        lines = [_parsed(line) for line in text.splitlines() if line.strip()]
        if lines:
            columns = [_values(values) for _, _, values in lines]
            rows = max(map(len, columns))
            v = np.array([column + [ABSENT] * (rows - len(column)) for column in columns]).T.copy()
            times = ((start_s + every_s * np.arange(rows)) * 1000).astype(np.int64)
            names = tuple(Series(metric, labels) for metric, labels, _ in lines)
            ids = tuple(map(SeriesId, range(len(lines))))
            blocks.append(Block(names, ids, times, v, int(stale_after_s * 1000), check))
        for number, line in enumerate(line for line in steps.splitlines() if line.strip()):
            metric, labels, values = _parsed(line)
            pairs = [mark.split(":") for mark in values.split()]
            times = np.array([int(float(at) * 1000) for at, _ in pairs], dtype=np.int64)
            v = np.array([[float(value)] for _, value in pairs]).reshape(-1, 1)
            series = Series(metric, labels)
            blocks.append(Block((series,), (SeriesId(1000 + number),), times, v, 2**62, check, step=True))
        return MemorySnapshot(blocks)

    return make
