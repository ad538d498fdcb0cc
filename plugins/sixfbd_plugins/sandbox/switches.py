"""The faults that a person may switch on, in words: `twilio error=503 rate=30%`. Reads them, and says what may be written.

A switch is a target (the shop or a provider) and words. Words about requests become a `faults.Fault`, those about webhooks a
`PostFault`; all others are the target's own, and `town` knows what they do. Pure.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

from sixfbd.plugin import Duration
from sixfbd_plugins.sandbox.faults import Fault

PROVIDERS: Final = ("twilio", "stripe", "sendgrid", "slack", "discord", "hook")
TARGETS: Final = ("shop", *PROVIDERS)
WITH_WEBHOOKS: Final = ("twilio", "stripe", "sendgrid")
PostKind = Literal["duplicate", "disorder", "forged", "lost"]


class SwitchError(ValueError):
    """Words that mean nothing; the text says which, and what may be written."""


class PostFault(msgspec.Struct, frozen=True):
    """A fault of webhooks, for the part `rate` of them."""

    kind: PostKind
    rate: float = 1.0


class Switch(msgspec.Struct, frozen=True, kw_only=True):
    """A fault that is on. `own`: values of words that only its target knows."""

    number: int
    target: str
    text: str
    fault: Fault | None = None
    post: PostFault | None = None
    own: dict[str, Any] = msgspec.field(default_factory=dict)


class Word(msgspec.Struct, frozen=True):
    """A word and what it does. `read` takes what stands behind "="; None: nothing does. `targets`: whose it is."""

    doc: str
    read: Callable[[str], Any] | None
    targets: tuple[str, ...] = TARGETS


def _ratio(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text)
    value = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= value <= 1:
        raise ValueError("is no part of a whole; write 30% or 0.3")
    return value


def _status(text: str) -> int:
    if not (text.isdigit() and 400 <= int(text) <= 599):
        raise ValueError("is no status of an error; write 503 or 429")
    return int(text)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise ValueError("is no whole number")
    return int(text)


def _span(text: str) -> float:
    return float(Duration.parse(text))


def _times(text: str) -> float:
    value = float(text) if re.fullmatch(r"\d{1,4}(\.\d+)?", text) else 0.0
    if value <= 0:
        raise ValueError("is no factor; write 20")
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"is none of {', '.join(choices)}")
        return text

    return read


def _slack_word(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9_]{1,60}", text):
        raise ValueError("is no word of Slack's")
    return text


def _amount(text: str) -> str:
    if not re.fullmatch(r"-?\d{1,6}\.\d\d", text):
        raise ValueError("is no amount; write 3.50")
    return text


WORDS: Final[Mapping[str, Word]] = {
    "error": Word("requests are refused with this status, such as 503", _status),
    "code": Word("the provider's own number of that error", _number, PROVIDERS),
    "retry_after": Word("seconds that a refusal asks to wait", _number, PROVIDERS),
    "latency": Word("answers take so much longer, such as 3s", _span),
    "lost": Word("requests are done, and their answers lost", None),
    "hang": Word("connections are taken and never answered", None),
    "down": Word("connections are closed, and nothing is done", None),
    "rate": Word("of this part of requests or webhooks only, such as 30%", _ratio),
    "method": Word("of requests with this method only", str.upper),
    "path": Word("of requests whose path holds this only", str),
    "webhooks": Word(
        "duplicate, disorder, forged or lost: how webhooks come",
        _one_of("duplicate", "disorder", "forged", "lost"),
        WITH_WEBHOOKS,
    ),
    "undelivered": Word("messages do not arrive, with this code, such as 30003", _number, ("twilio",)),
    "account": Word("the account is suspended or closed", _one_of("suspended", "closed"), ("twilio",)),
    "balance": Word("the account's balance, such as 3.50", _amount, ("twilio",)),
    "refusal": Word("messages are refused, as with channel_not_found", _slack_word, ("slack",)),
    "endpoint": Word("the webhook endpoint is disabled: endpoint=disabled", _one_of("disabled"), ("stripe",)),
    "payouts": Word("a payout to the bank fails: payouts=fail", _one_of("fail"), ("stripe",)),
    "disputes": Word("this part of the payments of the last minutes is disputed", _ratio, ("stripe",)),
    "bounce": Word("e-mails come back", None, ("sendgrid",)),
    "rush": Word("so many times the usual visitors, most of whom buy", _times, ("shop",)),
    "declines": Word("this part of the cards is declined", _ratio, ("shop",)),
    "technical": Word("this part of the payments fails for technical reasons", _ratio, ("shop",)),
    "refunds": Word("this part of those who have tickets wants the money back", _ratio, ("shop",)),
    "oversell": Word("more tickets are sold than there are", None, ("shop",)),
    "unticketed": Word("this part of the buyers pays and gets no ticket", _ratio, ("shop",)),
    "unpaid": Word("this part of the tickets is never paid", _ratio, ("shop",)),
    "unconfirmed": Word("this part of the buyers gets no confirmation", _ratio, ("shop",)),
}
_REQUESTS: Final = ("error", "latency", "lost", "hang", "down")
_LIMITS: Final = ("code", "retry_after", "method", "path")


def read_switch(number: int, target: str, words: Iterable[str]) -> Switch:
    """Return the switch that a person has written. Raises SwitchError."""
    if target not in TARGETS:
        raise SwitchError(f"{target}: there is no such target; there are {', '.join(TARGETS)}")
    given = dict(_read_word(target, word) for word in words)
    rate = given.pop("rate", 1.0)
    requests: dict[str, Any] = {name: given.pop(name) for name in (*_REQUESTS, *_LIMITS) if name in given}
    if "refusal" in given:
        requests.setdefault("error", 200)  # as Slack answers most errors
    kind = given.pop("webhooks", None)
    if not (set(requests) & set(_REQUESTS) or kind or given):
        raise SwitchError(f"{target}: nothing is switched on; write one of {', '.join(words_of(target))}")
    if rate != 1.0 and not (requests or kind):
        raise SwitchError(f"{target}: rate goes with requests or webhooks; {', '.join(given)} has none")
    return Switch(
        number=number,
        target=target,
        text=" ".join(words),
        fault=_fault(requests, rate) if set(requests) & set(_REQUESTS) else None,
        post=PostFault(kind, rate) if kind else None,
        own=given,
    )


def words_of(target: str) -> list[str]:
    """Return the words that a target knows."""
    return [name for name, word in WORDS.items() if target in word.targets]


def _read_word(target: str, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    word = WORDS.get(name)
    if word is None or target not in word.targets:
        raise SwitchError(f"{target}: {name} means nothing here; there are {', '.join(words_of(target))}")
    if word.read is None:
        if equals:
            raise SwitchError(f'{target}: {name} takes no value; write "{name}"')
        return name, True
    if not value:
        raise SwitchError(f'{target}: {name} needs a value; write "{name}=..."')
    try:
        return name, word.read(value)
    except ValueError as error:
        raise SwitchError(f"{target}: {name}: {value!r} {error}") from None


def _fault(given: Mapping[str, Any], rate: float) -> Fault:
    return Fault(
        error=given.get("error", 503 if "down" in given else 0),
        code=given.get("code", 0),
        retry_after_s=given.get("retry_after", 0),
        rate=rate,
        latency_s=given.get("latency", 0.0),
        lost="lost" in given or "down" in given,
        silent="hang" in given,
        method=given.get("method", ""),
        path=given.get("path", ""),
    )
