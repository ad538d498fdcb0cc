"""The socket's file: its mode, who may be replaced, what is in the way, and where it is looked for."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer

import pytest

from sixfbd.control import address
from sixfbd.control.address import (
    SYSTEM_SOCKET,
    ControlSocketError,
    find_socket,
    how_to_start,
    is_answered,
    open_control_socket,
    short_address,
)
from sixfbd.control.client import ConnectionLostError, ControlClient


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o027, 0o077])
def test_the_socket_is_for_owner_and_group_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "control.sock"
    with umask(mask):
        opened = open_control_socket(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    opened.close()
    assert not path.exists()


def test_a_socket_that_nobody_answers_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists() and not is_answered(path)
    opened = open_control_socket(path)
    assert is_answered(path)
    opened.close()


def test_a_socket_that_is_answered_is_left_alone_and_said(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first = open_control_socket(path)
    with pytest.raises(ControlSocketError, match="another sixfbd answers there"):
        open_control_socket(path)
    assert is_answered(path)
    first.close()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_left_alone_and_said(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "control.sock"
    if kind == "file":
        path.write_text("mine")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ControlSocketError, match="a file that is no socket is in the way"):
        open_control_socket(path)
    assert os.path.lexists(path)


def test_a_missing_directory_is_said_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ControlSocketError, match=r"the directory .*absent does not exist"):
        open_control_socket(tmp_path / "absent" / "control.sock")


def test_a_path_longer_than_the_kernel_takes_works_at_both_ends(tmp_path: Path) -> None:
    directory = tmp_path / ("deep" * 30)
    directory.mkdir()
    path = directory / "control.sock"
    assert len(os.fsencode(path)) > address.MAX_SUN_PATH
    opened = open_control_socket(path)
    assert path.is_socket() and is_answered(path)
    with socket.socket(socket.AF_UNIX) as client, short_address(path) as short:
        client.connect(short)
    opened.close()
    assert not path.exists()


def test_closing_removes_only_the_file_that_was_made(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    first = open_control_socket(path)
    path.rename(tmp_path / "moved")
    second = open_control_socket(path)
    first.close()
    assert is_answered(path)
    second.close()


def test_the_socket_that_was_named_comes_before_the_environments_and_that_before_the_places(tmp_path: Path) -> None:
    environ = {"SIXFBD_SOCKET": str(tmp_path / "environment")}
    assert find_socket(environ, str(tmp_path / "given")) == tmp_path / "given"
    assert find_socket(environ) == tmp_path / "environment"


def test_a_clones_own_socket_comes_before_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "clone_root", lambda: tmp_path)
    monkeypatch.setattr(address, "SYSTEM_SOCKET", tmp_path / "system")
    own = tmp_path / ".run" / "control.sock"
    assert find_socket({}) == own
    (tmp_path / "system").touch()
    assert find_socket({}) == tmp_path / "system"
    own.parent.mkdir()
    own.touch()
    assert find_socket({}) == own


def test_whoever_is_not_in_a_clone_asks_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "clone_root", lambda: None)
    assert find_socket({}) == SYSTEM_SOCKET
    assert how_to_start(SYSTEM_SOCKET) == "systemctl start sixfbd"


def test_a_clone_is_started_with_its_run_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(address, "clone_root", lambda: tmp_path)
    assert how_to_start(tmp_path / ".run" / "control.sock") == f"{tmp_path}/run"
    assert how_to_start(SYSTEM_SOCKET) == "systemctl start sixfbd"


def test_a_socket_whose_queue_is_full_is_answered_and_a_client_waits_for_its_place(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(path))
        listening.listen(0)
        waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
        waiting.connect(str(path))
        assert is_answered(path)
        with pytest.raises(ConnectionLostError, match="the daemon is overrun, or hangs"):
            ControlClient(path, timeout_s=0.1)
        timer = Timer(0.1, lambda: listening.accept()[0].close())
        timer.start()
        ControlClient(path, timeout_s=10).close()
        timer.join(10)
