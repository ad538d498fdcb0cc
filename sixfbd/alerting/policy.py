"""What the judge judges by: rules, routes, severities and notifiers' settings of one configuration, as one frozen value."""

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from sixfbd.alerting.budget import Budget, budgets_of, notice_budget
from sixfbd.alerting.escalation import Escalation, compile_escalations
from sixfbd.alerting.flapping import Flapping
from sixfbd.alerting.holds import Calendar, Inhibition, children_of, compile_inhibitions
from sixfbd.alerting.intervals import compile_interval, compile_window
from sixfbd.alerting.rotations import Turns, compile_rotation
from sixfbd.alerting.routes import Routing, compile_route
from sixfbd.config.tables import Config, NotifierTable
from sixfbd.model import Found, Receipt, Rule, RuleName, Severity, StoredEvent, Target
from sixfbd.plugin import EventType, Notifier

LevelOf: TypeAlias = Callable[[Rule, float, Severity | None], Severity | None]
"""(rule, value, current severity) → the severity that the value has now, None if it is within bounds. Pure."""

Annotate: TypeAlias = Callable[[Rule, Found], Mapping[str, str]]
"""(rule, found) → the rendered annotations. Never raises."""


ReceiptOf: TypeAlias = Callable[[StoredEvent], Receipt | None]
"""(event) → what it says of a message, None if nothing. Never raises."""


NoticeOf: TypeAlias = Callable[[StoredEvent], tuple[str, Mapping[str, str]]]
"""(event) → its notice in one line ("" if its type says none), and the labels that it has for routes. Never raises."""


class NotifierPolicy(Struct, frozen=True, kw_only=True):
    """How messages through one notifier are tried. Durations in seconds; `concurrency` messages are in flight at most."""

    name: str
    timeout_s: float = 15.0
    concurrency: int = 4
    expiry_s: float = 86400.0
    retry_first_s: float = 1.0
    retry_most_s: float = 300.0
    idempotent: bool = False
    can_look_up: bool = False
    receipts: bool = False
    looks_for_receipts: bool = False

    @property
    def is_unsure(self) -> bool:
        """Tell whether nobody can find out what became of a message whose answer was lost."""
        return not (self.idempotent or self.can_look_up)


class Policy(Struct, frozen=True, kw_only=True):
    """One configuration as the judge sees it. `notices` gives the notice's name by event type, `notice_severities` how
    severe those are that are not low; `receipts` are the types whose events may be receipts.

    `rng` is keyed: the same key gives the same draws within one run (`World.rng`).
    """

    rules: Mapping[RuleName, Rule]
    level_of: LevelOf
    annotate: Annotate
    routing: Routing
    calendar: Calendar = Calendar()
    inhibitions: tuple[Inhibition, ...] = ()
    escalations: tuple[Escalation, ...] = ()
    flapping: Flapping = Flapping(window_s=0.0)
    budgets: Mapping[Target, Budget] = {}
    notice_budget: Budget | None = None
    children: Mapping[str, frozenset[str]] = {}  # by check, all that depends on it
    notifiers: Mapping[str, NotifierPolicy]
    rng: Callable[..., random.Random]
    notices: Mapping[str, str] = {}
    notice_severities: Mapping[str, Severity] = {}
    receipts: frozenset[str] = frozenset()
    receipt_of: ReceiptOf = lambda stored: None
    notice_of: NoticeOf = lambda stored: ("", {})

    def heeds(self, event_type: str) -> bool:
        """Tell whether an event of this type is the judge's business."""
        return event_type in self.notices or event_type in self.receipts


def notifier_policy(table: NotifierTable, plugin: type[Notifier[Any]]) -> NotifierPolicy:
    """Return the settings of a configured notifier, with what its class promises about repeats and receipts."""
    return NotifierPolicy(
        name=table.name,
        timeout_s=float(table.timeout),
        concurrency=max(1, table.concurrency),
        expiry_s=float(table.expiry),
        retry_first_s=float(table.retry_first),
        retry_most_s=float(table.retry_most),
        idempotent=plugin.idempotent,
        can_look_up=plugin.can_look_up,
        receipts=_says(plugin.gets_receipts, table.options, plugin.receipts),
        looks_for_receipts=plugin.can_look_up and _says(plugin.looks_for_receipts, table.options, False),
    )


def _says(of_options: Callable[[Any], bool], options: Any, otherwise: bool) -> bool:
    try:
        return bool(of_options(options))
    except Exception:  # noqa: BLE001 - a plugin may raise anything; then what it says of itself in general holds
        return otherwise


def build_policy(
    config: Config,
    rules: Sequence[Rule],
    notifiers: Iterable[NotifierPolicy],
    event_types: Iterable[EventType],
    *,
    level_of: LevelOf,
    annotate: Annotate,
    rng: Callable[..., random.Random],
    receipt_of: ReceiptOf = lambda stored: None,
    notice_of: NoticeOf = lambda stored: ("", {}),
) -> Policy:
    """Return the policy of a checked configuration. Raises ValueError if a route's matcher is wrong, with its path."""
    types = tuple(event_types)
    return Policy(
        rules={rule.name: rule for rule in rules},
        level_of=level_of,
        annotate=annotate,
        routing=Routing(compile_route(config.route), config.receivers, config.severities, rotations_of(config)),
        calendar=_calendar(config),
        children=children_of({name: check.depends_on for name, check in config.checks.items()}),
        inhibitions=compile_inhibitions(config.inhibit),
        escalations=compile_escalations(config.escalations),
        flapping=Flapping(float(config.flapping.window), config.flapping.high, config.flapping.low),
        budgets=budgets_of(config),
        notice_budget=notice_budget(config),
        notifiers={notifier.name: notifier for notifier in notifiers},
        rng=rng,
        notices={one.name: one.notice for one in types if one.notice},
        notice_severities={one.name: one.notice_severity for one in types if one.notice},
        receipts=frozenset(event_type.name for event_type in types if event_type.receipt is not None),
        receipt_of=receipt_of,
        notice_of=notice_of,
    )


def rotations_of(config: Config) -> dict[str, Turns]:
    """Return who is on call by turns in a checked configuration."""
    return {name: compile_rotation(table, config.site.timezone) for name, table in config.oncall.items()}


def _calendar(config: Config) -> Calendar:
    zone = config.site.timezone
    intervals = {name: compile_interval(table, zone) for name, table in config.time_intervals.items()}
    windows = [
        compile_window(table, intervals.get, zone, f"maintenance[{place}]")
        for place, table in enumerate(config.maintenance)
    ]
    return Calendar(intervals=intervals, maintenance=tuple(windows))
