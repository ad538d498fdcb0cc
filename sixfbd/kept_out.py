"""Plugins that are kept out because they blocked the daemon: a note of each in the state directory, and what stands in.

A note is written by the process that ends for it, whole or not at all; every start reads them, and `release` removes
one. Stand-ins keep the names of a plugin that is kept out, so that a configuration which names them is still valid and
what they fed stays blind instead of fine. Never loads a plugin.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from sixfbd.model import Rule
from sixfbd.plugin import Check, Context, Inbound, NoOptions, Notifier

FOLDER: Final = "kept-out"
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class KeptOut(Exception):  # noqa: N818 - a fact, no fault of whoever meets it
    """An instance cannot be made because its plugin is kept out; the text says why and until when."""


class CheckNote(Struct, frozen=True):
    """What is known of a check class without loading it: the entries of /api/health that it fills."""

    service: str | None = None
    external: str | None = None


class Note(Struct, frozen=True, kw_only=True):
    """Why a plugin is kept out. `at` is wall time, unix seconds; `brings` False: it never got so far as to say what."""

    plugin: str
    at: float
    blocked_s: float
    doing: str = ""  # on whose behalf it ran, such as "check web"
    place: str = ""  # FILE:LINE
    brings: bool = False
    checks: dict[str, CheckNote] = {}
    notifiers: tuple[str, ...] = ()
    inbound: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    @property
    def reason(self) -> str:
        """Why, since when and what to do, in one line."""
        when = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        whose = f" ({self.doing})" if self.doing else ""
        where = f" at {self.place}" if self.place else ""
        return (
            f"kept out: it blocked the daemon for {self.blocked_s:.0f} s{where}{whose} on {when}; "
            f"mend it, then: sixfbctl plugins release {self.plugin}"
        )


def write_note(state_directory: Path, note: Note) -> None:
    """Write a note, durable on return. Raises OSError."""
    folder = state_directory / FOLDER
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    path = folder / f"{note.plugin}.json"
    half = folder / f".{note.plugin}.half"
    with half.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(note)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_notes(state_directory: Path | None) -> dict[str, Note]:
    """Return the notes by plugin. One that cannot be read keeps its plugin out as well, for reasons unknown.

    None at all where the directory is not ours to read: whoever may not read the state runs no daemon on it.
    """
    notes: dict[str, Note] = {}
    for path in _files(state_directory):
        try:
            note = msgspec.json.decode(path.read_bytes(), type=Note)
        except (OSError, msgspec.MsgspecError):
            note = Note(plugin=path.stem, at=0.0, blocked_s=0.0, place=f"a place that {path} no longer tells")
        notes[path.stem] = note
    return notes


def release(state_directory: Path, plugin: str) -> bool:
    """Remove a plugin's note; return whether there was one. Raises OSError."""
    if not _NAME.fullmatch(plugin):
        return False
    path = state_directory / FOLDER / f"{plugin}.json"
    if not path.exists():
        return False
    path.unlink()
    return True


def _files(state_directory: Path | None) -> list[Path]:
    if state_directory is None:
        return []
    with suppress(OSError):
        return sorted(path for path in (state_directory / FOLDER).glob("*.json") if _NAME.fullmatch(path.stem))
    return []


# ---- what stands in ------------------------------------------------------------------------------------------------------


def check_stand_ins(note: Note, wanted: Mapping[str, None]) -> Iterator[tuple[str, type[Check[Any]]]]:
    """Yield a check class that cannot be made for each name that the plugin brought: `wanted` ones if nobody knows."""
    names = note.checks if note.brings else dict.fromkeys(wanted, CheckNote())
    for name, known in names.items():
        members = {"__init__": _refusing(note), "__doc__": note.reason}
        yield name, type("KeptOutCheck", (Check,), {**members, "service": known.service, "external": known.external})


def notifier_stand_ins(note: Note, wanted: Mapping[str, None]) -> Iterator[tuple[str, type[Notifier[Any]]]]:
    """Yield a notifier class that cannot be made for each name that the plugin brought: `wanted` ones if nobody knows."""
    names = note.notifiers if note.brings else tuple(wanted)
    for name in names:
        yield name, type("KeptOutNotifier", (Notifier,), {"__init__": _refusing(note), "__doc__": note.reason})


def inbound_stand_ins(note: Note, wanted: Mapping[str, None]) -> Iterator[tuple[str, type[Inbound[Any]]]]:
    """Yield an inbound class that cannot be made for each kind that the plugin brought: `wanted` ones if nobody knows."""
    names = note.inbound if note.brings else tuple(wanted)
    for name in names:
        yield name, type("KeptOutInbound", (Inbound,), {"__init__": _refusing(note), "__doc__": note.reason})


def _refusing(note: Note) -> Any:
    def refuse(self: object, options: NoOptions, ctx: Context) -> None:
        raise KeptOut(f"plugin {note.plugin} is {note.reason}")

    return refuse
