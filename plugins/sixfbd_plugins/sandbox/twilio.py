"""A double of Twilio's API for messages: accounts, numbers, messages that progress, status callbacks with signatures.

A pure state machine: time and chance are given to it, requests come as values, what is due (`callbacks`) is asked for.
Shapes are those of Twilio's OpenAPI document (twilio-oai, api_v2010) and its examples. It opens no connection.
"""

import base64
import hmac
import json
import random
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha1
from typing import Any, Final

import msgspec

from sixfbd_plugins.sandbox.faults import Answer, Fault, answered

API: Final = "/2010-04-01/Accounts/"
TEST_FROM: Final = "+15005550006"
TEST_SENDERS: Final = {"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611}
TEST_RECEIVERS: Final = {
    "+15005550001": 21211, "+15005550002": 21612, "+15005550003": 21408, "+15005550004": 21610, "+15005550009": 21614,
}  # fmt: skip
"""https://www.twilio.com/docs/iam/test-credentials"""
PRICE: Final = "-0.00790"
UNBILLED: Final = ("queued", "scheduled", "accepted", "failed", "canceled")
CREATED: Final = "1970-01-01T00:00:00Z"
MAX_PAGE: Final = 1000
MAX_BODY: Final = 1600  # characters; 21617 above


class Step(msgspec.Struct, frozen=True):
    """A status that a message comes to, so many seconds after it was created."""

    after_s: float
    status: str
    code: int | None = None


DELIVERED: Final = (Step(1.0, "sent"), Step(3.0, "delivered"))


class SandboxMessage(msgspec.Struct, kw_only=True):
    """A message as the double keeps it; times in unix seconds. `steps` are still to come, `cost` is its price once billed."""

    sid: str
    to: str
    from_: str
    body: str
    created_at: float
    updated_at: float
    sent_at: float | None = None
    status: str = "queued"
    direction: str = "outbound-api"
    code: int | None = None
    price: str | None = None
    price_unit: str = "USD"
    cost: str = PRICE
    price_after_s: float = 5.0
    segments: int = 1
    service: str | None = None
    callback: str = ""
    steps: tuple[Step, ...] = ()


class Callback(msgspec.Struct, frozen=True):
    """A status callback that is due: a form to be posted."""

    url: str
    headers: dict[str, str]
    body: bytes


class TwilioDouble:
    """One account. `plan(to)` gives what becomes of a message to a number; `faults` may be changed at any time."""

    def __init__(
        self,
        account_sid: str,
        auth_token: str,
        now: Callable[[], float],
        rng: random.Random,
        *,
        numbers: tuple[str, ...] = (),
        services: Mapping[str, tuple[str, ...]] | None = None,
        plan: Callable[[str], tuple[Step, ...]] = lambda to: DELIVERED,
    ) -> None:
        self.account_sid = account_sid
        self.status = "active"
        self.balance, self.currency = "100.00", "USD"
        self.numbers = {number: {"voice": True, "sms": True, "mms": True, "fax": False} for number in numbers}
        self.services = dict(services or {})
        self.messages: dict[str, SandboxMessage] = {}
        self.faults: list[Fault] = []
        self.fault_words = "a fault of the sandbox"
        self.plan = plan
        self.requests: list[tuple[str, str]] = []
        self._token = auth_token
        self._now = now
        self._rng = rng
        self._due: list[Callback] = []
        self._moving: dict[str, SandboxMessage] = {}  # of which something will still become
        self._by_hour: dict[int, set[str]] = {}  # sids of those that were sent
        self._users = {account_sid: auth_token}

    # ---- what happens ----------------------------------------------------------------------------------------------------

    def add(self, message: SandboxMessage) -> SandboxMessage:
        """Let there be a message, such as one that the shop sent."""
        self.messages[message.sid] = self._moving[message.sid] = message
        self._list_at(message)
        return message

    def _list_at(self, message: SandboxMessage) -> None:
        if message.sent_at is not None:
            self._by_hour.setdefault(int(message.sent_at) // 3600, set()).add(message.sid)

    def new_sid(self, kind: str = "SM") -> str:
        return f"{kind}{self._rng.getrandbits(128):032x}"

    def add_key(self, key: str, secret: str) -> None:
        """Let there be an API key."""
        self._users[key] = secret

    def advance(self) -> list[Callback]:
        """Let time do what it does to messages; return the callbacks that are due since the last call."""
        self._progress_all()
        due, self._due = self._due, []
        return due

    def _progress_all(self) -> None:
        now = self._now()
        for message in list(self._moving.values()):
            self._progress(message, now)

    def _progress(self, message: SandboxMessage, now: float) -> None:
        while message.steps and message.created_at + message.steps[0].after_s <= now:
            step, *rest = message.steps
            message.steps = tuple(rest)
            message.status, message.code = step.status, step.code
            message.updated_at = message.created_at + step.after_s
            if message.sent_at is None:
                message.sent_at = message.updated_at
                self._list_at(message)
            if message.callback:
                self._due.append(self._callback(message))
        if message.steps:
            return
        if (
            message.price is None
            and message.status not in UNBILLED
            and now >= message.updated_at + message.price_after_s
        ):
            message.price = message.cost
        if message.price is not None or message.status in UNBILLED:
            del self._moving[message.sid]

    def _callback(self, message: SandboxMessage) -> Callback:
        form = {
            "MessageSid": message.sid, "SmsSid": message.sid, "AccountSid": self.account_sid, "To": message.to,
            "From": message.from_, "MessageStatus": message.status, "SmsStatus": message.status,
            "ApiVersion": "2010-04-01",
        }  # fmt: skip
        if message.code:
            form["ErrorCode"] = str(message.code)
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "x-twilio-signature": self.signature(message.callback, form),
        }
        return Callback(message.callback, headers, urllib.parse.urlencode(form).encode())

    def signature(self, url: str, form: Mapping[str, str]) -> str:
        """Return the signature of a callback (https://www.twilio.com/docs/usage/security#validating-requests)."""
        signed = url + "".join(name + form[name] for name in sorted(form))
        return base64.b64encode(hmac.new(self._token.encode(), signed.encode(), sha1).digest()).decode("ascii")

    # ---- requests ----------------------------------------------------------------------------------------------------------

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Answer one request. `headers` by lower-case name, `path` without the query string."""
        self.requests.append((method, path))
        self._progress_all()
        form = dict(urllib.parse.parse_qsl(body.decode("utf-8"), keep_blank_values=True))
        return answered(
            self.faults, method, path, self._rng,
            lambda: self._answer(method, path, query, headers, form),
            lambda fault: _error(fault.error, fault.code or fault.error, self.fault_words, fault.retry_after_s),
        )  # fmt: skip

    def _answer(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], form: Mapping[str, str]
    ) -> Answer:
        if not self._is_known(headers.get("authorization", "")):
            return _error(401, 20003, "Authenticate")
        if path.startswith("/v1/Services/"):
            return self._service(path.removeprefix("/v1/Services/").strip("/").split("/"))
        account, _, rest = path.removeprefix(API).partition("/")
        if account.removesuffix(".json") != self.account_sid:
            return _not_found(path)
        match method, rest:
            case "GET", "" if path.endswith(".json"):
                return _json(self._account())
            case "GET", "Balance.json":
                return _json({"account_sid": self.account_sid, "balance": self.balance, "currency": self.currency})
            case "GET", "IncomingPhoneNumbers.json":
                return self._list_numbers(query)
            case "GET", "Messages.json":
                return self._list_messages(path, query)
            case "POST", "Messages.json":
                return self._create(form)
            case "GET", _ if rest.startswith("Messages/"):
                message = self.messages.get(rest.removeprefix("Messages/").removesuffix(".json"))
                return _not_found(path) if message is None else _json(self._record(message))
        return _not_found(path)

    def _is_known(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        try:
            user, _, password = base64.b64decode(encoded).decode().partition(":")
        except ValueError:
            return False
        return scheme == "Basic" and self._users.get(user) == password

    def _account(self) -> dict[str, Any]:
        created = _rfc2822(0.0)
        return {
            "sid": self.account_sid, "friendly_name": "sandbox", "status": self.status, "type": "Full",
            "owner_account_sid": self.account_sid, "auth_token": "", "date_created": created, "date_updated": created,
            "subresource_uris": {}, "uri": f"{API}{self.account_sid}.json",
        }  # fmt: skip

    def _service(self, parts: list[str]) -> Answer:
        senders = self.services.get(parts[0])
        if senders is None:
            return _error(404, 20404, f"The requested resource /Services/{parts[0]} was not found")
        url = f"https://messaging.twilio.com/v1/Services/{parts[0]}"
        if len(parts) == 1:
            return _json(_SERVICE | {"sid": parts[0], "account_sid": self.account_sid, "url": url})
        key = {"PhoneNumbers": "phone_numbers", "ShortCodes": "short_codes", "AlphaSenders": "alpha_senders"}[parts[1]]
        listed = [
            {
                "sid": f"PN{place:032x}", "account_sid": self.account_sid, "service_sid": parts[0], "phone_number": one,
                "date_created": CREATED, "date_updated": CREATED, "country_code": "US", "capabilities": ["SMS"],
                "url": f"{url}/PhoneNumbers/PN{place:032x}",
            }
            for place, one in enumerate(senders)
        ]  # fmt: skip
        meta = {"page": 0, "page_size": 50, "first_page_url": f"{url}/{parts[1]}?PageSize=50&Page=0"}
        more = {"previous_page_url": None, "next_page_url": None, "url": meta["first_page_url"], "key": key}
        return _json({"meta": meta | more, key: listed if key == "phone_numbers" else []})

    def _list_numbers(self, query: Mapping[str, str]) -> Answer:
        wanted = query.get("PhoneNumber", "")
        created = _rfc2822(0.0)
        listed = [
            _NUMBER
            | {
                "sid": f"PN{place:032x}", "account_sid": self.account_sid, "phone_number": number,
                "capabilities": capabilities, "date_created": created, "date_updated": created,
                "uri": f"{API}{self.account_sid}/IncomingPhoneNumbers/PN{place:032x}.json",
            }
            for place, (number, capabilities) in enumerate(self.numbers.items()) if wanted in number
        ]  # fmt: skip
        return _json({**_page("IncomingPhoneNumbers", self.account_sid, query), "incoming_phone_numbers": listed})

    # ---- messages ----------------------------------------------------------------------------------------------------------

    def _create(self, form: Mapping[str, str]) -> Answer:
        to, body, service = form.get("To", ""), form.get("Body", ""), form.get("MessagingServiceSid")
        sender = form.get("From", "")
        if code := TEST_RECEIVERS.get(to) or TEST_SENDERS.get(sender):
            return _error(400, code, f"The number {to if to in TEST_RECEIVERS else sender} is refused")
        if not body or len(body) > MAX_BODY:
            return _error(400, 21617 if body else 21602, "The message body is missing or too long")
        if service is not None:
            if not self.services.get(service):
                return _error(400, 21703, "The Messaging Service does not have a phone number available")
            sender = sender or self.services[service][0]
        elif sender not in self.numbers and sender != TEST_FROM:
            return _error(400, 21606, f"The From phone number {sender} is not a valid phone number of this account")
        now = self._now()
        message = self.add(
            SandboxMessage(
                sid=self.new_sid(), to=to, from_=sender, body=body, created_at=now, updated_at=now, service=service,
                callback=form.get("StatusCallback", ""), steps=self.plan(to),
            )
        )  # fmt: skip
        return _json(self._record(message), 201)

    def _list_messages(self, path: str, query: Mapping[str, str]) -> Answer:
        """List messages, newest first; a page goes on behind the last message of the one before, whatever came meanwhile."""
        after, before = _moment(query.get("DateSent>")), _moment(query.get("DateSent<"))
        timed = after is not None or before is not None
        found = [
            one
            for one in (self._sent_between(after, before) if timed else self.messages.values())
            if query.get("To", one.to) == one.to
            and query.get("From", one.from_) == one.from_
            and (not timed or one.sent_at is not None)
            and (after is None or int(one.sent_at or 0) >= after)
            and (before is None or int(one.sent_at or 0) <= before)
        ]
        found.sort(key=lambda one: (int(one.created_at if one.sent_at is None else one.sent_at), one.sid), reverse=True)
        if token := query.get("PageToken", ""):
            places = [place for place, one in enumerate(found) if f"PA{one.sid}" == token]
            if not places:
                return _error(400, 20006, "Invalid page token")
            found = found[places[0] + 1 :]
        size = min(int(query.get("PageSize", "50")), MAX_PAGE)
        page = found[:size]
        listed = {**_page("Messages", self.account_sid, query), "messages": [self._record(one) for one in page]}
        if len(found) > size:
            number = int(query.get("Page", "0")) + 1
            onward = {**query, "Page": str(number), "PageToken": f"PA{page[-1].sid}"}
            listed["next_page_uri"] = f"{path}?{urllib.parse.urlencode(onward)}"
        return _json(listed)

    def _sent_between(self, after: int | None, before: int | None) -> Iterator[SandboxMessage]:
        for hour, sids in self._by_hour.items():
            if (after is None or hour >= after // 3600) and (before is None or hour <= before // 3600):
                yield from (self.messages[sid] for sid in sids)

    def _record(self, message: SandboxMessage) -> dict[str, Any]:
        uri = f"{API}{self.account_sid}/Messages/{message.sid}"
        return {
            "account_sid": self.account_sid,
            "api_version": "2010-04-01",
            "body": message.body,
            "date_created": _rfc2822(message.created_at),
            "date_sent": None if message.sent_at is None else _rfc2822(message.sent_at),
            "date_updated": _rfc2822(message.updated_at),
            "direction": message.direction,
            "error_code": message.code,
            "error_message": None if message.code is None else "a reason in words",
            "from": message.from_,
            "messaging_service_sid": message.service,
            "num_media": "0",
            "num_segments": str(message.segments),
            "price": message.price,
            "price_unit": message.price_unit,
            "sid": message.sid,
            "status": message.status,
            "subresource_uris": {"media": f"{uri}/Media.json"},
            "to": message.to,
            "uri": f"{uri}.json",
        }


_NUMBER: Final[dict[str, Any]] = {
    **dict.fromkeys((
        "address_sid", "bundle_sid", "emergency_address_sid", "identity_sid", "sms_application_sid", "trunk_sid",
        "voice_application_sid",
    )),
    **dict.fromkeys(("sms_fallback_url", "sms_url", "status_callback", "voice_fallback_url", "voice_url"), ""),
    **dict.fromkeys((
        "sms_fallback_method", "sms_method", "status_callback_method", "voice_fallback_method", "voice_method",
    ), "POST"),
    "address_requirements": "none", "api_version": "2010-04-01", "beta": False,
    "emergency_address_status": "unregistered", "emergency_status": "Inactive", "friendly_name": "sandbox",
    "origin": "twilio", "status": "in-use", "type": "local", "voice_caller_id_lookup": False,
    "voice_receive_mode": "voice",
}  # fmt: skip
_SERVICE: Final[dict[str, Any]] = {
    **dict.fromkeys(("fallback_url", "inbound_request_url", "status_callback")),
    **dict.fromkeys(("area_code_geomatch", "fallback_to_long_code", "mms_converter", "smart_encoding", "sticky_sender"), True),
    **dict.fromkeys(("synchronous_validation", "us_app_to_person_registered", "use_inbound_webhook_on_number"), False),
    "date_created": CREATED, "date_updated": CREATED, "fallback_method": "POST", "friendly_name": "sandbox",
    "inbound_method": "POST", "links": {}, "scan_message_content": "inherit", "usecase": "undeclared",
    "validity_period": 36000,
}  # fmt: skip


def _page(name: str, account_sid: str, query: Mapping[str, str]) -> dict[str, Any]:
    uri = f"{API}{account_sid}/{name}.json"
    return {
        "first_page_uri": f"{uri}?PageSize={query.get('PageSize', '50')}&Page=0", "next_page_uri": None,
        "previous_page_uri": None, "page": int(query.get("Page", "0")), "page_size": int(query.get("PageSize", "50")),
        "start": 0, "end": 0, "uri": uri,
    }  # fmt: skip


def _json(body: Any, status: int = 200) -> Answer:
    return Answer(
        status=status, headers={"content-type": "application/json;charset=utf-8"}, body=json.dumps(body).encode()
    )


def _error(status: int, code: int, message: str, retry_after_s: int = 0) -> Answer:
    body = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    answer = _json(body, status)
    if retry_after_s:
        answer = msgspec.structs.replace(answer, headers={**answer.headers, "retry-after": str(retry_after_s)})
    return answer


def _not_found(path: str) -> Answer:
    return _error(404, 20404, f"The requested resource {path} was not found")


def _rfc2822(at: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(at), UTC))


def _moment(text: str | None) -> int | None:
    """Return a filter's time, such as 2026-11-23T21:00:00Z or a date, which is its first second."""
    if text is None:
        return None
    at = datetime.fromisoformat(text)
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
