"""/openapi.json: the room described in OpenAPI 3.1, assembled from the table of routes that the app is made from."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from quart import Response

from sixfbd.http.answers import JSON, PROMETHEUS_PATHS, bare
from sixfbd.http.routes import Answer, Parameter, Room, Route, Scope

Document = dict[str, Any]

COMMON: Final[Mapping[int, str]] = {
    400: "The request is malformed, or a parameter is wrong; the message names it.",
    401: "A token is needed, or the one given is unknown.",
    403: "The token does not have the scope.",
    405: "The method is not one of this path; `Allow` names them.",
    421: "The Host header does not name this daemon.",
    431: "Path and headers are too large.",
    500: "A fault of the daemon's own; it is logged.",
    503: "Not answered in time, or the daemon cannot take it now.",
}
WITH_BODY: Final[Mapping[int, str]] = {
    408: "The body did not come in time.",
    413: "The body is too large.",
    415: "The body's media type is none that is read here.",
}
HOUSE_ERROR: Final[Document] = {
    "type": "object",
    "required": ["success", "error"],
    "properties": {
        "success": {"const": False},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
PROMETHEUS_ERROR: Final[Document] = {
    "type": "object",
    "required": ["status", "errorType", "error"],
    "properties": {
        "status": {"const": "error"},
        "errorType": {"type": "string"},
        "error": {"type": "string"},
    },
}
TOKEN: Final[Document] = {
    "type": "http",
    "scheme": "bearer",
    "description": "`sixfbctl token create NAME --scope SCOPE`.",
}
REF: Final = "#/components/schemas/{name}"


def document(routes: Sequence[Route], version: str) -> Document:
    """Return the whole OpenAPI document."""
    names, schemas = _schemas(_forms(routes))
    paths: Document = {}
    for route in routes:
        operations = paths.setdefault(re.sub(r"<(\w+)>", r"{\1}", route.path), {})
        for method in route.methods:
            operations[method.lower()] = _operation(route, method, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "sixfbd", "version": version, "description": "Monitoring daemon: events in, facts out."},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": HOUSE_ERROR, "PrometheusError": PROMETHEUS_ERROR},
            "securitySchemes": {"token": TOKEN},
        },
    }


def _forms(routes: Iterable[Route]) -> list[Any]:
    """Return every Python type that the routes name, each once."""
    found: list[Any] = []
    for route in routes:
        found += [answer.form for answer in route.answers.values()]
        found += [parameter.form for parameter in route.parameters]
        found += list(route.body.media.values()) if route.body else []
    types = [form for form in found if form is not None and not isinstance(form, Mapping)]
    return [form for index, form in enumerate(types) if form not in types[:index]]


def _schemas(forms: Sequence[Any]) -> tuple[dict[str, Document], Document]:
    schemas, components = msgspec.json.schema_components(forms, ref_template=REF)
    return {repr(form): schema for form, schema in zip(forms, schemas, strict=True)}, components


def _schema(form: Any, names: Mapping[str, Document]) -> Document:
    return dict(form) if isinstance(form, Mapping) else names[repr(form)]


def _operation(route: Route, method: str, names: Mapping[str, Document]) -> Document:
    operation: Document = {
        "operationId": re.sub(r"\W+", "_", f"{method.lower()}{route.path}").strip("_"),
        "summary": route.summary,
        "parameters": [_parameter(one, route, method, names) for one in route.parameters],
        "responses": _responses(route, method, names),
        "security": _security(route.scope),
    }
    if route.body is not None and method != "GET":
        operation["requestBody"] = {
            "description": route.body.doc,
            "required": route.body.required,
            "content": {media: {"schema": _schema(form, names)} for media, form in route.body.media.items()},
        }
    return operation


def _security(scope: Scope) -> list[Document]:
    """`read` is open to what comes straight from loopback: an alternative without any scheme."""
    if scope == "open":
        return []
    return [{}, {"token": ["read"]}] if scope == "read" else [{"token": [scope]}]


def _parameter(parameter: Parameter, route: Route, method: str, names: Mapping[str, Document]) -> Document:
    schema = _schema(parameter.form, names)
    posted = method == "POST" and route.body is not None and parameter.where == "query"
    return {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.doc,
        "required": parameter.required and not posted,
        "schema": {"type": "array", "items": schema} if parameter.repeated else schema,
    }


def _responses(route: Route, method: str, names: Mapping[str, Document]) -> Document:
    error = {"$ref": REF.format(name="PrometheusError" if route.path.startswith(PROMETHEUS_PATHS) else "Error")}
    texts = dict(COMMON)
    if route.body is not None and method != "GET":
        texts |= WITH_BODY
    responses = {status: _response(text, JSON, error) for status, text in texts.items()}
    for status, answer in route.answers.items():
        schema = error if answer.form is None else _enveloped(answer, names)
        responses[status] = _response(answer.doc or route.summary, answer.media, schema)
    return {str(status): responses[status] for status in sorted(responses)}


def _response(doc: str, media: str, schema: Document) -> Document:
    return {"description": doc, "content": {media: {"schema": schema}}}


def _enveloped(answer: Answer, names: Mapping[str, Document]) -> Document:
    data = _schema(answer.form, names)
    if answer.envelope == "bare":
        return data
    word, mark = ("success", True) if answer.envelope == "house" else ("status", "success")
    return {"type": "object", "required": [word, "data"], "properties": {word: {"const": mark}, "data": data}}


def route_of(routes: Sequence[Route]) -> Route:
    """Return the route of /openapi.json, which describes `routes` and itself."""

    async def openapi(room: Room) -> Response:
        return bare(document((*routes, route), room.engine.version))

    route = Route("/openapi.json", openapi, "This description.", {200: Answer("OpenAPI 3.1.", {"type": "object"})})
    return route
