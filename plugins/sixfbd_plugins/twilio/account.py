"""An account at Twilio: its credentials as options, and the one way to its API, over the engine's way out for HTTP.

Every call has a deadline and raises one of two errors: `Refused` (Twilio answered, and says no) or the engine's
TemporaryFailure (nothing came back). No error holds a secret, an account's sid or a full phone number. Twilio's SDK is
imported when the first account is made.
"""

import base64
import re
import urllib.parse
from collections.abc import Awaitable, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Annotated, Any, Final, TypeVar

import httpx
import msgspec
from msgspec import Meta

from sixfbd.plugin import SECOND, Context, OptionFaults, Secret
from sixfbd_plugins.checks.targets import hiding
from sixfbd_plugins.provider import exchange, validate_base_url, without_people

T = TypeVar("T")

PUBLIC_URL: Final = "https://api.twilio.com"
CALL_S: Final = 10 * SECOND
MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024  # a page of 500 messages with long texts has one or two
MAX_SAID: Final = 160  # characters of what Twilio says that are shown
ENVIRONMENT: Final = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_PHONE_NUMBER")
ACCOUNT_FROM_ENVIRONMENT: Final = dict(
    zip(("account_sid", "auth_token", "from_number"), ({"env": name} for name in ENVIRONMENT), strict=True)
)
TOO_MANY: Final = 20429  # https://www.twilio.com/docs/api/errors/20429
_SID: Final = re.compile("[A-Z]{2}[0-9a-fA-F]{32}")


class AccountOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The options that name an account: a token, or an API key with its secret (which can be restricted and revoked)."""

    account_sid: Annotated[Secret | str, Meta(description="The account: AC and 32 hexadecimal digits.")]
    auth_token: Annotated[Secret | None, Meta(description="The account's auth token, unless api_key is given.")] = None
    api_key: Annotated[Secret | str, Meta(description="Sid of an API key: SK and 32 hexadecimal digits.")] = ""
    api_secret: Annotated[Secret | None, Meta(description="Secret of the API key.")] = None
    base_url: Annotated[str, Meta(description="Where the API is, if it is a sandbox.")] = PUBLIC_URL

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            self.check(faults)

    def check(self, faults: OptionFaults) -> None:
        """Name what is wrong; never shows a value."""
        with faults.at("account_sid"):
            validate_sid(revealed(self.account_sid), "AC")
        with faults.at("auth_token"):
            if (self.auth_token is None) is (self.api_secret is None):
                raise ValueError("one of auth_token and api_key with api_secret is needed")
            if self.auth_token is not None:
                validate_secret(self.auth_token)
        with faults.at("api_key"):
            if bool(revealed(self.api_key)) is (self.api_secret is None):
                raise ValueError("api_key and api_secret are given both or neither")
            if self.api_secret is not None:
                validate_sid(revealed(self.api_key), "SK")
        with faults.at("api_secret"):
            if self.api_secret is not None:
                validate_secret(self.api_secret)
        with faults.at("base_url"):
            validate_base_url(self.base_url, PUBLIC_URL)


class Refused(Exception):  # noqa: N818 - Twilio's answer, no fault of the program
    """Twilio answered, and not with what was asked for. `status` is HTTP's, `code` Twilio's own (0: it gave none).

    https://www.twilio.com/docs/api/errors
    """

    def __init__(self, status: int, code: int, said: str, retry_after_s: float | None = None) -> None:
        named = f"{status}" if code in (0, status) else f"{status}, code {code}"
        super().__init__(f"answered {named}: {said}".rstrip(": "))
        self.status = status
        self.said = said
        self.code = 0 if code == status else code
        self.retry_after_s = retry_after_s

    @property
    def is_passing(self) -> bool:
        """Tell whether the same request may do later: Twilio is overloaded or broken, or too much was asked at once."""
        return self.status >= 500 or self.status in (408, 425, 429) or self.code == TOO_MANY


class Misread(Refused):
    """Twilio answered 2xx, with something that is not as documented: what was asked for may have been done."""


class Account:
    """The API of one account. `client` is Twilio's own, to be asked through `ask`, which bounds and explains."""

    def __init__(self, options: AccountOptions, ctx: Context, call_s: float = CALL_S) -> None:
        from sixfbd_plugins.twilio.sdk import MISREAD, make_client  # only who is configured pays for it

        self._misread = MISREAD
        self._ctx = ctx
        self._call_s = call_s
        self._sid = revealed(options.account_sid)
        user = revealed(options.api_key) or self._sid
        password = (options.api_secret or options.auth_token or Secret("", "")).reveal()
        basic = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
        self._hide = hiding([self._sid, user, password, basic])
        self._authorization = f"Basic {basic}"
        self._base = None if options.base_url.rstrip("/") == PUBLIC_URL else httpx.URL(options.base_url)
        self.client: Any = make_client(user, password, self._sid, self._exchange)

    async def ask(self, call: Awaitable[T]) -> T:
        """Return what a call of `client` returns. Raises Refused or TemporaryFailure, and nothing else."""
        try:
            return await call
        except self._misread as error:
            place = extract_tb(error.__traceback__)[-1]  # its words may hold what Twilio said
            self._ctx.log.warning(
                "twilio.misread", error=type(error).__name__, place=f"{Path(place.filename).name}:{place.lineno}"
            )
            raise Misread(502, 0, f"an answer that is not as documented ({type(error).__name__})") from None

    def hide(self, text: str) -> str:
        """Return a text that may be shown: without secrets, without numbers, not longer than a line."""
        return without_people(self._hide(" ".join(text[: 8 * MAX_SAID].split())))[:MAX_SAID]

    async def _exchange(
        self,
        method: str,
        url: str,
        params: Mapping[str, object],
        data: Mapping[str, object],
        headers: Mapping[str, str],
    ) -> httpx.Response:
        answer = await exchange(
            self._ctx.http,
            method,
            self._placed(url, params),
            headers={**headers, "Authorization": self._authorization},
            content=urllib.parse.urlencode(_given(data)) if method == "POST" else None,
            call_s=self._call_s,
            max_bytes=MAX_ANSWER_BYTES,
            hide=self.hide,
        )
        if not 200 <= answer.status_code < 300:
            raise self._refusal(answer)
        return answer

    def _placed(self, url: str, params: Mapping[str, object]) -> str:
        """Return the URL that is asked: in a sandbox, of its host."""
        placed = httpx.URL(url).copy_merge_params({name: str(value) for name, value in _given(params).items()})
        if self._base is not None:
            placed = placed.copy_with(scheme=self._base.scheme, host=self._base.host, port=self._base.port)
        return str(placed)

    def _refusal(self, answer: httpx.Response) -> Refused:
        try:
            body = answer.json()
            code, said = int(body.get("code") or 0), str(body.get("message") or body.get("detail") or "")
        except (ValueError, TypeError, AttributeError):
            code, said = 0, ""
        return Refused(answer.status_code, code, self.hide(said), _seconds(answer.headers.get("retry-after")))


def revealed(value: Secret | str) -> str:
    """Return the value of an option that may be a secret. Only where it goes out on the wire, or is validated."""
    return value.reveal() if isinstance(value, Secret) else value


def validate_sid(sid: str, kind: str) -> None:
    """Raise ValueError, without the value, if it is not a sid of this kind."""
    if not sid:
        raise ValueError("is missing")
    if not _SID.fullmatch(sid) or not sid.startswith(kind):
        raise ValueError(f"is not {kind} and 32 hexadecimal digits")


def validate_secret(secret: Secret) -> None:
    """Raise ValueError, without the value, if it cannot be a secret of Twilio's."""
    value = secret.reveal()
    if not value:
        raise ValueError("is missing")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise ValueError("has a blank, a line break or a letter outside ASCII")


def _given(values: Mapping[str, object]) -> dict[str, object]:
    """Leave out what is None: it would be sent as if it were empty."""
    return {name: value for name, value in values.items() if value is not None}


def _seconds(wish: str | None) -> float | None:
    """Return what Retry-After asks for; Twilio writes seconds."""
    return float(wish) if wish is not None and wish.isascii() and wish.isdigit() else None
