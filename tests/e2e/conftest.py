"""A real daemon as a user starts it, a receiver of its webhooks and a target that it probes; all on loopback."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from sixfbd.control.client import ControlClient, ControlError
from sixfbd.control.protocol import RpcError
from sixfbd_plugins.sandbox.control import ask

T = TypeVar("T")
BIN = Path(sys.executable).parent
START_LIMIT_S = 60.0
PASSING = (
    httpx.HTTPError, OSError, AssertionError, subprocess.SubprocessError, json.JSONDecodeError, ControlError, RpcError,
)  # fmt: skip
"""What a probe may meet while something is not yet so."""
FAKETIME = "faketime/libfaketimeMT.so.1"


def wait_for(what: str, probe: Callable[[], T], limit_s: float = 30.0, pause_s: float = 0.02) -> T:
    """Call `probe` until it returns something true, at most `limit_s`; its last exception is the failure's cause."""
    deadline = time.monotonic() + limit_s
    cause: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if found := probe():
                return found
        except PASSING as error:
            cause = error
        time.sleep(pause_s)
    raise AssertionError(f"{what}: not within {limit_s:g} s") from cause


class Daemon:
    """One run directory and the daemon that may be running in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "sixfbd.toml"
        self.socket = directory / "control.sock"
        self.log = directory / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._url: str | None = None
        subprocess.run([BIN / "sixfbd", "init", directory], check=True, capture_output=True)
        self.edit('listen = "127.0.0.1:9632"', 'listen = "127.0.0.1:0"')
        # Tests have the same fault come and go within minutes: it flaps, and its end would wait until it has settled. They
        # count the notices of what they sell.
        self.add("10-test.toml", '[checks.self]\nenabled = false\n[flapping]\nwindow = "0s"\n[notices]\nmost = 0\n')
        self.token = (directory / "tokens" / "events").read_text().strip()

    def edit(self, old: str, new: str) -> None:
        text = self.config.read_text()
        assert old in text, f"{old!r} is not in the configuration"
        self.config.write_text(text.replace(old, new))

    def add(self, name: str, text: str) -> None:
        """Add one file to conf.d."""
        folder = self.directory / "conf.d"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    def tell(self, url: str, more: str = "") -> None:
        """Have alerts posted to an address; `more` are further lines of the notifier."""
        hook = f'[notifiers.hook]\nplugin = "webhook"\nurl = "{url}"\n{more}\n'
        self.add("40-hook.toml", hook + '[receivers.primary]\nwebhook = { via = "hook" }\n')

    def probe(self, target: Any) -> None:
        """Have a target probed every second."""
        shop = f'[checks.shop]\nplugin = "webhook"\nurl = "{target.url}"\ninterval = "1s"\ntimeout = "900ms"\n'
        self.add("40-shop.toml", shop)

    def plugin(self, name: str, text: str) -> None:
        """Put one file into plugins.d."""
        folder = self.directory / "plugins.d"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text)

    def start(self, *, wait: bool = True, env: Mapping[str, str] | None = None) -> float:
        """Start the daemon; return the seconds until it was ready."""
        began = time.monotonic()
        self._url = None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [BIN / "sixfbd", "run", "--config", self.config],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "SIXFBD_SOCKET": str(self.socket), **(env or {})},
            )
        if wait:
            wait_for("the daemon is ready", self._ready, START_LIMIT_S)
        return time.monotonic() - began

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the daemon ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}")
        return bool(httpx.get(self.url + "/readyz", timeout=2).status_code == 200)

    @property
    def url(self) -> str:
        """Where the daemon answers since it was started or reloaded; asked once, for asking takes a process."""
        if self._url is None:
            self._url = str(self.ctl("status")["http"])
        return self._url

    def ctl(self, *args: str) -> Any:
        """Run sixfbctl with --json and return what it printed, decoded."""
        done = self.run_ctl(*args, "--json")
        assert done.returncode == 0, f"sixfbctl {' '.join(args)}: exit {done.returncode}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def ask(self, method: str, **params: Any) -> Any:
        """Return what the control socket answers; as `ctl`, without the process that costs."""
        with ControlClient(self.socket) as client:
            return client.call(method, **params)

    def run_ctl(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run sixfbctl as a person would."""
        if "reload" in args:
            self._url = None  # a reload may move it
        env = {**os.environ, "SIXFBD_SOCKET": str(self.socket)}
        return subprocess.run(
            [BIN / "sixfbctl", *args], capture_output=True, text=True, timeout=60, env=env, check=False
        )

    def sixfbd(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command of sixfbd that needs no daemon."""
        command = [BIN / "sixfbd", *args, "--config", self.config]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        self._url = None

    def sizes(self) -> tuple[int, int]:
        """Return its resident memory in bytes and how many descriptors it has open, as the kernel says."""
        assert self.process is not None
        proc = Path(f"/proc/{self.process.pid}")
        resident = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("VmRSS:"))
        return int(resident.split()[1]) * 1024, len(list((proc / "fd").iterdir()))

    def stop(self) -> float:
        """End the daemon in order; return the seconds that it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
            raise AssertionError(f"the daemon did not stop within 15 s:\n{self.log.read_text()[-4000:]}") from None
        return time.monotonic() - began


class Sandbox:
    """`sixfbd-sandbox` on a daemon's run directory."""

    def __init__(self, daemon: Daemon, http: str) -> None:
        self.daemon = daemon
        self.log = daemon.directory / "sandbox.log"
        self.process: subprocess.Popen[str] | None = None
        daemon.edit('listen = "127.0.0.1:0"', f'listen = "{http}"')
        done = self.run("init", "--port", "0")
        assert done.returncode == 0, done.stderr
        # Intervals are short, so that the test is.
        config = daemon.directory / "conf.d" / "50-sandbox.toml"
        text = config.read_text()
        assert 'interval = "15s"' in text
        config.write_text(
            text.replace('interval = "15s"', 'interval = "1s"').replace('interval = "10s"', 'interval = "1s"')
        )

    def start(self, beside: int | None = None) -> str:
        with self.log.open("a") as log:
            command = [BIN / "sixfbd-sandbox", "--run-dir", self.daemon.directory, "run"]
            more = [] if beside is None else ["--beside", str(beside)]
            self.process = subprocess.Popen(
                [*command, *more], stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        command = [BIN / "sixfbd-sandbox", "--run-dir", self.daemon.directory, *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def ask(self, *args: str) -> Any:
        done = self.run(*args, "--json")
        assert done.returncode == 0, done.stderr
        if args[0] == "inbox":
            return [json.loads(line) for line in done.stdout.splitlines()]
        return json.loads(done.stdout)

    def inbox(self, after: int = 0) -> list[dict[str, Any]]:
        """Return what the daemon has sent, and has arrived."""
        found = ask(self.daemon.directory / "sandbox.sock", "GET", f"/inbox?after={after}")
        return [
            one for one in found if one["by"] == "sixfbd" and (one["channel"] != "sms" or one["state"] == "delivered")
        ]

    def told(self, rule: str, status: str, after: int = 0) -> dict[tuple[str, str], float]:
        """Return, by (channel, to), when somebody was first told of a rule."""
        found: dict[tuple[str, str], float] = {}
        for one in self.inbox(after):
            if re.search(rf"\[{status}[^\]]*\] {rule} ", one["text"]):  # with a count, if of several
                found.setdefault((one["channel"], one["to"]), one["at"])
        return found


class QuietServer(ThreadingHTTPServer):
    """Threads that end with the test, and clients that may be killed in the middle of a request."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._open: set[Any] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for request in list(self._open):
            with suppress(OSError):  # its thread has just closed it
                request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Server:
    """An HTTP server that can be stopped and started again on its port, and that answers as `fault` says.

    `fault`: "" is none, "hangs" until it is another, "drips" an answer that takes seconds, "hangs up" without one;
    "loses the answer" is to take what was sent and then hang up.
    """

    path = "/"
    drip_s = 0.5

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.fault = ""
        self._handler = handler
        self.server = QuietServer(("127.0.0.1", 0), handler)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}{self.path}"

    def serve(self) -> None:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def start(self) -> None:
        self.server = QuietServer(("127.0.0.1", self.port), self._handler)
        self.serve()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Be stopped for as long as the block lasts."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def faulty(self, how: str) -> Iterator[None]:
        """Have this fault for as long as the block lasts."""
        self.fault = how
        try:
            yield
        finally:
            self.fault = ""

    def reply(self, handler: BaseHTTPRequestHandler, answer: Callable[[], tuple[int, bytes]]) -> None:
        """Have a request answered by what `answer` returns, or as the fault says."""
        fault = self.fault
        while self.fault == "hangs":
            time.sleep(0.02)
        status, body = (0, b"") if fault in ("hangs", "hangs up") else answer()
        if fault in ("hangs", "hangs up", "loses the answer"):
            handler.close_connection = True
            return
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if fault == "drips":
            for place in range(len(body)):
                time.sleep(self.drip_s)
                handler.wfile.write(body[place : place + 1])
        else:
            handler.wfile.write(body)


class Receiver(Server):
    """A webhook receiver: keeps what it got, in order; may fail on purpose."""

    path = "/hook"

    def __init__(self) -> None:
        self.got: list[tuple[float, dict[str, str], dict[str, Any], bytes]] = []
        self.answer: Callable[[int], int] = lambda _count: 200
        self._calls = 0
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {key.lower(): value for key, value in self.headers.items()}
                receiver.reply(self, lambda: (receiver.take(headers, body), b""))

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Tests read what was received, not a log."""

        super().__init__(Handler)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        with self._lock:
            self._calls += 1
            status = self.answer(self._calls)
            if status < 300:
                self.got.append((time.time(), headers, json.loads(body), body))
            return status

    def payloads(self) -> list[dict[str, Any]]:
        """Return every body received, in order."""
        with self._lock:
            return [payload for _, _, payload, _ in self.got]

    def alerts(self, **labels: str) -> list[tuple[float, dict[str, Any]]]:
        """Return (time received, alert) of every alert received whose labels equal these."""
        with self._lock:
            return [
                (at, alert)
                for at, _, payload, _ in self.got
                for alert in payload["alerts"]
                if labels.items() <= alert["labels"].items()
            ]


class Target(Server):
    """An HTTP server that is probed."""

    def __init__(self) -> None:
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target.reply(self, lambda: (200, b"fine\n"))

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Quiet."""

        super().__init__(Handler)


class WallClock:
    """The wall clock of the processes that are started with `env`; their monotonic clocks stay real."""

    def __init__(self, folder: Path) -> None:
        libraries = list(Path("/usr/lib").glob(f"*/{FAKETIME}"))
        assert libraries, f"{FAKETIME} is missing: apt-get install faketime"
        self._file = folder / "wall-clock"
        self.set(0)
        self.env = {
            "LD_PRELOAD": str(libraries[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, hours: float) -> None:
        """Set it this far from the real one."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours:+g}h\n")
        new.replace(self._file)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    made.serve()
    yield made
    made.stop()


@pytest.fixture
def target() -> Iterator[Target]:
    made = Target()
    made.serve()
    yield made
    made.stop()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "run")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.process.terminate()
        try:
            made.process.wait(15)
        except subprocess.TimeoutExpired:
            made.process.kill()
            made.process.wait(5)


@pytest.fixture
def wait() -> Callable[..., Any]:
    return wait_for


@pytest.fixture
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture
def wall(tmp_path: Path) -> WallClock:
    return WallClock(tmp_path)


@pytest.fixture
def mounted() -> Iterator[Callable[..., None]]:
    """Mount something for the length of the test."""
    points: list[Path] = []

    def mount(point: Path, *arguments: str) -> None:
        point.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", *arguments, point], capture_output=True, text=True, timeout=20, check=False)
        if done.returncode:
            pytest.fail(f"cannot mount ({done.stderr.strip()}): this test needs root, or CAP_SYS_ADMIN in a container")
        points.append(point)

    yield mount
    for point in reversed(points):
        if subprocess.run(["umount", point], capture_output=True, timeout=20, check=False).returncode:
            subprocess.run(["umount", "--lazy", point], capture_output=True, timeout=20, check=True)


@pytest.fixture
def sandbox(daemon: Daemon, free_port: Callable[[], int]) -> Iterator[Sandbox]:
    made = Sandbox(daemon, f"127.0.0.1:{free_port()}")
    yield made
    if made.process is not None:
        with suppress(ProcessLookupError):
            made.process.terminate()
        made.process.wait(15)
        assert made.process.stdout is not None
        made.process.stdout.close()
