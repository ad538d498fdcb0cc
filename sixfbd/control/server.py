"""The daemon's end of the control socket: takes lines in, calls methods, sends lines out.

Owns its connections and bounds them: how many at once, how long a half line, a silence, a call and an unread answer may
last. What a client does harms at most its own connection; what a method raises becomes an error answer and a log line.
"""

import contextlib
import pwd
import select
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path
from typing import Final, Protocol, TypeAlias

import msgspec
import structlog
import trio
from msgspec import UNSET, Struct

from sixfbd.config.text import did_you_mean
from sixfbd.control.address import ControlSocket, ControlSocketError, open_control_socket
from sixfbd.control.methods import Method
from sixfbd.control.params import parse_params
from sixfbd.control.protocol import (
    BUSY,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    MAX_REQUEST_BYTES,
    METHOD_NOT_FOUND,
    STOPPING,
    TIMED_OUT,
    Request,
    RpcError,
    error_line,
    next_line,
    parse_request,
    result_line,
)
from sixfbd.model import Actor

__all__ = ["ControlSocketError", "Limits", "serve_control"]

log = structlog.get_logger("sixfbd.control")

PIPELINED: Final = 16  # lines read ahead of the one that is answered; a client that sends more waits
HANG_UP_POLL_S: Final = 0.5
_UCRED: Final = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED


class Clock(Protocol):
    def now(self) -> float: ...


class Limits(Struct, frozen=True):
    """Bounds of the server; times in seconds. `drain_s`: how long calls may end after the stop. `spare_s`: a connection
    that has asked nothing for so long makes room for another when all are taken."""

    connections: int = 32
    half_line_s: float = 10.0
    idle_s: float = 300.0
    send_s: float = 15.0
    drain_s: float = 5.0
    spare_s: float = 1.0


async def serve_control(
    path: Path,
    methods: Mapping[str, Method],
    *,
    clock: Clock,
    stop: trio.Event,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer at `path` until `stop`, then let running calls end, end streams and remove the socket.

    Ready (`task_status`, with the path) when a client can connect. Raises ControlSocketError if it cannot listen.
    """
    opened = await trio.to_thread.run_sync(open_control_socket, path)
    try:
        await _Server(methods, clock, limits).serve(opened, stop, task_status)
    finally:
        opened.close()


class _Server:
    def __init__(self, methods: Mapping[str, Method], clock: Clock, limits: Limits) -> None:
        self.methods = methods
        self.clock = clock
        self.limits = limits
        self._connections: set[_Connection] = set()
        self._users: dict[int, str] = {}

    async def serve(self, opened: ControlSocket, stop: trio.Event, task_status: trio.TaskStatus[Path]) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(opened.sock))
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(self._accept, listener, connections)
                task_status.started(opened.path)
                await stop.wait()
                accepting.cancel_scope.cancel()
            for connection in tuple(self._connections):
                connection.drain()
            connections.cancel_scope.deadline = trio.current_time() + self.limits.drain_s

    async def _accept(self, listener: trio.SocketListener, connections: trio.Nursery) -> None:
        await trio.serve_listeners(self._serve_one, [listener], handler_nursery=connections)

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        async with stream:
            if len(self._connections) >= self.limits.connections and not self._make_room():
                await self._turn_away(stream)
                return
            connection = _Connection(self, stream)
            self._connections.add(connection)
            try:
                await connection.serve(await self._peer(stream))
            except* (_ClientGone, trio.BrokenResourceError):
                log.debug("control.hung_up")
            except* Exception as group:  # whatever it is, it ends here: one connection, not the daemon
                log.error("control.connection_failed", exc_info=group)
            finally:
                self._connections.discard(connection)

    def _make_room(self) -> bool:
        """End the connection that has been silent for longest, if one has been for long enough."""
        spare = [one for one in self._connections if one.idle_s() >= self.limits.spare_s]
        if not spare:
            return False
        longest = max(spare, key=_Connection.idle_s)
        self._connections.discard(longest)
        longest.end("nothing was asked here for longest and others wait: this makes room for them; connect again")
        return True

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        refusal = RpcError(BUSY, f"{self.limits.connections} connections are open already; close one or try again")
        with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(1):
            await stream.send_all(error_line(None, refusal))

    async def _peer(self, stream: trio.SocketStream) -> Actor:
        credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, _ = _UCRED.unpack(credentials)
        if uid not in self._users:  # a name service may be slow, and may be a network away
            self._users[uid] = await trio.to_thread.run_sync(_user_name, uid)
        return Actor(f"uid:{uid} {self._users[uid]}".rstrip())


class _ClientGone(Exception):  # noqa: N818 - the end of a connection, not a fault
    """The client reads no more: it hung up, or is too slow."""


_END: Final = object()
_Incoming: TypeAlias = bytes | RpcError


class _Connection:
    """One client: a reader task splits lines, the other answers them in order."""

    def __init__(self, server: _Server, stream: trio.SocketStream) -> None:
        self._server = server
        self._stream = stream
        self._limits = server.limits
        self._busy = False
        self._answered_at = trio.current_time()
        self._draining = False
        self._streams_end = False
        self._last_word = ""
        self._gone = False
        self._reading = trio.CancelScope()
        self._streaming = trio.CancelScope()
        self._asking = trio.CancelScope()

    def idle_s(self) -> float:
        """Return for how long there has been nothing to do here."""
        return 0.0 if self._busy else trio.current_time() - self._answered_at

    def end(self, why: str) -> None:
        """Take no further line; say why and end."""
        self._last_word = why
        self._reading.cancel()

    def drain(self) -> None:
        """End the stream in progress and take no further line; a call in progress ends by itself."""
        self._draining = True
        self._end_streams()
        self._reading.cancel()

    async def serve(self, actor: Actor) -> None:
        """Return when the client is gone, has been idle for too long, sent too much, or the server drains."""
        lines, incoming = trio.open_memory_channel[_Incoming](PIPELINED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, lines)
            async with incoming:
                async for line in incoming:
                    if isinstance(line, RpcError):
                        await self._send(error_line(None, line))
                        break
                    await self._answer(line, actor)
                    if self._draining:
                        break
            if self._last_word:
                await self._send(error_line(None, RpcError(BUSY, self._last_word)))
            nursery.cancel_scope.cancel()

    # ---- in --------------------------------------------------------------------------------------------------------

    async def _read(self, lines: trio.MemorySendChannel[_Incoming]) -> None:
        with self._reading:
            async with lines:
                await self._split(lines)
            await self._hung_up()
            self._gone = True
            self._asking.cancel()
            self._end_streams()

    def _end_streams(self) -> None:
        self._streams_end = True
        self._streaming.cancel()

    async def _split(self, lines: trio.MemorySendChannel[_Incoming]) -> None:
        buffer = bytearray()
        while True:
            try:
                chunk = await self._receive(bool(buffer))
            except RpcError as error:
                await lines.send(error)
                return
            if not chunk:
                if buffer.strip():
                    await lines.send(bytes(buffer))
                return
            seen = len(buffer)
            buffer += chunk
            while (end := buffer.find(b"\n", seen)) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                seen = 0
                if line.strip():
                    await lines.send(line)
            if len(buffer) > MAX_REQUEST_BYTES:
                await lines.send(RpcError(INVALID_REQUEST, f"a line may have {MAX_REQUEST_BYTES} bytes at most"))
                return

    async def _receive(self, half_line: bool) -> bytes:
        """Return what comes next, b"" at the end of the client's sending. Raises RpcError after too long a silence."""
        while True:
            limit_s = self._limits.half_line_s if half_line else self._limits.idle_s
            with trio.move_on_after(limit_s):
                return bytes(await self._stream.receive_some(65_536))
            if half_line:
                raise RpcError(INVALID_REQUEST, f"half a line and then nothing for {limit_s:g} s")
            if not self._busy and trio.current_time() >= self._answered_at + limit_s:
                raise RpcError(INVALID_REQUEST, f"nothing asked for {limit_s:g} s; connect again")

    async def _hung_up(self) -> None:
        """Return when the client has closed for good; one that only ended its sending still reads."""
        poll = select.poll()
        poll.register(self._stream.socket.fileno(), 0)
        while not poll.poll(0):  # noqa: ASYNC110 - POLLHUP, always reported; no event of trio's tells it from POLLIN
            await trio.sleep(HANG_UP_POLL_S)

    # ---- out -------------------------------------------------------------------------------------------------------

    async def _answer(self, line: bytes, actor: Actor) -> None:
        request: Request | None = None
        began_at = self._server.clock.now()
        self._busy = True
        try:
            request = parse_request(line)
            answer = result_line(_shown_id(request), await self._call(request, actor))
        except RpcError as error:
            log.debug("control.refused", by=actor.name, method=request and request.method, code=error.code)
            answer = error_line(_shown_id(request), error)
        finally:
            self._busy = False
            self._answered_at = trio.current_time()
        took_s = round(self._server.clock.now() - began_at, 4)
        log.debug("control.answered", by=actor.name, method=request and request.method, took_s=took_s)
        if request is None or request.id is not UNSET:
            await self._send(answer)

    async def _call(self, request: Request, actor: Actor) -> object:
        """Return the method's result as something that msgspec encodes. Raises RpcError, whatever the method raises."""
        method, params = self._find(request)
        crash: ExceptionGroup[Exception] | None = None
        try:
            with trio.move_on_after(float("inf") if method.stream else method.timeout_s):
                answer = method.run(params, actor)
                if isinstance(answer, Awaitable):
                    return await self._result(method, answer)
                return await self._follow(request, answer)
        except* Exception as group:  # noqa: BLE001 - contained and logged: a method never ends the daemon
            crash = group
        if crash is None:
            raise RpcError(TIMED_OUT, f"{request.method} took longer than {method.timeout_s:g} s and was given up")
        raise _as_rpc_error(crash, request.method)

    async def _result(self, method: Method, answer: Awaitable[object]) -> msgspec.Raw:
        """Wait for the answer: to a question for as long as somebody wants it, to a command in any case."""
        with trio.CancelScope() as asking:
            if method.reads:
                self._asking = asking
                if self._gone:
                    asking.cancel()
            return msgspec.Raw(msgspec.json.encode(await answer))
        raise _ClientGone("the client hung up before the answer")

    def _find(self, request: Request) -> tuple[Method, Struct]:
        method = self._server.methods.get(request.method)
        if method is None:
            near = did_you_mean(request.method, self._server.methods)
            mend = f": {near}" if near.startswith("did") else "; rpc.commands lists them"
            raise RpcError(METHOD_NOT_FOUND, f'there is no method "{request.method[:100]}"{mend}')
        return method, parse_params(request.method, request.params, method.params)

    async def _follow(self, request: Request, values: AsyncIterator[object]) -> object:
        """Send each value as a notification; the result is their number."""
        count = 0
        async with _closing(values):
            while (value := await self._next(values, count)) is not _END:
                await self._send(next_line(_shown_id(request), value))
                count += 1
        return {"count": count}

    async def _next(self, values: AsyncIterator[object], count: int) -> object:
        """Return the next value, or _END. Raises RpcError when the client left or the server drains meanwhile."""
        with trio.CancelScope() as self._streaming:
            if self._streams_end:
                self._streaming.cancel()
            return await anext(values, _END)
        raise RpcError(STOPPING, f"the daemon stops; the stream is not whole ({count} values)")

    async def _send(self, line: bytes) -> None:
        try:
            with trio.fail_after(self._limits.send_s):
                await self._stream.send_all(line)
        except trio.TooSlowError:
            log.warning("control.slow_client", unread_bytes=len(line))
            raise _ClientGone("the client does not read") from None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise _ClientGone("the client hung up") from None


def _shown_id(request: Request | None) -> object:
    return None if request is None or request.id is UNSET else request.id


@contextlib.asynccontextmanager
async def _closing(values: AsyncIterator[object]) -> AsyncIterator[None]:
    try:
        yield
    finally:
        close = getattr(values, "aclose", None)
        if close is not None:
            with trio.CancelScope(shield=True), trio.move_on_after(2):
                await close()


def _as_rpc_error(crash: ExceptionGroup[Exception], method: str) -> Exception:
    """Return what a method's failure becomes: its own refusal, the client's leaving, or an internal error, logged."""
    leaf: Exception = crash
    while isinstance(leaf, ExceptionGroup):
        leaf = leaf.exceptions[0]
    if isinstance(leaf, RpcError | _ClientGone):
        return leaf
    log.error("control.method_failed", method=method, exc_info=crash)
    return RpcError(INTERNAL_ERROR, f"{method} failed: {type(leaf).__name__}; the daemon's log has the details")


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""
