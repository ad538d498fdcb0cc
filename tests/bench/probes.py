"""(c) CPU of an HTTP probe on a new connection, 50 targets on loopback, once a second each.

Ours is the CPU of the whole daemon, which also stores and judges what it measured; beside it blackbox_exporter alone, and
with the Prometheus that drives it and stores. The targets count the probes. Once as one check of 50 targets, once as 50
checks.
"""

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.bench.passes import Row, Side, row, take_turns
from tests.bench.processes import BenchError, Running, blackbox, daemon, make_daemon, prometheus

TARGETS: Final = 50
ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nfine\n"
WARM_S: Final = 3.0


class Targets(threading.Thread):
    """Servers on many ports that answer whatever is asked, and count."""

    def __init__(self, many: int) -> None:
        super().__init__(daemon=True)
        self.answered = 0
        self._selector = selectors.DefaultSelector()
        self._listeners = [socket.create_server(("127.0.0.1", 0), backlog=128) for _ in range(many)]
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, selectors.EVENT_READ)
        self.addresses = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in self._listeners]
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select(0.2):
                with self._accepted(key.fileobj) as connection:
                    self._answer(connection)

    @contextmanager
    def _accepted(self, listener: object) -> Iterator[socket.socket]:
        assert isinstance(listener, socket.socket)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(5)
            yield connection

    def _answer(self, connection: socket.socket) -> None:
        try:
            asked = b""
            while b"\r\n\r\n" not in asked:
                piece = connection.recv(65536)
                if not piece:
                    return
                asked += piece
            connection.sendall(ANSWER)
        except OSError:
            return  # the prober has gone
        self.answered += 1

    def close(self) -> None:
        self._ended.set()
        self.join(5)
        self._selector.close()
        for listener in self._listeners:
            listener.close()


@contextmanager
def serving(many: int) -> Iterator[Targets]:
    targets = Targets(many)
    targets.start()
    try:
        yield targets
    finally:
        targets.close()


def one_check(targets: Targets) -> str:
    addresses = ", ".join(f'"http://{address}/"' for address in targets.addresses)
    return f'[checks.many]\nplugin = "webhook"\ntargets = [{addresses}]\ninterval = "1s"\ntimeout = "900ms"\n'


def many_checks(targets: Targets) -> str:
    return "".join(
        f'[checks.c{number}]\nplugin = "webhook"\nurl = "http://{address}/"\ninterval = "1s"\ntimeout = "900ms"\n'
        for number, address in enumerate(targets.addresses)
    )


def scrapes(targets: Targets, exporter: Running) -> str:
    addresses = ", ".join(f"'http://{address}/'" for address in targets.addresses)
    return (
        "[{job_name: probes, scrape_interval: 1s, scrape_timeout: 900ms, metrics_path: /probe, "
        f"params: {{module: [http_2xx]}}, static_configs: [{{targets: [{addresses}]}}], relabel_configs: ["
        "{source_labels: [__address__], target_label: __param_target}, "
        "{source_labels: [__param_target], target_label: instance}, "
        f"{{target_label: __address__, replacement: '127.0.0.1:{exporter.port}'}}]}}]"
    )


def measure(targets: Targets, servers: Mapping[str, Running], seconds: float) -> Mapping[str, float]:
    """Return the CPU per probe, in milliseconds, of each server and of all."""
    deadline = time.monotonic() + 60
    begun = targets.answered
    while targets.answered < begun + len(targets.addresses):
        if time.monotonic() > deadline:
            raise BenchError(f"only {targets.answered - begun} probes came within a minute")
        time.sleep(0.05)
    time.sleep(min(WARM_S, seconds))
    before = {name: server.cpu_s() for name, server in servers.items()}
    answered = targets.answered
    time.sleep(seconds)
    probes = targets.answered - answered
    if probes < 0.5 * seconds * len(targets.addresses):
        raise BenchError(f"{probes} probes in {seconds:g} s: the load is too high to measure")
    each = {name: 1000 * (server.cpu_s() - before[name]) / probes for name, server in servers.items()}
    return {**each, "all": sum(each.values())}


def daemon_side(directory: Path, targets: Targets, checks: Callable[[Targets], str], seconds: float) -> Side:
    make_daemon(directory, checks(targets))

    def run() -> Mapping[str, float]:
        with daemon(directory) as server:
            return measure(targets, {"sixfbd": server}, seconds)

    return run


def neighbour_side(directory: Path, targets: Targets, seconds: float) -> Side:
    directory.mkdir()

    def run() -> Mapping[str, float]:
        with ExitStack() as stack:
            exporter = stack.enter_context(blackbox(directory / "blackbox"))
            driver = stack.enter_context(prometheus(directory / "prometheus", scrapes(targets, exporter)))
            return measure(targets, {"blackbox": exporter, "prometheus": driver}, seconds)

    return run


def rows(directory: Path, passes: int, discard: int, seconds: float) -> Sequence[Row]:
    """Measure for `seconds` a pass and side."""
    with serving(TARGETS) as targets:
        measured = take_turns(
            {
                "one check": daemon_side(directory / "one", targets, one_check, seconds),
                "blackbox": neighbour_side(directory / "neighbours", targets, seconds),
                "many checks": daemon_side(directory / "many", targets, many_checks, seconds),
            },
            passes,
            discard,
        )
    renamed = {**measured, "blackbox + prometheus": measured["blackbox"]}
    return [
        row(f"(c) CPU a probe, {what}", "ms", renamed, "all", ours, theirs, metric)
        for ours, what in (("one check", f"1 check of {TARGETS}"), ("many checks", f"{TARGETS} checks"))
        for theirs, metric in (("blackbox", "blackbox"), ("blackbox + prometheus", "all"))
    ]
