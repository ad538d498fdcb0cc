"""Places of which there are only so many, taken without a turn of the event loop while one is free."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def taken(limiter: trio.CapacityLimiter) -> AsyncIterator[None]:
    """Hold one of the limiter's places for as long as the block lasts; those who wait get theirs in their order."""
    try:
        limiter.acquire_nowait()
    except trio.WouldBlock:
        await limiter.acquire()
    try:
        yield
    finally:
        limiter.release()
