"""Following events, by WebSocket and as a stream: every one once and in order, whoever many follow and however slow one is."""

import json
from base64 import b64encode
from contextlib import asynccontextmanager

import pytest
import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from sixfbd.http import feed as feed_module
from sixfbd.http import streams, websocket
from sixfbd.http.api.events import encoded
from sixfbd.http.feed import Feed
from sixfbd.model import Event, StoredEvent
from tests.integration.http.test_http_events import following, opens

KEY = b64encode(b"0123456789abcdef").decode()
ASKS = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}


class Follower:
    """One that follows by WebSocket."""

    def __init__(self, stream):
        self.stream = stream
        self.frames = Connection(ConnectionType.CLIENT)
        self.seen = []
        self.closed = None
        self.pongs = 0
        self._text = ""

    async def read(self):
        """Take what came; False at the end."""
        data = await self.stream.receive_some(65536)
        if not data:
            return False
        await self.take(data)
        return self.closed is None

    async def take(self, data):
        self.frames.receive_data(data)
        for event in self.frames.events():
            if isinstance(event, TextMessage):
                self._text += event.data
                if event.message_finished:
                    self.seen.append(json.loads(self._text))
                    self._text = ""
            elif isinstance(event, CloseConnection):
                self.closed = event.code
            elif isinstance(event, Ping):
                await self.stream.send_all(self.frames.send(event.response()))
            elif isinstance(event, Pong):
                self.pongs += 1

    async def until(self, count):
        with trio.fail_after(20):
            while len(self.seen) < count:
                assert await self.read(), f"closed with {self.closed}"


async def asked(client, path="/api/events/ws", **headers):
    """Ask for a WebSocket; return the stream, the answer's head, and what came behind it."""
    stream = await trio.open_tcp_stream(client.base_url.host, client.base_url.port)
    lines = {"Host": f"localhost:{client.base_url.port}", **ASKS, **headers}
    text = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
    await stream.send_all(f"GET {path} HTTP/1.1\r\n{text}\r\n".encode())
    got = b""
    with trio.fail_after(10):
        while b"\r\n\r\n" not in got and (more := await stream.receive_some(65536)):
            got += more
    head, _, rest = got.partition(b"\r\n\r\n")
    return stream, head.decode(), rest


@asynccontextmanager
async def socket(client, query="", **headers):
    stream, head, rest = await asked(client, f"/api/events/ws{query}", **headers)
    assert head.startswith("HTTP/1.1 101 "), head
    async with stream:
        follower = Follower(stream)
        await follower.take(rest)
        yield follower


async def happen(engine, *types):
    """Let events happen in the engine."""
    for kind in types:
        number = len(engine.events) + 1
        engine.events.append(StoredEvent(number, "test", 1.0, Event(f"e-{number}", kind, 1.0, {"n": number})))
    engine.changed()


def numbers(follower):
    return [one["seq"] for one in follower.seen]


async def test_a_websocket_brings_each_event_as_one_message_and_goes_on_where_the_last_one_ended(client, engine):
    await happen(engine, "a")
    async with socket(client) as one:
        await happen(engine, "a", "b")
        await one.until(2)
        assert one.seen == (await client.get("/api/events", params={"after": 1})).json()["data"]["events"]
    await happen(engine, "c")
    async with socket(client, "?after=3") as one:
        await happen(engine, "d")
        await one.until(2)
        assert numbers(one) == [4, 5]
    async with socket(client, "?after=0&type=b&type=d") as one:
        await one.until(2)
        await happen(engine, "a", "d")
        await one.until(3)
        assert numbers(one) == [3, 5, 7]


async def test_two_hundred_of_both_kinds_get_every_event_once_and_in_order(client, engine):
    count, followers, events = 0, 200, 400

    async def by_stream():
        nonlocal count
        async with following(client, params={"after": 0}) as pieces:
            seen = [int((await anext(pieces))["id"]) for _ in range(events)]
        assert seen == list(range(1, events + 1))
        count += 1

    async def by_socket():
        nonlocal count
        async with socket(client, "?after=0") as one:
            await one.until(events)
            assert numbers(one) == list(range(1, events + 1))
            count += 1

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(followers):
                nursery.start_soon(by_socket if number % 2 or number >= 160 else by_stream)
            for _ in range(events // 20):
                await happen(engine, *["sale"] * 20)
                await trio.sleep(0.01)
    assert count == followers


async def test_however_many_follow_the_journal_is_read_once_for_each_event(engine):
    reads = []
    ask = engine.events_after

    async def events_after(seq, types, limit):
        reads.append(seq)
        return await ask(seq, types, limit)

    engine.events_after = events_after
    feed = Feed(engine, encoded)
    await feed.after(0, (), "sse")
    for first in range(0, 100, 10):
        await happen(engine, *["sale"] * 10)
        pages = []

        async def one(seq, pages=pages):
            pages.append(await feed.after(seq, (), "sse"))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(one, first)
        assert len({page.data for page in pages}) == 1 and pages[0].upto == first + 10
    assert reads == list(range(0, 100, 10))


async def test_who_is_far_behind_is_told_from_the_journal_and_then_as_all_others(engine, monkeypatch):
    monkeypatch.setattr(feed_module, "KEPT", 30)
    feed = Feed(engine, encoded)
    await feed.after(0, (), "sse")
    for _ in range(50):
        await happen(engine, "a", "b", "c")
        await feed.after(len(engine.events) - 3, (), "sse")
    for types, wanted in (((), 150), (("b",), 50)):
        seq, seen = 0, 0
        while seq < 150:
            page = await feed.after(seq, types, "sse")
            seen += page.data.count(b"id: ")
            assert page.upto > seq
            seq = page.upto
        assert seen == wanted


async def test_one_that_does_not_read_holds_up_nobody_and_misses_nothing(client, engine):
    async with socket(client, "?after=0") as slow, socket(client, "?after=0") as quick:
        for _ in range(100):
            number = len(engine.events) + 1
            engine.events.append(
                StoredEvent(number, "test", 1.0, Event(f"e-{number}", "big", 1.0, {"text": "x" * 50_000}))
            )
            await happen(engine)
            await quick.until(number)
        await slow.until(100)
        assert numbers(slow) == numbers(quick) == list(range(1, 101))


async def test_one_that_does_not_read_for_too_long_is_let_go_of(client, engine, monkeypatch):
    monkeypatch.setattr(websocket, "STALLED_S", 0.2)
    engine.events += [
        StoredEvent(n, "test", 1.0, Event(f"e-{n}", "big", 1.0, {"text": "x" * 100_000})) for n in range(1, 400)
    ]
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    async with socket(client, "?after=0"):
        with trio.fail_after(20):
            while not await opens(client):  # noqa: ASYNC110 - the room tells nobody
                await trio.sleep(0.05)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Upgrade": ""}, 426),
        ({"Upgrade": "h2c"}, 426),
        ({"Sec-WebSocket-Version": "8"}, 426),
        ({"Sec-WebSocket-Key": "short"}, 426),
        ({"Origin": "https://elsewhere.example.com"}, 403),
        ({"Host": "elsewhere.example.com"}, 421),
        ({"X-Forwarded-For": "192.0.2.1"}, 401),
        ({"Last-Event-ID": "x"}, 400),
    ],
)
async def test_who_may_not_come_in_is_told_why_in_the_form_of_all_errors(client, headers, status):
    stream, head, rest = await asked(client, **headers)
    async with stream:
        assert head.startswith(f"HTTP/1.1 {status} "), head
        length = int(head.lower().split("content-length: ")[1].split("\r\n")[0])
        with trio.fail_after(5):
            while len(rest) < length:
                rest += await stream.receive_some(4096)
        assert json.loads(rest)["success"] is False


async def test_a_page_of_this_site_and_a_token_behind_a_proxy_may_come_in(client):
    host = f"localhost:{client.base_url.port}"
    async with socket(client, Origin=f"http://{host}"):
        pass
    async with socket(client, **{"X-Forwarded-For": "192.0.2.1", "Authorization": "Bearer token-of-grafana"}):
        pass


async def test_those_who_follow_are_limited_in_number_whatever_their_kind(client, monkeypatch):
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    async with socket(client):
        answer = await client.get("/api/events/stream")
        assert answer.status_code == 503 and answer.headers["Retry-After"] == "5"
        stream, head, _ = await asked(client)
        await stream.aclose()
        assert head.startswith("HTTP/1.1 503 ")


async def test_pings_are_answered_and_sent_and_each_side_may_end_it(client, monkeypatch):
    monkeypatch.setattr(streams, "PING_S", 0.05)
    async with socket(client) as one:
        await one.stream.send_all(one.frames.send(Ping(b"are you there")))
        with trio.fail_after(10):
            while not one.pongs:
                assert await one.read()
            await one.stream.send_all(one.frames.send(CloseConnection(code=1000)))
            while await one.read():
                pass
        assert one.closed == 1000


@pytest.mark.parametrize(
    ("sent", "code"), [(lambda frames: frames.send(TextMessage("hello")), 1003), (lambda _: b"\xff" * 20, 1002)]
)
async def test_who_sends_what_is_not_taken_is_told_and_let_go_of(client, sent, code):
    async with socket(client) as one:
        await one.stream.send_all(sent(one.frames))
        with trio.fail_after(10):
            while await one.read():
                pass
        assert one.closed == code


async def test_a_daemon_that_leaves_says_so(engine, http_config, serving):
    with trio.fail_after(5):
        async with serving(engine, http_config) as client:
            stream, _, rest = await asked(client)
        async with stream:
            one = Follower(stream)
            await one.take(rest)
            while await one.read():
                pass
            assert one.closed == 1001
