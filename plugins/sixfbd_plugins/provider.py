"""What all clients of a provider's API share: where it is, and one exchange with it. Knows no provider."""

import re
from collections.abc import Callable, Mapping
from typing import Final

import httpx
import trio

from sixfbd.plugin import Outbound, TemporaryFailure
from sixfbd_plugins.checks.targets import run_deadline

_LIKE_A_NUMBER: Final = re.compile(r"\+?[0-9](?:[ ().-]{0,2}[0-9]){6,}")
_LIKE_A_MAILBOX: Final = re.compile(r"[^\s@<>()\[\],;:\"']+@")


def last_digits(number: str) -> str:
    """Return a phone number as it may be shown (SEED, Privacy)."""
    return f"…{number.strip()[-4:]}"


def without_people(text: str) -> str:
    """Return what a provider says as it may be shown: of what looks like a phone number the last four digits, of an e-mail
    address the domain."""
    shorn = _LIKE_A_NUMBER.sub(lambda found: last_digits(re.sub("[^0-9]", "", found[0])), text)
    return _LIKE_A_MAILBOX.sub("***@", shorn)


def validate_base_url(text: str, public_url: str) -> None:
    """Raise ValueError if an API cannot be there; `public_url` is where the provider's is."""
    try:
        url = httpx.URL(text) if text.isascii() else httpx.URL()
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.path not in ("", "/"):
        raise ValueError(f'is not an address such as "{public_url}"')


async def exchange(
    http: Outbound,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    content: bytes | str | None = None,
    call_s: float,
    max_bytes: int,
    hide: Callable[[str], str],
) -> httpx.Response:
    """Return a provider's answer, whatever its status, within `call_s` and in any case before the engine ends the run.

    Raises TemporaryFailure if there is none; `hide` takes out of its text what must not be shown.
    """
    limit_s = max(0.0, round(run_deadline(call_s) - trio.current_time(), 2))
    try:
        return await http.request(method, url, headers=headers, content=content, timeout_s=limit_s, max_bytes=max_bytes)
    except TemporaryFailure as failure:
        text = hide(str(failure))
        raise TemporaryFailure(text, retry_after_s=failure.retry_after_s, sent=failure.sent) from None
