"""What passes between the window and samples.db: what is to be written, what was stored, and what is read back.

Values only. The window makes writes, `sixfbd.journal.samples` keeps them in their order; a definition (series, layout)
comes before the first frame that needs it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from sixfbd.model import LayoutId, Series, SeriesId
from sixfbd.window.blocks import Times, Values


class NewSeries(Struct, frozen=True):
    """A series got its id."""

    id: SeriesId
    series: Series


class NewLayout(Struct, frozen=True):
    """A layout began. `last` is what is known of its columns beforehand: see `StoredLayout.last`."""

    id: LayoutId
    check: str
    series: tuple[SeriesId, ...]
    stale_after_ms: int
    last: bytes


class Frame(Struct, frozen=True):
    """One row of a layout: `values` is K float64, little endian."""

    layout: LayoutId
    t_ms: int
    values: bytes
    samples: int


class Seal(Struct, frozen=True):
    """Rows of a layout that became a chunk, in place of its frames of the same span.

    `released` is to be called once the chunk can be read from the file, or when it is given up; from any thread.
    """

    layout: LayoutId
    t_ms: Times
    v: Values
    last: bytes
    released: Callable[[], None]


class EndLayout(Struct, frozen=True):
    """No more rows will come."""

    id: LayoutId


class SetStaleAfter(Struct, frozen=True):
    """A check's series are stale after so long from now on."""

    check: str
    stale_after_ms: int


class SketchMinute(Struct, frozen=True):
    """The sketch of one series and minute (unix minutes), in place of the one before; `merge`: to be added to it."""

    series: SeriesId
    minute: int
    sketch: bytes
    merge: bool = False


class Forget(Struct, frozen=True):
    """Layouts that are to go, with what rows they have left, and series that no layout has left."""

    layouts: tuple[LayoutId, ...]
    series: tuple[SeriesId, ...]


Write: TypeAlias = NewSeries | NewLayout | Frame | Seal | EndLayout | SetStaleAfter | SketchMinute | Forget


class StoredLayout(Struct, frozen=True, eq=False):
    """A layout as it is in the file. Chunk spans and frames are in the order of their times.

    `last` is each column's last sample as of the last seal (or the beginning), times (K,) int64 and values (K,) float64
    in that order; ABSENT where there is none.
    """

    id: LayoutId
    check: str
    series: tuple[SeriesId, ...]
    stale_after_ms: int
    ended: bool
    last: bytes
    chunk_t0: Times
    chunk_t1: Times
    chunk_rows: npt.NDArray[np.int32]
    frame_t: Times
    frame_v: Values


class Stored(Struct, frozen=True, eq=False):
    """All that the window needs to go on after a restart."""

    series: Sequence[tuple[SeriesId, Series]]
    layouts: Sequence[StoredLayout]
    sketches: Sequence[tuple[SeriesId, int, bytes]]
    sketched: frozenset[SeriesId]
    next_series: int
    next_layout: int


class SampleSource(Protocol):
    """Where chunks and sketches are read back from; usable from any thread, blocks on the disk."""

    def chunk(self, layout: LayoutId, band: int, t0_ms: int) -> bytes | None:
        """Return the chunk that begins at `t0_ms`, None if there is none (any more)."""
        ...

    def sketches(self, series: SeriesId, lo_minute: int, hi_minute: int) -> list[tuple[int, bytes]]:
        """Return (minute, sketch) from `lo_minute` to `hi_minute`, both included."""
        ...


class StepSource(Protocol):
    """Where step series are read back from (`JournalDatabase` is one); usable from any thread, blocks on the disk."""

    def step_series(self) -> Sequence[tuple[Series, float, int]]:
        """Return every step series, its total, and the time of its last increment in ms."""
        ...

    def step_hours(self, series: Series, lo_ms: int, hi_ms: int) -> Sequence[tuple[int, float, Times, Values]]:
        """Return (hour_start_ms, total before it, times, increments) of the hours that start in `lo_ms`..`hi_ms` and of the
        last one that starts at or before `lo_ms`; oldest first, hours without increments left out."""
        ...
