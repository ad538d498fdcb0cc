"""What systemd is told, over a real datagram socket that plays its part."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from sixfbd import systemd
from tests.listen_kit import passing


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    name = str(tmp_path / "notify") if request.param == "path" else f"\0sixfbd-test-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name)
        listener.settimeout(5)
        yield listener, {"NOTIFY_SOCKET": name.replace("\0", "@")}


Manager = tuple[socket.socket, dict[str, str]]


@pytest.mark.parametrize(
    ("tell", "datagram"),
    [
        (lambda environ: systemd.ready("3 checks", environ), b"READY=1\nSTATUS=3 checks"),
        (lambda environ: systemd.status("two\nlines", environ), b"STATUS=two lines"),
        (lambda environ: systemd.stopping(environ), b"STOPPING=1\nSTATUS=stopping"),
    ],
)
def test_each_message_is_one_datagram(
    manager: Manager, tell: Callable[[dict[str, str]], bool], datagram: bytes
) -> None:
    listener, environ = manager
    assert tell(environ) is True
    assert listener.recv(4096) == datagram


def test_without_systemd_nothing_is_said_and_nothing_fails() -> None:
    assert systemd.notify("READY=1", environ={}) is False


def test_a_manager_that_is_gone_disturbs_nobody(tmp_path: Path) -> None:
    assert systemd.notify("READY=1", environ={"NOTIFY_SOCKET": str(tmp_path / "gone")}) is False


@pytest.mark.parametrize(
    ("environ", "limit_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid() + 1)}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdogs_limit_is_taken_only_if_it_is_meant_for_us(
    environ: dict[str, str], limit_s: float | None
) -> None:
    assert systemd.watchdog_limit_s(environ) == limit_s


async def test_the_watchdog_is_fed_only_while_the_work_is_done(manager: Manager) -> None:
    listener, environ = manager
    works = True
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(systemd.keep_watchdog, lambda: works, {**environ, "WATCHDOG_USEC": "30000"})
            for _ in range(3):
                assert await trio.to_thread.run_sync(listener.recv, 4096) == b"WATCHDOG=1"
            works = False
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:  # what was sent before
                    listener.recv(4096)
            await trio.sleep(0.1)
            with pytest.raises(BlockingIOError):
                listener.recv(4096)
            nursery.cancel_scope.cancel()


async def test_without_a_watchdog_there_is_nothing_to_keep() -> None:
    with trio.fail_after(5):
        await systemd.keep_watchdog(lambda: True, {})


def test_a_listening_socket_is_left_in_place_of_the_one_before(manager: Manager) -> None:
    listener, environ = manager
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert systemd.keep_listener("http", server, environ) is True
        assert listener.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=http"
        text, [descriptor], *_ = socket.recv_fds(listener, 4096, 4)
        assert text == b"FDSTORE=1\nFDNAME=http"
        with socket.socket(fileno=descriptor) as kept:
            assert kept.getsockname() == server.getsockname()
    assert systemd.keep_listener("http", None, environ) is True
    assert listener.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=http"
    assert systemd.keep_listener("http", None, {}) is False


TAKES = """
import os, sys
from sixfbd import systemd
print({name: one.getsockname()[1] for name, one in systemd.take_listeners().items()})
print([key for key in os.environ if key.startswith("LISTEN_")], systemd.take_listeners())
"""


@pytest.mark.parametrize("pid", ["", "1"])
def test_sockets_that_were_left_are_taken_once_and_only_by_whom_they_are_for(pid: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, Path("/dev/null").open() as no_socket:
        mine, port = server.fileno(), server.getsockname()[1]
        descriptors, names = [mine, no_socket.fileno(), mine, mine], ["http", "odd", "http", "public"]
        start = passing(descriptors, names, sys.executable, "-c", TAKES, pid=pid)
        said = subprocess.run(**start, capture_output=True, text=True, timeout=30, check=True)
    assert said.stdout.splitlines() == [str({} if pid else {"http": port, "public": port}), "[] {}"]
