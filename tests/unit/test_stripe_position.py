"""Where the reading of Stripe's events stands: nothing is passed over, and what is read again was read lately."""

from hypothesis import given
from hypothesis import strategies as st

from sixfbd.plugin import DAY, HOUR
from sixfbd_plugins.stripe.position import KNOWN_S, LATE_S, Position, Span, begun, first_position, started_over, went_on

NOW = 1_800_000_000.0


def test_it_is_read_up_to_the_second_before_this_one_in_spans_of_an_hour():
    at, ends = first_position(NOW, 3.5 * HOUR), []
    while (at := begun(at, NOW)).span is not None:
        ends.append(NOW - at.span.end)
        at = went_on(at, "", False)
    assert ends == [2.5 * HOUR, 1.5 * HOUR, 0.5 * HOUR, 0]


def test_a_page_goes_on_behind_the_event_that_was_read_last():
    at = begun(first_position(NOW, HOUR), NOW)
    assert at.span is not None
    further = went_on(at, "evt_9", True)
    assert begun(further, NOW + 500) == further
    assert further.span is not None and further.span.params()["starting_after"] == "evt_9"
    assert further.read_until == at.read_until
    assert started_over(further).span is None


@given(st.lists(st.tuples(st.floats(0, 40 * DAY), st.integers(0, 4)), max_size=20))
def test_spans_leave_no_gap_and_read_again_only_what_is_known_still(steps):
    at, now = first_position(NOW, DAY), NOW
    for pause_s, pages in steps:
        now += pause_s
        before, at = at, begun(at, now)
        if at.span is not None and before.span is None:
            assert at.span.start <= max(before.read_until, int(now - 30 * DAY))
            assert at.span.end <= now
            if now - at.read_until >= KNOWN_S:
                assert at.span.start == at.read_until
            else:
                assert at.span.start == at.read_until - LATE_S
        for page in range(pages):
            at = went_on(at, f"evt_{page}", page + 1 < pages)
        assert at.read_until >= before.read_until


def test_a_span_is_asked_for_by_second_newest_first():
    assert Span(10, 20).params() == {"created": {"gte": 10, "lt": 20}, "limit": 100}
    assert went_on(Position(5), "evt_1", True) == Position(5)
