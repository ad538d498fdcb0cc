"""The sandbox as a process: a port of loopback for each house, the control socket, time that passes, and the shop's memory.

Owns sockets and their limits; what is answered is the houses' business. An answer that a fault delays or loses holds one
connection and nothing else. The control socket (mode 0600) speaks HTTP as the houses do.
"""

import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import h11
import httpx
import msgspec
import trio

from sixfbd_plugins.sandbox.control import Control
from sixfbd_plugins.sandbox.courier import TIMEOUT_S, Courier, Reporter
from sixfbd_plugins.sandbox.faults import Answer
from sixfbd_plugins.sandbox.setup import Place, SetupError
from sixfbd_plugins.sandbox.shop import State
from sixfbd_plugins.sandbox.town import Handle, Town

MAX_BODY: Final = 4 * 1024 * 1024
MAX_CONNECTIONS: Final = 500  # of one house
IDLE_S: Final = 120.0  # a client may say nothing for so long
TICK_S: Final = 0.1
SAVE_S: Final = 5.0


class _Wrong(Exception):  # noqa: N818 - a way out of `_read`, named as what it is
    """A request that is not answered by a house, and this status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


# ---- one connection ----------------------------------------------------------------------------------------------------


class Connection:
    """One client of one house, request after request."""

    def __init__(self, handle: Handle, stream: trio.abc.Stream) -> None:
        self._handle = handle
        self._stream = stream
        self._wire = h11.Connection(h11.SERVER)

    async def serve(self) -> None:
        while await self._serve_one():
            if h11.MUST_CLOSE in (self._wire.our_state, self._wire.their_state):
                return
            self._wire.start_next_cycle()

    async def _serve_one(self) -> bool:
        """Answer one request; return False once the client is gone, or is left without an answer."""
        try:
            with trio.move_on_after(IDLE_S) as idle:
                request = await self._read()
            if idle.cancelled_caught or request is None:
                return False
            answer = self._answered(*request)
        except (h11.RemoteProtocolError, _Wrong) as error:
            status = error.status if isinstance(error, _Wrong) else error.error_status_hint
            if self._wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                await self._send(Answer(status=status, headers={"connection": "close"}))
            return False
        if not await self._waited(answer.delay_s) or answer.lost:
            return False
        await self._send(answer, has_body=request[0].method != b"HEAD")
        return True

    async def _read(self) -> tuple[h11.Request, bytes] | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._wire.next_event()
            if event is h11.NEED_DATA:
                if self._wire.they_are_waiting_for_100_continue:
                    go_on = h11.InformationalResponse(status_code=100, headers=[])
                    await self._stream.send_all(self._wire.send(go_on) or b"")
                self._wire.receive_data(bytes(await self._stream.receive_some(65536)))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    raise _Wrong(413)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return head, bytes(body)
            else:
                return None

    def _answered(self, head: h11.Request, body: bytes) -> Answer:
        try:
            url = httpx.URL("http://sandbox" + head.target.decode("ascii"))
            headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        except (UnicodeDecodeError, httpx.InvalidURL):
            raise _Wrong(400) from None
        method = "GET" if head.method == b"HEAD" else head.method.decode("ascii")
        try:
            return self._handle(method, url.path, dict(url.params), headers, body)
        except Exception:  # noqa: BLE001 - a double that cannot read a request must not end the others
            traceback.print_exc()
            raise _Wrong(500) from None

    async def _waited(self, delay_s: float) -> bool:
        """Wait as a fault wants it; return whether the client has waited too."""
        if delay_s <= 0:
            return True
        with trio.move_on_after(delay_s):
            while data := await self._stream.receive_some(65536):
                self._wire.receive_data(bytes(data))
            return False
        return True

    async def _send(self, answer: Answer, *, has_body: bool = True) -> None:
        headers = [*answer.headers.items(), ("content-length", str(len(answer.body)))]
        sent: list[h11.Event] = [h11.Response(status_code=answer.status, headers=headers)]
        if has_body:
            sent.append(h11.Data(data=answer.body))
        sent.append(h11.EndOfMessage())
        await self._stream.send_all(b"".join(self._wire.send(one) or b"" for one in sent))


async def serve_house(handle: Handle, listeners: list[trio.SocketListener]) -> None:
    """Serve a house until cancelled."""
    limit = trio.CapacityLimiter(MAX_CONNECTIONS)

    async def serve(stream: trio.SocketStream) -> None:
        try:
            async with stream, limit:
                await Connection(handle, stream).serve()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()  # the client hung up first

    await trio.serve_listeners(serve, listeners)


# ---- the process ---------------------------------------------------------------------------------------------------------


async def run_sandbox(place: Place, *, beside: int | None = None, ready: Callable[[], None] = lambda: None) -> None:
    """Run until SIGTERM or Ctrl-C, or until the process `beside` ends. Raises SetupError if it cannot listen.

    `ready` is called once all ports and the control socket take connections.
    """
    town = Town(
        place.keys,
        time.time,
        random.Random(),
        public=place.public,
        state=_remembered(place.state),
        speed=place.addresses.speed,
    )
    async with AsyncExitStack() as stack:
        served = []
        for name, handle in town.houses.items():
            listeners = await _listening(place.addresses.listen[name])
            served.append((handle, [await stack.enter_async_context(one) for one in listeners]))
        control_socket = await stack.enter_async_context(await _control_socket(place.socket))
        stack.callback(place.socket.unlink, missing_ok=True)
        stack.callback(_save, town.shop.state, place.state)
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False))
        courier = Courier(client, random.Random(), lambda house: town.post_faults.get(house, ()))
        reporter = Reporter(client, place.daemon, place.token)
        control = Control(town, place.addresses.listen, courier, reporter)
        async with trio.open_nursery() as nursery:
            await nursery.start(courier.run)
            nursery.start_soon(reporter.run)
            for handle, open_ones in [*served, (control.handle, [control_socket])]:
                nursery.start_soon(serve_house, handle, open_ones)
            nursery.start_soon(_pass_time, town, courier, reporter)
            nursery.start_soon(_remember, town, place.state)
            nursery.start_soon(_until_signal, nursery.cancel_scope)
            if beside is not None:
                nursery.start_soon(_until_ended, beside, nursery.cancel_scope)
            ready()


async def _pass_time(town: Town, courier: Courier, reporter: Reporter) -> None:
    while True:
        for parcel in town.advance():
            courier.send(parcel)
        reporter.put(town.shop.events())
        await trio.sleep(TICK_S)


async def _remember(town: Town, path: Path) -> None:
    while True:
        await trio.sleep(SAVE_S)
        _save(town.shop.state, path)


def _save(state: State, path: Path) -> None:
    """Write the shop's state: small, so that no thread is worth it."""
    draft = path.with_suffix(".new")
    try:
        draft.write_bytes(msgspec.json.encode(state))
        draft.replace(path)
    except OSError as error:
        print(f"sixfbd-sandbox: {path}: the shop's state cannot be kept: {error.strerror}", file=sys.stderr)


def _remembered(path: Path) -> State | None:
    """Return the shop's state as it was left; without a usable file the shop begins anew."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        print(f"sixfbd-sandbox: {path}: {error}; the shop begins anew", file=sys.stderr)
        return None


async def _until_signal(scope: trio.CancelScope) -> None:
    """Stop at SIGTERM and SIGINT; one that was ignored at the start stays so, for beside the daemon Ctrl-C is the daemon's."""
    wanted = [one for one in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(one) is not signal.SIG_IGN]
    with trio.open_signal_receiver(*wanted) as signals:
        async for _ in signals:
            scope.cancel()


async def _until_ended(process: int, scope: trio.CancelScope) -> None:
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        scope.cancel()
        return
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    scope.cancel()


async def _listening(address: str) -> list[trio.SocketListener]:
    host, _, port = address.rpartition(":")
    try:
        return await trio.open_tcp_listeners(int(port), host=host)
    except (OSError, ValueError) as error:
        raise SetupError(f"cannot listen on {address}: {error}; sandbox/sandbox.toml says where") from None


async def _control_socket(path: Path) -> trio.SocketListener:
    """Return the control socket, for this user only; one that a dead sandbox left behind is removed."""
    try:
        await (await trio.open_unix_socket(path)).aclose()
    except FileNotFoundError:
        await trio.lowlevel.checkpoint()
    except ConnectionRefusedError:
        await trio.Path(path).unlink()
    else:
        raise SetupError(f"a sandbox runs already: {path} answers")
    made = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        await made.bind(str(path))
    except OSError as error:
        made.close()
        raise SetupError(f"{path}: cannot be made: {error.strerror or error}") from None
    finally:
        os.umask(mask)
    made.listen(16)
    return trio.SocketListener(made)
