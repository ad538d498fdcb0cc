"""The default rules of payments (SEED S9, S10): when each holds and what it says, on series by hand."""

import pytest

from sixfbd.plugin import DAY
from sixfbd.rules import bind_rules
from sixfbd_plugins.checks.payments import RULES
from sixfbd_plugins.stripe.payments import chance_of
from tests import rules_kit

BOUND = bind_rules(RULES)


def found(name, snapshot, now=0.0, summary="why"):
    return rules_kit.found(BOUND, name, snapshot, now, summary)


def recent(failed, succeeded, processing=0):
    decided = failed + succeeded
    series = {
        'stripe_payments_recent{check="stripe",outcome="declined"}': failed,
        'stripe_payments_recent{check="stripe",outcome="succeeded"}': succeeded,
        'stripe_payments_recent{check="stripe",outcome="processing"}': processing,
        'stripe_payment_failure_ratio{check="stripe"}': failed / decided,
        'stripe_payment_failure_pvalue{check="stripe"}': round(chance_of(failed, decided, 0.05), 12),
    }
    return "\n".join(f"{name} {value:.12f}" for name, value in series.items())


def test_all_rules_can_be_bound_and_are_of_the_service_payments():
    assert not BOUND.errors
    assert {rule.labels["service"] for rule in RULES} == {"payments"}


@pytest.mark.parametrize(("failed", "succeeded", "fires"), [
    (2, 18, True), (1, 19, False), (2, 38, False), (3, 37, True),  # from 20 on a rate above 5 %
    (1, 4, False), (2, 17, False), (3, 16, False), (5, 14, True), (2, 1, True), (1, 0, False),  # below, an exact test
])  # fmt: skip
def test_a_failure_rate_above_a_twentieth_is_high_unless_chance_explains_it(snapshot_of, failed, succeeded, fires):
    said = found("HighPaymentFailureRate", snapshot_of(recent(failed, succeeded)))
    rate = failed / (failed + succeeded)
    assert said == ([(round(rate, 6), "high", f"High payment failure rate: {rate * 100:.4g}%")] if fires else [])


def test_payments_that_are_still_processed_do_not_make_twenty(snapshot_of):
    assert found("HighPaymentFailureRate", snapshot_of(recent(2, 17, processing=5))) == []


@pytest.mark.parametrize(("rule", "metric", "days", "most"), [
    ("HighChargebackRate", "stripe_chargebacks_total", 90, 0.01),
    ("HighRefundRate", 'stripe_refunds_total{currency="USD"}', 30, 0.02),
])  # fmt: skip
def test_what_goes_back_is_judged_over_months_from_fifty_payments_on(snapshot_of, rule, metric, days, most):
    now = 200 * DAY

    def steps(before, within, paid):
        old, new = now - (days + 1) * DAY, now - (days - 1) * DAY
        lines = [f"{metric} {old}:{before} {new}:{before + within}"]
        return "\n".join([*lines, f'stripe_payments_total{{outcome="succeeded"}} {old}:1000 {new}:{1000 + paid}'])

    limit = round(most * 100)
    assert found(rule, snapshot_of(steps=steps(50, limit, 100)), now) == []
    [(value, _, _)] = found(rule, snapshot_of(steps=steps(50, limit + 1, 100)), now)
    assert value == pytest.approx((limit + 1) / 100)
    assert found(rule, snapshot_of(steps=steps(50, 10, 49)), now) == []


def test_rates_count_from_the_first_payment_where_there_is_less_than_the_span(snapshot_of):
    steps = 'stripe_chargebacks_total 100:2\nstripe_payments_total{outcome="succeeded"} 100:100'
    assert found("HighChargebackRate", snapshot_of(steps=steps), 200.0) == [
        (0.02, "high", "High chargeback rate: 2% of the payments of 90 days")
    ]


@pytest.mark.parametrize(("ratio", "undelivered", "fires"), [(0.11, 3, True), (0.1, 30, False), (0.5, 2, False)])
def test_webhooks_that_do_not_arrive_are_critical(snapshot_of, ratio, undelivered, fires):
    series = f'stripe_webhook_failure_ratio{{check="s"}} {ratio}\nstripe_webhook_events_undelivered{{check="s"}} {undelivered}'
    said = [(ratio, "critical", "Stripe webhook failures detected: 11%")] if fires else []
    assert found("StripeWebhookFailures", snapshot_of(series)) == said


@pytest.mark.parametrize(("series", "rule", "said"), [
    ('stripe_webhook_endpoint_enabled{endpoint="we_1"} 0', "StripeWebhookDisabled",
     (0, "critical", "Stripe sends no webhooks to we_1: the endpoint is disabled")),
    ("stripe_webhooks_missing 2", "StripeWebhooksMissing", (2, "medium", "Stripe webhooks are missing: why")),
    ("stripe_dispute_due_timestamp_seconds 3600", "StripeDisputeDue", (3600, "high", "A dispute must be answered within 1h 0m 0s")),
    ("stripe_service_failures 3", "StripeFailing", (3, "high", "Stripe service health check failed: why")),
])  # fmt: skip
def test_what_else_is_wrong_is_told(snapshot_of, series, rule, said):
    assert found(rule, snapshot_of(series)) == [said]


def test_a_payout_that_fails_is_told_for_a_day(snapshot_of):
    steps = 'stripe_payouts_total{currency="USD",status="failed"} 100:1\nstripe_payouts_total{currency="USD",status="paid"} 50:9'
    said = [(1, "high", "Stripe could not pay out: 1 in USD within a day")]
    assert found("StripePayoutFailed", snapshot_of(steps=steps), 200.0) == said
    assert found("StripePayoutFailed", snapshot_of(steps=steps), 2 * DAY) == []
