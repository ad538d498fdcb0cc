"""The care of journal.db: retention, verification, backups, export, each while the journal is in use."""

import os
import sqlite3
from contextlib import closing

import msgspec
import pytest
import trio

from sixfbd.journal.database import Accepted, Duplicate, JournalBroken, JournalDatabase, NewEvent, Retained
from sixfbd.journal.records import Acked, Audited, Base
from sixfbd.journal.verify import verify_file
from sixfbd.model import CheckName, Event, MetricKind, Series
from sixfbd.quantities import DAY, HOUR

NOW = 1_800_000_000.0
SOLD = Series("shop_sold_total", (), MetricKind.COUNTER)
REVENUE = Series("shop_revenue_total", (), MetricKind.COUNTER)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "journal.db"


@pytest.fixture
async def journal(path):
    async with JournalDatabase(path, keep_events_s=10 * DAY, keep_records_s=20 * DAY) as database:
        yield database


def sale(name, at=NOW, series=SOLD):
    return NewEvent(Event(name, "sale", at, {"name": name}), at, ((series, round(at * 1000), 1.0),))


def audited(text, at=NOW):
    return Audited(at, "uid:0 root", text, "ok")


def base(at=NOW, judged_event=0):
    return Base(at, (), (), (), (), (), judged_event, ())


async def loaded(journal):
    return [record async for record in journal.load_records()]


# ---- retention -----------------------------------------------------------------------------------------------------------


async def test_the_fold_starts_at_the_base_and_goes_on_with_what_the_base_does_not_hold(journal):
    cut = await journal.commit([audited("in the base"), audited("in the base too")])
    await journal.commit([audited("after the cut")])
    await journal.retain(base(), cut)
    await journal.commit([audited("after the base")])
    assert await loaded(journal) == [base(), audited("after the cut"), audited("after the base")]
    assert len(await journal.records()) == 5  # what is young enough stays for `why`


async def test_a_base_takes_the_place_of_the_one_before_it(path):
    async with JournalDatabase(path) as journal:
        cut = await journal.commit([audited("a")])
        await journal.retain(base(NOW), cut)
        cut = await journal.commit([audited("b")])
        await journal.retain(base(NOW + 1), cut)
        assert await loaded(journal) == [base(NOW + 1)]
        assert [stored.record for stored in await journal.records(kinds=["base"])] == [base(NOW + 1)]
    async with JournalDatabase(path) as journal:
        assert await loaded(journal) == [base(NOW + 1)]
        assert await journal.verify() == []


async def test_records_go_when_they_are_too_old_and_in_the_base(journal):
    for age in (30, 25, 20, 1):
        await journal.commit([audited(f"{age} days", NOW - age * DAY), Acked(NOW - age * DAY, f"alert-{age}", "me")])
    retained = await journal.retain(base(), 2)
    assert retained.records == 2  # those of 25 days are as old, but not in the base
    assert await journal.history("alert-30") == []
    retained = await journal.retain(base(), 8)
    assert retained.records == 2
    assert [stored.record.at for stored in await journal.records(kinds=["audited"])] == [NOW - 20 * DAY, NOW - DAY]
    assert await journal.verify() == []


async def test_events_go_when_they_are_too_old_and_judged_and_numbers_go_on(path, journal):
    for day in range(20):
        await journal.put_events("shop", [sale(f"e{day}", NOW + day * DAY)])
    assert (await journal.retain(base(NOW + 19 * DAY, judged_event=5), 0)).events == 5
    assert [stored.seq for stored in await journal.events(limit=1)] == [6]
    assert (await journal.retain(base(NOW + 19 * DAY, judged_event=20), 0)).events == 4
    assert await journal.verify() == []
    assert (await journal.retain(base(NOW + 60 * DAY, judged_event=20), 0)).events == 11
    assert await journal.events() == []
    assert await journal.verify() == []
    assert await journal.put_events("shop", [sale("next", NOW + 60 * DAY)]) == [Accepted(21)]


async def test_old_hours_of_step_series_go_and_their_total_stays(journal):
    for day in range(20):
        await journal.put_events("shop", [sale(f"e{day}", NOW + day * DAY)])
    await journal.put_events("shop", [sale("only", NOW, REVENUE)])
    assert (await journal.retain(base(NOW + 19 * DAY), 0)).step_hours == 9
    assert [total for _, total, _ in journal.step_series()] == [20.0, 1.0]
    assert journal.step_hours(SOLD, 0, 2**60)[0][1] == 9.0
    assert len(journal.step_hours(REVENUE, 0, 2**60)) == 1  # the last hour holds the total
    await journal.put_events("shop", [sale("very late", NOW - HOUR)])
    assert journal.step_series()[0][1] == 21.0
    assert await journal.verify() == []


async def test_retention_leaves_the_writer_to_others_between_its_slices(journal):
    await journal.put_events("shop", [NewEvent(Event(str(i), "sale", NOW), NOW) for i in range(10_000)])
    numbers, done = [], trio.Event()

    async def write_on():
        while not done.is_set():
            numbers.append(await journal.commit([audited("between")]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_on)
        retained = await journal.retain(base(NOW + 11 * DAY, judged_event=10_000), 0)
        done.set()
    assert retained == Retained(events=10_000)
    assert len(numbers) > 3
    assert await journal.events() == []


async def test_a_journal_that_is_too_large_loses_its_oldest_first_and_gives_the_space_back(path):
    """Records and events in turn, of twenty days; the events of the last seven have to stay."""
    async with JournalDatabase(path, max_bytes=3_500_000) as journal:
        for day in range(20):
            at = NOW + day * DAY
            events = [NewEvent(Event(f"{day}/{n}", "sale", at, {"x": "y" * 300}), at) for n in range(400)]
            await journal.put_events("shop", events)
            await journal.commit([audited("z" * 500, at) for _ in range(50)])
        before = path.stat().st_size + path.with_name("journal.db-wal").stat().st_size
        end = NOW + 19 * DAY
        await journal.retain(base(end, judged_event=8000), journal.last_record_seq)
        events, records = await journal.events(limit=9000), await journal.records(limit=9000)
        assert events[-1].seq == 8000 and 2800 < len(events) < 8000
        oldest = records[0].record.at
        assert abs(oldest - events[0].received_at) <= DAY, "the oldest of both went"
        assert await journal.verify() == []
        status = await journal.status()
        assert status.events == len(events)
    assert path.stat().st_size < 4_700_000 < before, "the file is smaller"
    async with JournalDatabase(path, max_bytes=1) as journal:
        await journal.retain(base(end, judged_event=8000), journal.last_record_seq)
        kept = await journal.events(limit=9000)
        assert min(event.received_at for event in kept) >= end - 7 * DAY and len(kept) >= 2800
        records = await journal.records(limit=9000)
        assert len(records) > 300 and abs(records[0].record.at - kept[0].received_at) <= DAY, "they go no further"
        assert await journal.verify() == []


async def test_a_cut_beyond_the_last_record_is_refused(journal):
    with pytest.raises(ValueError, match="the cut 1 is not among the records"):
        await journal.retain(base(), 1)


# ---- verification ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM events WHERE seq = 2", "events: the numbers 2 to 2 are missing"),
        ("DELETE FROM events WHERE seq = 3", "the last number given is 3, the last found 2"),
        ("UPDATE events SET data = '[' WHERE seq = 1", "event 1: its data does not decode"),
        ("UPDATE events SET data = '[]' WHERE seq = 1", "event 1: its data is not a JSON object"),
        ("UPDATE events SET id = 'other' WHERE seq = 2", "event 2: its hash or day"),
        ("UPDATE records SET body = '{}' WHERE seq = 1", "record 1 (acked): does not decode"),
        ("UPDATE records SET kind = 'stopped' WHERE seq = 1", "record 1: its columns say stopped"),
        ("DELETE FROM record_subjects", "record 1: it is about ['alert'], but linked to []"),
        ("DELETE FROM records WHERE kind = 'base'", "the base, number 2, is missing"),
        ("UPDATE step_hours SET total = total + 1", "do not add up to its total"),
        ("UPDATE step_hours SET before = 7 WHERE before > 0", "the total before it is 7.0, but 2.0 add up"),
        ("UPDATE step_parts SET data = x'00'", "1 bytes are no increments"),
        ("UPDATE step_parts SET total = 9", "its increments do not add up to 9.0"),
        ("UPDATE step_parts SET start_ms = start_ms + 1", "its times are not in order"),
        ("DELETE FROM step_hours", "step_parts: row 1 has no row in step_hours"),
    ],
)
async def test_verification_names_what_is_wrong(path, damage, said):
    async with JournalDatabase(path) as journal:
        await journal.put_events("shop", [sale("a"), sale("b", NOW + 60), sale("c", NOW + DAY)])
        await journal.commit([Acked(NOW, "alert", "me")])
        await journal.retain(base(), 1)
    assert verify_file(path) == []
    with closing(sqlite3.connect(path)) as outside:
        outside.execute(damage)
        outside.commit()
    assert [problem for problem in verify_file(path) if said in problem]
    async with JournalDatabase(path) as journal:
        assert [problem for problem in await journal.verify() if said in problem]


async def test_a_damaged_page_is_a_problem_and_no_crash(path):
    async with JournalDatabase(path) as journal:
        await journal.put_events(
            "shop", [NewEvent(Event(str(i), "sale", NOW, {"x": "y" * 200}), NOW) for i in range(500)]
        )
    with path.open("r+b") as file:
        for page in range(20, 30):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    assert verify_file(path)


def test_what_is_no_journal_cannot_be_verified(tmp_path):
    with pytest.raises(JournalBroken, match="there is no such file"):
        verify_file(tmp_path / "missing.db")
    (tmp_path / "text.db").write_text("text" * 1000)
    with pytest.raises(JournalBroken, match="not an SQLite database"):
        verify_file(tmp_path / "text.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(JournalBroken, match="of version 0, older than 1"):
        verify_file(tmp_path / "empty.db")


# ---- backups -----------------------------------------------------------------------------------------------------------------


async def test_a_backup_under_load_is_one_moment_of_the_journal_and_works_as_one(tmp_path, journal):
    done = trio.Event()
    backups = [tmp_path / f"backup-{number}.db" for number in range(3)]

    async def load():
        number = 0
        while not done.is_set():
            number += 1
            await journal.put_events(
                "shop", [sale(f"e{number}/{i}", NOW + number) for i in range(10)], (CheckName("w"), number)
            )

    async with trio.open_nursery() as nursery:
        nursery.start_soon(load)
        with journal.subscribe() as news, trio.fail_after(30):
            while await news.receive() < 500:
                pass
        for backup in backups:
            await journal.backup(backup)
        done.set()
    for number, backup in enumerate(backups):
        assert verify_file(backup) == []
        directory = tmp_path / f"restored-{number}"
        directory.mkdir()
        backup.rename(directory / "journal.db")
        async with JournalDatabase(directory / "journal.db") as restored:
            seen = restored.last_event_seq
            assert seen >= 500 and seen % 10 == 0  # no event's transaction is torn
            assert await restored.cursor(CheckName("w")) == seen // 10
            assert restored.step_series()[0][1] == seen
            assert await restored.put_events("shop", [sale("e1/0", NOW + 1), sale("new")]) == [
                Duplicate(1),
                Accepted(seen + 1),
            ]


async def test_a_backup_is_one_file_of_its_users_own(tmp_path, journal):
    await journal.commit([audited("x")])
    (tmp_path / "out").mkdir()
    await journal.backup(tmp_path / "out" / "copy.db")
    assert verify_file(tmp_path / "out" / "copy.db") == []
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["copy.db"]
    assert (tmp_path / "out" / "copy.db").stat().st_mode & 0o777 == 0o600


async def test_a_backup_overwrites_nothing(tmp_path, journal):
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(JournalBroken, match=r"copy\.db: exists already; give the backup another name"):
        await journal.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


async def test_a_backup_to_nowhere_names_the_place(tmp_path, journal):
    with pytest.raises(JournalBroken, match=r"missing/copy\.db: the backup cannot be written there: No such file"):
        await journal.backup(tmp_path / "missing" / "copy.db")


async def test_a_cancelled_backup_leaves_nothing_behind(tmp_path, journal):
    await journal.put_events("shop", [NewEvent(Event(str(i), "t", NOW, {"x": "y" * 4000}), NOW) for i in range(3000)])
    (tmp_path / "out").mkdir()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.backup, tmp_path / "out" / "copy.db")
        with trio.fail_after(10):
            while not any((tmp_path / "out").iterdir()):
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert list((tmp_path / "out").iterdir()) == []
    assert await journal.verify() == []


# ---- export ------------------------------------------------------------------------------------------------------------------


async def test_an_export_holds_every_record_and_event_in_order(journal):
    await journal.commit([audited("a"), Acked(NOW, "alert", "me")])
    await journal.put_events("shop", [sale(f"e{number}") for number in range(2500)])
    lines = [msgspec.json.decode(line) async for line in journal.export()]
    assert lines[0] == {"kind": "journal", "version": 1, "last_record_seq": 2, "last_event_seq": 2500}
    assert [(line["kind"], line["seq"]) for line in lines[1:3]] == [("record", 1), ("record", 2)]
    assert lines[2]["record"] == {"r": "acked", "at": NOW, "alert": "alert", "by": "me", "comment": ""}
    assert [line["seq"] for line in lines[3:]] == list(range(1, 2501))
    assert lines[3] == {
        "kind": "event",
        "seq": 1,
        "source": "shop",
        "received_at": NOW,
        "event": {"id": "e0", "type": "sale", "timestamp": NOW, "data": {"name": "e0"}},
    }


async def test_an_export_sees_one_moment_and_may_be_left_early(journal):
    await journal.put_events("shop", [sale(f"e{number}") for number in range(1500)])
    export = journal.export()
    first = await anext(export)
    await journal.put_events("shop", [sale("later")])
    lines = [first, *[line async for line in export]]
    assert len(lines) == 1501
    early = journal.export()
    await anext(early)
    await early.aclose()
    assert await journal.verify() == []
