"""journal.db through its front door: durable, numbered without gaps, each caller on its own, nobody half written."""

import re
import resource
import sqlite3
import threading
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec
import pytest
import trio
from msgspec.structs import replace

from sixfbd.journal import schema
from sixfbd.journal.database import (
    Accepted,
    AmbiguousIdError,
    Duplicate,
    JournalBroken,
    JournalDatabase,
    NewEvent,
    StateLockedError,
)
from sixfbd.journal.event_log import KNOWN_FOR_S
from sixfbd.journal.records import (
    Acked,
    AlertChanged,
    Audited,
    Base,
    CheckPaused,
    MessageChanged,
    ObligationChanged,
    Owed,
    Stopped,
)
from sixfbd.journal.restore import restore
from sixfbd.journal.schema import WAL_KEEP_BYTES
from sixfbd.journal.verify import verify_file
from sixfbd.model import (
    Alert,
    AlertKey,
    AlertState,
    CheckName,
    Event,
    Message,
    MessageId,
    MetricKind,
    Obligation,
    RuleName,
    Series,
    Severity,
    Target,
)
from sixfbd.readers.queries import EngineReader

NOW = 1_800_000_000.0
SOLD = Series("shop_sold_total", (("tier", "ga"),), MetricKind.COUNTER)
WEB = CheckName("web")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.db"


@pytest.fixture
async def journal(path):
    async with JournalDatabase(path) as database:
        yield database


def new_event(name, at=NOW, *, kind="sale", received_at=None, **data):
    return NewEvent(Event(name, kind, at, data), at if received_at is None else received_at)


def sale(name, at=NOW, quantity=1.0):
    return NewEvent(Event(name, "sale", at, {"quantity": quantity}), at, ((SOLD, round(at * 1000), quantity),))


def audited(text, at=NOW):
    return Audited(at, "uid:0 root", text, "ok")


def alert(incident, state=AlertState.FIRING, rule="Slow"):
    return Alert(
        key=AlertKey(RuleName(rule), ()),
        id=incident,
        state=state,
        since=NOW,
        severity=Severity.HIGH,
        value=1.0,
        labels={"alertname": rule},
    )


def fired(incident, **changes):
    return AlertChanged(NOW, alert(incident, **changes), AlertState.INACTIVE)


def owed(name, incident):
    return Owed(
        NOW,
        Obligation(
            id=name,
            kind="fire",
            target=Target("primary", "hook"),
            state="pending",
            at=NOW,
            subject=incident,
            severity=Severity.HIGH,
        ),
    )


def sent(name, *obligations, state="accepted"):
    return MessageChanged(
        NOW,
        Message(
            id=MessageId(name),
            target=Target("primary", "hook"),
            state=state,
            created_at=NOW,
            expires_at=NOW + 60,
            obligations=obligations,
        ),
    )


# ---- records -------------------------------------------------------------------------------------------------------------


async def test_records_come_back_as_they_went_in_and_in_order(journal):
    written = [fired("a"), Acked(NOW, "a", "uid:0 root"), owed("o", "a"), sent("m", "o"), Stopped(NOW)]
    assert await journal.commit(written[:2]) == 2
    assert await journal.commit(written[2:]) == 5
    assert [record async for record in journal.load_records()] == written
    assert [stored.seq for stored in await journal.records(after=2)] == [3, 4, 5]
    assert [stored.record for stored in await journal.records(kinds=["acked", "alert"], limit=1)] == written[:1]


async def test_an_empty_commit_changes_nothing(journal):
    await journal.commit([Stopped(NOW)])
    assert await journal.commit([]) == 1
    assert journal.last_record_seq == 1


async def test_fifty_callers_at_once_are_written_in_groups_and_each_gets_its_own_number(journal):
    numbers = []

    async def caller(name):
        for turn in range(10):
            text = f"{name}/{turn}"
            numbers.append((await journal.commit([audited(text)]), text))

    async with trio.open_nursery() as nursery:
        for name in range(50):
            nursery.start_soon(caller, name)
    assert sorted(number for number, _ in numbers) == list(range(1, 501))
    stored = {entry.seq: entry.record.command for entry in await journal.records(limit=1000)}
    assert stored == dict(numbers)
    assert len(journal._writer.latencies) < 500  # commits, for 500 callers' writes


async def test_an_error_stays_with_its_caller(journal):
    outcomes = {}

    async def good(name):
        outcomes[name] = await journal.put_events("shop", [sale(name)])

    async def bad(name):
        with pytest.raises(ValueError, match="cannot be increased by -1"):
            await journal.put_events("shop", [new_event("fine"), sale(name, quantity=-1.0)])
        outcomes[name] = None

    async with trio.open_nursery() as nursery:
        for turn in range(20):
            nursery.start_soon(bad if turn % 3 == 1 else good, f"e{turn}")
    stored = await journal.events()
    assert {event.event.id for event in stored} == {name for name, answer in outcomes.items() if answer}
    assert [event.seq for event in stored] == list(range(1, len(stored) + 1))
    assert await journal.verify() == []


async def test_data_that_is_not_json_is_refused_whole(journal):
    with pytest.raises(TypeError):
        await journal.put_events("shop", [new_event("a"), new_event("b", thing=object())], (WEB, {"page": 1}))
    assert await journal.events() == []
    assert await journal.cursor(WEB) is None


async def test_a_record_that_cannot_be_encoded_takes_its_commit_with_it(journal):
    broken = msgspec.structs.replace(audited("x"), outcome=object())
    with pytest.raises(TypeError):
        await journal.commit([audited("first"), broken])
    assert journal.last_record_seq == 0
    assert await journal.commit([audited("next")]) == 1


async def test_a_base_is_not_committed_like_other_records(journal):
    with pytest.raises(ValueError, match="retain"):
        await journal.commit([Base(NOW, (), (), (), (), (), 0, ())])


async def test_a_caller_cancelled_before_its_turn_has_written_nothing(journal):
    with trio.CancelScope() as scope:
        scope.cancel()
        await journal.commit([audited("never")])
    assert scope.cancelled_caught
    assert await journal.commit([audited("next")]) == 1


async def test_a_caller_cancelled_while_it_is_written_still_gets_its_number(journal):
    numbers = []

    async def caller(scope, started):
        with scope:
            started.set()
            numbers.append(await journal.commit([audited("whole"), audited("and sound")]))
            await trio.lowlevel.checkpoint()
            numbers.append("the cancel was lost")

    for turn in range(20):
        scope, started = trio.CancelScope(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller, scope, started)
            await started.wait()
            scope.cancel()
        assert scope.cancelled_caught
        assert len(await journal.records(limit=100)) == journal.last_record_seq == len(numbers) * 2, turn
    assert numbers == list(range(2, 2 * len(numbers) + 1, 2))
    assert numbers


# ---- the story of one alert ------------------------------------------------------------------------------------------


async def test_the_history_of_an_incident_holds_what_was_owed_and_sent_for_it(journal):
    story = [
        fired("0a1b"),
        owed("o1", "0a1b"),
        owed("o2", "0a1b"),
        sent("m1", "o1", "x1", state="sending"),
        Acked(NOW, "0a1b", "uid:0 root"),
        ObligationChanged(NOW, "o2", "suppressed", "superseded"),
        sent("m1", "o1", "x1"),
    ]
    others = [fired("0a2c"), owed("x1", "0a2c"), sent("m2", "x2"), audited("noise")]
    for mine, other in zip(story, [*others, *others[:3]], strict=True):
        await journal.commit([mine, other] if mine != story[-1] else [other, mine])
    assert await journal.history("0a1b") == story
    assert await journal.history("0a1") == story
    assert await journal.history("m1") == [story[3], story[6]]
    assert await journal.history("nothing") == []


async def test_an_ambiguous_prefix_names_the_alerts_that_it_could_mean(journal):
    await journal.commit([fired("0a1b"), fired("0a2c"), owed("0a1", "0a1b")])
    with pytest.raises(AmbiguousIdError, match=r"0a1b, 0a2c"):
        await journal.history("0a")
    with pytest.raises(AmbiguousIdError, match="give more of it"):
        await journal.history("")


async def test_recent_alerts_are_the_last_form_of_each_latest_first(journal):
    await journal.commit([fired("a"), fired("b"), fired("a", state=AlertState.RESOLVED), audited("noise"), fired("c")])
    assert [(found.id, found.state) for found in await journal.recent_alerts(2)] == [
        ("c", AlertState.FIRING),
        ("a", AlertState.RESOLVED),
    ]
    assert [found.id for found in await journal.recent_alerts()] == ["c", "a", "b"]


async def test_messages_of_a_notifier_are_as_they_were_last_in_a_span_oldest_change_first(journal):
    def changed(name, at, state):
        return msgspec.structs.replace(sent(name, state=state), at=at)

    other = sent("other", state="accepted")
    other = msgspec.structs.replace(other, message=msgspec.structs.replace(other.message, target=Target("p", "mail")))
    await journal.commit(
        [
            changed("old", NOW - 90_000, "accepted"),
            changed("a", NOW, "sending"),
            changed("b", NOW + 1, "sending"),
            other,
            changed("a", NOW + 2, "accepted"),
            changed("b", NOW + 10, "accepted"),
        ]
    )

    async def told(start, end, limit=10):
        return [(one.id, one.state) for one in await journal.messages("hook", start, end, limit)]

    assert await told(NOW, NOW + 10) == [("b", "sending"), ("a", "accepted")]
    assert await told(NOW, NOW + 11) == [("a", "accepted"), ("b", "accepted")]
    assert await told(NOW - 90_000, NOW + 11, limit=2) == [("a", "accepted"), ("b", "accepted")]
    assert await told(NOW + 11, NOW + 99) == []


async def test_plugins_are_told_of_the_messages_about_an_alert_the_first_one_first(journal):
    def provided(record, name):
        return msgspec.structs.replace(record, message=msgspec.structs.replace(record.message, provider_id=name))

    await journal.commit([fired("0a1b"), owed("o1", "0a1b"), owed("o2", "0a1b"), fired("0a2c"), owed("x1", "0a2c")])
    await journal.commit(
        [sent("m1", "o1", "x1", state="sending"), sent("m2", "o2"), provided(sent("m1", "o1", "x1"), "p")]
    )
    reader = EngineReader(None, journal, list)
    told = await reader.messages_about("0a1b")
    assert [(one.id, one.obligations, one.provider_id) for one in told] == [
        ("m1", ("o1", "x1"), "p"), ("m2", ("o2",), None),
    ]  # fmt: skip
    assert [one.id for one in await reader.messages_about("0a2c")] == ["m1"]
    assert await reader.messages_about("nothing") == []


# ---- events ------------------------------------------------------------------------------------------------------------


async def test_events_are_numbered_without_gaps_whatever_happens_at_once(journal):
    async def shop(name):
        for turn in range(15):
            batch = [sale(f"{name}/{turn}/{i}") for i in range(turn % 4)]
            if turn % 5 == 4:
                with pytest.raises(ValueError, match="cannot be increased"):
                    await journal.put_events("shop", [*batch, sale("bad", quantity=-1.0)])
            else:
                await journal.put_events("shop", [*batch, *batch[:1]])

    async with trio.open_nursery() as nursery:
        for name in range(10):
            nursery.start_soon(shop, name)
    stored = await journal.events(limit=10_000)
    assert [event.seq for event in stored] == list(range(1, journal.last_event_seq + 1))
    assert len(stored) == 10 * sum(turn % 4 for turn in range(15) if turn % 5 != 4)
    assert await journal.verify() == []


async def test_a_duplicate_is_known_within_the_batch_from_another_and_after_a_restart(path):
    async with JournalDatabase(path) as journal:
        assert await journal.put_events("shop", [sale("a"), sale("b"), sale("a")]) == [
            Accepted(1),
            Accepted(2),
            Duplicate(1),
        ]
        assert await journal.put_events("shop", [sale("b"), sale("c")]) == [Duplicate(2), Accepted(3)]
        assert await journal.put_events("elsewhere", [sale("a")]) == [Accepted(4)]
    async with JournalDatabase(path) as journal:
        assert await journal.put_events("shop", [sale("c"), sale("d")]) == [Duplicate(3), Accepted(5)]
        assert journal.step_series() == [(SOLD, 5.0, round(NOW * 1000))]


async def test_an_event_with_a_source_of_its_own_is_known_by_that_one_whoever_writes_it(path):
    own = msgspec.structs.replace(sale("a"), source="type:sale")
    async with JournalDatabase(path) as journal:
        assert await journal.put_events("shop", [sale("a"), own, own]) == [Accepted(1), Accepted(2), Duplicate(2)]
        assert await journal.put_events("elsewhere", [own]) == [Duplicate(2)]
    async with JournalDatabase(path) as journal:
        assert await journal.put_events("third", [own]) == [Duplicate(2)]
        assert [stored.source for stored in await journal.events()] == ["shop", "type:sale"]
        assert journal.step_series() == [(SOLD, 2.0, round(NOW * 1000))]


async def test_an_event_is_known_for_seven_days_after_it_was_received(journal):
    await journal.put_events("shop", [new_event("a"), new_event("b")])
    late = NOW + KNOWN_FOR_S
    assert await journal.put_events("shop", [new_event("a", received_at=late - 1)]) == [Duplicate(1)]
    assert await journal.put_events("shop", [new_event("a", received_at=late)]) == [Accepted(3)]
    assert await journal.put_events("shop", [new_event("b", received_at=NOW - 3600)]) == [Duplicate(2)]


async def test_events_are_found_by_number_type_and_time(journal):
    for number in range(1, 7):
        kind = "sale" if number % 2 else "refund"
        await journal.put_events("shop", [new_event(f"e{number}", NOW + number, kind=kind, n=number)])
    await journal.put_events("shop", [new_event("late", NOW, kind="sale")])

    async def found(*args, **filters):
        return [stored.seq for stored in await journal.events(*args, **filters)]

    assert await found() == [1, 2, 3, 4, 5, 6, 7]
    assert await found(4) == [5, 6, 7]
    assert await found(limit=2, newest_first=True) == [7, 6]
    assert await found(types=["sale"]) == [1, 3, 5, 7]
    assert await found(2, types=["sale", "refund"], limit=3) == [3, 4, 5]
    assert await found(types=["refund"], newest_first=True, limit=2) == [6, 4]
    assert await found(start=NOW + 2, end=NOW + 5) == [2, 3, 4]
    assert await found(types=["sale"], end=NOW + 3) == [1, 7]
    assert await found(types=[]) == []
    [stored] = await journal.events(5, limit=1)
    assert (stored.source, stored.received_at) == ("shop", NOW + 6)
    assert stored.event == Event("e6", "refund", NOW + 6, {"n": 6})


async def test_a_late_increment_is_committed_with_its_event(journal):
    await journal.put_events("shop", [sale("a", NOW, 2.0), sale("b", NOW + 7200, 3.0)])
    await journal.put_events("shop", [sale("late", NOW + 3600, 10.0)])
    hours = journal.step_hours(SOLD, 0, 2**60)
    assert [(before, add.tolist()) for _, before, _, add in hours] == [(0.0, [2.0]), (2.0, [10.0]), (12.0, [3.0])]
    assert journal.step_series() == [(SOLD, 15.0, round((NOW + 7200) * 1000))]
    assert await journal.verify() == []


async def test_step_series_may_be_read_from_any_thread_while_events_are_written(journal):
    totals = []
    stop = threading.Event()

    def read_on():
        while not stop.is_set():
            totals.extend(total for _, total, _ in journal.step_series())

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(trio.to_thread.run_sync, read_on)
        for number in range(100):
            await journal.put_events("shop", [sale(f"e{number}"), sale(f"f{number}")])
        stop.set()
    assert {total % 2 for total in totals} <= {0.0}  # an event's transaction is seen whole
    assert journal.step_series()[0][1] == 200.0


# ---- cursors -----------------------------------------------------------------------------------------------------------


async def test_a_cursor_moves_with_its_events_or_alone_and_survives_a_restart(path):
    async with JournalDatabase(path) as journal:
        assert await journal.cursor(WEB) is None
        await journal.put_events("check:web", [sale("a")], (WEB, {"page": 1}))
        assert await journal.put_events("check:web", [], (WEB, {"page": 2})) == []
        with pytest.raises(ValueError, match="cannot be increased"):
            await journal.put_events("check:web", [sale("b", quantity=-1.0)], (WEB, {"page": 3}))
        assert await journal.cursor(WEB) == {"page": 2}
    async with JournalDatabase(path) as journal:
        assert await journal.cursor(WEB) == {"page": 2}


async def test_a_cursor_over_64_kib_is_refused_with_its_events(journal):
    await journal.put_events("check:web", [], (WEB, "x" * (64 * 1024 - 2)))
    with pytest.raises(ValueError, match="check web: the cursor has 65537 bytes, 65536 are allowed"):
        await journal.put_events("check:web", [sale("a")], (WEB, "x" * (64 * 1024 - 1)))
    assert await journal.events() == []


# ---- news --------------------------------------------------------------------------------------------------------------


async def test_a_subscriber_who_reads_on_from_the_journal_misses_nothing(journal):
    seen = []

    async def follow(task_status=trio.TASK_STATUS_IGNORED):
        with journal.subscribe() as news:
            task_status.started()
            async for _ in news:
                while page := await journal.events(len(seen), limit=7):
                    seen.extend(stored.seq for stored in page)
                if len(seen) == 200:
                    return

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(follow)
            for number in range(100):
                await journal.put_events("shop", [sale(f"a{number}"), sale(f"b{number}")])
    assert seen == list(range(1, 201))


async def test_only_new_events_wake_a_subscriber_and_the_end_of_the_journal_ends_it(path):
    with ExitStack() as stack:
        async with JournalDatabase(path) as journal:
            await journal.put_events("shop", [sale("a")])
            news = stack.enter_context(journal.subscribe())
            await journal.commit([audited("no event")])
            await journal.put_events("shop", [sale("a")], (WEB, 1))
            with pytest.raises(trio.WouldBlock):
                news.receive_nowait()
            await journal.put_events("shop", [sale("b")])
            assert news.receive_nowait() == 2
        with pytest.raises(trio.EndOfChannel):
            news.receive_nowait()


# ---- opening and closing -----------------------------------------------------------------------------------------------


async def test_what_was_alive_last_is_known_at_the_next_start(path):
    async with JournalDatabase(path) as journal:
        assert journal.last_alive_at is None
        await journal.touch(NOW)
        await journal.touch(NOW + 5)
    async with JournalDatabase(path) as journal:
        assert journal.last_alive_at == NOW + 5


async def test_a_mark_of_life_leaves_later_writes_as_durable_as_before(path, journal):
    await journal.touch(NOW)
    await journal.commit([audited("after")])
    assert journal._writer._connection.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_leaving_writes_what_waits_and_leaves_one_file(path):
    numbers = []

    async def caller(journal, number):
        numbers.append(await journal.commit([audited(str(number))]))

    async with trio.open_nursery() as nursery:
        async with JournalDatabase(path) as journal:
            for number in range(200):
                nursery.start_soon(caller, journal, number)
            while journal.last_record_seq == 0:
                await trio.lowlevel.checkpoint()
    assert sorted(numbers) == list(range(1, 201))
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["journal.db", "lock"]


async def test_a_cancel_around_it_still_lets_what_waits_be_written(path):
    with trio.CancelScope() as scope:
        async with JournalDatabase(path) as journal:
            await journal.commit([audited("before")])
            scope.cancel()
            with trio.CancelScope(shield=True):
                await journal.commit([audited("while stopping")])
            await trio.lowlevel.checkpoint()
    async with JournalDatabase(path) as journal:
        assert journal.last_record_seq == 2


async def test_a_closed_journal_says_so(path):
    async with JournalDatabase(path) as journal:
        pass
    with pytest.raises(JournalBroken, match=r"journal\.db: the journal is closed"):
        await journal.commit([audited("late")])
    with pytest.raises(JournalBroken, match="is closed"):
        await journal.events()


async def test_a_second_instance_on_the_same_state_directory_is_refused(path, journal):
    with pytest.raises(StateLockedError, match=r"another sixfbd \(pid [0-9]+\) uses this state directory; stop it"):
        async with JournalDatabase(path):
            pass
    assert await journal.commit([audited("undisturbed")]) == 1


async def test_the_file_is_for_its_user_and_group_only(path, journal):
    assert path.stat().st_mode & 0o007 == 0


async def test_a_file_that_is_no_database_is_set_aside_untouched_and_named(path):
    text = "this is no database, whatever its name says\n" * 100
    path.write_text(text)
    async with JournalDatabase(path) as journal:
        assert await journal.commit([audited("works")]) == 1
    assert re.fullmatch(
        r"journal\.db was damaged and set aside as journal\.db\.corrupt-\w+ \(file is not a database\): "
        r"nothing of it can be read \(.*\); the journal is empty now: alerts, tokens and events are lost",
        str(journal.damage),
    )
    assert path.with_name(journal.damage.aside).read_text() == text


async def test_the_database_of_another_program_is_refused(path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
    with pytest.raises(JournalBroken, match="not a journal of sixfbd"):
        async with JournalDatabase(path):
            pass


OF_TOMORROW = replace(schema.FORM, migrations=(*schema.FORM.migrations, ("CREATE TABLE tomorrow (a INT) STRICT",)))
PAUSED = CheckPaused(1.0, WEB, True, "uid:0")


async def test_a_journal_of_an_older_version_is_brought_up_and_kept_as_it_was(path):
    async with JournalDatabase(path) as database:
        await database.commit([PAUSED])
    path.with_name("journal.db.v1.partial").write_text("of a start that was killed meanwhile")
    with closing(sqlite3.connect(path, isolation_level=None)) as older:
        OF_TOMORROW.migrate(older, path)
        assert older.execute("PRAGMA user_version").fetchone() == (2,)
        assert older.execute("SELECT count(*) FROM tomorrow").fetchone() == (0,)
        assert older.execute("SELECT count(*) FROM records").fetchone() == (1,)
    kept = path.with_name("journal.db.v1")
    assert kept.stat().st_mode == path.stat().st_mode
    assert sorted(one.name for one in path.parent.glob("journal.db.*")) == ["journal.db.v1"]
    assert verify_file(kept) == []
    restore(kept, path.parent)  # back to the older sixfbd
    async with JournalDatabase(path) as database:
        assert [record async for record in database.load_records(0)] == [PAUSED]


async def test_a_journal_of_which_no_copy_can_be_kept_is_left_as_it_is(path):
    async with JournalDatabase(path):
        pass
    path.with_name("journal.db.v1").mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as older:
        with pytest.raises(JournalBroken, match=r"before it is changed no copy can be kept: .*Is a directory"):
            OF_TOMORROW.migrate(older, path)
        assert older.execute("PRAGMA user_version").fetchone() == (1,)
    assert not list(path.parent.glob("*.partial*"))


async def test_a_journal_of_a_newer_version_is_refused(path):
    async with JournalDatabase(path):
        pass
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version=7")
    with pytest.raises(
        JournalBroken, match=r"journal\.db is of version 7, this sixfbd knows up to 1; install a newer sixfbd"
    ):
        async with JournalDatabase(path):
            pass


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda directory: None, "the state directory does not exist; create it"),
        (lambda directory: directory.write_text("a file"), "the state directory is not a directory"),
    ],
)
async def test_a_state_directory_that_cannot_be_used_is_named(tmp_path, make, said):
    directory = tmp_path / "state"
    make(directory)
    with pytest.raises(JournalBroken, match=f"{directory}: {said}"):
        async with JournalDatabase(directory / "journal.db"):
            pass


async def test_a_path_that_cannot_be_a_file_is_named(tmp_path):
    (tmp_path / "journal.db").mkdir()
    with pytest.raises(JournalBroken, match=r"journal\.db: .*look at the owner and the mode"):
        async with JournalDatabase(tmp_path / "journal.db"):
            pass


async def test_after_a_failed_start_the_directory_is_free_again(path):
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (x)")
    with pytest.raises(JournalBroken):
        async with JournalDatabase(path):
            pass
    path.unlink()
    async with JournalDatabase(path) as journal:
        assert await journal.commit([audited("works")]) == 1


async def test_a_wal_begins_at_its_full_size_and_what_is_not_written_yet_is_nothing(path, tmp_path):
    async def content(at: str) -> tuple[list[str], list[str]]:
        for name in ("journal.db", "journal.db-wal"):  # as a crash leaves them
            (tmp_path / at).mkdir(exist_ok=True)
            (tmp_path / at / name).write_bytes(path.with_name(name).read_bytes())
        async with JournalDatabase(tmp_path / at / "journal.db") as copy:
            return [one.event.id for one in await copy.events()], await copy.verify()

    async with JournalDatabase(path) as journal:
        await journal.put_events("shop", [sale("a")])
    async with JournalDatabase(path) as journal:
        assert Path(f"{path}-wal").stat().st_size == WAL_KEEP_BYTES
        assert await content("before") == (["a"], [])
        await journal.put_events("shop", [sale("b")])
        assert Path(f"{path}-wal").stat().st_size == WAL_KEEP_BYTES
        assert await content("after") == (["a", "b"], [])


async def test_a_wal_takes_no_room_that_is_scarce(path, monkeypatch):
    monkeypatch.setattr(schema, "free_bytes", lambda directory: 85 * 2**20)
    async with JournalDatabase(path) as journal:
        assert Path(f"{path}-wal").stat().st_size < WAL_KEEP_BYTES
        assert await journal.commit([audited("works")]) == 1


@pytest.fixture
def quota():
    """No file of this process may grow beyond 3 MiB, as a quota would have it: a part of a large write is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * 2**20, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_wal_that_cannot_have_its_full_size_keeps_no_part_of_it(path, quota):
    async with JournalDatabase(path) as journal:
        assert Path(f"{path}-wal").stat().st_size < 2**20
        assert await journal.commit([audited("works")]) == 1


async def test_a_journal_opens_beside_a_tool_that_writes_to_it(path):
    async with JournalDatabase(path) as journal:
        await journal.commit([audited("works")])
    with closing(sqlite3.connect(path, isolation_level=None)) as tool:
        tool.execute("BEGIN IMMEDIATE")
        async with JournalDatabase(path) as journal:
            assert [one.seq for one in await journal.records()] == [1]
            tool.execute("ROLLBACK")
            assert await journal.commit([audited("works again")]) == 2


async def test_the_wal_shrinks_beside_the_writer(path, journal):
    wal = Path(f"{path}-wal")
    peak = 0
    with trio.fail_after(30):
        number = 0
        while not (peak > 10 * 2**20 and wal.stat().st_size <= WAL_KEEP_BYTES):
            number += 1
            large = peak <= 10 * 2**20
            await journal.commit([audited("x" * (2**20 if large else 1))])
            peak = max(peak, wal.stat().st_size)
            await trio.sleep(0.02)
    assert journal.last_record_seq == number


async def test_status_says_how_the_journal_is(path, journal):
    empty = await journal.status()
    assert (empty.records, empty.commit_p50_s, empty.last_commit_age_s) == (0, None, None)
    await journal.put_events("shop", [sale("a"), sale("b")])
    await journal.commit([audited("x")])
    status = await journal.status()
    assert (status.records, status.events, status.step_series) == (1, 2, 1)
    assert (status.last_record_seq, status.last_event_seq) == (1, 2)
    assert status.size_bytes > 0 and status.wal_bytes > 0
    assert 0 < status.commit_p50_s <= status.commit_max_s
    assert (status.waiting, status.failures, status.last_error) == (0, 0, "")
