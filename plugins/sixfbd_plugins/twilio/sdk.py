"""Twilio's SDK on our way out for HTTP. Importing this module imports the SDK; `account` does so when it is configured.

The SDK builds requests and reads answers; it opens no connection, retries nothing and logs nothing.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

import httpx
from twilio.base.exceptions import TwilioException
from twilio.http import AsyncHttpClient
from twilio.http.response import Response
from twilio.rest import Client

Exchange: TypeAlias = Callable[
    [str, str, Mapping[str, object], Mapping[str, object], Mapping[str, str]], Awaitable[httpx.Response]
]
"""(method, URL, query, form, headers) → an answer whose status is 2xx; raises for any other."""

MISREAD: Final = (TwilioException, ValueError, KeyError, TypeError, AttributeError)
"""What the SDK raises for an answer that is not as documented."""
_NO_REGION: Final = {"TWILIO_REGION": "", "TWILIO_EDGE": ""}  # the environment of the process is not its configuration


class _Http(AsyncHttpClient):  # type: ignore[misc]  # the SDK has no types
    """The SDK's seam for HTTP. Its own clients need asyncio or block."""

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(None, is_async=True)
        self._exchange = exchange

    async def request(  # type: ignore[no-untyped-def]  # as the SDK declares it; what is not named here is not needed
        self, method, uri, params=None, data=None, headers=None, **_rest
    ):
        answer = await self._exchange(method, uri, params or {}, data or {}, headers or {})
        return Response(answer.status_code, answer.text, answer.headers)


def make_client(user: str, password: str, account_sid: str, exchange: Exchange) -> object:
    """Return the SDK's client of an account; it asks through `exchange`, and asynchronously only."""
    return Client(user, password, account_sid, http_client=_Http(exchange), environment=_NO_REGION)
