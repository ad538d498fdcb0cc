"""Texts and numbers of SMS: segments, cutting, E.164. Pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd_plugins.provider import without_people
from sixfbd_plugins.twilio.numbers import normalized, normalized_sender
from sixfbd_plugins.twilio.texts import (
    CUT,
    GSM,
    GSM_TWICE,
    fitted,
    last_reference,
    reference,
    segments,
)

SIZES = [
    ("", 1), ("a" * 160, 1), ("a" * 161, 2), ("a" * 306, 2), ("a" * 307, 3),
    ("€" * 80, 1), ("€" * 81, 2), ("a" * 152 + "€" + "a" * 152, 3),  # the escape is not torn from its character
    ("ж" * 70, 1), ("ж" * 71, 2), ("ж" * 134, 2), ("ж" * 135, 3),
    ("🚨" * 35, 1), ("🚨" * 36, 2), ("🚨" * 66, 2), ("🚨" * 67, 3),  # 33 pairs in a part: none is torn
]  # fmt: skip


@pytest.mark.parametrize(("text", "count"), SIZES, ids=lambda value: repr(value)[:20])
def test_segments_are_counted_as_twilio_bills_them(text, count):
    assert segments(text) == count


@given(st.text(), st.integers(1, 6), st.text("0123456789abcdef", min_size=1), st.integers(1, 50))
def test_a_text_takes_at_most_the_segments_that_it_may_whatever_is_in_it_and_keeps_its_reference(
    text, most, name, attempt
):
    ending = reference(name, attempt)
    whole = fitted(text, ending, most)
    assert segments(whole) <= most
    assert whole.split()[-1] == ending
    assert last_reference(whole) == reference(name)


@given(st.text(sorted((GSM | GSM_TWICE) - {"\f"})), st.text(sorted(GSM), max_size=5))
def test_the_longer_a_text_is_the_more_segments_it_takes(text, more):
    assert segments(text) <= segments(text + more)


def test_pictures_are_left_out_where_they_alone_would_make_a_text_dearer():
    assert fitted("🚨 INVENTORY LOW", "#a", 1) == "INVENTORY LOW #a"
    long = "🚨 INVENTORY LOW: " + "dallas GA, " * 8
    assert fitted(long, "#a", 3) == "INVENTORY LOW: " + "dallas GA, " * 7 + "dallas GA, #a"
    assert segments(long) == 2
    assert segments(fitted(long, "#a", 3)) == 1


def test_pictures_are_kept_in_a_text_that_is_no_cheaper_without_them_unless_it_would_be_cut():
    assert fitted("🚨 Мало билетов", "#a", 1) == "🚨 Мало билетов #a"
    assert fitted("🚨 " + "ж" * 66, "#a", 1) == "ж" * 66 + " #a"


def test_typography_does_not_cost_half_of_the_room():
    assert fitted("[FIRING] Down — the shop’s door…", "#a", 1) == "[FIRING] Down - the shop's door... #a"


def test_what_does_not_fit_is_cut_and_says_so():
    cut = fitted("x" * 400, "#abcd1234", 2)
    assert cut == "x" * (306 - len("... #abcd1234")) + f"{CUT} #abcd1234"


@pytest.mark.parametrize("text", ["", "two tickets", "#1 in town", "#"])
def test_a_text_of_another_has_no_reference(text):
    assert last_reference(text) in ("", "#")


def test_a_reference_is_short_and_each_message_has_its_own():
    references = {reference(f"message-{number}") for number in range(2000)}
    assert len(references) == 2000
    assert {len(one) for one in references} == {9}


@pytest.mark.parametrize("text", ["+1-352-555-0101", "+1 (352) 555-0101", "+1.352.555.0101", "+13525550101"])
def test_a_number_as_people_write_it_is_taken_as_e164(text):
    assert normalized(text) == "+13525550101"


@pytest.mark.parametrize("text", ["", "352-555-0133", "0013525550101", "+1352", "+1352555010199999", "+1352x5550101"])
def test_what_is_no_number_is_refused_without_being_shown(text):
    with pytest.raises(ValueError, match="is not a number with its country") as failure:
        normalized(text)
    assert not text or text not in str(failure.value)


@pytest.mark.parametrize("text", ["12345", "SHOP 24", "+1 352 555 0101"])
def test_a_sender_may_be_a_number_a_short_code_or_a_name(text):
    assert normalized_sender(text) == (text if not text.startswith("+") else "+13525550101")


@pytest.mark.parametrize("text", ["+1", "a name that is too long", "Shöp"])
def test_what_is_no_sender_is_refused(text):
    with pytest.raises(ValueError, match="is no sender"):
        normalized_sender(text)


def test_of_a_number_in_a_text_four_digits_are_shown():
    said = "The 'To' number +1 (352) 555-0101 is not valid; 3525550199 neither, but code 21211 is"
    assert without_people(said) == "The 'To' number …0101 is not valid; …0199 neither, but code 21211 is"
