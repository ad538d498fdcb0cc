"""What tests of providers share: a double in process or behind a port of loopback, a context for plugins, an engine in small.

A double is a state machine of `sixfbd_plugins.sandbox`: it answers by `handle(method, path, query, headers, body)`.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import h11
import httpx
import structlog
import trio

from sixfbd.intake import Intake, declare
from sixfbd.journal.database import JournalDatabase
from sixfbd.model import CheckName, Message, Refusals, Report
from sixfbd.plugin import Check, EventType, TemporaryFailure
from sixfbd.readers.queries import EngineReader
from sixfbd.window.window import Window
from sixfbd_plugins.sandbox.faults import Answer


class Double(Protocol):
    def handle(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> Answer: ...


class ManualClock:
    """A clock that stands where a test puts it."""

    def __init__(self, at: float) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def wall(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    async def sleep_until(self, at: float) -> None:
        await trio.lowlevel.checkpoint()
        self.at = max(self.at, at)


class InProcess:
    """`Outbound` that asks the double without a connection."""

    def __init__(self, double: Double) -> None:
        self.double = double

    async def request(
        self, method: str, url: str, *, headers: Any = None, content: Any = None, timeout_s: float = 10.0, **_: Any
    ) -> httpx.Response:
        await trio.lowlevel.checkpoint()
        asked = httpx.Request(method, url, headers=headers, content=content)
        answer = self.double.handle(method, asked.url.path, dict(asked.url.params), dict(asked.headers), asked.content)
        if answer.lost or answer.delay_s > timeout_s:
            raise TemporaryFailure(f"no answer within {timeout_s:g} s", sent=True)
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body, request=asked)


class Reader:
    """What plugins may read, by hand: our own messages as of when they were made, and those about an alert by its id."""

    def __init__(self, own: tuple[Message, ...] = (), about: Mapping[str, Sequence[Message]] | None = None) -> None:
        self.own = own
        self.about = dict(about or {})

    async def messages(self, notifier: str, start: float, end: float) -> tuple[Message, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(one for one in self.own if start <= one.created_at < end)

    async def messages_about(self, alert: str) -> Sequence[Message]:
        await trio.lowlevel.checkpoint()
        return self.about.get(alert, ())

    async def events(self, type: str, start: float, end: float) -> Any:  # noqa: A002 - an event's field
        await trio.lowlevel.checkpoint()
        return []

    async def query(self, expr: str, start: float, end: float, step: float) -> Any:
        await trio.lowlevel.checkpoint()
        return []


class PluginContext:
    """`sixfbd.plugin.Context` whose threads run in line."""

    name = site = "workshop"
    timezone = "UTC"
    version = "1.2.3"
    sandbox = True

    def __init__(self, http: Any, clock: Any, read: Any = None) -> None:
        self.http = http
        self.clock = clock
        self.read = read or Reader()
        self.log = structlog.get_logger("test")

    async def to_thread(self, fn: Callable[..., Any], *args: object) -> Any:
        await trio.lowlevel.checkpoint()
        return fn(*args)


class Engine:
    """Journal, window and door as the daemon has them; `restart` closes them and opens new ones on the same files."""

    def __init__(
        self, folder: Path, clock: Any, types: Sequence[EventType], check: str = "", cls: type[Check[Any]] = Check
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.types = types
        self.check = CheckName(check)
        self.metrics = cls.metrics

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Engine"]:
        async with JournalDatabase(self.folder / "journal.db") as self.journal:
            self.window = Window()
            await trio.to_thread.run_sync(self.window.restore_steps, self.journal, round(self.clock.now() * 1000))
            self.read = EngineReader(self.window, self.journal, lambda: ())
            self.intake = Intake(
                self.journal, self.window, self.clock,
                persist=lambda rows: None, touch=lambda rules: None, committed=lambda events: None,
            )  # fmt: skip
            self.intake.declare_types(self.types)
            self.intake.declare_check(self.check, declare(self.metrics, 100, 900))
            yield self

    async def report(self, report: Report) -> Refusals:
        return await self.intake.report(self.check, report)

    def counted(self) -> dict[tuple[str, ...], float]:
        """The step series by name and label values, as they are now."""
        latest = self.window.latest()
        return {(series.metric, *(value for _, value in series.labels)): value for series, _, value, _ in latest}


class Wire:
    """A double that is served; `asked` is set by the first request."""

    def __init__(self, double: Any, url: str) -> None:
        self.double = double
        self.url = url
        self.asked = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await self._serve(stream)
        except trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()  # the client hung up first

    async def _serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        while True:
            request, body = await read_request(connection, stream)
            if request is None:
                return
            url = httpx.URL(f"http://double{request.target.decode()}")
            headers = {name.decode(): value.decode() for name, value in request.headers}
            answer = self.double.handle(request.method.decode(), url.path, dict(url.params), headers, body)
            self.asked.set()
            await trio.sleep(answer.delay_s)
            if answer.lost:
                return
            head = [*answer.headers.items(), ("content-length", str(len(answer.body)))]
            await stream.send_all(
                connection.send(h11.Response(status_code=answer.status, headers=head))
                + connection.send(h11.Data(data=answer.body))
                + connection.send(h11.EndOfMessage())
            )
            if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                return
            connection.start_next_cycle()


async def read_request(connection: h11.Connection, stream: trio.SocketStream) -> tuple[h11.Request | None, bytes]:
    """Return the next request and its body; None if the client has left."""
    request, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            return request, body


async def served(double: Double, nursery: trio.Nursery) -> Wire:
    """Serve a double on loopback as long as the nursery is open."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    wire = Wire(double, f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
    nursery.start_soon(partial(trio.serve_listeners, wire.serve, [listener]))
    return wire
