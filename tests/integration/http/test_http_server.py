"""Listening, another table and another listener while it serves, and letting go of what was taken."""

import socket
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from msgspec.structs import replace

from sixfbd.http.server import HttpServer, ListenError, begin_listening, bind_listener, take_waiting
from sixfbd.model import Event
from sixfbd.quantities import Duration, Size


@pytest.mark.parametrize(
    "listen", ["", "localhost", "127.0.0.1:http", "127.0.0.1:-1", "127.0.0.1:70000", "::1:80:x", ":80"]
)
def test_an_address_that_is_none_is_named_with_its_mend(listen):
    with pytest.raises(ListenError) as error:
        bind_listener(listen)
    assert str(error.value) == f'[http] listen: {listen!r} is not an address; write "127.0.0.1:9632"'


def test_a_port_in_use_is_named_with_the_reason():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError, match=f"cannot listen on {listen}: Address already in use; choose another"):
            bind_listener(listen)


def test_a_host_that_is_not_ours_is_named_with_the_reason():
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.7:0: Cannot assign requested address"):
        bind_listener("192.0.2.7:0")


async def test_an_ipv6_address_is_listened_on(engine, http_config):
    async with served(engine, http_config, "[::1]:0") as server:
        assert server.url == f"http://[::1]:{server.listener.getsockname()[1]}"
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            assert (await client.get(f"{server.url}/readyz")).status_code == 200


@pytest.mark.parametrize(("listen", "here"), [("0.0.0.0:0", "127.0.0.1"), ("[::]:0", "[::1]")])
async def test_who_listens_on_all_addresses_is_reached_at_its_url(engine, http_config, listen, here):
    async with served(engine, http_config, listen) as server:
        assert server.url == f"http://{here}:{server.listener.getsockname()[1]}"
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            assert (await client.get(f"{server.url}/readyz")).status_code == 200


@asynccontextmanager
async def served(engine, config, listen="127.0.0.1:0"):
    """A server that serves until the block ends; what it was given last is closed then."""
    stop = trio.Event()
    with HttpServer(config, bind_listener(listen)) as server:
        begin_listening(server.listener)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve, engine, stop)
            try:
                yield server
            finally:
                stop.set()


def listening(listen, beside=None):
    bound = bind_listener(listen, beside)
    begin_listening(bound)
    return bound


async def happens(engine, name):
    await engine.put_events("test", [Event(name, name, 0.0)])


# ---- changes while it serves ---------------------------------------------------------------------------------------------


class Visitor:
    """Sends requests without a pause until told to leave, each on a new connection or all on one as long as it lasts.

    Goes where the server is when it connects; what is asked of an address that has just been left is asked again.
    """

    def __init__(self, server, keep):
        self.server = server
        self.keep = keep
        self.answered = 0
        self.connections = 0
        self.leaving = False

    async def run(self):
        while not self.leaving:
            url = self.server.url
            host, _, port = url.removeprefix("http://").rpartition(":")
            try:
                stream = await trio.open_tcp_stream(host, int(port))
            except OSError:
                assert self.server.url != url, f"{url} refused a connection"
                continue
            self.connections += 1
            async with stream:
                while await self.ask(stream, f"{host}:{port}") and not self.leaving:
                    pass

    async def ask(self, stream, host):
        """Ask once; tell whether the connection may be used again."""
        close = "" if self.keep else "Connection: close\r\n"
        await stream.send_all(f"GET /readyz HTTP/1.1\r\nHost: {host}\r\n{close}\r\n".encode())
        answer = b""
        while not answer.endswith(b'{"ready":true,"reason":""}'):
            piece = await stream.receive_some()
            assert piece, f"the connection ended within an answer: {answer}"
            answer += piece
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        self.answered += 1
        return b"connection: close" not in answer.lower()


@asynccontextmanager
async def visited(server):
    """Visitors of both kinds; the block ends when all have had their last answer."""
    visitors = [Visitor(server, keep) for keep in (True, True, False, False)]
    async with trio.open_nursery() as nursery:
        for visitor in visitors:
            nursery.start_soon(visitor.run)
        yield visitors
        for visitor in visitors:
            visitor.leaving = True


async def more_answers(visitors):
    before = [visitor.answered for visitor in visitors]
    while any(visitor.answered < had + 3 for visitor, had in zip(visitors, before, strict=True)):  # noqa: ASYNC110 - they only count
        await trio.sleep(0.005)


async def test_other_limits_are_taken_without_a_word_to_who_is_connected(engine, http_config):
    with trio.fail_after(30):
        async with served(engine, http_config) as server, visited(server) as visitors:
            for number in range(20):
                await more_answers(visitors)
                server.change(replace(http_config, max_body=Size(1000 + number)))
            await more_answers(visitors)
    assert [visitor.connections for visitor in visitors if visitor.keep] == [1, 1]


async def test_the_listener_moves_without_losing_a_request(engine, http_config):
    """To free ports, to all addresses of the port it has, and back."""
    with trio.fail_after(30):
        async with served(engine, http_config) as server, visited(server) as visitors:
            for number in range(20):
                await more_answers(visitors)
                port = server.listener.getsockname()[1]
                listen = ("127.0.0.1:0", f"0.0.0.0:{port}", f"127.0.0.1:{port}")[number % 3]
                moved = None if server.listens_on(listen) else listening(listen, server.listener)
                server.change(replace(http_config, listen=listen), moved)
                assert listen.endswith(":0") or server.listener.getsockname() == (listen.partition(":")[0], port)
            await more_answers(visitors)


class Followed:
    """A stream of events, read bit by bit."""

    def __init__(self, stream):
        self._stream = stream
        self._unread = b""

    async def until(self, wanted):
        """Read until something comes."""
        while wanted not in self._unread:
            piece = await self._stream.receive_some()
            assert piece, f"{wanted} did not come: {self._unread}"
            self._unread += piece
        self._unread = self._unread.partition(wanted)[2]


@asynccontextmanager
async def follow(server, after):
    """Open a stream of events."""
    async with await trio.open_tcp_stream(*server.listener.getsockname()) as stream:
        head = f"Host: localhost\r\nLast-Event-ID: {after}\r\n"
        await stream.send_all(f"GET /api/events/stream HTTP/1.1\r\n{head}\r\n".encode())
        followed = Followed(stream)
        await followed.until(b"retry: 2000")
        yield followed


async def test_streams_end_with_their_listener_and_with_nothing_else(engine, http_config):
    with trio.fail_after(30):
        async with served(engine, http_config) as server:
            async with follow(server, 0) as stream:
                left = server.listener.getsockname()
                server.change(replace(http_config, max_body=Size(1000)))
                await happens(engine, "first")
                await stream.until(b"first")
                server.change(http_config, listening("127.0.0.1:0"))
                await stream.until(b"0\r\n\r\n")  # the last chunk: the answer is whole
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(left, timeout=5)
            await happens(engine, "between")
            async with follow(server, 1) as stream:
                await stream.until(b"between")
                server.change(replace(http_config, max_body=Size(1000)))
                await happens(engine, "last")
                await stream.until(b"last")


async def test_limits_hosts_and_times_hold_from_the_next_request_on(engine, http_config, shop):
    async with (
        served(engine, http_config) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False, verify=False) as client,
    ):
        event = {"id": "1", "type": "note", "data": {"text": "x" * 2000}}
        assert (await client.post("/api/events", json=event, headers=shop)).status_code == 200
        assert (await client.get("/readyz", headers={"Host": "ops.example.com"})).status_code == 200
        server.change(replace(http_config, max_body=Size(1000), hosts=("other.example.com",)))
        assert (await client.post("/api/events", json=event, headers=shop)).status_code == 413
        assert (await client.get("/readyz", headers={"Host": "ops.example.com"})).status_code == 421
        assert (await client.get("/readyz", headers={"Host": "other.example.com"})).status_code == 200
        server.change(replace(http_config, request_timeout=Duration(0.05)))
        answer = await client.get("/api/v1/query", params={"query": "hang"})
        assert answer.status_code == 503 and "within 50ms" in answer.text


async def test_who_had_connected_to_a_listener_that_is_left_is_answered(engine, http_config):
    """Also when the connection has not been accepted yet."""
    async with served(engine, http_config) as server:
        address = server.listener.getsockname()
        waiting = [socket.create_connection(address, timeout=5) for _ in range(20)]
        server.change(http_config, listening("127.0.0.1:0"))
        for one in waiting:
            with one:
                one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = await trio.to_thread.run_sync(one.recv, 65536)
                assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer.lower()


async def test_a_change_before_it_serves_holds_when_it_does(engine, http_config):
    first = listening("127.0.0.1:0")
    with HttpServer(http_config, first) as server:
        server.change(replace(http_config, hosts=()), listening("127.0.0.1:0"))
        assert first.fileno() == -1
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            url = await nursery.start(server.serve, engine, stop)
            async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as client:
                assert (await client.get("/readyz", headers={"Host": "ops.example.com"})).status_code == 421
            stop.set()
        server.change(http_config, listening("127.0.0.1:0"))
        last = server.listener
    assert last.fileno() == -1, "what comes after the stop is closed as well"


def test_a_port_of_ours_may_be_bound_for_all_addresses_and_for_one_but_nobody_elses():
    with listening("127.0.0.1:0") as ours, listening("127.0.0.1:0") as others:
        with bind_listener(f"0.0.0.0:{ours.getsockname()[1]}", ours) as moved:
            begin_listening(moved)
        with pytest.raises(ListenError, match="Address already in use"):
            bind_listener(f"0.0.0.0:{others.getsockname()[1]}", ours)


def test_a_port_that_is_taken_between_bind_and_listen_is_named():
    with bind_listener("127.0.0.1:0") as bound, bind_listener(f"127.0.0.1:{bound.getsockname()[1]}") as other:
        begin_listening(other)
        with pytest.raises(
            ListenError, match=rf"listen on 127\.0\.0\.1:{bound.getsockname()[1]}: Address already in use"
        ):
            begin_listening(bound)


async def test_of_a_crowd_that_waits_many_are_accepted_at_once_and_none_waits_for_more():
    taken = []
    with bind_listener("127.0.0.1:0") as listener, ExitStack() as crowd:
        begin_listening(listener)
        listener.setblocking(False)
        for _ in range(50):
            crowd.enter_context(socket.create_connection(listener.getsockname(), 10))
        take_waiting(listener, taken.append, 32)
        assert len(taken) == 32, "the others have their turn"
        take_waiting(listener, taken.append, 32)
        assert len(taken) == 50
    for stream in taken:
        await stream.aclose()


# ---- what is given back --------------------------------------------------------------------------------------------------


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_serve_gives_back_every_descriptor(engine, http_config, serving):
    async def one_round() -> None:
        async with serving(engine, http_config) as client:
            await client.get("/readyz")

    await one_round()
    before = descriptors()
    for _ in range(3):
        await one_round()
    assert descriptors() == before
