"""One sandbox, whole: the shop and the doubles of its providers, wired together, with the faults that are on and the inbox.

Pure: requests come in as values by house (`houses`), what is due goes out as values (`advance`). It opens no connection.
"""

import base64
import random
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from sixfbd_plugins.sandbox.faults import Answer
from sixfbd_plugins.sandbox.hook import HookDouble
from sixfbd_plugins.sandbox.shop import Card, Order, Outcome, Shop, State, Trade
from sixfbd_plugins.sandbox.switches import PostFault, Switch, SwitchError, read_switch
from sixfbd_plugins.sandbox.twilio import API, DELIVERED, Step, TwilioDouble

DAEMON_NUMBER: Final = "+13525550100"
SHOP_NUMBER: Final = "+13525550110"
MAX_INBOX: Final = 2000  # of more the oldest are forgotten
Handle = Callable[[str, str, Mapping[str, str], Mapping[str, str], bytes], Answer]


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides must know. Secret all but the account's sid."""

    twilio_sid: str
    twilio_token: str
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
    """`houses` answer requests; `advance` lets time pass; `switch` and `clear` change the faults that are on."""

    def __init__(
        self,
        keys: Keys,
        now: Callable[[], float],
        rng: random.Random,
        *,
        state: State | None = None,
        speed: float = 1.0,
    ) -> None:
        self.twilio = TwilioDouble(
            keys.twilio_sid, keys.twilio_token, now, rng, numbers=(DAEMON_NUMBER, SHOP_NUMBER), plan=self._plan
        )
        self.hook = HookDouble(keys.hook_secret, now, rng)
        self.shop = Shop(now, rng, charge=self._charge, confirm=self._confirm, state=state, speed=speed)
        self.houses: dict[str, Handle] = {
            "shop": self.shop.handle, "twilio": self.twilio.handle, "hook": self.hook.handle,
        }  # fmt: skip
        self.switches: list[Switch] = []
        self.post_faults: dict[str, list[PostFault]] = {}
        self._keys = keys
        self._rng = rng
        self._switched = 0
        self._inbox: list[tuple[Item, Callable[[], str]]] = []
        self._seen: dict[str, int] = {}  # of each channel, messages that are in the inbox
        self._delivered = 0
        self._undelivered = 0  # Twilio's error code, 0 if messages arrive

    def advance(self) -> list[Parcel]:
        """Let time pass; return the webhooks that are due since the last call."""
        self.shop.advance()
        return [Parcel("twilio", one.url, one.headers, one.body) for one in self.twilio.advance()]

    # ---- faults ----------------------------------------------------------------------------------------------------------

    def switch(self, target: str, words: Sequence[str]) -> Switch:
        """Switch a fault on. Raises SwitchError."""
        made = read_switch(self._switched + 1, target, words)
        self._switched = made.number
        self.switches.append(made)
        self._apply()
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
        for name, double in (("shop", self.shop), ("twilio", self.twilio), ("hook", self.hook)):
            double.faults[:] = [one.fault for one in self._of(name) if one.fault is not None]
            self.post_faults[name] = [one.post for one in self._of(name) if one.post is not None]
        own: dict[str, Any] = {word: value for one in self.switches for word, value in one.own.items()}
        self.twilio.status = own.get("account", "active")
        self.twilio.balance = own.get("balance", "100.00")
        self._undelivered = own.get("undelivered", 0)
        trade = replace(Trade(), **{word: own[word] for word in Trade.__struct_fields__ if word in own})
        if trade != self.shop.trade:
            self.shop.set_trade(trade)

    def _of(self, target: str) -> Iterable[Switch]:
        return (one for one in self.switches if one.target == target)

    def _plan(self, to: str) -> tuple[Step, ...]:
        if self._undelivered:
            return (Step(1.0, "sent"), Step(2.0, "undelivered", self._undelivered))
        return DELIVERED

    # ---- what the shop asks of its providers -------------------------------------------------------------------------------

    def _charge(self, order: Order, card: Card) -> Outcome:
        """Stand in for a payment provider."""
        if card == "good":
            return Outcome("succeeded", reference=f"pay-{order.id}")
        if card == "declined":
            return Outcome("declined", self._rng.choice(("insufficient_funds", "generic_decline", "expired_card")))
        return Outcome("failed", "processing_error")

    def _confirm(self, order: Order) -> None:
        """Text the customer; a ticket stands whether the text goes out or not, as in real shops."""
        user = base64.b64encode(f"{self._keys.twilio_sid}:{self._keys.twilio_token}".encode()).decode()
        form = {
            "To": f"+1352555{sum(order.customer.encode()) % 80 + 120:04d}",
            "From": SHOP_NUMBER,
            "Body": f"Your {order.quantity} {order.tier} ticket(s) for {order.city}: {order.id}",
        }
        path = f"{API}{self._keys.twilio_sid}/Messages.json"
        body = urllib.parse.urlencode(form).encode()
        self.twilio.handle("POST", path, {}, {"authorization": f"Basic {user}"}, body)

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
