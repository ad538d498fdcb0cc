"""A double of SendGrid: takes mail, validates it in sandbox mode, and tells by signed event webhooks what became of it.

A pure state machine: time and chance are given to it, requests come as values, what is due (`webhooks`) is asked for. Shapes
are those of SendGrid's OpenAPI document (tsg_mail_v3) and of its event webhook's reference. It opens no connection.
"""

import base64
import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sixfbd_plugins.sandbox.faults import Answer, Fault, answered

SIGNATURE: Final = "x-twilio-email-event-webhook-signature"
TIMESTAMP: Final = "x-twilio-email-event-webhook-timestamp"


class SentMail(msgspec.Struct, kw_only=True):
    """An e-mail as the double keeps it: `body` is what was posted."""

    id: str
    to: str
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """All that somebody reads in it."""
        return "\n".join([self.body.get("subject", ""), *(part["value"] for part in self.body.get("content", []))])


class SendGridDouble:
    """One account. `plan(to)` gives the events that an e-mail to an address comes to; `faults` may be changed at any time.

    The key that signs event webhooks is drawn from `signing`, or else from `rng`.
    """

    def __init__(
        self,
        api_key: str,
        now: Callable[[], float],
        rng: random.Random,
        *,
        plan: Callable[[str], tuple[str, ...]] = lambda to: ("processed", "delivered"),
        signing: random.Random | None = None,
    ) -> None:
        self.mails: list[SentMail] = []
        self.validated = 0
        self.faults: list[Fault] = []
        self.fault_words = "a fault of the sandbox"
        self.requests: list[tuple[str, str]] = []
        self.posted: list[Any] = []
        self.plan = plan
        self._key = api_key
        self._now = now
        self._rng = rng
        self._due: list[dict[str, Any]] = []
        self._signing = ec.derive_private_key((signing or rng).getrandbits(250) + 1, ec.SECP256R1())

    @property
    def public_key(self) -> str:
        """What the event webhook's settings show: base64 of the public key's DER."""
        der = self._signing.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return base64.b64encode(der).decode("ascii")

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Answer one request. `headers` by lower-case name, `path` without the query string."""
        self.requests.append((method, path))
        return answered(
            self.faults, method, path, self._rng,
            lambda: self._answer(method, path, headers, body),
            lambda fault: _error(fault.error, self.fault_words, fault.retry_after_s),
        )  # fmt: skip

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if headers.get("authorization") != f"Bearer {self._key}":
            return _error(401, "The provided authorization grant is invalid, expired, or revoked")
        if (method, path) != ("POST", "/v3/mail/send"):
            return _error(404, "Not Found")
        try:
            mail = json.loads(body)
            to = mail["personalizations"][0]["to"][0]["email"]
            whole = bool(mail["subject"] and mail["from"]["email"] and mail["content"][0]["value"])
        except (ValueError, LookupError, TypeError):
            whole = False
        if not whole:
            return _error(400, "Bad Request")
        self.posted.append(mail)
        if mail.get("mail_settings", {}).get("sandbox_mode", {}).get("enable"):
            self.validated += 1
            return Answer(status=200)
        sent = SentMail(id=f"{self._rng.getrandbits(64):016x}", to=to, body=mail)
        self.mails.append(sent)
        self._due += [self._event(sent, kind) for kind in self.plan(to)]
        return Answer(status=202, headers={"x-message-id": sent.id})

    # ---- event webhooks --------------------------------------------------------------------------------------------------

    def _event(self, sent: SentMail, kind: str) -> dict[str, Any]:
        event = {
            "email": sent.to, "timestamp": int(self._now()), "event": kind, "smtp-id": f"<{sent.id}@ismtpd>",
            "sg_event_id": base64.urlsafe_b64encode(self._rng.randbytes(16)).decode().rstrip("="),
            "sg_message_id": f"{sent.id}.recvd-5f-1-0", "ip": "192.0.2.1", "useragent": "a mail program",
            "category": ["sixfbd"], **sent.body.get("custom_args", {}),
        }  # fmt: skip
        reasons = {"bounce": "550 5.1.1 no such user", "dropped": "Bounced Address", "blocked": "554 blocked"}
        if kind == "bounce":
            event |= {"status": "5.1.1", "type": "bounce"}
        if kind in reasons:
            event["reason"] = reasons[kind]
        if kind == "deferred":
            event |= {"response": "450 4.2.0 come again", "attempt": "1"}
        return event

    def due_events(self) -> list[dict[str, Any]]:
        """Return the events since the last call."""
        due, self._due = self._due, []
        return due

    def webhook(self, events: list[dict[str, Any]]) -> tuple[dict[str, str], bytes]:
        """Return headers and body of a signed request with these events."""
        body = (json.dumps(events, separators=(",", ":")) + "\r\n").encode()
        timestamp = str(int(self._now()))
        signature = self._signing.sign(timestamp.encode() + body, ec.ECDSA(hashes.SHA256()))
        headers = {
            "content-type": "application/json",
            SIGNATURE: base64.b64encode(signature).decode("ascii"),
            TIMESTAMP: timestamp,
        }
        return headers, body


def _error(status: int, message: str, retry_after_s: int = 0) -> Answer:
    headers = {"content-type": "application/json"} | ({"retry-after": str(retry_after_s)} if retry_after_s else {})
    said = {"errors": [{"message": message, "field": None, "help": None}]}
    return Answer(status=status, headers=headers, body=json.dumps(said).encode())
