"""A restart refuses nobody: the listening socket stays with systemd, here played by the test, and who connects waits."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import BIN, Daemon, wait_for
from tests.listen_kit import passing


class Manager:
    """As much of systemd as keeps descriptors: takes those that are left with it, and passes them to the next start."""

    def __init__(self, directory: Path) -> None:
        self.address = str(directory / "notify")
        self.inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.inbox.bind(self.address)
        self.inbox.setblocking(False)
        self.kept: dict[str, socket.socket] = {}

    def listen(self) -> None:
        """Take what was told since the last time."""
        while True:
            try:
                text, descriptors, *_ = socket.recv_fds(self.inbox, 4096, 4)
            except BlockingIOError:
                return
            said = dict(line.split("=", 1) for line in text.decode().splitlines())
            if "FDSTOREREMOVE" in said and said["FDNAME"] in self.kept:
                self.kept.pop(said["FDNAME"]).close()
            if "FDSTORE" in said:
                self.kept[said["FDNAME"]] = socket.socket(fileno=descriptors[0])

    def start(self, daemon: Daemon) -> None:
        """Start a daemon as a service is started; do not wait for it."""
        self.listen()
        mine = [one.fileno() for one in self.kept.values()]
        start = passing(mine, list(self.kept), BIN / "sixfbd", "run", "--config", daemon.config)
        told = {"SIXFBD_SOCKET": str(daemon.socket), "NOTIFY_SOCKET": self.address}
        with daemon.log.open("ab") as log:
            daemon.process = subprocess.Popen(
                **start, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **told}
            )


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    with ExitStack() as stack:
        stack.enter_context(made.inbox)
        yield made
        for one in made.kept.values():
            stack.enter_context(one)


def started(manager: Manager, daemon: Daemon) -> int:
    """Start the daemon, and return the port that it answers at."""
    manager.start(daemon)
    wait_for("the daemon is ready", lambda: httpx.get(f"{daemon.url}/readyz", timeout=5).status_code == 200)
    manager.listen()
    port = int(manager.kept["http"].getsockname()[1])
    assert daemon.url == f"http://127.0.0.1:{port}"
    return port


def test_who_connects_while_the_daemon_is_killed_and_started_again_is_answered(
    daemon: Daemon, manager: Manager
) -> None:
    port = started(manager, daemon)
    daemon.edit('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{port}"')
    daemon.kill()
    waiting = socket.create_connection(("127.0.0.1", port), timeout=30)
    with waiting:
        waiting.sendall(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        manager.start(daemon)
        assert waiting.recv(4096).startswith(b"HTTP/1.1 200")


def test_a_socket_of_another_address_is_given_up(daemon: Daemon, manager: Manager) -> None:
    before = started(manager, daemon)
    daemon.kill()
    after = started(manager, daemon)  # port 0: a free one, and never the one that was kept
    assert after != before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", before), timeout=5)
