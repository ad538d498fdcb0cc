"""Blocks: what a select returns and what PromQL reads. Arrays only; no I/O, no knowledge of the journal.

Two NaN bit patterns have a meaning in a value column: STALE (the series ended here, Prometheus' own pattern) and ABSENT
(no sample of this series in this row: the row belongs to other series of the layout). Any other NaN is a value.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from sixfbd.model import Series, SeriesId

STALE_BITS: Final = 0x7FF0000000000002  # Prometheus model/value.StaleNaN
ABSENT_BITS: Final = 0x7FF0000000000F0A
STALE: Final = float(np.array([STALE_BITS], dtype=np.uint64).view(np.float64)[0])
ABSENT: Final = float(np.array([ABSENT_BITS], dtype=np.uint64).view(np.float64)[0])
NEVER_STALE_MS: Final = 2**62

Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]


class Block(Struct, frozen=True, eq=False):
    """Samples of K series that share their times. Read-only.

    `t_ms` has shape (n,), strictly increasing; `v` has shape (n, K), with STALE and ABSENT by bit pattern.
    `stale_after_ms` is used in place of Prometheus' look-back (DESIGN section 5, Staleness).
    `step`: K = 1; the value holds from its time on until the next, is 0 before the first, and is never stale; the rows
    reach back to one row at or before the selected span, so that the value at its left edge is known.
    `check` is the name of the check that reported the series.
    """

    series: tuple[Series, ...]
    ids: tuple[SeriesId, ...]
    t_ms: Times
    v: Values
    stale_after_ms: int
    check: str
    step: bool = False


def is_stale(v: Values) -> npt.NDArray[np.bool_]:
    """Tell which values are the staleness marker."""
    stale: npt.NDArray[np.bool_] = v.view(np.uint64) == np.uint64(STALE_BITS)
    return stale


def is_absent(v: Values) -> npt.NDArray[np.bool_]:
    """Tell which places hold no sample."""
    absent: npt.NDArray[np.bool_] = v.view(np.uint64) == np.uint64(ABSENT_BITS)
    return absent
