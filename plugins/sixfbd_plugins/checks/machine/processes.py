"""Processes: how many in which state, and the chosen ones, found by name, by pid file or through a unit's cgroup.

Reads /proc and /sys/fs/cgroup only (no systemd bus, no commands). Every function blocks. What another user's process
hides (its open files) is left out, never guessed.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import psutil

from sixfbd.plugin import Counter, Gauge, Sample
from sixfbd_plugins.checks.regex import compile_regex

_BY_NAME = ("process",)
PIDS = Gauge("node_processes_pids", "Processes.")
STATES = Gauge("node_processes_state", "Processes in each state, by the kernel's letter.", ("state",))
UP = Gauge("system_process_up", "1 if at least one process of this name runs.", _BY_NAME)
COUNT = Gauge("system_process_count", "Processes of this name.", _BY_NAME)
CPU_SECONDS = Counter("system_process_cpu_seconds_total", "CPU seconds of the processes of this name.", _BY_NAME)
RESIDENT = Gauge("system_process_resident_memory_bytes", "Memory that they hold, shared pages counted each.", _BY_NAME)
OPEN_FDS = Gauge(
    "system_process_open_fds", "Files that they have open; only of processes that we may inspect.", _BY_NAME
)
START_TIME = Gauge("system_process_start_time_seconds", "When the oldest of them started, unix seconds.", _BY_NAME)

METRICS: Final = (PIDS, STATES, UP, COUNT, CPU_SECONDS, RESIDENT, OPEN_FDS, START_TIME)

_LETTERS: Final = {
    psutil.STATUS_RUNNING: "R", psutil.STATUS_SLEEPING: "S", psutil.STATUS_DISK_SLEEP: "D", psutil.STATUS_STOPPED: "T",
    psutil.STATUS_TRACING_STOP: "t", psutil.STATUS_ZOMBIE: "Z", psutil.STATUS_DEAD: "X", psutil.STATUS_IDLE: "I",
}  # fmt: skip
_GONE: Final = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
CGROUP_ROOTS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/systemd"))
"""Where units' cgroups are: version 2, then the two places of a hybrid set-up."""


class Chosen(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of `processes`: exactly one of `unit` and `pid_file`, or `match` alone; `match` narrows the other two."""

    name: Annotated[
        str, msgspec.Meta(description="Label `process`; default: the unit, pid file's stem or pattern.")
    ] = ""
    match: Annotated[str | None, msgspec.Meta(description="RE2 searched in the process's name and command line.")] = (
        None
    )
    pid_file: Annotated[str | None, msgspec.Meta(description="File that holds the process id.")] = None
    unit: Annotated[str | None, msgspec.Meta(description="systemd unit, such as shop.service.")] = None

    def __post_init__(self) -> None:
        if self.unit and self.pid_file:
            raise ValueError("a process is chosen by unit or by pid_file, not by both; drop one")
        if not (self.unit or self.pid_file or self.match):
            raise ValueError('a process needs match, pid_file or unit; write {name = "shop", match = "node"}')
        if self.match is not None:
            compile_regex(self.match)

    @property
    def label(self) -> str:
        """The value of the label `process`."""
        if self.name or not (self.unit or self.pid_file):
            return self.name or self.match or ""
        return self.unit.removesuffix(".service") if self.unit else Path(self.pid_file or "").stem


def unit_pids(unit: str, roots: Sequence[Path] = CGROUP_ROOTS) -> list[int]:
    """Return the processes of a systemd unit, those of its sub-groups included; empty if it has none or does not exist."""
    wanted = unit if "." in unit else f"{unit}.service"
    for root in roots:
        pids = [pid for group in _groups(root, wanted) for pid in _pids_below(group)]
        if pids:
            return sorted(set(pids))
    return []


def _groups(root: Path, unit: str) -> Iterator[Path]:
    """Yield the unit's groups: it is in a slice, in a slice, ..., so only slices are walked."""
    for folder, names, _ in os.walk(root):
        if unit in names:
            yield Path(folder, unit)
        names[:] = [name for name in names if name.endswith(".slice")]


def _pids_below(group: Path) -> Iterator[int]:
    for listing in group.rglob("cgroup.procs"):
        try:
            yield from (int(line) for line in listing.read_text("ascii").split())
        except OSError:
            continue  # a group that ended while we looked holds no process


def pid_of(pid_file: str) -> list[int]:
    """Return the pid in a pid file; empty if the file is missing or does not begin with a number.

    Waits for nobody: what is named may be a pipe that no one writes to, or a device without end.
    """
    try:
        descriptor = os.open(pid_file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        words = os.read(descriptor, 64).decode("utf-8", errors="replace").split()
    except OSError:
        return []
    finally:
        os.close(descriptor)
    return [int(words[0])] if words and words[0].isdecimal() and len(words[0]) < 10 else []


def reading(chosen: Sequence[Chosen]) -> Callable[[], list[Sample]]:
    """Return the reading of states and chosen processes; `chosen` is compiled once."""
    patterns = [(choice, compile_regex(choice.match) if choice.match else None) for choice in chosen]
    attributes = ["status", "name", "cmdline"] if any(pattern for _, pattern in patterns) else ["status"]

    def read() -> list[Sample]:
        alive = {process.pid: process for process in psutil.process_iter(attributes)}
        samples = _states(alive.values())
        for choice, pattern in patterns:
            found = (alive[pid] for pid in _candidates(choice, alive) if pid in alive)
            running = [process for process in found if process.info["status"] not in _GONE]
            samples += _measured(choice.label, [each for each in running if pattern is None or _matches(pattern, each)])
        return samples

    return read


def _candidates(choice: Chosen, alive: Iterable[int]) -> Iterable[int]:
    if choice.unit:
        return unit_pids(choice.unit)
    if choice.pid_file:
        return pid_of(choice.pid_file)
    return (pid for pid in alive if pid != os.getpid())  # our own command line may well contain the pattern


def _matches(pattern: Any, process: psutil.Process) -> bool:
    command = " ".join(process.info["cmdline"] or ())
    return bool(pattern.search(process.info["name"] or "") or pattern.search(command))


def _states(processes: Iterable[psutil.Process]) -> list[Sample]:
    counts = dict.fromkeys(_LETTERS.values(), 0)
    total = 0
    for process in processes:
        total += 1
        letter = _LETTERS.get(process.info["status"])
        if letter:
            counts[letter] += 1
    return [PIDS(total), *(STATES(count, state=letter) for letter, count in counts.items())]


def _measured(name: str, processes: Sequence[psutil.Process]) -> list[Sample]:
    cpu = resident = 0.0
    started: list[float] = []
    open_fds: list[int] = []
    for process in processes:
        try:
            with process.oneshot():
                times = process.cpu_times()
                memory = process.memory_info().rss
                started.append(process.create_time())
            cpu += times.user + times.system
            resident += memory
            open_fds.append(process.num_fds())
        except psutil.AccessDenied:
            continue  # another user's open files; what was read before counts
        except psutil.NoSuchProcess:
            continue  # ended while we looked
    samples = [UP(float(bool(started)), process=name), COUNT(len(started), process=name)]
    if started:
        samples += [
            CPU_SECONDS(cpu, process=name),
            RESIDENT(resident, process=name),
            START_TIME(min(started), process=name),
        ]
    return [*samples, OPEN_FDS(sum(open_fds), process=name)] if open_fds else samples
