"""A whole daemon in a test: its own host, schedule, intake, rules, alerting and outbox, over plugins that the test names.

It lives on trio's jumping clock, which stands still between the test's calls: `advance("1h")` takes a moment. The test is
a plain function; the daemon is a guest in it (`trio.lowlevel.start_guest_run`), and runs only within the calls here.
Nothing of it is a double but the far sides: HTTP is answered by a function of the test, and who is told is a list.
"""

import queue
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Final, TypeVar

import httpx
import msgspec
import tomli_w
import trio
import trio.testing

from sixfbd.config import Config, load_config, plugin_sources
from sixfbd.daemon import open_and_serve
from sixfbd.host import NotifierEntry, PluginCatalog, load_modules
from sixfbd.intake import Refused
from sixfbd.model import Actor, Alert, AlertState, CheckName, Event, Message, TestNotify
from sixfbd.plugin import DAY, Duration, Notification, Notifier, Outbound, Receipt
from sixfbd.promql.value import series_text
from sixfbd.rules.problems import rule_problems
from sixfbd.running import Running
from sixfbd.schedule import Ran
from sixfbd.simulated.answers import Answer, Answered, nobody
from sixfbd.simulated.in_line import SimulatedClock, SimulatedWorld, threads_in_line
from sixfbd.watchdog import Watchdog
from sixfbd.world import EngineClock

T = TypeVar("T")

STARTED_AT: Final = 1_800_000_000.0  # engine time of the first start, unix seconds: 2027-01-15 08:00 UTC
PACE_S: Final = 120.0  # how often the daemon reports on itself; as often as it does, that would take most of the time
STUCK_S: Final = 60.0  # real time for which nothing in the daemon's loop moves
MOST_TRIES_S: Final = DAY  # simulated, for a message to come to its end
AUTHOR: Final = Actor("test")
INBOX: Final = "inbox"  # the notifier that keeps what it is given


class EngineError(Exception):
    """The engine cannot do what the test asks for; the text says why."""


class _World(SimulatedWorld):
    """HTTP goes to the test."""

    def __init__(self, clock: EngineClock, answer: Answer, requests: list[httpx.Request]) -> None:
        super().__init__(clock, "test")
        self._answered = Answered(answer, requests)

    def outbound(self, service: str) -> Outbound:
        return self._answered


class Engine:
    """One daemon, over a directory of its own. `start` begins it; whoever made it calls `stop` at the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._state = directory / "state"
        self._config_path = directory / "sixfbd.toml"
        self._loop: _Loop | None = None
        self._now = STARTED_AT
        self._answer: Answer = nobody
        self._catalog = PluginCatalog()
        self._events = 0
        self.requests: list[httpx.Request] = []
        """The HTTP requests of all plugins, oldest first."""
        self.told: list[Notification] = []
        """What people were told, oldest first, unless the test configures receivers of its own."""

    # ---- its life --------------------------------------------------------------------------------------------------------

    def start(
        self,
        *plugins: ModuleType,
        checks: Mapping[str, Mapping[str, Any]] | None = None,
        notifiers: Mapping[str, Mapping[str, Any]] | None = None,
        http: Answer = nobody,
        **tables: Any,
    ) -> None:
        """Start a daemon with these plugin modules and no others, and this configuration.

        `checks` and `notifiers` are tables by name, as in the configuration: {"queue": {"plugin": "queue", "url": "..."}};
        further `tables` likewise, such as `rules=[{...}]`. `http` answers the requests of all plugins. Everybody is told
        of everything through `told`, unless `receivers` are given. Raises ConfigError as `sixfbd check-config` would, and
        EngineError for a plugin that cannot be loaded.
        """
        if self._loop is not None:
            raise EngineError("the engine runs already; a test starts it once, or stops it before")
        self._answer = http
        self._state.mkdir(parents=True, exist_ok=True)
        self._write_config(dict(checks or {}), dict(notifiers or {}), tables)
        self._catalog = self._load(plugins)
        self._begin()

    def restart(self) -> None:
        """Stop the daemon and start it anew on what it has written: cursors, events, alerts and messages are kept."""
        self.stop()
        self._begin()

    def stop(self) -> None:
        """Stop the daemon; its checks and notifiers are closed. Does nothing if it does not run."""
        if self._loop is not None:
            loop, self._loop = self._loop, None
            self._now = loop.end()

    @property
    def now(self) -> float:
        """Engine time in unix seconds."""
        return self._running_loop().now()

    def advance(self, duration: str | float) -> None:
        """Let time pass, in seconds or as the configuration writes it ("10m"): all that falls due happens."""
        seconds = Duration.parse(duration) if isinstance(duration, str) else duration

        async def pass_time() -> None:
            await trio.sleep(seconds)

        self._running_loop().do(pass_time)

    # ---- what is measured ------------------------------------------------------------------------------------------------

    def run(self, check: str) -> Ran:
        """Run a check now, out of turn, and return its `report`, and what of that was `refused`.

        A check that raises, hangs or returns rubbish is contained as in the daemon: its report is `unknown` and says why.
        """
        running = self._running_loop().running
        return self._running_loop().do(lambda: running.schedule.run_now(CheckName(check)))

    def query(self, expr: str) -> dict[str, float]:
        """Evaluate PromQL now; return the values by their series, written `name{label="value"}`."""
        found = {}
        for labels, value in self._read(expr):
            name = dict(labels).get("__name__", "")
            found[series_text(name, tuple(pair for pair in labels if pair[0] != "__name__"))] = value
        return found

    def value(self, expr: str) -> float | None:
        """Evaluate PromQL that yields one value, and return it; None for nothing. Raises EngineError for several."""
        found = self._read(expr)
        if len(found) > 1:
            raise EngineError(f"{expr} yields {len(found)} values, such as {sorted(self.query(expr))[:3]}")
        return found[0][1] if found else None

    def _read(self, expr: str) -> list[tuple[tuple[tuple[str, str], ...], float]]:
        running, now = self._running_loop().running, self.now
        answer = self._running_loop().do(lambda: running.reader.query(expr, now, now, 1))
        return [(tuple(labels), points[-1][1]) for labels, points in answer if points]

    def event(self, type: str, **data: Any) -> None:  # noqa: A002 - an event's field
        """Have something happen once, as `sixfbctl events emit` does. Raises EngineError if it is refused."""
        running, now = self._running_loop().running, self.now
        self._events += 1
        event = Event(f"test-{self._events}", type, now, data)
        [answer] = self._running_loop().do(lambda: running.intake.events("test", [event]))
        if isinstance(answer, Refused):
            raise EngineError(f"the event was refused: {answer}")

    # ---- who is told -----------------------------------------------------------------------------------------------------

    def alerts(self) -> list[Alert]:
        """Return the alerts that are pending or fire, by name."""
        found = self._running_loop().running.judge.state.alerts.values()
        open_ones = [one for one in found if one.state in (AlertState.PENDING, AlertState.FIRING)]
        return sorted(open_ones, key=lambda one: one.key)

    def firing(self) -> list[str]:
        """Return the names of the alerts that fire, one for each label set, sorted."""
        return sorted(str(one.key.rule) for one in self.alerts() if one.state is AlertState.FIRING)

    def notify(self, receiver: str = "primary") -> Sequence[Message]:
        """Owe a receiver a test message, have it delivered, and return what came of it at each of its channels.

        As `sixfbctl notify test`: the outbox tries, waits and gives up as always. A message's `state` is `delivered` or
        `accepted`, or `dead`, and then `last_error` says why.
        """
        running, loop = self._running_loop().running, self._running_loop()
        outcome = loop.do(lambda: running.judge.command(TestNotify((receiver,)), AUTHOR))
        if not outcome.ok:
            raise EngineError(outcome.error)

        async def ended() -> Sequence[Message]:
            done = trio.Event()

            def look(_: object = ()) -> None:
                if outcome.id not in running.judge.state.open_of:
                    done.set()

            end = running.judge.listen(look)
            try:
                look()
                with trio.move_on_after(MOST_TRIES_S):
                    await done.wait()
            finally:
                end()
            return await running.reader.messages_about(outcome.id)

        return loop.do(ended)

    # ---- within ----------------------------------------------------------------------------------------------------------

    def _running_loop(self) -> "_Loop":
        if self._loop is None:
            raise EngineError("the engine does not run; begin with engine.start(your_plugin, checks={...})")
        return self._loop

    def _write_config(self, checks: dict[str, Any], notifiers: dict[str, Any], tables: dict[str, Any]) -> None:
        daemon = {"state_directory": str(self._state), "plugin_directories": [], **tables.pop("daemon", {})}
        config: dict[str, Any] = {
            "daemon": daemon,
            "control": {"socket": str(self._directory / "control.sock")},
            "http": {"listen": "127.0.0.1:0"},
            "checks": checks,
            "notifiers": {INBOX: {"plugin": INBOX}, **notifiers},
            "receivers": {name: {"webhook": {"via": INBOX}} for name in ("primary", "secondary", "escalation")},
            **tables,
        }
        self._config_path.write_text(tomli_w.dumps(msgspec.to_builtins(config)), encoding="utf-8")

    def _load(self, plugins: Sequence[ModuleType]) -> PluginCatalog:
        catalog = load_modules(plugins, plugin_sources(self._config_path).config)
        if catalog.failed:
            raise EngineError("; ".join(f"plugin {one.name}: {one.problem}" for one in catalog.failed))
        told = self.told

        class Inbox(Notifier[Any]):
            """Keeps what it is given."""

            idempotent: ClassVar[bool] = True

            async def deliver(self, notification: Notification) -> Receipt:
                await trio.lowlevel.checkpoint()
                told.append(notification)
                return Receipt(state="delivered")

        inbox = NotifierEntry(INBOX, Inbox, "test")
        return msgspec.structs.replace(catalog, notifiers={**catalog.notifiers, INBOX: inbox})

    def _begin(self) -> None:
        config = load_config(self._config_path, self._catalog, rule_problems)
        self._loop = _Loop(partial(self._live, config))
        try:
            self._loop.begin(self._now)
        except BaseException:
            self._loop = None
            raise

    async def _live(
        self, config: Config, clock: SimulatedClock, opened: Callable[[Running], object], runs: trio.Nursery
    ) -> None:
        await open_and_serve(
            self._config_path,
            self._catalog,
            config,
            runs,
            clock,
            Watchdog(self._state),
            lambda clock: _World(clock, self._answer, self.requests),
            opened,
        )


class _Loop:
    """The daemon's event loop, which turns only while one of these methods runs."""

    def __init__(
        self, live: Callable[[SimulatedClock, Callable[[Running], object], trio.Nursery], Awaitable[None]]
    ) -> None:
        self._live = live
        self._turns: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._jumping = trio.testing.MockClock(autojump_threshold=0)
        self._patches = ExitStack()
        self._error: BaseException | None = None
        self._ended = False
        self.running: Running

    def begin(self, at: float) -> None:
        """Start the daemon at an engine time and return when it is ready. Raises what keeps it from starting."""
        self._patches.enter_context(threads_in_line(PACE_S))
        trio.lowlevel.start_guest_run(
            self._main,
            at,
            run_sync_soon_threadsafe=self._turns.put,
            done_callback=self._done,
            clock=self._jumping,
            host_uses_signal_set_wakeup_fd=True,
        )
        self._turn_until(lambda: hasattr(self, "running") and self.running.ready)

    def end(self) -> float:
        """End the daemon; return the engine time."""
        at = self.now()
        if not self._ended:
            self._token.run_sync_soon(self._scope.cancel)
            self._turn_until(lambda: self._ended)
        return at

    def do(self, work: Callable[[], Awaitable[T]]) -> T:
        """Have the daemon's loop do something and return its answer, or raise what it raised."""
        answers: list[T] = []
        errors: list[BaseException] = []

        async def task() -> None:
            try:
                answers.append(await work())
            except Exception as error:  # noqa: BLE001 - raised in the test, which asked for it
                errors.append(error)

        self._token.run_sync_soon(self._asked.start_soon, task)
        self._turn_until(lambda: bool(answers or errors))
        if errors:
            raise errors[0]
        return answers[0]

    def now(self) -> float:
        """Engine time in unix seconds."""
        return self._clock.at(self._jumping.current_time())

    async def _main(self, at: float) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._clock = SimulatedClock(at)
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as runs, trio.open_nursery() as self._asked:
                await self._live(self._clock, self._open, runs)
                self._scope.cancel()

    def _open(self, running: Running) -> None:
        self.running = running

    def _done(self, outcome: Any) -> None:
        self._ended = True
        self._patches.close()
        self._error = getattr(outcome, "error", None)

    def _turn_until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            if self._ended:
                raise self._error or EngineError("the engine has stopped")
            try:
                turn = self._turns.get(timeout=STUCK_S)
            except queue.Empty:
                raise EngineError(f"nothing has happened in the engine for {STUCK_S:g} s of real time") from None
            turn()
        if self._ended and self._error is not None:
            raise self._error
