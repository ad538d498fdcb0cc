"""The door under attack: checks that go while it waits, floods, texts that cannot be written, plugins' own code."""

from collections import Counter as Counted
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import trio

from sixfbd.intake import (
    EVENTS_A_SECOND,
    EVENTS_AT_ONCE,
    MAX_FREE_SERIES,
    MAX_REPORT_EVENTS,
    Intake,
    Refused,
    declare,
)
from sixfbd.journal.event_log import Accepted
from sixfbd.model import (
    MAX_KINDS,
    CheckName,
    Event,
    MetricKind,
    Refusal,
    Refusals,
    Report,
    Sample,
    Series,
    Status,
    StoredEvent,
)
from sixfbd.plugin import ANY, Counter, EventType, Gauge

WEB = CheckName("web")
STALE_AFTER_S = 300.0
LEFT = Gauge("tickets_left", "Tickets left.", labels=("city",))
SOLD = Counter("tickets_sold_total", "Tickets sold.", labels=("tier",))


class Sale(msgspec.Struct):
    tier: str
    left: int = 0


@dataclass
class SlowJournal:
    """Takes events one call at a time, when `go` is set; answers may be held back one by one."""

    go: trio.Event = field(default_factory=trio.Event)
    seq: int = 0
    cursors: list[Any] = field(default_factory=list)

    @property
    def last_event_seq(self) -> int:
        return self.seq

    async def put_events(self, source: str, events: Any, cursor: Any = None) -> Any:
        if cursor is not None:
            self.cursors.append(cursor)
        numbers = [Accepted(self.seq + n) for n in range(1, len(events) + 1)]
        self.seq += len(events)
        await self.go.wait()
        return numbers

    async def events(self, *args: Any, **options: Any) -> Any:
        return []


@dataclass
class Touched:
    touched: frozenset[Any] = frozenset()
    rows: tuple[Any, ...] = ()


@dataclass
class FakeWindow:
    appended: list[Any] = field(default_factory=list)
    steps: list[Any] = field(default_factory=list)

    def append(self, check: str, at_ms: int, samples: Any, *, complete: bool, stale_after_ms: int) -> Touched:
        self.appended.append((check, [(series.metric, dict(series.labels), value) for series, value in samples]))
        return Touched()

    def step(self, series: Series, at_ms: int, add: float) -> frozenset[Any]:
        self.steps.append((series.metric, add))
        return frozenset()

    def observe(self, series: Series, at_ms: int, values: Mapping[float, int]) -> None:
        raise AssertionError("nothing is observed here")

    def sketch(self, series: Series, lo_ms: int, hi_ms: int) -> object | None:
        return None


@dataclass
class Door:
    intake: Intake
    journal: SlowJournal
    window: FakeWindow


@pytest.fixture
async def door(world):
    journal, window = SlowJournal(), FakeWindow()
    intake = Intake(
        journal, window, world.clock, persist=lambda rows: None, touch=lambda rules: None, committed=lambda events: None
    )
    intake.declare_check(WEB, declare(ANY, 20, 300))
    return Door(intake, journal, window)


def sales(**options):
    return EventType("sale", Sale, metrics=(SOLD, LEFT), **options)


# ---- checks that go, and come again --------------------------------------------------------------------------------------


async def test_a_report_of_a_check_that_is_not_configured_is_refused_by_name(door):
    door.intake.forget_check(WEB)
    assert await door.intake.report(WEB, Report(Status.HEALTHY, "x", (Sample("up", 1.0),))) == Refusals(
        1, (Refusal("the report: there is no check web"),)
    )
    assert door.window.appended == []


@pytest.mark.parametrize("again", [False, True])
async def test_of_a_check_that_goes_while_its_events_are_written_only_they_are_taken(
    autojump_clock, nursery, door, again
):
    report = Report(Status.HEALTHY, "x", (Sample("up", 1.0),), (Event("1", "note", 1.0),))
    said = []

    async def deliver():
        said.extend((await door.intake.report(WEB, report)).named)

    nursery.start_soon(deliver)
    await trio.sleep(0.1)
    door.intake.forget_check(WEB)
    if again:
        door.intake.declare_check(WEB, declare((), 20, 300))
    door.journal.go.set()
    await trio.sleep(0.1)
    assert said == ["the samples: the check was removed or replaced meanwhile"]
    assert door.journal.seq == 1
    assert door.window.appended == [], "series of the old declaration must not come back under the new one"


# ---- floods and churn ----------------------------------------------------------------------------------------------------


async def test_events_that_make_too_many_series_cost_neither_checks_nor_the_engine_theirs(door):
    door.intake.declare_types([sales(counts=lambda sale: [SOLD(1, tier=sale.tier)])])
    door.journal.go.set()
    events = [Event(str(n), "sale", 1.0, {"tier": str(n)}) for n in range(MAX_FREE_SERIES + 5)]
    await door.intake.events("shop", events)
    assert len(door.window.steps) == MAX_FREE_SERIES
    own = [Sample("sixfbd_check_status", 1.0, (("check", "web"),), MetricKind.GAUGE)]
    assert await door.intake.report(WEB, Report(Status.HEALTHY, "x"), own) == Refusals()
    door.intake.report_own(CheckName("sixfbd"), [Sample("sixfbd_series", 1.0)], 60)
    assert [[name for name, *_ in rows] for _, rows in door.window.appended] == [
        ["sixfbd_check_status"],
        ["sixfbd_series"],
    ]


def pods(numbers, metric="pod"):
    return Report(Status.HEALTHY, "x", tuple(Sample(metric, 1.0, (("pod", str(number)),)) for number in numbers))


async def test_a_check_whose_labels_change_does_not_go_deaf(autojump_clock, door):
    """Of 20 places 2 are in use; the others are of pods that are no more, and free when their series have gone stale."""
    for turn in range(40):
        assert await door.intake.report(WEB, pods([2 * turn, 2 * turn + 1])) == Refusals()
        await trio.sleep(STALE_AFTER_S / 2)
    assert all(len(rows) == 2 for _, rows in door.window.appended)


async def test_and_yet_it_may_not_make_series_without_end(autojump_clock, door):
    for second in range(100):
        await door.intake.report(WEB, pods([2 * second, 2 * second + 1]))
        await trio.sleep(1)
    assert sum(len(rows) for _, rows in door.window.appended) == 10


async def test_over_thousands_of_runs_the_door_remembers_no_more_than_a_check_may_have(autojump_clock, door):
    for run in range(5000):
        await door.intake.report(WEB, pods([run], metric=f"metric_{run % 700}"))
        await trio.sleep(7)
    known = door.intake._known[WEB]
    assert len(known._now) + len(known._before) <= 20
    assert len(known._of_metric) <= 40


async def test_what_is_still_reported_keeps_its_place(autojump_clock, door):
    for _ in range(10):
        assert await door.intake.report(WEB, pods(range(10))) == Refusals()
        await trio.sleep(STALE_AFTER_S * 0.7)


async def test_a_flood_of_one_metric_leaves_room_for_the_others(door):
    flood = pods(range(30)).samples
    report = Report(Status.HEALTHY, "x", (*flood, *pods(range(5), metric="good").samples))
    refusals = await door.intake.report(WEB, report)
    [(_, rows)] = door.window.appended
    assert Counted(name for name, *_ in rows) == {"pod": 10, "good": 5}
    assert refusals.count == 20
    assert refusals.named == (
        'pod: is over the limit of 10 series of one metric: 20 times, first {pod="10"}, {pod="11"}',
    )


async def test_more_samples_than_could_be_series_are_counted_and_not_looked_at(door):
    refusals = await door.intake.report(WEB, Report(Status.HEALTHY, "x", (None,) * 1_000_000))
    assert refusals.count == 1_000_000
    assert refusals.named == (
        "NoneType: is not a Sample: 100 times",
        "the report: has more than 100 samples: 999900 times",
    )


async def test_no_more_kinds_of_refusals_are_named_than_a_person_reads(door):
    samples = tuple(Sample(f"no-name-{number}", 1.0) for number in range(60))
    refusals = await door.intake.report(WEB, Report(Status.HEALTHY, "x", samples))
    assert refusals.count == 60
    assert len(refusals.named) == MAX_KINDS + 1 and refusals.named[-1] == "and 50 more"


async def test_a_large_report_does_not_hold_the_loop(door):
    door.intake.declare_check(WEB, declare(ANY, 20_000, 300))
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await door.intake.report(WEB, pods(range(10_000)))
        nursery.cancel_scope.cancel()
    assert turns >= 4
    assert len(door.window.appended[0][1]) == 10_000


async def test_a_check_that_goes_while_its_flood_is_looked_at_leaves_nothing(nursery, door):
    door.intake.declare_check(WEB, declare(ANY, 20_000, 300))
    said = []

    async def deliver():
        said.extend((await door.intake.report(WEB, pods(range(10_000)))).named)

    nursery.start_soon(deliver)
    while not door.intake._known[WEB]._now:
        await trio.lowlevel.checkpoint()
    door.intake.forget_check(WEB)
    with trio.fail_after(10):
        while not said:
            await trio.lowlevel.checkpoint()
    assert said == ["the samples: the check was removed or replaced meanwhile"]
    assert door.window.appended == []


@pytest.mark.parametrize("name", ["sixfbd_check_status", "sixfbd_series"])
async def test_a_report_cannot_pass_for_the_engine(door, name):
    """Else a scraped page could say that a check of ours is healthy; another daemon's series carry its instance."""
    mine, theirs = Sample(name, 0.0), Sample(name, 1.0, (("instance", "other:9632"), ("job", "own")))
    refusals = await door.intake.report(WEB, Report(Status.HEALTHY, "x", (mine, theirs)))
    assert refusals.count == 1 and f"{name}: begins with sixfbd_" in refusals.named[0]
    assert [value for _, rows in door.window.appended for *_, value in rows] == [1.0]


class Strange:
    def __float__(self):
        raise RuntimeError("no number")

    def __repr__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize("sample", [Strange(), Sample("up", Strange()), Sample(Strange(), 1.0)])  # type: ignore[arg-type]
async def test_whatever_a_sample_does_it_is_refused_and_the_others_taken(door, sample):
    refusals = await door.intake.report(WEB, Report(Status.HEALTHY, "x", (sample, Sample("up", 1.0))))
    assert refusals.count == 1
    assert [len(rows) for _, rows in door.window.appended] == [1]


# ---- floods of events ----------------------------------------------------------------------------------------------------


def notes(count, begin=0):
    return tuple(Event(str(number), "note", 1.0) for number in range(begin, begin + count))


async def test_a_report_with_too_many_events_moves_no_cursor(door):
    """What it brings would be lost otherwise: the next run begins where this one did."""
    door.journal.go.set()
    events = notes(MAX_REPORT_EVENTS + 1)
    refusals = await door.intake.report(WEB, Report(Status.HEALTHY, "x", (Sample("up", 1.0),), events, cursor=7))
    assert refusals.cursor_stays
    assert refusals.count == MAX_REPORT_EVENTS + 1 and "bring them page by page" in refusals.named[0]
    assert door.journal.seq == 0 and door.journal.cursors == []
    assert [len(rows) for _, rows in door.window.appended] == [1], "its samples are taken"


async def test_a_check_may_catch_up_but_not_flood(autojump_clock, door):
    door.journal.go.set()
    while not (refusals := await door.intake.report(WEB, Report(Status.HEALTHY, "x", (), notes(5000), cursor=1))).count:
        assert door.journal.seq <= EVENTS_AT_ONCE
    assert refusals.count == 5000 and "brings more than 100 a second" in refusals.named[0]
    taken = door.journal.seq
    assert taken == EVENTS_AT_ONCE
    await trio.sleep(5000 / EVENTS_A_SECOND)
    assert (await door.intake.report(WEB, Report(Status.HEALTHY, "x", (), notes(5000), cursor=1))).count == 0
    assert door.journal.seq == taken + 5000


# ---- texts that cannot be written ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["/mnt/\udcff", "a\0b"])
async def test_a_label_that_cannot_be_written_is_refused(door, value):
    [refusal] = (
        await door.intake.report(WEB, Report(Status.HEALTHY, "x", (Sample("up", 1.0, (("mount", value),)),)))
    ).named
    assert "has a label mount whose value is not text" in refusal
    refusal.encode()


@pytest.mark.parametrize("sample", [Sample("\udcff", 1.0), Sample("up", 1.0, (), "gauge")])  # type: ignore[arg-type]
async def test_a_refusal_can_always_be_written(door, sample):
    [refusal] = (await door.intake.report(WEB, Report(Status.HEALTHY, "x", (sample,)))).named
    refusal.encode()


# ---- plugins' own code -----------------------------------------------------------------------------------------------------


class Fussy(msgspec.Struct):
    tier: str

    def __post_init__(self):
        raise KeyError("a fault of the plugin's")


async def test_a_form_of_data_that_fails_refuses_the_event_and_not_the_others(door):
    door.intake.declare_types([EventType("sale", Fussy)])
    door.journal.go.set()
    refused, accepted = await door.intake.events(
        "shop", [Event("1", "sale", 1.0, {"tier": "ga"}), Event("2", "x", 1.0)]
    )
    assert isinstance(refused, Refused) and "a fault of the plugin's" in refused.message
    assert accepted == Accepted(1)


def leave(sale):
    raise SystemExit(1)


@pytest.mark.parametrize("counts", [leave, lambda sale: [Sample(7, 1.0)], lambda sale: [Sample("a b", 1.0)]])
async def test_what_a_plugin_counts_amiss_costs_the_count_alone(door, counts):
    door.intake.declare_types([sales(counts=counts)])
    door.journal.go.set()
    assert await door.intake.events("shop", [Event("1", "sale", 1.0, {"tier": "ga"})]) == [Accepted(1)]
    assert door.window.steps == []
    assert door.intake.event_outcomes["sale", "derive_failed"] == 1


# ---- order ---------------------------------------------------------------------------------------------------------------


async def test_a_gauge_keeps_what_the_event_of_highest_number_set(autojump_clock, nursery, door):
    """Two events of one group commit: the task of the second may run first."""
    door.intake.declare_types([sales(sets=lambda sale: [LEFT(sale.left, city="dallas")])])
    first, second = trio.Event(), trio.Event()
    gates = iter((first, second))
    put = door.journal.put_events

    async def gated(*args):
        gate = next(gates)
        door.journal.go.set()
        answer = await put(*args)
        await gate.wait()
        return answer

    door.journal.put_events = gated
    for number, left in ((1, 9), (2, 8)):
        nursery.start_soon(door.intake.events, "shop", [Event(str(number), "sale", 1.0, {"tier": "ga", "left": left})])
        await trio.sleep(0.1)
    second.set()
    await trio.sleep(0.1)
    first.set()
    await trio.sleep(0.1)
    assert [rows[0][2] for _, rows in door.window.appended] == [8.0]


@pytest.mark.parametrize(
    "said",
    [
        {"notice_text": leave},
        {"notice_text": lambda sale: 7},
        {"notice_labels": lambda sale: {"city": 7}},
        {"notice_labels": lambda sale: 7},
    ],
)
async def test_a_type_that_cannot_say_its_notice_is_named_and_its_event_is_told_all_the_same(door, said):
    door.intake.declare_types([sales(notice="sale", **said)])
    stored = StoredEvent(1, "shop", 1.0, Event("e", "sale", 1.0, {"tier": "ga"}))
    assert door.intake.notice_of(stored) == ("", {})
    assert door.intake.event_outcomes["sale", "derive_failed"] == 1


async def test_a_notice_is_one_line_in_the_words_of_its_type(door):
    door.intake.declare_types(
        [
            sales(
                notice="sale",
                notice_text=lambda sale: f"Sold:\n{sale.tier}",
                notice_labels=lambda sale: {"tier": sale.tier},
            )
        ]
    )
    stored = StoredEvent(1, "shop", 1.0, Event("e", "sale", 1.0, {"tier": "ga"}))
    assert door.intake.notice_of(stored) == ("Sold: ga", {"tier": "ga"})
