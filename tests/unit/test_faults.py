"""What is wrong with JSON, in the words of those who sent it."""

from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from sixfbd.faults import not_json, unfit


class Item(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=2)] = "ab"
    count: Annotated[int, Meta(ge=1)] = 1
    price: float | None = None
    kind: Literal["a", "b"] = "a"


class Order(Struct):
    id: str
    items: list[Item] = []


@pytest.mark.parametrize(
    ("sent", "path", "message"),
    [
        ("[]", "", "must be an object, not a list"),
        ("null", "", "must be an object, not null"),
        ("{}", "id", "is missing"),
        ('{"id": 1}', "id", "must be text, not a whole number"),
        ('{"id": "a", "items": [{}, {"nmae": 1}]}', "items[1].nmae", "is not a field that is known here"),
        ('{"id": "a", "items": [{"count": 0}]}', "items[0].count", "must be a whole number of at least 1"),
        ('{"id": "a", "items": [{"name": "x"}]}', "items[0].name", "must be text of at least this length: 2"),
        ('{"id": "a", "items": [{"price": true}]}', "items[0].price", "must be a number or null, not true or false"),
        ('{"id": "a", "items": [{"kind": "c"}]}', "items[0].kind", "invalid enum value 'c'"),
    ],
)
def test_a_field_that_does_not_fit_is_named_by_its_path_and_said_in_plain_words(sent, path, message):
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.json.decode(sent, type=Order)
    assert unfit(error.value) == (path, message)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "it ends too early"),
        (b'{"a": ', "it ends too early"),
        (b'{"a": NaN}', "byte 6 cannot be there"),
        (b"{} x", "something else follows it"),
        (b"1e999", "a number in it is too large"),
        (b"[" * 100_000, "it is nested too deeply"),
    ],
)
def test_a_text_that_is_no_json_is_said_to_be_none_and_where(sent, words):
    with pytest.raises((msgspec.DecodeError, RecursionError)) as error:
        msgspec.json.decode(sent)
    assert not_json(error.value) == words


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "items", "x"]), inner, max_size=3)
    ),
)


@given(JSON)
def test_no_fault_is_told_in_the_librarys_words(value):
    try:
        msgspec.convert(value, Order)
    except msgspec.ValidationError as error:
        path, message = unfit(error)
        assert "$" not in path
        assert "`" not in message
        assert "Expected" not in message
