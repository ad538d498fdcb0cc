"""Where the control socket is: opening it safely, reaching it by paths longer than the kernel takes, and finding it.

Owns the file of the socket from `open_control_socket` to `close`. Blocking calls throughout: the daemon runs them in a
worker thread.
"""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

SOCKET_MODE: Final = 0o660
SYSTEM_SOCKET: Final = Path("/run/sixfbd/control.sock")
MAX_SUN_PATH: Final = 107  # bytes of sockaddr_un.sun_path without the closing NUL, unix(7)
PROBE_TIMEOUT_S: Final = 2.0


class ControlSocketError(Exception):
    """The control socket cannot be opened; the text says why and how to mend it."""


class ControlSocket:
    """A listening socket and its file. `close` removes the file if it is still ours."""

    def __init__(self, sock: socket.socket, path: Path) -> None:
        self.sock = sock
        self.path = path
        status = path.lstat()
        self._identity = (status.st_dev, status.st_ino)

    def close(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            status = self.path.lstat()
            if (status.st_dev, status.st_ino) == self._identity:
                self.path.unlink()
        self.sock.close()


def open_control_socket(path: Path) -> ControlSocket:
    """Return a socket that listens at `path` with mode 0660, replacing one that nobody answers on any more.

    Raises ControlSocketError when a daemon answers there, when a file that is no socket is in the way, or when the
    directory does not allow it. The mode is narrow from the first moment, whatever the umask.
    """
    try:
        _clear(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(sock.fileno(), 0o600)  # bind() gives the file the mode of the socket, less the umask
            with short_address(path) as address:
                sock.bind(address)
            path.chmod(SOCKET_MODE)
            sock.listen(64)
            return ControlSocket(sock, path)
        except BaseException:
            sock.close()
            raise
    except FileNotFoundError:
        raise ControlSocketError(
            f"{path}: the directory {path.parent} does not exist; make it, or set [control] socket"
        ) from None
    except PermissionError:
        raise ControlSocketError(
            f"{path}: no permission to make the control socket; give this user the directory {path.parent},"
            " or set [control] socket"
        ) from None
    except OSError as error:
        raise ControlSocketError(f"{path}: cannot make the control socket: {error.strerror or error}") from None


def _clear(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ControlSocketError(f"{path}: a file that is no socket is in the way; move it, or set [control] socket")
    if is_answered(path):
        raise ControlSocketError(f"{path}: another sixfbd answers there; stop it first (sixfbctl stop)")
    path.unlink(missing_ok=True)


def is_answered(path: Path) -> bool:
    """Return whether somebody listens at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            with short_address(path) as address:
                probe.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (TimeoutError, BlockingIOError):  # a full backlog: somebody owns it
            return True
    return True


@contextlib.contextmanager
def short_address(path: Path) -> Iterator[str]:
    """Yield an address of the socket at `path` that fits the kernel's limit, through the directory's descriptor."""
    if len(os.fsencode(path)) <= MAX_SUN_PATH:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def clone_root() -> Path | None:
    """Return the clone that this package is installed from, or None if it is installed otherwise."""
    root = Path(__file__).resolve().parent.parent.parent
    return root if (root / "run").is_file() and (root / "pyproject.toml").is_file() else None


def find_socket(environ: Mapping[str, str], given: str | None = None) -> Path:
    """Return where the daemon should answer: `given`, $SIXFBD_SOCKET, the clone's `.run`, then the system's.

    Of the last two the first that exists; neither: the clone's, so that a message can say how to start it.
    """
    named = given or environ.get("SIXFBD_SOCKET")
    if named:
        return Path(named).absolute()
    root = clone_root()
    places = [SYSTEM_SOCKET] if root is None else [root / ".run" / "control.sock", SYSTEM_SOCKET]
    return next((place for place in places if os.path.lexists(place)), places[0])


def how_to_start(path: Path) -> str:
    """Return the command that starts the daemon that belongs to this socket."""
    root = clone_root()
    if root is not None and path != SYSTEM_SOCKET:
        return f"{root}/run"
    return "systemctl start sixfbd"
