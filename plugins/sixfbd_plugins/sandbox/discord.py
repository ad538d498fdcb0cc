"""A double of Discord: webhooks and the messages that they post and rewrite.

A pure state machine: time and chance are given to it, requests come as values. Shapes and errors are those of Discord's
documentation (https://docs.discord.com/developers/resources/webhook). It opens no connection.
"""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sixfbd_plugins.sandbox.faults import Answer, Fault, answered

EPOCH_MS: Final = 1_420_070_400_000  # of snowflakes: 2015
MAX_CONTENT: Final = 2000
MAX_EMBEDS: Final = 10
MAX_DESCRIPTION: Final = 4096
MAX_ALL: Final = 6000


class DiscordMessage(msgspec.Struct, kw_only=True):
    """A message as the double keeps it: `content` is what was posted last, `edited` how often it was rewritten."""

    id: str
    channel: str
    content: dict[str, Any]
    edited: int = 0

    @property
    def text(self) -> str:
        """All that somebody reads in it."""
        embeds = self.content.get("embeds", [])
        return "\n".join([str(self.content.get("content", "")), *(one.get("description", "") for one in embeds)])


class DiscordDouble:
    """One server. `webhooks` gives a channel by path (/api/webhooks/ID/TOKEN); `faults` may be changed at any time.

    A fault's `code` is Discord's; a 429 waits for `retry_after_s`, for all webhooks if `everywhere` is set. `remaining` is
    what the headers of each answer say is left of the rate limit.
    """

    def __init__(self, now: Callable[[], float], rng: random.Random, *, webhooks: Mapping[str, str]) -> None:
        self.webhooks = dict(webhooks)
        self.messages: list[DiscordMessage] = []
        self.faults: list[Fault] = []
        self.fault_words = "a fault of the sandbox"
        self.everywhere = False
        self.remaining = 4
        self.requests: list[tuple[str, str]] = []
        self.posted: list[tuple[str, Any]] = []
        self._now = now
        self._rng = rng
        self._last_id = 0

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Answer one request. `headers` by lower-case name, `path` without the query string."""
        self.requests.append((method, path))
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        self.posted.append((method, content))
        return answered(
            self.faults, method, path, self._rng,
            lambda: self._answer(method, path, query, content),
            self._refuse,
        )  # fmt: skip

    def _refuse(self, fault: Fault) -> Answer:
        if fault.error != 429:
            return _error(fault.error, fault.code, self.fault_words)
        said = {
            "message": "You are being rate limited.",
            "retry_after": fault.retry_after_s + 0.5,
            "global": self.everywhere,
        }
        headers = {"retry-after": str(fault.retry_after_s + 1)} | (
            {"x-ratelimit-global": "true"} if self.everywhere else {}
        )
        return _json(said, 429, headers)

    def _answer(self, method: str, path: str, query: Mapping[str, str], content: Any) -> Answer:
        hook, _, message = path.partition("/messages/")
        channel = self.webhooks.get(hook)
        if channel is None:
            return _error(404, 10015, "Unknown Webhook")
        if not isinstance(content, dict):
            return _error(400, 50109, "The request body contains invalid JSON.")
        if error := _form_error(content):
            return _error(400, 50035 if error != "empty" else 50006, "Invalid Form Body")
        if method == "PATCH":
            found = next((one for one in self.messages if one.id == message and one.channel == channel), None)
            if found is None:
                return _error(404, 10008, "Unknown Message")
            found.content, found.edited = content, found.edited + 1
            return self._taken(found)
        self._last_id = max(self._last_id + 1, (int(self._now() * 1000) - EPOCH_MS) << 22)
        self.messages.append(DiscordMessage(id=str(self._last_id), channel=channel, content=content))
        return self._taken(self.messages[-1]) if query.get("wait") == "true" else Answer(status=204)

    def _taken(self, message: DiscordMessage) -> Answer:
        shown = {
            "id": message.id,
            "type": 0,
            "channel_id": message.channel,
            "content": message.content.get("content", ""),
        }
        limits = {
            "x-ratelimit-limit": "5", "x-ratelimit-remaining": str(self.remaining), "x-ratelimit-reset-after": "2.0",
        }  # fmt: skip
        return _json(shown, 200, limits)


def _form_error(content: dict[str, Any]) -> str:
    embeds = content.get("embeds", [])
    if not content.get("content") and not embeds:
        return "empty"
    described = [len(embed.get("description", "")) for embed in embeds]
    too_long = len(content.get("content", "")) > MAX_CONTENT or any(length > MAX_DESCRIPTION for length in described)
    return "form" if too_long or len(embeds) > MAX_EMBEDS or sum(described) > MAX_ALL else ""


def _json(body: Any, status: int, headers: Mapping[str, str]) -> Answer:
    return Answer(
        status=status, headers={"content-type": "application/json", **headers}, body=json.dumps(body).encode()
    )


def _error(status: int, code: int, message: str) -> Answer:
    return _json({"message": message, "code": code}, status, {})
