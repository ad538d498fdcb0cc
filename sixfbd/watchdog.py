"""The watchdog: a thread that names whoever holds up the main thread, and ends the process for a plugin that does not let go.

It asks the event loop every PERIOD_S for a sign; one that does not come within BLOCKED_S is a block, and the main thread's
stack says whose: the innermost frame that is a plugin's or the engine's own, libraries count for who called them. After
ABORT_S in a plugin's code it leaves a note (kept_out.py) and ends the process. A block in the engine's code is named and
ends nothing: systemd's watchdog, fed from the loop, judges that. That the thread itself was late tells a machine that
stood still from a loop that did. Never touches the loop's data; writes its log lines with a limit, for the one who blocks
may hold the log's lock.
"""

import logging
import os
import resource
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import structlog
import trio
from msgspec import Struct

from sixfbd.host import CheckEntry, InboundEntry, NotifierEntry, PluginCatalog
from sixfbd.kept_out import CheckNote, Note, write_note

log = structlog.get_logger("sixfbd.watchdog")

PERIOD_S: Final = 0.25
BLOCKED_S: Final = 0.5
ABORT_S: Final = 20.0
LATE_S: Final = 0.5  # by which the thread itself must wake too late before it looks for the reason
HELD_SWITCHES: Final = (
    20.0  # a second: who waits for the interpreter asks each switch interval, who is stopped never does
)
LEAST_SAMPLES: Final = 4  # of a plugin's stack before the process ends for it
SAY_S: Final = 1.0  # what a log line or a note may take
RECENT_S: Final = 300.0
RECENT_BLOCKS: Final = 20
EXIT_BLOCKED: Final = 70  # EX_SOFTWARE of sysexits.h: the unit restarts on it

ENGINE: Final = "sixfbd"
LENT: Final = frozenset({"sixfbd.plugin", "sixfbd.model", "sixfbd.quantities"})
"""Modules of the engine that run on a plugin's behalf: what is called there counts for the caller."""


class Blame(Struct, frozen=True):
    """Who holds up the main thread: `plugin` ("": the engine or a library it called), on whose behalf, at FILE:LINE."""

    plugin: str = ""
    doing: str = ""
    place: str = ""


class Block(Struct, frozen=True):
    """A block that is over."""

    blame: Blame
    seconds: float


Owners = Mapping[str, str]
"""The plugin of each module that is one's."""


def owners_of(catalog: PluginCatalog) -> dict[str, str]:
    """Return the modules of loaded plugins: their own, and those of the classes that they brought."""
    found: dict[str, str] = {}
    entries: list[CheckEntry | NotifierEntry | InboundEntry] = [
        *catalog.checks.values(),
        *catalog.notifiers.values(),
        *catalog.inbound.values(),
    ]
    for entry in entries:
        if not entry.kept_out:
            found[entry.cls.__module__] = entry.plugin
    found.update({info.module: info.name for info in catalog.plugins if info.problem is None})
    return found


def culprit(frame: FrameType | None, owners: Owners) -> Blame:
    """Return whose code a stack is in, going outwards from `frame`."""
    innermost = "" if frame is None else _place(frame)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        plugin = _owner(module, owners)
        if plugin:
            return Blame(plugin, _on_behalf(frame), _place(frame))
        if module.partition(".")[0] == ENGINE and module not in LENT:
            return Blame("", _on_behalf(frame), _place(frame))
        frame = frame.f_back
    return Blame(place=innermost)


def _owner(module: str, owners: Owners) -> str:
    while module:
        if module in owners:
            return owners[module]
        module = module.rpartition(".")[0]
    return ""


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _on_behalf(frame: FrameType | None) -> str:
    """Return the argument `whose` of the nearest function of the engine that has one."""
    while frame is not None:
        code = frame.f_code
        if "whose" in code.co_varnames and str(frame.f_globals.get("__name__", "")).startswith(f"{ENGINE}."):
            return str(frame.f_locals.get("whose", ""))
        frame = frame.f_back
    return ""


def boot_time() -> float:
    """Seconds since the machine was booted, those that it slept included (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Held:
    """A block in the making."""

    def __init__(self) -> None:
        self.seen_s = 0.0
        self.told = 0  # 1: that it is there, 2: that it lasts beyond the limit
        self._certain = False
        self._samples: Counter[str] = Counter()
        self._last: dict[str, Blame] = {}

    def sample(self, blame: Blame, *, certain: bool) -> None:
        self._certain = self._certain or certain
        self._samples[blame.plugin] += 1
        self._last[blame.plugin] = blame

    @property
    def seen(self) -> Blame:
        """The last place of whoever was seen most often."""
        plugin = max(self._samples, key=lambda name: (self._samples[name], name), default=None)
        return Blame() if plugin is None else self._last[plugin]

    @property
    def is_known(self) -> bool:
        """Whether it was seen while it lasted, or often enough that it is no other's."""
        return self._certain or self._samples.total() >= LEAST_SAMPLES

    @property
    def blame(self) -> Blame:
        """Whose it is; nobody's if the stack was seen only when it was over."""
        return self.seen if self.is_known else Blame()

    @property
    def is_plugins(self) -> bool:
        return bool(self.seen.plugin) and self._samples[self.seen.plugin] >= LEAST_SAMPLES


class Watchdog:
    """Use as a context manager around all that the main thread does; `watching` around what the loop does.

    `end` ends the process with an exit code and does not return.
    """

    def __init__(self, state_directory: Path, end: Callable[[int], Any] = os._exit) -> None:
        self._state_directory = state_directory
        self._end = end
        self._main = threading.main_thread().ident
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sixfbd-watchdog", daemon=True)
        self._catalog = PluginCatalog()
        self._owners: Owners = {}
        self._token: trio.lowlevel.TrioToken | None = None
        self._turned: Callable[[], None] = lambda: None
        self._news: Callable[[], None] = lambda: None
        self._asked_at: float | None = None
        self._answered_at: float | None = None
        self._held: _Held | None = None
        self._fresh = False  # a block has ended that the loop was not told of
        self._blocks: deque[tuple[float, Block]] = deque(maxlen=RECENT_BLOCKS)
        self._longest_delay_s = 0.0
        self.ticks = 0

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(SAY_S)

    # ---- what the main thread says -------------------------------------------------------------------------------------

    def knows(self, catalog: PluginCatalog) -> None:
        """Blame by these plugins from now on."""
        self._owners, self._catalog = owners_of(catalog), catalog

    @contextmanager
    def watching(self, turned: Callable[[], None]) -> Iterator[None]:
        """Ask this thread's event loop for signs meanwhile; each calls `turned`, on the loop."""
        self._turned = turned
        self._token = trio.lowlevel.current_trio_token()
        try:
            yield
        finally:
            self._token = None

    def tell(self, news: Callable[[], None]) -> None:
        """Call `news` on the loop when it turns again after a block."""
        self._news = news

    # ---- what is known -------------------------------------------------------------------------------------------------

    def take_longest_delay(self) -> float:
        """Return the longest time in seconds that a sign took since the last call."""
        longest_s, self._longest_delay_s = self._longest_delay_s, 0.0
        return longest_s

    def recent(self) -> dict[Blame, float]:
        """Return the longest block of the last RECENT_S by whom and where, in seconds."""
        since = boot_time() - RECENT_S
        found: dict[Blame, float] = {}
        for ended_at, block in list(self._blocks):
            if ended_at >= since:
                found[block.blame] = max(found.get(block.blame, 0.0), block.seconds)
        return found

    def now(self) -> Blame:
        """Return where the main thread is at this moment; for who ends the process out of another thread."""
        return culprit(sys._current_frames().get(self._main or 0), self._owners)

    # ---- the thread ----------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        began, switches = boot_time(), _switches()
        slept_before = began - time.monotonic()
        while not self._stop.wait(PERIOD_S):
            waited_s, asked = boot_time() - began, _switches() - switches
            slept_s = boot_time() - time.monotonic() - slept_before
            late = waited_s > PERIOD_S + LATE_S
            held = late and asked > HELD_SWITCHES * waited_s
            try:
                if late and not held:
                    self._paused(waited_s, slept_s)
                else:
                    self._tick(waited_s, held=held)
            except Exception:  # noqa: BLE001 - the watchdog must not end for a fault of its own
                _within(SAY_S, lambda: log.exception("watchdog.failed"))
            self.ticks += 1
            began, switches = boot_time(), _switches()
            slept_before = began - time.monotonic()

    def _paused(self, waited_s: float, slept_s: float) -> None:
        """Nothing of this process ran: nobody is to blame, and what the loop owes counts from now."""
        if waited_s > 2 * LATE_S:
            asleep = slept_s > waited_s / 2
            _within(SAY_S, lambda: log.warning("process.paused", for_s=round(waited_s, 3), machine_slept=asleep))
        self._answered_at = None
        self._asked_at = None
        self._ask()

    def _tick(self, waited_s: float, *, held: bool) -> None:
        if self._asked_at is None:
            self._held = None
            self._ask()
        elif self._answered_at is None:
            self._unanswered(waited_s, held=held)
        else:
            delay_s = self._answered_at - self._asked_at
            self._answered(max(delay_s, waited_s - PERIOD_S) if held else delay_s, held=held)
            self._ask()

    def _ask(self) -> None:
        token = self._token
        if token is None:
            self._asked_at = None
            return
        self._answered_at = None
        self._asked_at = asked_at = boot_time()
        try:
            token.run_sync_soon(self._answer, asked_at)
        except trio.RunFinishedError:
            self._asked_at = None

    def _answer(self, asked_at: float) -> None:
        """The sign; runs on the loop."""
        if asked_at == self._asked_at:
            self._answered_at = boot_time()
        self._turned()
        if self._fresh:
            self._fresh = False
            self._news()

    def _unanswered(self, waited_s: float, *, held: bool) -> None:
        block = self._held = self._held or _Held()
        block.seen_s += waited_s
        if block.seen_s < BLOCKED_S:
            return
        block.sample(self.now(), certain=not held)
        if not block.told and block.is_known:
            block.told = 1
            self._say("loop.blocked", block, for_s=round(block.seen_s, 2))
        if block.seen_s >= ABORT_S and block.is_plugins:
            self._abort(block)
        elif block.seen_s >= ABORT_S and block.told == 1:
            block.told = 2
            self._say("loop.still_blocked", block, for_s=round(block.seen_s, 2))

    def _answered(self, delay_s: float, *, held: bool) -> None:
        block, self._held = self._held, None
        self._longest_delay_s = max(self._longest_delay_s, delay_s)
        if delay_s < BLOCKED_S:
            return
        if block is None or not block.told:  # it was over before anybody else could run
            block = block or _Held()
            block.sample(self.now(), certain=False)
            self._say("loop.blocked", block, for_s=round(delay_s, 2))
        self._say("loop.turned_again", block, for_s=round(delay_s, 2))
        self._blocks.append((boot_time(), Block(block.blame, delay_s)))
        self._fresh = True

    # ---- words ---------------------------------------------------------------------------------------------------------

    def _say(self, event: str, block: _Held, **facts: object) -> None:
        blame = block.blame
        known = {"plugin": blame.plugin or "none", "doing": blame.doing or None, "at": blame.place}
        if not block.is_known:
            known = {"at": "unknown: nothing else could run meanwhile", "afterwards_at": block.seen.place}
        _within(SAY_S, lambda: log.error(event, **known, **facts))

    def _abort(self, block: _Held) -> None:
        """Leave a note, say why, end the process. What the journal acknowledged is on the disk."""
        blame = block.blame
        note = self._note(blame, block.seen_s)
        failures: list[str] = ["the state directory does not answer"]

        def write() -> None:
            try:
                write_note(self._state_directory, note)
            except OSError as error:
                failures[:] = [str(error)]
            else:
                failures.clear()

        _within(5 * SAY_S, write)
        fate = (
            f"it will not be kept out, for that could not be noted ({failures[0]})"
            if failures
            else f"it is kept out from the next start on; mend it, then: sixfbctl plugins release {blame.plugin}"
        )
        whose = f" ({blame.doing})" if blame.doing else ""
        line = (
            f"sixfbd: plugin {blame.plugin}{whose} blocked the daemon for {block.seen_s:.0f} s at {blame.place}; {fate}"
        )

        facts = {"plugin": blame.plugin, "doing": blame.doing or None, "at": blame.place, "noted": not failures}
        _within(SAY_S, lambda: log.critical("daemon.aborted", **facts))
        _within(2 * SAY_S, logging.shutdown)  # writes what is queued
        _within(SAY_S, lambda: os.write(2, line.encode("utf-8", "replace") + b"\n"))
        self._end(EXIT_BLOCKED)

    def _note(self, blame: Blame, blocked_s: float) -> Note:
        catalog = self._catalog
        info = next((one for one in catalog.plugins if one.name == blame.plugin), None)
        names = frozenset() if info is None else frozenset(info.rules)
        return Note(
            plugin=blame.plugin,
            at=time.time(),
            blocked_s=blocked_s,
            doing=blame.doing,
            place=blame.place,
            brings=info is not None,
            checks={
                name: CheckNote(entry.cls.service, entry.cls.external)
                for name, entry in catalog.checks.items()
                if entry.plugin == blame.plugin
            },
            notifiers=tuple(name for name, entry in catalog.notifiers.items() if entry.plugin == blame.plugin),
            inbound=tuple(name for name, entry in catalog.inbound.items() if entry.plugin == blame.plugin),
            rules=tuple(rule for rule in catalog.rules if rule.name in names),
        )


def _switches() -> int:
    """How often this thread has waited for something."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _within(limit_s: float, call: Callable[[], object]) -> None:
    """Call in a thread of its own and wait at most `limit_s`: the one who blocks may hold what the call needs."""
    thread = threading.Thread(target=call, name="sixfbd-watchdog-says", daemon=True)
    thread.start()
    thread.join(limit_s)
