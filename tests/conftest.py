"""Fixtures that every room's tests share: an injected world without threads, chance or network."""

import random
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from sixfbd.plugin import Outbound
from sixfbd.world import EngineClock

pytest_plugins = ["sixfbd.testing"]  # the fixtures that authors of plugins have

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Begun in the background by a shell: what tests start would ignore Ctrl-C as well.
    signal.signal(signal.SIGINT, signal.default_int_handler)

STARTED_AT = 1_800_000_000.0


class QuietWorld:
    """A World on trio's clock whose chance depends on the key alone and whose threads run in line."""

    def __init__(self) -> None:
        self.clock = EngineClock(STARTED_AT)
        self._ids = 0

    def rng(self, *key: str) -> random.Random:
        return random.Random("\0".join(key))

    def new_id(self, *key: str) -> str:
        self._ids += 1
        return f"id-{self._ids:016d}"

    async def offload(self, fn: Callable[..., Any], *args: object) -> Any:
        await trio.lowlevel.checkpoint()
        return fn(*args)

    def outbound(self, service: str) -> Outbound:
        raise AssertionError(f"no test of this room goes out over HTTP, but {service} was asked for")

    def wall(self) -> datetime:
        return datetime.fromtimestamp(self.clock.now(), UTC)


@pytest.fixture
async def world() -> QuietWorld:
    return QuietWorld()
