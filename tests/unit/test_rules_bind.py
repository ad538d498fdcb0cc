"""What a rule may be, and how a bad one is reported while the others go on."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from sixfbd.model import Level, Rule, RuleName, Series, Severity, labels_of
from sixfbd.rules import bind_rules, level_of, severity_of
from sixfbd.rules.bind import RuleError

HIGH, MEDIUM, LOW, CRITICAL = Severity.HIGH, Severity.MEDIUM, Severity.LOW, Severity.CRITICAL


def rule(name: str = "Example", expr: str = "up == 0", **changes: Any) -> Rule:
    severity = None if "levels" in changes else HIGH
    return Rule(**{"name": RuleName(name), "expr": expr, "severity": severity, "origin": "rules.toml", **changes})


def errors_of(*rules: Rule) -> list[RuleError]:
    return list(bind_rules(rules).errors)


def test_a_good_rule_is_bound_and_found_by_name() -> None:
    bound = bind_rules([rule("A"), rule("B", "rate(x[5m]) > 1")])
    assert bound.names == ("A", "B")
    assert bound.rule(RuleName("B")).query.metrics == ("x",)
    assert bound.errors == ()


def test_a_bad_expression_is_reported_with_its_place_and_left_out_alone() -> None:
    bound = bind_rules([rule("Bad", "up ==\n  == 0"), rule("Good")])
    assert bound.names == ("Good",)
    (error,) = bound.errors
    assert (error.rule, error.origin, error.line, error.column) == ("Bad", "rules.toml", 2, 3)
    assert str(error) == ("rules.toml: rule 'Bad': expr: line 2, column 3: unexpected '=='\n  == 0\n  ^")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"expr": "up[5m]"}, "a range vector cannot alert"),
        ({"expr": '"text"'}, "a string cannot alert"),
        ({"severity": None}, "a rule has either severity or levels: set one of them"),
        ({"severity": HIGH, "levels": (Level(HIGH, "< 5"),)}, "a rule has either severity or levels"),
        ({"labels": {"not-a-name": "x"}}, "'not-a-name' cannot be a label's name"),
        ({"labels": {"alertname": "x"}}, "'alertname' cannot be a label's name"),
        ({"labels": {"severity": "page"}}, "the label 'severity' is the alert's own"),
        ({"labels": {"team": 5}}, "labels.team: 5 is not a text"),
        ({"annotations": {"a b": "x"}}, "'a b' cannot be a name"),
        ({"annotations": {"summary": "{{ $labels. }}"}}, "annotations.summary: line 1, column"),
        (
            {"levels": (Level(HIGH, "under 5"),)},
            "levels[0].when: 'under 5' is not a comparison with a number; write \"<= 5\"",
        ),
        ({"levels": (Level(HIGH, "< 5", ">"),)}, "levels[0].clear: '>' is not a comparison"),
        ({"levels": (Level(HIGH, "< 5"), Level(HIGH, "< 3"))}, "levels[1].severity: high is there twice"),
        ({"levels": (Level("worse", "< 5"),)}, "levels[0].severity: 'worse' is no severity; write one of low, medium"),
        ({"for_s": -1.0}, "for: -1.0 is not a duration"),
        ({"keep_firing_for_s": float("nan")}, "keep_firing_for: nan is not a duration"),
        ({"interval_s": 0.0}, "interval: 0.0 is not a duration of more than 0s"),
        ({"name": " "}, "a rule needs a name"),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_with_its_mend(changes: dict[str, Any], text: str) -> None:
    (error,) = errors_of(rule(**changes))
    assert text in error.text


def test_all_errors_of_a_rule_come_at_once() -> None:
    bad = rule(expr="up ==", labels={"1": "x"}, annotations={"summary": "{{ nothing }}"}, for_s=-1.0)
    assert len(errors_of(bad)) == 4


def test_of_two_rules_of_one_name_the_second_is_left_out() -> None:
    bound = bind_rules([rule("A", "x > 1", origin="one.toml"), rule("A", "x > 2", origin="two.toml")])
    assert bound.rule(RuleName("A")).query.expr == "x > 1"
    assert "another rule of this name, from one.toml" in bound.errors[0].text


# ---- severities


@pytest.mark.parametrize(
    ("word", "severity"),
    [("info", LOW), ("warning", MEDIUM), ("error", HIGH), ("page", HIGH), ("critical", CRITICAL), ("High", HIGH),
     ("sev1", None)],
)  # fmt: skip
def test_severity_words_of_others_have_a_meaning(word: str, severity: Severity | None) -> None:
    assert severity_of(word) == severity


def test_the_severity_label_of_a_prometheus_rule_becomes_the_severity() -> None:
    bound = bind_rules([rule(severity=None, labels={"severity": "page", "team": "web"})])
    ready = bound.rule(RuleName("Example")).rule
    assert (ready.severity, ready.labels) == (HIGH, {"team": "web"})


def test_an_unknown_severity_is_medium_and_a_log_line_says_so() -> None:
    with capture_logs() as logged:
        bound = bind_rules([rule(severity=None, labels={"severity": "sev1"})])
    assert bound.rule(RuleName("Example")).rule.severity is MEDIUM
    assert [(line["event"], line["severity"], line["taken_as"]) for line in logged] == [
        ("rule.severity_unknown", "sev1", "medium")
    ]


# ---- which series touch which rules


def series(metric: str, **labels: str) -> Series:
    return Series(metric, labels_of(labels))


def test_a_series_touches_the_rules_whose_selectors_match_it() -> None:
    bound = bind_rules(
        [
            rule("Name", "up == 0"),
            rule("Label", 'up{job="shop"} == 0'),
            rule("Regex", '{__name__=~"u.", job!~"shop|till"} == 0'),
            rule("Any", 'sum by (x) ({job="shop"}) > 0'),
            rule("Two", "a / up > 1"),
            rule("None", "vector(1) > 0"),
        ]
    )
    assert bound.touched(series("up", job="shop")) == {"Name", "Label", "Any", "Two"}
    assert bound.touched(series("up", job="bar")) == {"Name", "Regex", "Two"}
    assert bound.touched(series("a")) == {"Two"}
    assert bound.touched(series("upper")) == frozenset()


def test_the_checks_of_a_rule_are_those_of_its_series_and_those_it_names() -> None:
    bound = bind_rules([rule("A", 'up == 0 or other{check="named"} > 1'), rule("B", "b > 1")])
    bound.touched(series("up", check="web"))
    bound.touched(series("up", check="till"))
    bound.touched(series("elsewhere", check="disk"))
    assert bound.checks_of(RuleName("A")) == {"named", "till", "web"}
    assert bound.checks_of(RuleName("B")) == frozenset()


# ---- levels

STOCK = rule(
    expr="tickets",
    levels=(Level(MEDIUM, "<= 10", "> 12"), Level(CRITICAL, "== 0", "> 0"), Level(HIGH, "<= 5", "> 6")),
)


@pytest.mark.parametrize(
    ("value", "current", "wanted"),
    [
        (20, None, None), (10, None, MEDIUM), (5, None, HIGH), (0, None, CRITICAL), (11, None, None),
        # upwards at once
        (5, MEDIUM, HIGH), (0, MEDIUM, CRITICAL), (10, MEDIUM, MEDIUM),
        # downwards as `clear` says, rung by rung
        (6, HIGH, HIGH), (6.5, HIGH, MEDIUM), (11, MEDIUM, MEDIUM), (12.5, MEDIUM, None), (11, HIGH, MEDIUM),
        (12.5, HIGH, None), (1, CRITICAL, HIGH), (6, CRITICAL, HIGH), (11, CRITICAL, MEDIUM), (13, CRITICAL, None),
        # NaN neither reaches nor clears
        (float("nan"), None, None), (float("nan"), HIGH, HIGH),
    ],
)  # fmt: skip
def test_a_level_is_taken_at_once_and_left_as_its_clear_says(
    value: float, current: Severity | None, wanted: Severity | None
) -> None:
    bound = bind_rules([STOCK]).rule(RuleName("Example"))
    assert level_of(bound, value, current) == wanted


def test_without_a_clear_a_level_is_left_when_its_when_no_longer_holds() -> None:
    levels = (Level(LOW, "> 1e2"), Level(HIGH, ">= 200.5"))
    bound = bind_rules([rule(levels=levels)]).rule(RuleName("Example"))
    assert level_of(bound, 200.5, LOW) == HIGH
    assert level_of(bound, 150, HIGH) == LOW
    assert level_of(bound, 100, LOW) is None


def test_a_rule_with_one_severity_has_it_for_every_value() -> None:
    bound = bind_rules([rule()]).rule(RuleName("Example"))
    assert level_of(bound, float("nan"), None) == HIGH
