"""A double of Stripe's API for reading: payments that progress, refunds, disputes, payouts, events, webhooks with signatures.

A pure state machine: time and chance are given to it, requests come as values, what is due (`deliveries`) is asked for.
`stripe_objects.json` has the objects' shapes, from Stripe's own examples (stripe/openapi, openapi/fixtures3.json, MIT).
It opens no connection.
"""

import copy
import hmac
import json
import random
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from sixfbd_plugins.sandbox.faults import Answer, Fault, answered

SHAPES: Final[dict[str, dict[str, Any]]] = json.loads(
    Path(__file__).with_name("stripe_objects.json").read_text("utf-8")
)
MAX_PAGE: Final = 100
RETRY_S: Final = 60.0  # before the first retry of a delivery; doubles with each
RETRIED_S: Final = 3 * 86400.0  # https://docs.stripe.com/webhooks#automatic-retries
Object = dict[str, Any]


class Try(msgspec.Struct, frozen=True):
    """What becomes of a payment so many seconds after it was begun: "succeeded", "processing", "authorized", "captured",
    "canceled", or with a `code` "failed". `code`: a decline code, or of the type card_error, api_error or else."""

    after_s: float
    becomes: str
    code: str = ""
    type: str = "card_error"


class SandboxPayment(msgspec.Struct, kw_only=True):
    """A payment as the double keeps it: an intent and its charges, or a bare charge. `tries` are still to come."""

    id: str
    amount: int
    currency: str
    begun_at: float
    tries: tuple[Try, ...] = ()
    bare: bool = False
    charge: str = ""
    metadata: dict[str, str] = {}


class Endpoint(msgspec.Struct, kw_only=True):
    """Where webhooks go. `secret` signs them; `enabled_events` may be ("*",)."""

    id: str
    url: str
    secret: str
    enabled_events: tuple[str, ...] = ("*",)
    status: str = "enabled"
    created_at: float = 0.0


class Delivery(msgspec.Struct, frozen=True):
    """A webhook that is due: a body to be posted. Whoever posts it says what came of it by `answered`."""

    event: str
    endpoint: str
    url: str
    headers: dict[str, str]
    body: bytes
    attempt: int = 0


class StripeDouble:
    """One account. `late(event)` gives how many seconds later an event is listed; `faults` may be changed at any time."""

    def __init__(
        self,
        key: str,
        now: Callable[[], float],
        rng: random.Random,
        *,
        late: Callable[[Object], float] = lambda event: 0.0,
    ) -> None:
        self.balance = {"usd": (100_000, 5_000)}
        self.disputes: dict[str, Object] = {}
        self.endpoints: dict[str, Endpoint] = {}
        self.events: dict[str, Object] = {}
        self.payments: dict[str, SandboxPayment] = {}
        self.faults: list[Fault] = []
        self.fault_words = "a fault of the sandbox"
        self.fault_headers: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self._key = key
        self._now = now
        self._rng = rng
        self._late = late
        self._order: list[tuple[int, int, str]] = []  # of events: created, number, id
        self._place: dict[str, tuple[int, int, str]] = {}
        self._listed_at: dict[str, float] = {}
        self._undelivered: dict[str, set[str]] = {}
        self._due: list[tuple[float, int, str, str, int]] = []  # at, number, event, endpoint, attempt
        self._moving: list[tuple[float, int, str]] = []
        self._numbers = 0

    # ---- what happens ----------------------------------------------------------------------------------------------------

    def pay(
        self,
        amount: int,
        currency: str,
        tries: Sequence[Try],
        *,
        at: float | None = None,
        bare: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Begin a payment; return its id. A bare one is a charge of its own, with one try."""
        name = self.new_id("ch" if bare else "pi")
        begun_at = self._now() if at is None else at
        payment = SandboxPayment(
            id=name,
            amount=amount,
            currency=currency,
            begun_at=begun_at,
            tries=tuple(tries),
            bare=bare,
            metadata=dict(metadata or {}),
        )
        self.payments[name] = payment
        if payment.tries:
            insort(self._moving, (begun_at + payment.tries[0].after_s, self._number(), name))
        return name

    def refund(self, payment: str, amount: int, *, at: float | None = None, fails: bool = False) -> str:
        """Refund some of a payment; `fails`: the bank gives it back."""
        paid, name = self.payments[payment], self.new_id("re")
        made_at = self._now() if at is None else at
        thing = self._shaped(
            "refund", id=name, amount=amount, currency=paid.currency, created=int(made_at), charge=paid.charge,
            payment_intent=None if paid.bare else paid.id, status="succeeded",
        )  # fmt: skip
        self._happened("refund.created", thing, made_at)
        if fails:
            self._happened("refund.failed", {**thing, "status": "failed"}, made_at)
        return name

    def dispute(
        self, payment: str, due_at: float, *, at: float | None = None, reason: str = "fraudulent", inquiry: bool = False
    ) -> str:
        """Dispute a payment; an inquiry withdraws no money."""
        paid, name = self.payments[payment], self.new_id("dp")
        made_at = self._now() if at is None else at
        thing = self._shaped(
            "dispute", id=name, amount=paid.amount, currency=paid.currency, created=int(made_at), charge=paid.charge,
            payment_intent=None if paid.bare else paid.id, reason=reason,
            status="warning_needs_response" if inquiry else "needs_response",
        )  # fmt: skip
        thing["evidence_details"] = {**thing["evidence_details"], "due_by": int(due_at)}
        self.disputes[name] = thing
        self._happened("charge.dispute.created", thing, made_at)
        if not inquiry:
            self._happened("charge.dispute.funds_withdrawn", thing, made_at)
        return name

    def pay_out(self, amount: int, currency: str, *, at: float | None = None, fails: bool = False) -> str:
        """Pay out to the bank."""
        name, made_at = self.new_id("po"), self._now() if at is None else at
        status = "failed" if fails else "paid"
        thing = self._shaped("payout", id=name, amount=amount, currency=currency, created=int(made_at), status=status)
        if fails:
            thing["failure_code"] = "account_closed"
        self._happened(f"payout.{status}", thing, made_at)
        return name

    def add_endpoint(self, url: str, secret: str, **more: Any) -> Endpoint:
        """Let there be a webhook endpoint."""
        endpoint = Endpoint(id=self.new_id("we"), url=url, secret=secret, created_at=self._now(), **more)
        self.endpoints[endpoint.id] = endpoint
        return endpoint

    def new_id(self, kind: str) -> str:
        return f"{kind}_{self._rng.getrandbits(96):024x}"

    def advance(self) -> None:
        """Let time do what it does to payments."""
        now = self._now()
        while self._moving and self._moving[0][0] <= now:
            _, _, name = self._moving.pop(0)
            payment = self.payments[name]
            step, *rest = payment.tries
            payment.tries = tuple(rest)
            self._attempt(payment, step, payment.begun_at + step.after_s)
            if rest:
                insort(self._moving, (payment.begun_at + rest[0].after_s, self._number(), name))

    def deliveries(self) -> list[Delivery]:
        """Return the webhooks that are due since the last call."""
        self.advance()
        now, found = self._now(), []
        while self._due and self._due[0][0] <= now:
            _, _, event, name, attempt = self._due.pop(0)
            endpoint = self.endpoints[name]
            if endpoint.status == "enabled":
                found.append(self._delivery(event, endpoint, attempt))
        return found

    def answered(self, delivery: Delivery, status: int) -> None:
        """What came of a webhook: it is tried again, later and later, unless the answer was 2xx."""
        if 200 <= status < 300:
            self._undelivered[delivery.event].discard(delivery.endpoint)
            return
        wait_s = RETRY_S * 2**delivery.attempt
        if wait_s < RETRIED_S:
            again = (self._now() + wait_s, self._number(), delivery.event, delivery.endpoint, delivery.attempt + 1)
            insort(self._due, again)

    def signature(self, body: bytes, secret: str) -> str:
        """Return the header of a webhook (https://docs.stripe.com/webhooks#verify-manually)."""
        at = int(self._now())
        signed = hmac.new(secret.encode(), f"{at}.".encode() + body, sha256).hexdigest()
        return f"t={at},v1={signed}"

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _attempt(self, payment: SandboxPayment, step: Try, at: float) -> None:
        if step.becomes in ("failed", "succeeded", "authorized"):
            payment.charge = payment.id if payment.bare else self.new_id("ch")
            charge = self._charge(payment, step, at)
            self._happened("charge.failed" if step.becomes == "failed" else "charge.succeeded", charge, at)
        if payment.bare:
            return
        kind = {
            "failed": "payment_failed", "succeeded": "succeeded", "authorized": "amount_capturable_updated",
            "captured": "succeeded", "processing": "processing", "canceled": "canceled",
        }[step.becomes]  # fmt: skip
        self._happened(f"payment_intent.{kind}", self._intent(payment, step), at)

    def _intent(self, payment: SandboxPayment, step: Try) -> Object:
        paid = step.becomes in ("succeeded", "captured")
        status = {"failed": "requires_payment_method", "authorized": "requires_capture", "captured": "succeeded"}
        intent = self._shaped(
            "payment_intent", id=payment.id, amount=payment.amount, amount_received=payment.amount if paid else 0,
            currency=payment.currency, created=int(payment.begun_at), latest_charge=payment.charge or None,
            status=status.get(step.becomes, step.becomes), client_secret=f"{payment.id}_secret_x",
        )  # fmt: skip
        if payment.metadata:
            intent["metadata"] = dict(payment.metadata)
        if step.becomes == "failed":
            intent["last_payment_error"] = _error(step)
        return intent

    def _charge(self, payment: SandboxPayment, step: Try, at: float) -> Object:
        failed, captured = step.becomes == "failed", step.becomes == "succeeded"
        charge = self._shaped(
            "charge", id=payment.charge, amount=payment.amount, amount_captured=payment.amount if captured else 0,
            captured=captured, currency=payment.currency, created=int(at), paid=not failed,
            payment_intent=None if payment.bare else payment.id, status="failed" if failed else "succeeded",
        )  # fmt: skip
        if failed:
            charge["failure_code"] = "card_declined" if step.type == "card_error" else step.code
            is_decline = step.type == "card_error" and step.code != "processing_error"
            charge["outcome"] |= {"type": "issuer_declined" if is_decline else "invalid", "reason": step.code}
        return charge

    def _shaped(self, kind: str, **values: Any) -> Object:
        return {**copy.deepcopy(SHAPES[kind]), **values}

    def _happened(self, kind: str, thing: Object, at: float) -> Object:
        name = self.new_id("evt")
        wanted = [one for one in self.endpoints.values() if _wants(one, kind)]
        event = self._shaped("event", id=name, type=kind, created=int(at), data={"object": copy.deepcopy(thing)})
        self.events[name] = event
        self._place[name] = (event["created"], self._number(), name)
        insort(self._order, self._place[name])
        self._listed_at[name] = at + self._late(event)
        self._undelivered[name] = {one.id for one in wanted}
        for one in wanted:
            insort(self._due, (at, self._number(), name, one.id, 0))
        return event

    def _delivery(self, event: str, endpoint: Endpoint, attempt: int) -> Delivery:
        body = msgspec.json.encode(self._shown(event))
        headers = {
            "content-type": "application/json; charset=utf-8",
            "stripe-signature": self.signature(body, endpoint.secret),
        }
        return Delivery(event, endpoint.id, endpoint.url, headers, body, attempt)

    def _shown(self, event: str) -> Object:
        return {**self.events[event], "pending_webhooks": len(self._undelivered[event])}

    # ---- requests ----------------------------------------------------------------------------------------------------------

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Answer one request. `headers` by lower-case name, `path` without the query string."""
        self.requests.append((method, path))
        self.advance()
        return answered(
            self.faults, method, path, self._rng, lambda: self._answer(method, path, query, headers), self._refused
        )

    def _refused(self, fault: Fault) -> Answer:
        refusal = _refusal(fault.error, "rate_limit" if fault.error == 429 else "", self.fault_words)
        after = {"retry-after": str(fault.retry_after_s)} if fault.retry_after_s else {}
        return msgspec.structs.replace(refusal, headers={**refusal.headers, **after, **self.fault_headers})

    def _answer(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        if headers.get("authorization") != f"Bearer {self._key}":
            return _refusal(401, "", "Invalid API Key provided: sk_test_****")
        match method, path.removeprefix("/v1/").split("/"):
            case "GET", ["balance"]:
                return _json(self._balance())
            case "GET", ["events"]:
                return self._list_events(query)
            case "GET", ["disputes"]:
                found = sorted(self.disputes.values(), key=lambda one: (-one["created"], one["id"]))
                return _listed(path, found, query)
            case "GET", ["webhook_endpoints"]:
                return _listed(path, [self._endpoint(one) for one in self.endpoints.values()], query)
        return _refusal(404, "", f"Unrecognized request URL ({method}: {path})")

    def _balance(self) -> Object:
        def entries(place: int) -> list[Object]:
            return [{"amount": pair[place], "currency": one, "source_types": {}} for one, pair in self.balance.items()]

        return self._shaped("balance", available=entries(0), pending=entries(1))

    def _endpoint(self, one: Endpoint) -> Object:
        return self._shaped(
            "webhook_endpoint", id=one.id, url=one.url, status=one.status, enabled_events=list(one.enabled_events),
            created=int(one.created_at),
        )  # fmt: skip

    def _list_events(self, query: Mapping[str, str]) -> Answer:
        limit, now = min(int(query.get("limit", "10")), MAX_PAGE), self._now()
        place = len(self._order)
        if after := query.get("starting_after", ""):
            if after not in self._place:
                return _refusal(400, "resource_missing", f"No such event: '{after}'")
            place = bisect_left(self._order, self._place[after])
        if "created[lt]" in query:
            place = min(place, bisect_left(self._order, (int(query["created[lt]"]),)))
        least = int(query.get("created[gte]", "0"))
        delivered = query.get("delivery_success", "")
        found: list[Object] = []
        while place > 0 and len(found) <= limit:
            place -= 1
            created, _, name = self._order[place]
            if created < least:
                break
            is_wanted = not delivered or (delivered == "true") is not bool(self._undelivered[name])
            if is_wanted and self._listed_at[name] <= now:
                found.append(self._shown(name))
        return _json({"object": "list", "url": "/v1/events", "has_more": len(found) > limit, "data": found[:limit]})


def _wants(endpoint: Endpoint, kind: str) -> bool:
    return endpoint.status == "enabled" and bool({"*", kind} & set(endpoint.enabled_events))


def _error(step: Try) -> Object:
    error = {"type": step.type, "code": step.code, "message": "It failed.", "payment_method": {"id": "pm_1"}}
    if step.type == "card_error" and step.code != "processing_error":
        error |= {"code": "card_declined", "decline_code": step.code}
    return error


def _listed(path: str, found: list[Object], query: Mapping[str, str]) -> Answer:
    limit, after = min(int(query.get("limit", "10")), MAX_PAGE), query.get("starting_after", "")
    ids = [one["id"] for one in found]
    if after and after not in ids:
        return _refusal(400, "resource_missing", f"No such object: '{after}'")
    least = int(query.get("created[gte]", "0"))
    rest = [one for one in found[ids.index(after) + 1 if after else 0 :] if one["created"] >= least]
    return _json({"object": "list", "url": path, "has_more": len(rest) > limit, "data": rest[:limit]})


def _json(body: Object) -> Answer:
    return Answer(headers={"content-type": "application/json", "request-id": "req_0"}, body=msgspec.json.encode(body))


def _refusal(status: int, code: str, message: str) -> Answer:
    """https://docs.stripe.com/api/errors"""
    error = {"type": "api_error" if status >= 500 else "invalid_request_error", "message": message}
    answer = _json({"error": {**error, "code": code} if code else error})
    return msgspec.structs.replace(answer, status=status)
