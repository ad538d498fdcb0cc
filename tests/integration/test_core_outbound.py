"""The way out for HTTP: what a failure says of whether the request may have arrived. Real sockets on loopback."""

import socket
import threading
from contextlib import contextmanager

import pytest

from sixfbd.plugin import TemporaryFailure
from sixfbd.world import RealWorld


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
            await world.outbound("test").request("POST", url, content="x", timeout_s=0.3)
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
