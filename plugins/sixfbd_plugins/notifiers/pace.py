"""The pace of messages: so many a second to one place, none while the provider asked for a pause, alerts before notices."""

from typing import Final

from msgspec import Struct

from sixfbd.plugin import MINUTE, SECOND, Clock, Notification, OverPace

LONGEST_PAUSE_S: Final = 10 * MINUTE  # a wish for more may be a mistake, and an alert is worth another try
LONGEST_TURN_S: Final = 4 * SECOND  # who would wait for longer comes again later, and leaves the slot to others
KEPT_S: Final = MINUTE  # who does not come when it is his turn has a place no longer


class _Queue(Struct):
    """One place: when the next message may go there, and when the next that is not told yet when to come may come."""

    next_at: float = 0.0
    alerts_until: float = 0.0
    all_until: float = 0.0


class Pace:
    """`rate` messages a second to each place that messages go to (a channel, a sender).

    A message whose turn is far away is told when to come again, behind those that were told so before it; an alert, though,
    stands behind other alerts alone.
    """

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._queues: dict[str, _Queue] = {}
        self._turns: dict[str, float] = {}  # of messages that were told when to come, the earliest first but for alerts
        self._held_until = 0.0

    async def turn(self, notification: Notification, place: str = "") -> None:
        """Return when this message may go to a place; raises OverPace if that is too long to wait for."""
        now = self._clock.now()
        self._forget(now)
        queue = self._queues.setdefault(place, _Queue())
        is_notice = notification.status == "notice"
        at = max(now, self._held_until, queue.next_at)
        waits_for_alerts = is_notice and queue.alerts_until > at
        if self._turns.pop(notification.id, None) is None:
            at = max(at, queue.all_until if is_notice else queue.alerts_until)
        elif waits_for_alerts:
            at = queue.alerts_until
        if at - now > LONGEST_TURN_S or waits_for_alerts:
            self._turns[notification.id] = at
            queue.all_until = max(queue.all_until, at + 1 / self._rate)
            if not is_notice:
                queue.alerts_until = at + 1 / self._rate
            raise OverPace(f"more than {self._rate:g} messages a second (rate)", retry_after_s=at - now)
        queue.next_at = at + 1 / self._rate
        if at > now:
            await self._clock.sleep_until(at)

    def hold(self, wait_s: float, place: str | None = None) -> None:
        """Let nothing go to a place for so long (None: to any), as the provider asked; for LONGEST_PAUSE_S at most."""
        until = self._clock.now() + min(wait_s, LONGEST_PAUSE_S)
        if place is None:
            self._held_until = max(self._held_until, until)
        else:
            queue = self._queues.setdefault(place, _Queue())
            queue.next_at = max(queue.next_at, until)

    def _forget(self, now: float) -> None:
        if any(at + KEPT_S < now for at in self._turns.values()):
            self._turns = {message: at for message, at in self._turns.items() if at + KEPT_S >= now}
        if len(self._queues) > 1:
            ended = [name for name, queue in self._queues.items() if max(queue.next_at, queue.all_until) < now]
            for name in ended:
                del self._queues[name]
