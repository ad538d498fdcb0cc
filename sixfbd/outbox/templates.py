"""Templates of messages: a part of jinja2 in which nothing can run for long, grow without bound or reach into objects. Pure.

What there is: `{{ }}`, `if`, `for`, `set`, `with`, comparisons, sums, the filters of FILTERS, jinja's tests. No calls, macros,
includes or literals of lists that are no constants. Every turn of a loop is counted, every text that a filter or an operator
makes is bounded, and the processor time is looked at in between: whatever a template says, it ends soon after `MAX_CPU_S`.
Annotations, which are Prometheus' and not jinja's, are `sixfbd.rules.templates`; the functions are shared.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import jinja2
from jinja2 import nodes, pass_context
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from sixfbd.containment import one_line
from sixfbd.quantities import show_duration, show_value
from sixfbd.rules.templates import FUNCTIONS, MAX_OUTPUT_CHARS, shown

MAX_BYTES: Final = 64 * 1024  # of a template, and of what comes of it
MAX_CPU_S: Final = 0.05  # processor time of this thread, so that a busy machine makes no template slow
MAX_TURNS: Final = 20_000  # of all loops together
MAX_NUMBER: Final = 2**63
_BUDGET: Final = "_budget"
_COUNTED: Final = "_counted"
_JOINED: Final = "_joined"

_ALLOWED: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem, nodes.Slice,
    nodes.Filter, nodes.Test, nodes.If, nodes.For, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or,
    nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Concat,
    nodes.List, nodes.Tuple, nodes.Keyword, nodes.Assign, nodes.With,
)  # fmt: skip
_WORDS: Final = {
    nodes.Call: "calls", nodes.Macro: "macros", nodes.CallBlock: "macros", nodes.Include: "includes",
    nodes.Import: "imports", nodes.FromImport: "imports", nodes.Extends: "other templates to extend", nodes.Block: "blocks",
    nodes.Pow: "powers", nodes.Dict: "tables of its own", nodes.AssignBlock: "set without a value",
    nodes.FilterBlock: "filters of blocks",
}  # fmt: skip
_NUMBERS: Final = (int, float)


class TemplateRefusedError(Exception):
    """A template that cannot be used. `line` counts from 1; the mend follows the last semicolon, if there is one."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class TemplateFailedError(Exception):
    """A template that raised, made too much or took too long; the text says what, `line` where, if that is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"{message} (line {line})")
        self.message = message
        self.line = line


class _Spent(Exception):  # noqa: N818 - a signal, which becomes a TemplateFailedError
    """A bound is reached."""


class MessageTemplate:
    """One compiled template, `name` that of its file. `render` is for one thread at a time."""

    def __init__(self, name: str, text: str) -> None:
        """Raise TemplateRefusedError with the line if the text is no template of this language."""
        if len(text.encode(errors="replace")) > MAX_BYTES:
            raise TemplateRefusedError(f"is larger than {MAX_BYTES // 1024} KiB")
        self.name = name
        self.text = text
        try:
            tree = _Bounding(_ENVIRONMENT).visit(_ENVIRONMENT.parse(text, name, name))
            self._template = jinja2.Template.from_code(
                _ENVIRONMENT, _ENVIRONMENT.compile(tree, name, name), _ENVIRONMENT.make_globals(None)
            )
        except jinja2.TemplateSyntaxError as error:
            raise TemplateRefusedError(one_line(error.message or "cannot be read"), error.lineno) from None
        except RecursionError:
            raise TemplateRefusedError("is nested too deeply") from None
        except (jinja2.TemplateError, SyntaxError, ValueError) as error:  # what jinja makes of it is no Python
            raise TemplateRefusedError(one_line(f"cannot be compiled: {error}")) from None

    def render(self, context: Mapping[str, Any]) -> str:
        """Return the text. Raises TemplateFailedError for whatever goes wrong, soon after MAX_CPU_S at the latest."""
        budget = _Budget()
        pieces: list[str] = []
        size = 0
        try:
            for piece in self._template.root_render_func(self._template.new_context({**context, _BUDGET: budget})):
                size += len(piece.encode(errors="replace"))
                if size > MAX_BYTES:
                    raise _Spent(f"makes more than {MAX_BYTES // 1024} KiB")
                pieces.append(piece)
                budget.look()
            budget.look()
        except _Spent as error:
            raise TemplateFailedError(str(error)) from None
        except Exception as error:  # noqa: BLE001 - a template may raise anything; the plain message is told then
            said = error.message if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
            raise TemplateFailedError(one_line(said or type(error).__name__), self._line_of(error)) from None
        return "".join(pieces)

    def _line_of(self, error: Exception) -> int | None:
        """Return the line of the template at which an exception arose."""
        at, trace = None, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == self._template.filename:
                at = self._template.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return at


class _Budget:
    """What one rendering may still cost."""

    def __init__(self) -> None:
        self._until_s = time.thread_time() + MAX_CPU_S
        self._turns = 0

    def look(self) -> None:
        if time.thread_time() > self._until_s:
            raise _Spent(f"takes more than {MAX_CPU_S * 1000:g} ms")

    def turn(self) -> None:
        self._turns += 1
        if self._turns > MAX_TURNS:
            raise _Spent(f"goes through its loops more than {MAX_TURNS} times")
        self.look()


class _Counted:
    """What a loop goes through, turn by turn of the budget."""

    def __init__(self, items: Sequence[Any], budget: _Budget) -> None:
        self._items = items
        self._budget = budget

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self._budget.turn()
            yield item


class _Bounding(NodeTransformer):
    """Refuses what the language does not have, and puts bounds around loops and concatenations."""

    def __init__(self, environment: jinja2.Environment) -> None:
        self._environment = environment

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(node, _ALLOWED):
            what = next((words for kind, words in _WORDS.items() if isinstance(node, kind)), type(node).__name__)
            raise TemplateRefusedError(f"there are no {what} in templates of messages", node.lineno)
        return super().visit(node, *args, **kwargs)

    def visit_Name(self, node: nodes.Name) -> nodes.Node:  # noqa: N802 - jinja's name
        if node.name.startswith("_"):
            raise TemplateRefusedError(f"{node.name!r} cannot be a name: it begins with _", node.lineno)
        if node.ctx == "load" or node.name not in CONTEXT_NAMES:
            return node
        raise TemplateRefusedError(f"{node.name!r} is given and cannot be set; choose another name", node.lineno)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:  # noqa: N802
        if node.name not in FILTERS:
            known = ", ".join(sorted(FILTERS))
            raise TemplateRefusedError(f"there is no filter {node.name!r}; there are {known}", node.lineno)
        return self.generic_visit(node)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._constants(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self.generic_visit(node) if node.ctx == "store" else self._constants(node)

    def _constants(self, node: nodes.List | nodes.Tuple) -> nodes.Node:
        """Lists of lists of lists could become as large as nobody can print."""
        if not all(isinstance(item, nodes.Const) for item in node.items):
            raise TemplateRefusedError("a list may hold texts and numbers only", node.lineno)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        if node.recursive:
            raise TemplateRefusedError("there are no recursive loops in templates of messages", node.lineno)
        self.generic_visit(node)
        node.iter = self._filtered(node.iter, _COUNTED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return self._filtered(parts, _JOINED)

    def _filtered(self, node: nodes.Node, name: str) -> nodes.Filter:
        made = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
        made.set_environment(self._environment)
        return made


class _Environment(ImmutableSandboxedEnvironment):
    """Attributes of what is given, and nothing of the objects behind it; operators on numbers, `+` on texts too."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not callable(value) and super().is_safe_attribute(obj, attr, value)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """What is given are tables: their keys come before the methods of Python's dict, such as `items`."""
        if isinstance(obj, Mapping):
            if attribute in obj:
                return obj[attribute]
            return self.undefined(f"there is no {attribute!r} here; there are {', '.join(map(str, obj))}")
        return super().getattr(obj, attribute)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return _bounded(left + right)
        if not (isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS)):
            raise TypeError(f"{operator} needs two numbers, not {_kind(left)} and {_kind(right)}")
        made = super().call_binop(context, operator, left, right)
        if abs(made) >= MAX_NUMBER:
            raise OverflowError(f"{operator} makes a number that is too large")
        return made


class Texts(dict[str, Any]):
    """Labels, annotations or the data of an event: one that is not there is the empty text, as in Prometheus."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> str:
        return ""


def _kind(value: Any) -> str:
    if isinstance(value, jinja2.Undefined):
        raise jinja2.UndefinedError(value._undefined_message)  # jinja has no other way to ask
    return "a text" if isinstance(value, str) else type(value).__name__


def _bounded(text: str) -> str:
    if len(text) > MAX_OUTPUT_CHARS:
        raise _Spent(f"makes a text of more than {MAX_OUTPUT_CHARS // 1024} Ki characters")
    return text


def _text(value: Any) -> str:
    """Return a text or a number as people write it. Raises TypeError for what is neither."""
    if value is None:
        return ""
    if isinstance(value, str | int | float):
        return str(shown(value))
    raise TypeError(f"{_kind(value)} is no text; go through it with for, or name a part of it")


# ---- filters


def _listed(value: Any) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{_kind(value)} is no list")
    return value if isinstance(value, Sequence) else list(value)


@pass_context
def _counted(context: Context, value: Any) -> _Counted:
    budget: _Budget = context[_BUDGET]
    return _Counted(_listed(value), budget)


def _joined(parts: Sequence[Any]) -> str:
    return _bounded("".join(map(_text, parts)))


def _join(value: Any, between: str = "", attribute: str | None = None) -> str:
    parts = [_text(item if attribute is None else item[attribute]) for item in _listed(value)]
    if sum(map(len, parts)) + len(between) * len(parts) > MAX_OUTPUT_CHARS + len(between):
        raise _Spent("joins too much")
    return between.join(parts)


def _replace(value: Any, old: str, new: str) -> str:
    text = _text(value)
    if text.count(old) * len(new) > MAX_OUTPUT_CHARS:
        raise _Spent("replaces too much")
    return text.replace(old, new)


def _truncate(value: Any, length: int = 100) -> str:
    text = _text(value)
    return text if len(text) <= length else text[: max(0, length - 1)] + "…"


def _pairs(value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{_kind(value)} has no names")
    return sorted(value.items())


def _time(value: Any) -> str:
    return "" if value is None else datetime.fromtimestamp(float(value), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _duration(value: Any) -> str:
    return "" if value is None else show_duration(max(0, round(float(value))))


def _number(value: Any) -> str:
    return "" if value is None else show_value(value)


_OF_JINJA: Final = (
    "upper", "lower", "capitalize", "trim", "length", "first", "last", "default", "round", "int", "float", "abs",
    "selectattr", "rejectattr",
)  # fmt: skip
FILTERS: Final[dict[str, Callable[..., Any]]] = {
    **{name: JINJA_FILTERS[name] for name in _OF_JINJA},
    **{name: function for name, function in FUNCTIONS.items() if name != "printf"},
    "join": _join,
    "replace": _replace,
    "truncate": _truncate,
    "pairs": _pairs,
    "time": _time,
    "duration": _duration,
    "number": _number,
}
CONTEXT_NAMES: Final = frozenset({
    "status", "severity", "receiver", "channel", "site", "environment", "url", "icon", "now", "possibly_repeated", "remarks",
    "title", "text", "alert", "alerts", "notice", "notices",
})  # fmt: skip
"""What a template is given; `sixfbd.outbox.wording` fills it in."""


def _environment() -> _Environment:
    environment = _Environment(
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        finalize=_text,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    environment.globals.clear()
    environment.filters = {**FILTERS, _COUNTED: _counted, _JOINED: _joined}
    return environment


_ENVIRONMENT: Final = _environment()
