"""A double of Slack: a workspace's channels with their messages and threads, by bot token and by incoming webhooks.

A pure state machine: time and chance are given to it, requests come as values. Shapes and errors are those of Slack's
documentation (https://docs.slack.dev/reference/methods/chat.postMessage). It opens no connection.
"""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from sixfbd_plugins.sandbox.faults import Answer, Fault, answered

MAX_TEXT: Final = 40_000
MAX_SECTION: Final = 3000
MAX_BLOCKS: Final = 50
MAX_ALL: Final = 9600


class SlackMessage(msgspec.Struct, kw_only=True):
    """A message as the double keeps it: `content` is what was posted last, `edited` how often it was rewritten."""

    ts: str
    channel: str
    content: dict[str, Any]
    thread_ts: str | None = None
    edited: int = 0

    @property
    def text(self) -> str:
        """All that somebody reads in it."""
        parts = [str(self.content.get("text", ""))]
        for attachment in self.content.get("attachments", []):
            parts += [_text_of(block) for block in attachment.get("blocks", [])]
        return "\n".join(parts)


class SlackDouble:
    """One workspace. `channels` gives ids by name, `webhooks` a channel by path; `faults` may be changed at any time.

    A fault whose `error` is below 400 is answered as Slack answers most: 200, and `fault_code` as its word.
    """

    def __init__(
        self,
        token: str,
        now: Callable[[], float],
        rng: random.Random,
        *,
        channels: Mapping[str, str],
        webhooks: Mapping[str, str] | None = None,
    ) -> None:
        self.channels = dict(channels)
        self.webhooks = dict(webhooks or {})
        self.messages: list[SlackMessage] = []
        self.faults: list[Fault] = []
        self.fault_code = "internal_error"
        self.requests: list[tuple[str, str]] = []
        self.posted: list[tuple[str, Any]] = []
        self._token = token
        self._now = now
        self._rng = rng
        self._last_ts = 0

    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Answer one request. `headers` by lower-case name, `path` without the query string."""
        self.requests.append((method, path))
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        self.posted.append((path, content))
        is_api = path.startswith("/api/")
        return answered(
            self.faults, method, path, self._rng,
            lambda: self._api(path, headers, content) if is_api else self._hook(path, content),
            lambda fault: self._refuse(fault, is_api),
        )  # fmt: skip

    def _refuse(self, fault: Fault, is_api: bool) -> Answer:
        headers = {"retry-after": str(fault.retry_after_s)} if fault.retry_after_s else {}
        code = self.fault_code if fault.error != 429 else "ratelimited" if is_api else "rate_limited"
        answer = _json({"ok": False, "error": code}) if is_api else _plain(code)
        return msgspec.structs.replace(answer, status=fault.error, headers={**answer.headers, **headers})

    def _api(self, path: str, headers: Mapping[str, str], content: Any) -> Answer:
        if headers.get("authorization", "") != f"Bearer {self._token}":
            return _json({"ok": False, "error": "invalid_auth"})
        if not isinstance(content, dict):
            return _json({"ok": False, "error": "invalid_json"})
        channel = self.channels.get(str(content.get("channel", "")).removeprefix("#"), content.get("channel"))
        if channel not in self.channels.values():
            return _json({"ok": False, "error": "channel_not_found"})
        if error := _form_error(content):
            return _json({"ok": False, "error": error})
        if path == "/api/chat.update":
            return self._update(str(channel), content)
        if path != "/api/chat.postMessage":
            return _json({"ok": False, "error": "unknown_method"})
        thread = content.get("thread_ts")
        if thread is not None and self._find(str(channel), thread) is None:
            return _json({"ok": False, "error": "thread_not_found"})
        return self._taken(self._add(str(channel), content, thread))

    def _update(self, channel: str, content: dict[str, Any]) -> Answer:
        message = self._find(channel, content.get("ts"))
        if message is None:
            return _json({"ok": False, "error": "message_not_found"})
        message.content, message.edited = content, message.edited + 1
        return self._taken(message)

    def _hook(self, path: str, content: Any) -> Answer:
        channel = self.webhooks.get(path)
        if channel is None:
            return _plain("no_service", 404)
        if not isinstance(content, dict) or _form_error(content):
            return _plain("invalid_payload", 400)
        self._add(self.channels[channel], content, None)
        return _plain("ok")

    def _add(self, channel: str, content: dict[str, Any], thread: str | None) -> SlackMessage:
        self._last_ts = max(self._last_ts + 1, int(self._now() * 1_000_000))
        ts = f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"
        self.messages.append(SlackMessage(ts=ts, channel=channel, content=content, thread_ts=thread))
        return self.messages[-1]

    def _find(self, channel: str, ts: object) -> SlackMessage | None:
        return next((one for one in self.messages if one.ts == ts and one.channel == channel), None)

    def _taken(self, message: SlackMessage) -> Answer:
        shown = {"type": "message", "subtype": "bot_message", "ts": message.ts, "text": message.content.get("text", "")}
        return _json({"ok": True, "channel": message.channel, "ts": message.ts, "message": shown})


def _form_error(content: dict[str, Any]) -> str:
    attachments = content.get("attachments", [])
    if not content.get("text") and not attachments:
        return "no_text"
    if len(content.get("text", "")) > MAX_TEXT:
        return "msg_too_long"
    blocks = [block for attachment in attachments for block in attachment.get("blocks", [])]
    texts = [_text_of(block) for block in blocks]
    if len(blocks) > MAX_BLOCKS or any(not 1 <= len(text) <= MAX_SECTION for text in texts):
        return "invalid_blocks"
    return "msg_blocks_too_long" if sum(map(len, texts)) > MAX_ALL else ""


def _text_of(block: dict[str, Any]) -> str:
    parts = [block.get("text"), *block.get("elements", [])]
    return "".join(part.get("text", "") for part in parts if isinstance(part, dict))


def _json(body: Any) -> Answer:
    return Answer(headers={"content-type": "application/json; charset=utf-8"}, body=json.dumps(body).encode())


def _plain(word: str, status: int = 200) -> Answer:
    return Answer(status=status, headers={"content-type": "text/html"}, body=word.encode())
