"""One rule at one time: what it finds, on what evidence, and how it fails."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from sixfbd.model import Evaluated, Evidence, Level, Rule, RuleName, Severity
from sixfbd.promql import Stop
from sixfbd.rules import BoundRule, bind_rules, evaluate_rule
from sixfbd.rules.evaluate import MAX_EVIDENCE_BYTES

Make = Callable[..., Any]


def bound(expr: str, **changes: Any) -> BoundRule:
    severity = None if "levels" in changes else Severity.HIGH
    rules = bind_rules([Rule(**{"name": RuleName("A"), "expr": expr, "severity": severity, **changes})])
    assert not rules.errors
    return rules.rule(RuleName("A"))


def evaluated(snapshot: Any, expr: str, now: float, **changes: Any) -> Evaluated:
    return evaluate_rule(bound(expr, **changes), snapshot, now, Stop())


def test_a_rule_finds_label_sets_without_the_name_with_value_evidence_and_checks(snapshot_of: Make) -> None:
    snapshot = snapshot_of('up{job="shop"} 1 0\nup{job="till"} 1 1', check="web")
    result = evaluated(snapshot, "up == 0", 61.5)
    assert (result.rule, result.at, result.error) == ("A", 61.5, None)
    (found,) = result.found
    assert (found.labels, found.value, found.checks) == ((("job", "shop"),), 0, ("web",))
    assert found.evidence == (Evidence('up{job="shop"}', 60_000, 0.0),)


def test_a_sample_stamped_at_the_moment_of_the_evaluation_is_seen(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a 1", start_s=10.001)
    assert len(evaluated(snapshot, "a", 10.0007).found) == 1


def test_a_rule_that_finds_nothing_is_no_error(snapshot_of: Make) -> None:
    result = evaluated(snapshot_of(), "up == 0", 0)
    assert (result.found, result.error) == ((), None)


def test_a_scalar_expression_finds_one_label_set_without_labels(snapshot_of: Make) -> None:
    (found,) = evaluated(snapshot_of(), "time() > bool 5", 60).found
    assert (found.labels, found.value, found.evidence, found.checks) == ((), 1, (), ())


def test_odd_values_are_words_in_the_evidence_as_json_has_no_form_for_them(snapshot_of: Make) -> None:
    snapshot = snapshot_of("a nan inf -inf")
    (found,) = evaluated(snapshot, "last_over_time(a[5m])", 120).found
    assert [evidence.value for evidence in found.evidence] == ["NaN", "+Inf", "-Inf"]
    assert found.value == -math.inf
    assert msgspec.json.decode(msgspec.json.encode(found.evidence), type=tuple[Evidence, ...]) == found.evidence


def test_evidence_is_at_most_4_kib_encoded(snapshot_of: Make) -> None:
    text = "\n".join(f'a{{name="{"x" * 200}{i}"}} 1 2 3 4 5' for i in range(32))
    (found,) = evaluated(snapshot_of(text), "sum(sum_over_time(a[5m]))", 240).found
    assert 10 < len(found.evidence) < 32 * 4
    assert len(msgspec.json.encode(found.evidence)) <= MAX_EVIDENCE_BYTES


def test_two_metrics_of_the_same_labels_are_an_error_that_names_them(snapshot_of: Make) -> None:
    snapshot = snapshot_of('a{x="1"} 1\nb{x="1"} 1')
    result = evaluated(snapshot, '{__name__=~"a|b"} > 0', 0)
    assert result.found == ()
    assert result.error == 'the rule finds {x="1"} more than once; aggregate away the metric\'s name'


def test_an_evaluation_that_fails_on_its_data_says_why(snapshot_of: Make) -> None:
    snapshot = snapshot_of('a{x="1"} 1\na{x="2"} 1\nb 1')
    error = evaluated(snapshot, "b * on () a", 0).error
    assert error is not None and "found duplicate series for the match group" in error


def test_an_evaluation_that_is_stopped_says_so(snapshot_of: Make) -> None:
    stop = Stop()
    stop.cancel("enough")
    assert evaluate_rule(bound("a"), snapshot_of("a 1"), 0, stop).error == "enough"


def test_a_snapshot_that_cannot_be_read_fails_the_rule_and_nothing_else(snapshot_of: Make) -> None:
    class Unreadable:
        def look_back_ms(self, matchers: object) -> int:
            raise OSError("samples.db: chunk of layout 7 is damaged")

    result = evaluate_rule(bound("a"), Unreadable(), 0, Stop())  # type: ignore[arg-type]  # only what fails first
    assert result.error == "OSError: samples.db: chunk of layout 7 is damaged"


LEVELS = (Level(Severity.MEDIUM, "<= 10", "> 12"), Level(Severity.HIGH, "<= 5"))


@pytest.mark.parametrize(
    ("value", "there"), [(5, True), (10, True), (11, True), (12, True), (12.5, False), (math.nan, True)]
)
def test_a_rule_with_levels_finds_what_has_a_level_or_might_keep_one(
    snapshot_of: Make, value: float, there: bool
) -> None:
    result = evaluated(snapshot_of(f"tickets {value}"), "tickets", 0, levels=LEVELS)
    assert len(result.found) == there


def test_labels_that_describe_are_no_part_of_what_is_found_and_give_the_severity(snapshot_of: Make) -> None:
    telling = {"severity": None, "describing": ("severity", "level")}
    snapshot = snapshot_of('stock{city="dallas",severity="warning",level="LOW"} 9\nstock{city="austin"} 50')
    austin, dallas = sorted(evaluated(snapshot, "stock", 0, **telling).found, key=lambda one: one.labels)
    assert (dallas.labels, dallas.severity) == ((("city", "dallas"),), Severity.MEDIUM)
    assert dallas.describing == (("level", "LOW"), ("severity", "warning"))
    assert (austin.labels, austin.severity, austin.describing) == ((("city", "austin"),), None, ())


def test_an_alert_that_two_describe_differently_is_an_error_and_not_a_guess(snapshot_of: Make) -> None:
    snapshot = snapshot_of('stock{severity="low"} 9\nstock{severity="high"} 5')
    assert "more than once" in (evaluated(snapshot, "stock", 0, severity=None, describing=("severity",)).error or "")
