"""The door: what is validated, refused and named, made durable, then visible; on doubles of the journal and the window."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from sixfbd.containment import one_line
from sixfbd.intake import CLOCK_SKEW_S, MAX_EVENT_DEPTH, Declared, Intake, Refused, declare
from sixfbd.journal.errors import JournalBroken, JournalFull
from sixfbd.journal.event_log import Accepted, Duplicate
from sixfbd.model import (
    CheckName,
    Event,
    MetricKind,
    Refusals,
    Report,
    RuleName,
    Sample,
    Series,
    Status,
    StoredEvent,
    labels_of,
)
from sixfbd.plugin import ANY, Counter, EventType, Gauge, Receipt, Summary

LEFT = Gauge("tickets_left", "Tickets left.", labels=("city",))
SOLD = Counter("tickets_sold_total", "Tickets sold.", labels=("tier",))
TOOK = Summary("took_seconds", "How long it took.")
WEB = CheckName("web")


class Sale(msgspec.Struct):
    tier: str
    quantity: int


SALE = EventType(
    "sale",
    Sale,
    counts=lambda sale: [SOLD(sale.quantity, tier=sale.tier)],
    observes=lambda sale: [TOOK(sale.quantity / 10)],
    sets=lambda sale: [LEFT(9 - sale.quantity, city="dallas")],
    metrics=(SOLD, TOOK, LEFT),
)


@dataclass
class FakeJournal:
    taken: list[Any] = field(default_factory=list)
    cursors: list[Any] = field(default_factory=list)
    full: bool = False
    lost: str = ""  # the next answer: "written" or "not written"

    @property
    def last_event_seq(self) -> int:
        return len(self.taken)

    async def put_events(self, source: str, events: Any, cursor: Any = None) -> Any:
        if self.full:
            raise JournalFull("no space left")
        lost, self.lost = self.lost, ""
        taken = [] if lost == "not written" else self.write(source, events, cursor)
        if lost:
            raise JournalBroken("nobody can tell whether this was written")
        return taken

    def write(self, source: str, events: Any, cursor: Any) -> Any:
        results = []
        for new in events:
            key = (new.source or source, new.event.id)
            known = [seq for seq, (s, old) in enumerate(self.taken, 1) if (s, old.event.id) == key]
            if known:
                results.append(Duplicate(known[0]))
            else:
                self.taken.append((key[0], new))
                results.append(Accepted(len(self.taken)))
        if cursor:
            self.cursors.append(cursor)
        return results

    async def events(self, after_seq: int = 0, *, types: Any = None, start: float = 0.0, limit: int = 1000) -> Any:
        numbered = [
            StoredEvent(seq, s, 0.0, new.event) for seq, (s, new) in enumerate(self.taken, 1) if seq > after_seq
        ]
        wanted = (stored for stored in numbered if types is None or stored.event.type in types)
        return [stored for stored in wanted if stored.event.timestamp >= start][:limit]


@dataclass
class Touched:
    touched: frozenset[RuleName] = frozenset({RuleName("r")})
    rows: tuple[Any, ...] = ()


@dataclass
class FakeWindow:
    appended: list[Any] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)
    observed: list[Any] = field(default_factory=list)
    written: dict[int, object] = field(default_factory=dict)

    def append(self, check: str, at_ms: int, samples: Any, *, complete: bool, stale_after_ms: int) -> Touched:
        self.appended.append((check, list(samples), complete))
        return Touched()

    def step(self, series: Series, at_ms: int, add: float) -> frozenset[RuleName]:
        self.steps.append((series.metric, dict(series.labels), at_ms, add))
        return frozenset({RuleName("steps")})

    def observe(self, series: Series, at_ms: int, values: Mapping[float, int]) -> None:
        self.observed += [(series.metric, value) for value, times in values.items() for _ in range(times)]

    def sketch(self, series: Series, lo_ms: int, hi_ms: int) -> object | None:
        return self.written.get(lo_ms // 60_000)


@dataclass
class Door:
    intake: Intake
    journal: FakeJournal
    window: FakeWindow
    touched: list[Any]
    committed: list[list[StoredEvent]]
    problem: str = ""


@pytest.fixture
async def door(world) -> Door:
    journal, window, touched, committed = FakeJournal(), FakeWindow(), [], []
    intake = Intake(
        journal,
        window,
        world.clock,
        persist=lambda rows: None,
        touch=touched.append,
        committed=committed.append,
        volatile=lambda: made.problem,
    )
    intake.declare_check(WEB, declare((LEFT,), 100, 300))
    intake.declare_types([SALE])
    made = Door(intake, journal, window, touched, committed)
    return made


def report(*samples: Any, status: Status = Status.HEALTHY, **more: Any) -> Report:
    return Report(status, "x", tuple(samples), **more)


async def test_every_series_of_a_report_carries_its_check(door):
    assert await door.intake.report(WEB, report(LEFT(3, city="dallas"))) == Refusals()
    [(check, [(series, value)], complete)] = door.window.appended
    assert (check, value, complete) == ("web", 3.0, True)
    assert series == Series("tickets_left", labels_of({"check": "web", "city": "dallas"}), MetricKind.GAUGE)
    assert door.touched == [frozenset({"r"})]


async def test_an_undeclared_metric_is_refused_and_named_and_the_rest_taken(door):
    refusals = await door.intake.report(WEB, report(Sample("other", 1.0), LEFT(3, city="dallas")))
    assert refusals.named == ("other: is not declared in the plugin's metrics",)
    assert len(door.window.appended[0][1]) == 1


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        (Sample("tickets_left", 1.0, (("city", math.nan),)), "whose value is not text"),  # type: ignore[arg-type]
        (Sample("tickets_left", 1.0, (("city", "x" * 2000),)), "whose value is not text of at most 1024"),
        (Sample("tickets_left", 1.0, (("9", "x"),)), "a label name that is not one"),
        (Sample("tickets_left", 1.0, (("check", "x"),)), 'the label "check", which the engine sets'),
        (Sample("tickets_left", 1.0, (("town", "x"),)), "other labels than the declared ['city']"),
        (Sample("tickets_left", "nine"), "could not convert string to float"),  # type: ignore[arg-type]
        (Sample("tickets_left", 10**400), "too large"),
        (Sample("tickets_left", 1.0, {"city": "x"}), "labels that are not a tuple"),  # type: ignore[arg-type]
        (Sample("tickets-left", 1.0), "is not a metric name"),
        ("tickets_left 1", "str: is not a Sample"),
        (None, "NoneType: is not a Sample"),
    ],
)
async def test_a_rubbish_sample_is_refused_and_named(door, sample, why):
    refusals = await door.intake.report(WEB, report(sample))
    [refusal] = refusals.named
    assert why in refusal and refusals.count == 1
    assert door.window.appended[0][1] == []


async def test_a_hundred_thousand_series_are_cut_at_the_limit_counted_and_named_once(door):
    refusals = await door.intake.report(WEB, report(*(LEFT(1, city=str(n)) for n in range(100_000))))
    assert len(door.window.appended[0][1]) == 100
    assert refusals.count == 99_900
    assert refusals.named == (
        'tickets_left: is over the limit of 100 series of this check: 400 times, first {city="100"}, {city="101"}',
        "the report: has more than 500 samples: 99500 times",
    )


async def test_a_series_twice_in_one_report_is_taken_once(door):
    refusals = await door.intake.report(WEB, report(LEFT(3, city="dallas"), LEFT(4, city="dallas")))
    assert refusals.named == ('tickets_left: is there twice in one report ({city="dallas"})',)


async def test_a_check_that_may_report_anything_may(world, door):
    door.intake.declare_check(WEB, declare(ANY, 100, 300))
    assert await door.intake.report(WEB, report(Sample("anything", 1.0, (("a", "b"),)))) == Refusals()


async def test_only_a_report_that_saw_ends_the_series_it_does_not_carry(door):
    for status in Status:
        await door.intake.report(WEB, report(status=status))
    assert [complete for *_, complete in door.window.appended] == [True, True, False, False]


async def test_a_cursor_is_committed_with_the_events_of_its_report(door):
    event = Event("1", "other", 1_800_000_000.0)
    await door.intake.report(WEB, report(events=(event,), cursor={"after": 1}))
    assert [source for source, _ in door.journal.taken] == ["check:web"]
    assert door.journal.cursors == [("web", {"after": 1})]


async def test_a_full_journal_takes_the_samples_of_a_report_but_neither_its_events_nor_its_cursor(door):
    door.journal.full = True
    with pytest.raises(JournalFull):
        await door.intake.report(
            WEB, report(LEFT(1, city="x"), events=(Event("1", "other", 1.0),), cursor={"after": 1})
        )
    [(check, rows, *_)] = door.window.appended
    assert (check, rows[0][1]) == (WEB, 1)
    assert (door.journal.taken, door.journal.cursors, door.committed) == ([], [], [])


async def test_while_the_journal_fails_events_are_refused_though_this_one_might_fit(door):
    door.problem = "journal.db: no space left"
    with pytest.raises(JournalBroken, match=r"cannot be written: journal\.db: no space left"):
        await door.intake.events("shop", [Event("1", "other", 1.0)])
    assert door.journal.taken == []
    door.problem = ""
    assert await door.intake.events("shop", [Event("1", "other", 1.0)]) == [Accepted(1)]


async def test_an_event_is_counted_observed_and_set_once(door, world):
    sale = Event("s1", "sale", world.clock.now(), {"tier": "ga", "quantity": 2, "unknown": "kept"})
    assert await door.intake.events("shop", [sale]) == [Accepted(1)]
    assert await door.intake.events("shop", [sale]) == [Duplicate(1)]
    assert [(name, add) for name, _, _, add in door.window.steps] == [
        ("tickets_sold_total", 2),
        ("took_seconds_sum", 0.2),
        ("took_seconds_count", 1),
    ]
    assert door.window.observed == [("took_seconds", 0.2)]
    assert [(check, rows[0][1]) for check, rows, _ in door.window.appended] == [("events", 7.0)]
    assert [[stored.seq for stored in events] for events in door.committed] == [[1]]


async def test_an_event_may_tell_of_many_values_at_once(door, world):
    many = EventType("many", Sale, observes=lambda _: [TOOK.times(3, 0.5), TOOK(2.0), TOOK(2.0)], metrics=(TOOK,))
    door.intake.declare_types([many])
    await door.intake.events("shop", [Event("m", "many", world.clock.now(), {"tier": "ga", "quantity": 1})])
    assert door.window.observed == [("took_seconds", value) for value in (0.5, 0.5, 0.5, 2.0, 2.0)]
    adds = [(name, add) for name, _, _, add in door.window.steps]
    assert sum(add for name, add in adds if name == "took_seconds_sum") == 5.5
    assert sum(add for name, add in adds if name == "took_seconds_count") == 5


async def test_a_value_that_was_observed_less_than_once_is_a_fault_of_its_type(door, world):
    never = EventType("never", Sale, observes=lambda _: [TOOK.times(0, 0.5)], metrics=(TOOK,))
    door.intake.declare_types([never])
    await door.intake.events("shop", [Event("n", "never", world.clock.now(), {"tier": "ga", "quantity": 1})])
    assert door.window.observed == [] and door.window.steps == []
    assert door.intake.event_outcomes["never", "derive_failed"] == 1


async def test_a_late_event_lands_at_its_own_time(door, world):
    late = world.clock.now() - 3600
    await door.intake.events("shop", [Event("s1", "sale", late, {"tier": "ga", "quantity": 1})])
    assert door.window.steps[0][2] == round(late * 1000)


async def test_a_claimed_time_far_ahead_is_clamped_and_counted(door, world):
    now = world.clock.now()
    events = [Event("a", "x", now + CLOCK_SKEW_S + 5), Event("b", "x", now + 30)]
    first, second = await door.intake.events("shop", events)
    assert first == Accepted(1, pytest.approx(now, abs=1)) and second == Accepted(2)
    assert [new.event.timestamp - now for _, new in door.journal.taken] == pytest.approx([0, 30], abs=1)
    assert door.intake.clamped_times == 1


@pytest.mark.parametrize(
    ("event", "field_name"),
    [
        (Event("", "sale", 1.0), "id"),
        (Event("x" * 201, "sale", 1.0), "id"),
        (Event("a\nb", "sale", 1.0), "id"),
        (Event("a", "no spaces", 1.0), "type"),
        (Event("a", "sale", math.nan), "timestamp"),
        (Event("a", "sale", -1.0), "timestamp"),
        (Event("a", "sale", 1.0, []), "data"),  # type: ignore[arg-type]
        (Event("a", "x", 1.0, {"t": "x" * 70_000}), "data"),
        (Event("a", "sale", 1.0, {"tier": "ga", "quantity": "two"}), "data.quantity"),
        (Event("a", "sale", 1.0, {"tier": "ga"}), "data.quantity"),
    ],
)
async def test_a_bad_event_is_refused_by_field_and_the_others_taken(door, event, field_name):
    good = Event("good", "other", 1.0)
    refused, accepted = await door.intake.events("shop", [event, good])
    assert isinstance(refused, Refused) and refused.field == field_name and refused.message
    assert accepted == Accepted(1)


def nested(depth: int) -> dict[str, Any]:
    """Objects and lists within each other, `depth` of them."""
    inside: Any = 1
    for level in range(depth - 1):
        inside = [inside, 0] if level % 2 else {"a": inside, "b": 0}
    return {"a": inside}


async def test_data_is_taken_as_deep_as_the_limit_and_refused_beyond(door):
    flat = {"a": [[]] * 200}
    events = [Event("a", "x", 1.0, nested(MAX_EVENT_DEPTH)), Event("b", "x", 1.0, nested(MAX_EVENT_DEPTH + 1))]
    deep, deeper, wide = await door.intake.events("shop", [*events, Event("c", "x", 1.0, flat)])
    assert (deep, wide) == (Accepted(1), Accepted(2))
    assert deeper == Refused("data", "nests objects or lists more than 32 deep")


async def test_a_plugin_function_that_fails_costs_the_count_and_not_the_event(door, world):
    door.intake.declare_types([EventType("sale", Sale, counts=lambda sale: [SOLD(-1, tier="ga")])])
    event = Event("s1", "sale", world.clock.now(), {"tier": "ga", "quantity": 2})
    assert await door.intake.events("shop", [event]) == [Accepted(1)]
    assert door.window.steps == []
    assert door.intake.event_outcomes["sale", "derive_failed"] == 1


def test_a_summary_is_one_line_whatever_it_was():
    assert one_line("a\n b\t c") == "a b c"
    assert len(one_line("é" * 10_000)) == 500


def test_declared_metrics_are_known_by_name():
    declared = declare((LEFT,), 5, 300)
    assert isinstance(declared, Declared) and declared.kinds == {"tickets_left": MetricKind.GAUGE}


async def test_after_a_crash_observations_of_unwritten_minutes_are_put_back_once(door, world):
    now = world.clock.now()
    times = [now - 3600, now - 300, now - 60, now]
    sales = [Event(f"s{n}", "sale", at, {"tier": "ga", "quantity": n}) for n, at in enumerate(times)]
    await door.intake.events("shop", sales)
    door.window.observed.clear()
    door.window.written[round((now - 300) * 1000) // 60_000] = "a sketch"
    assert await door.intake.observe_again() == 2
    assert [value for _, value in door.window.observed] == [0.2, 0.3], "neither the old one nor the written one"


def sold(number: int, at: float) -> Event:
    return Event(f"s{number}", "sale", at, {"tier": "ga", "quantity": number})


def counted(door: Door) -> list[float]:
    return [add for name, _, _, add in door.window.steps if name == "tickets_sold_total"]


def announced(door: Door) -> list[int]:
    return [stored.seq for batch in door.committed for stored in batch]


@pytest.mark.parametrize(("lost", "answer"), [("written", Duplicate(1)), ("not written", Accepted(1))])
async def test_what_a_sender_repeats_because_the_answer_was_lost_is_counted_once(door, world, lost, answer):
    one = sold(1, world.clock.now())
    door.journal.lost = lost
    with pytest.raises(JournalBroken):
        await door.intake.events("shop", [one])
    assert counted(door) == announced(door) == []
    assert await door.intake.events("shop", [one]) == [answer]
    assert (counted(door), announced(door)) == ([1.0], [1])
    assert await door.intake.events("shop", [one]) == [Duplicate(1)]
    assert await door.intake.events("shop", [sold(2, world.clock.now())]) == [Accepted(2)]
    assert (counted(door), announced(door)) == ([1.0, 2.0], [1, 2])
    assert door.intake.event_outcomes["sale", "accepted"] == 2


@pytest.mark.parametrize(("lost", "shown"), [("written", [3.0, 1.0, 2.0]), ("not written", [3.0])])
async def test_what_was_written_without_an_answer_and_is_not_repeated_is_shown_with_the_next(door, world, lost, shown):
    now = world.clock.now()
    door.journal.lost = lost
    with pytest.raises(JournalBroken):
        await door.intake.report(WEB, report(events=(sold(1, now), sold(2, now)), cursor={"page": 1}))
    await door.intake.events("shop", [sold(3, now)])
    await door.intake.events("shop", [sold(3, now)])
    assert counted(door) == shown
    assert max(announced(door)) == len(door.journal.taken)


async def test_a_lost_answer_to_a_repetition_counts_nothing_again(door, world):
    one = sold(1, world.clock.now())
    await door.intake.events("shop", [one])
    door.journal.lost = "written"
    with pytest.raises(JournalBroken):
        await door.intake.events("shop", [one])
    assert await door.intake.events("shop", [one]) == [Duplicate(1)]
    assert counted(door) == [1.0]


async def test_events_without_an_answer_are_kept_in_mind_within_a_limit(door, world, monkeypatch):
    monkeypatch.setattr("sixfbd.intake.MAX_UNANSWERED", 2)
    for number in range(1, 5):
        door.journal.lost = "written"
        with pytest.raises(JournalBroken):
            await door.intake.events("shop", [sold(number, world.clock.now())])
    await door.intake.events("shop", [sold(5, world.clock.now())])
    assert counted(door) == [5.0, 1.0, 2.0]


async def test_an_event_whose_id_is_shared_is_taken_once_whoever_brings_it(door):
    shared = EventType("paid", Sale, counts=SALE.counts, metrics=(SOLD,), shared=True)
    door.intake.declare_types([SALE, shared])
    paid = Event("p1", "paid", 1_800_000_000.0, {"tier": "ga", "quantity": 2})
    sale = Event("p1", "sale", 1_800_000_000.0, {"tier": "vip", "quantity": 1})
    assert [type(one) for one in await door.intake.events("inbound:provider", [paid, sale])] == [Accepted, Accepted]
    assert [type(one) for one in await door.intake.events("check:web", [paid, sale])] == [Duplicate, Accepted]
    assert [(labels["tier"], add) for name, labels, _, add in door.window.steps if name == SOLD.name] == [
        ("ga", 2.0),
        ("vip", 1.0),
        ("vip", 1.0),
    ]


async def test_a_shared_event_whose_answer_was_lost_is_shown_when_another_brings_it(door):
    shared = EventType("paid", Sale, counts=SALE.counts, metrics=(SOLD,), shared=True)
    door.intake.declare_types([shared])
    paid = Event("p1", "paid", 1_800_000_000.0, {"tier": "ga", "quantity": 2})
    door.journal.lost = "written"
    with pytest.raises(JournalBroken):
        await door.intake.events("inbound:provider", [paid])
    assert [type(one) for one in await door.intake.events("check:web", [paid])] == [Duplicate]
    assert [add for *_, add in door.window.steps] == [2.0]


# ---- receipts ------------------------------------------------------------------------------------------------------------


def said_by(door, receipt, data=None):
    """What an event says of a message if its type's `receipt` is this."""
    door.intake.declare_types([EventType("told", Told, receipt=receipt)])
    return door.intake.receipt_of(StoredEvent(1, "s", 1.0, Event("e", "told", 1.0, {"sid": "SM1"} | (data or {}))))


class Told(msgspec.Struct):
    sid: str
    state: str = "delivered"


async def test_an_event_may_say_what_became_of_a_message(door):
    receipt = said_by(door, lambda told: Receipt(state=told.state, provider_id=told.sid, detail="two\nlines"))
    assert receipt == Receipt(state="delivered", provider_id="SM1", detail="two lines")
    assert said_by(door, lambda told: None) is None
    assert door.intake.receipt_of(StoredEvent(1, "s", 1.0, Event("e", "other", 1.0, {}))) is None
    assert not [outcome for _, outcome in +door.intake.event_outcomes if outcome == "derive_failed"]


def failing(told):
    raise SystemExit(1)


@pytest.mark.parametrize(
    ("receipt", "data"),
    [
        (failing, {}),
        (lambda told: told.sid, {}),
        (lambda told: Receipt(state="delivered"), {}),
        (lambda told: Receipt(state="sent", provider_id="x"), {}),
        (lambda told: Receipt(provider_id="x"), {"sid": 5}),
    ],
)
async def test_a_receipt_that_is_none_is_named_and_counted(door, receipt, data):
    assert said_by(door, receipt, data) is None
    assert door.intake.event_outcomes["told", "derive_failed"] == 1


async def test_a_wish_that_is_no_time_is_left_out(door):
    receipt = said_by(door, lambda told: Receipt(state="failed", provider_id="x", temporary=1, retry_after_s=math.nan))
    assert receipt == Receipt(state="failed", provider_id="x", temporary=True)
