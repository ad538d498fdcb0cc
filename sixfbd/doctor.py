"""`sixfbd doctor`: looks at a machine with the eyes of somebody who has to find out why nobody was told. Changes nothing.

Each finding says what is so, and, unless all is well, what to do about it.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from sixfbd.config import Config, ConfigError, Problem, state_directory
from sixfbd.control.client import ControlClient, ControlError
from sixfbd.control.engine import StatusView
from sixfbd.control.protocol import RpcError
from sixfbd.host import PluginCatalog
from sixfbd.http.server import ListenError, bind_listener
from sixfbd.journal.errors import JournalError
from sixfbd.journal.verify import verify_file
from sixfbd.model import Status
from sixfbd.quantities import show_duration
from sixfbd.trial import NotMadeError, try_check

ASK_S: Final = 5.0
SHOWN: Final = 3
LEAST_FREE_BYTES: Final = 256 * 1024 * 1024
CLOCK_AHEAD_S: Final = 2.0
UNIT: Final = "sixfbd.service"

State = Literal["ok", "warning", "fault"]
ORDER: Final[tuple[State, ...]] = ("fault", "warning", "ok")


class Finding(Struct, frozen=True):
    """What was looked at, how it is, and what to do about it."""

    what: str
    state: State
    says: str
    mend: str = ""


def examine(config: Config, catalog: PluginCatalog, socket_path: Path, *, offline: bool = False) -> Iterator[Finding]:
    """Yield what is found, one after the other; with `offline` nothing is asked of other machines."""
    status = _status(socket_path)
    yield _daemon(status, socket_path)
    yield from _state_directory(Path(config.daemon.state_directory), running=status is not None)
    yield from _files(config)
    yield _port(config, status)
    yield _clock(status)
    yield _people(config, status)
    yield _unit()
    if status is not None:
        yield from (
            Finding("daemon", "fault", problem, "sixfbctl status shows it until it is over")
            for problem in status.problems
        )
    if not offline:
        yield from _checks(config, catalog)


def examine_around(path: Path, problems: Sequence[Problem], socket_path: Path) -> Iterator[Finding]:
    """Yield what is found where the configuration at `path` cannot be used, beginning with why."""
    for problem in problems:
        state: State = "fault" if problem.level == "error" else "warning"
        yield Finding("configuration", state, str(problem), "sixfbd check-config says so too, until all is well")
    status = _status(socket_path)
    yield _daemon(status, socket_path)
    with suppress(ConfigError):  # it cannot be read, as said above: nobody knows where the state is
        yield from _state_directory(state_directory(path), running=status is not None)
    yield _clock(status)
    yield _unit()


def _status(socket_path: Path) -> StatusView | None:
    try:
        with ControlClient(socket_path, ASK_S) as client:
            return msgspec.convert(client.call("status"), StatusView, strict=False)
    except (ControlError, RpcError, OSError):
        return None


def _daemon(status: StatusView | None, socket_path: Path) -> Finding:
    if status is None:
        return Finding("daemon", "fault", f"none answers at {socket_path}", "start it: systemctl start sixfbd")
    up = show_duration(round(status.now - status.started_at))
    if status.volatile:
        return Finding("daemon", "fault", "the disk takes no writes, nothing is kept", "make room on the disk")
    return Finding("daemon", "ok", f"version {status.version}, pid {status.pid}, up {up}")


def _state_directory(directory: Path, *, running: bool) -> Iterator[Finding]:
    what = "state directory"
    if not directory.is_dir():
        mend = f"install -d -m 700 -o sixfbd -g sixfbd {directory}"
        yield Finding(what, "fault", f"{directory} is not there", mend)
        return
    mode, free = directory.stat().st_mode & 0o777, shutil.disk_usage(directory).free
    if mode & 0o077:
        yield Finding(
            what,
            "warning",
            f"{directory} has mode {mode:o}: others may read who was told what",
            f"chmod 700 {directory}",
        )
    if not running and not os.access(directory, os.W_OK):
        yield Finding(
            what, "fault", f"{directory} cannot be written by this user", "ask as the daemon's user: sudo -u sixfbd"
        )
    if free < LEAST_FREE_BYTES:
        yield Finding(
            what, "fault", f"{free // 1024**2} MiB are free at {directory}", "make room, or lower [journal] max_size"
        )
    else:
        yield Finding(what, "ok", f"{directory}, {free // 1024**2:,} MiB free")
    journal = directory / "journal.db"
    if journal.exists():
        yield _journal(journal)


def _journal(path: Path) -> Finding:
    try:
        wrong = verify_file(path)
    except JournalError as error:
        return Finding("journal", "fault", str(error), "sixfbd journal restore BACKUP, with the daemon stopped")
    if wrong:
        said = "; ".join(wrong[:SHOWN])
        return Finding(
            "journal", "fault", f"{path} contradicts itself: {said}", "sixfbd journal verify names all of it"
        )
    return Finding("journal", "ok", f"{path} is whole")


def _files(config: Config) -> Iterator[Finding]:
    """The configuration and what lies beside it: secrets are for the daemon's user alone."""
    for name in config.files:
        mode = Path(name).stat().st_mode & 0o777
        if mode & 0o022:
            yield Finding(
                "configuration", "warning", f"{name} has mode {mode:o}: others may change it", f"chmod go-w {name}"
            )
    secrets = {folder / "tokens" for folder in {Path(name).parent for name in config.files}}
    for file in sorted(file for folder in secrets if folder.is_dir() for file in folder.iterdir() if file.is_file()):
        if file.stat().st_mode & 0o077:
            yield Finding("secrets", "fault", f"{file} may be read by others", f"chmod 600 {file}")
    yield Finding(
        "configuration",
        "ok",
        f"{len(config.files)} files, {len(config.checks)} checks, {len(config.notifiers)} notifiers",
    )


def _port(config: Config, status: StatusView | None) -> Finding:
    if status is not None:
        return Finding("port", "ok", f"{status.http} is the daemon's")
    try:
        with bind_listener(config.http.listen):
            return Finding("port", "ok", f"{config.http.listen} is free")
    except (ListenError, OSError) as error:
        return Finding("port", "fault", str(error), "choose another one, [http] listen, or see who has it: ss -ltnp")


def _clock(status: StatusView | None) -> Finding:
    if status is not None and abs(status.clock_offset_s) > CLOCK_AHEAD_S:
        said = f"it has jumped by {status.clock_offset_s:.1f} s since the daemon began"
        return Finding("clock", "warning", said, "a restart of the daemon adopts it")
    synchronized = _said("timedatectl", "show", "--property=NTPSynchronized", "--value")
    if synchronized is None:
        return Finding(
            "clock", "warning", "whether it is set by a time server is not known here", "timedatectl says so"
        )
    if synchronized != "yes":
        return Finding("clock", "fault", "it is not set by a time server", "timedatectl set-ntp true")
    return Finding("clock", "ok", "it is set by a time server")


def _people(config: Config, status: StatusView | None) -> Finding:
    channels = [name for name, kinds in config.receivers.items() if kinds]
    if not channels:
        return Finding("people", "fault", "nobody will be told: no receiver has a channel", "add [receivers.primary]")
    if status is None:
        return Finding(
            "people", "warning", f"receivers: {', '.join(channels)}; whether they are reached only a daemon knows"
        )
    if status.nobody_told:
        return Finding("people", "fault", status.nobody_told, "sixfbctl notify test")
    return Finding("people", "ok", f"a message has reached somebody; receivers: {', '.join(channels)}")


def _unit() -> Finding:
    found = _said("systemctl", "show", UNIT, "--property=LoadState,Type,WatchdogUSec,Restart")
    if found is None:
        return Finding(
            "systemd", "warning", "there is no systemd here, or it does not answer", "see that something restarts it"
        )
    facts = dict(line.split("=", 1) for line in found.splitlines() if "=" in line)
    if facts.get("LoadState") != "loaded":
        return Finding("systemd", "warning", f"{UNIT} is not installed", "the package brings it")
    missing = [
        said
        for said, is_so in (
            ("Type is not notify or notify-reload", facts.get("Type", "").startswith("notify")),
            ("there is no watchdog", facts.get("WatchdogUSec", "0") not in ("0", "infinity")),
            ("it is not started again after a crash", facts.get("Restart", "no") != "no"),
        )
        if not is_so
    ]
    if missing:
        return Finding("systemd", "warning", f"{UNIT}: {'; '.join(missing)}", f"systemctl revert {UNIT}")
    return Finding("systemd", "ok", f"{UNIT} is watched and started again")


def _said(*command: str) -> str | None:
    """Return what a command printed, None if it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _checks(config: Config, catalog: PluginCatalog) -> Iterator[Finding]:
    """Each check is run once, as `sixfbd check try` does: credentials, networks and providers with it."""
    for name, table in config.checks.items():
        if not table.enabled:
            continue
        try:
            run = try_check(table, catalog, config)
        except NotMadeError as error:
            yield Finding(f"check {name}", "fault", str(error), f"sixfbd check try {name}")
            continue
        state: State = "ok" if run.status is Status.HEALTHY else "fault"
        mend = "" if state == "ok" else f"sixfbd check try {name} shows all of it"
        yield Finding(f"check {name}", state, f"{run.status}: {run.summary}", mend)


def worst(findings: Sequence[Finding]) -> State:
    """Return the worst state of all."""
    states = {one.state for one in findings}
    return next((state for state in ORDER if state in states), "ok")
