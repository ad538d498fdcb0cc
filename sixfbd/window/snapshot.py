"""The seam between the window and its readers: matchers and the Snapshot protocol."""

from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec import Struct

from sixfbd.window.blocks import Block


class Matcher(Struct, frozen=True):
    """One label matcher; `name` may be `__name__`. Regular expressions are RE2 and anchored at both ends."""

    name: str
    op: Literal["=", "!=", "=~", "!~"]
    value: str


class Snapshot(Protocol):
    """An immutable view of all series at one moment; cheap to take, usable from any thread."""

    def select(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> list[Block]:
        """Return the samples with `lo_ms <= t <= hi_ms` of every series that matches; each series in exactly one block.

        Step series come in blocks of their own and reach back to the row that holds at `lo_ms`. A series with no sample
        in the span may be left out. May read chunks from disk: not for the event loop unless `loaded` says so.
        """
        ...

    def points(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> int:
        """Return an upper bound of the number of samples that `select` would return, without reading any."""
        ...

    def loaded(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> bool:
        """Tell whether `select` would read nothing from disk."""
        ...

    def look_back_ms(self, matchers: Sequence[Matcher]) -> int:
        """Return the largest `stale_after_ms` of the series that match, step series apart; 0 if there are none.

        How far before an instant a select has to reach so that no value that still holds is missed.
        """
        ...
