"""The way out for HTTP: what a failure says of whether the request may have arrived. Real sockets on loopback."""

import base64
import gzip
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trio

from sixfbd.plugin import TemporaryFailure
from sixfbd.world import GATHERED, MAX_HEAD, READ_SIZE, SLICE, HttpOutbound, RealWorld


@contextmanager
def deaf():
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def hanging_up():
    """A port that reads the request and closes the connection without an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


async def failure_of(url: str) -> TemporaryFailure:
    async with RealWorld() as world:
        with pytest.raises(TemporaryFailure) as caught:
            await world.outbound("test").request("POST", url, content="x", timeout_s=1.0)
    return caught.value


async def test_a_handshake_that_hangs_sent_nothing():
    """A provider that cannot be reached for an hour must be tried for an hour, not given up after two lost answers."""
    with deaf() as port:
        assert not (await failure_of(f"https://127.0.0.1:{port}/")).sent


async def test_an_answer_that_does_not_come_leaves_open_whether_it_arrived():
    with deaf() as port:
        assert (await failure_of(f"http://127.0.0.1:{port}/")).sent


async def test_a_connection_that_breaks_after_the_request_leaves_it_open():
    with hanging_up() as port:
        assert (await failure_of(f"http://127.0.0.1:{port}/")).sent


async def test_a_refused_connection_sent_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert not (await failure_of(f"http://127.0.0.1:{port}/")).sent


async def test_a_url_that_is_none_sent_nothing():
    assert not (await failure_of("http://[::1")).sent


class Echo(BaseHTTPRequestHandler):
    """Answers, compressed, with the headers that it was sent."""

    def do_GET(self) -> None:
        body = gzip.compress(json.dumps(dict(self.headers.items())).encode())
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@contextmanager
def echoing():
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join(5)


async def test_the_authorities_are_read_for_the_first_exchange_and_not_by_the_loop():
    readers = []

    def reading() -> ssl.SSLContext:
        readers.append(threading.current_thread())
        return ssl.create_default_context()

    unused, outbound = (HttpOutbound(service, reading) for service in ("unused", "test"))
    with echoing() as port:
        await outbound.request("GET", f"http://127.0.0.1:{port}/")
        await outbound.request("GET", f"http://127.0.0.1:{port}/")
    for one in (unused, outbound):
        await one.close()
    assert len(readers) == 1
    assert readers[0] is not threading.current_thread()


async def test_headers_that_are_given_take_the_place_of_the_usual_ones():
    with echoing() as port:
        async with RealWorld() as world:
            outbound = world.outbound("test")
            usual = (await outbound.request("GET", f"http://127.0.0.1:{port}/")).json()
            own = (await outbound.request("GET", f"http://127.0.0.1:{port}/", headers={"user-agent": "shop/1"})).json()
    assert usual["User-Agent"].startswith("sixfbd/")
    assert {name.lower(): value for name, value in own.items()}["user-agent"] == "shop/1"
    assert len(own) == len(usual)


async def test_a_name_and_password_in_the_url_are_sent_as_basic_authorization():
    with echoing() as port:
        async with RealWorld() as world:
            answer = await world.outbound("test").request("GET", f"http://me:p%40ss@127.0.0.1:{port}/")
    assert answer.json()["Authorization"] == "Basic " + base64.b64encode(b"me:p@ss").decode()


async def test_the_head_and_the_body_of_a_request_leave_together():
    came: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for _ in range(2):
                    came.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        async with RealWorld() as world:
            outbound = world.outbound("test")
            for body in ("first", "second"):
                await outbound.request("POST", f"http://127.0.0.1:{listener.getsockname()[1]}/", content=body)
        thread.join(5)
    assert [piece.partition(b"\r\n\r\n")[2] for piece in came] == [b"first", b"second"]


async def test_a_request_that_is_larger_than_what_is_gathered_arrives_whole():
    came = bytearray()
    size = 5 * GATHERED
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while b"\r\n\r\n" not in came or len(came.partition(b"\r\n\r\n")[2]) < size:
                    came.extend(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        async with RealWorld() as world:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            assert (await world.outbound("test").request("POST", url, content=b"x" * size)).status_code == 204
        thread.join(5)
    assert came.partition(b"\r\n\r\n")[2] == b"x" * size


# ---- servers that mean harm ----------------------------------------------------------------------------------------------


class Others:
    """Whatever else the loop has to do: counts the turns that it gets."""

    def __init__(self) -> None:
        self.turns = 0

    async def run(self) -> None:
        while True:
            self.turns += 1
            await trio.lowlevel.checkpoint()


@contextmanager
def sending(answer: bytes, *, answers: int = 1) -> Iterator[int]:
    """A port that answers so many requests on one connection with these bytes, all of them at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the daemon may hang up first
                for _ in range(answers):
                    connection.recv(65536)
                    connection.sendall(answer)
                connection.recv(65536)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


OK = b"HTTP/1.1 200 OK\r\n"
INTERIM = b"HTTP/1.1 103 \r\n\r\n"


async def test_interim_answers_without_end_are_given_up_and_others_have_their_turn_between(nursery):
    others = Others()
    nursery.start_soon(others.run)
    with sending(INTERIM * 100_000) as port:
        async with RealWorld() as world:
            with pytest.raises(TemporaryFailure, match="interim answers included, are larger than 256KiB") as failure:
                await world.outbound("test").request("GET", f"http://127.0.0.1:{port}/", timeout_s=30)
    assert failure.value.sent
    assert others.turns >= MAX_HEAD // READ_SIZE, "no more than one read of interim answers in one go"


async def test_while_a_body_of_single_bytes_arrives_others_have_their_turn(nursery):
    pieces = 20_000
    others = Others()
    nursery.start_soon(others.run)
    with sending(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * pieces + b"0\r\n\r\n") as port:
        async with RealWorld() as world:
            answer = await world.outbound("test").request("GET", f"http://127.0.0.1:{port}/", timeout_s=30)
    assert answer.content == b"x" * pieces
    assert others.turns >= pieces // SLICE


async def test_headers_are_counted_for_each_exchange_anew_though_the_connection_is_kept():
    """Six answers with 60 KiB of headers each are no answer with 360 KiB of them."""
    with sending(OK + b"X: " + b"y" * 60 * 1024 + b"\r\nContent-Length: 2\r\n\r\nok", answers=6) as port:
        async with RealWorld() as world:
            for _ in range(6):
                answer = await world.outbound("test").request("GET", f"http://127.0.0.1:{port}/", timeout_s=5)
                assert answer.content == b"ok"


async def test_a_header_that_cannot_be_sent_is_not_shown():
    with deaf() as port:
        async with RealWorld() as world:
            with pytest.raises(TemporaryFailure, match="a header's value is not valid") as failure:
                await world.outbound("test").request(
                    "GET", f"http://127.0.0.1:{port}/", headers={"X-Token": "hunter2\n"}, timeout_s=5
                )
    assert "hunter2" not in str(failure.value)
