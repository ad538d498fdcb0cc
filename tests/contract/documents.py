"""A provider's OpenAPI document: what its operations take and what they answer. Pure: Prism, which `conftest.py` starts, judges
the requests; here are the answers judged, by the document's schemas, and the names of parameters, which Prism does not mind."""

import json
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError

Json = dict[str, Any]
FORMATS = FormatChecker(())
METHODS = ("get", "post", "put", "patch", "delete")


@FORMATS.checks("date-time-rfc-2822", raises=ValueError)
def _is_rfc_2822(value: object) -> bool:
    return not isinstance(value, str) or parsedate_to_datetime(value) is not None


@FORMATS.checks("phone-number")
def _is_phone_number(value: object) -> bool:
    return not isinstance(value, str) or re.fullmatch(r"\+?[0-9]{3,15}|[A-Za-z0-9 ]{1,11}", value) is not None


@dataclass(frozen=True)
class Exchange:
    """A request as it went out, and what came back: None if nothing did."""

    request: httpx.Request
    answer: httpx.Response | None

    def __str__(self) -> str:
        came = "nothing" if self.answer is None else f"{self.answer.status_code} {self.answer.text[:300]}"
        return f"{self.request.method} {self.request.url} {self.request.content[:300]!r} -> {came}"


@dataclass(frozen=True)
class Operation:
    """One method of one path of a document."""

    method: str
    template: str
    node: Json
    pointer: str

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.template}"

    def fits(self, method: str, path: str) -> bool:
        return method.lower() == self.method and self._pattern.fullmatch(path) is not None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(self.template)))


class Document:
    """A document. `whole`: an answer has every property that its schema names, as Twilio's and SendGrid's have."""

    def __init__(self, tree: Json, *, whole: bool) -> None:
        self.tree = tree
        self._whole = whole
        self._judges: dict[str, Draft202012Validator] = {}
        self.operations = tuple(
            Operation(method, template, node, f"#/paths/{_escaped(template)}/{method}")
            for template, nodes in tree["paths"].items()
            for method, node in nodes.items()
            if method in METHODS
        )

    def operation(self, request: httpx.Request) -> Operation | None:
        """Return what a request asks for; of two that fit, the one with fewer placeholders."""
        fitting = [one for one in self.operations if one.fits(request.method, request.url.path)]
        return min(fitting, key=lambda one: one.template.count("{"), default=None)

    def unknown_names(self, request: httpx.Request) -> list[str]:
        """Return the parameters of a request that its operation does not name: misspelt ones would be ignored silently."""
        operation = self.operation(request)
        if operation is None:
            return [f"no operation {request.method} {request.url.path}"]
        parameters = map(self._resolved, operation.node.get("parameters", ()))
        query = {one["name"] for one in parameters if one["in"] == "query"}
        asked = list(request.url.params)
        contents = self._resolved(operation.node.get("requestBody", {})).get("content", {})
        kind = request.headers.get("content-type", "").partition(";")[0]
        known = set(self._resolved(contents.get(kind, {}).get("schema", {})).get("properties", {}))
        if kind == "application/json":
            said = list(json.loads(request.content))
        else:
            said = list(urllib.parse.parse_qs(request.content.decode(), keep_blank_values=True))
        return [
            *(f"{operation}: query {name}" for name in asked if _root(name, query) not in query),
            *(f"{operation}: body {name}" for name in said if _root(name, known) not in known),
        ]

    def deviations(self, exchange: Exchange) -> list[str]:
        """Return how an answer differs from what the document says of it: one line each, places without their numbers."""
        answer = exchange.answer
        if answer is None:
            return []
        operation = self.operation(exchange.request)
        if operation is None:
            return [f"no operation {exchange.request.method} {exchange.request.url.path}"]
        status = str(answer.status_code)
        responses = operation.node["responses"]
        named = status if status in responses else "default"
        if named not in responses:
            return [f"{operation}: {status} is no answer of it"]
        content = self._resolved(responses[named]).get("content", {})
        if not content:
            return [f"{operation}: {status} has a body"] if answer.content else []
        kind = answer.headers.get("content-type", "").partition(";")[0]
        if kind not in content:
            return [f"{operation}: {status} is {kind or 'of no type'}"]
        place = responses[named].get("$ref", f"{operation.pointer}/responses/{named}")
        pointer = f"{place}/content/{_escaped(kind)}/schema"
        return sorted({f"{operation} {named}: {line}" for line in self._lines(pointer, answer.json())})

    def _lines(self, pointer: str, value: object) -> Iterator[str]:
        if pointer not in self._judges:
            self._judges[pointer] = Draft202012Validator({**self._closed, "$ref": pointer}, format_checker=FORMATS)
        for error in self._judges[pointer].iter_errors(value):
            yield from _leaves(error)

    @cached_property
    def _closed(self) -> Json:
        return {name: _schema(self.tree[name], self._whole) for name in ("paths", "components") if name in self.tree}

    def _resolved(self, schema: Json) -> Json:
        while "$ref" in schema:
            node: Any = self.tree
            for part in schema["$ref"].removeprefix("#/").split("/"):
                node = node[part.replace("~1", "/").replace("~0", "~")]
            schema = node
        return schema


def merged(tree: Json, more: Json) -> Json:
    """Return a document with the paths and schemas of another."""
    joined = dict(tree)
    joined["paths"] = {**tree["paths"], **more["paths"]}
    joined["components"] = {
        **tree.get("components", {}),
        "schemas": {**tree.get("components", {}).get("schemas", {}), **more.get("components", {}).get("schemas", {})},
    }
    return joined


def _schema(node: Any, whole: bool) -> Any:
    """Return OpenAPI 3.0's schemas as JSON Schema: `nullable` is a type, and an object has no other properties than its own."""
    if isinstance(node, list):
        return [_schema(one, whole) for one in node]
    if not isinstance(node, dict):
        return node
    made = {
        name: _schema(value, whole) for name, value in node.items() if name not in ("nullable", "example", "examples")
    }
    if isinstance(node.get("properties"), dict) and node.get("type") == "object":
        made.setdefault("additionalProperties", False)
        if whole:
            made["required"] = list(node["properties"])
    if node.get("nullable") is not True:
        return made
    if isinstance(made.get("type"), str) and "enum" not in made:
        return {**made, "type": [made["type"], "null"]}
    return {"anyOf": [made, {"type": "null"}]}


def _leaves(error: ValidationError) -> Iterator[str]:
    """Return an error in lines; of several alternatives, what is wrong by the one that fits best."""
    if error.validator in ("anyOf", "oneOf") and error.context:
        branches: dict[Any, list[ValidationError]] = {}
        for one in error.context:
            branches.setdefault(one.schema_path[0], []).append(one)
        for one in min(branches.values(), key=lambda errors: (any(map(_is_other_type, errors)), len(errors))):
            yield from _leaves(one)
        return
    place = ".".join("[]" if isinstance(part, int) else str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        for name in sorted(set(error.instance) - set(error.schema.get("properties", {}))):
            yield f"{place}.{name}".lstrip(".") + " is not named"
    elif error.validator == "required":
        name = re.match("'([^']*)'", error.message)
        yield f"{place}.{name[1] if name else error.message}".lstrip(".") + " is missing"
    else:
        yield f"{place}: {error.message[:160]}"


def _is_other_type(error: ValidationError) -> bool:
    return error.validator == "type" and not error.path


def _root(name: str, known: Iterable[str]) -> str:
    """Return the parameter that a name belongs to: created[gte] and types[] are of created and types."""
    return name if name in known else name.partition("[")[0]


def _escaped(part: str) -> str:
    return urllib.parse.quote(part.replace("~", "~0").replace("/", "~1"), safe="~")


def prism_says(answer: httpx.Response) -> list[str]:
    """Return what Prism has against a request, from its answer. An operation with no answer of its own for that gets a problem."""
    found = json.loads(answer.headers.get("sl-violations", "[]"))
    if answer.headers.get("content-type", "").startswith("application/problem+json"):
        problem: Mapping[str, Any] = answer.json()
        found += problem.get("validation") or [{"location": ["request"], "message": problem["detail"]}]
        return [f"{'.'.join(one['location'])}: {one['message']}" for one in found]
    return [f"{'.'.join(one['location'])}: {one['message']}" for one in found if one["location"][0] == "request"]
