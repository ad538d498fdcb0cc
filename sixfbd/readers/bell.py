"""A bell: wakes all who wait for something to have changed; nobody is kept waiting for somebody who does not listen."""

import trio


class Bell:
    """A number that grows at every ring. For one event loop."""

    def __init__(self) -> None:
        self.generation = 0
        self._waiting = trio.lowlevel.ParkingLot()

    def ring(self) -> None:
        """Wake all who wait."""
        self.generation += 1
        if self._waiting:
            self._waiting.unpark_all()

    async def wait(self, generation: int) -> int:
        """Return the generation once it is above the given one."""
        while self.generation <= generation:
            await self._waiting.park()
        return self.generation

    async def wait_at_most(self, generation: int, wait_s: float) -> None:
        """Return once the generation is above the given one, or after so many seconds."""
        with trio.move_on_after(wait_s):
            await self.wait(generation)
