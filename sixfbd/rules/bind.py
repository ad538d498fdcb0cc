"""Binding rules: everything of a rule that can be wrong is checked and compiled once, when the rules change.

A bad rule is reported with its place and left out; the others go on. Knows series only one at a time (`touched`); who
calls it caches the answers. Never evaluates.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, TypeAlias

import msgspec
import structlog
from msgspec import Struct, field

from sixfbd.model import CheckName, Level, Rule, RuleName, Series, Severity
from sixfbd.promql import PromQLError, Query, compile, matches  # noqa: A004 - the name of DESIGN section 6
from sixfbd.rules.levels import BoundLevel, Condition
from sixfbd.rules.templates import Template, TemplateError, compile_template
from sixfbd.window.snapshot import Matcher

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()

SEVERITY_WORDS: Final[Mapping[str, Severity]] = {  # SEED S22: words of others
    "info": Severity.LOW,
    "warning": Severity.MEDIUM,
    "error": Severity.HIGH,
    "page": Severity.HIGH,
}
ENGINE_PREFIX: Final = "sixfbd_"  # the engine's own series about a check: there while the check is blind
RESERVED_LABELS: Final = frozenset(["alertname", "__name__"])
_LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class RuleError(Struct, frozen=True):
    """Why a rule was left out. `text` is whole: what, and where there is a place, the line with a caret below it.

    `line` and `column` count from 1 within the expression, condition or annotation that is wrong.
    """

    rule: str
    origin: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.origin or 'rules'}: rule {self.rule!r}: {self.text}"


class BoundRule(Struct, frozen=True, eq=False):
    """A rule ready for evaluation. `levels` are sorted, highest severity first; empty for a rule with one severity."""

    rule: Rule
    query: Query
    levels: tuple[BoundLevel, ...]
    annotations: Mapping[str, Template]

    @property
    def name(self) -> RuleName:
        return self.rule.name


_Selector: TypeAlias = tuple[RuleName, tuple[Matcher, ...]]


class _Selectors:
    """The selectors of one metric by a label that they want to be equal, so that not all are asked of each series."""

    def __init__(self) -> None:
        self._by_label: dict[str, dict[str, list[_Selector]]] = {}
        self._others: list[_Selector] = []

    def add(self, selector: _Selector) -> None:
        wanted = next((m for m in selector[1] if m.op == "=" and m.value and m.name != "__name__"), None)
        if wanted is None:
            self._others.append(selector)
        else:
            self._by_label.setdefault(wanted.name, {}).setdefault(wanted.value, []).append(selector)

    def that_may_match(self, labels: Mapping[str, str]) -> Iterator[_Selector]:
        """Yield the selectors that a series with these labels may match."""
        yield from self._others
        for name, by_value in self._by_label.items():
            yield from by_value.get(labels.get(name, ""), ())


class BoundRules(Struct, eq=False):
    """The rules in force, in the order given, and the errors of those left out."""

    rules: Mapping[RuleName, BoundRule]
    errors: tuple[RuleError, ...] = ()
    _by_metric: dict[str, _Selectors] = field(default_factory=dict)
    _of_any_metric: list[_Selector] = field(default_factory=list)
    _checks: dict[RuleName, frozenset[CheckName]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, bound in self.rules.items():
            self._checks[name] = frozenset()
            for selector in bound.query.selectors:
                self._index(name, selector.matchers)

    def _index(self, name: RuleName, matchers: tuple[Matcher, ...]) -> None:
        metric = next((m.value for m in matchers if m.name == "__name__" and m.op == "="), None)
        if metric is None:
            self._of_any_metric.append((name, matchers))
        else:
            self._by_metric.setdefault(metric, _Selectors()).add((name, matchers))
        named = (CheckName(m.value) for m in matchers if m.name == "check" and m.op == "=" and m.value)
        self._checks[name] = self._checks[name].union(named)

    @property
    def names(self) -> tuple[RuleName, ...]:
        return tuple(self.rules)

    def rule(self, name: RuleName) -> BoundRule:
        """Return a rule. Raises KeyError if there is none of that name."""
        return self.rules[name]

    def touched(self, series: Series) -> frozenset[RuleName]:
        """Return the rules that read a series. Takes 1 us a selector that might match: the caller keeps the answer.

        Has to be asked of every series, once: it also learns which checks feed a rule (`checks_of`).
        """
        of_metric = self._by_metric.get(series.metric)
        if of_metric is None and not self._of_any_metric:
            return frozenset()
        labels = dict(series.labels)
        candidates = () if of_metric is None else of_metric.that_may_match(labels)
        found = frozenset(
            name for name, matchers in chain(candidates, self._of_any_metric) if matches(matchers, series)
        )
        check = labels.get("check")
        if check is not None and not series.metric.startswith(ENGINE_PREFIX):
            for name in found:
                if check not in self._checks[name]:
                    self._checks[name] |= {CheckName(check)}
        return found

    def checks_of(self, name: RuleName) -> frozenset[CheckName]:
        """Return the checks whose series a rule reads: those of the series seen by `touched`, and those it names."""
        return self._checks[name]


def bind_rules(rules: Sequence[Rule]) -> BoundRules:
    """Check and compile rules. Those with errors are left out and reported in `errors`, all errors of a rule at once."""
    bound: dict[RuleName, BoundRule] = {}
    errors: list[RuleError] = []
    seen: dict[RuleName, str] = {}
    for rule in rules:
        binder = _Binder(rule)
        if rule.name in seen:
            binder.complain(
                f"there is another rule of this name, from {seen[rule.name] or 'rules'}; rename one of them"
            )
        seen.setdefault(rule.name, rule.origin)
        ready = binder.bind()
        if ready is not None:
            bound[rule.name] = ready
        errors.extend(binder.errors)
    return BoundRules(bound, tuple(errors))


def severity_of(word: str) -> Severity | None:
    """Return the severity that a word means, ours or another system's (SEED S22); None for an unknown word."""
    word = word.strip().lower()
    try:
        return Severity(word)
    except ValueError:
        return SEVERITY_WORDS.get(word)


class _Binder:
    """Binds one rule and gathers its errors."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self.errors: list[RuleError] = []

    def complain(self, text: str, line: int = 1, column: int = 1) -> None:
        self.errors.append(RuleError(self._rule.name, self._rule.origin, line, column, text))

    def bind(self) -> BoundRule | None:
        rule = self._with_severity(self._rule)
        if not rule.name.strip():
            self.complain("a rule needs a name")
        self._check_labels(rule.labels)
        self._check_durations(rule)
        query = self._query(rule.expr)
        levels = self._levels(rule.levels)
        annotations = self._annotations(rule.annotations)
        if self.errors or query is None:
            return None
        return BoundRule(rule, query, levels, annotations)

    def _with_severity(self, rule: Rule) -> Rule:
        """Return the rule with a severity of ours; Prometheus' rules have theirs in the label `severity`."""
        word: str | None = rule.severity
        labels = rule.labels
        if "severity" in labels:
            if word is not None or rule.levels:
                self.complain("the label 'severity' is the alert's own; remove it from labels")
                return rule
            word = labels["severity"]
            labels = {name: text for name, text in labels.items() if name != "severity"}
        if word is None and not rule.levels and "severity" in rule.describing:
            return rule
        if (word is None) == (not rule.levels):
            self.complain("a rule has either severity or levels: set one of them")
        if word is None:
            return rule
        severity = severity_of(word)
        if severity is None:
            log.warning("rule.severity_unknown", rule=rule.name, severity=word, taken_as=Severity.MEDIUM.value)
            severity = Severity.MEDIUM
        return msgspec.structs.replace(rule, severity=severity, labels=labels)

    def _check_labels(self, labels: Mapping[str, str]) -> None:
        for name, text in labels.items():
            if not _LABEL_NAME.fullmatch(name) or name in RESERVED_LABELS:
                self.complain(
                    f"labels: {name!r} cannot be a label's name here; use letters, digits and _, not alertname"
                )
            if not isinstance(text, str):
                self.complain(f"labels.{name}: {text!r} is not a text; put it in quotes")

    def _check_durations(self, rule: Rule) -> None:
        for key, seconds in (("for", rule.for_s), ("keep_firing_for", rule.keep_firing_for_s)):
            if not (math.isfinite(seconds) and seconds >= 0):
                self.complain(f"{key}: {seconds} is not a duration; write 0s or more")
        if not (math.isfinite(rule.interval_s) and rule.interval_s > 0):
            self.complain(f"interval: {rule.interval_s} is not a duration of more than 0s")

    def _query(self, expr: str) -> Query | None:
        try:
            query = compile(expr)
        except PromQLError as error:
            self.complain(f"expr: {error}", error.line, error.column)
            return None
        if query.kind not in ("vector", "scalar"):
            kind = "range vector" if query.kind == "matrix" else query.kind
            self.complain(
                f"expr: a {kind} cannot alert; the expression has to yield a vector, such as rate(metric[5m]) > 1"
            )
        return query

    def _levels(self, levels: Iterable[Level]) -> tuple[BoundLevel, ...]:
        bound: dict[Severity, BoundLevel] = {}
        for number, level in enumerate(levels):
            severity = severity_of(level.severity)
            when = self._condition(f"levels[{number}].when", level.when)
            clear = None if level.clear is None else self._condition(f"levels[{number}].clear", level.clear)
            if severity is None:
                words = ", ".join(Severity)
                self.complain(f"levels[{number}].severity: {level.severity!r} is no severity; write one of {words}")
            elif severity in bound:
                self.complain(f"levels[{number}].severity: {severity} is there twice; one level per severity")
            elif when is not None:
                bound[severity] = BoundLevel(severity, when, clear)
        return tuple(sorted(bound.values(), key=lambda level: -level.severity.rank))

    def _condition(self, key: str, text: str) -> Condition | None:
        try:
            return Condition.parse(text)
        except ValueError as error:
            self.complain(f"{key}: {error}")
            return None

    def _annotations(self, annotations: Mapping[str, str]) -> dict[str, Template]:
        compiled: dict[str, Template] = {}
        for name, text in annotations.items():
            if not _LABEL_NAME.fullmatch(name):
                self.complain(f"annotations: {name!r} cannot be a name; use letters, digits and _")
            try:
                compiled[name] = compile_template(text)
            except TemplateError as error:
                caret = f"{text.splitlines()[error.line - 1] if text else ''}\n{' ' * (error.column - 1)}^"
                place = f"line {error.line}, column {error.column}"
                self.complain(f"annotations.{name}: {place}: {error.message}\n{caret}", error.line, error.column)
        return compiled
