"""A receiver of the `webhook` notifier's posts: Alertmanager's payload, signed by Standard Webhooks. A pure state machine."""

import hmac
import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from standardwebhooks import Webhook

from sixfbd_plugins.sandbox.faults import Answer, Fault, answered


class HookPost(msgspec.Struct, frozen=True, kw_only=True):
    """A post that was taken; a repeat by `webhook-id` is taken once."""

    id: str
    at: float
    status: str
    receiver: str
    title: str


class HookDouble:
    """Whoever takes posts at any path; `secret` ("whsec_...") is what they are signed with."""

    def __init__(self, secret: str, now: Callable[[], float], rng: random.Random) -> None:
        self.posts: dict[str, HookPost] = {}
        self.faults: list[Fault] = []
        self._signer = Webhook(secret)
        self._now = now
        self._rng = rng

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        return answered(
            self.faults, method, path, self._rng,
            lambda: self._take(method, headers, body),
            lambda fault: _answer(fault.error, "a fault of the sandbox", fault.retry_after_s),
        )  # fmt: skip

    def _take(self, method: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method != "POST":
            return _answer(405, "posts only")
        identity, sent = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        try:
            text = body.decode()
            expected = self._signer.sign(identity, datetime.fromtimestamp(int(sent), UTC), text)
            payload: dict[str, Any] = json.loads(text)
            post = HookPost(
                id=identity, at=self._now(), status=payload["status"], receiver=payload["receiver"],
                title=payload["title"],
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            return _answer(400, "no signed post of Alertmanager's form")
        given = headers.get("webhook-signature", "").split()
        if not any(hmac.compare_digest(expected.encode(), one.encode()) for one in given):
            return _answer(401, "the signature does not fit")
        self.posts.setdefault(identity, post)
        return _answer(200, "taken")


def _answer(status: int, text: str, retry_after_s: int = 0) -> Answer:
    headers = {"content-type": "text/plain"}
    if retry_after_s:
        headers["retry-after"] = str(retry_after_s)
    return Answer(status=status, headers=headers, body=f"{text}\n".encode())
