"""What the bench itself listens with: webhooks that come in, targets that are probed or scraped, stamps of its plugin.

Each is one thread and cheap: its CPU is not measured, but it shares the machine with what is.
"""

import queue
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from tests.bench.passes import BenchError

TURN_S: Final = 0.2  # how soon a thread sees that it is to end
CLIENT_S: Final = 5.0  # a client that is slower than that is left alone
ANSWERED_S: Final = 60.0
OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
PAIR: Final = struct.Struct("<dd")
L = TypeVar("L", bound="_Loop")


class _Loop(threading.Thread):
    """A thread over a selector; `serve` is called with what is ready, until `close`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._selector = selectors.DefaultSelector()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(TURN_S):
                assert isinstance(key.fileobj, socket.socket)
                self.serve(key.fileobj)

    def serve(self, ready: socket.socket) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._ended.set()
        self.join(CLIENT_S)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()


class WebhookReceiver(_Loop):
    """Takes posts and says when the whole of each had come, with its body."""

    def __init__(self) -> None:
        super().__init__()
        self.came: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._rests: dict[socket.socket, bytes] = {}
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def serve(self, ready: socket.socket) -> None:
        if ready is self._listener:
            connection, _ = ready.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(CLIENT_S)
            self._rests[connection] = b""
            self._selector.register(connection, selectors.EVENT_READ)
            return
        try:
            piece = ready.recv(262_144)
            if piece:
                self._rests[ready] = self._take(ready, self._rests[ready] + piece)
        except OSError:
            piece = b""  # the sender has gone
        if not piece:
            self._selector.unregister(ready)
            del self._rests[ready]
            ready.close()

    def _take(self, connection: socket.socket, rest: bytes) -> bytes:
        """Answer what has come whole; return what has not."""
        while b"\r\n\r\n" in rest:
            head, _, after = rest.partition(b"\r\n\r\n")
            length = _content_length(head)
            if len(after) < length:
                break
            self.came.put((time.perf_counter(), after[:length]))
            rest = after[length:]
            connection.sendall(OK)
        return rest

    def next(self, limit_s: float, what: str) -> tuple[float, bytes]:
        """Return when the next post had come, and its body. Raises BenchError if none comes in time."""
        try:
            return self.came.get(timeout=max(0.0, limit_s))
        except queue.Empty:
            raise BenchError(f"{what}: no webhook came within {limit_s:.3g} s") from None


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise BenchError(f"a webhook without a length: {head!r}")


class Targets(_Loop):
    """Servers on many ports that answer whatever is asked with a page, and count."""

    def __init__(self, many: int, page: Callable[[], bytes]) -> None:
        super().__init__()
        self.answered = 0
        self._page = page
        self.addresses = []
        for _ in range(many):
            listener = socket.create_server(("127.0.0.1", 0), backlog=128)
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
            self.addresses.append(f"127.0.0.1:{listener.getsockname()[1]}")

    def wait_for(self, many: int) -> None:
        """Return when so many more requests were answered. Raises BenchError if that takes longer than ANSWERED_S."""
        begun, deadline = self.answered, time.monotonic() + ANSWERED_S
        while self.answered < begun + many:
            if time.monotonic() > deadline:
                raise BenchError(f"only {self.answered - begun} of {many} requests came within {ANSWERED_S:g} s")
            time.sleep(0.05)

    def serve(self, ready: socket.socket) -> None:
        connection, _ = ready.accept()
        with connection:
            connection.settimeout(CLIENT_S)
            try:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    asked += piece
                page = self._page()
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n%s" % (len(page), page)
                )
            except OSError:
                return  # the client has gone
            self.answered += 1


class Stamps(_Loop):
    """Datagrams of the bench's plugin, each some pairs of numbers; `port` is where they are sent."""

    def __init__(self) -> None:
        super().__init__()
        self.came: queue.SimpleQueue[list[tuple[float, float]]] = queue.SimpleQueue()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._selector.register(self._socket, selectors.EVENT_READ)
        self.port: int = self._socket.getsockname()[1]

    def serve(self, ready: socket.socket) -> None:
        self.came.put([(one, other) for one, other in PAIR.iter_unpack(ready.recv(65536))])

    def next(self, limit_s: float, what: str) -> list[tuple[float, float]]:
        """Return the pairs of the next datagram. Raises BenchError if none comes in time."""
        try:
            return self.came.get(timeout=max(0.0, limit_s))
        except queue.Empty:
            raise BenchError(f"{what}: the plugin in the daemon said nothing for {limit_s:.3g} s") from None

    def all(self) -> list[tuple[float, float]]:
        """Return all pairs that have come and were not yet taken."""
        found: list[tuple[float, float]] = []
        while not self.came.empty():
            found += self.came.get()
        return found


@contextmanager
def receiving() -> Iterator[WebhookReceiver]:
    with _running(WebhookReceiver()) as receiver:
        yield receiver


@contextmanager
def serving(many: int, page: Callable[[], bytes]) -> Iterator[Targets]:
    with _running(Targets(many, page)) as targets:
        yield targets


@contextmanager
def stamped() -> Iterator[Stamps]:
    with _running(Stamps()) as stamps:
        yield stamps


@contextmanager
def _running(loop: L) -> Iterator[L]:
    loop.start()
    try:
        yield loop
    finally:
        loop.close()
