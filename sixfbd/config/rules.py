"""The rules that are in force: the defaults of the engine and the plugins, changed, dropped and added to by `[[rules]]`.

Compiles no PromQL: that is the room `rules/`, which `check_config` is handed.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct

from sixfbd.config.fit import LABEL_NAME, wrong_matcher
from sixfbd.config.tables import Config, RouteTable, RuleTable
from sixfbd.config.text import Problem, did_you_mean, show_value
from sixfbd.model import Rule, RuleName, Severity
from sixfbd.rules.defaults import WATCHDOG
from sixfbd.rules.levels import Condition

_KEY: Final = re.compile(r"(([a-z_]+)(?:\[[0-9]+\]|\.[A-Za-z0-9_]+)*): ")
_GIVEN_BY_ENGINE: Final = frozenset({"alertname", "severity"})


class RuleProblem(Struct, frozen=True):
    """What compiling found wrong with a rule. `message` may begin with the key within the rule ("levels[0].when: "), and
    have several lines (with a caret under the place)."""

    rule: str
    message: str
    level: Literal["error", "warning"] = "error"


CompileRules: TypeAlias = Callable[[Sequence[Rule]], Iterable[RuleProblem]]


class _Bench:
    """One `[[rules]]` table at a time: notes its problems with file and key."""

    def __init__(self, config: Config) -> None:
        self.problems: list[Problem] = []
        self._places = config.rule_places or tuple(("", f"rules[{place}]") for place in range(len(config.rules)))
        self._place = 0

    @property
    def file(self) -> str:
        return self._places[self._place][0]

    def turn_to(self, place: int) -> None:
        self._place = place

    def note(self, key: str, message: str, hint: str = "", value: str | None = None) -> None:
        file, table = self._places[self._place]
        self.problems.append(Problem(file=file, key=f"{table}{key}", message=message, hint=hint, value=value))

    def warn(self, key: str, message: str, hint: str = "") -> None:
        file, table = self._places[self._place]
        self.problems.append(Problem(file=file, key=f"{table}{key}", message=message, hint=hint, level="warning"))


def effective_rules(
    config: Config, plugin_rules: Sequence[Rule], wrong_keys: Sequence[AbstractSet[str]] = ()
) -> tuple[list[Rule], list[Problem]]:
    """Return the rules in force, and what is wrong with `[[rules]]`.

    `plugin_rules` are the defaults, the engine's included (`PluginCatalog.rules`). A table of a default's name changes
    the keys that it has: labels and annotations are added, a severity takes the place of levels and the other way
    round. `enabled = false` drops a rule. `wrong_keys` are the keys of each of `config.rules` whose values are known to
    be wrong: no more is said of them, and the rule is left out.
    """
    rules: dict[str, Rule] = {rule.name: rule for rule in plugin_rules}
    bench = _Bench(config)
    seen: set[str] = set()
    for place, table in enumerate(config.rules):
        bench.turn_to(place)
        if table.name in seen:
            bench.note(".name", "is the name of an earlier rule", "names are unique", show_value(table.name))
            continue
        seen.add(table.name)
        wrong = wrong_keys[place] if wrong_keys else frozenset[str]()
        if not _valid(table, rules.get(table.name), rules, wrong, bench):
            continue
        if table.enabled:
            rules[table.name] = _overlaid(table, rules.get(table.name), bench.file)
        else:
            rules.pop(table.name, None)
    if not any(table.name == WATCHDOG for table in config.rules) and not _names_watchdog(config.route):
        rules.pop(WATCHDOG, None)
    interval_s = float(config.daemon.evaluation_interval)
    return [msgspec.structs.replace(rule, interval_s=interval_s) for rule in rules.values()], bench.problems


def _names_watchdog(route: RouteTable) -> bool:
    own = any(WATCHDOG in text for text in route.matchers)
    return own or any(_names_watchdog(child) for child in route.routes)


def _valid(
    table: RuleTable, default: Rule | None, rules: Mapping[str, Rule], wrong_keys: AbstractSet[str], bench: _Bench
) -> bool:
    before = len(bench.problems)
    if table.severity is not None and table.levels is not None:
        bench.note(".levels", "a rule has a severity or levels, not both", "remove one of them")
    for place, level in enumerate(table.levels or ()):
        for key, text in (("when", level.when), ("clear", level.clear)):
            if text is not None and (wrong := _wrong_condition(text)):
                message, _, hint = wrong.partition("; ")
                bench.note(f".levels[{place}].{key}", message, hint)
    for part, pairs in (("labels", table.labels), ("annotations", table.annotations)):
        for name in pairs:
            if not LABEL_NAME.fullmatch(name):
                bench.note(f".{part}", f"{show_value(name)} is not a name", "letters, digits and _, no digit first")
            elif part == "labels" and name in _GIVEN_BY_ENGINE:
                bench.note(f".labels.{name}", "is set by the engine", "for the severity, write severity = ...")
    for place, text in enumerate(table.once or ()):
        if wrong := wrong_matcher(text):
            message, _, hint = wrong.partition("; ")
            bench.note(f".once[{place}]", message, hint)
    if table.expr is not None and not table.expr.strip():
        bench.note(".expr", "is empty", "write PromQL")
    if default is None:
        _valid_as_new(table, rules, wrong_keys, bench)
    return len(bench.problems) == before and not wrong_keys


def _wrong_condition(text: str) -> str:
    try:
        Condition.parse(text)
    except ValueError as error:
        return str(error)
    return ""


def _valid_as_new(table: RuleTable, rules: Mapping[str, Rule], wrong_keys: AbstractSet[str], bench: _Bench) -> None:
    near = did_you_mean(table.name, rules)
    hint = near if near.startswith("did") else ""
    if not table.enabled:
        if table.expr is None:
            bench.warn(".name", f"there is no rule {show_value(table.name)} to drop", hint)
        return
    if table.expr is None and not _meant(("expr",), wrong_keys):
        bench.note(".expr", f"is missing, and no default rule is called {show_value(table.name)}", hint)
    if table.severity is None and table.levels is None and not _meant(("severity", "levels"), wrong_keys):
        bench.note(".severity", "is missing", 'write severity = "high", or levels')


def _meant(keys: Iterable[str], wrong_keys: AbstractSet[str]) -> bool:
    """Whether one of these keys is there, with a wrong value or misspelt."""
    known = set(keys)
    return any(key in known or did_you_mean(key, known).startswith("did") for key in wrong_keys)


def _overlaid(table: RuleTable, default: Rule | None, file: str) -> Rule:
    rule = default or Rule(name=RuleName(table.name), expr="")
    given: dict[str, Any] = {
        "expr": table.expr,
        "for_s": None if table.for_ is None else float(table.for_),
        "keep_firing_for_s": None if table.keep_firing_for is None else float(table.keep_firing_for),
        "once": table.once,
        "evaluate": table.evaluate,
        "labels": {**rule.labels, **table.labels},
        "annotations": {**rule.annotations, **table.annotations},
        "origin": file,
    }
    changes = {key: value for key, value in given.items() if value is not None}
    if table.severity is not None:
        changes |= {"severity": table.severity, "levels": ()}
    if table.levels is not None:
        changes |= {"severity": None, "levels": table.levels}
    return msgspec.structs.replace(rule, **changes)


def compile_problems(config: Config, rules: Sequence[Rule], compile_rules: CompileRules) -> list[Problem]:
    """Return what compiling the rules finds. What is wrong with a plugin's own expression is a warning only."""
    ours: dict[str, int] = {}
    for number, table in enumerate(config.rules):
        ours.setdefault(table.name, number)  # of two with one name the first is in force, the second is an error itself
    origins = {rule.name: rule.origin for rule in rules}
    found = []
    for problem in compile_rules([*rules, *_left_out(config, rules)]):
        place = ours.get(problem.rule)
        if place is not None and (key := _key_of(problem, config.rules[place])):
            file, rule = config.rule_places[place] if config.rule_places else ("", f"rules[{place}]")
            message = problem.message.removeprefix(f"{key}: ")
            found.append(Problem(file=file, key=f"{rule}.{key}", message=message, level=problem.level))
        else:
            file = origins.get(RuleName(problem.rule), "")
            found.append(Problem(file=file, key=f"rule {problem.rule}", message=problem.message, level="warning"))
    return found


def _key_of(problem: RuleProblem, table: RuleTable) -> str:
    """Return the key that a problem is about if this table has it; "" if it is the default rule's own."""
    said = _KEY.match(problem.message)
    key, name = (said[1], said[2]) if said else ("expr", "expr")
    attribute = "for_" if name == "for" else name
    if name in ("labels", "annotations"):
        return key if key.partition(".")[2] in getattr(table, name) else ""
    return key if getattr(table, attribute, None) is not None else ""


def _left_out(config: Config, rules: Sequence[Rule]) -> list[Rule]:
    """The rules that something else is wrong with: their expressions are compiled all the same."""
    whole = {rule.name for rule in rules}
    names = dict.fromkeys(table.name for table in config.rules if table.enabled and table.expr is not None)
    first = {table.name: table.expr for table in reversed(config.rules) if table.expr is not None}
    return [Rule(name=RuleName(name), expr=first[name], severity=Severity.LOW) for name in names if name not in whole]
