"""An engine in small with a real journal and an `inventory` check on it: what it reports is seen by rules and by itself."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
import trio

from sixfbd.intake import Intake, declare
from sixfbd.journal.database import JournalDatabase
from sixfbd.model import CheckName, Event, Found, Report
from sixfbd.plugin import PluginConfig
from sixfbd.promql import Stop
from sixfbd.readers.queries import EngineReader
from sixfbd.rules import bind_rules, evaluate_rule
from sixfbd.rules.evaluate import render_annotations
from sixfbd.window.window import Window
from sixfbd_plugins.business import events as business
from sixfbd_plugins.checks import inventory
from sixfbd_plugins.inventory.stock import Dates, Reading, SourceError, Stock
from tests.provider_kit import ManualClock

START = 1_800_000_000.0
BOUND = bind_rules(inventory.RULES)
TYPES = (*business.sixfbd_events(config=PluginConfig()), *inventory.sixfbd_events(config=PluginConfig()))


class Shelf:
    """A source by hand: `stock` as it is now, an outage if it is None."""

    def __init__(self) -> None:
        self.stock: tuple[Stock, ...] | None = ()
        self.dates: dict[str, Dates] = {}

    async def read(self) -> Reading:
        await trio.lowlevel.checkpoint()
        if self.stock is None:
            raise SourceError("the shop does not answer")
        return Reading(self.stock, self.dates)


class Context:
    """`sixfbd.plugin.Context` on the small engine."""

    site = "workshop"
    timezone = "America/Chicago"
    sandbox = False
    version = "1.2.3"

    def __init__(self, engine: "Engine", name: str, http: Any = None) -> None:
        self.name = name
        self.http = http
        self.clock = engine.clock
        self.read = engine.read
        self.log = structlog.get_logger("test")

    async def to_thread(self, fn: Callable[..., Any], *args: object) -> Any:
        return await trio.to_thread.run_sync(lambda: fn(*args))


class Engine:
    """Journal, window, door and rules; `running` opens them on the same files, as often as a test likes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock(START)
        self.shelf = Shelf()
        self.seen: list[Event] = []
        self._ids = random.Random(3)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Engine"]:
        async with JournalDatabase(self.folder / "journal.db") as self.journal:
            self.window = Window()
            await trio.to_thread.run_sync(self.window.restore_steps, self.journal, round(self.clock.now() * 1000))
            self.read = EngineReader(self.window, self.journal, lambda: ())
            self.intake = Intake(
                self.journal, self.window, self.clock,
                persist=lambda rows: None, touch=lambda rules: None,
                committed=lambda stored: self.seen.extend(one.event for one in stored),
            )  # fmt: skip
            self.intake.declare_types(TYPES)
            yield self

    def check(self, name: str = "inventory", **options: Any) -> inventory.InventoryCheck:
        """A check on the shelf, or on the source that the options name."""
        known = {"http", "sql", "prometheus", "events"} & options.keys()
        options = options if known else {"events": {"capacity": {"x": {"y": 1}}}, **options}
        made = inventory.InventoryCheck(structured(options), Context(self, name))
        if not known:
            made._source = self.shelf
        self.intake.declare_check(CheckName(name), declare(inventory.InventoryCheck.metrics, 4000, 300))
        return made

    async def run(self, check: inventory.InventoryCheck) -> Report:
        """Run a check from its last cursor and take its report."""
        name = CheckName(check.ctx.name)
        report = await check.run(await self.journal.cursor(name))
        refused = await self.intake.report(name, report)
        assert not refused.count, refused.named
        return report

    async def look(self, check: inventory.InventoryCheck, *stock: Stock, after_s: float = 60) -> Report:
        """Put the stock on the shelf, let time pass, run."""
        self.shelf.stock = stock
        self.clock.at += after_s
        return await self.run(check)

    async def send(self, kind: str, at: float | None = None, **data: Any) -> None:
        event = Event(f"e{self._ids.random()}", kind, self.clock.now() if at is None else at, data)
        [put] = await self.intake.events("shop", [event])
        assert type(put).__name__ == "Accepted", put

    async def sell(
        self, quantity: int = 1, tier: str = "ga", city: str = "dallas", at: float | None = None, **more: Any
    ) -> None:
        data = {"orderId": "o", "cityId": city, "tier": tier, "quantity": quantity, "amount": 100, "currency": "USD"}
        await self.send("ticket_sale", at, **data, **more)

    def _evaluated(self, bound: Any) -> Sequence[Found]:
        result = evaluate_rule(bound, self.window.snapshot(), self.clock.now(), Stop())
        assert result.error is None
        return result.found

    def ended(self, rule: str) -> list[tuple[dict[str, str], str]]:
        """What a rule says to be over: labels, and why."""
        told = [(dict(one.labels), dict(one.describing).get("ended")) for one in self._evaluated(BOUND.rule(rule))]
        return [(labels, why) for labels, why in told if why]

    def advice(self, rule: str) -> list[str]:
        """What a rule says is to be done, of each alert."""
        bound = BOUND.rule(rule)
        found = self._evaluated(bound)
        labels = [dict((*one.labels, *one.describing)) for one in found]
        return [render_annotations(bound, own, one.value, "")["action"] for own, one in zip(labels, found, strict=True)]

    def found(self, rule: str) -> list[tuple[dict[str, str], float, str, str]]:
        """What a rule finds now: labels, value, severity, text."""
        bound = BOUND.rule(rule)
        return [
            (
                dict(one.labels),
                one.value,
                str(bound.rule.severity or one.severity),
                render_annotations(bound, dict((*one.labels, *one.describing)), one.value, "")["summary"],
            )
            for one in self._evaluated(bound)
            if not dict(one.describing).get("ended")
        ]

    def texts(self, rule: str = "InventoryLow") -> list[tuple[str, str]]:
        return sorted((severity, text) for _, _, severity, text in self.found(rule))

    def milestones(self) -> list[tuple[str, str, int, bool]]:
        """Those told so far: city, tier, milestone, whether an alert tells it."""
        told = [one.data for one in self.seen if one.type == "inventory_milestone"]
        return [(one["cityId"], one["tier"], one["milestone"], "suppressed" in one) for one in told]

    def value(self, metric: str, **labels: str) -> float | None:
        latest = self.window.latest()
        found = [v for s, _, v, _ in latest if s.metric == metric and labels.items() <= dict(s.labels).items()]
        return found[0] if found else None


def structured(given: dict[str, Any]) -> inventory.InventoryOptions:
    """Options as configuration gives them; secrets in them stay as they are."""

    def made(kind: Any, value: Any) -> Any:
        return value if isinstance(value, kind) else kind(value)

    return msgspec.convert(given, inventory.InventoryOptions, dec_hook=made)


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine(tmp_path)
