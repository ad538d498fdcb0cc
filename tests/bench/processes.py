"""The daemon and its neighbours as processes of our own on loopback: started until they are ready, measured, ended."""

import compileall
import http.client
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

import psutil

from tests.bench.passes import BenchError

BIN: Final = Path(sys.executable).parent
ROOT: Final = Path(__file__).resolve().parents[2]
READY_S: Final = 60.0
POLL_S: Final = 0.005
END_S: Final = 15.0
ANSWER_S: Final = 20.0
CPUCLOCK_SCHED: Final = 2  # with it Linux makes a clock of a process id (clock_getcpuclockid(3)), which Python does not


class Running:
    """A process that answers; `ready_s` is how long that took, `ready_cpu_s` its CPU, `port` where it listens."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, ready_s: float) -> None:
        self.port = port
        self.ready_s = ready_s
        self._process = psutil.Process(process.pid)
        self.ready_cpu_s = self.cpu_s()

    def cpu_s(self) -> float:
        """CPU time so far of all threads, user and system, in seconds; to the nanosecond, where /proc has ticks."""
        return time.clock_gettime(~self._process.pid << 3 | CPUCLOCK_SCHED)

    def pss_bytes(self) -> int:
        """Memory, what it shares with other processes divided among them."""
        return int(self._process.memory_full_info().pss)

    def kill(self) -> None:
        """End it as a power loss would; leaving its context reaps it."""
        self._process.send_signal(signal.SIGKILL)

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        """A connection to it, kept alive."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_S)
        try:
            connection.connect()
            yield connection
        finally:
            connection.close()


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return the body of an answer 200. Raises BenchError for any other."""
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        said = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise BenchError(f"{method} {path}: no answer: {error!r}") from error
    if answer.status != 200:
        raise BenchError(f"{method} {path} answered {answer.status}: {said[:500]!r}")
    return said


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def need(name: str, package: str) -> str:
    """Return the path of a neighbour's binary. Raises BenchError that names its package."""
    found = shutil.which(name)
    if found is None:
        raise BenchError(f"{name} is missing: apt install {package}")
    return found


@contextmanager
def started(command: Sequence[str | Path], port: int, ready_path: str, log: Path) -> Iterator[Running]:
    """Start a process and wait until `ready_path` answers 200; end it afterwards. Raises BenchError."""
    began = time.perf_counter()
    with log.open("ab") as output:
        process = subprocess.Popen([str(part) for part in command], stdout=output, stderr=output)
    try:
        yield Running(process, port, _ready_s(process, port, ready_path, log, began))
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_S)


def _ready_s(process: "subprocess.Popen[bytes]", port: int, path: str, log: Path, began: float) -> float:
    while time.perf_counter() - began < READY_S:
        if process.poll() is not None:
            raise BenchError(f"{process.args!r} ended with {process.returncode}: {log.read_text()[-2000:]}")
        if _status(port, path) == 200:
            return time.perf_counter() - began
        time.sleep(POLL_S)
    raise BenchError(f"{process.args!r} is not ready within {READY_S:g} s: {log.read_text()[-2000:]}")


def _status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


# ---- sixfbd ------------------------------------------------------------------------------------------------------------


@cache
def _initial() -> tempfile.TemporaryDirectory[str]:
    """Return a directory with what `sixfbd init` makes in `run`; made once, for the life of this process.

    The sources are compiled first, as those of an installed daemon are: Python may have been told to write no bytecode.
    """
    for sources in ("sixfbd", "plugins"):
        compileall.compile_dir(ROOT / sources, quiet=1)
    directory = tempfile.TemporaryDirectory(prefix="sixfbd-bench-init-")
    subprocess.run([BIN / "sixfbd", "init", Path(directory.name, "run")], check=True, capture_output=True)
    return directory


def make_daemon(directory: Path, configuration: str, *, plugin: bool = True) -> None:
    """Make a run directory as `./run` makes it, with the bench's plugin and with `configuration` on top.

    Nothing counts as flapping, and notices have no budget: what the bench flips and sells is to be told each time.
    """
    shutil.copytree(Path(_initial().name, "run"), directory)
    (directory / "conf.d").mkdir(exist_ok=True)
    (directory / "conf.d" / "50-bench.toml").write_text(
        '[checks.self]\nenabled = false\n[flapping]\nwindow = "0s"\n[notices]\nmost = 0\n' + configuration
    )
    if plugin:
        shutil.copy(Path(__file__).with_name("plugin.py"), directory / "plugins.d" / "bench_plugin.py")


@contextmanager
def daemon(directory: Path) -> Iterator[Running]:
    """The daemon over a run directory."""
    port = free_port()
    (directory / "conf.d" / "60-port.toml").write_text(
        f'[http]\nlisten = "127.0.0.1:{port}"\nmax_event_rate = 1000000\n'
    )
    command: list[str | Path] = [BIN / "sixfbd", "run", "--config", directory / "sixfbd.toml"]
    with started(command, port, "/readyz", directory / "daemon.log") as running:
        yield running


def token_of(directory: Path) -> str:
    """Return the token that may post events."""
    return (directory / "tokens" / "events").read_text().strip()


# ---- its neighbours ----------------------------------------------------------------------------------------------------


@contextmanager
def alertmanager(directory: Path, webhook: str, *, resolved: bool = True) -> Iterator[Running]:
    """Alertmanager that waits for nothing and puts each alert into a group of its own."""
    port = free_port()
    directory.mkdir(exist_ok=True)
    (directory / "alertmanager.yml").write_text(
        "route: {receiver: hook, group_by: ['...'], group_wait: 0s, group_interval: 1s}\n"
        f"receivers: [{{name: hook, webhook_configs: [{{url: '{webhook}', send_resolved: {str(resolved).lower()}}}]}}]\n"
    )
    command = [
        need("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={directory / 'alertmanager.yml'}",
        f"--storage.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with started(command, port, "/-/ready", directory / "log") as running:
        yield running


@contextmanager
def blackbox(directory: Path) -> Iterator[Running]:
    """blackbox_exporter with one module, http_2xx."""
    port = free_port()
    directory.mkdir(exist_ok=True)
    (directory / "blackbox.yml").write_text(
        "modules: {http_2xx: {prober: http, timeout: 5s, http: {preferred_ip_protocol: ip4}}}\n"
    )
    command = [
        need("prometheus-blackbox-exporter", "prometheus-blackbox-exporter"),
        f"--config.file={directory / 'blackbox.yml'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with started(command, port, "/-/healthy", directory / "log") as running:
        yield running


@contextmanager
def prometheus(directory: Path, scrape_configs: str, further: str = "") -> Iterator[Running]:
    """Prometheus over the database in `directory`; `scrape_configs` is YAML in flow style, `further` further lines."""
    port = free_port()
    directory.mkdir(exist_ok=True)
    (directory / "prometheus.yml").write_text(f"scrape_configs: {scrape_configs}\n{further}")
    command = [
        need("prometheus", "prometheus"),
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with started(command, port, "/-/ready", directory / "log") as running:
        yield running


# ---- what a user would have without either ---------------------------------------------------------------------------


@contextmanager
def bare(directory: Path, *arguments: str) -> Iterator[Running]:
    """A process of tests/bench/bare.py."""
    port = free_port()
    directory.mkdir(exist_ok=True)
    command: list[str | Path] = [sys.executable, ROOT / "tests" / "bench" / "bare.py", str(port), *arguments]
    with started(command, port, "/ready", directory / "log") as running:
        yield running
