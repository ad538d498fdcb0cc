"""Events come in, are listed, and are followed."""

import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import h11
import httpx
import msgspec
import pytest
import trio

from sixfbd.http import server, streams
from sixfbd.http.engine import EngineUnavailable
from sixfbd.model import Event, StoredEvent

NDJSON = "application/x-ndjson"


async def post(client, shop, body, media="application/json") -> httpx.Response:
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    return await client.post("/api/events", content=content, headers=shop | {"Content-Type": media})


@asynccontextmanager
async def following(
    client, path="/api/events/stream", params=None, headers=None
) -> AsyncIterator[AsyncIterator[dict[str, str]]]:
    """The pieces of an event stream as dicts of their fields; comments are under ":". On a connection of its own."""
    stream = await trio.open_tcp_stream(client.base_url.host, client.base_url.port)
    async with stream:
        connection = h11.Connection(h11.CLIENT)
        request = client.build_request("GET", path, params=params, headers=headers)
        head = h11.Request(method="GET", target=request.url.raw_path, headers=request.headers.raw)
        await stream.send_all((connection.send(head) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        async with aclosing(pieces_of(connection, stream)) as pieces:
            assert "retry" in await anext(pieces)
            yield pieces


async def pieces_of(connection: h11.Connection, stream: trio.SocketStream) -> AsyncIterator[dict[str, str]]:
    text = ""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Response):
            assert event.status_code == 200
            assert dict(event.headers)[b"content-type"].startswith(b"text/event-stream")
        elif isinstance(event, h11.Data):
            *blocks, text = (text + event.data.decode()).split("\n\n")
            for block in blocks:
                fields = (line.partition(":") for line in block.split("\n"))
                yield {name or ":": value.strip() for name, _, value in fields}
        else:
            assert isinstance(event, h11.EndOfMessage), event  # a stream that is cut off ends otherwise
            return


async def take(pieces: AsyncIterator[dict[str, str]], count: int) -> list[int]:
    with trio.fail_after(10):
        return [int((await anext(pieces))["id"]) for _ in range(count)]


# ---- events come in ---------------------------------------------------------------------------------------------------


async def test_one_event_is_taken_and_numbered(client, engine, shop):
    sent = {"id": "o-1", "type": "ticket_sale", "timestamp": "2026-11-23T21:07:30.123Z", "data": {"quantity": 2}}
    answer = await post(client, shop, sent)
    assert answer.status_code == 200
    results = [{"index": 0, "status": "accepted", "id": "o-1", "seq": 1}]
    assert answer.json() == {
        "success": True,
        "data": {"accepted": 1, "duplicates": 0, "refused": [], "results": results},
    }
    [stored] = engine.events
    assert stored.source == "token:shop"
    assert stored.event == Event("o-1", "ticket_sale", 1795468050.123, {"quantity": 2})


async def test_an_event_without_id_and_time_gets_both_and_the_id_is_returned(client, engine, shop):
    answer = await post(client, shop, {"type": "request"})
    assert answer.json()["data"]["results"][0]["id"] == "made-1"
    assert engine.events[0].event == Event("made-1", "request", engine.now(), {})


@pytest.mark.parametrize("media", ["application/json", NDJSON])
async def test_a_batch_names_what_it_refuses_by_index_and_takes_the_rest(client, engine, shop, media):
    items = [
        {"id": "a", "type": "request"},
        {"id": "b"},
        {"id": "a", "type": "request"},
        {"id": "c", "type": "impossible"},
        {"id": "d", "type": "request", "timestamp": "yesterday"},
        {"id": "e", "type": "request", "extra": 1},
        "text",
        {"id": "f", "type": "request", "timestamp": 1795468050, "data": {"a": None}},
    ]
    body = json.dumps(items) if media != NDJSON else "\n\n".join(map(json.dumps, items)) + "\n"
    answer = await post(client, shop, body, media)
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert (data["accepted"], data["duplicates"]) == (2, 1)
    assert [(one["index"], one["field"]) for one in data["refused"]] == [
        (1, "type"),
        (3, "data.amount"),
        (4, "timestamp"),
        (5, "extra"),
        (6, ""),
    ]
    assert data["refused"][0]["message"].startswith("is missing; an event is ")
    assert data["refused"][3]["message"].startswith("is not a field that is known here; an event is ")
    assert data["refused"][4]["message"].startswith("must be an object, not text; an event is ")
    assert [one["status"] for one in data["results"]] == [
        "accepted",
        "refused",
        "duplicate",
        "refused",
        "refused",
        "refused",
        "refused",
        "accepted",
    ]
    assert [stored.event.id for stored in engine.events] == ["a", "f"]


async def test_a_line_that_is_no_json_is_named_by_index_and_line_and_the_others_are_taken(client, engine, shop):
    answer = await post(
        client, shop, b'{"id":"a","type":"request"}\r\n\n{"id":"b",\n{"id":"c","type":"request"}', NDJSON
    )
    assert answer.status_code == 200
    [refused] = answer.json()["data"]["refused"]
    assert refused["index"] == 1
    assert refused["message"].startswith("line 3 is not JSON")
    assert [stored.event.id for stored in engine.events] == ["a", "c"]


async def test_if_every_event_is_refused_the_answer_is_400_and_names_each(client, engine, shop):
    answer = await post(client, shop, [{"id": 1, "type": "a"}, {"id": "b", "type": "impossible"}])
    assert (answer.status_code, answer.json()["success"]) == (400, False)
    error = answer.json()["error"]
    assert error["code"] == "events_refused"
    assert [(one["index"], one["field"]) for one in error["refused"]] == [(0, "id"), (1, "data.amount")]
    assert error["message"] == "no event was taken; the first is refused: id: " + error["refused"][0]["message"]
    assert engine.events == []


async def test_sent_twice_an_event_is_a_duplicate_and_still_a_success(client, engine, shop):
    sent = {"id": "o-1", "type": "ticket_sale"}
    await post(client, shop, sent)
    answer = await post(client, shop, sent)
    assert (answer.status_code, answer.json()["data"]["duplicates"], len(engine.events)) == (200, 1, 1)


@pytest.mark.parametrize(
    ("body", "media", "status", "code"),
    [
        (b"", "application/json", 400, "bad_json"),
        (b"{", "application/json", 400, "bad_json"),
        (b"[" * 50_000, "application/json", 400, "bad_json"),
        (b'{"type": "\xff"}', "application/json", 400, "not_utf8"),
        (b'{"type": "a"}\n{"type": "\xff"}', NDJSON, 400, "not_utf8"),
        (b"[]", "application/json", 400, "no_events"),
        (b"\n\n", NDJSON, 400, "no_events"),
        (b"type=a", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"[" + b"1," * 5000 + b"1]", "application/json", 413, "too_many_events"),
        (b"null", "application/json", 400, "events_refused"),
        (b'{"type": "\\ud800"}', "application/json", 400, "bad_json"),
    ],
)
async def test_a_body_that_cannot_be_taken_says_why(client, engine, shop, body, media, status, code):
    answer = await post(client, shop, body, media)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["message"]
    assert engine.events == []


async def test_an_engine_that_cannot_write_is_503_with_its_reason_and_nothing_is_acknowledged(client, engine, shop):
    def refuse() -> None:
        raise EngineUnavailable("the disk is full: free some space")

    engine.before_put = refuse
    answer = await post(client, shop, {"type": "request"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the disk is full: free some space")
    assert answer.headers["Retry-After"] == "5"
    assert engine.events == []


async def test_a_journal_that_cannot_be_read_is_503_with_its_reason(client, engine, monkeypatch):
    async def fail(*_: object) -> None:
        raise EngineUnavailable("journal.db: disk I/O error")

    monkeypatch.setattr(engine, "last_events", fail)
    answer = await client.get("/api/events")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.json()["error"] == {"code": "unavailable", "message": "journal.db: disk I/O error"}


async def test_a_large_batch_is_read_outside_of_the_loop_and_is_whole(engine, http_config, serving, shop):
    roomy = msgspec.structs.replace(http_config, max_body=4 * 1024 * 1024)
    items = [{"id": f"o-{number}", "type": "request", "data": {"path": "/" * 50}} for number in range(2000)]
    async with serving(engine, roomy) as client:
        answer = await post(client, shop, items)
    assert (answer.json()["data"]["accepted"], len(engine.events)) == (2000, 2000)


# ---- events are listed --------------------------------------------------------------------------------------------------


async def test_the_last_events_are_listed_oldest_first(client, busy):
    data = (await client.get("/api/events", params={"limit": 2})).json()["data"]
    assert [event["seq"] for event in data["events"]] == [24, 25]
    assert data["next"] == 25
    assert data["events"][1] == {
        "seq": 25,
        "id": "order-25",
        "type": "request",
        "timestamp": "2026-11-23T22:06:55.000Z",
        "receivedAt": "2026-11-23T22:06:55.000Z",
        "source": "token:shop",
        "data": {"quantity": 25},
    }


async def test_events_are_paged_by_number_and_picked_by_type(client, busy):
    seen, after = [], 0
    while True:
        data = (await client.get("/api/events", params={"after": after, "limit": 2, "type": "request"})).json()["data"]
        if not data["events"]:
            break
        seen += [event["seq"] for event in data["events"]]
        after = data["next"]
    assert seen == [5, 10, 15, 20, 25]
    assert after == 25
    both = (await client.get("/api/events?type=request,ticket_sale&after=20")).json()["data"]["events"]
    assert [event["seq"] for event in both] == [21, 22, 23, 24, 25]


@pytest.mark.parametrize(
    "params",
    [{"limit": "0"}, {"limit": "1001"}, {"limit": "-1"}, {"after": "x"}, {"after": "1.5"}, {"after": "9" * 30}],
)
async def test_a_wrong_parameter_of_the_list_is_named(client, params):
    answer = await client.get("/api/events", params=params)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_parameter")
    assert repr(next(iter(params))) in answer.json()["error"]["message"]


# ---- events are followed --------------------------------------------------------------------------------------------------


async def test_a_follower_hears_each_event_as_it_is_taken(client, engine, shop):
    async with following(client) as pieces:
        await post(
            client, shop, {"id": "o-1", "type": "ticket_sale", "timestamp": 1795468050, "data": {"text": "a\nb"}}
        )
        with trio.fail_after(10):
            piece = await anext(pieces)
    assert piece["id"] == "1"
    assert json.loads(piece["data"]) == (await client.get("/api/events")).json()["data"]["events"][0]


async def test_a_follower_that_comes_again_goes_on_where_it_was(client, busy, shop):
    async with following(client, params={"after": 20}) as pieces:
        assert await take(pieces, 2) == [21, 22]
    await post(client, shop, {"id": "new", "type": "request"})
    async with following(client, params={"after": 20}, headers={"Last-Event-ID": "22"}) as pieces:
        assert await take(pieces, 4) == [23, 24, 25, 26]


async def test_without_a_number_a_follower_begins_now_and_with_zero_at_the_beginning(client, busy, shop):
    async with following(client, params={"after": 0}) as pieces:
        assert await take(pieces, 25) == list(range(1, 26))
    async with following(client) as pieces:
        await post(client, shop, {"id": "new", "type": "request"})
        assert await take(pieces, 1) == [26]


async def test_a_follower_of_one_type_hears_that_type_only(client, busy, shop):
    async with following(client, params={"after": 0, "type": "request"}) as pieces:
        assert await take(pieces, 5) == [5, 10, 15, 20, 25]
        await post(client, shop, [{"id": "x", "type": "ticket_sale"}, {"id": "y", "type": "request"}])
        assert await take(pieces, 1) == [27]


async def test_a_follower_far_behind_gets_every_event_in_order(client, engine, shop):
    many = [{"id": f"o-{number}", "type": "request"} for number in range(1, 951)]
    for start in range(0, 950, 190):
        await post(client, shop, many[start : start + 190])
    async with following(client, params={"after": 0}) as pieces:
        assert await take(pieces, 950) == list(range(1, 951))


@pytest.mark.parametrize("seen", ["26", "9" * 19])
async def test_a_follower_that_knows_a_later_number_than_the_newest_is_told_and_begins_there(client, busy, shop, seen):
    async with following(client, headers={"Last-Event-ID": seen}) as pieces:
        with trio.fail_after(10):
            told = await anext(pieces)
        assert (told["event"], told["id"]) == ("reset", "25")
        assert json.loads(told["data"]) == {"after": int(seen), "newest": 25}
        await post(client, shop, {"id": "new", "type": "request"})
        assert await take(pieces, 1) == [26]
    assert (await client.get("/api/events", params={"after": 999})).json()["data"] == {"events": [], "next": 26}


@pytest.mark.parametrize("seen", ["x", "-1", "1 2", "9" * 30])
async def test_a_number_that_is_none_is_refused(client, seen):
    answer = await client.get("/api/events/stream", headers={"Last-Event-ID": seen})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_parameter")


async def test_a_follower_without_news_hears_that_the_stream_lives(client, monkeypatch):
    monkeypatch.setattr(streams, "PING_S", 0.05)
    async with following(client) as pieces:
        with trio.fail_after(10):
            assert await anext(pieces) == {":": "ping"}
            assert await anext(pieces) == {":": "ping"}


async def test_a_stop_ends_followers_at_once_and_in_order(engine, http_config, serving):
    ended: list[str] = []

    async def follow(client, path, *, task_status) -> None:
        async with following(client, path) as pieces:
            task_status.started()
            async for _ in pieces:
                pass
            ended.append(path)

    with trio.fail_after(3):  # far less than the grace that requests in flight are given
        async with trio.open_nursery() as nursery, serving(engine, http_config) as client:
            await nursery.start(follow, client, "/api/events/stream")
            await nursery.start(follow, client, "/api/stream")
    assert sorted(ended) == ["/api/events/stream", "/api/stream"]


async def test_a_follower_that_takes_nothing_does_not_hold_up_the_stop(engine, http_config, serving, shop, monkeypatch):
    monkeypatch.setattr(server, "STALLED_MS", 300)
    for number in range(1, 2001):
        engine.events.append(
            StoredEvent(number, "test", 1.0, Event(f"o-{number}", "request", 1.0, {"text": "x" * 10_000}))
        )
    with trio.fail_after(20):
        async with serving(engine, http_config) as client:
            stalled = await trio.open_tcp_stream(client.base_url.host, client.base_url.port)
            await stalled.send_all(b"GET /api/events/stream?after=0 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await stalled.receive_some(1000)
            assert (await client.get("/readyz")).status_code == 200
        await stalled.aclose()


async def test_streams_are_limited_in_number_and_given_back(client, monkeypatch):
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    async with following(client):
        answer = await client.get("/api/events/stream")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "too_many_streams")
    with trio.fail_after(10):
        while not await opens(client):  # noqa: ASYNC110 - the room tells nobody when it notices that a client left
            await trio.sleep(0.01)


async def opens(client) -> bool:
    try:
        async with following(client):
            return True
    except AssertionError:
        return False


async def test_a_request_with_a_key_is_repeated_without_harm(client, shop, engine):
    events = [{"type": "ticket_sale", "data": {"quantity": n}} for n in range(3)]
    keyed = shop | {"Idempotency-Key": '"order-7"'}
    first = (await post(client, keyed, events)).json()["data"]
    again = (await post(client, shop | {"Idempotency-Key": "order-7"}, events)).json()["data"]
    assert (first["accepted"], again["accepted"], again["duplicates"]) == (3, 0, 3)
    assert [one["seq"] for one in again["results"]] == [one["seq"] for one in first["results"]] and len(
        engine.events
    ) == 3
    assert (await post(client, shop, events)).json()["data"]["accepted"] == 3, "without a key they are others"


async def test_the_key_of_another_request_is_refused_and_nothing_is_taken(client, shop, engine):
    keyed = shop | {"Idempotency-Key": "k"}
    await post(client, keyed, [{"type": "ticket_sale", "data": {"quantity": n}} for n in range(2)])
    answer = await post(client, keyed, [{"type": "ticket_sale", "data": {"quantity": n}} for n in (0, 5)])
    assert answer.status_code == 200 and [one["index"] for one in answer.json()["data"]["refused"]] == [1]
    answer = await post(client, keyed, {"type": "ticket_sale", "data": {"quantity": 9}})
    assert answer.status_code == 422 and answer.json()["error"]["code"] == "key_reused" and len(engine.events) == 2
    named = {"id": "mine", "type": "ticket_sale", "data": {}}
    assert (await post(client, keyed, named)).json()["data"]["results"][0]["id"] == "mine", "an id of its own it keeps"


@pytest.mark.parametrize("key", ["x" * 101, '""', '" "', "caf\u00e9".encode("latin-1"), b"a\tb"])
async def test_a_key_that_is_none_is_refused(client, shop, engine, key):
    answer = await post(client, shop | {"Idempotency-Key": key}, {"type": "ticket_sale", "data": {}})
    assert answer.status_code == 400 and engine.events == [] and "Idempotency-Key" in answer.text
