"""The window at one moment, for readers in any thread: `snapshot.Snapshot` over heads and chunks; chunks read back.

Takes no locks but the cache's. A chunk that the file no longer has (retention, or a disk that was too slow) holds no rows.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np

from sixfbd.model import LayoutId, SeriesId
from sixfbd.window.blocks import ABSENT, Block, Times, Values
from sixfbd.window.cache import ByteLru
from sixfbd.window.chunks import BAND, ChunkDamagedError, decode
from sixfbd.window.index import Group, Index, Part, Selection
from sixfbd.window.layouts import Layout, View
from sixfbd.window.snapshot import Matcher
from sixfbd.window.steps import StepView
from sixfbd.window.writes import SampleSource

Rows: TypeAlias = tuple[Times, Values]

_ENTRY_BYTES: Final = 300  # what a cached chunk costs beside its numbers


class ChunkReader:
    """Sealed chunks, from memory or else from `source`. Usable from any thread."""

    def __init__(self, limit_bytes: int) -> None:
        self.source: SampleSource | None = None
        self._cache: ByteLru[tuple[LayoutId, int, int], Rows] = ByteLru(limit_bytes)

    @property
    def size_bytes(self) -> int:
        """What the cache holds."""
        return self._cache.size_bytes

    def limit(self, limit_bytes: int) -> None:
        """Bound the cache anew, at once."""
        self._cache.limit(limit_bytes)

    def read(self, layout: Layout, t0_ms: int, band: int) -> Rows | None:
        """Return one band's rows, None if there are none any more. Raises ChunkDamagedError."""
        key = (layout.id, t0_ms, band)
        rows = self._cache.get(key)
        if rows is not None or self.source is None:
            return rows
        blob = self.source.chunk(layout.id, band, t0_ms)
        if blob is None:
            return None
        try:
            rows = decode(blob)
        except ChunkDamagedError as error:
            where = f"samples.db: chunk of layout {layout.id} (check {layout.check!r}), band {band}, from {t0_ms} ms"
            raise ChunkDamagedError(f"{where} is damaged: {error}; run `sixfbctl journal verify`") from error
        self._keep(key, rows)
        return rows

    def has(self, layout: Layout, t0_ms: int, band: int) -> bool:
        """Tell whether `read` would not go to the disk."""
        return self.source is None or t0_ms in layout.pinned or self._cache.peek((layout.id, t0_ms, band)) is not None

    def release(self, layout: Layout, t0_ms: int) -> None:
        """Move a pinned block into the cache."""
        rows = layout.pinned.get(t0_ms)
        if rows is None:
            return
        for band in range(-(-layout.width // BAND)):
            part = rows[1][:, band * BAND : (band + 1) * BAND]
            self._keep((layout.id, t0_ms, band), (rows[0].copy(), part.copy()))  # else the whole block stays
        layout.pinned.pop(t0_ms, None)

    def _keep(self, key: tuple[LayoutId, int, int], rows: Rows) -> None:
        self._cache.put(key, rows, rows[0].nbytes + rows[1].nbytes + _ENTRY_BYTES)


class WindowSnapshot:
    """`snapshot.Snapshot`: see there. Late events of step series older than two hours show in older snapshots as well."""

    __slots__ = ("_at", "_chunks", "_index", "_next_layout", "_stale_after", "_steps", "_views")

    def __init__(
        self,
        index: Index,
        chunks: ChunkReader,
        views: Mapping[LayoutId, View],
        next_layout: int,
        steps: Mapping[SeriesId, StepView],
        stale_after: Mapping[str, int],
    ) -> None:
        self._index = index
        self._at = index.changes
        self._chunks = chunks
        self._views = views
        self._next_layout = next_layout
        self._steps = steps
        self._stale_after = stale_after

    def select(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> list[Block]:
        """See `Snapshot.select`. Raises ValueError for a bad regular expression, JournalError or ChunkDamagedError."""
        selection = self._selection(matchers)
        blocks = [block for group in selection.groups if (block := self._block(group, lo_ms, hi_ms)) is not None]
        for entry in selection.steps:
            view = self._steps.get(entry.id)
            if view is not None and (block := view.select(lo_ms, hi_ms)) is not None:
                blocks.append(block)
        return blocks

    def points(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> int:
        """See `Snapshot.points`. Hours of step series that were not read yet count as a guess; `loaded` is False then."""
        selection = self._selection(matchers)
        total = 0
        for group in selection.groups:
            views = [self._view(part.layout) for part in group.parts]
            total += len(group.series) * sum(_rows_between(view, lo_ms, hi_ms) for view in views)
        views_of_steps = (self._steps.get(entry.id) for entry in selection.steps)
        return total + sum(view.points(lo_ms, hi_ms) for view in views_of_steps if view is not None)

    def loaded(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> bool:
        """See `Snapshot.loaded`."""
        selection = self._selection(matchers)
        for part in (part for group in selection.groups for part in group.parts):
            for t0_ms in self._view(part.layout).spans.overlapping(lo_ms, hi_ms):
                if not all(self._chunks.has(part.layout, t0_ms, band.number) for band in part.bands):
                    return False
        views = (self._steps.get(entry.id) for entry in selection.steps)
        return all(view is None or view.loaded(lo_ms, hi_ms) for view in views)

    def look_back_ms(self, matchers: Sequence[Matcher]) -> int:
        """See `Snapshot.look_back_ms`."""
        return max((self._stale_after[group.check] for group in self._selection(matchers).groups), default=0)

    def _selection(self, matchers: Sequence[Matcher]) -> Selection:
        return self._index.select(tuple(matchers), self._at, self._next_layout)

    def _view(self, layout: Layout) -> View:
        """A layout as it was: what had ended by then has only chunks, and gets no more of them."""
        return self._views.get(layout.id) or layout.view

    def _block(self, group: Group, lo_ms: int, hi_ms: int) -> Block | None:
        pieces: list[Rows] = []
        for part in group.parts:
            self._add_pieces(pieces, part, lo_ms, hi_ms)
        if not pieces:
            return None
        t_ms, v = pieces[0] if len(pieces) == 1 else _joined(pieces)
        t_ms.flags.writeable = v.flags.writeable = False
        return Block(group.series, group.ids, t_ms, v, self._stale_after[group.check], group.check)

    def _add_pieces(self, pieces: list[Rows], part: Part, lo_ms: int, hi_ms: int) -> None:
        head, rows, spans = self._view(part.layout)
        if lo_ms <= spans.last_ms:
            for t0_ms in spans.overlapping(lo_ms, hi_ms):
                chunk = self._chunk(part, t0_ms)
                if chunk is not None:
                    t_ms, v = chunk
                    first, end = int(t_ms.searchsorted(lo_ms)), int(t_ms.searchsorted(hi_ms, "right"))
                    pieces.append((t_ms[first:end], v[first:end]))
        first = bisect_left(head.times, lo_ms, 0, rows)
        end = bisect_right(head.times, hi_ms, first, rows)
        if first < end:
            v = head.v[first:end]
            pieces.append((head.t[first:end], v if part.columns is None else v.take(part.columns, axis=1)))

    def _chunk(self, part: Part, t0_ms: int) -> Rows | None:
        """Return the part's columns of one chunk."""
        pinned = part.layout.pinned.get(t0_ms)
        if pinned is not None:
            return pinned[0], pinned[1] if part.columns is None else pinned[1][:, part.columns]
        found: Rows | None = None
        for band in part.bands:
            rows = self._chunks.read(part.layout, t0_ms, band.number)
            if rows is None:
                continue
            t_ms, v = rows
            picked = v if band.columns is None else v[:, band.columns]
            if len(part.bands) == 1:
                return t_ms, picked
            if found is None:
                width = part.layout.width if part.columns is None else len(part.columns)
                found = t_ms, np.full((len(t_ms), width), ABSENT)
            found[1][:, band.into] = picked
        return found


def _joined(pieces: Sequence[Rows]) -> Rows:
    t_ms = np.concatenate([piece[0] for piece in pieces])
    v = np.concatenate([piece[1] for piece in pieces])
    if (np.diff(t_ms) > 0).all():
        return t_ms, v
    order = np.argsort(t_ms, kind="stable")  # two checks report the same series: of one time the later row counts
    order = order[np.append(np.diff(t_ms[order]) > 0, True)]
    return t_ms[order], v[order]


def _rows_between(view: View, lo_ms: int, hi_ms: int) -> int:
    head, rows, spans = view
    first = bisect_left(head.times, lo_ms, 0, rows)
    in_head = bisect_right(head.times, hi_ms, first, rows) - first
    return in_head + (spans.rows(lo_ms, hi_ms) if lo_ms <= spans.last_ms else 0)
