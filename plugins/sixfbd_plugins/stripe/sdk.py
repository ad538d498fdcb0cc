"""Stripe's SDK on our way out for HTTP. Importing this module imports the SDK; `account` does so when it is configured.

The SDK builds requests and reads answers; it opens no connection, retries nothing, writes no file and logs no request.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

import httpx
import stripe

Exchange: TypeAlias = Callable[[str, str, Mapping[str, str]], Awaitable[httpx.Response]]
"""(method, URL, headers) → an answer whose status is 2xx; raises for any other."""

API_VERSION: Final = "2026-10-28.endive"  # objects have this shape, whatever the account or a newer SDK would have
MISREAD: Final = (stripe.StripeError, ValueError, KeyError, TypeError, AttributeError)
"""What the SDK raises for an answer that is not as documented."""

stripe.enable_telemetry = False  # else it would write a file of its own, and send how long calls took
logging.getLogger("stripe").setLevel(logging.WARNING)  # a line for every request, with its address


class _Http(stripe.HTTPClient):
    """The SDK's seam for HTTP. Its own client has a TLS context, a pool and proxies of its own."""

    name = "sixfbd"

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self._exchange = exchange

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        answer = await self._exchange(method.upper(), url, headers)
        return answer.content, answer.status_code, answer.headers


def make_client(key: str, base_url: str, exchange: Exchange) -> stripe.StripeClient:
    """Return the SDK's client; it asks through `exchange`, reads only, and asynchronously only."""
    return stripe.StripeClient(
        key,
        stripe_version=API_VERSION,
        base_addresses={"api": base_url},
        max_network_retries=0,
        http_client=_Http(exchange),
    )
