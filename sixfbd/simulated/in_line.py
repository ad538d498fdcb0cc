"""The daemon's threads made part of its loop, so that it runs on a clock that jumps: that clock passes by what threads do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from unittest import mock

import trio

from sixfbd import lifetime, upkeep
from sixfbd.journal.writer import Request, Writer
from sixfbd.running import Running
from sixfbd.world import EngineClock, RealWorld

CHECKPOINT_EVERY: Final = 2000  # writes; a WAL that nobody copies into the file grows for ever


class InlineWriter(Writer):
    """The journal's writer without its threads: what is put is written before `put` returns."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._puts = 0

    def put(self, request: Request) -> None:
        group = [request]
        self._write(group)
        self._write_again(group)
        self._answered(group, self._numbers)
        self._puts += 1
        if self._puts % CHECKPOINT_EVERY == 0:
            self._checkpoint()

    def stop(self) -> None:
        self._close()

    def _run(self) -> None:
        """Nobody writes but `put`."""

    def _checkpoint_on(self) -> None:
        """Nor copies."""


class SimulatedClock(EngineClock):
    """Engine time from `at` on; the wall clock is ahead of it by `ahead_s`."""

    def __init__(self, at: float) -> None:
        super().__init__(at)
        self.ahead_s = 0.0

    def wall(self) -> datetime:
        return datetime.fromtimestamp(self.now() + self.ahead_s, UTC)

    def at(self, trio_time: float) -> float:
        """Return the engine time of a time of trio's clock; also outside its loop."""
        return self._at(trio_time)


class SimulatedWorld(RealWorld):
    """Chance depends on the seed and the key alone."""

    def __init__(self, clock: EngineClock, seed: str) -> None:
        super().__init__(clock)
        self._entropy = seed.encode()[:64]


@contextmanager
def threads_in_line(pace_s: float) -> Iterator[None]:
    """As long as this lasts, what would run in a worker thread runs in line, and so does the journal's writer.

    Signals are for whoever simulates. The daemon reports on itself every `pace_s` seconds only: as often as it does it
    would take most of the time.
    """

    async def run_sync(fn: Callable[..., Any], *args: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return fn(*args)

    async def collect_nothing() -> None:
        """A look at everything that lives each five simulated minutes would take most of the time."""

    async def obey_none(running: Running) -> None:
        await trio.sleep_forever()

    with (
        mock.patch.object(trio.to_thread, "run_sync", run_sync),
        mock.patch("sixfbd.journal.database.Writer", InlineWriter),
        mock.patch.object(lifetime, "obey_signals", obey_none),
        mock.patch.object(upkeep, "collect_garbage", collect_nothing),
        mock.patch.object(upkeep, "INTERVAL_S", pace_s),
        mock.patch.object(upkeep, "ALIVE_S", pace_s),
    ):
        yield
