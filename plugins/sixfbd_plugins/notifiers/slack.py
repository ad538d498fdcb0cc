"""The `slack` notifier: a notification becomes a message in a channel, with the colour and the sign of its severity.

Owns the message's form, its pace, and what Slack's answers mean. With a bot token an incident is one thread: its first message
begins it, later ones reply, and the resolve rewrites the first. Slack forgets nothing that it took and cannot be asked for
it: a message whose answer was lost is sent once more, marked. Incoming webhooks, one for each channel, know no threads.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import httpx
import msgspec
from msgspec import Meta, Struct

from sixfbd.plugin import (
    SECOND,
    Context,
    FromEnvironment,
    Json,
    Notification,
    NotifiedAlert,
    Notifier,
    OptionFaults,
    PermanentFailure,
    PluginConfig,
    Receipt,
    Secret,
    TemporaryFailure,
    hookimpl,
)
from sixfbd_plugins.checks.targets import hiding
from sixfbd_plugins.notifiers.fitting import blocks_of, color_of, fitted, headline, resolved_parts, units
from sixfbd_plugins.notifiers.incidents import First, first_messages, rewrite_over
from sixfbd_plugins.notifiers.pace import Pace
from sixfbd_plugins.notifiers.refused import Refused
from sixfbd_plugins.notifiers.webhook import retry_after_s
from sixfbd_plugins.notifiers.webhooks import check_webhook_address, hidden_parts, validate_webhooks, webhook_of
from sixfbd_plugins.provider import exchange, validate_base_url

PUBLIC_URL: Final = "https://slack.com"
WEBHOOK_URLS: Final = ("https://hooks.slack.com/", "https://hooks.slack-gov.com/")
"""Others that take Slack's form, such as Mattermost, show no blocks and so nothing but the title: they get `webhook`."""
CALL_S: Final = 10 * SECOND
MAX_ANSWER_BYTES: Final = 256 * 1024
MAX_SECTION: Final = 3000  # https://docs.slack.dev/reference/block-kit/blocks/section-block
MAX_BLOCKS: Final = 50  # https://docs.slack.dev/reference/block-kit/blocks
MAX_ALL: Final = (
    9000  # of all blocks: Slack refuses somewhere above 9,600 (msg_blocks_too_long), and does not say where
)
MAX_TEXT: Final = 1000  # of the line above the blocks; Slack takes 40,000
MAX_CONTEXT: Final = 1000
MANY: Final = "and more: `sixfbctl alerts` lists all"
CHANNEL: Final = re.compile(r"#[^\s#@,.A-Z]{1,80}|[CGDU][A-Z0-9]{7,20}")
_TOKEN: Final = re.compile("xox[a-z](?:-[A-Za-z0-9]+)+|xox[a-z]\\.[A-Za-z0-9.-]+")


class Meaning(Struct, frozen=True):
    """What an error of Slack's is to a message. `sent`: Slack may have taken it all the same."""

    temporary: bool
    words: str
    sent: bool = False


MEANINGS: Final[Mapping[str, Meaning]] = {
    "account_inactive": Meaning(False, "the token's user or workspace was deleted; install the app anew"),
    "action_prohibited": Meaning(False, "the workspace does not let this webhook post here"),
    "cant_update_message": Meaning(False, "the message is not ours to rewrite"),
    "channel_is_archived": Meaning(False, "the channel is archived"),
    "channel_not_found": Meaning(False, "there is no such channel, or it is private and the app is not in it"),
    "fatal_error": Meaning(True, "Slack failed; it may have taken the message", sent=True),
    "internal_error": Meaning(True, "Slack failed; it may have taken the message", sent=True),
    "invalid_auth": Meaning(False, "the token is not valid, or not from this machine's address"),
    "invalid_blocks": Meaning(False, "Slack does not take the message's form"),
    "invalid_payload": Meaning(False, "Slack does not take the message's form"),
    "invalid_token": Meaning(False, "the webhook's address is not valid any more; make a new one"),
    "is_archived": Meaning(False, "the channel is archived"),
    "message_limit_exceeded": Meaning(False, "the workspace has as many messages as its plan allows"),
    "message_not_found": Meaning(False, "the message is gone"),
    "missing_scope": Meaning(False, "the token lacks a scope; the app needs chat:write, and chat:write.public or to be invited"),
    "msg_blocks_too_long": Meaning(False, "the message is too long"),
    "msg_too_long": Meaning(False, "the message is too long"),
    "no_active_hooks": Meaning(False, "the webhook was disabled"),
    "no_service": Meaning(False, "the webhook was disabled or removed; make a new one"),
    "no_team": Meaning(False, "the webhook's workspace is gone"),
    "not_allowed_token_type": Meaning(False, "the token is of the wrong kind; a bot token (xoxb-) is needed"),
    "not_authed": Meaning(False, "no token arrived"),
    "not_in_channel": Meaning(False, "the app is not in the channel; invite it there: /invite @app"),
    "posting_to_general_channel_denied": Meaning(False, "the workspace does not let the app post to its general channel"),
    "rate_limited": Meaning(True, "too many messages"),
    "ratelimited": Meaning(True, "too many messages"),
    "request_timeout": Meaning(True, "the request arrived incomplete"),
    "restricted_action": Meaning(False, "the workspace does not let the app post here"),
    "rollup_error": Meaning(True, "Slack failed"),
    "service_unavailable": Meaning(True, "Slack is not available"),
    "team_access_not_granted": Meaning(False, "the token is not for this workspace"),
    "team_added_to_org": Meaning(True, "the workspace is being moved into an organisation"),
    "token_expired": Meaning(False, "the token has expired; turn token rotation off or give a new one"),
    "token_revoked": Meaning(False, "the token was revoked; install the app anew"),
    "too_many_attachments": Meaning(False, "Slack does not take the message's form"),
}  # fmt: skip
"""https://docs.slack.dev/reference/methods/chat.postMessage#errors, .../messaging/sending-messages-using-incoming-webhooks"""


class SlackRefused(Refused):
    """Slack answered, and says no: `code` is its own word, "" if it gave none."""

    def __init__(self, status: int, code: str, wait_s: float | None) -> None:
        meaning = MEANINGS.get(code) or Meaning(status >= 500 or status in (408, 425, 429), "")
        said = f"{meaning.words} ({code})" if meaning.words else code or "no reason was given"
        super().__init__(
            f"answered {status}: {said}" if status != 200 else said,
            temporary=meaning.temporary or status == 429,
            wait_s=wait_s,
            sent=meaning.sent,
        )
        self.code = code


class SlackNotifierOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `slack` notifier; one of `token` and `webhooks` is needed."""

    token: Annotated[Secret | None, Meta(description="Bot token (xoxb-...) of an app with the scope chat:write.")] = (
        None
    )
    webhooks: Annotated[
        dict[str, Secret],
        Meta(description='Incoming webhooks by channel, such as {"#alerts" = {file = "tokens/alerts"}}.'),
    ] = msgspec.field(default_factory=dict)
    rate: Annotated[
        float, Meta(gt=0, le=100, description="Messages a second to one channel; 1 is what Slack allows.")
    ] = 1.0
    base_url: Annotated[str, Meta(description="Where the API is, if it is a sandbox.")] = PUBLIC_URL

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("token"):
                if (self.token is None) is not bool(self.webhooks):
                    raise ValueError("one of token and webhooks is needed")
                if self.token is not None and not _TOKEN.fullmatch(self.token.reveal()):
                    raise ValueError("is no token of Slack's, such as xoxb-...")
            with faults.at("webhooks"):
                validate_webhooks(self.webhooks)
            with faults.at("base_url"):
                validate_base_url(self.base_url, PUBLIC_URL)


class SlackNotifier(Notifier[SlackNotifierOptions]):
    """Messages in channels of Slack, by a bot's token or by incoming webhooks."""

    Options = SlackNotifierOptions
    provider_urls = {"base_url": PUBLIC_URL, "webhooks": WEBHOOK_URLS}  # noqa: RUF012 - a ClassVar of the contract

    def __init__(self, options: SlackNotifierOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._call_s: float = CALL_S
        self._pace = Pace(options.rate, ctx.clock)
        token = "" if options.token is None else options.token.reveal()
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._hide = hiding([token, *hidden_parts(options.webhooks)])

    @classmethod
    def check_address(cls, options: Any, address: str) -> None:
        if options.webhooks:
            check_webhook_address(options.webhooks, address)
        elif not CHANNEL.fullmatch(address):
            raise ValueError('is no channel; write to = ["#alerts"], or the channel\'s id')

    async def deliver(self, notification: Notification) -> Receipt:
        if self.options.webhooks:
            return await self._deliver_to_webhook(notification)
        if not notification.address:
            raise PermanentFailure("the receiver names no channel")
        firsts = await first_messages(self.ctx, notification)
        await self._pace.turn(notification, notification.address)
        try:
            rewritten = await rewrite_over(self.ctx, firsts, self._rewrite)
            answer = await self._post(notification, firsts)
        except Refused as refused:
            if refused.temporary and refused.wait_s:
                self._pace.hold(refused.wait_s, notification.address)
            raise refused.failure() from None
        detail = "posted" + (", and its first message rewritten" if rewritten else "")
        name = f"{answer['channel']}/{answer['ts']}"
        return Receipt(state="accepted", message_id=notification.id, provider_id=name, detail=detail)

    # ---- by a bot's token ------------------------------------------------------------------------------------------------

    async def _post(self, notification: Notification, firsts: list[First]) -> dict[str, Any]:
        """Post the message: into the thread of its incident if all of it is about one."""
        body = {
            "channel": notification.address,
            **message_of(notification),
            "unfurl_links": False,
            "unfurl_media": False,
        }
        known = sum(len(first.alerts) for first in firsts)
        if len(firsts) == 1 and known == len(notification.alerts):
            threaded = {**body, "thread_ts": firsts[0].provider_id.partition("/")[2]}
            if any(alert.kind in ("level", "escalate") for alert in notification.alerts):
                threaded["reply_broadcast"] = True  # what became worse is seen by who does not follow the thread
            try:
                return await self._call("chat.postMessage", threaded)
            except SlackRefused as refused:
                if refused.code not in ("thread_not_found", "message_not_found", "cannot_reply_to_message"):
                    raise
        return await self._call("chat.postMessage", body)

    async def _rewrite(self, first: First) -> None:
        channel, _, ts = first.provider_id.partition("/")
        await self._call("chat.update", {"channel": channel, "ts": ts, **resolved_message(first.alerts)})

    async def _call(self, method: str, body: Mapping[str, Json]) -> dict[str, Any]:
        """Call a method of the Web API. Raises SlackRefused, or TemporaryFailure if nothing usable came back."""
        url = f"{self.options.base_url.rstrip('/')}/api/{method}"
        answer = await self._request(url, body)
        try:
            said = answer.json()
            ok, code = said.get("ok"), str(said.get("error") or "")
        except (ValueError, AttributeError, RecursionError):
            ok, code, said = False, "", {}
        if answer.status_code != 200 or (ok is not True and code):
            raise SlackRefused(answer.status_code, self._word(code), self._wait_s(answer))
        if ok is not True or not isinstance(said.get("ts"), str) or not isinstance(said.get("channel"), str):
            raise TemporaryFailure("answered 200, with something that is not Slack's", sent=True)
        return dict(said)

    # ---- by an incoming webhook --------------------------------------------------------------------------------------------

    async def _deliver_to_webhook(self, notification: Notification) -> Receipt:
        url = webhook_of(self.options.webhooks, notification.address)
        await self._pace.turn(notification, notification.address)
        answer = await self._request(url, message_of(notification))
        if answer.status_code == 200:
            return Receipt(state="accepted", message_id=notification.id, detail="posted")
        refused = SlackRefused(answer.status_code, self._word(answer.text.strip()[:60]), self._wait_s(answer))
        if refused.temporary and refused.wait_s:
            self._pace.hold(refused.wait_s, notification.address)
        raise refused.failure()

    # ---- both --------------------------------------------------------------------------------------------------------------

    async def _request(self, url: str, body: Mapping[str, Json]) -> httpx.Response:
        return await exchange(
            self.ctx.http,
            "POST",
            url,
            headers={**self._headers, "Content-Type": "application/json; charset=utf-8"},
            content=msgspec.json.encode(body),
            call_s=self._call_s,
            max_bytes=MAX_ANSWER_BYTES,
            hide=self._hide,
        )

    def _wait_s(self, answer: httpx.Response) -> float | None:
        return retry_after_s(answer.headers.get("retry-after"), self.ctx.clock.wall())

    def _word(self, code: str) -> str:
        """Return an error's code if it looks like one: whatever else a server says is not shown."""
        return code if re.fullmatch("[a-z][a-z0-9_]{1,60}", code) else ""


# ---- the message -----------------------------------------------------------------------------------------------------------


def message_of(notification: Notification) -> dict[str, Json]:
    """Return `text` and `attachments` of a notification: a line with the sign, and blocks beside a bar of the colour."""
    link = [_link(notification.external_url)] if notification.external_url else []
    return _message(headline(notification), blocks_of(notification), color_of(notification), link)


def resolved_message(alerts: tuple[NotifiedAlert, ...]) -> dict[str, Json]:
    """Return what becomes of the first message about alerts that are all resolved."""
    title, blocks, color = resolved_parts(alerts)
    return _message(title, blocks, color, [])


def _message(title: str, texts: list[str], color: str, link: list[Json]) -> dict[str, Json]:
    blocks: list[Json] = []
    left = MAX_ALL - MAX_CONTEXT - 2 * len(MANY)
    for place, text in enumerate(texts):
        if len(blocks) >= MAX_BLOCKS - 2 or left < 2 * len(MANY):
            blocks.append(_section(f"{len(texts) - place} {MANY}"))
            break
        said = fitted(text, min(MAX_SECTION, left), escaped)
        left -= units(said)
        blocks.append(_section(said))
    line = fitted(title, MAX_TEXT, escaped) or "sixfbd"
    attachment = {"color": color, "fallback": line, "blocks": [*blocks, *link] or [_section(line)]}
    return {"text": line, "attachments": [attachment]}


def escaped(char: str) -> str:
    """Return a character as Slack wants it (https://docs.slack.dev/messaging/formatting-message-text#escaping)."""
    return {"&": "&amp;", "<": "&lt;", ">": "&gt;"}.get(char, char)


def _section(text: str) -> Json:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}


def _link(url: str) -> Json:
    shown = fitted(url, MAX_CONTEXT, escaped)
    text = f"<{shown}>" if url.startswith("http") and not re.search(r"[\s|…]", shown) else shown or "-"
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": text, "verbatim": True}]}


@hookimpl
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[Notifier[Any]]]:
    """The notifier `slack`."""
    return {"slack": SlackNotifier}


@hookimpl
def sixfbd_environment(config: PluginConfig) -> Sequence[FromEnvironment]:
    """Webhooks of the channel for everything, and of that for the stock."""
    routes = [{"receiver": "inventory", "matchers": ['service="inventory"'], "continue": True}]
    return (
        FromEnvironment(
            names=("SLACK_WEBHOOK_URL",),
            tables=_webhook_tables("primary", "#alerts", "SLACK_WEBHOOK_URL"),
            missed="nobody is told in Slack",
        ),
        FromEnvironment(
            names=("SLACK_INVENTORY_WEBHOOK",),
            tables={
                **_webhook_tables("inventory", "#inventory-alerts", "SLACK_INVENTORY_WEBHOOK"),
                "route": {"routes": routes},
            },
            missed="no channel of Slack is told of the stock alone",
        ),
    )


def _webhook_tables(receiver: str, channel: str, name: str) -> dict[str, Json]:
    return {
        "notifiers": {"slack": {"plugin": "slack", "webhooks": {channel: {"env": name}}}},
        "receivers": {receiver: {"slack": {"via": "slack", "to": [channel]}}},
    }
