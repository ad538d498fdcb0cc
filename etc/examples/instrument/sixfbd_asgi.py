"""Tells sixfbd of a shop's requests and sales: ASGI middleware for Starlette, FastAPI, Quart, Django. Only the standard library.

    sixfbd = Sixfbd()                                       # one for the process
    app = RequestsToSixfbd(app, sixfbd)                     # or app.add_middleware(RequestsToSixfbd, sixfbd=sixfbd)
    sixfbd.sale(orderId=..., cityId=..., tier=..., quantity=..., amount=..., currency=...)
    sixfbd.close()                                          # at the end of the process

SIXFBD_URL is where the daemon listens (http://127.0.0.1:9632 unless set), SIXFBD_TOKEN a token with the scope `events`.
Nothing here waits for the daemon, and nothing raises: a thread sends. Events wait in memory, at most `most` of them; what
finds no room is counted, and the daemon told of it once it is back (workshop_events_dropped_total). Of who asks nothing is
sent: no address, no user agent, no query.
"""

import json
import os
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

EVERY_S = 1.0
BATCH = 500
BATCH_BYTES = 256 * 1024
LONGEST_EVENT = 16 * 1024
TIMEOUT_S = 5.0
LONGEST_WAIT_S = 30.0
PERMANENT = {400, 413, 415, 422}  # sent again it would be refused again

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Sixfbd:
    """Keeps events until the daemon has them; its thread sends them in batches."""

    def __init__(self, url: str = "", token: str = "", most: int = 10_000) -> None:
        token = token or os.environ["SIXFBD_TOKEN"]
        base = url or os.environ.get("SIXFBD_URL") or "http://127.0.0.1:9632"
        self._endpoint = f"{base.rstrip('/')}/api/events"
        self._headers = {"Content-Type": "application/x-ndjson", "Authorization": f"Bearer {token}"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._most = most
        self._waiting: deque[str] = deque()
        self._told = 0  # of those that were dropped
        self._telling = False
        self._closing = threading.Event()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="sixfbd", daemon=True)
        self._thread.start()

    def event(self, kind: str, data: dict[str, Any], event_id: str = "") -> None:
        """Have an event sent. Requests find no room before anything else does: a sale is money."""
        room = self._most if kind == "request" else 2 * self._most
        text = _written(kind, data, event_id or str(uuid.uuid4()))
        if len(self._waiting) >= room or not 0 < len(text) <= LONGEST_EVENT:
            self.dropped += 1
        else:
            self._waiting.append(text)

    def sale(self, **sale: Any) -> None:
        """Have a sale sent. By its order it is one event, however often it is told."""
        order = f"sale/{sale.get('orderId')}/{sale.get('cityId')}/{sale.get('tier')}"
        self.event("ticket_sale", sale, order[:200])

    def close(self) -> None:
        """Send what waits, once; at most TIMEOUT_S, and as long for what is on its way."""
        self._closing.set()
        self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        wait_s = EVERY_S
        while True:
            closing = self._closing.wait(wait_s)
            sent = True
            while sent and (self._waiting or self.dropped > self._told):
                sent = self._send()
            wait_s = EVERY_S if sent else min(2 * wait_s, LONGEST_WAIT_S)
            if closing:
                return

    def _send(self) -> bool:
        """Send a batch; tell whether the daemon has it, or never will have it."""
        dropped = self.dropped
        if dropped > self._told and not self._telling:
            self._waiting.append(_written("events_dropped", {"count": dropped - self._told}, str(uuid.uuid4())))
            self._told = dropped
            self._telling = True  # sent again it is the same event
        batch = self._batch()
        try:
            body = "\n".join(batch).encode()
            request = urllib.request.Request(self._endpoint, body, self._headers, method="POST")
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                self.dropped += len(json.load(answer)["data"]["refused"])
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in PERMANENT:
                return False
            self.dropped += len(batch)
        except (OSError, ValueError, KeyError):
            return False
        for _ in batch:
            self._waiting.popleft()
        self._telling = False
        return True

    def _batch(self) -> list[str]:
        batch: list[str] = []
        bytes_left = BATCH_BYTES
        for place in range(min(BATCH, len(self._waiting))):  # only this thread takes any out; others add behind
            text = self._waiting[place]
            bytes_left -= len(text)
            if bytes_left < 0:
                break
            batch.append(text)
        return batch


def _written(kind: str, data: dict[str, Any], event_id: str) -> str:
    """Return an event as JSON, "" if it cannot be written so."""
    try:
        return json.dumps({"id": event_id, "type": kind, "timestamp": time.time(), "data": data}, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return ""


class RequestsToSixfbd:
    """ASGI middleware: tells of each HTTP request."""

    def __init__(self, app: App, sixfbd: Sixfbd) -> None:
        self.app = app
        self.sixfbd = sixfbd

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except BaseException as error:
            # 499, as nginx says: who asked had left before there was an answer.
            status = status or (500 if isinstance(error, Exception) else 499)
            raise
        finally:
            took_ms = (time.perf_counter() - began) * 1000
            path = (scope.get("path") or "/")[:2000]
            self.sixfbd.event(
                "request", {"path": path, "method": scope["method"], "statusCode": status or 500, "duration": took_ms}
            )
