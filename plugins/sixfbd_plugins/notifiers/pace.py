"""The pace of messages: so many a second to one place, and none while the provider asked for a pause."""

from typing import Final

from sixfbd.plugin import MINUTE, SECOND, Clock, TemporaryFailure

LONGEST_PAUSE_S: Final = 10 * MINUTE  # a wish for more may be a mistake, and an alert is worth another try
LONGEST_TURN_S: Final = 4 * SECOND  # who would wait for longer tries again later, and leaves the slot to others


class Pace:
    """`rate` messages a second to each place that messages go to (a channel, a sender)."""

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._next_at: dict[str, float] = {}
        self._held_until = 0.0

    async def turn(self, place: str = "") -> None:
        """Return when another message may go to a place; raises TemporaryFailure if that is too long to wait for."""
        now = self._clock.now()
        self._next_at = {name: at for name, at in self._next_at.items() if at > now}
        at = max(now, self._held_until, self._next_at.get(place, 0.0))
        if at - now > LONGEST_TURN_S:
            raise TemporaryFailure(f"more than {self._rate:g} messages a second (rate)", retry_after_s=at - now)
        self._next_at[place] = at + 1 / self._rate
        if at > now:
            await self._clock.sleep_until(at)

    def hold(self, wait_s: float, place: str | None = None) -> None:
        """Let nothing go to a place for so long (None: to any), as the provider asked; for LONGEST_PAUSE_S at most."""
        until = self._clock.now() + min(wait_s, LONGEST_PAUSE_S)
        if place is None:
            self._held_until = max(self._held_until, until)
        else:
            self._next_at[place] = max(self._next_at.get(place, 0.0), until)
