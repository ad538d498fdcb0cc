"""What compiles, what is refused, and where the caret points."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd import promql
from sixfbd.promql import PromQLError
from sixfbd.promql.parse import AGGREGATIONS, FUNCTIONS
from sixfbd.window.snapshot import Matcher


def refusal(expr: str) -> PromQLError:
    with pytest.raises(PromQLError) as caught:
        promql.compile(expr)
    return caught.value


def test_a_query_names_its_selectors_once_each_with_range_and_offset() -> None:
    query = promql.compile('rate(a{x="1"}[5m] offset 1m) / rate(a{x="1"}[5m] offset 1m) + b offset -10s')
    assert [(s.matchers, s.range_ms, s.offset_ms) for s in query.selectors] == [
        ((Matcher("__name__", "=", "a"), Matcher("x", "=", "1")), 300_000, 60_000),
        ((Matcher("__name__", "=", "b"),), 0, -10_000),
    ]
    assert query.metrics == ("a", "b")
    assert query.kind == "vector"


@pytest.mark.parametrize(
    ("expr", "kind"),
    [("1", "scalar"), ("time() - 1", "scalar"), ("a", "vector"), ("-a", "vector"), ("a[5m]", "matrix"), ('"x"', "string"),
     ("1 + a", "vector"), ("scalar(a)", "scalar"), ("sum(a)", "vector"), ("vector(1)", "vector"), ("(a)", "vector")],
)  # fmt: skip
def test_a_query_knows_what_it_evaluates_to(expr: str, kind: str) -> None:
    assert promql.compile(expr).kind == kind


@pytest.mark.parametrize("expr", ["time()", "a[5m]", "rate(a[1m])", "a offset 1m", "timestamp(a)", "1 + time() > a"])
def test_a_query_that_changes_without_samples_says_so(expr: str) -> None:
    assert promql.compile(expr).reads_time


@pytest.mark.parametrize("expr", ["a", "a > 5", "sum by (x) (a) / b", "absent(a)", "1"])
def test_a_query_of_values_alone_does_not_read_time(expr: str) -> None:
    assert not promql.compile(expr).reads_time


def test_names_may_be_quoted_as_in_prometheus_3() -> None:
    assert promql.compile('{"shop.sales", city="x"}').metrics == ("shop.sales",)


@pytest.mark.parametrize(
    ("expr", "line", "column", "text"),
    [
        ("a +", 1, 4, "unexpected end of the expression"),
        ("a + * b", 1, 5, "unexpected '*'"),
        ("sum by a (b)", 1, 8, "unexpected 'a'"),
        ('a{x="1" y="2"}', 1, 9, "unexpected 'y'"),
        ("a b", 1, 3, "unexpected 'b'"),
        ("a = b", 1, 3, "unexpected '='"),
        ("a{x=y}", 1, 5, "unexpected identifier 'y' in label matching, expected string"),
        ('a{x=~"["}', 1, 6, "illegal regex"),
        ("(a", 1, 1, "unclosed left parenthesis"),
        ("a)", 1, 2, "unexpected right parenthesis"),
        ("a[5x]", 1, 3, "bad number or duration syntax"),
        ("a and bool b", 1, 7, "bool modifier can only be used on comparison operators"),
        ("rate(a[5m]) + rate(b)", 1, 15, "expected type matrix in call to function 'rate', got vector"),
        ("sum(a) + (1 == 1)", 1, 13, "comparisons between scalars must use BOOL modifier"),
        ('{x=""}', 1, 1, "vector selector must contain at least one non-empty matcher"),
        ("", 1, 1, "no expression found"),
        ("a +\n  b +\n  nofun(c)", 3, 3, "unknown function 'nofun'"),
        ("rat(a[5m])", 1, 1, "did you mean 'rate'?"),
        ("abs(nofun) + nofun(a)", 1, 14, "unknown function 'nofun'"),
    ],
)
def test_an_error_has_line_column_and_words(expr: str, line: int, column: int, text: str) -> None:
    error = refusal(expr)
    assert (error.line, error.column) == (line, column), str(error)
    assert text in error.message


@pytest.mark.parametrize(
    ("expr", "column", "text"),
    [
        ("1 + rate(a[5m:1m])", 11, "subqueries are not supported"),
        ("a + b @ 3", 7, "the @ modifier is not supported"),
        ("a + b @ end()", 7, "the @ modifier is not supported"),
        ("1 + predict_linear(a[5m], 3)", 5, "the function predict_linear() is not supported"),
        ("1 + hour(a)", 5, "the function hour() is not supported"),
        ('1 + count_values("x", a)', 5, "the aggregation count_values() is not supported"),
        ("limitk(1, a)", 1, "the aggregation limitk() is not supported"),
        ('a{x="1" or y="2"}', 9, "'or' between label matchers is not supported"),
        ("a + fill(0) b", 5, "the clause fill() is not supported"),
        ('label_replace(a, "1x", "", "", "")', 1, "'1x' is not a label name"),
        ('label_replace(a, "x", "", "y", "(")', 1, "not a regular expression"),
    ],
)
def test_what_is_not_evaluated_is_refused_by_name_at_its_place(expr: str, column: int, text: str) -> None:
    error = refusal(expr)
    assert error.column == column, str(error)
    assert text in error.message


def test_a_refused_function_says_which_are_supported() -> None:
    message = refusal("hour(a)").message
    assert all(name in message for name in FUNCTIONS)
    assert all(name in refusal("limitk(1, a)").message for name in AGGREGATIONS)


def test_the_text_of_an_error_has_a_caret_below_the_place() -> None:
    assert (
        str(refusal("up\n  > nofun(b)"))
        == "line 2, column 5: unknown function 'nofun'; did you mean 'round'?\n  > nofun(b)\n    ^"
    )


def test_the_line_can_be_that_of_a_file_while_the_snippet_stays() -> None:
    with pytest.raises(PromQLError) as caught:
        promql.compile("a\n+ + +", extra_line_offset=40)
    assert caught.value.line == 42
    assert caught.value.snippet == "+ + +\n     ^"


@pytest.mark.parametrize("expr", ["(" * 5000, "+".join(["a"] * 3000), "-" * 5000 + "a", "a" * 20_000])
def test_an_expression_that_is_too_large_is_refused_not_crashed_on(expr: str) -> None:
    assert "more than" in refusal(expr).message or "longer than" in refusal(expr).message


@given(st.text(alphabet="ab0.5m(){}[]\"'=~!<>+-*/^%,:@ \noffsetbyandrsu", max_size=40) | st.text(max_size=30))
def test_any_text_compiles_or_is_refused_with_a_place_inside_it(expr: str) -> None:
    try:
        promql.compile(expr)
    except PromQLError as error:
        lines = expr.split("\n")
        assert 1 <= error.line <= len(lines)
        assert 1 <= error.column <= len(lines[error.line - 1]) + 1
        assert str(error).endswith("^")


@pytest.mark.parametrize("literal", ['"\\\\pL{1,1000}"', "'\\\\pL{1,1000}'", "`\\pL{1,1000}`"])
@pytest.mark.parametrize("op", ["=~", "!~"])
def test_a_pattern_that_would_hold_the_interpreter_is_refused_before_it_is_parsed(op, literal, monkeypatch):
    monkeypatch.setattr("sixfbd.promql.parse.promql_parser.parse", lambda text: pytest.fail("it was parsed"))
    with pytest.raises(PromQLError, match="regular expression is too large") as caught:
        promql.compile(f"up{{job{op}{literal}}}")
    assert caught.value.column == 9


def test_an_alternative_of_thousands_of_names_is_no_such_pattern():
    names = "|".join(f"target-{number}" for number in range(1200))
    assert promql.compile(f'up{{instance=~"{names}"}}').selectors
