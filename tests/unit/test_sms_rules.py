"""The default rules of SMS (SEED S1, S2): when each holds and what it says, on series by hand."""

import subprocess
import sys

import pytest

from sixfbd.promql import Stop
from sixfbd.rules import bind_rules, evaluate_rule
from sixfbd_plugins.checks.sms import FAILURE_RATE, RULES
from tests import rules_kit

BOUND = bind_rules(RULES)


def found(name, snapshot, now=3600.0, summary="why"):
    return rules_kit.found(BOUND, name, snapshot, now, summary)


def messages(sent, failed, undelivered=0, at=3000, origin=""):
    label = f',origin="{origin}"' if origin else ""
    return "\n".join(
        f'twilio_messages_total{{status="{status}"{label}}} {at}:{count}'
        for status, count in (("sent", sent), ("failed", failed), ("undelivered", undelivered))
        if count
    )


def test_all_rules_can_be_bound_and_are_of_the_service_sms():
    assert not BOUND.errors
    assert {rule.labels["service"] for rule in RULES} == {"sms"}


@pytest.mark.parametrize(("failures", "severity"), [(1, "high"), (2, "high"), (3, "critical")])
def test_a_failure_is_high_and_the_third_in_a_row_critical(snapshot_of, failures, severity):
    snapshot = snapshot_of(f'sms_service_failures{{check="sms"}} {failures}\nsms_service_error{{check="sms"}} 0')
    text = "SMS service health check failed: why"
    assert found("SMSServiceFailing", snapshot, 0.0) == [(failures, severity, text)]
    assert found("SMSServiceError", snapshot, 0.0) == []


def test_an_error_is_critical_at_once_and_is_not_told_twice(snapshot_of):
    snapshot = snapshot_of('sms_service_failures{check="sms"} 1\nsms_service_error{check="sms"} 1')
    assert found("SMSServiceError", snapshot, 0.0) == [(1, "critical", "SMS service error: why")]
    assert found("SMSServiceFailing", snapshot, 0.0) == []


def test_more_than_a_tenth_of_the_last_hours_messages_failing_is_high(snapshot_of):
    snapshot = snapshot_of(steps=messages(20, 0, 3))
    assert found("HighSMSFailureRate", snapshot) == [(0.15, "high", "High SMS failure rate: 15%")]
    assert found("HighSMSFailureRate", snapshot_of(steps=messages(20, 0, 2))) == []


def test_messages_that_were_never_sent_count_among_the_failed_and_among_all(snapshot_of):
    assert found("HighSMSFailureRate", snapshot_of(steps=messages(15, 5))) == [
        (0.25, "high", "High SMS failure rate: 25%")
    ]


def test_below_twenty_messages_nothing_is_said_of_their_rate(snapshot_of):
    assert found("HighSMSFailureRate", snapshot_of(steps=messages(14, 5))) == []


def test_where_the_last_hour_has_too_few_the_last_day_is_judged(snapshot_of):
    snapshot = snapshot_of(steps=messages(20, 5, at=3000))
    assert found("HighSMSFailureRate", snapshot, now=10 * 3600.0) == [(0.2, "high", "High SMS failure rate: 20%")]
    assert found("HighSMSFailureRate", snapshot, now=30 * 3600.0) == []


def test_our_own_messages_are_left_out_of_the_rate(snapshot_of):
    steps = messages(30, 0) + "\n" + messages(5, 30, origin="sixfbd")
    assert found("HighSMSFailureRate", snapshot_of(steps=steps)) == []


def test_a_rate_without_failures_is_zero_and_not_unknown(snapshot_of):
    bound = bind_rules([type(RULES[0])(name="Rate", expr=FAILURE_RATE, severity="high")])
    result = evaluate_rule(bound.rule("Rate"), snapshot_of(steps=messages(30, 0)), 3600.0, Stop())
    assert [one.value for one in result.found] == [0.0]


def test_slow_answers_are_told_in_milliseconds(snapshot_of):
    assert found("SlowSMSResponse", snapshot_of("sms_response_seconds 6.2"), 0.0) == [
        (6200.0, "medium", "Slow SMS response time: 6200ms")
    ]
    assert found("SlowSMSResponse", snapshot_of("sms_response_seconds 5"), 0.0) == []


def test_retries_are_judged_from_twenty_messages_on(snapshot_of):
    series = 'sms_retry_ratio{{check="sms"}} 0.25\nsms_messages_tried{{check="sms"}} {}'
    assert found("HighSMSRetryRate", snapshot_of(series.format(20)), 0.0) == [
        (0.25, "medium", "High SMS retry rate: 25%")
    ]
    assert found("HighSMSRetryRate", snapshot_of(series.format(19)), 0.0) == []


def test_a_log_that_is_not_read_is_told(snapshot_of):
    snapshot = snapshot_of("twilio_log_read_until_timestamp_seconds 0 0", every_s=3700)
    assert found("SMSLogUnread", snapshot, 3700.0) == [
        (3700, "medium", "What became of SMS is not known for 1h 1m 40s: why")
    ]


def test_the_providers_sdk_is_imported_by_nobody_who_has_not_configured_it():
    program = "import sys; import sixfbd_plugins.checks.sms; sys.exit('twilio' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
