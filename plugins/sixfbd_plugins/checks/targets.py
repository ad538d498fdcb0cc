"""What checks with several HTTP targets share: credentials, one deadline for the run, and all targets at once within a limit.

Knows nothing of what is asked of a target.
"""

import base64
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Annotated, Final, TypeVar

import httpx
import msgspec
import trio

from sixfbd.plugin import Secret

T = TypeVar("T")
S = TypeVar("S")

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_MIN_HIDDEN: Final = 4  # characters; replacing shorter words would make texts unreadable and hide nothing
AT_ONCE: Final = 32  # half of an instance's outbound slots
REPORT_SHARE: Final = (
    0.05  # of the run's time is kept back, so that a report that says what hung is made before the engine
)
REPORT_LIMIT_S: Final = 0.5  # cancels the run; but at most this


class BasicAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """User name and password of HTTP's basic authentication."""

    username: Annotated[str, msgspec.Meta(description="User name.")]
    password: Annotated[Secret, msgspec.Meta(description="Password.")]

    def header(self) -> str:
        """Return the value of the header. Only where it goes out on the wire."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password.reveal()}".encode()).decode("ascii")


def authorization(basic: BasicAuth | None, bearer: Secret | None) -> dict[str, str]:
    """Return the Authorization header, or nothing if neither is configured."""
    if basic is not None:
        return {"Authorization": basic.header()}
    return {"Authorization": f"Bearer {bearer.reveal()}"} if bearer is not None else {}


def validate_credentials(basic: BasicAuth | None, bearer: Secret | None) -> None:
    """Raise ValueError if both are given."""
    if basic is not None and bearer is not None:
        raise ValueError("basic_auth and bearer exclude each other; drop one")


def validate_headers(headers: Mapping[str, str]) -> None:
    """Raise ValueError for a header that cannot be sent. The text names it and never shows its value."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of a header")
        if value != value.strip() or not (value.isascii() and value.isprintable()):
            raise ValueError(f"the value of header {name} has blanks around it, a line break or a letter outside ASCII")


def merged_headers(usual: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the given headers and those usual ones that are not among them. Raises ValueError as validate_headers does."""
    names = {name.lower() for name in given}
    headers = {**{name: value for name, value in usual.items() if name.lower() not in names}, **given}
    validate_headers(headers)
    return headers


def parse_http_url(text: str) -> httpx.URL:
    """Return the URL of a target; raises ValueError that says how to mend it.

    User and password in a URL are refused: the URL becomes the label `instance`, which everybody sees.
    """
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"{text!r} is not a URL: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"{text!r} is not an HTTP address; write https://shop.example.com/path")
    validate_port(url)
    if url.userinfo:
        shown = url.copy_with(username=None, password=None)
        raise ValueError(f"user and password do not belong in the address {shown}; write them as basic_auth")
    return url


def passwords(*given: BasicAuth | None) -> list[str]:
    """Return the passwords of those that are given."""
    return [one.password.reveal() for one in given if one is not None]


def hiding(secrets: Iterable[str]) -> Callable[[str], str]:
    """Return a function that puts *** in the place of secrets and their words: a server may echo what it was sent."""
    words = {word for secret in secrets for word in (secret, *secret.split())} - {"Basic", "Bearer"}
    hidden = sorted((word for word in words if len(word) >= _MIN_HIDDEN), key=len, reverse=True)

    def hide(text: str) -> str:
        for word in hidden:
            text = text.replace(word, "***")
        return text

    return hide


def validate_port(url: httpx.URL) -> None:
    """Raise ValueError for a port that there is not; the resolver would take another for it."""
    if url.port is not None and not 0 < url.port < 65536:
        raise ValueError(f"{url.port} is not a port")


def run_deadline(limit_s: float) -> float:
    """Return when (trio's time) the targets' time is over: after `limit_s`, and in any case before the engine ends the run."""
    now = trio.current_time()
    left = trio.current_effective_deadline() - now
    return now + min(limit_s, left - min(REPORT_LIMIT_S, left * REPORT_SHARE))


async def each(targets: Sequence[T], ask: Callable[[T], Awaitable[S]], at_once: int = AT_ONCE) -> list[S]:
    """Ask all targets, `at_once` at a time, and return the answers in the targets' order. `ask` must end by itself."""
    limiter = trio.CapacityLimiter(at_once)
    answers: dict[int, S] = {}

    async def ask_one(index: int, target: T) -> None:
        async with limiter:
            answers[index] = await ask(target)

    async with trio.open_nursery() as nursery:
        for index, target in enumerate(targets):
            nursery.start_soon(ask_one, index, target)
    return [answers[index] for index in range(len(targets))]
