"""The `ledger` check and report: is every order paid, ticketed and confirmed? What is not, is told with its history.

Rebuilds its book from the journal's events at the start, and reads what came since. What does not add up is looked at for
UNSETTLED_S, however old the orders are that are looked at; its cursor names those orders, for the start after this one.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from sixfbd.plugin import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Check,
    Context,
    Duration,
    Event,
    Gauge,
    Json,
    PluginConfig,
    Reader,
    Report,
    ReportRequest,
    ReportType,
    Rule,
    Severity,
    Status,
    hookimpl,
)
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.figures import iso, latest
from sixfbd_plugins.ledger.book import SAID_OF, TYPES, Book, Entry, Kind, Patience, in_brief

PAGE: Final = 10_000  # events that a read returns at most
OVERLAP_S: Final = HOUR  # what comes later than that is found by a look farther back; also between parts of an order
SOURCES_S: Final = 28 * DAY  # how far back what is told of at all is looked for
FAR_BACK_S: Final = 5 * MINUTE  # between two looks as far back as the oldest order that waits for something
UNSETTLED_S: Final = 28 * DAY
MOST_UNSETTLED: Final = 200  # orders that the cursor names, the oldest: it is to stay small
MOST_ORDERS: Final = 100_000
RECENT: Final = 20

ORDERS = Gauge("ledger_orders", "Orders within the window, by whether they add up.", ("state",))
MISMATCHES = Gauge("ledger_mismatches", "Orders within the window that do not add up, by what is missing.", ("kind",))
DETAIL = Gauge(
    "ledger_mismatch_detail", "As ledger_mismatches, with what happened to some of them.", ("kind", "history")
)

LIMITS = Gauge("ledger_limit_seconds", "How long a part of an order may be missing.", ("part",))
COMPARES = Gauge("ledger_compares_amounts", "1 if what was paid must be the sale's amount.")


class LedgerOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `ledger` check."""

    window: Annotated[
        Duration, Meta(description="How old an order may be to be looked at.", ge=3600, le=7 * 86_400)
    ] = Duration(DAY)
    ticket_within: Annotated[Duration, Meta(description="From the payment to the ticket.", gt=0)] = Duration(5 * MINUTE)
    payment_within: Annotated[Duration, Meta(description="From the ticket to the word of the payment.", gt=0)] = (
        Duration(15 * MINUTE)
    )
    confirmation_within: Annotated[Duration, Meta(description="From the ticket to its confirmation.", gt=0)] = Duration(
        10 * MINUTE
    )
    compare_amounts: Annotated[
        bool,
        Meta(description="Whether what was paid must be the sale's amount; not where that leaves out taxes or fees."),
    ] = True

    @property
    def patience(self) -> Patience:
        """The limits as the book takes them."""
        return Patience(
            float(self.ticket_within),
            float(self.payment_within),
            float(self.confirmation_within),
            self.compare_amounts,
        )


class LedgerCheck(Check[LedgerOptions]):
    """Orders that are paid without a ticket, ticketed without a payment, paid otherwise than they cost, or not confirmed."""

    Options = LedgerOptions
    metrics = (ORDERS, MISMATCHES, DETAIL, LIMITS, COMPARES)
    interval = Duration(30 * SECOND)
    timeout = Duration(25 * SECOND)

    def __init__(self, options: LedgerOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._book = Book()
        self._read_until: float | None = None
        self._looked_far_at = 0.0
        self._unsettled: dict[str, float] = {}  # orders and when they were first heard of, as the cursor has them

    async def run(self, cursor: Json | None) -> Report:
        """Read what came, and say what does not add up. Degraded while anything does not."""
        now, book = self.ctx.clock.now(), self._book
        oldest = now - float(self.options.window)
        if self._read_until is None:
            self._unsettled = unsettled_of(cursor)
        first, since = self._read_until is None, self._since(now, oldest)
        book.take(await read(self.ctx.read, since, now + MINUTE))
        if first:
            await know_sources(book, self.ctx.read, now)
        self._read_until = now
        patience = self.options.patience
        book.forget(oldest, self._unsettled)
        book.forget(now - UNSETTLED_S)
        found = book.mismatches(now, patience)
        wrong = {one.entry.order: one.entry.first_at for one in found}
        before, self._unsettled = self._unsettled, wrong
        book.forget(oldest, wrong)
        by_kind: dict[Kind, list[Entry]] = {kind: [] for kind in SAID_OF}
        for one in found:
            by_kind[one.kind].append(one.entry)
        samples = [
            LIMITS(patience.ticket_s, part="ticket"),
            LIMITS(patience.payment_s, part="payment"),
            LIMITS(patience.confirmation_s, part="confirmation"),
            COMPARES(float(patience.compares_amounts)),
            ORDERS(len(book.entries) - len(wrong), state="matched"),
            ORDERS(len(wrong), state="mismatched"),
            *(MISMATCHES(len(orders), kind=kind) for kind, orders in by_kind.items()),
            *(DETAIL(len(orders), kind=kind, history=in_brief(orders)) for kind, orders in by_kind.items() if orders),
        ]
        said = [f"{len(orders)} {SAID_OF[kind]}" for kind, orders in by_kind.items() if orders]
        summary = "; ".join(said) or f"{len(book.entries)} orders add up"
        status = Status.DEGRADED if said else Status.HEALTHY
        changed = first or wrong.keys() != before.keys()
        return Report(status, summary, tuple(samples), cursor=cursor_of(wrong) if changed else None)

    def _since(self, now: float, oldest: float) -> float:
        """From when on to read: some time before the last look, and now and then before the oldest order that waits."""
        whole = oldest - OVERLAP_S  # an order over the edge is read whole, and let go of whole
        if self._read_until is None:
            return min(whole, *(at - OVERLAP_S for at in self._unsettled.values())) if self._unsettled else whole
        since = self._read_until - OVERLAP_S
        if now - self._looked_far_at >= FAR_BACK_S:
            self._looked_far_at = now
            waiting = self._book.mismatches(self._read_until, Patience(0.0, 0.0, 0.0))
            since = min([since, *(one.since - OVERLAP_S for one in waiting)])
        return min(since, whole) if since < oldest + OVERLAP_S else since


def cursor_of(unsettled: Mapping[str, float]) -> Json:
    """Return the orders that are to be looked at after a restart though they are old, and when they were first heard of."""
    return {"unsettled": dict(list(unsettled.items())[:MOST_UNSETTLED])}


def unsettled_of(cursor: Json | None) -> dict[str, float]:
    """Return what `cursor_of` wrote; nothing of what is none of it."""
    found = cursor.get("unsettled") if isinstance(cursor, dict) else None
    orders = found.items() if isinstance(found, dict) else ()
    return {order: float(at) for order, at in orders if isinstance(at, int | float)}


async def know_sources(book: Book, reader: Reader, now: float) -> None:
    """Tell a book what is told of at all, though not of its orders: what ended before them is missed."""
    earlier = Book()
    for kind, known in (("stripe_event", book.knows_payments), ("confirmation", book.knows_confirmations)):
        if not known:
            earlier.take(await reader.events(kind, now - SOURCES_S, now))
    book.knows_payments |= earlier.knows_payments
    book.knows_confirmations |= earlier.knows_confirmations


async def read(reader: Reader, start: float, end: float) -> list[Event]:
    """Return the ledger's events of a span, whole however many there are, up to MOST_ORDERS of each type."""
    found: list[Event] = []
    for kind in TYPES:
        spans, most = [(start, end)], len(found) + MOST_ORDERS
        while spans and len(found) < most:
            first, last = spans.pop()
            page = await reader.events(kind, first, last)
            if len(page) < PAGE or last - first < 1.0:
                found += page
            else:
                middle = (first + last) / 2
                spans += [(first, middle), (middle, last)]
    return found


async def ledger(request: ReportRequest) -> Mapping[str, Any]:
    """Orders of the timeframe: how many add up, those that do not with their histories, and whom a tier was sold to that is
    sold out already; with `about`, the history of that order."""
    book = Book()
    book.take(await read(request.read, request.start - OVERLAP_S, request.end + MINUTE))
    await know_sources(book, request.read, request.end)
    limits = {part: seconds for (part,), seconds in (await latest(request, "ledger_limit_seconds", ("part",))).items()}
    usual = Patience()
    patience = Patience(
        limits.get("ticket", usual.ticket_s),
        limits.get("payment", usual.payment_s),
        limits.get("confirmation", usual.confirmation_s),
        all((await latest(request, "ledger_compares_amounts", ())).values()),
    )
    if not request.about:
        book.forget(request.start)
    found = book.mismatches(request.end, patience)
    if request.about:
        entry = book.entries.get(request.about)
        return {
            "order": request.about,
            "history": None if entry is None else entry.history(),
            "missing": [SAID_OF[one.kind] for one in found if one.entry.order == request.about],
        }
    wrong = {one.entry.order for one in found}
    return {
        "orders": len(book.entries),
        "matched": len(book.entries) - len(wrong),
        "sources": {"payments": book.knows_payments, "confirmations": book.knows_confirmations},
        "mismatches": [
            {
                "order": one.entry.order,
                "missing": SAID_OF[one.kind],
                "since": iso(one.since),
                "history": one.entry.history(),
            }
            for one in found
        ],
        "oversold": await _oversold(request, book),
        "lastOrders": [
            entry.history()
            for entry in sorted(book.entries.values(), key=lambda one: one.first_at, reverse=True)[:RECENT]
        ],
    }


async def _oversold(request: ReportRequest, book: Book) -> list[dict[str, Any]]:
    """Return the orders that came last of each tier of which more was sold than there is, the newest first."""
    found = await latest(request, "inventory_oversold_tickets", ("city", "type"), "")
    return [
        {"city": city, "type": tier, "tickets": int(tickets), "order": entry.order, "history": entry.history()}
        for (city, tier), tickets in sorted(found.items())
        for entry in book.last_sold(city, tier, int(tickets))
    ]


def _rule(name: str, kind: Kind, severity: Severity, summary: str, impact: str, action: str) -> Rule:
    return default_rule(
        "payments",
        name,
        f'ledger_mismatch_detail{{kind="{kind}"}} > 0',
        summary,
        severity,
        describing=("history",),
        impact=impact,
        action=f"{action} {{{{ $labels.history }}}}",
    )


RULES: Final = (
    _rule(
        "PaidWithoutTicket",
        "paid_without_ticket",
        Severity.HIGH,
        "Orders that are paid and have no ticket: {{ $value | humanize }}",
        "Buyers have paid for nothing, and will ask their banks for the money.",
        "Make the tickets or refund them; sixfbctl ledger ORDER says more.",
    ),
    _rule(
        "TicketWithoutPayment",
        "ticket_without_payment",
        Severity.HIGH,
        "Orders that have tickets and are not paid: {{ $value | humanize }}",
        "Seats are given away.",
        "See at the provider whether the money came; sixfbctl ledger ORDER says more.",
    ),
    _rule(
        "PaidAmountDiffers",
        "amount_differs",
        Severity.MEDIUM,
        "Orders whose payments are not what their tickets cost: {{ $value | humanize }}",
        "Buyers were charged twice or too little, and the books do not add up.",
        "Compare them with the provider, and refund what was too much; sixfbctl ledger ORDER says more.",
    ),
    _rule(
        "ConfirmationMissing",
        "confirmation_missing",
        Severity.MEDIUM,
        "Orders whose buyers have no confirmation: {{ $value | humanize }}",
        "They do not know whether they have a seat, and buy again or call.",
        "Send it again; sixfbctl ledger ORDER says more.",
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `ledger`."""
    return {"ledger": LedgerCheck}


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rules of the ledger."""
    return RULES


@hookimpl
def sixfbd_reports(config: PluginConfig) -> Sequence[ReportType]:
    """The report `ledger`."""
    return (ReportType("ledger", ledger, doc="Orders: paid, ticketed and confirmed, and those that are not."),)
