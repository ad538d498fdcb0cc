"""`sixfbd check try`: one run of one check without a daemon, through the engine's own door with nothing behind it.

Owns the thread that the check runs in, so that one that blocks can be left behind. Writes nothing and tells nobody.
"""

import inspect
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from threading import Thread
from traceback import walk_stack
from types import FrameType
from typing import Any, Final

import trio

from sixfbd.config import CheckTable, Config
from sixfbd.containment import described
from sixfbd.control.engine import CheckRun
from sixfbd.host import PluginCatalog
from sixfbd.instances import CLOSE_LIMIT_S, CheckInstance, close_instance, make_check, surroundings
from sixfbd.intake import Appended, Intake
from sixfbd.journal.event_log import Accepted, Duplicate, NewEvent
from sixfbd.model import (
    Alert,
    CheckName,
    Event,
    Json,
    Labels,
    Message,
    Report,
    RuleName,
    Series,
    Status,
    StoredEvent,
)
from sixfbd.readers.check_run import check_run
from sixfbd.reload import declare_checks
from sixfbd.schedule import GRACE_S, Ran, run_guarded
from sixfbd.window.writes import Write
from sixfbd.world import Clock, RealWorld

SPARE_S: Final = 5.0  # for making the check, beyond its own time limit
INTERRUPTED_S: Final = 0.2  # a signal that another thread took does not wake a thread that waits


class NotMadeError(Exception):
    """The check cannot be made; the text says why."""


class NothingToRead:
    """The read access of a check that is tried: an engine that has seen nothing."""

    async def query(
        self, expr: str, start: float, end: float, step: float
    ) -> Sequence[tuple[Labels, list[tuple[float, float]]]]:
        return []

    async def events(self, type: str, start: float, end: float) -> Sequence[Event]:  # noqa: A002 - an event's field
        return []

    async def quantile(self, metric: str, q: float, start: float, end: float) -> float | None:
        return None

    async def recent_alerts(self, matchers: Mapping[str, str], limit: int) -> Sequence[Alert]:
        return []

    async def alerts(self, matchers: Mapping[str, str]) -> Sequence[Alert]:
        return []

    async def messages(self, notifier: str, start: float, end: float) -> Sequence[Message]:
        return []

    async def messages_about(self, alert: str) -> Sequence[Message]:
        return []


class NoJournal:
    """Takes every event and keeps none."""

    @property
    def last_event_seq(self) -> int:
        return 0

    async def put_events(
        self, source: str, events: Sequence[NewEvent], cursor: tuple[CheckName, Json] | None = None
    ) -> list[Accepted | Duplicate]:
        return [Accepted(place) for place in range(1, len(events) + 1)]

    async def events(
        self, after_seq: int = 0, *, types: Collection[str] | None = None, start: float | None = None, limit: int = 1000
    ) -> list[StoredEvent]:
        return []


class _NothingAppended:
    touched: frozenset[RuleName] = frozenset()
    rows: tuple[Write, ...] = ()


class NoWindow:
    """Takes every sample and shows none."""

    def append(
        self, check: str, at_ms: int, samples: Sequence[tuple[Series, float]], *, complete: bool, stale_after_ms: int
    ) -> Appended:
        return _NothingAppended()

    def step(self, series: Series, at_ms: int, add: float) -> frozenset[RuleName]:
        return frozenset()

    def observe(self, series: Series, at_ms: int, values: Mapping[float, int]) -> None:
        """Keep nothing."""

    def sketch(self, series: Series, lo_ms: int, hi_ms: int) -> object | None:
        return None


class _Trial(Thread):
    """The event loop of one run."""

    def __init__(self, table: CheckTable, catalog: PluginCatalog, config: Config) -> None:
        super().__init__(name=f"try {table.name}", daemon=True)
        self._table = table
        self._catalog = catalog
        self._config = config
        self.answer: CheckRun | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.answer = trio.run(_run_once, self._table, self._catalog, self._config)
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            self.error = error


def try_check(table: CheckTable, catalog: PluginCatalog, config: Config) -> CheckRun:
    """Run a check once and return what the daemon would make of it. Raises NotMadeError.

    Blocks, for a few seconds more than the check's time limit at most: a check that neither answers nor heeds its
    cancel is left behind, with the line that it stands at.
    """
    trial = _Trial(table, catalog, config)
    limit = float(table.timeout)
    began = time.monotonic()
    trial.start()
    until = began + limit + GRACE_S + CLOSE_LIMIT_S + SPARE_S
    while trial.is_alive() and time.monotonic() < until:
        trial.join(INTERRUPTED_S)
    if isinstance(trial.error, NotMadeError):
        raise trial.error
    if trial.answer is not None:
        return trial.answer
    if trial.error is not None:
        summary = f"plugin {table.plugin} broke the event loop: {described(trial.error)}"
    else:
        where = _place(sys._current_frames().get(trial.ident or 0), catalog.checks[table.plugin].cls)
        summary = f"plugin {table.plugin} does not end, though its time limit is {limit:g} s{where}"
    return check_run(table.name, Ran(Report(Status.UNKNOWN, summary)), [], time.monotonic() - began)


def _place(frame: FrameType | None, plugin: type[Any]) -> str:
    """Return "; it stands at FILE:LINE" of the innermost frame in the plugin's own file; no values of variables."""
    file = inspect.getfile(plugin)
    lines = [line for inner, line in walk_stack(frame) if inner.f_code.co_filename == file]
    return f"; it stands at {file}:{lines[0]}" if lines else ""


async def _run_once(table: CheckTable, catalog: PluginCatalog, config: Config) -> CheckRun:
    async with RealWorld() as world:
        plugin = catalog.checks[table.plugin].cls
        instance = make_check(table, plugin, surroundings(config, world, NothingToRead()))
        if instance.check is None:
            raise NotMadeError(instance.problem)
        intake = door(instance, catalog, config, world.clock)
        began = time.monotonic()
        try:
            ran = await run_guarded(instance, None)
        finally:
            await close_instance(instance.check, table.name)
        return check_run(table.name, *await _handed_in(intake, instance, ran), time.monotonic() - began)


def door(instance: CheckInstance, catalog: PluginCatalog, config: Config, clock: Clock) -> Intake:
    """Return the intake for the reports of one check, with nothing behind it."""
    intake = Intake(
        NoJournal(),
        NoWindow(),
        clock,
        persist=lambda rows: None,
        touch=lambda rules: None,
        committed=lambda seq: None,
    )
    intake.declare_types(tuple(catalog.event_types.values()))
    declare_checks(intake, {instance.name: instance}, catalog, config)
    return intake


async def _handed_in(intake: Intake, instance: CheckInstance, ran: Ran) -> tuple[Ran, list[str]]:
    """Give the report to the door; a report that breaks the door is as bad as none, as in the daemon."""
    try:
        refused = await intake.report(instance.name, ran.report)
    except Exception as error:  # noqa: BLE001 - a plugin's report may be of any form; it is named
        text = f"its report was not taken: {described(error)}"
        return Ran(Report(Status.UNKNOWN, text), ran.refused), []
    return Ran(ran.report, ran.refused + refused), intake.remarks(ran.report)
