"""The JSON Schema of the configuration (draft 2020-12), the options of every plugin included, for editors and scripts.

Made from the same shapes and descriptions that the configuration is read by. A schema knows each key's form; what must
fit together (names, routes, files) only `sixfbd check-config` knows.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Meta, Struct

from sixfbd.config.convert import Shape, TableField, fields_of
from sixfbd.config.tables import TABLES, Channel, CheckKeys, InboundKeys, NotifierKeys
from sixfbd.host import PluginCatalog
from sixfbd.model import Severity
from sixfbd.quantities import DURATION_PATTERN, SIZE_PATTERN, Duration, Secret, Size

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
NAME_PATTERN: Final = "^[a-zA-Z0-9_-]{1,64}$"
_BOUNDS: Final = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}
_SECRET: Final = {
    "description": "Where the secret is found; never the secret itself.",
    "type": "object",
    "properties": {
        "credential": {"type": "string", "minLength": 1, "description": "Name of a systemd credential."},
        "file": {
            "type": "string",
            "minLength": 1,
            "description": "Path, relative to this file; a final newline is cut.",
        },
        "env": {"type": "string", "minLength": 1, "description": "Name of an environment variable."},
    },
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
}
_KINDS: Final[dict[str, dict[str, Any]]] = {
    "text": {"type": "string"},
    "whole": {"type": "integer"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "duration": {"$ref": "#/$defs/Duration"},
    "size": {"$ref": "#/$defs/Size"},
    "file": {"type": "string", "minLength": 1},
    "secret": {"$ref": "#/$defs/Secret"},
    "any": {},
}


class OptionDoc(Struct, frozen=True):
    """One option for people: its key, its type in words, its default as TOML has it (None: required or none)."""

    key: str
    type: str
    required: bool
    default: Any
    description: str


def config_schema(catalog: PluginCatalog) -> dict[str, Any]:
    """Return the schema of the whole configuration with the options of the catalog's plugins."""
    writer = _Writer()
    properties: dict[str, Any] = {}
    for table in TABLES:
        body = writer.reference(table.struct)
        if table.struct is CheckKeys:
            body = writer.plugin_table(CheckKeys, {name: entry.cls for name, entry in catalog.checks.items()}, "check")
        elif table.struct is NotifierKeys:
            classes = {name: entry.cls for name, entry in catalog.notifiers.items()}
            body = writer.plugin_table(NotifierKeys, classes, "notifier")
        elif table.struct is InboundKeys:
            kinds = {name: entry.cls for name, entry in catalog.inbound.items()}
            body = writer.plugin_table(InboundKeys, kinds, "source of webhooks", "kind")
        properties[table.header] = _repeated(body, table.header, table.repeats)
    channels = {"type": "object", "additionalProperties": writer.reference(Channel)}
    properties["receivers"] = _repeated(channels, "receivers", "named")
    return {
        "$schema": DIALECT,
        "title": "Configuration of sixfbd",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": writer.definitions,
    }


def describe_options(options: type[Struct]) -> list[OptionDoc]:
    """Return what people need to know of a table's keys, in the order of the struct."""
    return [
        OptionDoc(field.key, _in_words(field.shape), field.required, toml_value(field.default), field.shape.description)
        for field in fields_of(options)
    ]


def toml_value(value: Any) -> Any:
    """Return a default as TOML can write it; None where it cannot (None itself, secrets)."""
    match value:
        case None | Secret():
            return None
        case Duration() | Size():
            return str(value)
        case Struct():
            fields = {field.key: getattr(value, field.attribute) for field in fields_of(type(value))}
            return {key: made for key, item in fields.items() if (made := toml_value(item)) is not None}
        case dict():
            return {str(key): toml_value(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [toml_value(item) for item in value]
        case str():
            return str(value)
    return value


def _in_words(shape: Shape) -> str:
    match shape.kind:
        case "list":
            return "list of " + " and ".join(_in_words(part) for part in shape.inner)
        case "map":
            return f"table of {_in_words(shape.inner[1])}"
        case "union":
            return " or ".join(_in_words(part) for part in shape.inner)
        case "choice":
            return " | ".join(str(choice) for choice in shape.words)
    return {"whole": "whole number", "flag": "true or false", "any": "anything"}.get(shape.kind, shape.kind)


def _repeated(body: dict[str, Any], header: str, repeats: str) -> dict[str, Any]:
    if repeats == "list":
        return {"type": "array", "items": body}
    if repeats == "named":
        names: dict[str, Any] = {"pattern": NAME_PATTERN}
        if header == "severities":
            names = {"enum": [str(severity) for severity in Severity]}
        elif header == "checks":
            names["not"] = {"enum": ["events", "sixfbd"]}
        return {"type": "object", "propertyNames": names, "additionalProperties": body}
    return body


class _Writer:
    """Collects `$defs`: a table is written once and referred to, so that it may hold tables of its own kind."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {
            "Duration": {"type": "string", "pattern": f"^{DURATION_PATTERN}$", "examples": ["90s", "5m", "24h"]},
            "Size": {"type": "string", "pattern": f"^{SIZE_PATTERN}$", "examples": ["500kB", "64MiB"]},
            "Secret": _SECRET,
        }

    def reference(self, table: type[Struct]) -> dict[str, Any]:
        """Return a reference to a table's definition, writing it on first use."""
        name = f"{table.__module__}.{table.__qualname__}"
        if name not in self.definitions:
            self.definitions[name] = {}  # taken, for tables in tables
            fields = fields_of(table)
            self.definitions[name] = {
                **_description(table),
                "type": "object",
                "properties": self._properties(fields),
                "required": [field.key for field in fields if field.required],
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{name}"}

    def plugin_table(
        self, keys: type[Struct], classes: dict[str, Any], kind: str, by: str = "plugin"
    ) -> dict[str, Any]:
        """Return the schema of `[checks.NAME]`: the engine's keys, and for each plugin, named by the key `by`, its options."""
        fields = fields_of(keys)
        properties = self._properties(fields)
        properties[by]["enum"] = sorted(classes)
        options = [self._options_of(name, cls, by) for name, cls in sorted(classes.items())]
        return {
            "type": "object",
            "properties": properties,
            "required": [by],
            **({"allOf": options} if options else {}),  # which may not be empty
            "unevaluatedProperties": False,
            "title": f"A {kind}",
        }

    def _options_of(self, name: str, cls: Any, by: str) -> dict[str, Any]:
        fields = fields_of(cls.Options)
        return {
            "if": {"properties": {by: {"const": name}}, "required": [by]},
            "then": {
                **_description(cls),
                "properties": self._properties(fields),
                "required": [field.key for field in fields if field.required],
            },
        }

    def _properties(self, fields: Sequence[TableField]) -> dict[str, Any]:
        return {field.key: self._property(field) for field in fields}

    def _property(self, field: TableField) -> dict[str, Any]:
        schema = self._shape(field.shape)
        if field.shape.description:
            schema["description"] = field.shape.description
        default = toml_value(field.default)
        if default is not None:
            schema["default"] = default
        return schema

    def _shape(self, shape: Shape) -> dict[str, Any]:
        match shape.kind:
            case "table":
                return self.reference(shape.type)
            case "map":
                key, value = shape.inner
                made: dict[str, Any] = {"type": "object", "additionalProperties": self._shape(value)}
                if names := self._bounded({}, key) if key.kind == "text" else self._shape(key):
                    made["propertyNames"] = names
                return self._sized(made, shape, "Properties")
            case "list":
                return self._sized(self._list(shape), shape, "Items")
            case "union":
                return {"anyOf": [self._shape(member) for member in shape.inner]}
            case "choice":
                return {"enum": list(shape.words)}
        return self._bounded(dict(_KINDS[shape.kind]), shape)

    def _list(self, shape: Shape) -> dict[str, Any]:
        if shape.length is None:
            return {"type": "array", "items": self._shape(shape.inner[0])}
        items = [self._shape(part) for part in shape.inner]
        return {"type": "array", "prefixItems": items, "minItems": shape.length, "maxItems": shape.length}

    def _sized(self, schema: dict[str, Any], shape: Shape, what: str) -> dict[str, Any]:
        for meta in shape.metas:
            schema |= {f"min{what}": meta.min_length} if meta.min_length is not None else {}
            schema |= {f"max{what}": meta.max_length} if meta.max_length is not None else {}
        return schema

    def _bounded(self, schema: dict[str, Any], shape: Shape) -> dict[str, Any]:
        for meta in shape.metas:
            schema |= _bounds(meta)
        return schema


def _bounds(meta: Meta) -> dict[str, Any]:
    found = {name: getattr(meta, key) for key, name in _BOUNDS.items()}
    found |= {"minLength": meta.min_length, "maxLength": meta.max_length}
    return {name: bound for name, bound in found.items() if bound is not None}


def _description(cls: type) -> dict[str, str]:
    """The first line of a docstring; msgspec writes none of its own."""
    doc = (cls.__doc__ or "").strip().partition("\n")[0]
    return {"description": doc} if doc else {}


def encode_schema(schema: dict[str, Any]) -> str:
    """Return the schema as `sixfbd config schema` prints it."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"
