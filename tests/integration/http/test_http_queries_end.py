"""A query ends when whoever asked is gone: on the wire, in the room and in the thread that evaluates."""

import threading
from typing import Any

import pytest
import trio

from sixfbd.config import Http
from sixfbd.http.engine import QueryAnswer
from sixfbd.quantities import Duration
from sixfbd.readers.queries import QUERY_THREADS, EngineReader

LIMIT_S = 30.0


class HeldWindow:
    """A window without series that is read no further than the test lets it; it is its own snapshot."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.read: list[str] = []

    def snapshot(self) -> "HeldWindow":
        return self

    def points(self, matchers: Any, lo_ms: int, hi_ms: int) -> int:
        return 0

    def look_back_ms(self, matchers: Any) -> int:
        return 300_000

    def select(self, matchers: Any, lo_ms: int, hi_ms: int) -> list[Any]:
        self.read.append(matchers[-1].value)
        self.go_on.wait(LIMIT_S)
        return []


@pytest.fixture
def window():
    held = HeldWindow()
    yield held
    held.go_on.set()


async def test_a_query_is_cancelled_when_its_client_goes(engine, serving, window):
    reader = EngineReader(window, journal=None, alerts=list)  # type: ignore[arg-type]  # neither is asked here
    cancelled = trio.Event()

    async def query(expr: str, time: float) -> QueryAnswer:
        try:
            await reader.evaluate(expr, time, time, 1)
        except trio.Cancelled:
            cancelled.set()
            raise
        raise AssertionError("the query was answered, though nobody was there")

    engine.query = query
    with trio.fail_after(LIMIT_S):
        async with serving(engine, Http(request_timeout=Duration(2 * LIMIT_S))) as client:
            async with await trio.open_tcp_stream(client.base_url.host, client.base_url.port) as stream:
                await stream.send_all(b"GET /api/v1/query?query=first%2Bsecond HTTP/1.1\r\nHost: localhost\r\n\r\n")
                while not window.read:  # noqa: ASYNC110 - a thread reads, which tells nobody
                    await trio.sleep(0.01)
            await cancelled.wait()
            window.go_on.set()
            both = threading.Barrier(QUERY_THREADS, timeout=LIMIT_S)
            async with trio.open_nursery() as nursery:  # they meet once the thread of the query is free again
                for _ in range(QUERY_THREADS):
                    nursery.start_soon(reader.offload, both.wait)
    assert window.read == ["first"]
