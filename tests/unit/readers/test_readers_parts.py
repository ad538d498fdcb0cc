"""What readers share: the bell, tokens, queries over a snapshot, an event's answer."""

from collections import Counter
from types import SimpleNamespace

import pytest
import trio

from sixfbd.config import Token
from sixfbd.http.engine import EventResult
from sixfbd.intake import Refused
from sixfbd.journal.event_log import Accepted, Duplicate
from sixfbd.journal.records import TokenChanged
from sixfbd.journal.state import State
from sixfbd.model import Event, Series, StoredEvent, labels_of
from sixfbd.promql import PromQLError, QueryError
from sixfbd.quantities import Secret
from sixfbd.readers import queries, tokens
from sixfbd.readers.bell import Bell
from sixfbd.readers.condition import remarks
from sixfbd.readers.for_http import event_result
from sixfbd.readers.queries import EngineReader, selector_matchers


async def test_the_bell_wakes_all_who_wait_and_whoever_comes_late_need_not_wait(autojump_clock):
    bell, woken, began = Bell(), [], trio.current_time()

    async def wait():
        woken.append(await bell.wait(0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.sleep(1)
        assert woken == []
        bell.ring()
    bell.ring()
    assert woken == [1, 1]
    with trio.fail_after(1):
        assert await bell.wait(0) == 2
        await bell.wait_at_most(1, 60)
    await bell.wait_at_most(2, 60)
    assert trio.current_time() - began == 61, "nothing rang"


def test_a_token_is_found_by_its_secret_and_never_kept():
    secret, other = tokens.new_token(), tokens.new_token()
    assert secret.startswith(tokens.PREFIX) and len(secret) > 40 and secret != other
    made = {"grafana": TokenChanged(1.0, "grafana", tokens.digest(secret), ("read",), "me")}
    fixed = {"shop": Token(secret=Secret("fixed", "env SHOP"), scopes=("events",))}
    assert tokens.find(secret, fixed, made) == ("grafana", ("read",))
    assert tokens.find("fixed", fixed, made) == ("shop", ("events",))
    assert tokens.find(other, fixed, made) is None
    assert tokens.find("", fixed, made) is None
    assert secret not in repr(made)


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        (Accepted(7), EventResult("accepted", 7)),
        (Duplicate(3), EventResult("duplicate", 3)),
        (Refused("data.quantity", "is missing"), EventResult("refused", field="data.quantity", message="is missing")),
    ],
)
def test_what_intake_said_of_an_event_is_told_in_the_rooms_form(taken, said):
    assert event_result(taken) == said


class FakeWindow:
    def __init__(self, snapshot):
        self._snapshot = snapshot
        self.asked = []

    def snapshot(self):
        return self._snapshot

    def latest(self, matchers=()):
        self.asked.append([(one.name, one.op, one.value) for one in matchers])
        return [(Series("up", labels_of({})), 1, 1.0, "web")]


class FakeEvents:
    async def events(self, *, types, start, end, limit):
        await trio.lowlevel.checkpoint()
        return [StoredEvent(n, "s", 0.0, Event(str(n), types[0], 10.0 - n)) for n in (1, 2)]


@pytest.fixture
def reader(snapshot_of):
    return EngineReader(FakeWindow(snapshot_of('up{job="a"} 1 2 3\nup{job="b"} 1 _ stale')), FakeEvents(), list)


async def test_a_query_gives_points_where_there_is_a_value_and_the_metric_where_there_is_one(reader):
    found = await reader.query("up", 0, 120, 60)
    assert dict(found) == {
        (("__name__", "up"), ("job", "a")): [(0.0, 1.0), (60.0, 2.0), (120.0, 3.0)],
        (("__name__", "up"), ("job", "b")): [(0.0, 1.0), (60.0, 1.0)],
    }
    assert dict(await reader.query("sum(up)", 60, 60, 60)) == {(): [(60.0, 3.0)]}


async def test_a_query_that_would_read_too_much_is_refused_with_the_numbers(reader, monkeypatch):
    monkeypatch.setattr(queries, "MAX_POINTS", 2)
    with pytest.raises(QueryError, match=r"would read \d+ samples, more than 2; narrow it"):
        await reader.query("up", 0, 120, 60)


async def test_events_come_by_their_own_time(reader):
    assert [event.id for event in await reader.events("sale", 0, 20)] == ["2", "1"]


def test_series_are_chosen_by_a_selector_and_by_nothing_else(reader):
    assert len(reader.matching("")) == len(reader.matching('up{job!="x"}')) == 1
    assert reader._window.asked == [[], [("__name__", "=", "up"), ("job", "!=", "x")]]
    for wrong in ("up[5m]", "sum(up)", "1", "up{"):
        with pytest.raises(PromQLError):
            selector_matchers(wrong)


async def test_every_message_of_a_sandbox_says_so(world):
    quiet = SimpleNamespace(failing_since=None, state=State(), closed=Counter())
    assert remarks(quiet, world.clock) == []
    [said] = remarks(quiet, world.clock, sandbox=True)
    assert "sandbox" in said
