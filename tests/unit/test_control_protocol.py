"""Lines become requests, or the error that JSON-RPC 2.0 names for what is wrong with them."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from sixfbd.control import protocol
from sixfbd.control.protocol import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_ANSWER_BYTES,
    PARSE_ERROR,
    REFUSED,
    Refused,
    RpcError,
    error_line,
    next_line,
    parse_request,
    request_line,
    result_line,
)


def test_a_call_read_back_is_the_call_that_was_written() -> None:
    request = parse_request(request_line(7, "check.run", {"name": "shop"}))
    assert (request.method, request.id, request.params) == ("check.run", 7, {"name": "shop"})


def test_a_request_without_an_id_is_told_from_one_whose_id_is_null() -> None:
    assert parse_request(b'{"jsonrpc": "2.0", "method": "status"}').id is UNSET
    assert parse_request(b'{"jsonrpc": "2.0", "method": "status", "id": null}').id is None


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"hello", PARSE_ERROR),
        (b'"\xff\xfe"', PARSE_ERROR),
        (b'{"a":' * 5000, PARSE_ERROR),
        (b"[NaN]", PARSE_ERROR),
        (b'{"jsonrpc": "2.0"}{"jsonrpc": "2.0"}', PARSE_ERROR),
        (b"[]", INVALID_REQUEST),
        (b"3", INVALID_REQUEST),
        (b"{}", INVALID_REQUEST),
        (b'{"jsonrpc": "1.0", "method": "status", "id": 1}', INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": 1}', INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": 5, "id": 1}', INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": "status", "id": {}}', INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": "status", "id": true}', INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "method": "status", "id": 1, "params": [1]}', INVALID_PARAMS),
    ],
)
def test_a_line_that_is_no_request_has_the_code_of_its_fault(line: bytes, code: int) -> None:
    with pytest.raises(RpcError) as raised:
        parse_request(line)
    assert raised.value.code == code


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parser_raise_anything_but_an_error_of_the_protocol(line: bytes) -> None:
    try:
        parse_request(line)
    except RpcError as error:
        assert error.code in (PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["jsonrpc", "method", "id", "params", "x"]), json_values))
def test_no_json_object_makes_the_parser_raise_anything_but_an_error_of_the_protocol(value: dict[str, Any]) -> None:
    try:
        request = parse_request(msgspec.json.encode(value))
    except RpcError:
        return
    assert value["jsonrpc"] == "2.0"
    assert request.method == value["method"]


def test_every_answer_is_one_line_whatever_its_texts_hold() -> None:
    lines = [
        result_line(1, {"text": "a\nb"}),
        error_line(None, RpcError(PARSE_ERROR, "a\nb")),
        next_line(1, "a\nb"),
        request_line(1, "m", {"a": "a\nb"}),
    ]
    for line in lines:
        assert line.count(b"\n") == 1 and line.endswith(b"\n")
        assert json.loads(line)["jsonrpc"] == "2.0"


def test_an_error_carries_its_data_only_where_there_is_some() -> None:
    assert "data" not in json.loads(error_line(3, RpcError(REFUSED, "no")))["error"]
    assert json.loads(error_line(3, Refused("no", ["a", "b"])))["error"] == {
        "code": REFUSED,
        "message": "no",
        "data": ["a", "b"],
    }


def test_an_answer_larger_than_a_line_may_be_is_refused_with_the_advice_to_ask_for_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MAX_ANSWER_BYTES > protocol.MAX_REQUEST_BYTES
    monkeypatch.setattr(protocol, "MAX_ANSWER_BYTES", 1000)
    assert result_line(1, "x" * 900)
    with pytest.raises(Refused, match="ask for less"):
        result_line(1, "x" * 1000)
    with pytest.raises(Refused, match="one value"):
        next_line(1, "x" * 1000)
