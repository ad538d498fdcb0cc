"""Thresholds and milestones of cities and tiers (SEED S4, S6), and what a look at the stock makes of them. Pure.

Owns what is remembered of a tier between two looks. Never asks anybody anything, never reads a clock.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct, field
from msgspec.structs import replace

from sixfbd.plugin import HOUR, OptionFaults
from sixfbd_plugins.inventory.stock import Stock, parse_time

RISES_S: Final = 1 * HOUR  # for so long a rise waits for a refund that tells why
MOST_RISES: Final = 2  # remembered of a tier; more are added to the last

Count = Annotated[int, Meta(ge=0)]


class TierLevels(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Thresholds of a tier; what is not given is that of the tier of this name in general, if there is one."""

    low: Annotated[Count | None, Meta(description="So many tickets left, or fewer, are low (medium).")] = None
    critical: Annotated[Count | None, Meta(description="So many, or fewer, are critical (high).")] = None
    sold_out: Annotated[Count | None, Meta(description="So many, or fewer, are sold out (critical).")] = None
    milestones: Annotated[
        tuple[Count, ...] | None, Meta(description="Each is told when the tickets left fall to it.")
    ] = None

    def __post_init__(self) -> None:
        with OptionFaults() as faults, faults.at("low"):
            edges = [edge for edge in (self.low, self.critical, self.sold_out) if edge is not None]
            if edges != sorted(edges, reverse=True):
                raise ValueError("is below critical, or critical below sold_out; low is the highest")

    def over(self, general: "TierLevels") -> "TierLevels":
        """Return these with what is missing taken from the general ones."""
        own = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        return replace(general, **own)

    @property
    def edges(self) -> dict[str, int]:
        """The thresholds that there are, by name."""
        named = {name: getattr(self, name) for name in EDGES}
        return {name: edge for name, edge in named.items() if edge is not None}


EDGES: Final = ("low", "critical", "sold_out")
DEFAULTS: Final[Mapping[str, TierLevels]] = {
    "ga": TierLevels(low=10, critical=5, sold_out=0, milestones=(25, 15, 10, 5, 2, 0)),
    "vip": TierLevels(low=5, critical=2, sold_out=0, milestones=(10, 5, 3, 1, 0)),
}
"""SEED S4 and S6."""


class CityOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What holds for one city."""

    tiers: Annotated[dict[str, TierLevels], Meta(description="Thresholds and milestones, by tier.")] = field(
        default_factory=dict
    )
    starts_at: Annotated[str, Meta(description="When it begins, such as 2026-03-14T18:00:00-06:00.")] = ""
    sales_close_at: Annotated[str, Meta(description="When no more is sold; by default when it begins.")] = ""

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            for key in ("starts_at", "sales_close_at"):
                with faults.at(key):
                    if text := getattr(self, key):
                        parse_time(text)


def levels_of(tier: str, *given: Mapping[str, TierLevels]) -> TierLevels:
    """Return a tier's thresholds; of several mappings a later one wins. Names are compared in small letters."""
    name, found = tier.lower(), TierLevels()
    for levels in (DEFAULTS, *given):
        own = next((one for key, one in levels.items() if key.lower() == name), None)
        found = found if own is None else own.over(found)
    return found


class TierMemory(Struct, frozen=True, array_like=True):
    """What is remembered of a tier: its last stock, which milestones were told, when and how it rose."""

    remaining: int
    available: int
    sold: int | None = None
    limit: int | None = None
    told: tuple[int, ...] = ()
    rose_at: float = 0.0
    rises: tuple[tuple[float, int], ...] = ()
    seen_at: float = 0.0


def looked(before: TierMemory | None, stock: Stock, sale: "Sale | None", levels: TierLevels, now: float) -> TierMemory:
    """Return what is remembered after a look at the stock.

    A sale's word of what remains counts if it is the lower one, until the stock rises after it. At first sight nothing
    is crossed: nobody knows what was told before.
    """
    rise = 0 if before is None else max(0, stock.available - before.available)
    rose_at = now if rise else 0.0 if before is None else before.rose_at
    remaining = stock.available
    if sale is not None and sale.at > rose_at:
        remaining = min(remaining, sale.remaining)
    milestones = levels.milestones or ()
    reached = {one for one in milestones if remaining <= one}
    return TierMemory(
        remaining, stock.available, stock.sold, stock.limit, tuple(sorted(reached)), rose_at,
        _rises(before, stock, rise, now), now,
    )  # fmt: skip


def crossed(before: TierMemory | None, after: TierMemory) -> list[int]:
    """Return the milestones that the stock fell to since, highest first; those above the total are none."""
    if before is None:
        return []
    new = set(after.told) - set(before.told)
    return sorted((one for one in new if after.limit is None or one <= after.limit), reverse=True)


def unexplained(memory: TierMemory, refunded: float, now: float) -> int:
    """Return the tickets that came back within the last hour and were not refunded in it."""
    risen = sum(count for at, count in memory.rises if now - at < RISES_S)
    return max(0, risen - round(refunded))


def oversold(memory: TierMemory) -> int:
    """Return how many tickets were sold that there are not."""
    beyond = memory.sold - memory.limit if memory.sold is not None and memory.limit is not None else 0
    return max(0, beyond, -memory.available)


class Sale(Struct, frozen=True):
    """The last sale that told what remains, and when that was."""

    remaining: int
    at: float


def _rises(before: TierMemory | None, stock: Stock, rise: int, now: float) -> tuple[tuple[float, int], ...]:
    """What a larger limit or fewer sold explain is no rise that has to be told."""
    if before is None:
        return ()
    known = [one for one in before.rises if now - one[0] < RISES_S]
    more = max(0, rise - _more(before.limit, stock.limit) - _more(stock.sold, before.sold))
    if more and len(known) >= MOST_RISES:
        return (*known[:-1], (known[-1][0], known[-1][1] + more))
    return (*known, (now, more)) if more else tuple(known)


def _more(one: int | None, other: int | None) -> int:
    return 0 if one is None or other is None else max(0, other - one)


def in_words(stocks: Sequence[tuple[Stock, TierMemory]]) -> str:
    """Return one line of what is left, the scarcest first."""
    scarce = sorted(stocks, key=lambda one: one[1].remaining)
    named = ", ".join(f"{stock.city} {stock.tier.upper()} {memory.remaining}" for stock, memory in scarce[:5])
    more = f" and {len(scarce) - 5} more" if len(scarce) > 5 else ""
    return f"tickets left: {named}{more}"
