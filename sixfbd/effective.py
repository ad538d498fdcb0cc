"""The configuration in force, written back: defaults filled in, secrets by where they come from. Pure.

What `as_toml` writes is a configuration that loads to the same values, as long as the secrets are found.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

import msgspec
import tomli_w
from msgspec import Struct

from sixfbd.config import CheckTable, Config, NotifierTable
from sixfbd.quantities import Duration, Secret, Size

_NOT_KEYS: Final = frozenset({"files", "text_hash", "rule_places", "template_texts"})
_NOT_TABLE_KEYS: Final = frozenset({"name", "options", "where"})


def effective(config: Config) -> dict[str, Any]:
    """Return the configuration as TOML's types: tables, texts, numbers. A secret is the table that names its source."""
    return {name: _plain(value) for name, value in _items(config) if name not in _NOT_KEYS and not _is_empty(value)}


def as_toml(config: Config) -> str:
    """Return the configuration as TOML, the files that it came from on top."""
    head = [f"# {file}" for file in config.files]
    return "\n".join([*head, "", tomli_w.dumps(effective(config), multiline_strings=False)])


def _items(struct: Struct) -> list[tuple[str, Any]]:
    return [(field.encode_name, getattr(struct, field.name)) for field in msgspec.structs.fields(struct)]


def _is_empty(value: object) -> bool:
    """TOML has no null; an empty table or list says nothing."""
    return value is None or (isinstance(value, Mapping | tuple | list) and not value)


def _plain(value: Any) -> Any:
    match value:
        case Secret():
            source, _, name = value.source.partition(" ")
            return {source: name}
        case Duration() | Size():
            return str(value)
        case Enum():
            return value.value
        case CheckTable() | NotifierTable():
            own = {name: part for name, part in _items(value) if name not in _NOT_TABLE_KEYS}
            options = dict(_items(value.options)) if isinstance(value.options, Struct) else {}
            return _table({**own, **options})
        case Struct():
            return _table(dict(_items(value)))
        case Mapping():
            return _table(value)
        case tuple() | list() | set() | frozenset():
            return [_plain(part) for part in value]
        case bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def _table(pairs: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(_plain(name)): _plain(part) for name, part in pairs.items() if not _is_empty(part)}
