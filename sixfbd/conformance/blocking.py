"""Who blocks the event loop: calls that wait, told by Python's audit events, and steps that take too long."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final
from unittest import mock

import trio

LONGEST_S: Final = 0.5  # as the daemon's watchdog, which names who takes longer
LOOK_S: Final = 0.05
_WAITING: Final = frozenset(
    {
        "ftplib.connect", "http.client.connect", "imaplib.open", "os.listdir", "os.scandir", "os.system", "poplib.connect",
        "open", "smtplib.connect", "socket.connect", "socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname",
        "sqlite3.connect", "subprocess.Popen", "telnetlib.Telnet.open", "urllib.Request",
    }
)  # fmt: skip
_FREE: Final = (
    "trio.",
    "importlib",
    "linecache",
    "logging",
    "structlog",
    "traceback",
    "tokenize",
    "inspect",
    "zoneinfo",
)
"""Modules that may do so for a plugin: trio waits without blocking, imports and tracebacks happen once."""


class Blocking:
    """While `watching`, notes in `found` where code below `root` blocks the loop that watches: (FILE:LINE, what)."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.found: dict[tuple[str, str], None] = {}
        self._loop = 0
        self._step_began: float | None = None
        self._steps = _Steps(self)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the loop of the current thread."""
        self._loop = threading.get_ident()
        ended = threading.Event()
        looker = threading.Thread(target=self._look, args=(ended,), name="blocking", daemon=True)
        trio.lowlevel.add_instrument(self._steps)
        _watchers.append(self.audit)
        _hook_once()
        looker.start()
        try:
            with mock.patch.object(time, "sleep", self._sleep):  # tells of itself from Python 3.13 on only
                yield
        finally:
            _watchers.remove(self.audit)
            trio.lowlevel.remove_instrument(self._steps)
            ended.set()
            looker.join()

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """Take an audit event of any thread."""
        if event not in _WAITING or threading.get_ident() != self._loop:
            return
        if event == "socket.connect" and args[0].gettimeout() == 0:
            return
        if event == "open" and "/zoneinfo/" in str(args[0]):  # small, local, and read once by ZoneInfo
            return
        if place := self._place(sys._getframe(2)):
            self.found[place, f"calls {event}()"] = None

    def _sleep(self, seconds: float) -> None:
        """`time.sleep`, which is noted if it is the loop that sleeps."""
        if threading.get_ident() == self._loop and (place := self._place(sys._getframe(1))):
            self.found[place, "calls time.sleep()"] = None
        _sleep(seconds)

    def begin_step(self) -> None:
        self._step_began = time.monotonic()

    def end_step(self) -> None:
        self._step_began = None

    def _look(self, ended: threading.Event) -> None:
        """Look at the loop's stack while a step takes too long; a thread's work."""
        while not ended.wait(LOOK_S):
            began = self._step_began
            if began is None or time.monotonic() - began < LONGEST_S:
                continue
            place = self._place(sys._current_frames().get(self._loop))
            if place and not any(where == place for where, _ in self.found):
                self.found[place, f"does not let others run for more than {LONGEST_S:g} s"] = None

    def _place(self, frame: FrameType | None) -> str:
        """Return FILE:LINE of the innermost frame of the plugin, "" if there is none or another's code waits for it."""
        while frame is not None:
            if frame.f_code.co_filename.startswith(self.root):
                return f"{frame.f_code.co_filename}:{frame.f_lineno}"
            module = str(frame.f_globals.get("__name__", ""))
            if module.startswith(_FREE):
                return ""
            frame = frame.f_back
        return ""


class _Steps(trio.abc.Instrument):
    """Tells when a step of a task begins and ends."""

    def __init__(self, blocking: Blocking) -> None:
        self._blocking = blocking

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._blocking.begin_step()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._blocking.end_step()


_sleep: Final = time.sleep
_watchers: list[Callable[[str, tuple[Any, ...]], None]] = []
_hooked = False


def _hook_once() -> None:
    """Have audit events told to the watchers; Python lets go of no hook, so there is one for the whole process."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_tell)
        _hooked = True


def _tell(event: str, args: tuple[Any, ...]) -> None:
    for watcher in _watchers:
        watcher(event, args)
