"""A customer is forgotten in a real journal: in slices, in every event, and no byte is left."""

from sixfbd.journal.database import JournalDatabase
from sixfbd.journal.event_log import FORGET_ROWS, NewEvent
from sixfbd.model import Event

MANY = 3 * FORGET_ROWS + 7


async def filled(journal, customers):
    events = [
        NewEvent(
            Event(f"e{n}", "ticket_sale", float(n), {"orderId": f"o{n}", "customerId": customers[n % len(customers)]}),
            1.0,
        )
        for n in range(MANY)
    ]
    await journal.put_events("shop", events)


def bytes_of(folder):
    return b"".join(file.read_bytes() for file in folder.glob("journal.db*"))


async def test_every_event_of_a_customer_is_changed_and_no_other_and_no_byte_is_left(tmp_path):
    names = ("cust_of-jane", 'a "quoted" Zoë', "john")
    async with JournalDatabase(tmp_path / "journal.db") as journal:
        await filled(journal, names)
        for name in names[:2]:
            held = MANY // 3 + (names.index(name) < MANY % 3)
            assert await journal.forget({name}, dry_run=True) == held
            assert await journal.forget({name}, dry_run=False) == held
            assert await journal.forget({name}, dry_run=True) == 0
        events = await journal.events(limit=MANY)
        kept = [one.event.data["customerId"] for one in events]
        assert kept == ["john" if n % 3 == 2 else "erased" for n in range(MANY)]
        assert [one.event.data["orderId"] for one in events] == [f"o{n}" for n in range(MANY)]
        assert await journal.verify() == []
        for left in ("cust_of-jane", "Zoë"):
            assert left.encode() not in bytes_of(tmp_path)


async def test_copies_beside_the_journal_are_named(tmp_path):
    async with JournalDatabase(tmp_path / "journal.db") as journal:
        assert journal.copies() == []
        (tmp_path / "journal.db.v3").touch()
        (tmp_path / "journal.db.before-restore").touch()
        (tmp_path / "samples.db").touch()
        assert journal.copies() == [str(tmp_path / "journal.db.before-restore"), str(tmp_path / "journal.db.v3")]
