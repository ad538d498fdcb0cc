"""The `payments` check: payments through Stripe by outcome, refunds, disputes, payouts, and its webhooks (SEED S9, S10).

Owns the rules of payments and the outcomes of payments as events. What happened at Stripe is read from its list of events,
span by span, and comes by webhooks as well; both bring the same events, and each is counted once. Only reads at Stripe.
"""

import time
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from sixfbd.plugin import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Check,
    Configured,
    Context,
    Duration,
    Event,
    EventType,
    FromEnvironment,
    Gauge,
    InvalidOptions,
    Json,
    OptionFaults,
    PluginConfig,
    Report,
    ReportType,
    Rule,
    Sample,
    Severity,
    Status,
    TemporaryFailure,
    hookimpl,
)
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.stripe import events, payments, position, webhooks
from sixfbd_plugins.stripe.account import PUBLIC_URL, Account, AccountOptions, Refused
from sixfbd_plugins.stripe.position import LATE_S, SPAN_S, Position
from sixfbd_plugins.stripe.report import REPORTS
from sixfbd_plugins.stripe.webhooks import Endpoint, Missing

API_PAGES: Final = 10  # of the list of events, in one page of ours
MOST_PAGES: Final = 45  # of ours in one run; the rest is read by the next
FOLDS: Final = 24  # spans without an outcome that one page of ours passes by
MOST_UNDELIVERED: Final = 5  # pages of undelivered events that are counted
MOST_DISPUTES: Final = 5  # pages of disputes
MOST_ENDED: Final = 4000  # outcomes in one report
MOST_READ: Final = 10_000  # events that a Reader returns at once
DISPUTED_S: Final = 120 * DAY  # older disputes are decided
THROTTLED_S: Final = 30 * SECOND  # how long Stripe is left alone if it does not say
MAX_SUMMARY: Final = 400
EXPECTED_FAILURES: Final = 0.05
FEW: Final = 20  # payments, or events: below, a rate says nothing

SERVICE_ERROR = Gauge("stripe_service_error", "1 if the last check had no usable answer from Stripe.")
SERVICE_FAILURES = Gauge("stripe_service_failures", "Checks in a row that found something wrong with Stripe.")
LATENCY = Gauge("stripe_api_latency_seconds", "How long Stripe took to answer the request for the balance.")
BALANCE = Gauge("stripe_balance_minor", "Balance of the account, in minor units.", labels=("currency", "kind"))
RECENT = Gauge("stripe_payments_recent", "Payments begun within the window, by latest state.", labels=("outcome",))
DAY_BEFORE = Gauge(
    "stripe_payments_day_before",
    "Payments of the same hours a day before, by the state that was their latest then.",
    labels=("outcome",),
)
RECENT_MINOR = Gauge(
    "stripe_payments_recent_minor",
    "What payments begun within the window brought, in minor units.",
    labels=("currency",),
)
RATIO = Gauge("stripe_payment_failure_ratio", "Failed payments, of those within the window that failed or succeeded.")
CHANCE = Gauge(
    "stripe_payment_failure_pvalue",
    "How likely at least so many failures are if one payment in 20 fails: the exact binomial tail.",
)
READ_UNTIL = Gauge("stripe_events_read_until_timestamp_seconds", "Events that were created before have been read.")
UNDELIVERED = Gauge("stripe_webhook_events_undelivered", "Events that no webhook brought in time, of the last while.")
UNDELIVERED_RATIO = Gauge(
    "stripe_webhook_failure_ratio", "The part of the events of the last while that is undelivered."
)
ENDPOINT_ENABLED = Gauge("stripe_webhook_endpoint_enabled", "0 if an endpoint gets no webhooks.", labels=("endpoint",))
MISSING = Gauge("stripe_webhooks_missing", "Events that Stripe has and our receiver never saw, 200 at most.")
DISPUTES_OPEN = Gauge("stripe_disputes_open", "Disputes that wait for an answer.")
DISPUTE_DUE = Gauge("stripe_dispute_due_timestamp_seconds", "When the next dispute must be answered.")


class PaymentsOptions(AccountOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `payments` check."""

    inbound: Annotated[
        str, Meta(description="Name of the inbound of kind stripe that gets this account's webhooks.")
    ] = ""
    history: Annotated[Duration, Meta(description="How far back the first run reads.")] = Duration(1 * DAY)
    window: Annotated[Duration, Meta(description="Payments begun within this time are the recent ones.")] = Duration(
        HOUR
    )
    final_after: Annotated[
        Duration, Meta(description="A payment's outcome is final so long after its first attempt.")
    ] = Duration(30 * MINUTE)
    undelivered_after: Annotated[
        Duration, Meta(description="A webhook that has not arrived after this time has failed.")
    ] = Duration(1 * HOUR)

    def check(self, faults: OptionFaults) -> None:
        super().check(faults)
        with faults.at("history"):
            if not 0 < self.history <= position.KEPT_S:
                raise ValueError("is more than 30d, for which Stripe keeps events")
        for name in ("window", "final_after", "undelivered_after"):
            with faults.at(name):
                if not 0 < getattr(self, name) <= DAY:
                    raise ValueError("is more than 1d, or nothing")


class Memory(Struct, frozen=True):
    """The cursor. Outcomes before `folded_until` were told, webhooks before `compared_until` looked for; `failures` in a row.

    Of what happened before `known_since` nothing was read.
    """

    position: Position | None = None
    known_since: float = 0.0
    folded_until: float = 0.0
    compared_until: float = 0.0
    missing: tuple[Missing, ...] = ()
    failures: int = 0
    wait_until: float = 0.0


class Found(Struct, frozen=True):
    """What one look at the service found. `error`: no usable answer; `troubles`: answers that are not as they must be."""

    samples: tuple[Sample, ...] = ()
    error: str = ""
    troubles: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    receiver: Endpoint | None = None
    latency_s: float | None = None


class _Money(Struct, frozen=True):
    amount: int
    currency: str


class _Balance(Struct, frozen=True):
    available: tuple[_Money, ...]
    pending: tuple[_Money, ...] = ()


class _Listed(Struct, frozen=True):
    """A page of a list. https://docs.stripe.com/api/pagination"""

    data: list[dict[str, Any]]
    has_more: bool = False


class PaymentsCheck(Check[PaymentsOptions]):
    """Payments by outcome, refunds, disputes, payouts, balance and webhooks (Stripe)."""

    Options = PaymentsOptions
    metrics = (
        SERVICE_ERROR, SERVICE_FAILURES, LATENCY, BALANCE, RECENT, DAY_BEFORE, RECENT_MINOR, RATIO, CHANCE, READ_UNTIL,
        UNDELIVERED, UNDELIVERED_RATIO, ENDPOINT_ENABLED, MISSING, DISPUTES_OPEN, DISPUTE_DUE,
    )  # fmt: skip
    provider_urls = {"base_url": PUBLIC_URL}  # noqa: RUF012 - a ClassVar of the contract
    service = "stripe"
    external = "stripe"
    interval = Duration(2 * MINUTE)
    timeout = Duration(30 * SECOND)

    @classmethod
    def complete(cls, options: Any, configured: Configured) -> Any:
        """Find the inbound that gets the account's webhooks."""
        names = sorted(url.rpartition("/")[2] for url in configured.webhooks.get("stripe", ()))
        if not options.inbound:
            return replace(options, inbound=names[0]) if len(names) == 1 else options
        if options.inbound not in names:
            add = 'leave it out, or add [inbound.NAME] with kind = "stripe" and [http.public]'
            mend = f"write one of these: {', '.join(names)}" if names else add
            raise InvalidOptions([("inbound", f"names no inbound of kind stripe; {mend}")])
        return options

    def __init__(self, options: PaymentsOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._account = Account(options, ctx)
        self._stage: Literal["look", "read", "fold"] = "look"
        self._pages = 0
        self._found = Found()
        self._remarks: list[str] = []
        self._recent: list[Sample] = []  # the figures, which every page has: a series that one leaves out has ended
        self._offered: Json = None  # the cursor that says that the page before was taken
        self._known: dict[str, float] = {}  # ids of events and payments that were taken, with when they were made
        self._fresh: dict[str, float] = {}  # those of the last page

    async def run(self, cursor: Json | None) -> Report:
        """Look at the service, read the list of events page by page, then tell outcomes; each page is a run of its own."""
        goes_on = cursor is not None and cursor == self._offered
        memory = self._started(_remembered(cursor))
        if goes_on:
            self._known.update(self._fresh)
        self._fresh = {}
        if not goes_on or self._stage == "look":
            memory = await self._began(memory)
        self._pages += 1
        brought: list[Event] = []
        more = True
        if self._stage == "read":
            brought, memory = await self._read(memory)
        if self._stage == "fold" and not brought:  # what was brought is folded when it was taken
            for _ in range(FOLDS):
                brought, memory, more = await self._fold(memory)
                if brought or not more:
                    break
        if not more or self._pages >= MOST_PAGES:
            more, memory = False, await self._ended(memory)
        samples = (*self._found.samples, *self._recent, *_read_until(memory))
        status, summary = _judged(self._found, self._remarks)
        self._offered = after = msgspec.to_builtins(memory)
        return Report(status, summary, samples, tuple(brought), after, more, reachable=not self._found.error)

    async def _began(self, memory: Memory) -> Memory:
        self._pages, self._remarks = 0, []
        memory = await self._look(memory)
        if not self._recent:
            await self._look_back(memory)
        is_readable = not self._found.error and memory.wait_until <= self.ctx.clock.now()
        self._stage = "read" if is_readable else "fold"
        return memory

    async def _ended(self, memory: Memory) -> Memory:
        self._stage = "look"
        memory = await self._compare(memory)
        recent, day_before = await self._look_back(memory)
        self._record(recent, day_before)
        since = min(memory.folded_until, self.ctx.clock.now()) - 2 * (self.options.final_after + 2 * LATE_S)
        self._known = {name: at for name, at in self._known.items() if at >= since}  # others are not met again
        return memory

    def _missing(self, memory: Memory) -> list[Sample]:
        return [MISSING(len(memory.missing))] if self.options.inbound else []

    # ---- the service ---------------------------------------------------------------------------------------------------

    def _started(self, memory: Memory) -> Memory:
        """Return the memory of who has one; else one that begins with the history."""
        if memory.position is not None:
            return memory
        now = self.ctx.clock.now()
        began = position.first_position(now, self.options.history)
        since = float(began.read_until)
        return replace(memory, position=began, known_since=since, folded_until=since, compared_until=now)

    async def _look(self, memory: Memory) -> Memory:
        """Look at balance, webhooks and disputes, unless Stripe wants to be left alone: then what was found stands."""
        now = self.ctx.clock.now()
        if memory.wait_until > now:
            waits = f"Stripe has had too many requests; the next in {memory.wait_until - now:.0f} s"
            self._found = replace(self._found, error="", remarks=(waits,))
            return memory
        found = _Finding()
        began = time.perf_counter()
        try:
            await self._asked("the balance", self._look_at_balance(found), found.troubles)
            found.latency_s = time.perf_counter() - began
            await self._asked("webhook endpoints", self._look_at_endpoints(found), found.remarks)
            await self._asked("disputes", self._look_at_disputes(found), found.remarks)
            await self._asked("undelivered events", self._look_at_deliveries(found), found.remarks)
        except TemporaryFailure as failure:
            found.error = str(failure)
        except Refused as refused:
            if refused.is_throttled:
                memory, said = self._throttled(memory, refused)
                self._found = replace(self._found, error="", remarks=(said,))
                return memory
            found.error = str(refused)
        failures = memory.failures + 1 if found.error or found.troubles else 0
        found.samples += [SERVICE_ERROR(float(bool(found.error))), SERVICE_FAILURES(failures)]
        if found.latency_s is not None:
            found.samples.append(LATENCY(found.latency_s))
        self._found = found.as_found()
        return replace(memory, failures=failures)

    async def _asked(self, what: str, call: Awaitable[None], said: list[str]) -> None:
        """Await a call; if Stripe refuses it for good, such as what a restricted key may not read, say so."""
        try:
            await call
        except Refused as refused:
            if refused.is_passing:
                raise
            said.append(f"{what}: {refused}")

    def _throttled(self, memory: Memory, refused: Refused) -> tuple[Memory, str]:
        wait_s = THROTTLED_S if refused.retry_after_s is None else max(1.0, refused.retry_after_s)
        until = self.ctx.clock.now() + min(wait_s, HOUR)
        return replace(memory, wait_until=until), f"{refused}; Stripe is asked again in {min(wait_s, HOUR):.0f} s"

    async def _look_at_balance(self, found: "_Finding") -> None:
        balance = await self._account.get("/v1/balance", _Balance)
        kinds = (("available", balance.available), ("pending", balance.pending))
        found.samples += [
            BALANCE(money.amount, currency=events.currency_of(money.currency), kind=kind)
            for kind, amounts in kinds
            for money in amounts
        ]

    async def _look_at_endpoints(self, found: "_Finding") -> None:
        listed = (await self._account.get("/v1/webhook_endpoints", _Endpoints, {"limit": 100})).data
        found.samples += [ENDPOINT_ENABLED(float(one.status == "enabled"), endpoint=one.id) for one in listed]
        if self.options.inbound:
            found.receiver = webhooks.receiver(listed, self.options.inbound)
            if found.receiver is None:
                found.troubles.append(
                    f"no webhook endpoint has an address that ends in /webhooks/{self.options.inbound}"
                )

    async def _look_at_disputes(self, found: "_Finding") -> None:
        since = int(self.ctx.clock.now() - DISPUTED_S)
        listed = await self._listed("/v1/disputes", {"created": {"gte": since}}, MOST_DISPUTES)
        waiting = [one for one in listed if str(one.get("status")).endswith("needs_response")]
        due = [at for one in waiting if (at := events.due_by(one)) is not None]
        found.samples += [DISPUTES_OPEN(len(waiting)), *([DISPUTE_DUE(min(due))] if due else [])]

    async def _look_at_deliveries(self, found: "_Finding") -> None:
        """Compare what Stripe could not deliver with what happened: of the last window if that is enough, else of a day."""
        end = int(self.ctx.clock.now() - self.options.undelivered_after)
        span_s, happened = round(self.options.window), await self._happened(round(self.options.window))
        if happened < FEW:
            span_s, happened = round(DAY), await self._happened(round(DAY))
        asked = {"delivery_success": "false", "created": {"gte": end - span_s, "lt": end}}
        failed = len(await self._listed("/v1/events", asked, MOST_UNDELIVERED))
        happened = max(happened, failed)
        if failed:
            after = Duration(self.options.undelivered_after)
            found.remarks.append(f"{failed} of {happened:.0f} events are undelivered after {after}")
        found.samples += [UNDELIVERED(failed), UNDELIVERED_RATIO(failed / happened if happened else 0.0)]

    async def _happened(self, span_s: int) -> float:
        now, after_s = self.ctx.clock.now(), round(self.options.undelivered_after)
        expr = f"sum(increase(stripe_events_total[{span_s}s] offset {after_s}s))"
        found = await self.ctx.read.query(expr, now, now, 1.0)
        return found[0][1][-1][1] if found and found[0][1] else 0.0

    async def _listed(self, path: str, asked: Mapping[str, Any], most: int) -> list[dict[str, Any]]:
        """Return the objects of a list, those of so many pages at most."""
        found: list[dict[str, Any]] = []
        for _ in range(most):
            behind = {"starting_after": _id(found[-1])} if found else {}
            page = await self._account.get(path, _Listed, {**asked, "limit": 100, **behind})
            found += page.data
            if not page.has_more or not page.data:
                break
        return found

    # ---- the list of events ----------------------------------------------------------------------------------------------

    async def _read(self, memory: Memory) -> tuple[list[Event], Memory]:
        """Read the pages that are due; what was read before a failure is kept, and its place."""
        now = self.ctx.clock.now()
        at = position.begun(memory.position or Position(int(now)), now)
        brought: list[Event] = []
        for _ in range(API_PAGES):
            if at.span is None:
                break
            try:
                page = await self._account.get("/v1/events", _Listed, at.span.params())
            except (Refused, TemporaryFailure) as failure:
                self._stage = "fold"
                return brought, self._unread(replace(memory, position=at), failure)
            brought += self._taken(page.data)
            at = position.begun(position.went_on(at, _id(page.data[-1]) if page.data else "", page.has_more), now)
        if at.span is None:
            self._stage = "fold"
        return brought, replace(memory, position=at)

    def _unread(self, memory: Memory, failure: Refused | TemporaryFailure) -> Memory:
        """Say that the list cannot be read; a page that Stripe refuses for good is not asked for again."""
        if isinstance(failure, Refused) and failure.is_throttled:
            memory, said = self._throttled(memory, failure)
            self._remarks.append(said)
            return memory
        self._remarks.append(f"the list of events cannot be read: {failure}")
        if memory.position is not None and isinstance(failure, Refused) and not failure.is_passing:
            return replace(memory, position=position.started_over(memory.position))
        return memory

    def _taken(self, listed: Sequence[dict[str, Any]]) -> list[Event]:
        found: list[Event] = []
        for one in listed:
            try:
                snapshot = msgspec.convert(one, events.Snapshot)
            except msgspec.ValidationError as error:
                self._remarks.append(f"an event is not as documented: {error}")
                continue
            if snapshot.id not in self._known and snapshot.id not in self._fresh:
                self._fresh[snapshot.id] = snapshot.created
                found += events.events_of(snapshot)
        return found

    # ---- outcomes ----------------------------------------------------------------------------------------------------------

    async def _fold(self, memory: Memory) -> tuple[list[Event], Memory, bool]:
        """Return the outcomes that have become final, and whether there are more."""
        final_after = float(self.options.final_after)
        read_until = float(memory.position.read_until) if memory.position else memory.folded_until
        until = max(memory.folded_until, min(read_until, memory.folded_until + SPAN_S))
        since = memory.folded_until - final_after - 2 * LATE_S  # those begun before were told, late ones too
        folded = await self._payments(since, until + MINUTE, until)
        fresh = [one for one in folded if one.decided_at is not None and one.id not in self._known]
        ended = sorted(fresh, key=lambda one: (one.first_at, one.id))[:MOST_ENDED]
        self._fresh.update((one.id, one.first_at) for one in ended)
        if len(ended) == len(fresh):
            memory = replace(memory, folded_until=until)
        return [_outcome(one) for one in ended], memory, len(ended) < len(fresh) or until < read_until

    async def _look_back(self, memory: Memory) -> tuple[payments.Figures, payments.Figures | None]:
        """Return the figures of the last window, and those of the same a day before as they were then, if all of it is known."""
        now = self.ctx.clock.now()
        recent = payments.figures(await self._payments(now - self.options.window, now + MINUTE, now))
        then, day_before = now - DAY, None
        if memory.known_since <= then - self.options.window:
            day_before = payments.figures(await self._payments(then - self.options.window, then, then))
        self._recent = [*_figures(recent), *_figures_of_day_before(day_before), *self._missing(memory)]
        return recent, day_before

    async def _payments(self, since: float, end: float, until: float) -> list[payments.Payment]:
        """Return the payments begun since then, as they are known at `until`.

        One that is taken up again after it was final counts anew here, where what was before is not looked at.
        """
        final_after = float(self.options.final_after)
        happened = await self._events(events.EVENT.name, since - final_after, end)

        def work() -> list[payments.Payment]:
            attempts = [found for one in happened if (found := events.attempt_of(one)) is not None]
            folded = payments.fold(attempts, final_after, until, LATE_S)
            return [one for one in folded if one.first_at >= since]  # of others the first attempt may not be known

        return await self.ctx.to_thread(work)

    async def _events(self, kind: str, start: float, end: float) -> list[Event]:
        """Return the events of some time, however many there are."""
        found = await self.ctx.read.events(kind, start, end)
        if len(found) < MOST_READ or end - start <= 1.0:
            return list(found)
        middle = (start + end) / 2
        return [*await self._events(kind, start, middle), *await self._events(kind, middle, end)]

    # ---- webhooks that never came --------------------------------------------------------------------------------------------

    async def _compare(self, memory: Memory) -> Memory:
        """Look for events that were read from the list, but that our receiver has never got."""
        endpoint, now = self._found.receiver, self.ctx.clock.now()
        gaps = await self._still_missing([one for one in memory.missing if now - one.at < webhooks.MISSING_KEPT_S])
        read_until = float(memory.position.read_until) if memory.position else 0.0
        until = min(read_until - LATE_S, now - self.options.undelivered_after, memory.compared_until + SPAN_S)
        if endpoint is not None and until > memory.compared_until:
            happened = await self._events(events.EVENT.name, memory.compared_until, until)
            arrived = await self._arrived(memory.compared_until, until)
            gaps += webhooks.missing(happened, arrived, endpoint)
            memory = replace(memory, compared_until=until)
        gaps = sorted(gaps, key=lambda one: (one.at, one.id))[: webhooks.MOST_MISSING]
        if gaps:
            self._remarks.append(webhooks.named(gaps, self.options.inbound, now))
        return replace(memory, missing=tuple(gaps))

    async def _still_missing(self, gaps: Sequence[Missing]) -> list[Missing]:
        """Return those that have not come in meanwhile: Stripe tries again for days. An hour's are looked for at once."""
        still: list[Missing] = []
        for hour, within in groupby(gaps, lambda one: one.at // HOUR):
            arrived = await self._arrived(hour * HOUR, (hour + 1) * HOUR)
            still += [one for one in within if one.id not in arrived]
        return still

    async def _arrived(self, start: float, end: float) -> set[str]:
        arrived = await self._events(events.DELIVERY.name, start, end)
        return {one.id for one in arrived if one.data["inbound"] == self.options.inbound}

    # ---- what is said --------------------------------------------------------------------------------------------------------

    def _record(self, recent: payments.Figures, day_before: payments.Figures | None) -> None:
        """Write the record of SEED S9 to the log; amounts in minor units by currency."""
        self.ctx.log.info(
            "payment_health_check",
            timestamp=events.iso(self.ctx.clock.now()),
            service="stripe",
            status=str(_judged(self._found, self._remarks)[0]),
            responseTime=None if self._found.latency_s is None else round(self._found.latency_s * 1000),
            totalPayments=recent.total,
            successfulPayments=recent.by_outcome[payments.SUCCEEDED],
            failedPayments=recent.failed,
            failureRate=recent.failure_rate,
            totalAmount=dict(recent.amounts),
            averageOrderValue={one: round(amount / recent.paid[one]) for one, amount in recent.amounts.items()},
            averageResponseTime=None,
            topFailureReasons=dict(recent.reasons[:5]),
            dayBefore=None
            if day_before is None
            else {"totalPayments": day_before.total, "failureRate": day_before.failure_rate},
            unknown={"averageResponseTime": "nobody has told how long the shop's checkout takes"},
        )


class _Finding:
    """What a look finds, while it goes on."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.troubles: list[str] = []
        self.remarks: list[str] = []
        self.error = ""
        self.receiver: Endpoint | None = None
        self.latency_s: float | None = None

    def as_found(self) -> Found:
        return Found(
            tuple(self.samples), self.error, tuple(self.troubles), tuple(self.remarks), self.receiver, self.latency_s
        )


class _Endpoints(Struct, frozen=True):
    data: tuple[Endpoint, ...]


def _judged(found: Found, more: Sequence[str]) -> tuple[Status, str]:
    if found.error:
        return Status.UNHEALTHY, found.error
    if said := [*found.troubles, *found.remarks, *more]:
        return Status.DEGRADED, "; ".join(said)[:MAX_SUMMARY]
    return Status.HEALTHY, f"answered in {(found.latency_s or 0.0) * 1000:.0f} ms"


def _remembered(cursor: Json | None) -> Memory:
    """Return what a cursor holds; of one that holds something else nothing, so that the list is read anew."""
    try:
        return Memory() if cursor is None else msgspec.convert(cursor, Memory)
    except msgspec.ValidationError:
        return Memory()


def _read_until(memory: Memory) -> list[Sample]:
    return [] if memory.position is None else [READ_UNTIL(memory.position.read_until)]


def _id(thing: Mapping[str, Any]) -> str:
    name = thing.get("id")
    return name if isinstance(name, str) else ""


def _outcome(payment: payments.Payment) -> Event:
    """Return the event of an outcome that is final; of a payment it is taken once, whatever happens to it later."""
    at = payment.first_at if payment.decided_at is None else payment.decided_at
    ended = events.PaymentEnded(
        payment.id, payment.outcome, payment.reason, payment.attempts, payment.amount, payment.currency
    )
    return Event(payment.id, events.PAYMENT.name, at, msgspec.to_builtins(ended))


def _figures(recent: payments.Figures) -> list[Sample]:
    samples = [RECENT(count, outcome=outcome) for outcome, count in recent.by_outcome.items()]
    samples += [RECENT_MINOR(amount, currency=currency) for currency, amount in recent.amounts.items()]
    if recent.failure_rate is not None:
        samples.append(RATIO(recent.failure_rate))
        samples.append(CHANCE(payments.chance_of(recent.failed, recent.decided, EXPECTED_FAILURES)))
    return samples


def _figures_of_day_before(known: payments.Figures | None) -> list[Sample]:
    return [] if known is None else [DAY_BEFORE(count, outcome=outcome) for outcome, count in known.by_outcome.items()]


# ---- rules -----------------------------------------------------------------------------------------------------------------


_rule: Final = partial(default_rule, "payments")


def _since(metric: str, span: str) -> str:
    """How much a counter grew: the difference of two instants, because a range of months would read all that is between."""
    return f"((sum({metric}) or vector(0)) - (sum({metric} offset {span}) or vector(0)))"


def _share(metric: str, span: str, most: float) -> str:
    """The part of the payments that succeeded of which something became later; nothing below 50 payments."""
    paid = _since('stripe_payments_total{outcome="succeeded"}', span)
    return f"{_since(metric, span)} / {paid} > {most} and {paid} >= 50"


_DECIDED: Final = 'sum by (check) (stripe_payments_recent{outcome!="processing"})'

RULES: Final = (
    _rule(
        "HighPaymentFailureRate",
        f"stripe_payment_failure_ratio > {EXPECTED_FAILURES} and on (check)"
        f" ({_DECIDED} >= {FEW} or stripe_payment_failure_pvalue < 0.01)",
        "High payment failure rate: {{ $value | humanizePercentage }}",
        Severity.HIGH,
        impact="Buyers who want to pay cannot.",
        action="See the reasons at Stripe (Payments, failed); many declines of one kind may be an attack.",
    ),
    _rule(
        "HighChargebackRate",
        _share("stripe_chargebacks_total", "90d", 0.01),
        "High chargeback rate: {{ $value | humanizePercentage }} of the payments of 90 days",
        Severity.HIGH,
        impact="Stripe may raise its fees or close the account.",
        action="Refund doubtful payments before they are disputed, and tighten Stripe's Radar rules.",
    ),
    _rule(
        "HighRefundRate",
        _share("stripe_refunds_total", "30d", 0.02),
        "High refund rate: {{ $value | humanizePercentage }} of the payments of 30 days",
        Severity.MEDIUM,
        action="Read the reasons of the last refunds; one cause behind many can be mended.",
    ),
    _rule(
        "StripeWebhookFailures",
        "stripe_webhook_failure_ratio > 0.1 and stripe_webhook_events_undelivered >= 3",
        "Stripe webhook failures detected: {{ $value | humanizePercentage }}",
        Severity.CRITICAL,
        impact="Paid orders may stay without their tickets.",
        action="See the endpoint's answers at Stripe (Developers, Webhooks); once it answers, have the failed events sent again.",
    ),
    _rule(
        "StripeWebhookDisabled",
        "stripe_webhook_endpoint_enabled == 0",
        "Stripe sends no webhooks to {{ $labels.endpoint }}: the endpoint is disabled",
        Severity.CRITICAL,
        impact="Paid orders stay without their tickets.",
        action="Mend the endpoint, enable it at Stripe (Developers, Webhooks), and have the missed events sent again.",
    ),
    _rule(
        "StripeWebhooksMissing",
        "stripe_webhooks_missing > 0",
        "Stripe webhooks are missing: {{ $summary }}",
        Severity.MEDIUM,
        impact="Payments are seen minutes late.",
        action="Compare the endpoint at Stripe with [http.public] url, and see whether it can be reached from outside.",
    ),
    _rule(
        "StripePayoutFailed",
        'increase(stripe_payouts_total{status="failed"}[1d]) > 0',
        'Stripe could not pay out: {{ printf "%.0f" $value }} in {{ $labels.currency }} within a day',
        Severity.HIGH,
        impact="Your money stays at Stripe.",
        action="Check the bank account at Stripe (Settings, Payouts).",
    ),
    _rule(
        "StripeDisputeDue",
        f"stripe_dispute_due_timestamp_seconds - time() < {round(2 * DAY)}",
        "A dispute must be answered within {{ $value | humanizeDuration }}",
        Severity.HIGH,
        impact="What is not answered in time is lost.",
        action="Submit the evidence at Stripe (Payments, Disputes).",
    ),
    _rule(
        "StripeFailing",
        "stripe_service_failures >= 3",
        "Stripe service health check failed: {{ $summary }}",
        Severity.HIGH,
        impact="Payments may fail, and are not seen.",
        action="See status.stripe.com, and whether the key is still valid.",
    ),
    _rule(
        "StripeEventsUnread",
        "time() - stripe_events_read_until_timestamp_seconds > 3600",
        "What happened at Stripe is not known for {{ $value | humanizeDuration }}: {{ $summary }}",
        Severity.MEDIUM,
        for_s=1 * HOUR,  # the first run, or the first after a long pause, has much to read
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `payments`."""
    return {"payments": PaymentsCheck}


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    """What happens at Stripe."""
    return events.ALL


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rules of payments."""
    return RULES


@hookimpl
def sixfbd_environment(config: PluginConfig) -> Sequence[FromEnvironment]:
    """An account by the name that Stripe's own examples use."""
    table = {"plugin": "payments", "api_key": {"env": "STRIPE_SECRET_KEY"}}
    missed = "payments are not watched"
    return (FromEnvironment(names=("STRIPE_SECRET_KEY",), tables={"checks": {"payments": table}}, missed=missed),)


@hookimpl
def sixfbd_reports(config: PluginConfig) -> Sequence[ReportType]:
    return REPORTS
