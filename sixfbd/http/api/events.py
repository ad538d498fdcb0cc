"""/api/events: events come in (one, many, or as lines), are listed, and are followed as a stream.

Owns the wire's forms. What makes an event valid, and whether it is a repeat, the engine's door says.
"""

import math
from collections import deque
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import trio
from msgspec import UNSET, Struct, UnsetType, field
from quart import Response, request

from sixfbd.config import Http
from sixfbd.faults import not_json, unfit
from sixfbd.http import parameters
from sixfbd.http.answers import Ready, Refusal, ready, show_time, show_time_or_none, success
from sixfbd.http.asked import Asked
from sixfbd.http.engine import EventResult
from sixfbd.http.feed import Form
from sixfbd.http.guard import caller
from sixfbd.http.routes import Answer, Body, Parameter, Room, Route
from sixfbd.http.streams import CONTENT_TYPE, counted, leaving, news, stream
from sixfbd.http.websocket import PING, Switch, handshake
from sixfbd.model import Event, StoredEvent
from sixfbd.rates import Bucket

NDJSON: Final = "application/x-ndjson"
MEDIA: Final = ("application/json", NDJSON)
MAX_EVENTS: Final = 5000  # of one request; validating them takes the loop some 20 ms
MAX_LISTED: Final = 1000
LISTED: Final = 100
REST_S: Final = 0.001  # for each of those who follow, after something was said
KEY: Final = "Idempotency-Key"
MAX_KEY: Final = 100
OTHER: Final = EventResult(
    "refused", message="is the key of another request, whose events were others; choose a new one"
)
SMALL: Final = 64 * 1024  # bytes that are decoded in the loop; more goes to a thread


class EventIn(Struct, frozen=True, forbid_unknown_fields=True):
    """An event as it is sent. Without `id` one is made and returned; without `timestamp` it is now."""

    type: str
    id: str | UnsetType = UNSET
    timestamp: str | float | UnsetType = UNSET
    data: dict[str, Any] = field(default_factory=dict)


class EventView(Struct, frozen=True, rename="camel"):
    """An event as it is kept; `seq` numbers events in the order in which they were taken, without gaps."""

    seq: int
    id: str
    type: str
    timestamp: str
    received_at: str
    source: str
    data: dict[str, Any]


class RefusedView(Struct, frozen=True):
    """An event that was not taken: its place in the request counted from 0, the field, and what is wrong with it."""

    index: int
    field: str
    message: str


class ResultView(Struct, frozen=True, omit_defaults=True):
    """What became of the event at `index`: accepted, duplicate or refused.

    `timestamp` is there if the event claimed to be of a time more than a minute ahead: it is kept as of now instead.
    """

    index: int
    status: str
    id: str | None = None
    seq: int | None = None
    timestamp: str | None = None


class Taken(Struct, frozen=True):
    """The account of one request: every event is in exactly one of the three."""

    accepted: int
    duplicates: int
    refused: list[RefusedView]
    results: list[ResultView]


class Listed(Struct, frozen=True):
    """Events, oldest first; `next` is what `after` takes to go on from here: the newest number if `after` is beyond it."""

    events: list[EventView]
    next: int


def view_of(stored: StoredEvent) -> EventView:
    event = stored.event
    return EventView(
        seq=stored.seq,
        id=event.id,
        type=event.type,
        timestamp=show_time(event.timestamp),
        received_at=show_time(stored.received_at),
        source=stored.source,
        data=event.data,
    )


# ---- events come in ----------------------------------------------------------------------------------------------------


def read_body(body: bytes, media: str) -> list[Any]:
    """Return the items of a body; an NDJSON line that is no JSON becomes a RefusedView in its place.

    Raises Refusal if the body as a whole cannot be read, UnicodeDecodeError if it is not UTF-8.
    """
    body.decode("utf-8")  # the whole of it: a decoder would name the first bad value only
    if media == NDJSON:
        lines = [(number, line) for number, line in enumerate(body.splitlines(), 1) if line.strip()]
        return [_read_line(index, number, line) for index, (number, line) in enumerate(lines)]
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(400, "bad_json", f"the body is not JSON: {not_json(error)}") from error
    return decoded if isinstance(decoded, list) else [decoded]


def _read_line(index: int, number: int, line: bytes) -> Any:
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        return RefusedView(index, "", f"line {number} is not JSON: {not_json(error)}")


def read_event(room: Room, index: int, item: Any, key: str = "") -> Event | RefusedView:
    """Return the event that an item of a body stands for, or what is wrong with its form.

    One without an id has that of the request's `key` and its place, so that the request may be repeated.
    """
    if isinstance(item, RefusedView):
        return item
    try:
        read = msgspec.convert(item, EventIn)
    except msgspec.ValidationError as error:
        where, what = unfit(error)
        return RefusedView(index, where, f"{what}; an event is {{id, type, timestamp, data}}")
    at = room.engine.now() if read.timestamp is UNSET else parameters.read_time(read.timestamp)
    if at is None:
        return RefusedView(index, "timestamp", "is not a time; write 2026-11-23T21:07:30.123Z or unix seconds")
    made = f"{key}/{index}" if key else room.engine.new_id()
    return Event(read.id if isinstance(read.id, str) else made, read.type, at, read.data)


def read_key(asked: Asked) -> str:
    """Return the request's Idempotency-Key, "" if it has none; quoted, as the IETF's draft wants it, or not. Raises Refusal."""
    given = asked.header(KEY.lower().encode())
    key = given[1:-1] if len(given) > 1 and given[0] == given[-1] == '"' else given
    if len(key) > MAX_KEY or not (key.isascii() and key.isprintable()) or (given and not key.strip()):
        raise Refusal(400, "bad_key", f"{KEY} is not 1 to {MAX_KEY} printable ASCII characters")
    return key


async def _others(room: Room, put: Sequence[tuple[int, Event, EventResult]]) -> set[int]:
    """Return the places of events that are known by their key, but with other content."""
    sent = {result.seq: (index, event) for index, event, result in put if result.status == "duplicate" and result.seq}
    others: set[int] = set()
    wanted = deque(sorted(sent))
    while wanted:
        page = await room.engine.events_after(wanted[0] - 1, (), min(len(wanted), MAX_LISTED))
        for stored in page:
            if stored.seq in sent:
                index, event = sent[stored.seq]
                if (stored.event.type, stored.event.data) != (event.type, event.data):
                    others.add(index)
        seen = max([wanted[0], *(stored.seq for stored in page)])  # one that is no longer kept is compared with nothing
        while wanted and wanted[0] <= seen:
            wanted.popleft()
    return others


async def _items(asked: Asked) -> list[Any]:
    media = asked.mimetype or MEDIA[0]
    if media not in MEDIA:
        raise Refusal(415, "unsupported_media_type", f"the body is {media}; send {' or '.join(MEDIA)}")
    body = asked.content
    items = read_body(body, media) if len(body) <= SMALL else await trio.to_thread.run_sync(read_body, body, media)
    if not items:
        raise Refusal(400, "no_events", "the body holds no event")
    if len(items) > MAX_EVENTS:
        raise Refusal(413, "too_many_events", f"{len(items)} events in one request; send at most {MAX_EVENTS}")
    return items


def limit_rate(room: Room, name: str, events: int) -> None:
    """Count events against what a token may send. Raises Refusal if nothing is left of it: then none are counted."""
    assert isinstance(room.config, Http)
    rate, now = room.config.max_event_rate, room.engine.now()
    wait_s = room.rates.setdefault(name, Bucket(now)).take(rate, now, events)
    if wait_s:
        raise Refusal(
            429,
            "too_fast",
            f"the token {name!r} sends more than {rate} events a second; wait, or raise `max_event_rate` in [http]",
            headers={"Retry-After": str(math.ceil(wait_s))},
        )


async def post(room: Room, asked: Asked) -> Ready:
    name, key = caller(asked).name, read_key(asked)
    try:
        items = await _items(asked)
    except (Refusal, UnicodeDecodeError):
        limit_rate(room, name, 1)  # what cannot be read costs time as well
        raise
    limit_rate(room, name, len(items))
    read = [read_event(room, index, item, key) for index, item in enumerate(items)]
    events = [(index, one) for index, one in enumerate(read) if isinstance(one, Event)]
    results: Sequence[EventResult] = ()
    if events:
        results = await room.engine.put_events(f"token:{name}", [event for _, event in events])
    put = [(index, event, result) for (index, event), result in zip(events, results, strict=True)]
    by_key = [one for one in put if key and one[1].id == f"{key}/{one[0]}"]
    others = await _others(room, by_key)
    put = [(index, event, OTHER if index in others else result) for index, event, result in put]
    taken = account(read, put)
    if taken.accepted or taken.duplicates:
        return ready(taken)
    first = taken.refused[0]
    if others:
        raise Refusal(422, "key_reused", f"{KEY}: {OTHER.message}", more={"refused": taken.refused})
    summary = f"no event was taken; the first is refused: {first.field + ': ' if first.field else ''}{first.message}"
    raise Refusal(400, "events_refused", summary, more={"refused": taken.refused})


def account(read: Sequence[Event | RefusedView], put: Sequence[tuple[int, Event, EventResult]]) -> Taken:
    """Return what became of each event, in the request's order."""
    refused = {one.index: one for one in read if isinstance(one, RefusedView)}
    results = {index: ResultView(index, "refused") for index in refused}
    for index, event, result in put:
        results[index] = ResultView(index, result.status, event.id, result.seq, show_time_or_none(result.kept_at))
        if result.status == "refused":
            refused[index] = RefusedView(index, result.field, result.message)
    statuses = [result.status for result in results.values()]
    return Taken(
        accepted=statuses.count("accepted"),
        duplicates=statuses.count("duplicate"),
        refused=[refused[index] for index in sorted(refused)],
        results=[results[index] for index in sorted(results)],
    )


# ---- events are read -----------------------------------------------------------------------------------------------------


async def listed(room: Room) -> Response:
    types = parameters.listed(request.args, "type")
    limit = parameters.integer(request.args, "limit", LISTED, 1, MAX_LISTED) or LISTED
    after = parameters.integer(request.args, "after", None, 0, 2**62)
    last = room.engine.last_seq()
    if after is None:
        found = await room.engine.last_events(types, limit)
    else:
        found = await room.engine.events_after(after, types, limit)
        last = last if len(found) < limit else found[-1].seq
    return success(Listed([view_of(stored) for stored in found], max([last, *(stored.seq for stored in found[-1:])])))


async def follow(room: Room) -> Response:
    after, types = _asked(room)
    return stream(room, _pieces(room, leaving(), after, types, "sse"))


async def follow_by_socket(room: Room) -> Response:
    accept = handshake()
    after, types = _asked(room)
    return Switch(accept, counted(room, _pieces(room, leaving(), after, types, "websocket")))


def _asked(room: Room) -> tuple[int, list[str]]:
    """Return the number after which, and the types of which, events are asked for."""
    after = parameters.integer(request.args, "after", None, 0, 2**62)
    seen = request.headers.get("Last-Event-ID")
    if seen is not None:  # what a client that comes again sends; it knows better than the URL that it began with
        if not (seen.isascii() and seen.isdigit() and len(seen) < 20):
            raise Refusal(400, "bad_parameter", f"Last-Event-ID is not the number of an event: {seen!r:.60}")
        after = int(seen)
    return room.engine.last_seq() if after is None else after, list(parameters.listed(request.args, "type"))


async def _pieces(room: Room, left: trio.Event, after: int, types: Sequence[str], form: Form) -> AsyncIterator[bytes]:
    """Yield every event after `after`: a slow client costs nobody anything but its own delay.

    A number beyond the newest is one of another journal (a backup was restored, say): a stream says so in an event
    named `reset`, whose id is the newest number; it begins there, as a WebSocket does, in whose events the numbers stand.
    Where many follow, each hears of what comes at once a little later: the loop has more to do than to speak.
    """
    newest = room.engine.last_seq()
    if after > newest:
        if form == "sse":
            yield b'event: reset\nid: %d\ndata: {"after":%d,"newest":%d}\n\n' % (newest, after, newest)
        after = newest
    feed, rests_until = room.feed_of(encoded), 0.0
    while not left.is_set():
        page = await feed.after(after, types, form)
        if page.data:
            yield page.data
            rests_until = trio.current_time() + REST_S * room.streams
        after = max(after, page.upto)
        if after < room.engine.last_seq() and page.data:
            continue
        if await news(left, partial(room.engine.wait_events, after)) is None:
            yield b": ping\n\n" if form == "sse" else PING
        elif trio.current_time() < rests_until:
            with trio.move_on_at(rests_until):
                await left.wait()


def encoded(stored: StoredEvent) -> bytes:
    """Return an event as followers are told of it: a line of JSON, as in GET /api/events."""
    return msgspec.json.encode(view_of(stored))


TYPES: Final = Parameter("type", "query", "Only events of these types.", repeated=True)

ROUTES: Final = (
    Route(
        "/api/events",
        listed,
        "List events, oldest first: the last ones, or those after a number.",
        {200: Answer("", Listed, envelope="house")},
        parameters=(
            Parameter("after", "query", "Only events numbered above this.", int),
            Parameter("limit", "query", f"At most so many, {LISTED} if left out, {MAX_LISTED} at most.", int),
            TYPES,
        ),
    ),
    Route(
        "/api/events",
        post,
        "Send events. Answered 200 when those accepted are durable.",
        {
            200: Answer("At least one was accepted or known already; refused ones are named.", Taken, envelope="house"),
            400: Answer("None was taken: the body cannot be read, or `error.refused` names every event."),
            415: Answer(f"The body is neither of {' and '.join(MEDIA)}."),
            422: Answer(f"The {KEY} is that of another request, and nothing of this one was taken."),
            429: Answer(
                "The token sends more events a second than `max_event_rate`; `Retry-After` says when to go on."
            ),
        },
        parameters=(
            Parameter(
                KEY,
                "header",
                "Makes a request that may be repeated of events without ids: what was taken before is a duplicate.",
                {"type": "string", "minLength": 1, "maxLength": MAX_KEY},
            ),
        ),
        methods=("POST",),
        scope="events",
        body=Body({MEDIA[0]: EventIn | list[EventIn], NDJSON: {"type": "string"}}, "One event, an array, or lines."),
        plain=True,
    ),
    Route(
        "/api/events/stream",
        follow,
        "Follow events as they are taken (server-sent events; the id is the event's number). A number beyond the newest "
        "is answered with an event named `reset`; the stream then begins at the newest.",
        {200: Answer("Events as `data`, each as in GET /api/events.", {"type": "string"}, CONTENT_TYPE.split(";")[0])},
        parameters=(
            Parameter("after", "query", "Begin after this number; left out: from now on.", int),
            Parameter("Last-Event-ID", "header", "Go on after this number."),
            TYPES,
        ),
        limited=False,
    ),
    Route(
        "/api/events/ws",
        follow_by_socket,
        "Follow events over a WebSocket: each is a text message, as in GET /api/events. Whoever connects anew goes on with "
        "`after`, the `seq` of the last one. The daemon closes with 1001 when it leaves, with 1003 if it is sent anything.",
        {
            403: Answer("A page of another site asks."),
            426: Answer("The request offers no WebSocket."),
        },
        parameters=(
            Parameter("after", "query", "Begin after this number; left out: from now on.", int),
            Parameter("Last-Event-ID", "header", "Go on after this number."),
            TYPES,
        ),
        limited=False,
    ),
)
