"""Whatever is sent to a path of /openapi.json, the answer is one of those that the document describes, and no 500."""

import json
import re
from functools import partial
from typing import Any

import httpx
import jsonschema
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

AUTHORIZATION = [None, "Bearer token-of-the-shop", "Bearer token-of-the-guard", "Bearer nobody", "Basic x"]
STREAMS = ("/api/stream", "/api/events/stream")
NUMBERS = ("0", "1", "-1", "1e309", "NaN", "inf", "15s", "253402300799", "9" * 40)
TIMES = ("2026-11-23T21:07:30Z", "9999-12-31T23:59:59+23:59")
EXPRESSIONS = ("up", "hang(", '"text"', "many * many", "nonsense(", "everything", "{")
WORDS = st.sampled_from((*NUMBERS, *TIMES, *EXPRESSIONS, "", "a" * 300, "\x00", "\u202e", "%"))
TEXT = WORDS | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
EVENTS = st.fixed_dictionaries(
    {}, optional={"id": VALUES, "type": VALUES, "timestamp": VALUES, "data": VALUES, "x": VALUES}
)
BODIES = (
    st.binary(max_size=40)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | (EVENTS | st.lists(EVENTS, max_size=4)).map(lambda value: json.dumps(value).encode())
    | st.lists(EVENTS, max_size=4).map(lambda lines: "\n".join(map(json.dumps, lines)).encode())
)
MEDIA = st.sampled_from(
    ["application/json", "application/x-ndjson", "application/x-www-form-urlencoded", "text/html", ";;", ""]
)


def sending(document: dict[str, Any]) -> st.SearchStrategy[tuple[str, str, dict[str, Any]]]:
    """Return requests as (the path's pattern, the method, what httpx is to send)."""
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path not in STREAMS
    ]

    @st.composite
    def one(draw: st.DrawFn) -> tuple[str, str, dict[str, Any]]:
        path, method, operation = draw(st.sampled_from(operations))
        named = {each["name"] for each in operation["parameters"] if each["in"] == "query"} | {"unknown"}
        params = draw(st.lists(st.tuples(st.sampled_from(sorted(named)), TEXT), max_size=6))
        url = re.sub(r"{\w+}", lambda _: quoted(draw(TEXT)), path)
        headers = {"Content-Type": draw(MEDIA)} if "requestBody" in operation else {}
        if (authorization := draw(st.sampled_from(AUTHORIZATION))) is not None:
            headers["Authorization"] = authorization
        content = draw(BODIES) if "requestBody" in operation else None
        return path, method, {"url": url, "params": params, "headers": headers, "content": content}

    return one()


def quoted(text: str) -> str:
    """Return a path's segment with every byte written out, so that the client leaves it as it is."""
    return "".join(f"%{byte:02X}" for byte in text.encode()) or "-"


def fault_of(document: dict[str, Any], path: str, method: str, answer: httpx.Response) -> str:
    """Return how an answer differs from its description, "" if it does not."""
    described = document["paths"][path][method]["responses"].get(str(answer.status_code))
    if described is None and answer.status_code == 404 and "{" in path:
        return ""  # a parameter with a slash in it makes another path
    if described is None or answer.status_code == 500:
        return f"status {answer.status_code}: {answer.text[:300]}"
    [(media, content)] = described["content"].items()
    found = answer.headers["Content-Type"].partition(";")[0]
    if path == "/static/{name}" and answer.status_code == 200:
        return ""
    if found != media:
        return f"{found} in place of {media}"
    if media != "application/json":
        return ""
    schema = content["schema"] | {"components": document["components"]}
    errors = list(jsonschema.Draft202012Validator(schema).iter_errors(answer.json()))
    return "; ".join(error.message[:200] for error in errors)


@pytest.fixture
async def document(client):
    return (await client.get("/openapi.json")).json()


async def test_every_answer_to_whatever_is_sent_is_one_that_is_described(client, busy, document):
    portal = trio.lowlevel.current_trio_token()

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(sending(document))
    def every(sent: tuple[str, str, dict[str, Any]]) -> None:
        path, method, request = sent
        ask = partial(client.request, method.upper(), **request)
        answer = trio.from_thread.run(ask, trio_token=portal)
        assert fault_of(document, path, method, answer) == ""

    await trio.to_thread.run_sync(every)
