"""The daemon itself in simulated time: `sixfbd.daemon.open_and_serve` on trio's jumping clock, with checks and providers that
do what a scenario says. Hours pass in a second, and nothing in it waits for anything but the clock.

That clock passes by what other threads do, so there are none: what would run in a worker thread runs in line, and so does
the journal's writer. Each life of the daemon is a run of trio of its own, over the state directory that the last one left.
"""

import gc
import logging
import random
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final
from unittest import mock

import msgspec
import structlog
import tomli_w
import trio
import trio.testing

from sixfbd.config import ConfigError, PluginSources, load_config
from sixfbd.control.protocol import Refused
from sixfbd.daemon import open_and_serve
from sixfbd.host import PluginCatalog, load_plugins
from sixfbd.intake import ENGINE_CHECK, Intake
from sixfbd.model import Ack, Actor, AddSilence, CheckName, Event, ExpireSilence, PauseCheck, Sample
from sixfbd.reload import reload
from sixfbd.rules.problems import rule_problems
from sixfbd.running import Running
from sixfbd.simulated.in_line import SimulatedClock, SimulatedWorld, threads_in_line
from sixfbd.watchdog import Watchdog
from tests.simulation.far_side import Arrival, FarSide, with_doubles
from tests.simulation.scenario import Scenario, ScenarioError, Step

ALICE: Final = Actor("uid:1000 alice")
BEGIN_S: Final = 60.0  # simulated; a daemon takes none of it
pace_s: Final = 30.0  # the daemon's series about itself; as often as it reports them they would take most of the time
PLACE: Final = Path("/dev/shm")

DEFAULTS: Final[dict[str, Any]] = {
    "site": {"name": "workshop"},
    "http": {"listen": "127.0.0.1:0"},
    "log": {"level": "error"},
    "notifiers": {name: {"plugin": "once"} for name in ("pager", "second", "third")},
    "receivers": {
        "primary": {"webhook": {"via": "pager"}},
        "secondary": {"webhook": {"via": "second"}},
        "escalation": {"webhook": {"via": "third"}},
    },
}
"""What a scenario's `[config]` is laid over: the default receivers, each with a channel that takes every severity. All else
is as the daemon has it."""


@cache
def _catalog() -> PluginCatalog:
    return load_plugins(PluginSources())


def play(scenario: Scenario) -> tuple[list[Arrival], FarSide]:
    """Live a scenario; return what arrived, oldest first. Raises ScenarioError if a step cannot be taken."""
    series = [one for step in scenario.at for one in step.series]
    catalog, far_side = with_doubles(_catalog(), series)
    place = PLACE if PLACE.is_dir() else None
    with (
        tempfile.TemporaryDirectory(prefix="sixfbd-", dir=place) as directory,
        _without_threads(catalog, scenario.pace),
        _said_of_itself(far_side),
    ):
        try:
            _Play(scenario, catalog, far_side, Path(directory)).run()
        except* (ScenarioError, ConfigError) as group:
            raise ScenarioError(str(_first_of(group))) from None
    return far_side.arrivals, far_side


def _first_of(error: BaseException) -> BaseException:
    return _first_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


@contextmanager
def _without_threads(catalog: PluginCatalog, pace_s: float) -> Iterator[None]:
    """In line what would be in threads, as long as this lasts; a reload finds the doubles as well."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        with (
            threads_in_line(pace_s),
            mock.patch("sixfbd.reload.load_plugins", lambda sources: catalog),
            mock.patch.object(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            mock.patch.object(trio._core._run, "_r", random.Random(1)),
        ):
            yield
    finally:
        structlog.configure(**before)
        gc.collect()


@contextmanager
def _said_of_itself(far_side: FarSide) -> Iterator[None]:
    """Have the daemon's report on itself hold what the steps say of the check `sixfbd`, in place of what is so."""
    really = Intake.report_own

    def report_own(intake: Intake, check: CheckName, samples: Iterable[Sample], stale_after_s: float) -> None:
        told = {(one.metric, one.labels): one for one in samples}
        if check == ENGINE_CHECK:
            told |= {(one.metric, one.labels): one for one in far_side.script(ENGINE_CHECK).samples.values()}
        really(intake, check, list(told.values()), stale_after_s)

    with mock.patch.object(Intake, "report_own", report_own):
        yield


class _Play:
    """One scenario while it is played: lives of the daemon over one state directory."""

    def __init__(self, scenario: Scenario, catalog: PluginCatalog, far_side: FarSide, directory: Path) -> None:
        self.scenario = scenario
        self.catalog = catalog
        self.far_side = far_side
        self.state = directory / "state"
        self.image = directory / "image"
        self.config_path = directory / "sixfbd.toml"
        self.config = _merged(DEFAULTS, scenario.config)
        self.left = scenario.steps
        self.ahead_s = 0.0  # of the wall clock, over the scenario's own time
        self.events = 0
        self.begins_s = 0.0
        self.state.mkdir()

    def run(self) -> None:
        while self.left and self.left[0][0] <= 0:  # what is so before it starts
            step = self.left[0][1]
            if not (step.check or step.notifier):
                break
            self.left.pop(0)
            self._outside(step)
        while True:
            self.far_side.begin(self.begins_s)
            trio.run(self._live, clock=trio.testing.MockClock(autojump_threshold=0))
            if not self._await_start():
                return

    def _await_start(self) -> bool:
        """After a death: take what happens meanwhile until the daemon is started; tell whether it is."""
        if self.image.exists():
            shutil.rmtree(self.state)
            self.image.rename(self.state)
        while self.left:
            at, step = self.left.pop(0)
            if step.daemon == "start":
                self.begins_s = at
                return True
            self._outside(step)
        return False

    def _outside(self, step: Step) -> None:
        """What happens whether the daemon lives or not."""
        if step.check:
            self.far_side.set_check(step)
        elif step.notifier:
            self.far_side.set_provider(step)
        elif step.clock:
            self.ahead_s += step.clock
        elif step.command == "reload":
            self.config = _merged(self.config, step.config)
        else:
            raise ScenarioError(f"at {step.time}: the daemon is down")

    async def _live(self) -> None:
        self.config.setdefault("daemon", {}).update(state_directory=str(self.state), stop_timeout="1d")
        self.config["control"] = {"socket": str(self.config_path.with_name("control.sock"))}
        self._write_config()
        clock = SimulatedClock(self.scenario.start.timestamp() + self.begins_s + self.ahead_s)
        self.clock = clock
        config = load_config(self.config_path, self.catalog, rule_problems)
        opened: list[Running] = []
        async with trio.open_nursery() as life, trio.open_nursery() as checks:

            async def serve() -> None:
                await open_and_serve(
                    self.config_path,
                    self.catalog,
                    config,
                    checks,
                    clock,
                    Watchdog(self.state),
                    lambda clock: SimulatedWorld(clock, self.scenario.name),
                    opened.append,
                )

            life.start_soon(serve)
            with trio.fail_after(BEGIN_S):
                while not opened or not opened[0].ready:
                    await trio.lowlevel.checkpoint()
            await self._steps(opened[0])
            self.far_side.gone = True
            checks.cancel_scope.cancel()
            life.cancel_scope.cancel()

    def _write_config(self) -> None:
        self.config_path.write_text(tomli_w.dumps(self.config), encoding="utf-8")

    async def _steps(self, running: Running) -> None:
        """Take steps until the daemon dies or the scenario is over."""
        while self.left:
            at, step = self.left.pop(0)
            await trio.sleep_until(at - self.begins_s)
            try:
                if step.daemon == "crash":
                    shutil.copytree(self.state, self.image, ignore=shutil.ignore_patterns("lock"))
                    return
                await self._take(running, step)
            except (Refused, ScenarioError) as error:
                raise ScenarioError(f"at {step.time}: {error}") from None
        await trio.sleep_until(self.scenario.end_s - self.begins_s)

    async def _take(self, running: Running, step: Step) -> None:
        if step.event:
            await self._happens(running, step)
        elif step.command == "reload":
            self.config = _merged(self.config, step.config)
            self._write_config()
            await reload(running, ALICE)
        elif step.command:
            await self._command(running, step)
        else:
            self._outside(step)
            self.clock.ahead_s += step.clock

    async def _happens(self, running: Running, step: Step) -> None:
        now = running.world.clock.now()
        events = []
        for _ in range(step.count):
            self.events += 1
            number = self.events
            data = {name: f"{value}{number}" if name == "orderId" else value for name, value in step.data.items()}
            events.append(Event(f"event-{number}", step.event, now, data))
        answers = await running.intake.events("shop", events)
        refused = [one for one in answers if type(one).__name__ == "Refused"]
        if refused:
            raise ScenarioError(f"an event was refused: {refused[0]}")

    async def _command(self, running: Running, step: Step) -> None:
        judge = running.judge
        if step.command == "ack":
            command: Any = Ack(self._firing(running, step), step.comment)
        elif step.command == "silence":
            command = AddSilence(matchers=step.matchers, duration_s=float(step.lasts), comment=step.comment)
        elif step.command == "expire":
            [silence] = [one.id for one in judge.state.silences.values() if one.comment == step.comment]
            command = ExpireSilence(silence)
        else:
            command = PauseCheck(step.target, step.command == "pause")
        outcome = await judge.command(command, ALICE)
        if not outcome.ok:
            raise ScenarioError(f"{step.command} was refused: {outcome.error}")

    def _firing(self, running: Running, step: Step) -> str:
        found = [
            one
            for one in running.judge.state.alerts.values()
            if one.state == "firing" and one.key.rule == step.alert and step.labels.items() <= one.labels.items()
        ]
        if len(found) != 1:
            raise ScenarioError(f"{len(found)} alerts {step.alert} with labels {step.labels} fire, not one")
        return found[0].id


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay one configuration over another: tables key by key; {} as a value in place of a table drops it."""
    merged = msgspec.json.decode(msgspec.json.encode(base))
    for key, value in over.items():
        if isinstance(value, dict) and value and isinstance(merged.get(key), dict):
            merged[key] = _merged(merged[key], value)
        elif value == {}:
            merged.pop(key, None)
        else:
            merged[key] = value
    return dict(merged)
