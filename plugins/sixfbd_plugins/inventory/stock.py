"""What a source says of the tickets of one city and tier, and reading it from JSON or from rows. Pure.

A reading is whole or it is none: of a row that cannot be read nobody knows whether it was the one that sold out.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Protocol

from msgspec import Struct

MOST_STOCKS: Final = 300  # cities times tiers: what is remembered of them has to fit into a cursor
MAX_NAME: Final = 100  # characters of a city or a tier
MAX_TICKETS: Final = 100_000_000
COLUMNS: Final = ("city", "tier", "available", "sold", "limit")


class SourceError(Exception):
    """The stock cannot be read: nothing is known of it. The text says what and why, and shows no secret."""


class Stock(Struct, frozen=True):
    """Tickets of one city and tier. `available` is negative where more were sold than there are; None: not told."""

    city: str
    tier: str
    available: int
    sold: int | None = None
    limit: int | None = None


class Dates(Struct, frozen=True):
    """When an event begins and when its tickets are sold no longer, unix seconds; None: not known."""

    starts_at: float | None = None
    sales_close_at: float | None = None

    @property
    def closes_at(self) -> float | None:
        return self.starts_at if self.sales_close_at is None else self.sales_close_at


class Reading(Struct, frozen=True):
    """All that one look at a source told."""

    stocks: tuple[Stock, ...]
    dates: Mapping[str, Dates] = {}


class Source(Protocol):
    """One place where stock is read."""

    async def read(self) -> Reading:
        """Return the stock as it is now. Raises SourceError."""
        ...


def parse_time(text: str) -> float:
    """Return a time with its offset in unix seconds. Raises ValueError with the mend."""
    mend = f"{text!r} is not a time with its offset; write 2026-03-14T18:00:00-06:00"
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(mend) from None
    if at.tzinfo is None:
        raise ValueError(mend)
    return at.timestamp()


def reading_of_document(document: Any) -> Reading:
    """Read JSON: rows, cities in the shape of the seed, or a mapping of city to status; below `data` or `cities` or not.

    A row is {city, tier, available, sold, limit}. A city is {cityId, status{publicAvailable{ga}, sold{ga},
    publicLimits{ga}}, startsAt, salesCloseAt}, its status also beside cityId. Raises SourceError.
    """
    document = _unwrapped(document)
    if isinstance(document, Mapping):
        document = [{"cityId": city, "status": status} for city, status in document.items()]
    if not isinstance(document, Sequence) or isinstance(document, str):
        raise SourceError(f"the answer is {_kind(document)}, not a list of cities nor an object of them")
    stocks: list[Stock] = []
    dates: dict[str, Dates] = {}
    for place, entry in enumerate(document):
        if not isinstance(entry, Mapping):
            raise SourceError(f"entry {place} is {_kind(entry)}, not an object")
        if "tier" in entry:
            stocks.append(stock_of_row(entry, f"entry {place}"))
        else:
            stocks += _of_city(entry, f"entry {place}", dates)
    return whole(stocks, dates)


def stock_of_row(row: Mapping[str, Any], where: str) -> Stock:
    """Read a row whose columns are named as COLUMNS, or cityId for the city. Raises SourceError."""
    city = _name(row.get("city", row.get("cityId")), f"{where}: city")
    tier = _name(row.get("tier"), f"{where}: tier")
    at = f"{city} {tier}"
    counts = {name: _count(row.get(name), f"{at}: {name}") for name in COLUMNS[2:]}
    return _stock(city, tier, counts["available"], counts["sold"], counts["limit"])


def whole(stocks: Sequence[Stock], dates: Mapping[str, Dates] | None = None) -> Reading:
    """Return a reading of these stocks. Raises SourceError if there are none, too many, or two of one city and tier."""
    if not stocks:
        raise SourceError("it holds no stock at all")
    if len(stocks) > MOST_STOCKS:
        raise SourceError(f"it holds {len(stocks)} cities and tiers, more than {MOST_STOCKS}")
    seen: set[tuple[str, str]] = set()
    for one in stocks:
        if (one.city, one.tier) in seen:
            raise SourceError(f"{one.city} {one.tier} stands there twice; add them up, or name one")
        seen.add((one.city, one.tier))
    return Reading(tuple(stocks), dates or {})


def _unwrapped(document: Any) -> Any:
    for key in ("data", "cities"):
        if isinstance(document, Mapping) and isinstance(document.get(key), Mapping | list):
            document = document[key]
    return document


def _of_city(entry: Mapping[str, Any], where: str, dates: dict[str, Dates]) -> Iterable[Stock]:
    city = _name(entry.get("cityId", entry.get("city")), f"{where}: cityId")
    inner = entry.get("status")
    status = inner if isinstance(inner, Mapping) else entry
    parts = [_tiers(status, key, city) for key in ("publicAvailable", "sold", "publicLimits")]
    available, sold, limits = parts
    tiers = dict.fromkeys(tier for part in parts for tier in part)
    if not tiers:
        raise SourceError(f"{city}: there is neither publicAvailable nor sold and publicLimits")
    given = [_time(entry.get(key, status.get(key)), f"{city}: {key}") for key in ("startsAt", "salesCloseAt")]
    if any(one is not None for one in given):
        dates[city] = Dates(*given)
    return [_stock(city, tier, available.get(tier), sold.get(tier), limits.get(tier)) for tier in tiers]


def _tiers(status: Mapping[str, Any], key: str, city: str) -> dict[str, int]:
    given = status.get(key)
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise SourceError(f"{city}: {key} is {_kind(given)}, not an object of tiers")
    counts = {_name(tier, f"{city}: tier"): _count(value, f"{city} {tier}: {key}") for tier, value in given.items()}
    return {tier: count for tier, count in counts.items() if count is not None}


def _stock(city: str, tier: str, available: int | None, sold: int | None, limit: int | None) -> Stock:
    if available is None:
        if sold is None or limit is None:
            raise SourceError(f"{city} {tier}: there is neither what is available nor both what is sold and the limit")
        available = limit - sold
    return Stock(city, tier, available, sold, limit)


def _name(value: Any, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MAX_NAME:
        raise SourceError(f"{where} is {_kind(value)}, not a text of 1 to {MAX_NAME} characters")
    return value


def _count(value: Any, where: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__int__") or isinstance(value, str) or value != value:
        raise SourceError(f"{where} is {_kind(value)}, not a number of tickets")
    if not -MAX_TICKETS <= value <= MAX_TICKETS or int(value) != value:
        raise SourceError(f"{where} is {value}, not a number of tickets")
    return int(value)


def _time(value: Any, where: str) -> float | None:
    if value is None:
        return None
    try:
        return parse_time(value)
    except (TypeError, ValueError):
        raise SourceError(f"{where} is no time with its offset such as 2026-03-14T18:00:00-06:00") from None


def _kind(value: Any) -> str:
    names = {bool: "true or false", str: "a text", list: "a list", dict: "an object", type(None): "missing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
