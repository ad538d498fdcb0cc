"""How many messages a target gets: budgets an hour and a day, and what becomes of what is over them. Pure.

A message beyond its budget is none of its own: what it would carry waits, and goes in one digest, which says how many more
there are and where to look. A part is kept for what is critical. Notices of one kind have a budget of their own.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from sixfbd.config.tables import DEFAULT_BUDGETS, BudgetTable, Channel, Config
from sixfbd.model import Target

HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0


class Limit(Struct, frozen=True):
    """At most `most` messages within any `window_s`."""

    most: int
    window_s: float


class Budget(Struct, frozen=True):
    """What a target may get; the last `reserve` of each limit are for what is critical and for digests."""

    limits: tuple[Limit, ...]
    reserve: int = 0

    @property
    def digest_s(self) -> float:
        """What lies between two digests that come out of the reserve."""
        return min(limit.window_s for limit in self.limits)

    def has_room(self, spent: Sequence[float], now: float, *, urgent: bool) -> bool:
        """Tell whether one more message may go now; `spent` are the times of those before, oldest first."""
        return self.free_at(spent, now, urgent=urgent) <= now

    def free_at(self, spent: Sequence[float], now: float, *, urgent: bool) -> float:
        """Return from when on one more message may go, `now` if it may at once."""
        return max([now, *(self._free_at(limit, spent, now, urgent) for limit in self.limits)])

    def _free_at(self, limit: Limit, spent: Sequence[float], now: float, urgent: bool) -> float:
        most = limit.most if urgent else max(1, limit.most - self.reserve)
        lately = [at for at in spent if at > now - limit.window_s]
        return lately[-most] + limit.window_s if len(lately) >= most else now

    def left(self, spent: Sequence[float], now: float) -> int:
        """Return how many more messages may go now, those for what is critical among them."""
        return min(limit.most - sum(at > now - limit.window_s for at in spent) for limit in self.limits)


def budget_of(kind: str, channel: Channel) -> Budget | None:
    """Return the budget of each target of a receiver's channel, None if it has none."""
    usual = DEFAULT_BUDGETS.get(kind, BudgetTable())
    hour = usual.per_hour if channel.per_hour is None else channel.per_hour
    day = usual.per_day if channel.per_day is None else channel.per_day
    limits = tuple(Limit(most, window_s) for most, window_s in ((hour, HOUR_S), (day, DAY_S)) if most)
    if not limits:
        return None
    least = min(limit.most for limit in limits)
    reserve = min(usual.reserve, 2 * least // 3) if channel.reserve is None else channel.reserve
    return Budget(limits, reserve)


def budgets_of(config: Config) -> dict[Target, Budget]:
    """Return the budgets of all targets that have one."""
    return {
        Target(receiver, channel.via, address): budget
        for receiver, channels in config.receivers.items()
        for kind, channel in channels.items()
        if (budget := budget_of(kind, channel)) is not None
        for address in channel.to
    }


def notice_budget(config: Config) -> Budget | None:
    """Return the budget of the notices of one kind to one target."""
    table = config.notices
    return Budget((Limit(table.most, float(table.within)),)) if table.most else None
