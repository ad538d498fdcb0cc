"""From TOML values to the types of the configuration: a walk over the fields that collects every problem.

msgspec stops at the first error; this walk converts leaf by leaf and goes on. Owns which types an option may have
(`shape_of`, which the JSON Schema and `sixfbd init` read as well). Knows no table by name.
"""

import math
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NewType, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, UNSET, Meta, Struct

from sixfbd.config.secret_sources import SecretError, SecretSources
from sixfbd.config.text import (
    MAX_FILE_BYTES,
    KeyPath,
    Problem,
    UnreadableError,
    did_you_mean,
    read_regular,
    show_value,
)
from sixfbd.containment import described, one_line, words_of
from sixfbd.plugin import InvalidOptions
from sixfbd.quantities import Duration, FilePath, Secret, Size

S = TypeVar("S", bound=Struct)

Kind = Literal[
    "table", "map", "list", "text", "whole", "number", "flag", "duration", "size", "file", "secret", "choice", "union",
    "any",
]  # fmt: skip

_LEAVES: Final[Mapping[Any, Kind]] = {
    str: "text", int: "whole", float: "number", bool: "flag", Duration: "duration", Size: "size", FilePath: "file",
    Secret: "secret", Any: "any", object: "any",
}  # fmt: skip
_LISTS: Final = (list, tuple, set, frozenset, Sequence, AbstractSet)
_NAMES: Final[Mapping[Kind, str]] = {
    "table": "a table", "map": "a table", "list": "a list", "text": "text", "whole": "a whole number",
    "number": "a number", "flag": "true or false", "duration": "a duration", "size": "a size",
    "file": "the path of a file", "secret": "a secret", "choice": "one of the known words", "any": "a value",
}  # fmt: skip
_MENDS: Final[Mapping[Kind, str]] = {
    "table": "write it as a table of keys", "map": "write it as a table of keys", "list": 'write it in brackets: ["..."]',
    "text": "write it in quotes", "whole": "write digits without quotes", "number": "write digits without quotes",
    "flag": "write true or false without quotes", "file": "write it in quotes",
}  # fmt: skip


class Shape(Struct, frozen=True):
    """What a field may hold. `inner` are a list's items, a map's key and value, or a union's members; `length` is set
    for a list of fixed length; `words` are what a choice may be. `type` is the class of the value, None for a union and
    for a Literal's words."""

    kind: Kind
    type: Any
    words: tuple[Any, ...] = ()
    metas: tuple[Meta, ...] = ()
    inner: tuple["Shape", ...] = ()
    optional: bool = False
    length: int | None = None

    @property
    def description(self) -> str:
        """The outermost description that the annotation carries, or ""."""
        return next((meta.description for meta in reversed(self.metas) if meta.description), "")

    @property
    def secret(self) -> bool:
        """Whether a value may be secret, so that it is never shown."""
        return self.kind == "secret" or any(part.secret for part in self.inner)


class TableField(Struct, frozen=True):
    """One key of a table: as configuration writes it (`key`) and as the struct has it (`attribute`)."""

    key: str
    attribute: str
    shape: Shape
    required: bool
    default: Any = None  # None where required


@lru_cache(maxsize=256)  # the options of a plugin are those of each of its checks, and there may be a thousand
def fields_of(table: type[Struct]) -> tuple[TableField, ...]:
    """Return the keys of a table. Raises TypeError for a type that configuration cannot give."""
    found = []
    for field in msgspec.structs.fields(table):
        made: Any = None
        if field.default is not NODEFAULT:
            made = field.default
        elif field.default_factory is not NODEFAULT:
            made = cast(Callable[[], Any], field.default_factory)()
        try:
            shape = shape_of(field.type)
        except TypeError as error:
            raise TypeError(f"{table.__qualname__}.{field.name}: {error}") from None
        found.append(TableField(field.encode_name, field.name, shape, field.required, None if made is UNSET else made))
    return tuple(found)


def shape_of(annotation: Any) -> Shape:
    """Return the shape of an annotation. Raises TypeError for a type that configuration cannot give.

    Structs are not looked into: a table may hold tables of its own kind.
    """
    bare: Any = annotation
    metas: tuple[Meta, ...] = ()
    while True:
        if get_origin(bare) is Annotated:
            metas = (*(meta for meta in bare.__metadata__ if isinstance(meta, Meta)), *metas)
            bare = bare.__origin__
        elif isinstance(bare, NewType):
            bare = bare.__supertype__
        else:
            break
    origin = get_origin(bare) or bare
    if origin in (Union, types.UnionType):
        return _union_shape(bare, metas)
    if origin is Literal:
        return Shape("choice", None, get_args(bare), metas)
    if origin in _LISTS:
        return _list_shape(origin, get_args(bare), metas)
    if origin in (dict, Mapping):
        key, value = (shape_of(part) for part in get_args(bare) or (str, Any))
        if key.kind not in ("text", "choice"):
            raise TypeError("the keys of a configuration's table are text")
        return Shape("map", dict, (), metas, (key, value))
    if bare in _LEAVES:
        return Shape(_LEAVES[bare], bare, (), metas)
    if isinstance(bare, type) and issubclass(bare, Enum):
        return Shape("choice", bare, tuple(member.value for member in bare), metas)
    if isinstance(bare, type) and issubclass(bare, Struct):
        return Shape("table", bare, (), metas)
    raise TypeError(f"configuration cannot give a {getattr(bare, '__name__', bare)}")


def _union_shape(bare: Any, metas: tuple[Meta, ...]) -> Shape:
    members = [shape_of(member) for member in get_args(bare) if member is not types.NoneType]
    optional = len(members) < len(get_args(bare))
    if sum(member.kind in ("table", "map") for member in members) > 1:
        raise TypeError("configuration cannot tell one table of a union from another")
    if len(members) == 1:
        only = members[0]
        metas = (*only.metas, *metas)
        return Shape(only.kind, only.type, only.words, metas, only.inner, optional=optional, length=only.length)
    return Shape("union", None, (), metas, tuple(members), optional=optional)


def _list_shape(origin: Any, items: tuple[Any, ...], metas: tuple[Meta, ...]) -> Shape:
    made = {Sequence: tuple, AbstractSet: frozenset}.get(origin, origin)
    if origin is tuple and items and items[-1] is not Ellipsis:
        inner = tuple(shape_of(item) for item in items)
        return Shape("list", tuple, (), metas, inner, length=len(inner))
    item = shape_of(items[0] if items else Any)
    if made in (set, frozenset) and item.kind in ("table", "map", "list", "union", "any"):
        raise TypeError("configuration cannot give a set of anything but words and numbers")
    return Shape("list", made, (), metas, (item,))


def bounded_type(shape: Shape) -> Any:
    """Return a leaf's type with its bounds, as msgspec takes it. Whether the bounds suit the type, msgspec says on use."""
    return Annotated[(shape.type, *shape.metas)] if shape.metas else shape.type


class _Failed:
    """The type of FAILED."""


MAX_NAMED: Final = 20  # unknown keys of one table that are named one by one

FAILED: Final = _Failed()
"""What the walk returns for a value that could not be made; its problem is noted."""


class Walk:
    """One pass over a configuration. `problems` fills up; `failed` tells whether something under a path went wrong.

    `place_of` says in which file a key stands, and by which name that file knows it. `partial`: some file could not be
    read, so that nothing can be said of what is missing (`absent`). Files are relative to `directory`.
    """

    def __init__(
        self,
        place_of: Callable[[KeyPath], tuple[str, str]],
        secrets: SecretSources,
        directory: Path,
        *,
        partial: bool = False,
    ) -> None:
        self.problems: list[Problem] = []
        self._place_of = place_of
        self._secrets = secrets
        self._directory = directory
        self.partial = partial
        self._failures: set[KeyPath] = set()

    def note(self, path: KeyPath, message: str, hint: str = "", value: str | None = None) -> None:
        """Note an error at a key."""
        self._fail(path)
        file, key = self._place_of(path)
        self.problems.append(Problem(file=file, key=key, message=one_line(message), hint=hint, value=value))

    def absent(self, path: KeyPath, message: str, hint: str = "", value: str | None = None) -> None:
        """Note an error that another file could mend by what it brings: a key or a name that is nowhere."""
        if self.partial:
            self._fail(path)
        else:
            self.note(path, message, hint, value)

    def warn(self, path: KeyPath, message: str, hint: str = "", value: str | None = None) -> None:
        """Note what is odd but can be used."""
        file, key = self._place_of(path)
        self.problems.append(
            Problem(file=file, key=key, message=one_line(message), hint=hint, value=value, level="warning")
        )

    def _fail(self, path: KeyPath) -> None:
        self._failures.update(path[:length] for length in range(len(path) + 1))

    def failed(self, path: KeyPath) -> bool:
        """Return whether an error was noted at this key or below it."""
        return path in self._failures

    def table(
        self, cls: type[S], raw: object, path: KeyPath, *, base: S | None = None, further: Iterable[str] = ()
    ) -> S | None:
        """Make a table, or return None if a required key is missing or wrong, or the whole does not fit together.

        A wrong value is noted and stands for its default, so that later problems are found as well. Missing keys are
        `base`'s, if given. `further` names keys that are valid here but belong to somebody else.
        """
        if not isinstance(raw, dict):
            self.note(path, f"is not {_NAMES['table']}", _MENDS["table"], show_value(raw))
            return None
        fields = fields_of(cls)
        self.unknown_keys(raw, {field.key for field in fields}, path, further)
        given: dict[str, Any] = {}
        whole = True
        for field in fields:
            if field.key in raw:
                value = self.value(field.shape, raw[field.key], (*path, field.key))
            elif field.required:
                value = FAILED
                self._missing(field, raw, (*path, field.key))
            else:
                continue
            if value is not FAILED:
                given[field.attribute] = value
            whole = whole and (value is not FAILED or not field.required)
        return self._make(cls, given, path, base, raw) if whole else None

    def _missing(self, field: TableField, raw: Mapping[str, Any], path: KeyPath) -> None:
        """Note a required key that is missing, unless it is there and misspelt, which is told already."""
        known = {field.key}
        if not any(did_you_mean(key, known).startswith("did") and self.failed((*path[:-1], key)) for key in raw):
            self.absent(path, "is missing", f"write {field.key} = {_SAMPLES[field.shape.kind]}{_said(field.shape)}")

    def _make(
        self, cls: type[S], given: dict[str, Any], path: KeyPath, base: S | None, raw: Mapping[str, Any]
    ) -> S | None:
        """Make the struct. Of what its own code refuses is told what the wrong values before it cannot be the cause of."""
        wrong = {key for key in raw if self.failed((*path, key))}
        try:
            return cls(**given) if base is None else msgspec.structs.replace(base, **given)
        except InvalidOptions as error:
            for key, text in error.faults:
                if not wrong or (key in raw and key not in wrong):
                    message, _, hint = one_line(text).partition("; ")
                    self.note((*path, key), message, hint)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's __post_init__ may raise anything; it is named
            if not wrong:
                own = isinstance(error, ValueError | TypeError) and bool(words_of(error))
                text = words_of(error) if own else f"is refused by the plugin: {described(error)}"
                message, _, hint = text.partition("; ")
                self.note(path, message, hint)
        self._fail(path)
        return None

    def unknown_keys(self, raw: dict[str, Any], known: AbstractSet[str], path: KeyPath, further: Iterable[str]) -> None:
        """Note every key that is neither known nor anybody else's. Values are not shown: they may be secrets."""
        others = set(further)
        unknown = [key for key in raw if key not in known and key not in others]
        for key in unknown[:MAX_NAMED]:
            self.note((*path, key), "unknown key", did_you_mean(key, known | others))
        if len(unknown) > MAX_NAMED:
            self.note((*path, unknown[MAX_NAMED]), f"unknown key, and {len(unknown) - MAX_NAMED - 1} more")

    def value(self, shape: Shape, raw: object, path: KeyPath) -> Any:
        """Return the value that `raw` stands for, or FAILED after noting why not."""
        match shape.kind:
            case "table":
                made = self.table(shape.type, raw, path)
                return FAILED if made is None else made
            case "map":
                return self._map(shape, raw, path)
            case "list":
                return self._list(shape, raw, path)
            case "secret":
                return self._secret(raw, path)
            case "union":
                return self._union(shape, raw, path)
            case "duration" | "size":
                return self._quantity(shape, raw, path)
            case "file":
                return self._file(raw, path) if isinstance(raw, str) else self._misfit(shape, raw, path)
            case "any":
                return raw
        return self._leaf(shape, raw, path)

    def _map(self, shape: Shape, raw: object, path: KeyPath) -> Any:
        if not isinstance(raw, dict):
            return self._misfit(shape, raw, path)
        key_shape, value_shape = shape.inner
        made: dict[Any, Any] = {}
        whole = True
        for key, value in raw.items():
            here = (*path, key)
            name = self.value(key_shape, key, here)
            item = self.value(value_shape, value, here)
            if name is FAILED or item is FAILED:
                whole = False
            else:
                made[name] = item
        return self._sized(shape, made, path) if whole else FAILED

    def _list(self, shape: Shape, raw: object, path: KeyPath) -> Any:
        if not isinstance(raw, list):
            return self._misfit(shape, raw, path)
        if shape.length is not None and len(raw) != shape.length:
            self.note(path, f"is a list of {len(raw)}, not of {shape.length}")
            return FAILED
        inner = shape.inner if shape.length is not None else shape.inner * len(raw)
        made = [
            self.value(part, item, (*path, place)) for place, (part, item) in enumerate(zip(inner, raw, strict=True))
        ]
        return FAILED if any(item is FAILED for item in made) else self._sized(shape, shape.type(made), path)

    def _sized(self, shape: Shape, made: Any, path: KeyPath) -> Any:
        for meta in shape.metas:
            least, most = meta.min_length or 0, meta.max_length
            if len(made) < least or (most is not None and len(made) > most):
                upper = "" if most is None else f" and at most {most}"
                self.note(path, _counted(len(made)), f"at least {least}{upper} must be there")
                return FAILED
        return made

    def _secret(self, raw: object, path: KeyPath) -> Any:
        try:
            secret, warning = self._secrets.resolve(raw)
        except SecretError as error:
            self.note(path, str(error), error.hint)
            return FAILED
        if warning:
            message, _, hint = warning.partition("; ")
            self.warn(path, message, hint)
        return secret

    def _union(self, shape: Shape, raw: object, path: KeyPath) -> Any:
        for member in shape.inner:
            if _fits(member, raw):
                return self.value(member, raw, path)
        names = " or ".join(dict.fromkeys(_NAMES[member.kind] for member in shape.inner))
        self.note(path, f"is not {names}", "", None if shape.secret else show_value(raw))
        return FAILED

    def _quantity(self, shape: Shape, raw: object, path: KeyPath) -> Any:
        try:
            return shape.type.parse(raw)
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            self.note(path, message, hint, show_value(raw))
            return FAILED

    def _file(self, raw: str, path: KeyPath) -> FilePath:
        """Return the file even if something is wrong with it: that a value is given is not."""
        file = self._directory / raw
        try:
            read_regular(file, MAX_FILE_BYTES)
        except UnreadableError as error:
            self.note(path, str(error), f"a file that sixfbd may read is needed, here {file}", show_value(raw))
        return FilePath(file)

    def _leaf(self, shape: Shape, raw: object, path: KeyPath) -> Any:
        if not _fits(shape, raw):
            return self._misfit(shape, raw, path)
        if shape.kind == "choice":
            return raw if shape.type is None else shape.type(raw)
        try:
            return msgspec.convert(raw, bounded_type(shape))
        except (msgspec.ValidationError, ValueError, OverflowError):
            self.note(path, _bounds(shape), shape.description.rstrip("."), show_value(raw))
            return FAILED

    def _misfit(self, shape: Shape, raw: object, path: KeyPath) -> Any:
        """Say what is wanted instead."""
        value = None if shape.secret else show_value(raw)
        if shape.kind == "choice":
            words = [str(choice) for choice in shape.words]
            near = did_you_mean(raw, words) if isinstance(raw, str) else ""
            known = ", ".join(f'"{word}"' for word in words)
            self.note(path, f"is not one of {known}", near if near.startswith("did") else "", value)
        elif isinstance(raw, int) and not isinstance(raw, bool) and shape.kind in ("whole", "number"):
            self.note(path, "is too large", "TOML's whole numbers have 64 bits", value)
        elif isinstance(raw, float) and not math.isfinite(raw):
            self.note(path, "is not a finite number", "", value)
        else:
            self.note(path, f"is not {_NAMES[shape.kind]}", _MENDS.get(shape.kind, ""), value)
        return FAILED


_WHOLE: Final = Shape("whole", int)
_SAMPLES: Final[Mapping[Kind, str]] = {
    "table": "{...}", "map": "{...}", "list": "[...]", "text": '"..."', "whole": "1", "number": "1.0", "flag": "true",
    "duration": '"5m"', "size": '"64MiB"', "file": '"PATH"', "secret": '{file = "PATH"}', "choice": '"..."', "union": "...",
    "any": "...",
}  # fmt: skip


def _said(shape: Shape) -> str:
    """What the description adds to a sample: " (name of the check plugin)"."""
    text = shape.description.rstrip(".")
    start = text[:1].lower() if text[1:2].islower() or text[1:2] == " " else text[:1]
    return f" ({start}{text[1:]})" if text else ""


def _counted(entries: int) -> str:
    return "is empty" if not entries else f"has {entries} {'entry' if entries == 1 else 'entries'}"


def _fits(shape: Shape, raw: object) -> bool:
    """Whether a value is of the shape's kind, whatever its bounds."""
    match shape.kind:
        case "table" | "map":
            return isinstance(raw, dict)
        case "secret":
            return isinstance(raw, dict)
        case "list":
            return isinstance(raw, list)
        case "text" | "duration" | "size" | "file":
            return isinstance(raw, str)
        case "whole":
            return isinstance(raw, int) and not isinstance(raw, bool) and abs(raw) < 2**63
        case "number":
            return (isinstance(raw, float) and math.isfinite(raw)) or (isinstance(raw, int) and _fits(_WHOLE, raw))
        case "flag":
            return isinstance(raw, bool)
        case "choice":
            return any(type(choice) is type(raw) and choice == raw for choice in shape.words)
        case "union":
            return any(_fits(member, raw) for member in shape.inner)
    return True


def _bounds(shape: Shape) -> str:
    """Say in words what the annotation asks for beyond the kind."""
    wanted: list[str] = []
    for meta in shape.metas:
        numbers = (("more than", meta.gt), ("at least", meta.ge), ("less than", meta.lt), ("at most", meta.le))
        wanted += [f"{words} {bound}" for words, bound in numbers if bound is not None]
        if meta.multiple_of is not None:
            wanted.append(f"a multiple of {meta.multiple_of}")
        if meta.min_length is not None:
            wanted.append(f"at least {_characters(meta.min_length)} long")
        if meta.max_length is not None:
            wanted.append(f"at most {_characters(meta.max_length)} long")
        if meta.pattern is not None:
            examples = " or ".join(show_value(example) for example in meta.examples or ())
            wanted.append(f"such as {examples}" if examples else f"of the form {meta.pattern}")
    return f"must be {' and '.join(wanted)}" if wanted else "is out of range"


def _characters(count: int) -> str:
    return "1 character" if count == 1 else f"{count} characters"
