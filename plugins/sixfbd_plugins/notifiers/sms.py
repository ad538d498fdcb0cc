"""The `sms` notifier: a notification becomes one SMS to one number, through Twilio.

Owns what the text says, its length and its pace. Each text ends with a short reference: by it a message is found in the
account's log whose answer was lost, and no two texts are the same, as Twilio drops those that are. What became of a message
later is told by the event type `sms_status`: by a status callback, or by the `sms` check that reads the log.
"""

import ipaddress
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import httpx
from msgspec import Meta, Struct
from msgspec.structs import replace

from sixfbd.plugin import (
    DAY,
    SECOND,
    Configured,
    Context,
    Counter,
    Event,
    EventType,
    FromEnvironment,
    Message,
    Notification,
    Notifier,
    OptionFaults,
    PermanentFailure,
    PluginConfig,
    Receipt,
    Secret,
    TemporaryFailure,
    hookimpl,
    installed,
)
from sixfbd_plugins.notifiers.pace import Pace
from sixfbd_plugins.provider import last_digits
from sixfbd_plugins.twilio.account import (
    ACCOUNT_FROM_ENVIRONMENT,
    ENVIRONMENT,
    PUBLIC_URL,
    Account,
    AccountOptions,
    Misread,
    Refused,
    revealed,
    validate_sid,
)
from sixfbd_plugins.twilio.failures import is_temporary, words_of
from sixfbd_plugins.twilio.messages import FAILED, receipt_of
from sixfbd_plugins.twilio.numbers import normalized, normalized_sender
from sixfbd_plugins.twilio.texts import fitted, reference, segments

LISTED_AFTER_S: Final = 30 * SECOND  # a message that was taken is in the log by then
LOOKED_AT: Final = 200  # messages to one number, the newest first

SENT = Counter("sms_notifications_sent_total", "Our own messages that the provider took.")
NOT_SENT = Counter("sms_notifications_failed_total", "Our own messages that were given up.")
OUTCOMES: Final = {"accepted": "sent", "delivered": "sent", "dead": "failed"}


class SmsNotification(Struct, frozen=True):
    """What became of one of our own messages: `sent` or `failed`; of none yet `begun`, so that the counters are there."""

    outcome: str


NOTIFICATION: Final = EventType(
    "sms_notification",
    SmsNotification,
    counts=lambda one: [SENT(float(one.outcome == "sent")), NOT_SENT(float(one.outcome == "failed"))],
    metrics=(SENT, NOT_SENT),
    shared=True,
    doc="A message of our own was taken by the provider, or given up.",
)


class SmsNotifierOptions(AccountOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of an `sms` notifier; one of `from_number` and `messaging_service_sid` is needed."""

    from_number: Annotated[Secret | str, Meta(description="The sender: a number, a short code or a name.")] = ""
    messaging_service_sid: Annotated[str, Meta(description="The messaging service that chooses the sender.")] = ""
    max_segments: Annotated[int, Meta(ge=1, le=10, description="Segments of a message; a longer text is cut.")] = 3
    rate: Annotated[
        float, Meta(gt=0, le=1000, description="Messages a second; 1 is what a US long code is allowed.")
    ] = 1.0
    status_callback: Annotated[
        str,
        Meta(
            description="Public address that is told what became of messages; unless given, the inbound of kind twilio."
        ),
    ] = ""

    def check(self, faults: OptionFaults) -> None:
        super().check(faults)
        with faults.at("account_sid"):
            installed("twilio", extra="twilio")
        with faults.at("from_number"):
            if bool(revealed(self.from_number)) is bool(self.messaging_service_sid):
                raise ValueError("one of from_number and messaging_service_sid is needed")
            if revealed(self.from_number):
                normalized_sender(revealed(self.from_number))
        with faults.at("messaging_service_sid"):
            if self.messaging_service_sid:
                validate_sid(self.messaging_service_sid, "MG")
        with faults.at("status_callback"):
            if self.status_callback:
                _validate_callback(self.status_callback)


class SmsNotifier(Notifier[SmsNotifierOptions]):
    """SMS to phones, through Twilio; one message for each number."""

    Options = SmsNotifierOptions
    provider_urls = {"base_url": PUBLIC_URL}  # noqa: RUF012 - a ClassVar of the contract
    can_look_up = True
    receipts = True

    def __init__(self, options: SmsNotifierOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._account = Account(options, ctx)
        sender = revealed(options.from_number)
        self._sender = (
            {"from_": normalized_sender(sender)} if sender else {"messaging_service_sid": options.messaging_service_sid}
        )
        self._pace = Pace(options.rate, ctx.clock)
        self._lost: dict[str, float] = {}  # when messages were sent whose answers were lost

    @classmethod
    def complete(cls, options: Any, configured: Configured) -> Any:
        """Let the one inbound of kind twilio be told what became of messages, if Twilio can call it."""
        webhooks = configured.webhooks.get("twilio", ())
        if options.status_callback or len(webhooks) != 1 or not (configured.sandbox or _is_public(webhooks[0])):
            return options
        return replace(options, status_callback=webhooks[0])

    @classmethod
    def looks_for_receipts(cls, options: Any) -> bool:
        return not options.status_callback

    @classmethod
    def check_address(cls, options: Any, address: str) -> None:
        normalized(address)

    @classmethod
    def show_address(cls, address: str) -> str:
        return last_digits(address)

    @classmethod
    def shows(cls, options: Any, notification: Notification, site: str) -> str:
        return body_of(notification, site, options.max_segments)

    async def deliver(self, notification: Notification) -> Receipt:
        to = _receiver(notification)
        body = body_of(notification, self.ctx.site, self.options.max_segments)
        await self._pace.turn(notification)
        call = self._account.client.messages.create_async(
            to=to, body=body, **self._sender, **self._callback(notification)
        )
        try:
            sent = await self._account.ask(call)
        except Misread as answer:
            raise self._note_lost(notification, TemporaryFailure(str(answer), sent=True)) from None
        except Refused as refused:
            raise failure_of(refused) from None
        except TemporaryFailure as failure:
            raise self._note_lost(notification, failure) from None
        if sent.status in FAILED:
            raise failure_of(Refused(200, sent.error_code or 0, str(sent.status)))
        count = segments(body)
        detail = f"{sent.status}, {count} segment{'s' if count > 1 else ''}"
        return Receipt(state="accepted", message_id=notification.id, provider_id=str(sent.sid), detail=detail)

    async def lookup(self, notification: Notification) -> Receipt | None:
        wanted = reference(notification.id, notification.attempt)
        call = self._account.client.messages.list_async(
            to=_receiver(notification), limit=LOOKED_AT, page_size=LOOKED_AT
        )
        try:
            listed = await self._account.ask(call)
        except Refused as refused:  # whatever it is, it says nothing of the message
            raise TemporaryFailure(str(refused), retry_after_s=refused.retry_after_s) from None
        found = next((one for one in listed if (one.body or "").split()[-1:] == [wanted]), None)
        if found is None:
            listed_at = self._lost.get(notification.id, 0.0) + LISTED_AFTER_S
            if (wait_s := listed_at - self.ctx.clock.now()) > 0:
                raise TemporaryFailure("the message is not in the log yet", retry_after_s=wait_s)
            self._lost.pop(notification.id, None)
            return None
        self._lost.pop(notification.id, None)
        sid, status = str(found.sid), str(found.status)
        return receipt_of(status, found.error_code or 0, notification.id, sid) or Receipt(
            state="accepted", message_id=notification.id, provider_id=sid, detail=f"found by its reference: {status}"
        )

    def events(self, messages: Sequence[Message]) -> Sequence[Event]:
        ended = {f"{one.id}/{outcome}": outcome for one in messages if (outcome := OUTCOMES.get(one.state, ""))}
        if not messages:
            ended[f"{self.ctx.name}/begun"] = "begun"
        now = self.ctx.clock.now()
        return [Event(name, NOTIFICATION.name, now, {"outcome": outcome}) for name, outcome in ended.items()]

    def _callback(self, notification: Notification) -> dict[str, str]:
        """Return where Twilio tells what became of a message: the address names it, and is signed with the rest."""
        if not self.options.status_callback:
            return {}
        joint = "&" if "?" in self.options.status_callback else "?"
        query = urllib.parse.urlencode({"message": notification.id})
        return {"status_callback": f"{self.options.status_callback}{joint}{query}"}

    def _note_lost(self, notification: Notification, failure: TemporaryFailure) -> TemporaryFailure:
        now = self.ctx.clock.now()
        self._lost = {name: at for name, at in self._lost.items() if now - at < DAY}
        if failure.sent:
            self._lost[notification.id] = now
        return failure


def _link(notification: Notification) -> list[str]:
    """The link that acknowledges an alert that is told alone; a text has no room for more."""
    links = [alert.ack_url for alert in notification.alerts if alert.ack_url]
    return links if len(notification.alerts) == 1 else []


def body_of(notification: Notification, site: str, max_segments: int) -> str:
    """Return an SMS, cut to fit, with its link and the reference by which it is known again."""
    ending = " ".join([*_link(notification), reference(notification.id, notification.attempt)])
    return fitted(text_of(notification, site), ending, max_segments)


def text_of(notification: Notification, site: str) -> str:
    """Return what an SMS says: remarks of the daemon about itself, where it comes from and the title, the other alerts."""
    if notification.own_text:
        return notification.text
    title = f"{site}: {notification.title}" if site else notification.title
    others = [f"{alert.status}: {alert.sentence}" for alert in notification.alerts[1:]]
    return "\n".join([*notification.remarks, title, *others])


def failure_of(refused: Refused) -> TemporaryFailure | PermanentFailure:
    """Return what a refusal means for a message, by Twilio's own code first, then by HTTP's status."""
    text = f"answered {refused.status}: {words_of(refused.code, refused.said)}"
    if is_temporary(refused.code, refused.is_passing):
        return TemporaryFailure(text, retry_after_s=refused.retry_after_s)
    return PermanentFailure(text)


def _receiver(notification: Notification) -> str:
    try:
        return normalized(notification.address)
    except ValueError as error:
        raise PermanentFailure(f"the receiver's address {error}") from None


def _is_public(url: str) -> bool:
    """Tell whether Twilio might reach an address: it refuses messages whose callback is none."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".localhost", ".local", ".internal"))


def _validate_callback(text: str) -> None:
    url = httpx.URL(text) if text.isascii() and text.isprintable() else httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.fragment:
        raise ValueError('is not an address such as "https://hooks.example.com/webhooks/twilio"')


@hookimpl
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[Notifier[Any]]]:
    """The notifier `sms`."""
    return {"sms": SmsNotifier}


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    """What became of our own messages."""
    return (NOTIFICATION,)


@hookimpl
def sixfbd_environment(config: PluginConfig) -> Sequence[FromEnvironment]:
    """An account by the names that Twilio's own examples use."""
    table = {"plugin": "sms", **ACCOUNT_FROM_ENVIRONMENT}
    by_hand = '[receivers.primary.sms]\nvia = "twilio"\nto = ["+1-352-555-0101"]'
    return (
        FromEnvironment(
            names=ENVIRONMENT, tables={"notifiers": {"twilio": table}}, missed="nobody is told by SMS", by_hand=by_hand
        ),
    )
