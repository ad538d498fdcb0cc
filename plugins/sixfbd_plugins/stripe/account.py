"""An account at Stripe: its key as options, and the one way to its API, over the engine's way out for HTTP.

Every call only reads, has a deadline, and raises one of two errors: `Refused` (Stripe answered, and says no) or the engine's
TemporaryFailure (nothing came back). No error holds a key or an e-mail address. Stripe's SDK is imported when the first
account is made.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeVar

import httpx
import msgspec
from msgspec import Meta

from sixfbd.plugin import SECOND, Context, OptionFaults, Secret, installed
from sixfbd_plugins.checks.targets import hiding
from sixfbd_plugins.provider import exchange, validate_base_url, without_people

T = TypeVar("T")

PUBLIC_URL: Final = "https://api.stripe.com"
CALL_S: Final = 10 * SECOND
MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024  # a page of 100 events has less than one
MAX_SAID: Final = 160  # characters of what Stripe says that are shown
_KEY: Final = re.compile("(?:sk|rk)_(?:live|test)_[0-9A-Za-z_]{8,247}")


class AccountOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options that name an account."""

    api_key: Annotated[Secret, Meta(description="A restricted key that may read, rk_..., or a secret key, sk_....")]
    base_url: Annotated[str, Meta(description="Where the API is, if it is a sandbox.")] = PUBLIC_URL

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            self.check(faults)

    def check(self, faults: OptionFaults) -> None:
        """Name what is wrong; never shows a value."""
        with faults.at("api_key"):
            installed("stripe", extra="stripe")
            validate_key(self.api_key.reveal())
        with faults.at("base_url"):
            validate_base_url(self.base_url, PUBLIC_URL)


class Refused(Exception):  # noqa: N818 - Stripe's answer, no fault of the program
    """Stripe answered, and not with what was asked for. `status` is HTTP's, `code` Stripe's own ("": it gave none).

    https://docs.stripe.com/api/errors
    """

    def __init__(self, status: int, code: str, said: str, retry_after_s: float | None = None) -> None:
        named = f"{status}, {code}" if code else f"{status}"
        super().__init__(f"answered {named}: {said}".rstrip(": "))
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s

    @property
    def is_throttled(self) -> bool:
        """Tell whether too much was asked at once: https://docs.stripe.com/rate-limits."""
        return self.status == 429

    @property
    def is_passing(self) -> bool:
        """Tell whether the same request may do later."""
        return self.status >= 500 or self.status in (408, 409, 425, 429)


class Account:
    """The API of one account. Calls are bounded and explained; nothing is repeated here, whatever Stripe recommends."""

    def __init__(self, options: AccountOptions, ctx: Context, call_s: float = CALL_S) -> None:
        from sixfbd_plugins.stripe.sdk import MISREAD, make_client  # only who is configured pays for it

        key = options.api_key.reveal()
        self._misread = MISREAD
        self._ctx = ctx
        self._call_s = call_s
        self._hide = hiding([key])
        self._client = make_client(key, options.base_url.rstrip("/"), self._exchange)

    async def get(self, path: str, shape: type[T], params: Mapping[str, Any] | None = None) -> T:
        """Return what is at a path, such as "/v1/balance", as `shape`. Raises Refused or TemporaryFailure, nothing else."""
        try:
            answer = await self._client.raw_request_async("get", path, **(params or {}))
            return msgspec.convert(answer.data, shape)
        except self._misread as error:
            raise Refused(502, "", f"an answer that is not as documented ({type(error).__name__})") from None

    def hide(self, text: str) -> str:
        """Return a text that may be shown: without key and addresses, not longer than a line."""
        return without_people(self._hide(" ".join(text[: 8 * MAX_SAID].split())))[:MAX_SAID]

    async def _exchange(self, method: str, url: str, headers: Mapping[str, str]) -> httpx.Response:
        answer = await exchange(
            self._ctx.http,
            method,
            url,
            headers=headers,
            call_s=self._call_s,
            max_bytes=MAX_ANSWER_BYTES,
            hide=self.hide,
        )
        if not 200 <= answer.status_code < 300:
            raise self._refusal(answer)
        return answer

    def _refusal(self, answer: httpx.Response) -> Refused:
        try:
            error = answer.json()["error"]
            code, said = str(error.get("code") or ""), str(error.get("message") or "")
        except (ValueError, KeyError, TypeError, AttributeError):
            code, said = "", ""
        after = answer.headers.get("retry-after", "")
        retry_after_s = float(after) if after.isascii() and after.isdigit() and len(after) < 6 else None
        return Refused(answer.status_code, self.hide(code), self.hide(said), retry_after_s)


def validate_key(key: str) -> None:
    """Raise ValueError, without the key, if it cannot be a key that reads from a server."""
    if not key:
        raise ValueError("is missing")
    if key.startswith("pk_"):
        raise ValueError("is a publishable key, which cannot read; make a restricted key (rk_...)")
    if not _KEY.fullmatch(key):
        raise ValueError('is no key of Stripe\'s: "rk_live_..." or "sk_live_..." ("..._test_..." for test mode)')
