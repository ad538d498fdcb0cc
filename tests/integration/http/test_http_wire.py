"""What hostile and careless clients put on the wire: every refusal says why in JSON, and none hurts another client."""

import json
import socket
from pathlib import Path

import httpx
import pytest
import trio

from sixfbd.http import server
from sixfbd.model import Event

HEAD = b"Host: localhost\r\nConnection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
WEBSOCKET = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
H2C = b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"


async def connected(client: httpx.AsyncClient) -> trio.SocketStream:
    return await trio.open_tcp_stream(client.base_url.host, client.base_url.port)


async def answer_to(client: httpx.AsyncClient, request: bytes) -> bytes:
    """Send bytes as they are and return all that comes back until the connection closes."""
    async with await connected(client) as stream:
        await stream.send_all(request)
        with trio.fail_after(10):
            return b"".join([piece async for piece in stream])


def read(answer: bytes) -> tuple[int, httpx.Headers, dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    pairs = [line.split(b": ", 1) for line in lines]
    return int(first.split()[1]), httpx.Headers([(name, value) for name, value in pairs]), json.loads(body)


async def get(client: httpx.AsyncClient, target: bytes, headers: bytes = HEAD) -> int:
    status, _, _ = read(await answer_to(client, b"GET " + target + b" HTTP/1.1\r\n" + headers + b"\r\n"))
    return status


# ---- refused below the app ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET\r\n\r\n", 400, "malformed"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400, "malformed"),
        (b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "malformed"),
        (b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n" + HEAD + b"\r\n", 400, "malformed"),
        (b"GET /readyz HTTP/1.1\r\n" + HEAD + b"X-A: a\x00b\r\n\r\n", 400, "malformed"),
        (b"GET /\xff HTTP/1.1\r\n" + HEAD + b"\r\n", 400, "malformed"),
        (
            b"POST /api/events HTTP/1.1\r\n" + HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            400,
            "malformed",
        ),
        (b"POST /api/events HTTP/1.1\r\n" + HEAD + b"Content-Length: -1\r\n\r\n", 400, "malformed"),
        (b"POST /api/v1/query HTTP/1.1\r\n" + HEAD + CHUNKED + b"\r\nzz\r\n\r\n", 400, "malformed"),
        (b"POST /api/v1/query HTTP/1.1\r\n" + HEAD + CHUNKED + b"\r\n-1\r\n\r\n", 400, "malformed"),
        (b"POST /api/v1/query HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
        (b"GET /readyz HTTP/1.1\r\n" + HEAD + b"X-Long: " + b"a" * 100_000, 431, "head_too_large"),
    ],
)
async def test_what_is_no_http_is_refused_in_the_form_of_every_error(client, request_bytes, status, code):
    found, headers, body = read(await answer_to(client, request_bytes))
    assert (found, body["success"], body["error"]["code"]) == (status, False, code)
    assert body["error"]["message"]
    assert (headers["Content-Type"], headers["Connection"]) == ("application/json", "close")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert (await client.get("/readyz")).status_code == 200


# ---- targets and hosts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://localhost/readyz", 200),
        (b"HTTP://LOCALHOST.:9632/api/events?limit=1", 200),
        (b"http://localhost", 200),
        (b"http://evil.example.com/readyz", 421),
        (b"http://localhost@evil.example.com/readyz", 421),
        (b"http://[x", 421),
        (b"http:///readyz", 400),
        (b"?", 400),
        (b"?a=b", 400),
        (b"*", 400),
        (b"localhost:80", 400),
        (b"readyz", 400),
        (b"//evil.example.com/readyz", 404),
        (b"//[x", 404),
        (b"/%00%0d%0aX:%20y", 404),
        (b"/%ff%fe", 404),
    ],
)
async def test_a_target_is_a_path_or_a_url_whose_host_is_judged_as_any_host_is(client, busy, target, status):
    answer = await answer_to(client, b"GET " + target + b" HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost..", 421),
        (b".", 421),
        (b"a" * 300, 421),
        (b"xn--", 421),
        (b"\xff\xfe", 421),
        (b"local host", 421),
        (b"localhost@evil.example.com", 421),
        (b"evil.example.com#localhost", 421),
        (b"localhost:\xb2", 421),
        (b"localhost, evil.example.com", 421),
        (b"[::1", 421),
        (b"[::ffff:127.0.0.1]", 421),
        (b"", 400),
        (b"[::1]:1", 200),
        (b"Localhost.:9632", 200),
    ],
)
async def test_a_host_that_is_no_name_is_refused_and_never_a_fault_of_ours(client, host, status):
    assert await get(client, b"/readyz", b"Connection: close\r\nHost: " + host + b"\r\n") == status


def test_a_port_of_digits_that_are_not_ascii_is_no_address():
    with pytest.raises(server.ListenError, match="is not an address"):
        server.bind_listener("127.0.0.1:\u00b2")


# ---- other protocols ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offer", [WEBSOCKET + KEY, WEBSOCKET, H2C, H2C.replace(b"AAMAAABkAAQAAP__", b"!!!!")])
async def test_an_offer_to_change_the_protocol_is_ignored(client, capsys, offer):
    request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n" + offer + b"\r\n"
    closing = b"GET /readyz HTTP/1.1\r\n" + HEAD + b"\r\n"
    answer = await answer_to(client, request + closing)
    assert answer.count(b"HTTP/1.1 200 ") == 2
    assert b"101" not in answer.split(b"\r\n")[0]
    assert "error" not in capsys.readouterr().out


async def test_http2_is_not_spoken(client):
    answer = await answer_to(client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    assert b"HTTP/1.1 400 " in answer


# ---- how a connection ends ------------------------------------------------------------------------------------------------


async def test_a_client_that_is_still_sending_reads_why_it_was_refused(client, shop):
    token = b"Authorization: " + shop["Authorization"].encode() + b"\r\n"
    head = b"POST /api/events HTTP/1.1\r\nHost: localhost\r\n" + token + b"Content-Length: 4000000\r\n\r\n"
    async with await connected(client) as stream:
        await stream.send_all(head)
        for _ in range(40):
            await stream.send_all(b" " * 100_000)
            await trio.sleep(0.002)
        with trio.fail_after(10):
            status, headers, body = read(b"".join([piece async for piece in stream]))
    assert (status, headers["Connection"], body["error"]["code"]) == (413, "close", "body_too_large")


async def test_a_client_that_sends_on_for_ever_after_its_refusal_is_cut_off(client, monkeypatch):
    monkeypatch.setattr("sixfbd.http.connection.LINGER_S", 0.1)
    async with await connected(client) as stream:
        await stream.send_all(b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n")
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
            while True:
                await stream.send_all(b" " * 1000)
                await trio.sleep(0.01)


async def test_requests_sent_in_one_go_are_answered_one_after_the_other(client):
    one = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 7\r\n\r\nquery=1"
    posted = b"POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\n" + form
    last = b"GET /readyz HTTP/1.1\r\n" + HEAD + b"\r\n"
    assert (await answer_to(client, one * 30 + posted + last)).count(b"HTTP/1.1 200 ") == 32


async def test_a_body_with_a_length_and_chunks_is_read_as_chunks_and_ends_the_connection(client):
    smuggled = b"GET /api/alerts HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n" + CHUNKED
    answer = await answer_to(client, head + b"\r\n0\r\n\r\n" + smuggled)
    assert answer.count(b"HTTP/1.1 ") == 1


# ---- how many there may be ------------------------------------------------------------------------------------------------


async def test_connections_are_limited_and_those_above_are_told_so(client, engine, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 3)
    silent = [await connected(client) for _ in range(3)]
    for stream in silent:  # each is known to the server when it has answered once
        await stream.send_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
    status, headers, body = read(await answer_to(client, b"GET /readyz HTTP/1.1\r\n" + HEAD + b"\r\n"))
    assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "too_many_connections", "1")
    assert engine.answered_requests[-1].status == 503
    for stream in silent:
        await stream.aclose()
    with trio.fail_after(10):
        while await get(client, b"/readyz") != 200:  # noqa: ASYNC110 - the server tells nobody when a place is free
            await trio.sleep(0.01)


async def test_a_client_that_leaves_frees_its_place_at_once(client):
    before = descriptors()
    for _ in range(5):
        async with await connected(client) as stream:
            await stream.send_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
    with trio.fail_after(server.SLOW_HEADERS_S / 2):
        while descriptors() > before:  # noqa: ASYNC110 - the server tells nobody when a place is free
            await trio.sleep(0.01)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_flood_of_connections_takes_no_more_descriptors_than_are_allowed(client, monkeypatch):
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 10)
    monkeypatch.setattr(server, "MAX_TURNED_AWAY", 10)
    address = (client.base_url.host, client.base_url.port)
    flood = [socket.create_connection(address, timeout=10) for _ in range(200)]
    ended = 0
    for one in flood[40:]:
        one.settimeout(10)
        while await trio.to_thread.run_sync(one.recv, 65536):
            pass
        ended += 1
    for one in flood:
        one.close()
    assert ended == 160
    with trio.fail_after(10):
        while await get(client, b"/readyz") != 200:  # noqa: ASYNC110 - the server tells nobody when a place is free
            await trio.sleep(0.01)


# ---- what an answer costs, and how long a connection may be idle -----------------------------------------------------------


async def test_head_and_body_of_an_answer_come_together(client):
    async with await connected(client) as stream:
        await stream.send_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with trio.fail_after(10):
            answer = await stream.receive_some(65536)
    assert answer.endswith(b'{"ready":true,"reason":""}')


async def test_a_client_that_asks_before_it_sends_its_body_is_told_to_go_on(client, engine, shop):
    head = b"POST /api/events HTTP/1.1\r\n" + HEAD + b"Authorization: " + shop["Authorization"].encode() + b"\r\n"
    form = b"Content-Type: application/json\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n"
    async with await connected(client) as stream:
        await stream.send_all(head + form)
        with trio.fail_after(10):
            assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 100 ")
            await stream.send_all(b'{"type":"a"}')
            answer = b"".join([piece async for piece in stream])
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [one.event.type for one in engine.events] == ["a"]


async def test_only_a_connection_without_a_request_is_ended_for_being_idle(engine, http_config, serving, monkeypatch):
    monkeypatch.setattr(server, "SLOW_HEADERS_S", 0.3)
    one = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with trio.fail_after(20):
        async with serving(engine, http_config) as client, await connected(client) as stream:
            for _ in range(6):  # each begins the time anew
                await stream.send_all(one)
                assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
                await trio.sleep(0.1)
            await stream.send_all(b"GET /api/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"text/event-stream" in await stream.receive_some(65536)
            await trio.sleep(0.6)
            await engine.put_events("token:shop", [Event("order-1", "a", 1.0, {})])
            assert b"order-1" in await stream.receive_some(65536)
        async with serving(engine, http_config) as client, await connected(client) as stream:
            await stream.send_all(one)
            assert (await stream.receive_some(65536)).startswith(b"HTTP/1.1 200 ")
            assert await stream.receive_some(65536) == b""


async def test_a_fault_past_the_forms_of_errors_is_a_bare_500_and_ends_its_connection_alone(client, engine, capsys):
    def broken(_answered: object) -> None:
        raise RuntimeError("counting fails")

    engine.answered, whole = broken, engine.answered
    answer = await client.get("/metrics")
    assert (answer.status_code, answer.content, answer.headers["Connection"]) == (500, b"", "close")
    assert "http.failed" in capsys.readouterr().out
    engine.answered = whole
    assert (await client.get("/metrics")).status_code == 200


async def test_requests_that_come_at_once_are_answered_one_after_the_other(client, engine):
    authorized = b"Host: localhost\r\nAuthorization: Bearer token-of-the-shop\r\n"
    bodies = [b'{"id":"%d","type":"sale"}' % number for number in range(3)]
    posts = [
        b"POST /api/events HTTP/1.1\r\n" + authorized + b"Content-Length: %d\r\n\r\n" % len(body) + body
        for body in bodies
    ]
    scrape = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    closing = b"GET /readyz HTTP/1.1\r\n" + HEAD + b"\r\n"
    answer = await answer_to(
        client, scrape + posts[0] + posts[1] + scrape + closing.replace(b"close", b"x") + posts[2] + closing
    )
    assert answer.count(b"HTTP/1.1 200 ") == 7
    assert [stored.event.id for stored in engine.events] == ["0", "1", "2"]


async def test_a_body_that_is_broken_off_by_what_is_no_http_is_answered_once(client, engine, shop):
    token = b"Authorization: " + shop["Authorization"].encode() + b"\r\n"
    request = b"POST /api/events HTTP/1.1\r\n" + HEAD + token + CHUNKED + b"\r\n3\r\n[{}\r\nzz\r\n"
    answer = await answer_to(client, request)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert read(answer)[2]["error"]["code"] == "malformed"
    assert not engine.events
