"""What becomes of payments: outcomes in any order of what is told, and the exact binomial tail."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd_plugins.stripe.payments import (
    DECLINED,
    ERROR,
    FAILED,
    PROCESSING,
    SUCCEEDED,
    Attempt,
    chance_of,
    figures,
    fold,
)

FINAL = 1800.0
ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        payment=st.sampled_from(["pi_1", "pi_2", "pi_3"]),
        at=st.integers(0, 5000).map(float),
        state=st.sampled_from([SUCCEEDED, DECLINED, ERROR, PROCESSING]),
        reason=st.sampled_from(["", "a", "b"]),
        amount=st.integers(0, 10**9),
        currency=st.sampled_from(["USD", "JPY"]),
    ),
    max_size=20,
)


def only(attempts, until=10_000.0, late_s=0.0):
    [payment] = fold(attempts, FINAL, until, late_s)
    return payment


def test_four_declines_and_a_success_are_one_success():
    declines = [Attempt("pi_1", at, DECLINED, "do_not_honor") for at in (0.0, 60.0, 120.0, 180.0)]
    payment = only([*declines, Attempt("pi_1", 240.0, SUCCEEDED, amount=500, currency="USD")])
    assert (payment.outcome, payment.attempts, payment.decided_at, payment.amount) == (SUCCEEDED, 5, 240.0, 500)


@pytest.mark.parametrize(("success_at", "outcome"), [(FINAL, SUCCEEDED), (FINAL + 1, DECLINED)])
def test_what_comes_after_half_an_hour_changes_nothing(success_at, outcome):
    attempts = [Attempt("pi_1", 0.0, DECLINED), Attempt("pi_1", success_at, SUCCEEDED)]
    assert only(attempts).outcome == outcome


@pytest.mark.parametrize(("until", "decided_at"), [(FINAL + 599, None), (FINAL + 600, FINAL)])
def test_a_failure_is_final_when_nothing_can_be_told_of_that_time_any_more(until, decided_at):
    assert only([Attempt("pi_1", 0.0, DECLINED)], until, late_s=600.0).decided_at == decided_at


def test_the_latest_state_counts_while_nothing_is_final():
    attempts = [Attempt("pi_1", 0.0, ERROR, "processing_error"), Attempt("pi_1", 9.0, DECLINED, "expired_card")]
    payment = only(attempts, until=10.0)
    assert (payment.outcome, payment.reason, payment.decided_at) == (DECLINED, "expired_card", None)


@given(ATTEMPTS, st.randoms(use_true_random=False), st.integers(0, 10_000))
def test_the_order_in_which_attempts_are_told_does_not_matter(attempts, rng, until):
    shuffled = list(attempts)
    rng.shuffle(shuffled)
    assert sorted(map(repr, fold(attempts, FINAL, until))) == sorted(map(repr, fold(shuffled, FINAL, until)))


@given(ATTEMPTS, ATTEMPTS, st.integers(0, 4000), st.integers(0, 4000))
def test_a_decided_outcome_never_changes_by_what_happens_later(attempts, later, until, more):
    """As long as nothing is told later than it may be: what is new happens after what is known."""
    known = [one for one in attempts if one.at <= until]
    before = {one.id: one for one in fold(known, FINAL, until) if one.decided_at is not None}
    new = [one for one in later if one.at > until and not (one.payment in before and one.state == SUCCEEDED and
           before[one.payment].outcome == SUCCEEDED)]  # fmt: skip
    after = {one.id: one for one in fold([*known, *new], FINAL, until + more)}
    for name, payment in before.items():
        assert (after[name].outcome, after[name].decided_at) == (payment.outcome, payment.decided_at)


@given(ATTEMPTS)
def test_each_payment_counts_once_and_amounts_are_whole_numbers(attempts):
    folded = fold(attempts, FINAL, 10_000.0)
    found = figures(folded)
    assert found.total == len({one.payment for one in attempts})
    assert found.decided == found.by_outcome[SUCCEEDED] + sum(found.by_outcome[one] for one in FAILED)
    assert all(isinstance(amount, int) for amount in found.amounts.values())
    assert sum(found.paid.values()) == found.by_outcome[SUCCEEDED]
    assert sum(count for _, count in found.reasons) == found.failed


@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([Fraction(1, 20), Fraction(1, 2), Fraction(1, 1000)]))
def test_the_tail_is_that_of_exact_fractions(failed, total, rate):
    exact = sum(
        (comb(total, k) * rate**k * (1 - rate) ** (total - k) for k in range(failed, total + 1)), start=Fraction(0)
    )
    assert chance_of(failed, total, float(rate)) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


@given(st.integers(1, 100_000), st.floats(0, 1))
def test_the_tail_is_a_probability_that_falls_with_each_failure(total, part):
    failed = int(part * total)
    more, less = chance_of(failed + 1, total, 0.05), chance_of(failed, total, 0.05)
    assert 0.0 <= more <= less <= 1.0


@pytest.mark.parametrize(("failed", "total", "is_alarming"), [
    (1, 1, False), (1, 5, False), (2, 2, True), (2, 3, True), (2, 4, False), (3, 10, False), (3, 9, True), (4, 19, False),
    (5, 19, True),
])  # fmt: skip
def test_at_low_volume_only_what_chance_does_not_explain_is_alarming(failed, total, is_alarming):
    assert (chance_of(failed, total, 0.05) < 0.01) is is_alarming
