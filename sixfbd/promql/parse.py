"""Compiling PromQL: promql-parser reads the text, this module turns its tree into ours and refuses what we do not evaluate.

Pure. A refusal names the function, operator or clause, its line and column, and what is supported instead.
"""

import ast
import difflib
import re
from datetime import timedelta
from typing import Any, Final, NoReturn

import promql_parser
from msgspec import Struct

from sixfbd.promql import places
from sixfbd.promql.errors import PromQLError
from sixfbd.promql.nodes import (
    Aggregate,
    Binary,
    Call,
    Cardinality,
    Kind,
    Matching,
    Negate,
    Node,
    Number,
    Selector,
    Text,
    walk,
)
from sixfbd.promql.patterns import anchored, is_too_large
from sixfbd.window.snapshot import Matcher

MAX_EXPR_CHARS: Final = 16_384
MAX_DEPTH: Final = 50
MAX_OPERATORS: Final = 150  # a chain of operators is a tree as deep as it is long

AGGREGATIONS: Final = (
    "avg", "bottomk", "count", "group", "max", "min", "quantile", "stddev", "sum", "topk",
)  # fmt: skip
_VECTOR_FUNCTIONS: Final = (
    "abs", "absent", "absent_over_time", "avg_over_time", "ceil", "changes", "clamp", "clamp_max", "clamp_min",
    "count_over_time", "delta", "exp", "floor", "histogram_quantile", "idelta", "increase", "irate", "label_replace",
    "last_over_time", "ln", "max_over_time", "min_over_time", "present_over_time", "quantile_over_time", "rate", "resets",
    "round", "sqrt", "stddev_over_time", "sum_over_time", "timestamp", "vector",
)  # fmt: skip
FUNCTIONS: Final[dict[str, Kind]] = {
    **dict.fromkeys(_VECTOR_FUNCTIONS, "vector"),
    "scalar": "scalar",
    "time": "scalar",
}

_OPS: Final = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
_CARDS: Final[dict[str, Cardinality]] = {
    "OneToOne": "one-to-one", "ManyToOne": "many-to-one", "OneToMany": "one-to-many", "ManyToMany": "many-to-many",
}  # fmt: skip
_SYNTAX_ERROR: Final = "invalid promql query"
_LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_UNKNOWN_FUNCTION: Final = re.compile(r"unknown function with name '([^']+)'")


class Query(Struct, frozen=True):
    """A compiled expression. Immutable and hashable; usable from any thread.

    `selectors` are all it reads, each once. `metrics` are the metric names that it asks for by equality (a selector
    without one is not among them). `reads_time`: its value may change while no sample arrives, staleness apart.
    """

    expr: str
    root: Node
    kind: Kind
    selectors: tuple[Selector, ...]
    metrics: tuple[str, ...]
    reads_time: bool


def compile(expr: str, *, extra_line_offset: int = 0) -> Query:  # noqa: A001 - the name of DESIGN section 6
    """Read an expression. Raises PromQLError, whose line is moved down by `extra_line_offset` (its place in a file)."""
    return _Compiler(expr, extra_line_offset).query()


def kind_of(node: Node) -> Kind:
    """Return what a node evaluates to."""
    match node:
        case Number():
            return "scalar"
        case Text():
            return "string"
        case Selector():
            return "matrix" if node.range_ms else "vector"
        case Call():
            return FUNCTIONS[node.name]
        case Aggregate():
            return "vector"
        case Negate():
            return kind_of(node.operand)
        case Binary():
            return "scalar" if kind_of(node.left) == kind_of(node.right) == "scalar" else "vector"


class _Compiler:
    def __init__(self, expr: str, extra_line_offset: int) -> None:
        self._expr = expr
        self._offset = extra_line_offset

    def query(self) -> Query:
        if len(self._expr) > MAX_EXPR_CHARS:
            self._refuse(f"the expression is longer than {MAX_EXPR_CHARS} characters", 0)
        self._refuse_what_costs()
        root = self._node(self._parse())
        selectors = tuple(dict.fromkeys(node for node in walk(root) if isinstance(node, Selector)))
        metrics = [m.value for s in selectors for m in s.matchers if m.name == "__name__" and m.op == "="]
        reads_time = any(s.range_ms or s.offset_ms for s in selectors) or any(
            isinstance(node, Call) and node.name in ("time", "timestamp") for node in walk(root)
        )
        return Query(self._expr, root, kind_of(root), selectors, tuple(dict.fromkeys(metrics)), reads_time)

    def _parse(self) -> Any:
        try:
            return promql_parser.parse(self._expr)
        except ValueError as error:
            return self._refuse_as_parser(str(error))

    def _refuse_as_parser(self, message: str) -> NoReturn:
        """Refuse for the parser's reason, in clearer words where it has few, and with the place."""
        if message == _SYNTAX_ERROR:
            misfit = places.place_of_syntax_error(self._expr)
            what = f"unexpected {misfit.text!r}" if misfit.text else "unexpected end of the expression"
            self._refuse(what, misfit.at)
        if unknown := _UNKNOWN_FUNCTION.search(message):
            close = difflib.get_close_matches(unknown[1], [*FUNCTIONS, *AGGREGATIONS], n=1)
            message = f"unknown function {unknown[1]!r}" + (f"; did you mean {close[0]!r}?" if close else "")
            self._refuse(message, places.place_of_name(self._expr, unknown[1], called=True))
        self._refuse(message, places.place_of_error(self._expr, message, _message_of))

    def _refuse_what_costs(self) -> None:
        """Refuse what the parser would hold the interpreter for, or what would be evaluated too deep."""
        depth = operators = 0
        before = ""
        for token in places.tokens_of(self._expr):
            depth += (token.text == "(") - (token.text == ")")
            operators += token.text in places.BINARY_OPERATORS
            if depth > MAX_DEPTH:
                self._refuse(f"more than {MAX_DEPTH} brackets within each other", token.at)
            if operators > MAX_OPERATORS:
                self._refuse(f"more than {MAX_OPERATORS} operators in one expression", token.at)
            if before in ("=~", "!~") and is_too_large(_unquoted(token.text)):
                self._refuse("the regular expression is too large; repeat fewer times, or name fewer values", token.at)
            before = token.text

    def _refuse(self, message: str, at: int) -> NoReturn:
        line, column = places.line_and_column(self._expr, at)
        raise PromQLError(message, line + self._offset, column, self._expr, extra_line_offset=self._offset) from None

    def _refuse_name(self, message: str, name: str, *, called: bool = False) -> NoReturn:
        self._refuse(message, places.place_of_name(self._expr, name, called=called))

    # ---- the tree, node by node

    def _node(self, parsed: Any) -> Node:
        match parsed:
            case promql_parser.ParenExpr():
                return self._node(parsed.expr)
            case promql_parser.NumberLiteral():
                return Number(parsed.val)
            case promql_parser.StringLiteral():
                return Text(parsed.val)
            case promql_parser.VectorSelector():
                return self._selector(parsed, 0)
            case promql_parser.MatrixSelector():
                return self._selector(parsed.vector_selector, _milliseconds(parsed.range))
            case promql_parser.UnaryExpr():
                return Negate(self._node(parsed.expr))
            case promql_parser.Call():
                return self._call(parsed)
            case promql_parser.AggregateExpr():
                return self._aggregate(parsed)
            case promql_parser.BinaryExpr():
                return self._binary(parsed)
            case promql_parser.SubqueryExpr():
                self._refuse(
                    "subqueries are not supported; write a range of a series, such as metric[5m]", self._subquery()
                )
        raise AssertionError(f"promql-parser returned a {type(parsed).__name__}")

    def _subquery(self) -> int:
        tokens = places.tokens_of(self._expr)
        opening = 0
        for token in tokens:
            if token.text == "[":
                opening = token.at
            elif token.text == ":":
                break
        return opening

    def _selector(self, parsed: Any, range_ms: int) -> Selector:
        if parsed.at is not None:
            self._refuse_name("the @ modifier is not supported; ask at another time instead", "@")
        if parsed.matchers.or_matchers:
            self._refuse_name("'or' between label matchers is not supported; use a regular expression", "or")
        matchers = [Matcher(m.name, _OPS[str(m.op).rsplit(".", 1)[-1]], m.value) for m in parsed.matchers.matchers]  # type: ignore[arg-type]  # the values of _OPS are the operators
        if parsed.name is not None:
            matchers.insert(0, Matcher("__name__", "=", parsed.name))
        for matcher in matchers:
            self._check_regex(matcher)
        offset_ms = _milliseconds(parsed.offset) if parsed.offset is not None else 0
        return Selector(tuple(matchers), range_ms, offset_ms)

    def _check_regex(self, matcher: Matcher) -> None:
        if matcher.op not in ("=~", "!~"):
            return
        try:
            anchored(matcher.value)
        except ValueError as error:
            wanted = [t for t in places.tokens_of(self._expr) if t.kind == "string" and matcher.value in t.text]
            self._refuse(f"not a regular expression that RE2 takes: {error}", wanted[0].at if wanted else 0)

    def _call(self, parsed: Any) -> Call:
        name = parsed.func.name
        if name not in FUNCTIONS:
            self._refuse_name(
                f"the function {name}() is not supported; supported are: {', '.join(sorted(FUNCTIONS))}",
                name,
                called=True,
            )
        args = tuple(self._node(arg) for arg in parsed.args)
        if name == "label_replace":
            self._check_label_replace(args)
        return Call(name, args)

    def _check_label_replace(self, args: tuple[Node, ...]) -> None:
        target, regex = args[1], args[4]
        assert isinstance(target, Text) and isinstance(regex, Text)  # the parser has checked the types
        if not _LABEL_NAME.fullmatch(target.value):
            self._refuse_name(f"label_replace(): {target.value!r} is not a label name", "label_replace", called=True)
        try:
            anchored(regex.value)
        except ValueError as error:
            self._refuse_name(f"label_replace(): not a regular expression: {error}", "label_replace", called=True)

    def _aggregate(self, parsed: Any) -> Aggregate:
        op = str(parsed.op)
        if op not in AGGREGATIONS:
            self._refuse_name(
                f"the aggregation {op}() is not supported; supported are: {', '.join(AGGREGATIONS)}", op, called=True
            )
        modifier = parsed.modifier
        labels = tuple(modifier.labels) if modifier is not None else ()
        without = modifier is not None and str(modifier.type).endswith("Without")
        param = None if parsed.param is None else self._node(parsed.param)
        return Aggregate(op, self._node(parsed.expr), param, labels, without)

    def _binary(self, parsed: Any) -> Binary:
        op = str(parsed.op)
        if op not in places.BINARY_OPERATORS:
            self._refuse_name(f"the operator {op} is not supported", op)
        left, right = self._node(parsed.lhs), self._node(parsed.rhs)
        modifier = parsed.modifier
        if modifier is None:
            card: Cardinality = "many-to-many" if op in ("and", "or", "unless") else "one-to-one"
            return Binary(op, left, right, Matching(card=card), return_bool=False)
        self._refuse_fill(modifier)
        return Binary(op, left, right, _matching(modifier), bool(modifier.return_bool))

    def _refuse_fill(self, modifier: Any) -> None:
        if modifier.fill_values.lhs is None and modifier.fill_values.rhs is None:
            return
        clause = next(t for t in places.tokens_of(self._expr) if t.text in ("fill", "fill_left", "fill_right"))
        self._refuse(f"the clause {clause.text}() is not supported; write 'or' with a default instead", clause.at)


def _matching(modifier: Any) -> Matching:
    matching = modifier.matching
    return Matching(
        on=matching is not None and str(matching.type).endswith("Include"),
        labels=tuple(matching.labels) if matching is not None else (),
        card=_CARDS[str(modifier.card).rsplit(".", 1)[-1]],
        include=tuple(modifier.group_labels or ()),
    )


def _unquoted(literal: str) -> str:
    """Return the text of a string literal; "" for what is none, which the parser refuses."""
    if literal.startswith("`"):
        return literal.strip("`")
    try:
        text = ast.literal_eval(literal)  # Go's escapes are Python's, as far as patterns go
    except (ValueError, SyntaxError):
        return ""
    return text if isinstance(text, str) else ""


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _message_of(piece: str) -> str | None:
    """Parse a piece of an expression and return the parser's complaint, if any."""
    try:
        promql_parser.parse(piece)
    except ValueError as error:
        return str(error)
    return None
