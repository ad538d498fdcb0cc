"""The client's end of the control socket, blocking, for command lines; imports neither trio nor the engine.

A client is one connection and one thread's. Every wait is bounded by `timeout_s`, but for the values of a stream.
"""

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from sixfbd.control.address import short_address
from sixfbd.control.protocol import BUSY, MAX_ANSWER_BYTES, STOPPING, TIMED_OUT, RpcError, request_line

QUEUE_POLL_S: Final = 0.02


class ControlError(Exception):
    """The daemon could not be asked: not running, not allowed, too slow, or gone in the middle."""


class NotRunningError(ControlError):
    """Nobody answers at the socket."""


class NotAllowedError(ControlError):
    """The socket's permissions keep this user out."""


class ConnectionLostError(ControlError):
    """The daemon ended the connection, or did not answer in time; what was asked may have happened all the same."""


class ControlClient:
    """A connection to the daemon at `path`. Use as a context manager. Raises the errors above; RpcError is its no."""

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        self.path = path
        self._timeout_s = timeout_s
        self._ids = itertools.count(1)
        self._socket = _connect(path, timeout_s)
        self._answers = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._answers.close()
        self._socket.close()

    def call(self, method: str, /, **params: Any) -> Any:
        """Return the result as decoded JSON. Parameters that are None are left out. Raises RpcError for an error."""
        call_id = self._ask(method, params)
        while True:
            answer = self._next_answer()
            if answer.get("id", call_id) == call_id and "method" not in answer:
                return _result(answer)

    def stream(self, method: str, /, **params: Any) -> Iterator[Any]:
        """Yield the values of a stream until it ends, waiting for each without a limit. Raises like `call`."""
        self._ask(method, params)
        self._socket.settimeout(None)
        while True:
            answer = self._next_answer()
            if answer.get("method") == "next":
                yield answer["params"]["value"]
            else:
                _result(answer)
                return

    def _ask(self, method: str, params: dict[str, Any]) -> int:
        call_id = next(self._ids)
        line = request_line(call_id, method, {name: value for name, value in params.items() if value is not None})
        try:
            self._socket.sendall(line)
        except BrokenPipeError:
            pass  # a daemon that turned us away has said why, and that is still to be read
        except OSError as error:
            raise ConnectionLostError(f"the connection to {self.path} broke: {error}") from None
        return call_id

    def _next_answer(self) -> dict[str, Any]:
        try:
            line = self._answers.readline(MAX_ANSWER_BYTES + 1)
        except TimeoutError:
            raise ConnectionLostError(
                f"no answer within {self._timeout_s:g} s; what was asked may still happen (--timeout waits longer)"
            ) from None
        except OSError as error:
            raise ConnectionLostError(f"the connection to {self.path} broke: {error}") from None
        if not line.endswith(b"\n"):
            raise ConnectionLostError(f"the daemon ended the connection to {self.path} before it answered")
        try:
            answer = msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise ConnectionLostError(f"what answers at {self.path} is not sixfbd: {error}") from None
        if not isinstance(answer, dict):
            raise ConnectionLostError(f"what answers at {self.path} is not sixfbd")
        return answer


def _connect(path: Path, timeout_s: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        with short_address(path) as address:
            _queue_up(sock, address, timeout_s)
    except BaseException as error:
        sock.close()
        if isinstance(error, FileNotFoundError | ConnectionRefusedError | NotADirectoryError):
            raise NotRunningError(_nobody(path)) from None
        if isinstance(error, PermissionError):
            raise NotAllowedError(
                f"no permission for {path}; join the socket's group, or use the daemon's user"
            ) from None
        if isinstance(error, BlockingIOError | TimeoutError):
            raise ConnectionLostError(
                f"too many wait for an answer at {path} already: the daemon is overrun, or hangs"
            ) from None
        if isinstance(error, OSError):
            raise NotRunningError(f"cannot connect to {path}: {error}") from None
        raise
    return sock


def _queue_up(sock: socket.socket, address: str, timeout_s: float) -> None:
    """Connect, waiting for a place in the listener's queue: a full one refuses at once (EAGAIN, connect(2))."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        try:
            sock.connect(address)
            return
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(QUEUE_POLL_S)


def _nobody(path: Path) -> str:
    with contextlib.suppress(OSError):
        if not path.is_socket() and path.exists():
            return f"{path} is no socket"
    return f"nobody answers at {path}"


def _result(answer: dict[str, Any]) -> Any:
    error = answer.get("error")
    if error is None:
        return answer.get("result")
    raise RpcError(error.get("code", 0), error.get("message", "no reason given"), error.get("data"))


def is_lost(error: RpcError) -> bool:
    """Return whether an error answer means that the question stays open, rather than no: too slow, turned away, stopping."""
    return error.code in (TIMED_OUT, BUSY, STOPPING)
