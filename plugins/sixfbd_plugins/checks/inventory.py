"""The `inventory` check: stock by city and tier, its levels and milestones, and when it will be gone (SEED S4, S6, S7).

Owns the rules of stock and the events of milestones. What it remembers is its cursor, so that a milestone is told once,
restarts or not. A source that cannot be read leaves everything unknown: never is stock 0 because nobody answered.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct, field

from sixfbd.plugin import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Check,
    Context,
    Counter,
    Duration,
    Event,
    EventType,
    Gauge,
    Json,
    OptionFaults,
    PluginConfig,
    Report,
    ReportType,
    Rule,
    Sample,
    Severity,
    Status,
    hookimpl,
)
from sixfbd_plugins.business.forecast import Forecast
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.inventory.foresight import HISTORY_H, Foretold, Score, forecasts, made, scored
from sixfbd_plugins.inventory.http import HttpSource
from sixfbd_plugins.inventory.levels import (
    EDGES,
    CityOptions,
    Sale,
    TierLevels,
    TierMemory,
    crossed,
    in_words,
    levels_of,
    looked,
    oversold,
    unexplained,
)
from sixfbd_plugins.inventory.report import REPORTS
from sixfbd_plugins.inventory.sales import Hourly, hourly_sales, velocity
from sixfbd_plugins.inventory.series import EventsSource, PrometheusSource, counted
from sixfbd_plugins.inventory.sql import SqlSource
from sixfbd_plugins.inventory.stock import MOST_STOCKS, Dates, SourceError, Stock, parse_time
from sixfbd_plugins.ledger.book import Book, in_brief
from sixfbd_plugins.ledger.check import read

ORDERS_S: Final = DAY  # how far back the orders that oversold a tier are looked for
SCORED_D: Final = 14  # days before a sell-out whose forecasts are scored
FORGOTTEN_S: Final = 7 * DAY  # after which a tier that is no longer there is forgotten
MAX_SUMMARY: Final = 400  # characters
RECORD_S: Final = 60.0
REFUNDED: Final = "sum by (city, type) (increase(workshop_city_tickets_refunded_total[70m]))"

_TIER: Final = ("city", "type")
AVAILABLE = Gauge("inventory_tickets_available", "Tickets left to sell.", _TIER)
SOLD = Gauge("inventory_tickets_sold", "Tickets sold, as the stock says.", _TIER)
LIMIT = Gauge("inventory_tickets_limit", "Tickets that there are.", _TIER)
THRESHOLD = Gauge("inventory_threshold_tickets", "So many tickets left have this level.", ("city", "level", "type"))
ROSE = Gauge("inventory_stock_rose_timestamp_seconds", "When the stock was last seen to rise.", _TIER)
UNEXPLAINED = Gauge("inventory_unexplained_rise_tickets", "Tickets that came back in the last hour, no refund.", _TIER)
OVERSOLD = Gauge("inventory_oversold_tickets", "Tickets sold that there are not.", _TIER)
OVERSOLD_TO = Gauge(
    "inventory_oversold_detail", "As inventory_oversold_tickets if above 0, with the last orders.", (*_TIER, "orders")
)
CLOSED = Gauge("inventory_sales_closed", "1 if the sale is over.", _TIER)
CITY_LEFT = Gauge("inventory_city_tickets_remaining", "Tickets left of all tiers.", ("city",))
PER_HOUR = Gauge("inventory_tickets_per_hour", "Tickets sold in the last 24 hours, an hour.", ("city",))
HOURS_LEFT = Gauge(
    "inventory_hours_until_sellout", "Tickets left / tickets an hour; absent if none is sold.", ("city",)
)
FORECAST_HOURS = Gauge("inventory_forecast_hours", "Hours until all is sold, by the forecast.", ("city", "quantile"))
FORECAST_CHANCE = Gauge(
    "inventory_forecast_probability", "Chance that all is sold within that time.", ("city", "within")
)
SCORED = Counter("inventory_forecasts_scored_total", "Forecasts whose truth is known.", ("method",))
ERROR_HOURS = Counter("inventory_forecast_error_hours_total", "Hours by which those were off.", ("method",))
COVERED = Counter("inventory_forecasts_covered_total", "Forecasts whose interval of 80 % held the truth.")
PREDICTED = Gauge("inventory_predicted_sellout", "1 if that is less than 48 hours.", ("city",))


class InventoryOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of an `inventory` check; one of the sources is needed."""

    http: Annotated[HttpSource | None, Meta(description="Source: JSON over HTTP.")] = None
    sql: Annotated[SqlSource | None, Meta(description="Source: a query of a database.")] = None
    prometheus: Annotated[PrometheusSource | None, Meta(description="Source: series that a scrape brings.")] = None
    events: Annotated[EventsSource | None, Meta(description="Source: counted from sales and refunds.")] = None
    tiers: Annotated[dict[str, TierLevels], Meta(description="Thresholds and milestones, by tier.")] = field(
        default_factory=dict
    )
    cities: Annotated[dict[str, CityOptions], Meta(description="Dates and other thresholds, by city.")] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        with OptionFaults() as faults, faults.at("http"):
            if len(self.sources) != 1:
                raise ValueError("one source is needed, http, sql, prometheus or events; a check reads one")

    @property
    def sources(self) -> list[HttpSource | SqlSource | PrometheusSource | EventsSource]:
        return [one for one in (self.http, self.sql, self.prometheus, self.events) if one is not None]


class Memory(Struct, frozen=True):
    """The cursor: what is remembered of each city and tier, by their key; of each city, in `pending`, since when forecasts
    that wait for their truth were made; the hour of the last forecasts."""

    tiers: dict[str, TierMemory] = {}
    pending: dict[str, float] = {}
    forecast_hour: int = 0


class _Look(Struct, frozen=True):
    """One city and tier in one run."""

    stock: Stock
    before: TierMemory | None
    after: TierMemory
    levels: TierLevels
    is_closed: bool
    closes_at: float | None


class InventoryCheck(Check[InventoryOptions]):
    """Tickets left by city and tier: levels, milestones, velocity."""

    Options = InventoryOptions
    metrics = (
        AVAILABLE, SOLD, LIMIT, THRESHOLD, ROSE, UNEXPLAINED, OVERSOLD, OVERSOLD_TO, CLOSED, CITY_LEFT, PER_HOUR, HOURS_LEFT,
        PREDICTED, FORECAST_HOURS, FORECAST_CHANCE,
    )  # fmt: skip
    service = "inventory"
    interval = Duration(MINUTE)
    timeout = Duration(30 * SECOND)

    def __init__(self, options: InventoryOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        [source] = options.sources
        self._source = source.open(ctx)
        self._forecasts: dict[str, Forecast] = {}
        self._forecast_hour = 0  # in which these were made, by this process
        self._recorded: dict[str, tuple[Mapping[str, Any], float]] = {}  # by city, and when

    async def run(self, cursor: Json | None) -> Report:
        """Read the stock once. Unknown if any of it cannot be read."""
        memory, now = _remembered(cursor), self.ctx.clock.now()
        try:
            reading = await self._source.read()
            sales = await self._last_sales()
            refunded = await counted(self.ctx, REFUNDED)
            hour = int(now // HOUR)
            is_due = hour != self._forecast_hour
            hourly = await hourly_sales(self.ctx, HISTORY_H if is_due else 24, reading.stocks)
        except SourceError as error:
            return Report(Status.UNKNOWN, str(error)[:MAX_SUMMARY], reachable=False)
        looks = [self._look(stock, reading.dates, memory, sales, now) for stock in reading.stocks]
        samples = [sample for look in looks for sample in _samples(look, refunded, now)]
        samples += await self._oversold(looks, now)
        samples += _city_samples(looks, hourly)
        events = [event for look in looks for event in _milestones(look, now)]
        left = _open_cities(looks)
        if is_due:
            self._forecast_hour = hour
            closes = {one.stock.city: one.closes_at for one in looks if one.closes_at is not None}
            self._forecasts = await self.ctx.to_thread(
                forecasts, hourly, left, closes, now, ZoneInfo(self.ctx.timezone)
            )
        samples += [
            sample for city, one in self._forecasts.items() if left.get(city) for sample in _foretold(city, one)
        ]
        if hour != memory.forecast_hour:
            events += made(self._forecasts, hourly, left, now)
        pending, scores = await self._scored(memory.pending, looks, left, now)
        self._record(looks, now)
        after = msgspec.to_builtins(Memory(_kept(memory, looks, now), pending, hour))
        events += scores
        said = in_words([(look.stock, look.after) for look in looks])
        return Report(Status.HEALTHY, said[:MAX_SUMMARY], tuple(samples), tuple(events), after, reachable=True)

    def _look(
        self,
        stock: Stock,
        dates: Mapping[str, Dates],
        memory: Memory,
        sales: Mapping[tuple[str, str], Sale],
        now: float,
    ) -> _Look:
        city = self.options.cities.get(stock.city, CityOptions())
        levels = levels_of(stock.tier, self.options.tiers, city.tiers)
        before = memory.tiers.get(_key(stock))
        after = looked(before, stock, sales.get((stock.city, stock.tier)), levels, now)
        closes_at = _dates(city, dates.get(stock.city, Dates())).closes_at
        return _Look(stock, before, after, levels, closes_at is not None and now >= closes_at, closes_at)

    async def _oversold(self, looks: Sequence[_Look], now: float) -> list[Sample]:
        """Return what is oversold with the orders that came last, as far as sales were told within ORDERS_S."""
        too_many = {(look.stock.city, look.stock.tier): by for look in looks if (by := oversold(look.after))}
        if not too_many:
            return []
        book = Book()
        book.take(await read(self.ctx.read, now - ORDERS_S, now + MINUTE))
        return [
            OVERSOLD_TO(by, city=city, type=tier, orders=in_brief(book.last_sold(city, tier, by)))
            for (city, tier), by in too_many.items()
        ]

    async def _last_sales(self) -> dict[tuple[str, str], Sale]:
        """Return what the last sale of each city and tier said that remains."""
        remaining = await counted(self.ctx, "inventory_tickets_remaining")
        at = await counted(self.ctx, "timestamp(inventory_tickets_remaining)")
        return {key: Sale(round(count), at.get(key, 0.0)) for key, count in remaining.items()}

    async def _scored(
        self, pending: Mapping[str, float], looks: Sequence[_Look], left: Mapping[str, int], now: float
    ) -> tuple[dict[str, float], list[Event]]:
        """Score the forecasts of cities that are sold out now. Of those made before the stock rose no truth is known."""
        rose = {look.stock.city for look in looks if look.after.rose_at == now}
        waiting = {
            city: now if city in rose else pending.get(_short(city), now) for city, count in left.items() if count
        }
        scores: list[Event] = []
        for city, count in left.items():
            if not count and (since := pending.get(_short(city))) is not None:
                told = await self.ctx.read.events(FORECAST.name, max(since, now - SCORED_D * DAY), now)
                scores += scored(told, city, now)
        return {_short(city): since for city, since in waiting.items()}, scores

    def _record(self, looks: Sequence[_Look], now: float) -> None:
        """Write the records of SEED's name to the log, one for each city: when its stock is another one, and once a minute."""
        by_city: dict[str, dict[str, dict[str, int | None]]] = {}
        for look in looks:
            stock = look.stock
            tier = {"available": stock.available, "sold": stock.sold, "total": stock.limit}
            by_city.setdefault(stock.city, {})[stock.tier] = tier
        stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._recorded = {city: one for city, one in self._recorded.items() if city in by_city}
        for city, tiers in by_city.items():
            others = {tier: counts for tier, counts in tiers.items() if tier not in ("ga", "vip")}
            facts: dict[str, Any] = {tier: counts for tier, counts in tiers.items() if tier not in others}
            before, at = self._recorded.get(city, ({}, 0.0))
            if tiers == before and now - at < RECORD_S:
                continue
            self._recorded[city] = tiers, now
            self.ctx.log.info("inventory_metrics", cityId=city, **facts, others=others or None, timestamp=stamp)


def _remembered(cursor: Json | None) -> Memory:
    """Return what a cursor holds; of one that holds something else nothing: then no milestone is told at first sight."""
    try:
        return Memory() if cursor is None else msgspec.convert(cursor, Memory)
    except msgspec.ValidationError:
        return Memory()


def _key(stock: Stock) -> str:
    """A short name of a city and tier, however long theirs are: a cursor is bounded."""
    return _short(f"{stock.city}\0{stock.tier}")


def _short(name: str) -> str:
    return blake2b(name.encode(), digest_size=8).hexdigest()


def _kept(memory: Memory, looks: Sequence[_Look], now: float) -> dict[str, TierMemory]:
    """Return what is remembered: what was seen now, and for a while what is missing now, which may come back."""
    kept = {_key(look.stock): look.after for look in looks}
    missing = [key for key, before in memory.tiers.items() if key not in kept and now - before.seen_at < FORGOTTEN_S]
    return kept | {key: memory.tiers[key] for key in missing[: MOST_STOCKS - len(kept)]}


def _dates(city: CityOptions, told: Dates) -> Dates:
    """Return an event's dates: those of the configuration over those that the source tells."""
    starts_at = parse_time(city.starts_at) if city.starts_at else told.starts_at
    sales_close_at = parse_time(city.sales_close_at) if city.sales_close_at else told.sales_close_at
    return Dates(starts_at, sales_close_at)


def _samples(look: _Look, refunded: Mapping[tuple[str, str], float], now: float) -> list[Sample]:
    stock, after = look.stock, look.after
    at = {"city": stock.city, "type": stock.tier}
    samples = [
        AVAILABLE(stock.available, **at),
        UNEXPLAINED(unexplained(after, refunded.get((stock.city, stock.tier), 0.0), now), **at),
        OVERSOLD(oversold(after), **at),
        CLOSED(float(look.is_closed), **at),
        *(THRESHOLD(edge, level=name, **at) for name, edge in look.levels.edges.items()),
    ]
    if stock.sold is not None:
        samples.append(SOLD(stock.sold, **at))
    if stock.limit is not None:
        samples.append(LIMIT(stock.limit, **at))
    if after.rose_at:
        samples.append(ROSE(after.rose_at, **at))
    return samples


def _city_samples(looks: Sequence[_Look], hourly: Mapping[str, Hourly]) -> list[Sample]:
    """Return the velocities of cities whose tickets are on sale (SEED S7)."""
    samples: list[Sample] = []
    for city, left in _open_cities(looks).items():
        pace = velocity(hourly, city, left)
        samples += [CITY_LEFT(left, city=city), PER_HOUR(pace.per_hour, city=city)]
        samples.append(PREDICTED(float(pace.is_predicted), city=city))
        if pace.hours is not None:
            samples.append(HOURS_LEFT(pace.hours, city=city))
    return samples


def _foretold(city: str, one: Forecast) -> list[Sample]:
    quantiles = (("0.1", one.low_h), ("0.5", one.median_h), ("0.9", one.high_h))
    hours = [FORECAST_HOURS(hours, city=city, quantile=name) for name, hours in quantiles if hours is not None]
    chances = (("24h", one.within_24h), ("48h", one.within_48h))
    return [*hours, *(FORECAST_CHANCE(chance, city=city, within=span) for span, chance in chances)]


def _open_cities(looks: Sequence[_Look]) -> dict[str, int]:
    """Return the tickets left of each city that is still sold."""
    left: dict[str, int] = {}
    for look in looks:
        if not look.is_closed:
            left[look.stock.city] = left.get(look.stock.city, 0) + max(0, look.after.remaining)
    return left


def _milestones(look: _Look, now: float) -> list[Event]:
    """Return an event for each milestone that the stock fell to; one that is a level's edge is told by the alert."""
    if look.is_closed:
        return []
    edges = set(look.levels.edges.values())
    return [_milestone(look, one, now, one in edges) for one in crossed(look.before, look.after)]


def _milestone(look: _Look, milestone: int, now: float, is_covered: bool) -> Event:
    stock = look.stock
    data: dict[str, Any] = {
        "cityId": stock.city, "tier": stock.tier, "milestone": milestone, "remaining": look.after.remaining,
    }  # fmt: skip
    if is_covered:
        data["suppressed"] = "covered_by_alert"
    return Event(f"{_key(stock)}/{milestone}/{now:.3f}", MILESTONE.name, now, data)


# ---- events and rules ----------------------------------------------------------------------------------------------------


class Milestone(Struct, frozen=True, rename="camel"):
    """The tickets left fell to a milestone."""

    city_id: str
    tier: str
    milestone: int
    remaining: int


def _milestone_text(one: Milestone) -> str:
    tickets = "ticket" if one.remaining == 1 else "tickets"
    below = f" (milestone {one.milestone:,})" if one.remaining != one.milestone else ""
    return f"Milestone: {one.remaining:,} {tickets} left of {one.tier.upper()} {one.city_id}{below}"


def _scores(score: Score) -> Sequence[Sample]:
    samples = []
    for method, error in (("weighted", score.error_hours), ("seed", score.seed_error_hours)):
        if error is not None:
            samples += [SCORED(1, method=method), ERROR_HOURS(error, method=method)]
    return [*samples, COVERED(float(score.covered))]


FORECAST: Final = EventType(
    "inventory_forecast", Foretold, doc="In how many hours a city's tickets will be gone, as it looked then."
)
SCORE: Final = EventType(
    "inventory_forecast_score",
    Score,
    counts=_scores,
    metrics=(SCORED, ERROR_HOURS, COVERED),
    doc="By how much a forecast was off, now that the truth is known.",
)
MILESTONE: Final = EventType(
    "inventory_milestone",
    Milestone,
    notice="milestone",
    notice_severity=Severity.HIGH,
    notice_text=_milestone_text,
    notice_labels=lambda one: {"city": one.city_id, "tier": one.tier},
    example={"cityId": "dallas-2026-03", "tier": "ga", "milestone": 25, "remaining": 24},
    doc="The tickets left of a city and tier fell to a milestone.",
)

_AVAILABLE: Final = 'inventory_tickets_available{check!=""}'
_SALE: Final = (
    "(inventory_tickets_remaining unless on (city, type) (max by (city, type) (inventory_stock_rose_timestamp_seconds)"
    " > max by (city, type) (timestamp(inventory_tickets_remaining))))"
)
REMAINING: Final = f"clamp_min(min by (city, type) ({_AVAILABLE} or {_SALE}), 0)"
"""The lower of the stock and what the last sale said, which counts until the stock rises (SEED S16)."""


def _edge(level: str, ga: int, vip: int) -> str:
    """A threshold: the check's, else that of SEED S6, for shops of which only sales are known."""
    usual = " or ".join(
        f'inventory_tickets_remaining{{type=~"(?i){tier}"}} * 0 + {edge}' for tier, edge in (("ga", ga), ("vip", vip))
    )
    return f'(max by (city, type) (inventory_threshold_tickets{{level="{level}"}}) or max by (city, type) ({usual}))'


def _level(edge: str, severity: Severity, word: str) -> str:
    marked = f'label_replace({REMAINING} <= {edge}, "severity", "{severity}", "", "")'
    return f'label_replace({marked}, "level", "{word}", "", "")'


_LEVELS: Final = " or on (city, type) ".join(
    _level(_edge(name, ga, vip), severity, word)
    for name, ga, vip, severity, word in (
        (EDGES[2], 0, 0, Severity.CRITICAL, "SOLD OUT"),
        (EDGES[1], 5, 2, Severity.HIGH, "CRITICAL"),
        (EDGES[0], 10, 5, Severity.MEDIUM, "LOW"),
    )
)
_CLOSED: Final = "(max by (city, type) (inventory_sales_closed) == 1)"
_TIER_NAME: Final = "{{ $labels.city }} {{ $labels.type | toUpper }}"


_rule: Final = partial(default_rule, "inventory")

RULES: Final = (
    _rule(
        "InventoryLow",
        f'label_replace({_CLOSED}, "ended", "sales_closed", "", "") or on (city, type) {_LEVELS}',
        f"🚨 INVENTORY {{{{ $labels.level }}}}: {_TIER_NAME} - {{{{ $value }}}} tickets remaining",
        None,
        describing=("ended", "level", "severity"),
        once=('level="SOLD OUT"',),
        action="Raise the limit if there is room, or stop what sends buyers there.",
    ),
    _rule(
        "InventoryOversold",
        "inventory_oversold_detail > 0 or on (city, type) inventory_oversold_tickets > 0",
        f"🚨 OVERSOLD: {_TIER_NAME} by {{{{ $value }}}} tickets",
        Severity.HIGH,
        impact="Buyers have paid for seats that there are not.",
        describing=("orders",),
        action="Close the sale of this tier now, then find seats for the last buyers or refund them (sixfbctl ledger). "
        "{{ $labels.orders }}",
    ),
    _rule(
        "InventoryRoseUnexplained",
        "inventory_unexplained_rise_tickets > 0",
        f"{{{{ $value }}}} tickets of {_TIER_NAME} came back within an hour, and no refund says why",
        Severity.MEDIUM,
        action="Ask who changed the stock by hand; if nobody did, the shop counts wrongly.",
    ),
    _rule(
        "InventorySourcesDisagree",
        f'label_replace(topk by (city, type) (1, {_AVAILABLE}), "most", "$1", "check", "(.+)")'
        f" - on (city, type) group_left (least) label_replace(bottomk by (city, type) (1, {_AVAILABLE}),"
        ' "least", "$1", "check", "(.+)") > 0',
        f"Sources disagree on {_TIER_NAME}: {{{{ $labels.most }}}} has {{{{ $value }}}} tickets more than {{{{ $labels.least }}}}",
        Severity.MEDIUM,
        for_s=5 * MINUTE,  # they are not read at the same moment
        describing=("check", "instance", "job", "least", "most"),
        impact="One of the sources sells what there is not, or keeps back what there is.",
        action="Compare both with the orders; the lower one is believed until they agree.",
    ),
    _rule(
        "InventorySelloutSoon",
        "inventory_hours_until_sellout < 24 and on (check, city) inventory_city_tickets_remaining > 0",
        '{{ $labels.city }} is sold out in {{ printf "%.1f" $value }} hours at the rate of the last 24 hours',
        Severity.MEDIUM,
        action="Decide about more seats, or about the price, before they are gone.",
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `inventory`."""
    return {"inventory": InventoryCheck}


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    """What the check tells."""
    return (MILESTONE, FORECAST, SCORE)


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rules of stock."""
    return RULES


@hookimpl
def sixfbd_reports(config: PluginConfig) -> Sequence[ReportType]:
    return REPORTS
