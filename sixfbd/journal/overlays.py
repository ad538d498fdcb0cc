"""Dicts, groups and timers of which a draft can be made: the draft keeps what it changes until it is merged.

A draft reads through to what it was made of and costs nothing beyond its own changes, so that a round of the judge may be
dropped whole when its commit fails. Only the owner of the original merges; while a draft lives, nothing else may change it.
"""

import heapq
from collections.abc import Callable, Hashable, Iterator
from enum import Enum
from typing import Any, Final, Generic, Protocol, TypeVar

K = TypeVar("K", bound=Hashable)
G = TypeVar("G", bound=Hashable)
V = TypeVar("V")


class _Gone(Enum):
    GONE = 0


GONE: Final = _Gone.GONE


class Overlay(Generic[K, V]):
    """A dict that can be drafted. Iterates its keys, in no order that means anything: sort where the order shows."""

    __slots__ = ("_own", "_under")

    def __init__(self, under: "Overlay[K, V] | None" = None) -> None:
        self._under = under
        self._own: dict[K, V | _Gone] = {}

    def get(self, key: K) -> V | None:
        found = self._own.get(key)
        if found is None:
            return None if self._under is None else self._under.get(key)
        return None if found is GONE else found

    def __getitem__(self, key: K) -> V:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    def __contains__(self, key: K) -> bool:
        return self.get(key) is not None

    def __setitem__(self, key: K, value: V) -> None:
        self._own[key] = value

    def drop(self, key: K) -> None:
        """Remove the key; nothing happens if it is not there."""
        if self._under is None:
            self._own.pop(key, None)
        elif key in self:
            self._own[key] = GONE

    def __iter__(self) -> Iterator[K]:
        if self._under is not None:
            yield from (key for key in self._under if key not in self._own)
        yield from (key for key, value in self._own.items() if value is not GONE)

    def __len__(self) -> int:
        if self._under is None:
            return len(self._own)
        return sum(1 for _ in self)

    def values(self) -> Iterator[V]:
        return (self[key] for key in self)

    def draft(self) -> "Overlay[K, V]":
        return Overlay(self)

    def merge(self, draft: "Overlay[K, V]") -> None:
        """Take over what the draft changed; the draft must not be used afterwards."""
        for key, value in draft._own.items():
            if value is GONE:
                self.drop(key)
            else:
                self._own[key] = value

    def clear(self) -> None:
        for key in list(self):
            self.drop(key)


class Grouped(Generic[G, K]):
    """Keys by group, such as alert keys by rule; drafted group by group."""

    __slots__ = ("_own", "_under")

    def __init__(self, under: "Grouped[G, K] | None" = None) -> None:
        self._under = under
        self._own: dict[G, Overlay[K, bool]] = {}

    def add(self, group: G, key: K) -> None:
        self._writable(group)[key] = True

    def drop(self, group: G, key: K) -> None:
        self._writable(group).drop(key)

    def of(self, group: G) -> list[K]:
        found = self._find(group)
        return [] if found is None else list(found)

    def groups(self) -> list[G]:
        """Every group that has a key."""
        known = dict.fromkeys(self._own) if self._under is None else dict.fromkeys([*self._under._own, *self._own])
        return [group for group in known if self.of(group)]

    def draft(self) -> "Grouped[G, K]":
        return Grouped(self)

    def merge(self, draft: "Grouped[G, K]") -> None:
        for group, changed in draft._own.items():
            own = self._writable(group)
            own.merge(changed)
            if not len(own):
                del self._own[group]

    def clear(self) -> None:
        for group in self.groups():
            self._writable(group).clear()

    def _find(self, group: G) -> Overlay[K, bool] | None:
        if group in self._own:
            return self._own[group]
        return None if self._under is None else self._under._find(group)

    def _writable(self, group: G) -> Overlay[K, bool]:
        if group not in self._own:
            self._own[group] = Overlay(None if self._under is None else self._under._find(group))
        return self._own[group]


class Comparable(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


D = TypeVar("D", bound=Comparable)


class Timers(Generic[D]):
    """Times by key as a heap that is never searched: an entry counts only while `current(key)` still says its time.

    `current` is passed to each call, because a draft and its original answer differently.
    """

    __slots__ = ("_heap", "_under")

    def __init__(self, under: "Timers[D] | None" = None) -> None:
        self._under = under
        self._heap: list[tuple[float, D]] = []

    def add(self, at: float, key: D) -> None:
        heapq.heappush(self._heap, (at, key))

    def first(self, current: Callable[[D], float | None]) -> float | None:
        """Return the earliest time that counts, or None."""
        return next((at for at, _ in self._in_order(current)), None)

    def due(self, now: float, limit: int, current: Callable[[D], float | None]) -> list[tuple[float, D]]:
        """Return at most `limit` entries that count and are due, earliest first, each once."""
        found: dict[tuple[float, D], None] = {}
        for entry in self._in_order(current):
            if entry[0] > now or len(found) == limit:
                break
            found[entry] = None
        return list(found)

    def draft(self) -> "Timers[D]":
        return Timers(self)

    def merge(self, draft: "Timers[D]", current: Callable[[D], float | None]) -> None:
        """Take over the draft's entries and let go of those at the front that no longer count."""
        for entry in draft._heap:
            heapq.heappush(self._heap, entry)
        while self._heap and current(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def _in_order(self, current: Callable[[D], float | None]) -> Iterator[tuple[float, D]]:
        """Walk both heaps from the front without popping: an entry's children come after it."""
        heaps = [self._heap] if self._under is None else [self._heap, self._under._heap]
        front = [(heap[0], which, 0) for which, heap in enumerate(heaps) if heap]
        heapq.heapify(front)
        while front:
            entry, which, index = heapq.heappop(front)
            if current(entry[1]) == entry[0]:
                yield entry
            for child in (2 * index + 1, 2 * index + 2):
                if child < len(heaps[which]):
                    heapq.heappush(front, (heaps[which][child], which, child))
