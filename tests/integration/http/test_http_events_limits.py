"""How much may come in, and of what time."""

import msgspec

from sixfbd.http.engine import EventResult


async def test_a_token_that_sends_too_much_is_told_when_to_go_on(engine, http_config, serving, shop, monkeypatch):
    now = engine.now()
    monkeypatch.setattr(engine, "now", lambda: now)
    slow = msgspec.structs.replace(http_config, max_event_rate=2)
    async with serving(engine, slow) as client:

        async def send(count):
            return await client.post("/api/events", json=[{"type": "request"}] * count, headers=shop)

        assert (await send(19)).status_code == 200
        assert (await send(5)).status_code == 200  # larger than what is left: taken whole
        answer = await send(1)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_fast")
        assert answer.headers["Retry-After"] == "3"
        assert "max_event_rate" in answer.json()["error"]["message"]
        assert len(engine.events) == 24
        now += 2.5
        assert (await send(1)).status_code == 200


async def test_what_cannot_be_read_counts_as_well(engine, http_config, serving, shop, monkeypatch):
    now = engine.now()
    monkeypatch.setattr(engine, "now", lambda: now)
    slow = msgspec.structs.replace(http_config, max_event_rate=1)
    async with serving(engine, slow) as client:
        for body in [b"{", b'{"type": "\xff"}'] * 5:
            assert (await client.post("/api/events", content=body, headers=shop)).status_code == 400
        assert (await client.post("/api/events", json={"type": "request"}, headers=shop)).status_code == 429


async def test_a_time_too_far_ahead_is_kept_as_now_and_the_answer_says_so(client, shop, engine, monkeypatch):
    async def put(source, events):
        return [EventResult("accepted", 1, kept_at=engine.now())]

    monkeypatch.setattr(engine, "put_events", put)
    event = {"id": "a", "type": "request", "timestamp": engine.now() + 3600}
    answer = await client.post("/api/events", json=event, headers=shop)
    assert answer.json()["data"]["results"] == [
        {"index": 0, "status": "accepted", "id": "a", "seq": 1, "timestamp": "2026-11-23T22:07:30.000Z"}
    ]
