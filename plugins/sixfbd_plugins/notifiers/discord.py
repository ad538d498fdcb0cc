"""The `discord` notifier: a notification becomes a message of a webhook in a channel, its details in an embed of its colour.

Owns the message's form, its pace, and what Discord's answers mean. A webhook can rewrite what it posted and cannot reply: the
resolve rewrites the first message of its incident and is a message of its own. Nobody is ever mentioned. A message whose
answer was lost cannot be asked for: it is sent once more, marked.
"""

import re
from collections.abc import Mapping, Sequence
from functools import partial
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
from sixfbd_plugins.notifiers.webhook import retry_after_s, rfc3339
from sixfbd_plugins.notifiers.webhooks import check_webhook_address, hidden_parts, validate_webhooks, webhook_of
from sixfbd_plugins.provider import exchange

WEBHOOK_URLS: Final = tuple(
    f"https://{host}/api/" for host in ("discord.com", "discordapp.com", "ptb.discord.com", "canary.discord.com")
)
CALL_S: Final = 10 * SECOND
MAX_ANSWER_BYTES: Final = 256 * 1024
MAX_CONTENT: Final = 2000  # https://docs.discord.com/developers/resources/webhook#execute-webhook
MAX_DESCRIPTION: Final = 4096  # https://docs.discord.com/developers/resources/message#embed-object-embed-limits
MAX_FOOTER: Final = 256  # of 2048; title, description, footer and the rest have 6000 in all
MAX_NAME: Final = 80
MANY: Final = "and more: sixfbctl alerts lists all"
UNKNOWN_MESSAGE: Final = 10008
_MARKUP: Final = frozenset("\\*_~`|<>#[]()@:-+")

WORDS: Final[Mapping[int, str]] = {
    10003: "the channel is gone",
    10015: "the webhook was removed; make a new one",
    30046: "the message was rewritten too often",
    40005: "the message is too large",
    50006: "the message is empty",
    50013: "the webhook may not post here",
    50027: "the webhook's address is not valid any more; make a new one",
    50035: "Discord does not take the message's form",
}
"""https://docs.discord.com/developers/topics/opcodes-and-status-codes#json; what is not here goes by HTTP's status."""


class DiscordRefused(Refused):
    """Discord answered, and says no. `is_global`: of a 429, that it holds for all webhooks from here."""

    def __init__(self, status: int, code: int, wait_s: float | None, is_global: bool) -> None:
        words = WORDS.get(code) or {401: WORDS[50027], 404: WORDS[10015], 429: "too many messages"}.get(status, "")
        super().__init__(
            f"answered {status}: {words or 'no reason was given'}" + (f" (code {code})" if code else ""),
            temporary=status >= 500 or status in (408, 425, 429),
            wait_s=wait_s,
        )
        self.is_global = is_global


class DiscordNotifierOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `discord` notifier."""

    webhooks: Annotated[
        dict[str, Secret],
        Meta(description='Webhooks by channel, such as {"#alerts" = {file = "tokens/alerts"}}.', min_length=1),
    ]
    username: Annotated[str, Meta(description="Name that messages are from.", min_length=1, max_length=MAX_NAME)] = (
        "sixfbd"
    )
    rate: Annotated[
        float, Meta(gt=0, le=50, description="Messages a second to one channel; Discord allows 30 a minute.")
    ] = 0.5

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("webhooks"):
                validate_webhooks(self.webhooks)
            with faults.at("username"):
                name = self.username.lower()
                if "discord" in name or "clyde" in name or name in ("everyone", "here") or not name.strip():
                    raise ValueError("Discord takes no such name; choose another")


class DiscordNotifier(Notifier[DiscordNotifierOptions]):
    """Messages in channels of Discord, by webhooks."""

    Options = DiscordNotifierOptions
    provider_urls = {"webhooks": WEBHOOK_URLS}  # noqa: RUF012 - a ClassVar of the contract

    def __init__(self, options: DiscordNotifierOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._call_s: float = CALL_S
        self._pace = Pace(options.rate, ctx.clock)
        self._hide = hiding(hidden_parts(options.webhooks))

    @classmethod
    def check_address(cls, options: Any, address: str) -> None:
        check_webhook_address(options.webhooks, address)

    async def deliver(self, notification: Notification) -> Receipt:
        url = webhook_of(self.options.webhooks, notification.address)
        firsts = await first_messages(self.ctx, notification)
        await self._pace.turn(notification, notification.address)
        try:
            known = [first for first in firsts if first.provider_id.isdecimal()]
            rewritten = await rewrite_over(self.ctx, known, partial(self._rewrite, url, notification.address))
            body = {"username": self.options.username, **message_of(notification)}
            said = await self._call("POST", _with_wait(url), body, notification.address)
        except DiscordRefused as refused:
            if refused.temporary and refused.wait_s:
                self._pace.hold(refused.wait_s, None if refused.is_global else notification.address)
            raise refused.failure() from None
        detail = "posted" + (", and its first message rewritten" if rewritten else "")
        return Receipt(state="accepted", message_id=notification.id, provider_id=said["id"], detail=detail)

    async def _rewrite(self, url: str, address: str, first: First) -> None:
        await self._call("PATCH", _at(url, first.provider_id), resolved_message(first.alerts), address)

    async def _call(self, method: str, url: str, body: Mapping[str, Json], address: str) -> dict[str, Any]:
        """Return the message that Discord made. Raises DiscordRefused, or TemporaryFailure if nothing usable came back."""
        answer = await exchange(
            self.ctx.http,
            method,
            url,
            headers={"Content-Type": "application/json", "User-Agent": f"sixfbd ({self.ctx.version})"},
            content=msgspec.json.encode(body),
            call_s=self._call_s,
            max_bytes=MAX_ANSWER_BYTES,
            hide=self._hide,
        )
        try:
            said = answer.json()
            said = said if isinstance(said, dict) else {}
        except (ValueError, RecursionError):
            said = {}
        if not 200 <= answer.status_code < 300:
            raise self._refusal(answer, said)
        if answer.headers.get("x-ratelimit-remaining") == "0":
            self._pace.hold(_seconds(answer.headers.get("x-ratelimit-reset-after")), address)
        if not isinstance(said.get("id"), str):
            raise TemporaryFailure(f"answered {answer.status_code}, with something that is not Discord's", sent=True)
        return said

    def _refusal(self, answer: httpx.Response, said: Mapping[str, Any]) -> DiscordRefused:
        code = said.get("code")
        wait_s = _seconds(said.get("retry_after")) or retry_after_s(
            answer.headers.get("retry-after"), self.ctx.clock.wall()
        )
        is_global = said.get("global") is True or answer.headers.get("x-ratelimit-global") == "true"
        return DiscordRefused(answer.status_code, code if type(code) is int else 0, wait_s, is_global)


# ---- the message -----------------------------------------------------------------------------------------------------------


def message_of(notification: Notification) -> dict[str, Json]:
    """Return `content`, `embeds` and `allowed_mentions` of a notification: a line with the sign, the rest in an embed."""
    blocks = blocks_of(notification)
    where = notification.external_url
    description = _described(blocks, where if re.fullmatch(r"https?://[!-~]{1,500}", where) else "")
    at = rfc3339(notification.sent_at) if 0 <= notification.sent_at < 2**33 else rfc3339(0)
    return _message(headline(notification), description, color_of(notification), at)


def resolved_message(alerts: tuple[NotifiedAlert, ...]) -> dict[str, Json]:
    """Return what becomes of the first message about alerts that are all resolved."""
    title, blocks, color = resolved_parts(alerts)
    return _message(title, _described(blocks, ""), color, "")


def _message(title: str, description: str, color: str, at: str) -> dict[str, Json]:
    embed: dict[str, Json] = {"color": int(color.removeprefix("#"), 16)}
    if description:
        embed["description"] = description
    if at:
        embed["timestamp"] = at
    line = fitted(title, MAX_CONTENT, escaped) or "sixfbd"
    return {"content": line, "embeds": [embed] if description else [], "allowed_mentions": {"parse": []}}


def _described(blocks: list[str], where: str) -> str:
    """Return the blocks, and where the dashboard is, in the room that a description has."""
    said: list[str] = []
    left = MAX_DESCRIPTION - units(where) - 2
    for place, block in enumerate(blocks):
        ending = f"{len(blocks) - place} {MANY}"
        if left < 2 * units(ending) + 2:
            said.append(ending)
            break
        said.append(fitted(block, left - units(ending) - 4, escaped))
        left -= units(said[-1]) + 2
    return "\n\n".join([*said, where] if where else said)


def escaped(char: str) -> str:
    """Return a character that Discord does not take for markup, a mention or an emoji."""
    return f"\\{char}" if char in _MARKUP else char


def _with_wait(url: str) -> str:
    """Return the address that answers with the message that was made."""
    return str(httpx.URL(url).copy_merge_params({"wait": "true"}))


def _at(url: str, message: str) -> str:
    whole = httpx.URL(url)
    return str(whole.copy_with(path=f"{whole.path.rstrip('/')}/messages/{message}"))


def _seconds(wish: object) -> float:
    try:
        value = float(wish) if isinstance(wish, str | int | float) else 0.0
    except ValueError:
        return 0.0
    return value if 0 < value < float("inf") else 0.0


@hookimpl
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[Notifier[Any]]]:
    """The notifier `discord`."""
    return {"discord": DiscordNotifier}


@hookimpl
def sixfbd_environment(config: PluginConfig) -> Sequence[FromEnvironment]:
    """A webhook."""
    tables: dict[str, Json] = {
        "notifiers": {"discord": {"plugin": "discord", "webhooks": {"alerts": {"env": "DISCORD_WEBHOOK_URL"}}}},
        "receivers": {"primary": {"discord": {"via": "discord", "to": ["alerts"]}}},
    }
    return (FromEnvironment(names=("DISCORD_WEBHOOK_URL",), tables=tables, missed="nobody is told in Discord"),)
