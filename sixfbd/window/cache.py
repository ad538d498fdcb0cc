"""A cache that forgets what was touched longest ago, bounded by bytes. Usable from any thread; knows nothing of samples."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class ByteLru(Generic[K, V]):
    """Keys to values; `put` forgets the ones touched longest ago until all sizes together are within `limit_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self._lock = threading.Lock()
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: K) -> V | None:
        """Return the value and count it as touched; None if it is not kept."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def peek(self, key: K) -> V | None:
        """Return the value without touching it; None if it is not kept."""
        found = self._kept.get(key)
        return None if found is None else found[0]

    def put(self, key: K, value: V, size_bytes: int) -> None:
        """Keep a value, in place of one of the same key. One larger than the limit is not kept."""
        with self._lock:
            old = self._kept.pop(key, None)
            if old is not None:
                self.size_bytes -= old[1]
            if size_bytes > self.limit_bytes:
                return
            self._kept[key] = (value, size_bytes)
            self.size_bytes += size_bytes
            self._shrink()

    def limit(self, limit_bytes: int) -> None:
        """Set another limit; what is above it is forgotten."""
        with self._lock:
            self.limit_bytes = limit_bytes
            self._shrink()

    def _shrink(self) -> None:
        while self.size_bytes > self.limit_bytes:
            _, (_, size) = self._kept.popitem(last=False)
            self.size_bytes -= size
