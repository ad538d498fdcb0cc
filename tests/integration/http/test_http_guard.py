"""Who may come in: host names, tokens, proxies; limits; the form of every refusal."""

import gzip
from functools import partial

import httpx
import pytest
import trio
from msgspec.structs import replace

from sixfbd.http import server
from sixfbd.http.guard import allowed_hosts, check_host, is_direct, split_host
from sixfbd.quantities import Duration


async def raw(client: httpx.AsyncClient, request: bytes) -> bytes:
    """Send bytes as they are and return all that comes back until the connection closes."""
    stream = await trio.open_tcp_stream(client.base_url.host, client.base_url.port)
    async with stream:
        await stream.send_all(request)
        with trio.fail_after(10):
            return b"".join([piece async for piece in stream])


# ---- hosts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:9632", "ops.example.com", "ops.example.com.:443"]
)
async def test_loopback_names_and_configured_ones_are_answered_with_any_port(client, host):
    assert (await client.get("/readyz", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example.com", "evil.example.com:9632", "localhost.evil.example.com", "127.0.0.1.example.com", "[::2]"],
)
@pytest.mark.parametrize("path", ["/readyz", "/api/v1/query?query=up", "/nowhere", "/healthz"])
async def test_an_unknown_host_is_refused_on_every_path_in_the_paths_own_form(client, host, path):
    answer = await client.get(path, headers={"Host": host})
    assert answer.status_code == 421
    body = answer.json()
    assert host in (body["error"] if path.startswith("/api/v1/") else body["error"]["message"])


async def test_a_request_without_a_host_is_refused(client):
    answer = await raw(client, b"GET /readyz HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"bad_host"' in answer


def test_a_configured_host_with_a_port_is_that_port_only(http_config):
    allowed = allowed_hosts(replace(http_config, hosts=("ops.example.com:8443",)))
    check_host(["ops.example.com:8443"], allowed)
    with pytest.raises(Exception, match="not a name of this daemon"):
        check_host(["ops.example.com:80"], allowed)


@pytest.mark.parametrize("listen", ["0.0.0.0:9632", "[::]:9632"])
def test_a_wildcard_address_is_no_host_name(http_config, listen):
    with pytest.raises(Exception, match="not a name of this daemon"):
        check_host([listen], allowed_hosts(replace(http_config, listen=listen)))


@pytest.mark.parametrize(
    ("host", "parts"),
    [
        ("a:1", ("a", "1")),
        ("A.", ("a", "")),
        ("[::1]", ("[::1]", "")),
        ("[::1]:80", ("[::1]", "80")),
        ("a:b", ("a:b", "")),
    ],
)
def test_a_host_header_is_split_into_name_and_port(host, parts):
    assert split_host(host) == parts


# ---- tokens -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", ["Forwarded", "X-Forwarded-For", "x-forwarded-proto", "X-Forwarded-Anything", "Via", "X-Real-IP"]
)
async def test_a_read_through_a_proxy_needs_a_token_with_the_scope_read(client, header):
    proxied = {header: "for=192.0.2.7"}
    answer = await client.get("/api/alerts", headers=proxied)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_needed")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    wrong = await client.get("/api/alerts", headers=proxied | {"Authorization": "Bearer token-of-the-shop"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (403, "token_scope")
    right = await client.get("/api/alerts", headers=proxied | {"Authorization": "bearer token-of-grafana"})
    assert right.status_code == 200
    assert (await client.get("/healthz", headers=proxied)).status_code == 200


@pytest.mark.parametrize("authorization", ["", "Basic c2hvcDpzaG9w", "Bearer"])
async def test_a_write_without_a_bearer_token_is_refused_even_from_loopback(client, engine, authorization):
    answer = await client.post("/api/events", json={"type": "a"}, headers={"Authorization": authorization})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_needed")
    assert engine.events == []


async def test_an_unknown_token_is_refused_and_not_repeated(client, engine):
    answer = await client.post("/api/events", json={"type": "a"}, headers={"Authorization": "Bearer hunter2"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "token_unknown")
    assert "hunter2" not in answer.text
    assert engine.events == []


@pytest.mark.parametrize(
    ("client_address", "headers", "direct"),
    [
        ("127.0.0.1", [], True),
        ("127.9.9.9", [], True),
        ("::1", [], True),
        ("::ffff:127.0.0.1", [], True),
        (None, [], True),
        ("192.0.2.7", [], False),
        ("fe80::1%eth0", [], False),
        ("127.0.0.1", ["Accept", "Forwarded"], False),
        ("127.0.0.1", ["X-FORWARDED-HOST"], False),
    ],
)
def test_only_a_loopback_peer_without_a_proxys_headers_is_direct(client_address, headers, direct):
    assert is_direct(client_address, headers) is direct


async def test_a_client_cannot_pass_for_a_loopback_peer_by_a_header(client):
    answer = await client.get("/api/alerts", headers={"Remote-Addr": "127.0.0.1", "X-Forwarded-For": "192.0.2.7"})
    assert answer.status_code == 401


# ---- limits -----------------------------------------------------------------------------------------------------------


async def test_a_body_over_the_limit_is_refused_whether_announced_or_chunked(client, engine, shop):
    announced = await client.post("/api/events", content=b" " * 70_000, headers=shop)
    assert (announced.status_code, announced.json()["error"]["code"]) == (413, "body_too_large")
    assert announced.headers["Connection"] == "close"

    async def chunks():
        for _ in range(70):
            yield b" " * 1000

    chunked = await client.post("/api/events", content=chunks(), headers=shop)
    assert (chunked.status_code, chunked.json()["error"]["code"]) == (413, "body_too_large")
    assert (await client.get("/readyz")).status_code == 200
    assert engine.events == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, identity", "x" * 500])
async def test_a_body_that_is_encoded_is_refused_with_the_mend(client, engine, shop, encoding):
    headers = shop | {"Content-Encoding": encoding}
    answer = await client.post("/api/events", content=gzip.compress(b'{"type": "a"}'), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
    assert "without Content-Encoding" in answer.json()["error"]["message"]
    assert (await client.post("/api/v1/query", data={"query": "1"}, headers=headers)).status_code == 415
    assert engine.events == []
    plain = shop | {"Content-Encoding": "identity"}
    assert (await client.post("/api/events", json={"type": "a"}, headers=plain)).status_code == 200


async def test_a_body_that_does_not_come_is_given_up_with_408(client):
    head = b"POST /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer token-of-the-shop\r\nContent-Length: 10\r\n\r\n{"
    answer = await raw(client, head)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"body_too_slow"' in answer


async def test_headers_over_the_limit_are_refused_whether_they_come_at_once_or_in_pieces(client):
    head = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Long: " + b"a" * 20_000
    assert (await raw(client, head + b"\r\n\r\n")).startswith(b"HTTP/1.1 431 ")
    assert (await raw(client, head)).startswith(b"HTTP/1.1 431 ")


async def test_a_connection_ends_when_asked_to_and_when_nothing_comes_for_a_while(
    engine, http_config, serving, monkeypatch
):
    monkeypatch.setattr(server, "SLOW_HEADERS_S", 0.2)
    async with serving(engine, http_config) as client:
        asked = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        for request in (asked, asked.replace(b"Connection: close\r\n", b"")):
            assert (await raw(client, request)).startswith(b"HTTP/1.1 200 ")
        assert await raw(client, b"GET /readyz HT") == b""
        assert await raw(client, b"") == b""


async def test_an_answer_that_takes_too_long_is_given_up_with_503(client):
    answer = await client.get("/api/v1/query", params={"query": "hang"})
    assert (answer.status_code, answer.json()["errorType"]) == (503, "timeout")


# ---- errors -----------------------------------------------------------------------------------------------------------


async def test_an_unknown_path_is_404_in_the_form_of_its_place(client):
    house = await client.get("/nowhere")
    assert (house.status_code, house.json()["success"], house.json()["error"]["code"]) == (404, False, "not_found")
    prometheus = await client.get("/api/v1/nowhere")
    assert (prometheus.status_code, prometheus.json()["status"], prometheus.json()["errorType"]) == (
        404,
        "error",
        "not_found",
    )


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/api/events", {"GET", "HEAD", "POST"}),
        ("POST", "/metrics", {"GET", "HEAD"}),
        ("OPTIONS", "/api/alerts", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_a_path_does_not_take_is_405_and_allow_names_those_it_does(client, method, path, allow):
    answer = await client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert set(answer.headers["Allow"].replace(" ", "").split(",")) == allow


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/metrics", "/api/alerts", "/api/events", "/openapi.json", "/", "/api/events/stream", "/api/stream"],
)
async def test_head_has_the_headers_of_get_and_no_body(client, path):
    answer = await client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Content-Type"]


async def test_a_fault_of_ours_is_a_plain_500_that_tells_nothing_and_the_next_request_is_answered(client, capsys):
    answer = await client.get("/api/v1/query", params={"query": "explode"})
    assert (answer.status_code, answer.json()["errorType"]) == (500, "internal")
    assert "hunter2" not in answer.text
    assert (await client.get("/readyz")).status_code == 200
    assert "http.failed" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["/", "/api/alerts", "/nowhere", "/metrics", "/static/page.css"])
async def test_every_answer_carries_the_security_headers_and_no_server_header(client, path):
    headers = (await client.get(path)).headers
    assert headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    assert "Server" not in headers


async def test_every_request_is_counted_by_its_route_and_not_by_its_path(client, engine):
    for path in ("/api/v1/label/a/values", "/api/v1/label/b/values", "/nowhere"):
        await client.get(path)
    counted = [(one.method, one.route, one.status) for one in engine.answered_requests]
    assert counted == [
        ("GET", "/api/v1/label/<name>/values", 200),
        ("GET", "/api/v1/label/<name>/values", 200),
        ("GET", "", 404),
    ]
    assert all(one.duration_s >= 0 for one in engine.answered_requests)


async def test_rubbish_on_the_wire_ends_its_own_connection_only(client):
    for rubbish in (
        b"\x16\x03\x01\x02\x00\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00",
    ):
        stream = await trio.open_tcp_stream(client.base_url.host, client.base_url.port)
        async with stream:
            await stream.send_all(rubbish)
            with trio.move_on_after(0.2):
                await stream.receive_some()
    assert (await client.get("/readyz")).status_code == 200


async def test_many_requests_at_once_are_all_answered(client):
    statuses = []

    async def ask(path: str) -> None:
        statuses.append((await client.get(path)).status_code)

    async with trio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(partial(ask, "/api/alerts" if number % 2 else "/metrics"))
    assert statuses == [200] * 40


async def test_a_client_that_leaves_in_the_middle_costs_nobody_else_anything(engine, http_config, serving):
    async with serving(engine, replace(http_config, request_timeout=Duration(30))) as client:
        with trio.move_on_after(0.1):
            await client.get("/api/v1/query", params={"query": "hang"})
        assert (await client.get("/readyz")).status_code == 200
