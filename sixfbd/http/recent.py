"""Answers that many may have at once: made at most once in a while, by one of those who ask, for all of them."""

from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import trio

T = TypeVar("T")

MOST_KEYS: Final = 8  # keys come from clients (formats asked for); beyond this the oldest answer is forgotten


class Recent(Generic[T]):
    """One answer per key, kept for `keep_s` seconds. Whoever asks meanwhile waits for the one who makes it."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._made: dict[str, tuple[float, T]] = {}
        self._lock = trio.Lock()

    async def get(self, key: str, make: Callable[[], Awaitable[T]]) -> T:
        """Return the kept answer, or make it; what `make` raises is raised, and nothing is kept."""
        async with self._lock:
            kept = self._made.get(key)
            if kept is not None and trio.current_time() - kept[0] < self._keep_s:
                return kept[1]
            answer = await make()
            self._made.pop(key, None)
            self._made[key] = (trio.current_time(), answer)
            if len(self._made) > MOST_KEYS:
                del self._made[next(iter(self._made))]
            return answer
