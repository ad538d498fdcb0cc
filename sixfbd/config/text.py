"""The text of the configuration: reads the TOML files, merges them, and knows which file said what.

Owns the form of a `Problem`, the one thing that everything about the configuration is told in. Never looks at what a
key means; never raises for what a file holds.
"""

import hashlib
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, TypeGuard

from msgspec import Struct

KeyPath: TypeAlias = tuple[str | int, ...]
"""The way to a value: table names, keys, and places in arrays."""

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 32  # tables in tables; the deepest of ours is a route in a route
MAX_SHOWN: Final = 60  # characters of a value or a key that are shown
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class Problem(Struct, frozen=True, kw_only=True):
    """Something wrong in the configuration: where, what, and how to mend it.

    `key` is empty only where `line` is set or the file as a whole is meant. `value` is the value as shown; None where
    there is none or where it may be a secret. A warning does not keep the configuration from being used.
    """

    file: str
    message: str
    key: str = ""
    line: int | None = None
    column: int | None = None
    value: str | None = None
    hint: str = ""
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        place = [self.file]
        if self.level == "warning":
            place.append("warning")
        if self.line is not None:
            place.append(f"line {self.line}" + (f", column {self.column}" if self.column is not None else ""))
        if self.key:
            place.append(self.key)
        what = self.message if self.value is None else f"{self.value} {self.message}"
        return ": ".join([*place, what]) + (f"; {self.hint}" if self.hint else "")


class Origin(Struct, frozen=True):
    """Where a value stands: its file, and of an entry of a list its place in that file's own list."""

    file: str
    place: int = 0


class Tree(Struct, frozen=True):
    """All files merged. `origins` tells where a key path was set; one that is not in it was set with its parent."""

    main: str
    values: dict[str, Any]
    origins: dict[KeyPath, Origin]
    files: tuple[str, ...]
    text_hash: str

    def file_of(self, path: KeyPath) -> str:
        """Return the file that set this key, or the nearest table around it."""
        for length in range(len(path), 0, -1):
            if (origin := self.origins.get(path[:length])) is not None:
                return origin.file
        return self.main

    def key_of(self, path: KeyPath) -> str:
        """Return a key path as the file that set it knows it: `rules[0] "ShopDown".expr`, counted in that file alone."""
        parts: list[str] = []
        value: Any = self.values
        for length, step in enumerate(path, start=1):
            value = _entry(value, step)
            if isinstance(step, int):
                origin = self.origins.get(path[:length])
                parts.append(f"[{step if origin is None else origin.place}]")
                name = _entry(value, "name")
                if isinstance(name, str) and name:
                    parts.append(f" {_quoted(name)}")
            else:
                parts.append(_step(step, first=not parts))
        return "".join(parts)


class UnreadableError(Exception):
    """A file cannot be read. The text goes on from the file's name: "does not exist"."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


def read_regular(path: Path, most_bytes: int) -> tuple[bytes, int]:
    """Return the content and the mode of a regular file; never waits, as the opening of a FIFO would.

    Raises UnreadableError for whatever keeps it from being read, a size above `most_bytes` included.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise UnreadableError("is not a regular file")
            data = stream.read(most_bytes + 1)
    except FileNotFoundError:
        raise UnreadableError("does not exist", missing=True) from None
    except OSError as error:
        raise UnreadableError(f"cannot be read: {error.strerror}") from None
    except ValueError:
        raise UnreadableError("is not a path") from None
    if len(data) > most_bytes:
        raise UnreadableError(f"is larger than {most_bytes // 1024} KiB")
    return data, mode


def show_key(path: KeyPath) -> str:
    """Return a key path as a person writes it: `routes[0].receiver`, `checks."a b".interval`."""
    return "".join(
        f"[{step}]" if isinstance(step, int) else _step(step, first=place == 0) for place, step in enumerate(path)
    )


def show_value(value: object) -> str:
    """Return a TOML value as a message shows it: short, on one line, the inside of tables and lists left out."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _quoted(value)
        case int():
            return repr(value) if abs(value) < 10**40 else "a huge number"
        case float():
            return repr(value)
        case datetime() | date() | time():
            return value.isoformat()
        case dict():
            return "a table"
        case list():
            return "a list"
    return "a value"


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return the mend for a word that is not known: the nearest one, else all of them, else nothing."""
    names = sorted(set(known))
    near = get_close_matches(str(word)[:100], names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"known: {', '.join(names)}" if names else ""


def read_tree(path: Path) -> tuple[Tree, list[Problem]]:
    """Read `path` and `conf.d/*.toml` beside it, in name order, and merge them.

    Tables merge deeply; of a key set twice the later file wins; arrays of tables append. With any problem the tree holds
    only what could be read: enough to look for plugins and for more that is wrong, not to be used.
    """
    names, problems = _files_of(path)
    values: dict[str, Any] = {}
    origins: dict[KeyPath, Origin] = {}
    digest = hashlib.sha256()
    for name in names:
        data = _read(name, problems)
        if data is None:
            continue
        digest.update(len(data).to_bytes(8) + data)
        parsed = _parse(_shown(name), data, problems)
        if parsed is not None:
            _merge(values, parsed, (), _shown(name), origins)
    return Tree(_shown(path), values, origins, tuple(_shown(name) for name in names), digest.hexdigest()), problems


def _quoted(text: str) -> str:
    return json.dumps(text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…", ensure_ascii=False)


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def _shown(path: Path) -> str:
    """A path as text on one line that can be encoded, whatever bytes its name has."""
    text = str(path).encode("utf-8", "backslashreplace").decode()
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _files_of(path: Path) -> tuple[list[Path], list[Problem]]:
    folder = path.parent / "conf.d"
    try:
        names = sorted(path.name for path in folder.iterdir() if path.suffix == ".toml" and path.name[0] != ".")
    except FileNotFoundError:
        return [path], []
    except OSError as error:
        return [path], [Problem(file=_shown(folder), message=f"cannot be read: {error.strerror}")]
    return [path, *(folder / name for name in names)], []


def _read(path: Path, problems: list[Problem]) -> bytes | None:
    try:
        return read_regular(path, MAX_FILE_BYTES)[0]
    except UnreadableError as error:
        hint = "`sixfbd init` writes one" if error.missing else ""
        problems.append(Problem(file=_shown(path), message=str(error), hint=hint))
        return None


def _parse(file: str, data: bytes, problems: list[Problem]) -> dict[str, Any] | None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problems.append(Problem(file=file, line=line, message="is not UTF-8", hint="save the file as UTF-8"))
        return None
    try:
        values = tomllib.loads(text)
    except RecursionError:
        problems.append(_too_deep(file))
        return None
    except ValueError as error:
        problems.append(_syntax_problem(file, text, error))
        return None
    if _deeper_than(values, MAX_DEPTH):
        problems.append(_too_deep(file))
        return None
    return values


def _too_deep(file: str) -> Problem:
    return Problem(file=file, line=1, message=f"nests tables or lists more than {MAX_DEPTH} deep")


def _syntax_problem(file: str, text: str, error: ValueError) -> Problem:
    """tomllib says the place in its text only; of the text itself it quotes single characters, so nothing secret."""
    message = str(error)
    found = _TOML_PLACE.search(message)
    line, column = text.count("\n") + 1, None
    if found is not None:
        message = message[: found.start()]
        if found[1]:
            line, column = int(found[1]), int(found[2])
    what = message[:1].lower() + message[1:]
    hint = "text needs quotes, a key needs = and a value"
    return Problem(file=file, line=line, column=column, message=f"is not TOML: {_short(what)}", hint=hint)


def _deeper_than(value: object, depth: int) -> bool:
    """Walk without recursion: dotted keys can nest deeper than the stack."""
    level: Sequence[object] = [value]
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True


def _is_tables(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _entry(value: object, step: str | int) -> Any:
    """What is at one step of a value, None if nothing is."""
    if isinstance(value, dict):
        return value.get(step)
    return value[step] if isinstance(value, list) and isinstance(step, int) and step < len(value) else None


def _step(name: str, *, first: bool) -> str:
    shown = name if _BARE_KEY.fullmatch(name) else _quoted(name)
    return shown if first else f".{shown}"


def _merge(into: dict[str, Any], new: dict[str, Any], path: KeyPath, file: str, origins: dict[KeyPath, Origin]) -> None:
    for key, value in new.items():
        here = (*path, key)
        old = into.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            _merge(old, value, here, file, origins)
        elif _is_tables(old) and _is_tables(value):
            origins.update({(*here, len(old) + place): Origin(file, place) for place in range(len(value))})
            into[key] = [*old, *value]
        else:
            if isinstance(old, dict | list):  # what was set inside it is gone
                for known in [known for known in origins if known[: len(here)] == here]:
                    del origins[known]
            into[key] = value
            origins[here] = Origin(file)
