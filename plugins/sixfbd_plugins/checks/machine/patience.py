"""Readings that may block for ever, each in a thread of its own and within a limit: one that hangs costs that thread alone.

Remembers which readings have not come back and begins none of them a second time: a dead NFS server, or a process that
the kernel holds, takes one thread for as long as it hangs, however often the check runs.
"""

from collections.abc import Callable
from typing import TypeVar

import trio

from sixfbd.plugin import show_duration

T = TypeVar("T")


class NoAnswerError(Exception):
    """A reading has not come back; the text says since when."""


class Patience:
    """The readings of one check, by name."""

    def __init__(self) -> None:
        self._out: set[str] = set()

    async def read(self, name: str, reading: Callable[[], T], limit_s: float) -> T:
        """Return what `reading` returns or raise what it raises; NoAnswerError if not within the limit, or still not."""
        if name in self._out:
            raise NoAnswerError("still does not answer")

        def read() -> T:
            self._out.add(name)
            try:
                return reading()
            finally:
                self._out.discard(name)

        with trio.move_on_after(limit_s):
            # A limiter of its own: the check's threads must not run out because of readings that hang.
            return await trio.to_thread.run_sync(read, abandon_on_cancel=True, limiter=trio.CapacityLimiter(1))
        raise NoAnswerError(f"no answer within {show_duration(round(limit_s, 2))}")
