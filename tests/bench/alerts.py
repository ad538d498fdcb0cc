"""(a) An event over HTTP until its webhook is received, beside Alertmanager: an alert over HTTP until its webhook is.

Ours is on the disk before it is answered, and its decision before it is sent; Alertmanager's is in memory. Ours twice: as
an event that carries a notice, and as one that sets a series which a rule reads, which fires and resolves by turns.
"""

import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from tests.bench.passes import Row, Side, percentile, row, take_turns
from tests.bench.processes import BenchError, Running, alertmanager, daemon, make_daemon, token_of

PAUSE_S: Final = 0.07  # between two: a rule is judged at most every 50 ms, and this is about one alert, not many
ANSWER_S: Final = 10.0

PLUGIN: Final = '''
"""Events of the bench: one that is told as a notice, one that sets a series."""

import msgspec
from sixfbd.plugin import EventType, Gauge, hookimpl

FAULT = Gauge("bench_fault", "1 while there is a fault.")


class Number(msgspec.Struct, frozen=True):
    value: int


@hookimpl
def sixfbd_events(config):
    return (
        EventType("bench_notice", Number, notice="bench"),
        EventType("bench_fault", Number, sets=lambda fault: [FAULT(fault.value)], metrics=(FAULT,)),
    )
'''

CONFIGURATION: Final = """
[notifiers.hook]
plugin = "webhook"
url = "{url}"

[receivers.bench]
webhook = {{ via = "hook" }}

[route]
receiver = "bench"
routes = [
    {{ matchers = ['alertname="BenchFault"'], receiver = "bench" }},
    {{ matchers = ['notice="bench"'], receiver = "bench" }},
    {{ matchers = ['alertname!=""'], receiver = "primary" }},
]

[[rules]]
name = "BenchFault"
expr = "bench_fault > 0"
severity = "critical"
"""


class WebhookReceiver(threading.Thread):
    """Takes posts on a raw socket and says when the whole of each had come."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.came: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        rest = b""
        with connection:
            while True:
                while b"\r\n\r\n" not in rest:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    rest += piece
                head, _, rest = rest.partition(b"\r\n\r\n")
                length = _content_length(head)
                while len(rest) < length:
                    rest += connection.recv(65536)
                self.came.put(time.perf_counter())
                rest = rest[length:]
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise BenchError(f"a webhook without a length: {head!r}")


@contextmanager
def receiving() -> Iterator[WebhookReceiver]:
    receiver = WebhookReceiver()
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.close()


def side(
    server: Running,
    receiver: WebhookReceiver,
    path: str,
    headers: Mapping[str, str],
    body: Callable[[int], object],
    many: int,
) -> Side:
    """Return a side that posts `many` bodies one after the other, each until its webhook has come."""
    numbers = count(1)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_S)

    def one(number: int) -> float:
        text = json.dumps(body(number))
        began = time.perf_counter()
        connection.request("POST", path, text, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise BenchError(f"{path} answered {answer.status}: {said[:500]!r}")
        try:
            return receiver.came.get(timeout=ANSWER_S) - began
        except queue.Empty:
            raise BenchError(f"no webhook came for {text} within {ANSWER_S:g} s") from None

    def measure() -> Mapping[str, float]:
        connection.connect()  # anew in each pass: while the other sides have their turn a server hangs up
        cpu_s, taken = server.cpu_s(), []
        for _ in range(many):
            taken.append(1000 * one(next(numbers)))
            time.sleep(PAUSE_S)
        connection.close()
        if not receiver.came.empty():
            raise BenchError(f"{path}: more webhooks than posts")
        return {
            "p50": percentile(taken, 0.5),
            "p99": percentile(taken, 0.99),
            "cpu": 1000 * (server.cpu_s() - cpu_s) / many,
        }

    return measure


def rows(directory: Path, passes: int, discard: int, many: int) -> Sequence[Row]:
    """Measure; `many` alerts a pass and side."""
    with receiving() as ours, receiving() as theirs:
        run = directory / "run"
        make_daemon(run, CONFIGURATION.format(url=ours.url))
        (run / "plugins.d").mkdir(exist_ok=True)
        (run / "plugins.d" / "bench_events.py").write_text(PLUGIN)
        with daemon(run) as sixfbd, alertmanager(directory / "alertmanager", theirs.url) as neighbour:
            headers = {"Authorization": f"Bearer {token_of(run)}"}

            def notice(number: int) -> object:
                return {"id": f"n{number}", "type": "bench_notice", "data": {"value": number}}

            def fault(number: int) -> object:
                return {"id": f"f{number}", "type": "bench_fault", "data": {"value": number % 2}}

            def alert(number: int) -> object:
                return [{"labels": {"alertname": "BenchFault", "id": str(number)}}]

            measured = take_turns(
                {
                    "notice": side(sixfbd, ours, "/api/events", headers, notice, many),
                    "alertmanager": side(neighbour, theirs, "/api/v2/alerts", {}, alert, many),
                    "rule": side(sixfbd, ours, "/api/events", headers, fault, many),
                },
                passes,
                discard,
            )
    return [
        row(f"(a) {what}, {name}", "ms", measured, metric, ours_, "alertmanager")
        for ours_, what in (("notice", "event → notice → webhook"), ("rule", "event → rule → webhook"))
        for metric, name in (("p50", "p50"), ("p99", "p99"), ("cpu", "CPU each"))
    ]
