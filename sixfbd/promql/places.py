"""Where in an expression an error is. promql-parser says what is wrong but never where; this module finds the place.

Works on tokens of its own: for syntax errors a reader of the grammar's outline stops at the first token that does not
fit; for errors of meaning the smallest bracketed piece that fails with the same words is searched for the token named.
Never decides whether an expression is valid: that is the parser's.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from msgspec import Struct

BINARY_OPERATORS: Final = frozenset(
    ["+", "-", "*", "/", "%", "^", "==", "!=", "<=", "<", ">=", ">", "and", "or", "unless", "atan2"]
)
COMPARISONS: Final = frozenset(["==", "!=", "<=", "<", ">=", ">"])
AGGREGATIONS: Final = frozenset(
    ["sum", "avg", "count", "min", "max", "group", "stddev", "stdvar", "topk", "bottomk", "count_values", "quantile",
     "limitk", "limit_ratio"]
)  # fmt: skip
_GROUPING: Final = frozenset(["by", "without"])
_TOKEN: Final = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)
      | (?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
      | (?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+(?:ms|[smhdwy]))+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:.]*)
      | (?P<op>==|!=|<=|>=|=~|!~|.)""",
    re.VERBOSE | re.DOTALL,
)
_QUOTED_NAME: Final = re.compile(r"(?:call to function|call to|operator|for) '([^']+)'")
_LITERAL: Final = re.compile(r"(?:syntax: |after |unexpected character: |string: |brackets: )'?([^']+)'?$")


class Token(Struct, frozen=True):
    kind: str
    text: str
    at: int


def tokens_of(expr: str) -> list[Token]:
    """Cut an expression into tokens; whatever is no token of PromQL is an `op` of one character."""
    found = (Token(match.lastgroup or "op", match[0], match.start()) for match in _TOKEN.finditer(expr))
    return [token for token in found if token.kind != "skip"]


def line_and_column(expr: str, at: int) -> tuple[int, int]:
    """Return the 1-based line and column of a character offset (the end of the text included)."""
    before = expr[:at]
    return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1


def place_of_name(expr: str, name: str, *, called: bool = False) -> int:
    """Return the offset of the first token `name` (followed by a bracket or a clause, if `called`), else 0."""
    tokens = tokens_of(expr)
    for token, after in zip(tokens, [*tokens[1:], Token("end", "", len(expr))], strict=True):
        if token.text == name and (not called or after.text == "(" or after.text in _GROUPING):
            return token.at
    return 0


def place_of_syntax_error(expr: str) -> Token:
    """Return the first token that does not fit PromQL's grammar; the end (text "") if all fit so far."""
    return _Outline(expr).first_misfit()


def place_of_error(expr: str, message: str, fails: Callable[[str], str | None]) -> int:
    """Return the offset that the parser's `message` is about. `fails` parses a piece and returns its message or None."""
    piece = min((span for span in _pieces(expr) if fails(expr[slice(*span)]) == message), key=_length, default=None)
    start, end = piece or (0, len(expr))
    return start + _place_within(expr[start:end], message)


def _length(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def _pieces(expr: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of all calls and bracketed pieces."""
    tokens = tokens_of(expr)
    opened: list[int] = []
    for index, token in enumerate(tokens):
        if token.text == "(":
            called = index > 0 and tokens[index - 1].kind == "name" and tokens[index - 1].text not in BINARY_OPERATORS
            opened.append(tokens[index - 1].at if called else token.at)
        elif token.text == ")" and opened:
            yield opened.pop(), token.at + 1


def _place_within(piece: str, message: str) -> int:
    tokens = tokens_of(piece)
    if "unclosed left parenthesis" in message or "end of input inside" in message:
        return _last_unclosed(tokens)
    if "right parenthesis" in message:
        return _first_unopened(tokens)
    if "unterminated" in message:
        return next((token.at for token in tokens if token.text in ("'", '"', "`")), 0)
    if "end of input" in message:
        return len(piece)
    if "regex" in message:
        wanted = message.rsplit(" for ", 1)[-1]
        return next((token.at for token in tokens if token.kind == "string" and wanted in token.text), 0)
    if "bool modifier" in message:
        return next((token.at for token in tokens if token.text == "bool"), 0)
    if "grouping" in message:
        return next((token.at for token in tokens if token.text.startswith("group_")), 0)
    if "comparisons between scalars" in message or "binary expression" in message:
        return next((token.at for token in tokens if token.text in BINARY_OPERATORS), 0)
    if "offset modifier" in message:
        return next((token.at for token in tokens if token.text == "offset"), 0)
    if "ranges only" in message or "inside brackets" in message or "duration" in message:
        return _place_of_literal(piece, message) or max(piece.rfind("["), 0)
    if named := _QUOTED_NAME.search(message):
        return next((token.at for token in tokens if token.text == named[1]), 0)
    misfit = place_of_syntax_error(piece)
    return misfit.at if misfit.text else _place_of_literal(piece, message) or 0


def _place_of_literal(piece: str, message: str) -> int | None:
    """Return where the text that the message quotes at its end stands."""
    quoted = _LITERAL.search(message)
    at = piece.find(quoted[1].strip()) if quoted and quoted[1].strip() else -1
    return at if at >= 0 else None


def _last_unclosed(tokens: list[Token]) -> int:
    opened: list[int] = []
    for token in tokens:
        if token.text in ("(", "{", "["):
            opened.append(token.at)
        elif token.text in (")", "}", "]") and opened:
            opened.pop()
    return opened[-1] if opened else 0


def _first_unopened(tokens: list[Token]) -> int:
    depth = 0
    for token in tokens:
        depth += (token.text == "(") - (token.text == ")")
        if depth < 0:
            return token.at
    return 0


class _Misfit(Exception):  # noqa: N818 - ends a reading, nobody sees it
    """The reader met a token that the grammar has no place for."""


class _Outline:
    """Reads PromQL's grammar in outline (operands, operators, clauses, brackets), without types or meaning."""

    def __init__(self, expr: str) -> None:
        self._tokens = tokens_of(expr)
        self._end = Token("end", "", len(expr))
        self._next = 0

    def first_misfit(self) -> Token:
        with suppress(_Misfit):  # the place is the token that was reached
            self._expression()
        return self._peek()

    def _peek(self) -> Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else self._end

    def _take(self, *texts: str) -> bool:
        if self._peek().text in texts and self._peek().kind != "string":
            self._next += 1
            return True
        return False

    def _need(self, *texts: str) -> None:
        if not self._take(*texts):
            raise _Misfit

    def _need_kind(self, *kinds: str) -> None:
        if self._peek().kind not in kinds:
            raise _Misfit
        self._next += 1

    def _expression(self) -> None:
        self._operand()
        while self._peek().kind != "string" and self._peek().text in BINARY_OPERATORS:
            self._next += 1
            self._take("bool")
            if self._take("on", "ignoring"):
                self._label_list()
                if self._take("group_left", "group_right") and self._peek().text == "(":
                    self._label_list()
            self._operand()

    def _operand(self) -> None:
        while self._take("+", "-"):
            pass
        token = self._peek()
        if token.text in BINARY_OPERATORS and token.kind == "name":
            raise _Misfit
        if self._take("("):
            self._expression()
            self._need(")")
        elif token.kind == "name":
            self._named()
        elif token.text == "{" and token.kind == "op":
            self._matchers()
        else:
            self._need_kind("number", "string")
        self._suffixes()

    def _named(self) -> None:
        name = self._peek().text
        self._next += 1
        grouped = name in AGGREGATIONS and self._take(*_GROUPING)
        if grouped:
            self._label_list()
        if self._take("("):
            if not self._take(")"):
                self._arguments()
            if name in AGGREGATIONS and not grouped and self._take(*_GROUPING):
                self._label_list()
        elif grouped:
            raise _Misfit
        elif self._peek().text == "{":
            self._matchers()

    def _arguments(self) -> None:
        self._expression()
        while self._take(","):
            self._expression()
        self._need(")")

    def _label_list(self) -> None:
        self._need("(")
        while not self._take(")"):
            self._need_kind("name", "string")
            if not self._take(","):
                self._need(")")
                return

    def _matchers(self) -> None:
        self._need("{")
        while not self._take("}"):
            self._need_kind("name", "string")
            if self._take("=", "!=", "=~", "!~"):
                self._need_kind("string")
            if not self._take(",", "or"):
                self._need("}")
                return

    def _suffixes(self) -> None:
        while True:
            if self._take("["):
                while self._peek().kind in ("number", "name") or self._peek().text == ":":
                    self._next += 1
                self._need("]")
            elif self._take("offset"):
                self._take("-", "+")
                self._need_kind("number")
            elif self._take("@"):
                self._take("-", "+")
                self._need_kind("number", "name")
                if self._take("("):
                    self._need(")")
            else:
                return
