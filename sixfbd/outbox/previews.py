"""Messages that nobody is sent: made-up alerts and notices by which templates are tried out when a configuration is read, and
shown by `sixfbd template preview`. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from sixfbd.alerting.owe import as_notice
from sixfbd.config.tables import Config
from sixfbd.config.template_files import SUFFIX
from sixfbd.config.text import Problem, did_you_mean
from sixfbd.containment import described
from sixfbd.model import (
    Alert,
    AlertKey,
    AlertState,
    Event,
    Evidence,
    Message,
    MessageId,
    Obligation,
    ObligationKind,
    Rule,
    RuleName,
    Severity,
    StoredEvent,
    Target,
)
from sixfbd.outbox.render import Place, render
from sixfbd.outbox.templates import MAX_CPU_S, MessageTemplate, TemplateFailedError, TemplateRefusedError
from sixfbd.outbox.wording import TemplateName, Templates, context_of
from sixfbd.plugin import EventType, Notification, Notifier
from sixfbd.rules.templates import TemplateError, compile_template

AT: Final = 1_800_000_000.0
MANY: Final = 100  # obligations that one message carries at most
TRIES: Final = 3  # of a template that was slow: a machine may be
_PLAIN: Final = Place("workshop", "production", "http://127.0.0.1:9632/")
_RULE: Final = Rule(
    name=RuleName("HighMemory"),
    expr="memory_usage_ratio > 0.85",
    severity=Severity.HIGH,
    labels={"service": "system"},
    annotations={
        "summary": "🔥 High memory usage: {{ $value | humanizePercentage }}",
        "description": "Memory of {{ $labels.host }} has been short for 5 minutes.",
    },
)


class Preview(Struct, frozen=True):
    """A message as it would be sent by one kind of channel, `status` or a notice's name being what it is about."""

    name: str
    channel: str
    notification: Notification
    obligations: tuple[Obligation, ...]


class Shown(Struct, frozen=True):
    """A preview with the templates that apply to it ("" where the plain message does), as `template preview` shows it.

    `shows` is what people get to see of it by that channel.
    """

    name: str
    channel: str
    title: str
    text: str
    shows: str
    title_by: str = ""
    text_by: str = ""


def template_problems(config: Config, event_types: Iterable[EventType]) -> list[Problem]:
    """Return what is wrong or odd with the templates of a configuration: each is tried on the preview's messages."""
    types = [one for one in event_types if one.notice]
    directory = Path(config.templates.directory)
    found: list[Problem] = []
    for name, text in config.template_texts.items():
        file = str(directory / f"{name}{SUFFIX}")
        try:
            named = TemplateName.parse(name)
            template = MessageTemplate(name, text)
        except (TemplateRefusedError, ValueError) as error:
            message, _, hint = str(error).partition("; ")
            found.append(Problem(file=file, line=getattr(error, "line", None), message=message, hint=hint))
            continue
        found += _odd_name(named, file, config, types)
        failure = next(
            (one for one in (_failure(template, named, each) for each in _trials(named, types)) if one), None
        )
        if failure is not None:
            message, _, hint = failure.message.partition("; ")
            said = f"on the preview's data: {message}"
            found.append(Problem(file=file, line=failure.line, message=said, hint=hint))
    return found


def _odd_name(named: TemplateName, file: str, config: Config, types: Sequence[EventType]) -> Iterator[Problem]:
    kinds = {kind for channels in config.receivers.values() for kind in channels}
    if named.channel and named.channel not in kinds:
        hint = did_you_mean(named.channel, sorted(kinds)) or "it is used for no message"
        yield Problem(file=file, message=f"no receiver has a channel {named.channel}", hint=hint, level="warning")
    notices = {str(one.notice) for one in types}
    if named.notice and named.notice not in notices:
        hint = did_you_mean(named.notice, sorted(notices)) or "it is used for no message"
        yield Problem(file=file, message=f"there is no notice {named.notice}", hint=hint, level="warning")


def _failure(template: MessageTemplate, named: TemplateName, trial: Preview) -> TemplateFailedError | None:
    """Return what a template does amiss with a message, None if nothing."""
    given = context_of(trial.notification, trial.obligations, _PLAIN, named.channel)
    error: TemplateFailedError | None = None
    for _ in range(TRIES):
        try:
            if template.render(given).strip():
                return None
            return TemplateFailedError("makes an empty text")
        except TemplateFailedError as failed:
            error = failed
            if f"{MAX_CPU_S * 1000:g} ms" not in failed.message:
                break
    return error


def _trials(named: TemplateName, types: Sequence[EventType]) -> Iterator[Preview]:
    """Yield what a template of this name must be fit for: one, and as many as a message carries."""
    for one in _messages(types, _PLAIN, (_RULE,)):
        if one.notification.status == named.status and named.notice in ("", one.name):
            yield one
            yield _preview(one.name, named.channel, one.obligations * MANY, _PLAIN)


def shown(
    config: Config,
    event_types: Iterable[EventType],
    place: Place,
    rules: Sequence[Rule] = (),
    notifiers: Mapping[str, type[Notifier[Any]]] | None = None,
) -> Iterator[Shown]:
    """Yield how each kind of message reads in each kind of channel that a receiver has; alerts are of the rules given.

    `notifiers` are the plugins' classes by name, which say what of it people get to see.
    """
    templates = Templates(config.template_texts)
    types = [one for one in event_types if one.notice]
    channels = {kind: one for of in config.receivers.values() for kind, one in of.items()}
    for one in _messages(types, place, rules or (_RULE,)):
        notice = one.obligations[0].notice
        of = "" if notice is None else notice.name
        for kind in sorted(channels) or [""]:
            made = templates.apply(one.notification, one.obligations, place, kind)
            table = config.notifiers[channels[kind].via] if kind else None
            cls = Notifier if table is None else (notifiers or {}).get(table.plugin, Notifier)
            title = templates.find("title", made.status, of, kind)
            text = templates.find("text", made.status, of, kind)
            yield Shown(
                one.name,
                kind,
                made.title,
                made.text,
                _seen(cls, None if table is None else table.options, made, place.site),
                "" if title is None or templates.failures[title.name] else title.name,
                "" if text is None or templates.failures[text.name] else text.name,
            )


def _seen(cls: type[Notifier[Any]], options: Any, made: Notification, site: str) -> str:
    try:
        return str(cls.shows(options, made, site))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin may raise anything; it is named
        return f"plugin {cls.__name__}: {described(error)}"


def _messages(types: Sequence[EventType], place: Place, rules: Sequence[Rule]) -> Iterator[Preview]:
    for rule in rules:
        yield _preview("firing", "", (_alerting(rule, "fire"),), place)
        yield _preview("resolved", "", (_alerting(rule, "resolve"),), place)
    for event_type in types:
        yield _preview(str(event_type.notice), "", (_noticing(event_type),), place)
    test = "Test: sixfbd can reach primary. Nothing is wrong, and nothing has to be done."
    yield _preview("notice", "", (_obligation("notice", "test", Severity.LOW, text=test),), place)


def _preview(name: str, channel: str, owed: tuple[Obligation, ...], place: Place) -> Preview:
    numbered = tuple(msgspec.structs.replace(one, id=f"{one.id}-{number}") for number, one in enumerate(owed))
    message = Message(
        id=MessageId("preview"),
        target=_TARGET,
        state="sending",
        created_at=AT,
        expires_at=AT + 1,
        obligations=(),
        group="preview",
    )
    return Preview(name, channel, render(message, numbered, place, AT + 125), numbered)


_TARGET: Final = Target("primary", "preview")


def _obligation(kind: ObligationKind, subject: str, severity: Severity, **changes: object) -> Obligation:
    made = Obligation(
        id=f"{kind}-{subject}", kind=kind, target=_TARGET, state="sending", at=AT, subject=subject, severity=severity
    )
    return msgspec.structs.replace(made, **changes)


def _alerting(rule: Rule, kind: ObligationKind) -> Obligation:
    severity = rule.severity or (rule.levels[0].severity if rule.levels else Severity.HIGH)
    labels = {"host": "shop-1", **rule.labels}
    resolved = kind == "resolve"
    about = Alert(
        key=AlertKey(rule.name, (("host", "shop-1"),)),
        id="0123456789ab",
        state=AlertState.RESOLVED if resolved else AlertState.FIRING,
        since=AT,
        severity=severity,
        value=0.93,
        labels={**labels, "alertname": rule.name, "severity": str(severity)},
        annotations={name: _annotation(text, labels) for name, text in rule.annotations.items()},
        fired_at=AT,
        resolved_at=AT + 120 if resolved else None,
        evidence=(Evidence('memory_usage_ratio{host="shop-1"}', int(AT * 1000), 0.93),),
        value_at_end=0.42 if resolved else None,
    )
    return _obligation(kind, about.id, severity, about=about)


def _annotation(text: str, labels: Mapping[str, str]) -> str:
    try:
        return compile_template(text).render(labels, 0.93, "what the check says")
    except TemplateError as error:
        return str(error)


def _noticing(event_type: EventType) -> Obligation:
    event = Event(id="preview", type=event_type.name, timestamp=AT, data=dict(event_type.example))
    words, further = "", dict[str, str]()
    if event_type.example:
        data = msgspec.convert(event_type.example, event_type.data)
        words = words if event_type.notice_text is None else event_type.notice_text(data)
        further = further if event_type.notice_labels is None else dict(event_type.notice_labels(data))
    severity = event_type.notice_severity
    stored = StoredEvent(seq=1, source="preview", received_at=AT, event=event)
    notice, text = as_notice(str(event_type.notice), stored, words, further, severity)
    return _obligation("notice", f"preview/{event_type.name}", severity, notice=notice, text=text)
