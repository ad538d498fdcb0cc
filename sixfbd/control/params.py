"""Parameters of a call: from what a client sent to a method's form, and what is wrong with them in words. Pure.

A method describes its parameters as a Struct; all faults are named at once, each with what is wanted.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from sixfbd.config.text import did_you_mean
from sixfbd.control.protocol import INVALID_PARAMS, RpcError

P = TypeVar("P", bound=Struct)

MAX_SHOWN: Final = 60  # characters of a value that is not taken
_TYPES: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "an object",
    "array": "a list of texts",
}


def parse_params(method: str, given: Mapping[str, Any], form: type[P]) -> P:
    """Return the parameters in their form. Raises RpcError (INVALID_PARAMS) with all that is wrong."""
    try:
        return msgspec.convert(given, form)
    except msgspec.ValidationError:
        wanted = _wanted(form)
        known = ", ".join(wanted) or "none"
        faults = "; ".join(_faults(given, form, wanted))
        raise RpcError(INVALID_PARAMS, f"{method}: {faults} (parameters: {known})") from None


def _wanted(form: type[Struct]) -> dict[str, Any]:
    """Return the JSON Schema of each parameter by its name."""
    [schema] = msgspec.json.schema_components([form])[1].values()
    properties: dict[str, Any] = schema["properties"]
    return properties


def _faults(given: Mapping[str, Any], form: type[Struct], wanted: Mapping[str, Any]) -> Iterator[str]:
    for name in given:
        if name not in wanted:
            near = did_you_mean(name, wanted)
            yield f'there is no "{name[:MAX_SHOWN]}"' + (f": {near}" if near.startswith("did") else "")
    for field in msgspec.structs.fields(form):
        words = describe(wanted[field.encode_name])
        if field.encode_name not in given:
            if field.required:
                yield f'"{field.encode_name}" is missing: {words}'
            continue
        value = given[field.encode_name]
        try:
            msgspec.convert(value, field.type)
        except msgspec.ValidationError:
            yield f'"{field.encode_name}" is {_shown(value)}; it must be {words}'


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def describe(schema: Mapping[str, Any]) -> str:
    """Return what a parameter has to be, in words: "a whole number from 1 to 10000"."""
    about = str(schema.get("description", "")).rstrip(".")
    choices = [one for one in schema.get("anyOf", (schema,)) if one.get("type") != "null"]
    if any("pattern" in choice for choice in choices):  # nobody reads a regular expression at 3 a.m.
        return about
    words = " or ".join(_type_words(choice) for choice in choices)
    return f"{words} ({about})" if about else words


def _type_words(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(str(one) for one in schema["enum"] if one is not None)
    words = _TYPES[schema["type"]]
    least, most = (
        next((schema[key] for key in keys if key in schema), None)
        for keys in (("minimum", "minLength"), ("maximum", "maxLength"))
    )
    unit = " characters" if schema["type"] == "string" else ""
    if "exclusiveMinimum" in schema:
        words += f" above {schema['exclusiveMinimum']:g}"
    if least is not None and most is not None:
        words += f" {'of' if unit else 'from'} {_bound(least)} to {_bound(most)}{unit}"
    elif most is not None:
        words += f" of at most {_bound(most)}{unit}"
    return words


def _bound(number: float) -> str:
    return str(int(number))
