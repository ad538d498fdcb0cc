"""Durations, sizes and secrets: what is read, how it is shown, what is refused."""

import copy
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.quantities import Duration, Secret, Size, show_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("90s", 90),
        ("5m", 300),
        ("24h", 86400),
        ("1h30m", 5400),
        ("1d", 86400),
        ("2w", 1209600),
        ("1y", 31536000),
        ("0s", 0),
    ],
)
def test_a_duration_is_read_as_prometheus_writes_it(text, seconds):
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    "wrong",
    ["", "5", "5x", "m", "-5m", "5 m", "5.5m", "5M", "٥m", "1" * 13 + "s", None, True, [], -1, 1.5, float("inf")],
)
def test_what_is_no_duration_is_refused_with_the_mend(wrong):
    with pytest.raises(ValueError, match=r'^is not a duration; write "5m" or "300s"$'):
        Duration.parse(wrong)


def test_a_number_without_a_unit_is_told_what_to_write():
    with pytest.raises(ValueError, match=r'^has no unit; write "300s" or "5m"$'):
        Duration.parse(300)


@given(st.integers(0, 10**13))
def test_a_duration_shown_is_read_back_the_same(milliseconds):
    assert round(Duration.parse(show_duration(milliseconds / 1000)) * 1000) == milliseconds


def test_a_duration_is_shown_short():
    assert [str(Duration(seconds)) for seconds in (0, 0.25, 90, 86400, 5400)] == ["0s", "250ms", "1m30s", "1d", "1h30m"]


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0B", 0),
        ("500kB", 500_000),
        ("64MiB", 64 * 1024**2),
        ("1.5GiB", 1536 * 1024**2),
        ("2 TiB", 2 * 1024**4),
        ("1MB", 10**6),
    ],
)
def test_a_size_is_read_with_its_unit(text, size_bytes):
    assert Size.parse(text) == size_bytes


@pytest.mark.parametrize("wrong", ["", "5", "5M", "5mb", "-5B", "1e3B", "9" * 400 + "B", 5, None, True])
def test_what_is_no_size_is_refused_with_the_mend(wrong):
    with pytest.raises(ValueError, match=r'^is not a size; write "64MiB" or "500kB"$'):
        Size.parse(wrong)


@given(st.integers(0, 10**14))
def test_a_size_shown_is_read_back_the_same(size_bytes):
    assert Size.parse(str(Size(size_bytes))) == size_bytes


def test_a_secret_shows_its_source_and_never_its_value():
    secret = Secret("hunter2", "env TOKEN")
    assert repr(secret) == str(secret) == f"{secret}" == "<secret from env TOKEN>"
    assert secret.reveal() == "hunter2"


def test_a_secret_leaves_by_no_encoder():
    secret = Secret("hunter2", "env TOKEN")
    for encode in (pickle.dumps, msgspec.json.encode, copy.copy):
        with pytest.raises(TypeError):
            encode(secret)


def test_secrets_are_equal_by_value_and_source():
    assert Secret("a", "env A") == Secret("a", "env A")
    assert len({Secret("a", "env A"), Secret("a", "env A"), Secret("b", "env A")}) == 2
    assert Secret("a", "env A") != "a"
