"""The events that were taken last, ready to be sent: read from the journal once, whoever many follow.

Owns a stretch of the newest events, each encoded once. A follower keeps nothing but the number of the event that it has had:
one that is slow, or begins far back, is given pages of the journal until it has come near enough. Nothing waits for anybody.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import trio
from msgspec import Struct
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from sixfbd.http.engine import HttpEngine
from sixfbd.model import StoredEvent

PAGE: Final = 200  # events that a follower is given at once
KEPT: Final = 4096  # events
MOST_PAGES: Final = 64  # that are kept until the next event; most who follow ask for the same
KEPT_BYTES: Final = 4 * 1024 * 1024

Form: TypeAlias = Literal["sse", "websocket"]


class Page(Struct, frozen=True):
    """Events in the form that was asked for, back to back ("": none), and the number that they, or those left out, go up to."""

    data: bytes
    upto: int


class _Line(Struct, frozen=True):
    seq: int
    type: str
    body: bytes


def _sse(line: _Line) -> bytes:
    return b"id: %d\ndata: %b\n\n" % (line.seq, line.body)


_FRAMES: Final = Connection(ConnectionType.SERVER)  # a server's frames are the same to everybody (RFC 6455 section 5.1)


def _frame(line: _Line) -> bytes:
    return _FRAMES.send(TextMessage(line.body.decode()))


FORMS: Final[Mapping[Form, Callable[[_Line], bytes]]] = {"sse": _sse, "websocket": _frame}


class Feed:
    """The newest events of one engine. `encode` writes an event as its line of JSON."""

    def __init__(self, engine: HttpEngine, encode: Callable[[StoredEvent], bytes]) -> None:
        self._engine = engine
        self._encode = encode
        self._lines: list[_Line] = []  # without gaps
        self._bytes = 0
        self._upto: int | None = None  # what is in the lines, or came before them
        self._reading = trio.Lock()
        self._pages: dict[tuple[Form, int, tuple[str, ...]], Page] = {}  # asked for since the last event came

    async def after(self, seq: int, types: Sequence[str], form: Form) -> Page:
        """Return the next page after an event's number. Raises EngineUnavailable if the journal cannot be read."""
        await self._read_on()
        assert self._upto is not None
        key = (form, seq, tuple(types))
        if key not in self._pages:
            oldest = self._upto - len(self._lines)
            page = (
                await self._of_journal(seq, types, form) if seq < oldest else self._of_lines(seq - oldest, types, form)
            )
            if seq < oldest:
                return page
            if len(self._pages) >= MOST_PAGES:
                self._pages.clear()
            self._pages[key] = page
        return self._pages[key]

    async def _read_on(self) -> None:
        """Take in what the journal has that the lines have not; of many who come at once, one reads."""
        if self._upto is None:
            self._upto = self._engine.last_seq()
        if self._upto >= self._engine.last_seq():
            return
        async with self._reading:
            if self._engine.last_seq() - self._upto > KEPT:  # nobody has followed for a while
                self._lines, self._bytes, self._upto = [], 0, self._engine.last_seq()
                self._pages.clear()
            while self._upto < self._engine.last_seq():
                found = await self._engine.events_after(self._upto, (), PAGE)
                if not found:
                    return
                new = [_Line(stored.seq, stored.event.type, self._encode(stored)) for stored in found]
                self._lines += new
                self._bytes += sum(len(line.body) for line in new)
                self._upto = new[-1].seq
                self._pages.clear()
                self._let_go()

    def _let_go(self) -> None:
        gone = max(0, len(self._lines) - KEPT)
        self._bytes -= sum(len(line.body) for line in self._lines[:gone])
        while self._bytes > KEPT_BYTES and gone < len(self._lines):
            self._bytes -= len(self._lines[gone].body)
            gone += 1
        del self._lines[:gone]

    def _of_lines(self, place: int, types: Sequence[str], form: Form) -> Page:
        assert self._upto is not None
        write, wanted, end = FORMS[form], frozenset(types), len(self._lines)
        pieces: list[bytes] = []
        for index in range(max(place, 0), end):
            line = self._lines[index]
            if not wanted or line.type in wanted:
                pieces.append(write(line))
                if len(pieces) == PAGE:
                    return Page(b"".join(pieces), line.seq)
        return Page(b"".join(pieces), self._upto)

    async def _of_journal(self, seq: int, types: Sequence[str], form: Form) -> Page:
        last = self._engine.last_seq()
        found = await self._engine.events_after(seq, types, PAGE)
        write = FORMS[form]
        data = b"".join(write(_Line(stored.seq, stored.event.type, self._encode(stored))) for stored in found)
        return Page(data, found[-1].seq if len(found) == PAGE else max([last, *(stored.seq for stored in found)]))
