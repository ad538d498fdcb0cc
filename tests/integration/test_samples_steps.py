"""Step series through the real journal.db: what was committed is there after a restart, of any age."""

from pathlib import Path

import pytest
import trio

from sixfbd.journal.database import JournalDatabase
from sixfbd.journal.event_log import NewEvent
from sixfbd.model import Event, MetricKind, Series
from sixfbd.window.steps import HOUR_MS
from sixfbd.window.window import Window

SOLD = Series("sold_total", (("tier", "ga"),), MetricKind.COUNTER)
START = 480_000 * HOUR_MS


class Shop:
    """Commits sales as intake does: the journal first, then the window."""

    def __init__(self, journal, window):
        self.journal = journal
        self.window = window
        self.sold = 0

    async def sell(self, at_ms, amount):
        self.sold += 1
        event = Event(f"sale-{at_ms}-{self.sold}", "ticket_sale", at_ms / 1000)
        new = NewEvent(event, at_ms / 1000, ((SOLD, at_ms, amount),))
        await self.journal.put_events("shop", [new])
        self.window.step(SOLD, at_ms, amount)


async def select(window, lo_ms, hi_ms):
    [block] = await trio.to_thread.run_sync(window.snapshot().select, (), lo_ms, hi_ms)
    return list(zip(block.t_ms.tolist(), block.v[:, 0].tolist(), strict=True))


async def restored(journal, now_ms):
    window = Window()
    await trio.to_thread.run_sync(window.restore_steps, journal, now_ms)
    return window


async def test_step_series_of_any_age_come_back_from_the_journal(tmp_path: Path):
    rows = []
    async with JournalDatabase(tmp_path / "journal.db") as journal:
        shop = Shop(journal, await restored(journal, START))
        for hour in range(7):
            at_ms = START + hour * HOUR_MS + 1234
            await shop.sell(at_ms, 2.0)
            rows.append((at_ms, 2.0 * (hour + 1)))
        assert await select(shop.window, START, START + 9 * HOUR_MS) == rows
    async with JournalDatabase(tmp_path / "journal.db") as journal:
        now_ms = START + 7 * HOUR_MS
        window = await restored(journal, now_ms)
        assert window.latest() == [(SOLD, rows[-1][0], 14.0, "")]
        assert window.snapshot().loaded((), now_ms - HOUR_MS, now_ms)
        assert not window.snapshot().loaded((), START, now_ms)
        assert await select(window, START, now_ms) == rows
        assert window.snapshot().loaded((), START, now_ms)
        assert await select(window, START + 3 * HOUR_MS, START + 3 * HOUR_MS + 5) == [rows[2]]


async def test_a_late_sale_of_hours_ago_raises_every_total_after_it(tmp_path: Path):
    async with JournalDatabase(tmp_path / "journal.db") as journal:
        shop = Shop(journal, await restored(journal, START))
        for hour in (0, 4, 5):
            await shop.sell(START + hour * HOUR_MS, 1.0)
        shop.window = await restored(journal, START + 5 * HOUR_MS)
        late = START + HOUR_MS + 77
        expected = [(START, 1.0), (late, 11.0), (START + 4 * HOUR_MS, 12.0), (START + 5 * HOUR_MS, 13.0)]
        assert [total for _, total in await select(shop.window, START, START + 6 * HOUR_MS)] == [1.0, 2.0, 3.0]
        await shop.sell(late, 10.0)
        assert await select(shop.window, START, START + 6 * HOUR_MS) == expected
        again = await restored(journal, START + 5 * HOUR_MS)
        assert await select(again, START, START + 6 * HOUR_MS) == expected


async def test_fractions_add_up_to_the_journals_total(tmp_path: Path):
    async with JournalDatabase(tmp_path / "journal.db") as journal:
        shop = Shop(journal, await restored(journal, START))
        for n in range(50):
            await shop.sell(START + n, 29.99)
        [(_, total, _)] = await trio.to_thread.run_sync(journal.step_series)
        assert shop.window.latest()[0][2] == pytest.approx(total, rel=1e-13)
