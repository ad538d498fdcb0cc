"""A bell: wakes all who wait for something to have changed; nobody is kept waiting for somebody who does not listen."""

import trio


class Bell:
    """A number that grows at every ring. For one event loop."""

    def __init__(self) -> None:
        self.generation = 0
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake all who wait."""
        self.generation += 1
        self._rung.set()
        self._rung = trio.Event()

    async def wait(self, generation: int) -> int:
        """Return the generation once it is above the given one."""
        while self.generation <= generation:
            await self._rung.wait()
        return self.generation
