"""How the daemon's answers look to people: one function per answer, values to lines. Pure; sixfbctl prints them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import click
import msgspec

from sixfbd.control.engine import (
    AlertView,
    CheckRun,
    JournalView,
    MessageView,
    NotifyTestView,
    OnCallView,
    OutboxView,
    PluginView,
    PreviewAlert,
    PreviewView,
    QuerySeries,
    QueryView,
    ReleaseView,
    RouteTestView,
    RouteView,
    SeriesView,
    SilencePreview,
    SilenceView,
    StatusView,
    StoryRecord,
    TokenView,
    WhyNotView,
    WhyView,
)
from sixfbd.control.tables import age, clock_time, colored, count_line, facts, labels, size, spark, table, time
from sixfbd.control.tables import span as shown_span
from sixfbd.control.tables import value as shown_value
from sixfbd.control.terminal import clean as plain
from sixfbd.journal.records import Acked, AlertChanged, Audited, MessageChanged, ObligationChanged, Owed, Postponed
from sixfbd.model import Alert, AlertState, CheckState, Obligation, StoredEvent


def show_status(status: StatusView) -> list[str]:
    """Return the daemon at a glance, problems last."""
    state = "volatile: the disk takes no writes; nothing is kept" if status.volatile else status.state
    pairs = [
        ("sixfbd", f"{status.version}, {state}, pid {status.pid}, up {shown_span(status.now - status.started_at)}"),
        ("site", f"{status.site}, a sandbox" if status.sandbox else status.site),
        ("dashboard", status.http or "nowhere"),
        *([("webhooks", status.public)] if status.public else []),
        ("configuration", f"{', '.join(status.config_files)} ({status.config_hash[:12]})"),
        ("state", status.state_directory),
        ("checks", count_line(status.checks) + (f"; paused: {', '.join(status.paused)}" if status.paused else "")),
        ("alerts", count_line(status.alerts) + (f"; {status.pending_alerts} pending" if status.pending_alerts else "")),
        ("messages", count_line(status.messages) + _oldest(status.oldest_message_s)),
        ("rules, series", f"{status.rules} rules, {status.series} series, {status.events} events"),
    ]
    if status.heartbeat:
        pairs.append(("heartbeat", status.heartbeat))
    if status.awaited:
        pairs.append(("warming up", f"waiting for {', '.join(status.awaited)}"))
    if status.blind_before_start_s:
        pairs.append(("blind", f"for {shown_span(status.blind_before_start_s)} before this start"))
    if status.stood_still is not None:
        since, until = status.stood_still
        pairs.append(
            ("stood still", f"for {shown_span(until - since)} until {clock_time(until)}: nothing ran meanwhile")
        )
    if abs(status.clock_offset_s) > 1:
        ahead = "ahead of" if status.clock_offset_s > 0 else "behind"
        text = (
            f"{shown_span(abs(status.clock_offset_s))} {ahead} the daemon's time; it was set, and a restart adopts it"
        )
        pairs.append(("wall clock", text))
    told = [colored(status.nobody_told, "unhealthy")] if status.nobody_told else []
    return [*facts(pairs), *told, *(colored(f"problem: {plain(problem)}", "unhealthy") for problem in status.problems)]


def _oldest(oldest_s: float | None) -> str:
    return "" if oldest_s is None else f"; the oldest open one {shown_span(oldest_s)} old"


def show_checks(checks: Sequence[CheckState], now: float, width: int | None = None) -> list[str]:
    return table(
        ("check", "status", "plugin", "every", "last run", "took", "summary"),
        [
            (
                check.name,
                "paused" if check.paused else str(check.status),
                check.plugin,
                shown_span(check.interval_s),
                "running" if check.running else age(check.last_run_at, now),
                "-" if check.duration_s is None else shown_span(check.duration_s),
                check.summary,
            )
            for check in checks
        ],
        none="no checks are configured; add a [checks.NAME] table",
        width=width,
        drop=("plugin", "every", "took"),
        fold=("summary",),
    )


def show_check_run(run: CheckRun) -> list[str]:
    """Return one report: status and summary, then its samples and events."""
    head = f"{run.check}: {colored(str(run.status))} after {shown_span(run.duration_s)}: {plain(run.summary)}"
    lines = [head, *facts((series, shown_value(value)) for series, value in run.samples)]
    lines += [f"event {plain(msgspec.json.encode(event).decode())}" for event in run.events]
    lines += [click.style(f"refused: {plain(text)}", fg="red") for text in run.refused.named]
    if len(run.refused.named) > 1:
        lines.append(click.style(f"refused in all: {run.refused.count}", fg="red"))
    lines += [click.style(f"note: {plain(text)}", fg="yellow") for text in run.remarks]
    return [*lines, "there is more to read; the next run goes on"] if run.more else lines


def show_series(view: SeriesView, now: float, width: int | None = None) -> list[str]:
    rows = [
        (line.series, shown_value(line.value) + (" (ended)" if line.stale else ""), age(line.at, now), line.kind)
        for line in view.series
    ]
    lines = table(("series", "value", "when", "kind"), rows, none="no series match", width=width)
    hidden = view.total - len(view.series)
    return [*lines, f"and {hidden} more; give a matcher or a higher --limit"] if hidden > 0 else lines


def show_query(view: QueryView, width: int | None = None) -> list[str]:
    """Return one line a series: its value, or over a span its least, mean, most, last and a small chart."""
    if view.type == "string":
        return [plain(text) for series in view.series for text in series.labels.values()]
    if view.type == "matrix":
        heads: tuple[str, ...] = ("series", "points", "min", "avg", "max", "last", "chart")
        rows: list[tuple[str, ...]] = [_span_row(series) for series in view.series]
    else:
        heads = ("series", "value")
        rows = [(labels(series.labels), shown_value(series.points[-1][1])) for series in view.series if series.points]
    none = "no data: nothing matches, or the series have ended"
    lines = table(heads, rows, none, width=width, drop=("chart", "points"))
    return [*lines, *(f"warning: {plain(warning)}" for warning in view.warnings)]


def _span_row(series: QuerySeries) -> tuple[str, ...]:
    numbers = [float(value) for _, value in series.points]
    if not numbers:
        return (labels(series.labels), "0", "-", "-", "-", "-", "")
    drawn = (min(numbers), sum(numbers) / len(numbers), max(numbers), numbers[-1])
    return (labels(series.labels), str(len(numbers)), *(shown_value(_whole(n)) for n in drawn), spark(numbers))


def _whole(number: float) -> float | str:
    """NaN and infinities have no whole form: as text."""
    return number if number - number == 0 else str(number)


def show_alerts(alerts: Sequence[AlertView], now: float, width: int | None = None) -> list[str]:
    return table(
        ("id", "severity", "state", "since", "alert", "value", "acked by", "summary"),
        [
            (
                alert.id,
                str(alert.severity),
                " ".join([str(alert.state), *(f"({mark})" for mark in _marks(alert))]),
                age(alert.since, now),
                _flat_name(alert),
                shown_value(alert.value),
                alert.acked_by or "-",
                alert.annotations.get("summary", ""),
            )
            for alert in alerts
        ],
        none="no alerts",
        width=width,
        fold=("alert", "summary"),
    )


def show_held(view: SilencePreview, now: float, width: int | None = None) -> list[str]:
    """What a silence would hold: the alerts that its matchers match."""
    if not view.alerts:
        return ["no pending or firing alert matches; a silence holds those to come as well"]
    return [*show_alerts(view.alerts, now, width), "", f"{len(view.alerts)} of the alerts that there are"]


def show_silences(silences: Sequence[SilenceView], now: float, width: int | None = None) -> list[str]:
    return table(
        ("id", "state", "ends in", "holds", "matchers", "author", "comment"),
        [
            (
                one.id,
                one.state if one.state == "active" else f"begins in {shown_span(max(0.0, one.starts_at - now))}",
                shown_span(max(0.0, one.ends_at - now)),
                str(one.matches),
                " ".join(one.matchers),
                one.author,
                one.comment or "-",
            )
            for one in silences
        ],
        none="no silences",
        width=width,
        fold=("matchers", "comment"),
    )


def show_why_not(view: WhyNotView, now: float, width: int | None = None) -> list[str]:
    """The answer first, then what it is from."""
    about = labels({"__name__": view.rule.name, **view.labels})
    lines = [f"{about}: {view.verdict}", *facts([("expression", view.rule.expr), ("at", time(view.at))])]
    if view.rows:
        rows = [
            (labels(row.labels), shown_value(row.value), f"{row.op} {shown_value(row.threshold)}") for row in view.rows
        ]
        lines += ["", *table(("labels", "value", "wanted"), rows, "", width=width, fold=("labels",))]
        lines += [f"and {view.more_rows} more"] if view.more_rows else []
    found = [(one.selector, str(one.series)) for one in view.selectors]
    lines += ["", *table(("selector", "series"), found, "no series are read", width=width, fold=("selector",))]
    checks = [(one.name, one.state, age(one.last_run_at, now), one.summary) for one in view.checks]
    heads = ("check", "state", "last run", "summary")
    return [*lines, "", *table(heads, checks, "no check is known to feed it", width=width, fold=("summary",))]


def show_notify_test(view: NotifyTestView, width: int | None = None) -> list[str]:
    return table(
        ("receiver", "through", "state", "after", "reason"),
        [
            (
                one.target.receiver,
                _target(one.target.notifier, one.target.address),
                one.state,
                shown_span(one.after_s),
                one.reason or "-",
            )
            for one in view.targets
        ],
        none="no channels",
        width=width,
        fold=("reason",),
    )


def show_route_test(view: RouteTestView) -> list[str]:
    """Who would be told first; then when, and what stands against it."""
    rule = view.labels.get("alertname", "")
    lines = [] if view.known_rule or not rule else [f"no rule is called {rule}; severity {view.severity} is assumed"]
    if view.nobody:
        lines.append(f"nobody would be told: {view.nobody}")
    for route in view.routes:
        on_call = [one.receiver for one in route.targets if one.receiver != route.receiver]
        whom = f"{route.receiver or 'none'}{f' (on call: {on_call[0]})' if on_call else ''}"
        lines.append(f"{route.path}{{{', '.join(route.matchers)}}}: receiver {whom}")
        if route.muted:
            lines.append(f"  {route.muted}")
        lines += [f"  {_target(one.notifier, one.address)}" for one in route.targets]
        lines.append(f"  {_timing_words(route)}")
    lines += [f"but it would be {hold}" for hold in view.holds]
    lines += [f"after {shown_span(one.after_s)} without an acknowledgement: {one.receiver}" for one in view.escalations]
    return lines


def show_on_call(views: Sequence[OnCallView], width: int | None = None) -> list[str]:
    """A line for each rotation."""
    rows = [(view.name, view.member, time(view.until), view.next_member) for view in views]
    return table(("rotation", "on call", "until", "then"), rows, "no rotation; [oncall.NAME] makes one", width=width)


def _timing_words(route: RouteView) -> str:
    wait = f"waits {shown_span(route.wait_s)} for its group" if route.wait_s else "at once"
    interval = f", then at most every {shown_span(route.interval_s)}" if route.interval_s else ""
    repeat = f", again every {shown_span(route.repeat_s)}" if route.repeat_s else ", never again"
    return f"group {route.group or '-'}: {wait}{interval}{repeat}"


def _marks(alert: AlertView) -> list[str]:
    marks = {"blind": alert.blind, "held": bool(alert.held), "flapping": alert.flapping}
    return [mark for mark, is_so in marks.items() if is_so]


def _flat_name(alert: AlertView) -> str:
    own = {name: text for name, text in alert.labels.items() if name not in ("alertname", "severity")}
    return labels({"__name__": alert.rule, **own})


def _alert_name(alert: Alert) -> str:
    return labels({"__name__": alert.key.rule, **dict(alert.key.labels)})


def show_event(stored: StoredEvent) -> str:
    """Return one event as a line."""
    data = msgspec.json.encode(stored.event.data).decode()
    return plain(f"{stored.seq}  {time(stored.event.timestamp)}  {stored.event.type}  {stored.event.id}  {data}")


def show_outbox(view: OutboxView, now: float, width: int | None = None) -> list[str]:
    rows = [
        (
            message.id,
            message.state,
            message.target.receiver,
            _target(message.target.notifier, message.target.address),
            age(message.created_at, now),
            str(message.attempt),
            age(message.next_try_at, now) if message.state in ("pending", "unknown") else "-",
            message.last_error,
        )
        for message in view.messages
    ]
    heads = ("message", "state", "receiver", "through", "made", "tries", "next", "last error")
    lines = table(heads, rows, none="no messages", width=width, drop=("made",), fold=("last error", "through"))
    return [*lines, f"obligations: {count_line(view.obligations)}"]


def _target(notifier: str, address: str) -> str:
    return f"{notifier} {address}".rstrip()


def show_message(view: MessageView) -> list[str]:
    message = view.message
    pairs = [
        ("message", message.id),
        ("state", message.state),
        ("to", f"{message.target.receiver} through {_target(message.target.notifier, message.target.address)}"),
        ("made", time(message.created_at)),
        ("expires", time(message.expires_at)),
        ("tries", f"{message.attempt}{' (the last possibly a repeat)' if message.possibly_repeated else ''}"),
        ("provider's id", message.provider_id or "-"),
    ]
    if message.last_error:
        pairs.append(("last error", message.last_error))
    lines = facts(pairs) + [f"carries {_obligation(owed)}" for owed in view.obligations]
    return lines + _timeline((change.at, _message_words(change)) for change in view.history)


def _obligation(owed: Obligation) -> str:
    about = _alert_name(owed.about) if owed.about is not None else owed.text
    reason = f" ({owed.reason})" if owed.reason else ""
    return plain(f"{owed.kind} {owed.severity} {about}: {owed.state}{reason}")


def show_release(release: ReleaseView) -> list[str]:
    if release.needs_restart:
        return [f"plugin {release.plugin} is released; restart the daemon to take it in: {release.needs_restart}"]
    return [f"plugin {release.plugin} is in again", *release.changed]


def show_plugins(plugins: Iterable[PluginView], width: int | None = None) -> list[str]:
    """Return a table of what plugins bring, and a line for each that was left out."""
    views = list(plugins)
    rows = [
        (
            plugin.name,
            plugin.kind,
            plugin.version or "-",
            plugin.origin,
            plugin.doc,
            " ".join(option.name + ("*" if option.required else "") for option in plugin.options),
        )
        for plugin in views
        if not plugin.error
    ]
    left_out = [
        colored(f"left out: {plain(f'{plugin.name} ({plugin.origin}): {plugin.error}')}", "unhealthy")
        for plugin in views
        if plugin.error
    ]
    heads = ("name", "kind", "version", "origin", "what", "options (* required)")
    return [*table(heads, rows, "no plugins", width=width, drop=("version",), fold=(heads[-1], "what")), *left_out]


def show_preview(view: PreviewView, now: float, width: int | None = None) -> list[str]:
    """Return what a reload would do: things by what becomes of them, then alerts that would change, then what is wrong."""
    fates = [
        ("kept", _gathered(view.kept)),
        ("added", ", ".join(view.added)),
        ("changed", ", ".join(view.changed)),
        ("restarted", ", ".join(view.restarted)),
        ("dropped", ", ".join(view.dropped)),
    ]
    alerts = [
        *(
            _preview_row("would fire" if one.due_at is None else "would be pending", one, now)
            for one in view.would_fire
        ),
        *(_preview_row("would resolve", one, now) for one in view.would_resolve),
        *(_preview_row("re-routed", one, now) for one in view.rerouted),
    ]
    heads = ("alert", "severity", "change", "why", "told")
    lines = facts((name, words or "none") for name, words in fates)
    lines += ["", *table(heads, alerts, "no alert would change", width=width, fold=("told", "why"))]
    lines += [f"warning: {plain(warning)}" for warning in view.warnings]
    lines += [colored(f"problem: {plain(problem)}", "unhealthy") for problem in view.problems]
    if view.needs_restart:
        fixed = ", ".join(view.needs_restart)
        lines.append(colored(f"needs restart: {fixed}; a reload would be refused as a whole", "unhealthy"))
    return lines


def _gathered(things: Iterable[str]) -> str:
    """Checks and notifiers by name, rules by their number: there are many."""
    named = [thing for thing in things if not thing.startswith("rule ")]
    rules = sum(thing.startswith("rule ") for thing in things)
    return ", ".join([*named, *([f"{rules} rules"] if rules else [])])


def _preview_row(change: str, alert: PreviewAlert, now: float) -> tuple[str, ...]:
    why = alert.reason if alert.due_at is None else f"fires {age(alert.due_at, now)} unless it ends"
    told = ", ".join(alert.told) or "nobody"
    if alert.told_before:
        told = f"{', '.join(alert.told_before)} → {told}"
    name = labels({"__name__": alert.rule, **alert.labels})
    return (name, str(alert.severity), change, why, told)


def show_tokens(tokens: Sequence[TokenView], width: int | None = None) -> list[str]:
    return table(
        ("token", "scopes", "made", "by"),
        [
            (
                token.name + (" (revoked)" if token.revoked else ""),
                ", ".join(token.scopes),
                "configuration" if token.fixed else time(token.made_at),
                token.by or "-",
            )
            for token in tokens
        ],
        none="no tokens; make one with: sixfbctl token create NAME --scope events",
        width=width,
        drop=("made",),
    )


_JOURNAL_WORDS: Final = {
    "path": "file",
    "size_bytes": "size",
    "wal_bytes": "write-ahead log",
    "last_record_seq": "number of the last record",
    "last_event_seq": "number of the last event",
    "last_commit_age_s": "last commit",
    "commit_p50_s": "commits, median",
    "commit_max_s": "commits, longest",
    "waiting": "commits that wait",
    "oldest_waiting_s": "the oldest waits for",
    "failures": "commits that failed",
    "queued": "rows to be written",
    "dropped": "rows dropped",
}


def show_journal(view: JournalView) -> list[str]:
    """Return the facts of each file under its name."""
    parts: dict[str, list[tuple[str, str]]] = {}
    for key, fact in view.facts.items():
        part, _, name = key.rpartition(".")
        words = _JOURNAL_WORDS.get(name) or name.replace("_", " ")
        parts.setdefault(part or "journal", []).append((words, _fact(name, fact)))
    return [
        line
        for part, pairs in parts.items()
        for line in (click.style(f"{part}.db", bold=True), *(f"  {line}" for line in facts(pairs)))
    ]


def _fact(name: str, fact: object) -> str:
    if fact is None or fact == "":
        return "none" if fact == "" else "-"
    if isinstance(fact, int | float) and not isinstance(fact, bool):
        if name.endswith("_bytes"):
            return size(fact)
        if name.endswith("_at"):
            return time(fact)
        if name.endswith("_age_s"):
            return f"{shown_span(fact)} ago"
        if name.endswith("_s"):
            return shown_span(fact)
        return shown_value(fact)
    return fact if isinstance(fact, str) else msgspec.json.encode(fact).decode()


# ---- why -----------------------------------------------------------------------------------------------------------------


def show_why(why: WhyView) -> list[str]:
    """Return the whole story of one incident: what it is, the rule, who is told, and what happened in order."""
    alert = why.alert
    head = [
        f"{colored(_alert_name(alert), str(alert.severity))} is {alert.state} since {time(alert.since)}",
        *facts(_why_facts(why)),
    ]
    return [*head, "", *_timeline(_story(why.records))]


def _why_facts(why: WhyView) -> Iterator[tuple[str, str]]:
    alert = why.alert
    yield "incident", alert.id
    yield "severity", str(alert.severity)
    if summary := alert.annotations.get("summary"):
        yield "summary", summary
    if why.rule is not None:
        yield "rule", why.rule.expr
        yield "held for", f"{shown_span(why.rule.for_s)}, keeps firing {shown_span(why.rule.keep_firing_for_s)}"
        yield "rule from", why.rule.origin
    for level in why.rule.levels if why.rule is not None else ():
        yield "level", f"{level.severity} when {level.when}" + (f", until {level.clear}" if level.clear else "")
    for routed in why.routes:
        yield "routed to", f"{routed.receiver} by {' > '.join(routed.path) or 'the default route'}"
    if alert.acked_by:
        yield "acked by", f"{alert.acked_by} at {time(alert.acked_at)}"
    for hold in alert.held:
        yield "held", str(hold)
    if alert.flapping:
        yield "flapping", f"it comes and goes; kept firing until it has settled, at {time(alert.due_at)} if it stays so"
    if alert.escalated:
        yield "escalated", ", ".join(alert.escalated)
    if alert.escalate_at is not None and not alert.held and alert.acked_by is None:
        yield "escalates", time(alert.escalate_at)
    if alert.blind:
        yield "blind", f"the checks that feed it do not report: {', '.join(alert.checks)}"
    if not why.routes:
        yield "routed to", "nobody: no route names a receiver"


def _story(records: Iterable[StoryRecord]) -> Iterator[tuple[float, list[str]]]:
    targets: dict[str, str] = {}
    for record in records:
        if isinstance(record, Owed):
            owed = record.obligation
            targets[owed.id] = f"{owed.kind} to {owed.target.receiver} through " + _target(
                owed.target.notifier, owed.target.address
            )
        yield record.at, _record_words(record, targets)


def _record_words(record: StoryRecord, targets: dict[str, str]) -> list[str]:
    match record:
        case AlertChanged():
            return _transition_words(record)
        case Acked():
            return [f"acknowledged by {record.by}" + (f": {record.comment}" if record.comment else "")]
        case Owed():
            owed = record.obligation
            why = owed.reason or owed.passed_on
            reason = f" ({why})" if why else ""
            return [f"owed: {targets[owed.id]}: {owed.state}{reason}"]
        case ObligationChanged():
            return [f"{targets.get(record.id, record.id)}: {record.state} ({record.reason})"]
        case Postponed():
            return [f"{targets.get(record.id, record.id)}: waits until {time(record.until)} ({record.why})"]
        case MessageChanged():
            return _message_words(record)
        case Audited():
            return [f"{record.by} commanded {record.command}: {record.outcome}"]


def _transition_words(record: AlertChanged) -> list[str]:
    alert = record.alert
    change = f"{record.previous} → {alert.state}" if record.previous != alert.state else f"still {alert.state}"
    why = f" ({record.why or alert.reason})" if record.why or alert.reason else ""
    over = alert.state is AlertState.RESOLVED  # its value and evidence are the last ones for which it held
    first = f"{change}, {alert.severity}, {'last value' if over else 'value'} {shown_value(alert.value)}{why}"
    return [
        first,
        *(
            f"  {'last held with' if over else 'read'} {seen.series} = {shown_value(seen.value)} at {clock_time(seen.at_ms / 1000)}"
            for seen in alert.evidence
        ),
    ]


def _message_words(record: MessageChanged) -> list[str]:
    message = record.message
    to = f"{message.target.receiver} through {_target(message.target.notifier, message.target.address)}"
    words = f"message {message.id} to {to}: {message.state}"
    if message.attempt:
        words += f", try {message.attempt}"
    if record.what:
        words += f": {record.what}"
    elif message.last_error:
        words += f": {message.last_error}"
    return [words]


def _timeline(entries: Iterable[tuple[float, list[str]]]) -> list[str]:
    """Return entries under their days, each with its time; further lines of an entry are set in."""
    lines: list[str] = []
    day = ""
    for at, words in entries:
        today = time(at)[:10]
        if today != day:
            day = today
            lines.append(click.style(day, bold=True))
        lines.append(f"  {clock_time(at)}  {plain(words[0])}")
        lines += [" " * 16 + plain(more) for more in words[1:]]
    return lines


# ---- reports -------------------------------------------------------------------------------------------------------------


def show_reports(reports: list[dict[str, Any]]) -> list[str]:
    """Return the reports that there are."""
    rows = [(one["name"], one["timeframe"], one["doc"]) for one in reports]
    return table(("report", "timeframe", "says"), rows, "no plugin brings a report")


def show_report(report: dict[str, Any]) -> list[str]:
    """Return a report as an outline, lists of one form as tables; at the end why some of it is not known."""
    unknown = report.get("unknown", {})
    lines = [line for key, value in report.items() if key != "unknown" for line in _outlined(key, value, 0)]
    return lines + ([""] + [f"- {path}: {reason}" for path, reason in unknown.items()] if unknown else [])


def _outlined(key: str, value: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, dict) and value:
        yield f"{indent}{key}"
        for name, one in value.items():
            yield from _outlined(str(name), one, depth + 1)
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        yield f"{indent}{key}"
        heads = list(dict.fromkeys(name for one in value for name in one))
        for line in table(heads, [[_brief(one.get(name)) for name in heads] for one in value]):
            yield f"{indent}  {line}"
    else:
        yield f"{indent}{key:<{max(26 - len(indent), 1)}} {_brief(value)}"


def _brief(value: Any) -> str:
    """One value in a few words; what is within it as JSON."""
    if value is None:
        return "-"
    if isinstance(value, str | bool):
        return str(value)
    return shown_value(value) if isinstance(value, int | float) else msgspec.json.encode(value).decode()
