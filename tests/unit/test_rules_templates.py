"""Annotation templates: what they may say, what comes out, what is refused."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.model import Rule, RuleName, Severity
from sixfbd.rules import bind_rules, render_annotations
from sixfbd.rules.templates import MAX_OUTPUT_CHARS, TemplateError, compile_template

LABELS = {"city": "dallas", "host": "a.example.com"}


def rendered(text: str, value: float = 5.0, summary: str = "all well") -> str:
    return compile_template(text).render(LABELS, value, summary)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("", ""),
        ("{{ $labels.city }} - {{ $value }}", "dallas - 5"),
        ("{{$labels.city}}", "dallas"),
        ("{{ $labels.missing }}.", "."),
        ("{{ $summary }}!", "all well!"),
        ('{{ printf "%.1f" $value }}', "5.0"),
        ('{{ $value | printf "%.2f" }}', "5.00"),
        ('{{ printf "%s has %d (%5.1f%%)" $labels.city $value $value }}', "dallas has 5 (  5.0%)"),
        ('{{ printf "%v|%s" $value $value }}', "5|5"),
        ('{{ printf "%d" }}', "%!(missing)"),
        ("{{ humanize $value }}", "5"),
        ("{{ humanize 1234567 }}", "1.235M"),
        ("{{ $value | humanizePercentage }}", "500%"),
        ("{{ humanize ($value) }}", "5"),
        ('{{ printf "%s now" (humanizeDuration $value) }}', "5s now"),
        ('{{ "quoted \\"text\\"" }}', 'quoted "text"'),
        ("{{ `raw` }}", "raw"),
        ("{{ toUpper $labels.city }} {{ $labels.city | toUpper }}", "DALLAS DALLAS"),
        ("a  {{- $value -}}  b", "a5b"),
        ("a  {{- $value }}  b", "a5  b"),
        ("a  {{ $value -}}  b", "a  5b"),
        ("100 {% if %} {# no comment #}", "100 {% if %} {# no comment #}"),
        ("braces } }} {", "braces } }} {"),
        ("line\n", "line\n"),
    ],
)
def test_a_template_renders(text: str, result: str) -> None:
    assert rendered(text) == result


@pytest.mark.parametrize(
    ("value", "text"),
    [(5.0, "5"), (0.1 + 0.2, "0.3"), (1234567.0, "1234567"), (-2.5, "-2.5"), (math.nan, "NaN"), (math.inf, "+Inf"),
     (-math.inf, "-Inf"), (1e20, "1e+20")],
)  # fmt: skip
def test_a_value_is_written_as_people_write_numbers(value: float, text: str) -> None:
    assert rendered("{{ $value }}", value) == text


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        ("humanize", 0, "0"), ("humanize", 999, "999"), ("humanize", 12_345, "12.35k"), ("humanize", -1500, "-1.5k"),
        ("humanize", 0.00012, "120u"), ("humanize", 1e30, "1e+06Y"), ("humanize", math.inf, "+Inf"),
        ("humanize1024", 1024, "1ki"), ("humanize1024", 1_572_864, "1.5Mi"), ("humanize1024", 0.5, "0.5"),
        ("humanizeDuration", 0, "0s"), ("humanizeDuration", 59.5, "59.5s"), ("humanizeDuration", 61, "1m 1s"),
        ("humanizeDuration", 3725, "1h 2m 5s"), ("humanizeDuration", 90_061, "1d 1h 1m 1s"),
        ("humanizeDuration", -61, "-1m 1s"), ("humanizeDuration", 0.25, "250ms"), ("humanizeDuration", math.nan, "NaN"),
        ("humanizePercentage", 0.1234, "12.34%"), ("humanizePercentage", 1, "100%"), ("humanizePercentage", math.nan, "NaN"),
    ],
)  # fmt: skip
def test_numbers_are_made_readable_as_in_prometheus(function: str, value: float, text: str) -> None:
    assert rendered(f"{{{{ {function} $value }}}}", value) == text


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("{{ $labels.city", 1, 1, "{{ without its }}"),
        ("ok\n {{ nothing }}", 2, 5, "'nothing' is not supported in templates; supported are: $labels.NAME"),
        ("{{ $other }}", 1, 4, "'$other' is not supported"),
        ("{{ .Labels.x }}", 1, 4, "'.Labels.x' is not supported"),
        ("{{ if $value }}", 1, 4, "'if' is not supported"),
        ("{{ $value.__class__ }}", 1, 10, "unexpected '.__class__'"),
        ("{{ }}", 1, 4, "nothing between {{ and }}"),
        ("{{ $value | }}", 1, 13, "a function has to follow '|'"),
        ("{{ $value | 5 }}", 1, 13, "a function has to follow '|'"),
        ("{{ humanize $value $value }}", 1, 4, "humanize takes one value, not 2"),
        ("{{ printf $value }}", 1, 11, 'printf needs a format such as "%.1f"'),
        ('{{ printf "%q" $value }}', 1, 11, "verbs of s d v f e g"),
        ('{{ printf "%99999f" $value }}', 1, 11, "verbs of s d v f e g"),
        ("{{ printf }}", 1, 4, "printf needs a format"),
        ("{{ (humanize $value }}", 1, 4, "( without its )"),
        ("nul \0", 1, 5, "NUL"),
        ("x" * 20_000, 1, 1, "longer than"),
    ],
)
def test_a_template_that_is_not_understood_is_refused_with_its_place(
    text: str, line: int, column: int, words: str
) -> None:
    with pytest.raises(TemplateError) as caught:
        compile_template(text)
    assert words in caught.value.message
    assert (caught.value.line, caught.value.column) == (line, column)


def test_an_error_while_rendering_becomes_a_text_that_names_it() -> None:
    text = rendered("{{ humanize $labels.city }}")
    assert text.startswith("<the template '{{ humanize $labels.city }}' failed: ValueError")


def test_what_a_template_makes_is_cut_at_64_kib() -> None:
    text = compile_template("{{ $labels.city }}" * 3).render({"city": "x" * 50_000}, 1.0, "")
    assert len(text) == MAX_OUTPUT_CHARS
    assert text.endswith("…")


def test_labels_are_text_and_never_templates_themselves() -> None:
    text = compile_template("{{ $labels.city }}").render({"city": "{{ $value }} <b>&"}, 1.0, "")
    assert text == "{{ $value }} <b>&"


def test_a_rules_annotations_are_rendered_for_an_alert_whose_value_may_be_a_word() -> None:
    annotations = {"summary": "{{ $labels.city }}: {{ $value }}", "fixed": "x"}
    bound = bind_rules([Rule(name=RuleName("A"), expr="up", severity=Severity.LOW, annotations=annotations)])
    ready = bound.rule(RuleName("A"))
    assert render_annotations(ready, LABELS, "NaN", "") == {"summary": "dallas: NaN", "fixed": "x"}


@given(st.text(alphabet='{}$|()" -%.labelsvaluhmnizprtf0\n', max_size=60))
def test_any_text_is_refused_or_renders_without_an_error_of_syntax(text: str) -> None:
    try:
        template = compile_template(text)
    except TemplateError as error:
        assert 1 <= error.line <= text.count("\n") + 1
    else:
        assert "SyntaxError" not in template.render(LABELS, 1.0, "")  # jinja compiles it only now
