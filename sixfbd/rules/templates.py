"""Annotations: Prometheus' template syntax, as far as alert texts use it, rendered by a sandboxed jinja2. Pure.

`{{ $labels.x }}`, `{{ $value }}`, `{{ $summary }}`, functions in front of or piped behind their argument: humanize,
humanize1024, humanizeDuration, humanizePercentage, printf, toUpper. Nothing but `{{ }}` means anything: jinja's own
blocks and comments are plain text, so a template can neither loop nor reach into objects. Functions as in
https://prometheus.io/docs/prometheus/latest/configuration/template_reference/
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

import jinja2
from jinja2.sandbox import SandboxedEnvironment
from msgspec import Struct

MAX_OUTPUT_CHARS: Final = 64 * 1024
MAX_TEMPLATE_CHARS: Final = 16 * 1024
REMEMBERED: Final = 4096

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<label>\$labels\.[a-zA-Z_][a-zA-Z0-9_]*)
      | (?P<variable>\$[a-zA-Z_][a-zA-Z0-9_]*)
      | (?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)
      | (?P<number>-?[0-9]+(?:\.[0-9]+)?)
      | (?P<name>\.?[a-zA-Z_][a-zA-Z0-9_.]*)
      | (?P<mark>[|()])
      | (?P<other>\S))""",
    re.VERBOSE,
)
_ACTION: Final = re.compile(r"(?P<before>\s*)\{\{(?P<trim_left>-\s)?(?P<inner>.*?)(?P<trim_right>\s-)?\}\}", re.DOTALL)
_VERB: Final = re.compile(r"%(?:%|[-+ 0#]*[0-9]{0,3}(?:\.[0-9]{1,2})?[sdvfeg])")
_SUPPORTED: Final = (
    "$labels.NAME, $value, $summary, humanize, humanize1024, humanizeDuration, humanizePercentage, printf, toUpper"
)


class TemplateError(Exception):
    """A template that is refused. `line` and `column` count from 1, in the template's text."""

    def __init__(self, message: str, text: str, at: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = text.count("\n", 0, at) + 1
        self.column = at - (text.rfind("\n", 0, at) + 1) + 1


class Template(Struct, frozen=True, eq=False):
    """A template translated for jinja, which compiles it when it is first rendered: most rules never fire.

    `render` never raises.
    """

    text: str
    translated: str

    def render(self, labels: Mapping[str, str], value: float, summary: str) -> str:
        """Return the text; an error at rendering becomes a text that names it."""
        try:
            text = _compiled(self.translated).render(labels=_Labels(labels), value=value, summary=summary)
        except Exception as error:  # noqa: BLE001 - an alert whose text fails must still be told
            return f"<the template {self.text[:200]!r} failed: {type(error).__name__}: {error}>"
        return text if len(text) <= MAX_OUTPUT_CHARS else text[: MAX_OUTPUT_CHARS - 1] + "…"


def compile_template(text: str) -> Template:
    """Translate a template. Raises TemplateError."""
    if len(text) > MAX_TEMPLATE_CHARS:
        raise TemplateError(f"the template is longer than {MAX_TEMPLATE_CHARS} characters", text, 0)
    if "\0" in text:
        raise TemplateError("a template has no NUL characters", text, text.index("\0"))
    return Template(text, _translated(text))


@lru_cache(maxsize=REMEMBERED)
def _compiled(expression: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(expression)


# ---- from Go's template syntax to jinja's


def _translated(text: str) -> str:
    out: list[str] = []
    at = 0
    trim = False
    for action in _ACTION.finditer(text):
        literal = text[at : action.start()] + action["before"]
        out.append(_literal(literal.lstrip() if trim else literal, trim_end=action["trim_left"] is not None))
        out.append("{{ " + _Pipeline(text, action.start("inner"), action.end("inner")).read() + " }}")
        trim = action["trim_right"] is not None
        at = action.end()
    rest = text[at:].lstrip() if trim else text[at:]
    if "{{" in rest:
        raise TemplateError("{{ without its }}", text, at + text[at:].index("{{"))
    out.append(_literal(rest, trim_end=False))
    return "".join(out)


def _literal(text: str, *, trim_end: bool) -> str:
    """Return text between actions as it is: without `{{` it means nothing to our environment."""
    return text.rstrip() if trim_end else text


class _Pipeline:
    """Reads one action, `function argument ... | function argument ...`, and writes it as a jinja expression."""

    def __init__(self, text: str, begin: int, end: int) -> None:
        self._text = text
        self._end = end
        self._tokens: list[tuple[str, str, int]] = []
        at = begin
        while (token := _TOKEN.match(text, at, end)) is not None:
            kind = token.lastgroup or "other"
            self._tokens.append((kind, token[kind], token.start(kind)))
            at = token.end()
        self._next = 0

    def read(self) -> str:
        expression = self._pipeline()
        kind, text, at = self._peek()
        if kind != "end":
            raise TemplateError(f"unexpected {text!r}", self._text, at)
        return expression

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "", self._end)

    def _pipeline(self) -> str:
        expression = self._command(None)
        while self._peek()[1] == "|":
            self._next += 1
            expression = self._command(expression)
        return expression

    def _command(self, piped: str | None) -> str:
        """Read a function with its arguments, the piped value being its last, or (with nothing piped) one operand."""
        kind, name, at = self._peek()
        if kind != "name":
            if piped is not None:
                raise TemplateError(f"a function has to follow '|'; known are: {', '.join(FUNCTIONS)}", self._text, at)
            return self._operand()
        self._next += 1
        if name not in FUNCTIONS:
            raise TemplateError(f"{name!r} is not supported in templates; supported are: {_SUPPORTED}", self._text, at)
        arguments: list[str] = []
        while self._peek()[0] not in ("end", "mark") or self._peek()[1] == "(":
            if name == "printf" and not arguments:
                self._check_format()
            arguments.append(self._operand())
        if piped is not None:
            arguments.append(piped)
        self._check_count(name, arguments, at)
        return f"{name}({', '.join(arguments)})"

    def _operand(self) -> str:
        kind, text, at = self._peek()
        self._next += 1
        match kind:
            case "label":
                return f"labels[{text.removeprefix('$labels.')!r}]"
            case "variable" if text in ("$value", "$summary"):
                return text[1:]
            case "string":
                return repr(_unquoted(text))
            case "number":
                return text
        if text == "(":
            inner = self._pipeline()
            if self._peek()[1] != ")":
                raise TemplateError("( without its )", self._text, at)
            self._next += 1
            return f"({inner})"
        raise TemplateError(
            f"{text!r} is not supported in templates; supported are: {_SUPPORTED}"
            if text
            else "nothing between {{ and }}",
            self._text,
            at,
        )

    def _check_format(self) -> None:
        kind, text, at = self._peek()
        if kind != "string" or "%" in _VERB.sub("", _unquoted(text)):
            raise TemplateError('printf needs a format such as "%.1f", with verbs of s d v f e g', self._text, at)

    def _check_count(self, name: str, arguments: list[str], at: int) -> None:
        if name == "printf" and not arguments:
            raise TemplateError('printf needs a format such as "%.1f"', self._text, at)
        if name != "printf" and len(arguments) != 1:
            raise TemplateError(f"{name} takes one value, not {len(arguments)}", self._text, at)


def _unquoted(quoted: str) -> str:
    if quoted.startswith("`"):
        return quoted[1:-1]
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), quoted[1:-1])


class _Labels(dict[str, str]):
    """A missing label is the empty text, as in Prometheus."""

    def __missing__(self, name: str) -> str:
        return ""


# ---- functions


def shown(value: Any) -> Any:
    """Return a number as people write it: 5, 0.3, +Inf; anything else as it is."""
    if not isinstance(value, float):
        return value
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return f"{value:.15g}"


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float | str) else math.nan


def _scaled(value: float, step: float, large: str, small: str) -> tuple[float, str]:
    """Return the value between 1 and `step` with its prefix, as far as there are prefixes."""
    prefix = ""
    if abs(value) >= 1:
        for candidate in large:
            if abs(value) < step:
                break
            value, prefix = value / step, candidate
    else:
        for candidate in small:
            if abs(value) >= 1:
                break
            value, prefix = value * step, candidate
    return value, prefix


def _plain(value: float) -> bool:
    return value == 0 or not math.isfinite(value)


def humanize(value: object) -> str:
    """Return a number with a metric prefix: 1234567 is 1.235M."""
    number = _number(value)
    if _plain(number):
        return str(shown(number))
    number, prefix = _scaled(number, 1000, "kMGTPEZY", "munpfazy")
    return f"{number:.4g}{prefix}"


def humanize1024(value: object) -> str:
    """Return a number with a binary prefix: 1048576 is 1Mi."""
    number = _number(value)
    if _plain(number):
        return str(shown(number))
    number, prefix = _scaled(number, 1024, "kMGTPEZY", "")
    return f"{number:.4g}{prefix}{'i' if prefix else ''}"


def humanize_duration(value: object) -> str:
    """Return seconds as days, hours, minutes, seconds: 3725 is 1h 2m 5s."""
    number = _number(value)
    if _plain(number):
        return f"{shown(number)}s" if number == 0 else str(shown(number))
    if abs(number) < 1:
        number, prefix = _scaled(number, 1000, "", "munpfazy")
        return f"{number:.4g}{prefix}s"
    sign, number = ("-", -number) if number < 0 else ("", number)
    minutes, seconds = divmod(int(number), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds}s"
    return f"{sign}{minutes}m {seconds}s" if minutes else f"{sign}{number:.4g}s"


def humanize_percentage(value: object) -> str:
    """Return a ratio in per cent: 0.1234 is 12.34%."""
    number = _number(value)
    return f"{number * 100:.4g}%" if math.isfinite(number) else str(shown(number))


def printf(template: str, *values: object) -> str:
    """Format as Go's Printf with the verbs s d v f e g; a number that is no finite one is written as a word."""
    rest = iter(values)

    def one(found: re.Match[str]) -> str:
        verb = found[0]
        if verb == "%%":
            return "%"
        value = next(rest, None)
        if value is None:
            return "%!(missing)"
        if verb[-1] in "sv":
            return str((verb[:-1] + "s") % str(shown(value)))
        number = _number(value)
        if not math.isfinite(number):
            return str(shown(number))
        return str(verb % number)

    return _VERB.sub(one, template)


def to_upper(value: object) -> str:
    """Return a text in capitals."""
    return str(shown(value)).upper()


FUNCTIONS: Final[dict[str, Callable[..., str]]] = {
    "humanize": humanize,
    "humanize1024": humanize1024,
    "humanizeDuration": humanize_duration,
    "humanizePercentage": humanize_percentage,
    "printf": printf,
    "toUpper": to_upper,
}


def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        autoescape=False,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        keep_trailing_newline=True,
        # only {{ }} is a template: these never occur in a text, NUL being refused
        block_start_string="\0%",
        block_end_string="%\0",
        comment_start_string="\0#",
        comment_end_string="#\0",
    )
    environment.globals.clear()
    environment.globals.update(FUNCTIONS)
    return environment


_ENVIRONMENT: Final = _environment()
