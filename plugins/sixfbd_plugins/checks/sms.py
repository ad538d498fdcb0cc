"""The `sms` check: a Twilio account, its sender, its balance, and what became of its messages (SEED S1 to S3).

Owns the rules of SMS and the events of messages that were seen in the message log. Sends nothing unless a canary is
configured. What its own daemon sent is labelled, and left out of the rule about failures: what is broken does not carry
its own alarm.
"""

import time
import urllib.parse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Annotated, Any, Final

import httpx
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
    Level,
    OptionFaults,
    PluginConfig,
    Report,
    ReportType,
    Rule,
    Sample,
    Secret,
    Severity,
    Status,
    TemporaryFailure,
    hookimpl,
    installed,
)
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.twilio import log, messages
from sixfbd_plugins.twilio.account import (
    ACCOUNT_FROM_ENVIRONMENT,
    ENVIRONMENT,
    PUBLIC_URL,
    Account,
    AccountOptions,
    Refused,
    revealed,
    validate_secret,
    validate_sid,
)
from sixfbd_plugins.twilio.numbers import E164, normalized, normalized_sender
from sixfbd_plugins.twilio.records import Sent, read_records
from sixfbd_plugins.twilio.report import REPORTS
from sixfbd_plugins.twilio.texts import reference

PAGE_SIZE: Final = 500  # messages; at three events each, a page is well below what a report may bring
MOST_PAGES: Final = 15  # of one run; the rest is read by the next
AROUND_S: Final = 2 * HOUR  # between our sending a message and Twilio's
MAX_SUMMARY: Final = 400
TEST_NUMBER: Final = "+15005550006"  # https://www.twilio.com/docs/iam/test-credentials: takes, and sends nothing

SERVICE_ERROR = Gauge("sms_service_error", "1 if the last check had no usable answer from the provider.")
SERVICE_FAILURES = Gauge("sms_service_failures", "Checks in a row that found something wrong with the service.")
LATENCY = Gauge("sms_service_latency_seconds", "How long the provider took to answer the account's request.")
BALANCE = Gauge("twilio_balance", "Balance of the account in major units.", labels=("currency",))
BALANCE_LOW = Gauge("twilio_balance_low", "1 if the balance is below min_balance.")
LOG_READ = Gauge("twilio_log_read_until_timestamp_seconds", "Messages that were sent before have been read.")
RESPONSE = Gauge("sms_response_seconds", "Mean time of our own sends within the last hour.")
RETRIES = Gauge("sms_retry_ratio", "Tries after the first, for each of our own messages of the last day.")
TRIED = Gauge("sms_messages_tried", "Our own messages of the last day.")


class SmsOptions(AccountOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of an `sms` check."""

    from_number: Annotated[Secret | str, Meta(description="The sender that messages go out from.")] = ""
    messaging_service_sid: Annotated[str, Meta(description="The messaging service that sends them.")] = ""
    targets: Annotated[tuple[Secret | str, ...], Meta(description="Numbers that must be well formed.")] = ()
    min_balance: Annotated[str, Meta(description='A lower balance is degraded, such as "20.00".')] = ""
    notifier: Annotated[
        str, Meta(description="The sms notifier that sends through this account; unless given, the only one there is.")
    ] = ""
    read_log: Annotated[bool, Meta(description="Read what became of the account's messages.")] = True
    history: Annotated[Duration, Meta(description="How far back the first run reads.")] = Duration(log.WATCHED_S)
    test_account_sid: Annotated[Secret | str, Meta(description="Test credentials: tried at each run, at no cost.")] = ""
    test_auth_token: Annotated[Secret | None, Meta(description="Token of the test credentials.")] = None
    canary: Annotated[Secret | str, Meta(description="Number that gets one real message a day.")] = ""

    def check(self, faults: OptionFaults) -> None:
        super().check(faults)
        with faults.at("account_sid"):
            installed("twilio", extra="twilio")
        with faults.at("from_number"):
            if revealed(self.from_number):
                normalized_sender(revealed(self.from_number))
        with faults.at("messaging_service_sid"):
            if self.messaging_service_sid:
                validate_sid(self.messaging_service_sid, "MG")
        for place, target in enumerate(self.targets, 1):
            with faults.at("targets"):
                _at_place(place, revealed(target))
        with faults.at("min_balance"):
            if self.min_balance:
                _amount(self.min_balance)
        with faults.at("history"):
            if not 0 < self.history <= log.WATCHED_S:
                raise ValueError("is more than 48h")
        with faults.at("test_account_sid"):
            if bool(revealed(self.test_account_sid)) is (self.test_auth_token is None):
                raise ValueError("test_account_sid and test_auth_token are given both or neither")
            if self.test_auth_token is not None:
                validate_sid(revealed(self.test_account_sid), "AC")
        with faults.at("test_auth_token"):
            if self.test_auth_token is not None:
                validate_secret(self.test_auth_token)
        with faults.at("canary"):
            if revealed(self.canary):
                normalized(revealed(self.canary))
                if not (revealed(self.from_number) or self.messaging_service_sid):
                    raise ValueError("needs from_number or messaging_service_sid, which it is sent from")


class Memory(Struct, frozen=True):
    """The cursor. `failures` in a row; when the last canary was sent, and the sids of the last few; the last delivery."""

    position: log.Position | None = None
    failures: int = 0
    canary_at: float = 0.0
    canaries: tuple[str, ...] = ()
    delivered_at: float = 0.0


class Found(Struct, frozen=True):
    """What one look at the service found. `error`: no usable answer came; `troubles`: answers that are not as they must be."""

    samples: tuple[Sample, ...] = ()
    error: str = ""
    troubles: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    latency_s: float | None = None


class SmsCheck(Check[SmsOptions]):
    """SMS: account, balance, sender, and what became of its messages (Twilio)."""

    Options = SmsOptions
    metrics = (
        SERVICE_ERROR, SERVICE_FAILURES, LATENCY, BALANCE, BALANCE_LOW, LOG_READ, RESPONSE, RETRIES, TRIED,
    )  # fmt: skip
    provider_urls = {"base_url": PUBLIC_URL}  # noqa: RUF012 - a ClassVar of the contract
    service = "sms"
    external = "twilio"
    interval = Duration(5 * MINUTE)
    timeout = Duration(30 * SECOND)

    def __init__(self, options: SmsOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._account = Account(options, ctx)
        self._client = self._account.client
        self._test = _test_account(options, ctx)
        self._sender = normalized_sender(revealed(options.from_number)) if revealed(options.from_number) else ""
        self._canary = normalized(revealed(options.canary)) if revealed(options.canary) else ""
        self._min_balance = _amount(options.min_balance) if options.min_balance else None
        self._marks: dict[int, dict[str, str]] = {}  # by hour of the log, of messages that were taken
        self._fresh: tuple[int, dict[str, str]] = (0, {})  # marks of the last page, which hold once it was taken
        self._offered: Json = None  # the cursor that says so when it comes back
        self._found = Found()
        self._pages = 0

    @classmethod
    def complete(cls, options: Any, configured: Configured) -> Any:
        """Find the notifier whose messages are our own."""
        names = sorted(name for name, plugin in configured.notifiers.items() if plugin == "sms")
        if not options.notifier:
            return replace(options, notifier=names[0]) if len(names) == 1 else options
        if options.notifier not in names:
            add = 'leave it out, or add [notifiers.NAME] with plugin = "sms"'
            mend = f"write one of these: {', '.join(names)}" if names else add
            raise InvalidOptions([("notifier", f"names no notifier of plugin sms; {mend}")])
        return options

    async def run(self, cursor: Json | None) -> Report:
        """Look at the service, then read one page of the log; further pages are further runs, at once."""
        goes_on = cursor is not None and cursor == self._offered
        memory = _remembered(cursor)
        self._take_marks(goes_on)
        if not goes_on or not self._pages:
            self._pages = 0
            self._found, memory = await self._look(memory)
        found = self._found
        events: tuple[Event, ...] = ()
        more = False
        samples = list(found.samples)
        remarks = list(found.remarks)
        if self.options.read_log and not found.error:
            try:
                events, memory, more = await self._read_log(memory)
            except (Refused, TemporaryFailure) as failure:
                remarks.append(f"the message log cannot be read: {failure}")
                more = False
                memory = self._forget_page(memory, failure)
        if memory.position is not None:
            samples.append(LOG_READ(memory.position.read_until))
        if not more:
            self._pages = 0
            await self._record(found, memory)
        self._offered = after = msgspec.to_builtins(memory)
        status, summary = _judged(found, remarks)
        return Report(status, summary, tuple(samples), events, after, more, reachable=not found.error)

    # ---- the service ---------------------------------------------------------------------------------------------------

    async def _look(self, memory: Memory) -> tuple[Found, Memory]:
        """Look at account, balance and sender, and try what is configured to be tried."""
        samples: list[Sample] = []
        troubles: list[str] = []
        remarks: list[str] = []
        latency_s: float | None = None
        error = ""
        try:
            latency_s = await self._look_at_account(troubles)
            samples.append(LATENCY(latency_s))
            samples += await self._look_at_balance(remarks)
            await self._asked("the sender", self._look_at_sender(troubles), troubles)
            if self._test is not None:
                sent = self._test.client.messages.create_async(to=TEST_NUMBER, from_=TEST_NUMBER, body="sixfbd")
                await self._asked("the test credentials", self._test.ask(sent), troubles)
            memory = await self._send_canary(memory, troubles)
        except TemporaryFailure as failure:
            error = str(failure)
        except Refused as refused:
            if refused.status >= 500:
                error = str(refused)
            else:
                troubles.append(f"the account: {refused}")
        failures = memory.failures + 1 if error or troubles else 0
        samples += [SERVICE_ERROR(float(bool(error))), SERVICE_FAILURES(failures)]
        memory = replace(memory, failures=failures)
        if self.options.notifier:
            samples += await self._own_sends()
        return Found(tuple(samples), error, tuple(troubles), tuple(remarks), latency_s), memory

    async def _asked(self, what: str, call: Any, troubles: list[str]) -> None:
        """Ask; what is refused is a trouble, what has no usable answer goes through."""
        try:
            await call
        except Refused as refused:
            if refused.status >= 500:
                raise
            troubles.append(f"{what}: {refused}")

    async def _look_at_account(self, troubles: list[str]) -> float:
        began = time.perf_counter()
        account = await self._account.ask(self._client.api.accounts(self._client.account_sid).fetch_async())
        if account.status != "active":
            troubles.append(f"the account is {self._account.hide(str(account.status))}, not active")
        return time.perf_counter() - began

    async def _look_at_balance(self, remarks: list[str]) -> list[Sample]:
        try:
            balance = await self._account.ask(self._client.balance.fetch_async())
            amount = _amount(str(balance.balance))
        except (Refused, ValueError) as failure:
            if isinstance(failure, Refused) and failure.status >= 500:
                raise
            said = failure if isinstance(failure, Refused) else "the answer holds no amount"
            remarks.append(f"the balance cannot be read: {said}")  # a restricted key may not
            return []
        currency = messages.currency_of(balance.currency)
        is_low = self._min_balance is not None and amount < self._min_balance
        if is_low:
            remarks.append(f"the balance is {amount} {currency}, below {self._min_balance}")
        return [BALANCE(float(amount), currency=currency), BALANCE_LOW(float(is_low))]

    async def _look_at_sender(self, troubles: list[str]) -> None:
        """Make sure that the sender is there and can send; short codes and names are not listed."""
        if self.options.messaging_service_sid:
            service = self._client.messaging.v1.services(self.options.messaging_service_sid)
            await self._account.ask(service.fetch_async())
            if not await self._account.ask(service.phone_numbers.list_async(limit=1, page_size=1)):
                others = service.short_codes, service.alpha_senders
                if not any([await self._account.ask(one.list_async(limit=1, page_size=1)) for one in others]):
                    troubles.append("the messaging service has no sender")
        if E164.fullmatch(self._sender):
            numbers = self._client.incoming_phone_numbers
            found = await self._account.ask(numbers.list_async(phone_number=self._sender, limit=1, page_size=1))
            if not found:
                troubles.append("from_number is no number of this account")
            elif not (isinstance(found[0].capabilities, dict) and found[0].capabilities.get("sms")):
                troubles.append("from_number cannot send SMS")

    async def _send_canary(self, memory: Memory, troubles: list[str]) -> Memory:
        now = self.ctx.clock.now()
        if not self._canary or troubles or now - memory.canary_at < DAY:
            return memory
        memory = replace(memory, canary_at=now)  # at most one a day, answered or not
        text = f"{self.ctx.site} sixfbd canary".strip()
        day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
        sender = {"messaging_service_sid": self.options.messaging_service_sid or None, "from_": self._sender or None}
        messages_of_account = self._client.messages
        try:
            earlier = await self._account.ask(messages_of_account.list_async(to=self._canary, limit=20, page_size=20))
            sent: Any = next((one for one in earlier if _is_canary(one, text, now)), None)  # before a crash, perhaps
            if sent is None:
                call = messages_of_account.create_async(to=self._canary, body=f"{text} {day}", **_given(sender))
                sent = await self._account.ask(call)
        except (Refused, TemporaryFailure) as failure:
            troubles.append(f"the canary: {failure}")
            return memory
        return replace(memory, canaries=(*memory.canaries[-2:], str(sent.sid)))

    # ---- our own sends -------------------------------------------------------------------------------------------------

    async def _own_sends(self) -> list[Sample]:
        """Return what is to be said of our own messages of the last day."""
        now, notifier = self.ctx.clock.now(), self.options.notifier
        own = await self.ctx.read.messages(notifier, now - DAY, now)
        samples = [TRIED(len(own))]
        if own:
            samples.append(RETRIES(sum(max(0, one.attempt - 1) for one in own) / len(own)))
        if (seconds := await self._instant(_RESPONSE_EXPR % {"notifier": _quoted(notifier)})) is not None:
            samples.append(RESPONSE(seconds))
        return samples

    async def _instant(self, expr: str) -> float | None:
        now = self.ctx.clock.now()
        found = await self.ctx.read.query(expr, now, now, 1.0)
        value = found[0][1][-1][1] if found and found[0][1] else None
        return None if value is None or value != value else value

    # ---- the message log -----------------------------------------------------------------------------------------------

    async def _read_log(self, memory: Memory) -> tuple[tuple[Event, ...], Memory, bool]:
        """Read the page that is due; return its events, what is remembered then, and whether another is due at once."""
        now = self.ctx.clock.now()
        position = memory.position or log.first_position(now, self.options.history)
        if not self._pages:
            position = log.begun(position, now)
        page = log.next_page(position)
        if page is None:
            return (), replace(memory, position=position), False
        records, token = await self._fetch(page)
        start = page.hour * HOUR
        ours = await self._sent(start, memory)
        known = self._marks.get(page.hour, {})
        reading = await self.ctx.to_thread(
            lambda: read_records(records, start, start + HOUR, ours, known, is_last=log.is_last_read(page, now))
        )
        position = log.went_on(position, page, reading.still_open, token, now)
        self._fresh = (page.hour, reading.marks)
        self._pages += 1
        memory = replace(memory, position=position, delivered_at=max(memory.delivered_at, reading.delivered_at))
        return reading.events, memory, self._pages < MOST_PAGES and log.next_page(position) is not None

    async def _fetch(self, page: log.Page) -> tuple[list[Any], str]:
        """Return the records of a page, and the token of the next one ("" if it is the last)."""
        start = page.hour * HOUR
        more = {"page_token": page.token, "page_number": page.number} if page.token else {}
        call = self._client.messages.page_async(
            date_sent_after=datetime.fromtimestamp(start, UTC),
            date_sent_before=datetime.fromtimestamp(start + HOUR - 1, UTC),
            page_size=PAGE_SIZE,
            **more,
        )
        answer = await self._account.ask(call)

        async def read() -> tuple[list[Any], str]:
            return await self.ctx.to_thread(lambda: (list(answer), _token(answer.next_page_url)))

        return await self._account.ask(read())

    async def _sent(self, start: float, memory: Memory) -> Sent:
        """Return what we sent ourselves around an hour."""
        if not self.options.notifier:
            return Sent(frozenset(memory.canaries))
        own = await self.ctx.read.messages(self.options.notifier, start - AROUND_S, start + HOUR + AROUND_S)
        sids = {one.provider_id for one in own if one.provider_id is not None}
        return Sent(frozenset({*sids, *memory.canaries}), frozenset(reference(one.id) for one in own))

    def _take_marks(self, goes_on: bool) -> None:
        """The page before was taken if its cursor comes back."""
        hour, marks = self._fresh
        if goes_on and marks:
            self._marks.setdefault(hour, {}).update(marks)
        self._fresh = (0, {})

    def _forget_page(self, memory: Memory, failure: Exception) -> Memory:
        """A page that Twilio refuses is not asked for again: its hour is begun anew."""
        position = memory.position
        if position is None or not isinstance(failure, Refused) or failure.is_passing:
            return memory
        return replace(memory, position=log.started_over(position))

    # ---- what is said --------------------------------------------------------------------------------------------------

    async def _record(self, found: Found, memory: Memory) -> None:
        """Write the record of SEED S1 to the log, once a run; marks of hours that are watched no longer are let go."""
        watched = {hour.number for hour in memory.position.hours} if memory.position else set()
        self._marks = {hour: marks for hour, marks in self._marks.items() if hour in watched}
        delivered_at = memory.delivered_at
        self.ctx.log.info(
            "sms_health_check",
            timestamp=_iso(self.ctx.clock.now()),
            service="twilio-sms",
            status=str(_judged(found, ())[0]),
            responseTime=None if found.latency_s is None else round(found.latency_s * 1000),
            errorRate=await self._instant(FAILURE_RATE),
            lastSuccessfulSend=_iso(delivered_at) if delivered_at else None,
        )


def _judged(found: Found, remarks: Sequence[str]) -> tuple[Status, str]:
    if found.error:
        return Status.UNHEALTHY, found.error
    said = [*found.troubles, *remarks]
    if said:
        return Status.DEGRADED, "; ".join(said)[:MAX_SUMMARY]
    return Status.HEALTHY, f"account active, answered in {(found.latency_s or 0.0) * 1000:.0f} ms"


def _remembered(cursor: Json | None) -> Memory:
    """Return what a cursor holds; of one that holds something else nothing, so that the log is read anew."""
    try:
        return Memory() if cursor is None else msgspec.convert(cursor, Memory)
    except msgspec.ValidationError:
        return Memory()


def _token(next_page_url: str | None) -> str:
    query = urllib.parse.parse_qs(httpx.URL(next_page_url or "").query.decode("ascii"))
    return query.get("PageToken", [""])[0]


def _test_account(options: SmsOptions, ctx: Context) -> Account | None:
    if options.test_auth_token is None:
        return None
    sid, token = options.test_account_sid, options.test_auth_token
    return Account(AccountOptions(account_sid=sid, auth_token=token, base_url=options.base_url), ctx)


def _at_place(place: int, target: str) -> None:
    try:
        normalized(target)
    except ValueError as error:
        raise ValueError(f"number {place} {error}") from None


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise ValueError('is not an amount such as "20.00"')
    return amount


def _is_canary(message: Any, text: str, now: float) -> bool:
    """Tell whether a message is a canary of the last day."""
    created_at = message.date_created
    return (message.body or "").startswith(text) and created_at is not None and now - created_at.timestamp() < DAY


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# ---- events and rules ----------------------------------------------------------------------------------------------------


_RESPONSE_EXPR: Final = (
    'sum(increase(sixfbd_notification_duration_seconds_sum{notifier="%(notifier)s"}[1h]))'
    ' / sum(increase(sixfbd_notification_duration_seconds_count{notifier="%(notifier)s"}[1h]))'
)


def _rate(span: str) -> str:
    """The part of the messages that failed, of those that came to an end in this time; nothing below 20 of them."""
    ended = f'sum(increase(twilio_messages_total{{status=~"sent|failed",origin=""}}[{span}]))'
    failed = f'sum(increase(twilio_messages_total{{status=~"failed|undelivered",origin=""}}[{span}]))'
    return f"(({failed} or vector(0)) / {ended} and {ended} >= 20)"


FAILURE_RATE: Final = f"{_rate('1h')} or {_rate('1d')}"
"""Of the last hour if it has enough messages, else of the last day."""


_rule: Final = partial(default_rule, "sms")

RULES: Final = (
    _rule(
        "SMSServiceFailing",
        "sms_service_failures unless on (check) sms_service_error == 1",
        "SMS service health check failed: {{ $summary }}",
        levels=(Level(Severity.HIGH, ">= 1"), Level(Severity.CRITICAL, ">= 3")),
        impact="Buyers and people on call may get no SMS.",
        action="See status.twilio.com, and the account's state and credentials.",
    ),
    _rule(
        "SMSServiceError",
        "sms_service_error == 1",
        "SMS service error: {{ $summary }}",
        Severity.CRITICAL,
        impact="Buyers and people on call may get no SMS.",
        action="See status.twilio.com, and the account's state and credentials.",
    ),
    _rule(
        "HighSMSFailureRate",
        f"({FAILURE_RATE}) > 0.1",
        "High SMS failure rate: {{ $value | humanizePercentage }}",
        Severity.HIGH,
        impact="Buyers do not get their messages.",
        action="See the error codes at Twilio (Monitor, Errors); one code for most of them names the cause.",
    ),
    _rule(
        "SlowSMSResponse",
        "sms_response_seconds * 1000 > 5000",
        'Slow SMS response time: {{ printf "%.0f" $value }}ms',
        Severity.MEDIUM,
    ),
    _rule(
        "HighSMSRetryRate",
        "sms_retry_ratio > 0.2 and sms_messages_tried >= 20",
        "High SMS retry rate: {{ $value | humanizePercentage }}",
        Severity.MEDIUM,
    ),
    _rule(
        "SMSBalanceLow",
        "twilio_balance_low == 1",
        "SMS balance is low: {{ $summary }}",
        Severity.MEDIUM,
        impact="Without a balance no SMS is sent, alerts included.",
        action="Add to the balance at Twilio (Billing), or turn on its auto-recharge.",
    ),
    _rule(
        "SMSLogUnread",
        "time() - twilio_log_read_until_timestamp_seconds > 3600",
        "What became of SMS is not known for {{ $value | humanizeDuration }}: {{ $summary }}",
        Severity.MEDIUM,
        for_s=1 * HOUR,  # the first run, or the first after a long pause, has much to read
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `sms`."""
    return {"sms": SmsCheck}


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    """What becomes of messages."""
    return (messages.STATUS, messages.SETTLED)


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rules of SMS."""
    return RULES


@hookimpl
def sixfbd_environment(config: PluginConfig) -> Sequence[FromEnvironment]:
    """An account by the names that Twilio's own examples use."""
    table = {"plugin": "sms", **ACCOUNT_FROM_ENVIRONMENT}
    return (FromEnvironment(names=ENVIRONMENT, tables={"checks": {"sms": table}}, missed="SMS are not watched"),)


@hookimpl
def sixfbd_reports(config: PluginConfig) -> Sequence[ReportType]:
    return REPORTS
