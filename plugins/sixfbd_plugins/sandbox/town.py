"""One sandbox, whole: the shop and the doubles of its providers, wired together, with the faults that are on and the inbox.

Pure: requests come in as values by house (`houses`), what is due goes out as values (`advance`). It opens no connection.
"""

import base64
import html
import random
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

import msgspec
from msgspec.structs import replace

from sixfbd.plugin import DAY
from sixfbd_plugins.sandbox.discord import DiscordDouble
from sixfbd_plugins.sandbox.faults import Answer, Fault
from sixfbd_plugins.sandbox.hook import HookDouble
from sixfbd_plugins.sandbox.sendgrid import SendGridDouble
from sixfbd_plugins.sandbox.shop import CURRENCY, Card, Order, Outcome, Shop, State, Trade
from sixfbd_plugins.sandbox.slack import SlackDouble
from sixfbd_plugins.sandbox.stripe import StripeDouble, Try
from sixfbd_plugins.sandbox.switches import PostFault, Switch, SwitchError, read_switch
from sixfbd_plugins.sandbox.twilio import API, DELIVERED, Step, TwilioDouble

DAEMON_NUMBER: Final = "+13525550100"
SHOP_NUMBER: Final = "+13525550110"
SHOP_ADDRESS: Final = "tickets@example.com"
SLACK_CHANNELS: Final = {
    "alerts": "C0000000001", "critical-alerts": "C0000000002", "inventory-alerts": "C0000000003",
    "payment-alerts": "C0000000004",
}  # fmt: skip
DECLINES: Final = ("insufficient_funds", "generic_decline", "expired_card")
PAID_AFTER_S: Final = 0.5
MAX_INBOX: Final = 2000  # of more the oldest are forgotten
Handle = Callable[[str, str, Mapping[str, str], Mapping[str, str], bytes], Answer]


class House(Protocol):
    """The shop, or a double."""

    faults: list[Fault]

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer: ...


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides must know. Secret all but the account's sid."""

    twilio_sid: str
    twilio_token: str
    stripe_key: str
    stripe_signing: str
    sendgrid_key: str
    sendgrid_signing: str  # what the key that signs event webhooks is drawn from
    slack_token: str
    discord_webhooks: dict[str, str]  # channels by path
    hook_secret: str


class Parcel(msgspec.Struct, frozen=True):
    """A webhook that is due at the daemon. `done` is told the status of the answer, 0 without one."""

    house: str
    url: str
    headers: dict[str, str]
    body: bytes
    done: Callable[[int], None] | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was sent to somebody, and what became of it. `by`: the daemon (sixfbd) or the shop."""

    at: float
    channel: str
    by: str
    to: str
    text: str
    number: int = 0
    state: str = ""


class Town:
    """`houses` answer requests; `advance` lets time pass; `switch` and `clear` change the faults that are on.

    `public` is the address of the daemon's port for the outside.
    """

    def __init__(
        self,
        keys: Keys,
        now: Callable[[], float],
        rng: random.Random,
        *,
        public: str = "http://127.0.0.1:9633",
        state: State | None = None,
        speed: float = 1.0,
    ) -> None:
        self.twilio = TwilioDouble(
            keys.twilio_sid, keys.twilio_token, now, rng, numbers=(DAEMON_NUMBER, SHOP_NUMBER), plan=self._plan
        )
        self.stripe = StripeDouble(keys.stripe_key, now, rng)
        self.endpoint = self.stripe.add_endpoint(f"{public}/webhooks/stripe", keys.stripe_signing)
        self.sendgrid = SendGridDouble(
            keys.sendgrid_key, now, rng, plan=self._mail_plan, signing=random.Random(keys.sendgrid_signing)
        )
        self.slack = SlackDouble(keys.slack_token, now, rng, channels=SLACK_CHANNELS)
        self.discord = DiscordDouble(now, rng, webhooks=keys.discord_webhooks)
        self.hook = HookDouble(keys.hook_secret, now, rng)
        self.shop = Shop(
            now, rng, charge=self._charge, confirm=self._confirm, repay=self._repay, state=state, speed=speed
        )
        self._doubles: dict[str, House] = {
            "shop": self.shop, "twilio": self.twilio, "stripe": self.stripe, "sendgrid": self.sendgrid, "slack": self.slack,
            "discord": self.discord, "hook": self.hook,
        }  # fmt: skip
        self.houses: dict[str, Handle] = {name: double.handle for name, double in self._doubles.items()}
        self.switches: list[Switch] = []
        self.post_faults: dict[str, list[PostFault]] = {}
        self._keys = keys
        self._now = now
        self._rng = rng
        self._switched = 0
        self._inbox: list[tuple[Item, Callable[[], str]]] = []
        self._seen: dict[str, int] = {}  # of each channel, messages that are in the inbox
        self._delivered = 0
        self._undelivered = 0  # Twilio's error code, 0 if messages arrive
        self._bounces = False
        self._public = public

    def advance(self) -> list[Parcel]:
        """Let time pass; return the webhooks that are due since the last call."""
        self.shop.advance()
        self._collect()
        parcels = [Parcel("twilio", one.url, one.headers, one.body) for one in self.twilio.advance()]
        for due in self.stripe.deliveries():
            parcels.append(Parcel("stripe", due.url, due.headers, due.body, partial(self.stripe.answered, due)))
        if events := self.sendgrid.due_events():
            parcels.append(Parcel("sendgrid", f"{self._public}/webhooks/sendgrid", *self.sendgrid.webhook(events)))
        return parcels

    # ---- faults ----------------------------------------------------------------------------------------------------------

    def switch(self, target: str, words: Sequence[str]) -> Switch:
        """Switch a fault on. Raises SwitchError."""
        made = read_switch(self._switched + 1, target, words)
        self._switched = made.number
        self.switches.append(made)
        self._apply()
        self._strike(made.own)
        return made

    def clear(self, name: str = "") -> list[Switch]:
        """Switch off the fault of this number, those of this target, or all; return them. Raises SwitchError."""
        gone = [one for one in self.switches if name in ("", one.target, str(one.number))]
        if name and not gone:
            raise SwitchError(f"{name}: no fault of this number or target is on")
        self.switches = [one for one in self.switches if one not in gone]
        self._apply()
        return gone

    def _apply(self) -> None:
        """Make every house be as the faults that are on will have it."""
        for name, double in self._doubles.items():
            double.faults[:] = [one.fault for one in self._of(name) if one.fault is not None]
            self.post_faults[name] = [one.post for one in self._of(name) if one.post is not None]
        own: dict[str, Any] = {word: value for one in self.switches for word, value in one.own.items()}
        self.twilio.status = own.get("account", "active")
        self.twilio.balance = own.get("balance", "100.00")
        self._undelivered = own.get("undelivered", 0)
        self._bounces = "bounce" in own
        self.endpoint.status = own.get("endpoint", "enabled")
        self.slack.fault_code = own.get("refusal", "internal_error")
        if "disputes" not in own:
            for dispute in self.stripe.disputes.values():
                dispute["status"] = "won"
        trade = replace(Trade(), **{word: own[word] for word in Trade.__struct_fields__ if word in own})
        if trade != self.shop.trade:
            self.shop.set_trade(trade)

    def _strike(self, own: Mapping[str, Any]) -> None:
        """Do what happens once when a fault is switched on."""
        if "payouts" in own:
            self.stripe.pay_out(50_000, CURRENCY.lower(), fails=True)
        share = own.get("disputes", 0.0)
        for order in list(self.shop.state.orders.values()):
            if order.state == "ticketed" and self._is_charged(order) and self._rng.random() < share:
                self.stripe.dispute(order.reference, self._now() + 1 * DAY)

    def _of(self, target: str) -> Iterable[Switch]:
        return (one for one in self.switches if one.target == target)

    def _plan(self, to: str) -> tuple[Step, ...]:
        if self._undelivered:
            return (Step(1.0, "sent"), Step(2.0, "undelivered", self._undelivered))
        return DELIVERED

    def _mail_plan(self, to: str) -> tuple[str, ...]:
        return ("processed", "bounce" if self._bounces else "delivered")

    # ---- what the shop asks of its providers -------------------------------------------------------------------------------

    def _charge(self, order: Order, card: Card) -> Outcome:
        """Have Stripe charge a card; the faults of its API are met as by any other request."""
        if self._fails("/v1/payment_intents"):
            return Outcome("failed", "api_error")
        reason = {"good": "", "declined": self._rng.choice(DECLINES), "broken": "processing_error"}[card]
        step = Try(PAID_AFTER_S, "failed", reason) if reason else Try(PAID_AFTER_S, "succeeded")
        written = {"orderId": order.id, "cityId": order.city, "tier": order.tier}
        reference = self.stripe.pay(order.amount_minor, CURRENCY.lower(), (step,), metadata=written)
        if card == "good":
            return Outcome("succeeded", reference=reference)
        return Outcome("declined" if card == "declined" else "failed", reason, reference)

    def _repay(self, order: Order) -> bool:
        """Have Stripe refund an order; one that a restart of the sandbox has let it forget is refunded without it."""
        if self._fails("/v1/refunds"):
            return False
        if self._is_charged(order):
            self.stripe.refund(order.reference, order.amount_minor)
        return True

    def _fails(self, path: str) -> bool:
        met = [one for one in self.stripe.faults if one.hits("POST", path, self._rng)]
        return any(one.error or one.silent or one.lost for one in met)

    def _is_charged(self, order: Order) -> bool:
        payment = self.stripe.payments.get(order.reference)
        return payment is not None and bool(payment.charge)

    def _confirm(self, order: Order) -> None:
        """Text and mail the customer; a ticket stands whether they arrive or not, as in real shops."""
        said = f"Your {order.quantity} {order.tier} ticket(s) for {order.city}: {order.id}"
        user = base64.b64encode(f"{self._keys.twilio_sid}:{self._keys.twilio_token}".encode()).decode()
        number = f"+1352555{sum(order.customer.encode()) % 80 + 120:04d}"
        form = urllib.parse.urlencode({"To": number, "From": SHOP_NUMBER, "Body": said}).encode()
        path = f"{API}{self._keys.twilio_sid}/Messages.json"
        self.twilio.handle("POST", path, {}, {"authorization": f"Basic {user}"}, form)
        mail = {
            "personalizations": [{"to": [{"email": order.customer}]}],
            "from": {"email": SHOP_ADDRESS},
            "subject": said,
            "content": [{"type": "text/plain", "value": said}],
        }
        key = {"authorization": f"Bearer {self._keys.sendgrid_key}"}
        self.sendgrid.handle("POST", "/v3/mail/send", {}, key, msgspec.json.encode(mail))

    # ---- what was sent -----------------------------------------------------------------------------------------------------

    def inbox(self, after: int = 0) -> list[Item]:
        """Return what was sent to whom, oldest first, behind the item of this number."""
        self._collect()
        return [replace(item, state=state()) for item, state in self._inbox if item.number > after]

    def _collect(self) -> None:
        found: list[tuple[Item, Callable[[], str]]] = []
        for message in self._fresh("sms", self.twilio.messages.values()):
            by = "shop" if message.from_ == SHOP_NUMBER else "sixfbd"
            item = Item(at=message.created_at, channel="sms", by=by, to=message.to, text=message.body)
            found.append((item, partial(_said, message)))
        for mail in self._fresh("email", self.sendgrid.mails):
            by = "shop" if mail.body["from"]["email"] == SHOP_ADDRESS else "sixfbd"
            text = str(mail.body["subject"])
            item = Item(at=self._now(), channel="email", by=by, to=mail.to, text=text)
            found.append((item, lambda: "taken"))
        names = {channel: f"#{name}" for name, channel in self.slack.channels.items()}
        for posted in self._fresh("slack", self.slack.messages):
            text = html.unescape(str(posted.content.get("text") or posted.text))
            item = Item(at=float(posted.ts), channel="slack", by="sixfbd", to=names[posted.channel], text=text)
            found.append((item, partial(_edited, posted)))
        for posted in self._fresh("discord", self.discord.messages):
            text = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", str(posted.content.get("content") or posted.text))
            item = Item(at=self._now(), channel="discord", by="sixfbd", to=posted.channel, text=text)
            found.append((item, partial(_edited, posted)))
        for post in self._fresh("webhook", self.hook.posts.values()):
            item = Item(at=post.at, channel="webhook", by="sixfbd", to=post.receiver, text=post.title)
            found.append((item, lambda: "taken"))
        for item, state in sorted(found, key=lambda one: one[0].at):
            self._delivered += 1
            self._inbox.append((replace(item, number=self._delivered), state))
        del self._inbox[:-MAX_INBOX]

    def _fresh(self, channel: str, messages: Iterable[Any]) -> list[Any]:
        """Return the messages of a channel that are new since the last call."""
        everything = list(messages)
        fresh = everything[self._seen.get(channel, 0) :]
        self._seen[channel] = len(everything)
        return fresh


def _said(message: Any) -> str:
    return f"{message.status} ({message.code})" if message.code else str(message.status)


def _edited(message: Any) -> str:
    return f"rewritten {message.edited}x" if message.edited else "posted"
