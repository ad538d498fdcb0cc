"""One exchange between hypercorn and the app: quart-trio's, with the end of an answer mended.

When an answer is out, hypercorn reports the end of its stream as a disconnect, and closes or recycles the connection,
both within the call that sends the last piece. quart-trio takes the disconnect for a client that left and cancels that
very call, so that a connection to be closed stays open, and an idle one is never timed out (hypercorn 0.18, quart-trio
0.12). Here a disconnect after the last piece cancels nothing: the exchange ends by itself.
"""

from typing import Any

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from quart.asgi import ASGIHTTPConnection
from quart.wrappers import Request
from quart_trio.asgi import TrioASGIHTTPConnection


class Exchange(TrioASGIHTTPConnection):
    """An exchange that lets hypercorn finish."""

    def __init__(self, app: Any, scope: HTTPScope) -> None:
        super().__init__(app, scope)
        self._ending = False

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def noting(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._ending = True
            await send(message)

        await super().__call__(receive, noting)

    async def handle_messages(  # type: ignore[override]  # as quart-trio overrides it
        self, nursery: trio.Nursery, request: Request, receive: ASGIReceiveCallable
    ) -> None:
        await ASGIHTTPConnection.handle_messages(self, request, receive)
        if not self._ending:
            nursery.cancel_scope.cancel()
