"""What a plugin declares, looked at without running it: options, names, rules, event types."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from msgspec import Struct

from sixfbd.config.convert import fields_of
from sixfbd.conformance.finding import Finding
from sixfbd.containment import described
from sixfbd.host import PluginCatalog
from sixfbd.model import MetricKind
from sixfbd.plugin import ANY, EventType, Metric
from sixfbd.rules.problems import rule_problems
from sixfbd.schema import describe_options

_SECRET: Final = re.compile(r"(^|_)(password|passwd|secret|token|api_key|apikey|auth_token)$")


def look_at(catalog: PluginCatalog) -> Iterator[Finding]:
    """Yield what is wrong with the declarations of the plugins of a catalog; what several share, once."""
    said = set()
    for one in _all(catalog):
        if (one.where, one.says) not in said or not one.where:
            said.add((one.where, one.says))
            yield one


def _all(catalog: PluginCatalog) -> Iterator[Finding]:
    for info in catalog.failed:
        yield Finding(
            subject="load",
            of=f"plugin {info.name}",
            where=info.file,
            says=info.problem or "",
            mend="mend what it says; until then the daemon leaves the whole plugin out",
        )
    for kind, name, cls in classes_of(catalog):
        yield from _class(f"{kind} {name}", cls)
        yield from _metrics(f"{kind} {name}", cls, getattr(cls, "metrics", ()))
    for event_type in catalog.event_types.values():
        yield from _event_type(event_type)
    yield from _rules(catalog)


def classes_of(catalog: PluginCatalog) -> Iterator[tuple[str, str, Any]]:
    """Yield (kind, name, class) of all that may be configured."""
    yield from (("check", name, entry.cls) for name, entry in catalog.checks.items())
    yield from (("notifier", name, entry.cls) for name, entry in catalog.notifiers.items())
    yield from (("inbound", name, entry.cls) for name, entry in catalog.inbound.items())


def place_of(thing: object) -> str:
    """Return FILE:LINE of a class or function, "" if Python does not know."""
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"  # type: ignore[arg-type]  # it raises TypeError
    except (OSError, TypeError):
        return ""


def _class(of: str, cls: Any) -> Iterator[Finding]:
    where = place_of(cls)
    if not (cls.__dict__.get("__doc__") or "").strip():
        yield Finding(
            subject="options",
            of=of,
            where=where,
            says=f"the class {cls.__qualname__} has no docstring",
            mend='write one under `class`: its first line is what `sixfbd plugins` says of it, """Length of the order queue."""',
        )
    yield from _table(of, cls.Options, "", set())


def _table(of: str, table: type[Struct], header: str, seen: set[type[Struct]]) -> Iterator[Finding]:
    if table in seen:
        return
    seen.add(table)
    where = place_of(table)
    config = table.__struct_config__
    if fields_of(table) and not (config.frozen and config.forbid_unknown_fields):
        yield Finding(
            subject="options",
            of=of,
            where=where,
            says=f"{table.__qualname__} can be changed, or takes keys that it does not know",
            mend="class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True): a key with a typo is then named",
        )
    described_options = {option.key: option.description for option in describe_options(table)}
    for field in fields_of(table):
        key = f"{header}{field.key}"
        if not described_options[field.key]:
            yield Finding(
                subject="options",
                of=of,
                where=where,
                says=f"the option {key} has no description",
                mend=f'{field.attribute}: Annotated[..., msgspec.Meta(description="What it is for.")]',
            )
        if field.shape.kind == "text" and _SECRET.search(field.key):
            yield Finding(
                subject="secret",
                of=of,
                where=where,
                says=f"the option {key} is text, so that it stands in the configuration and is shown by `config show`",
                mend=f"{field.attribute}: Secret (of sixfbd.plugin); .reveal() only where it goes out",
            )
        shapes = [field.shape]
        while shapes:
            shape = shapes.pop()
            shapes += shape.inner
            if shape.kind == "table":
                yield from _table(of, shape.type, f"{key}.", seen)


def _metrics(of: str, owner: object, metrics: Any) -> Iterator[Finding]:
    if metrics is ANY:
        return
    for metric in metrics:
        says, mend = _misnamed(metric)
        if says:
            yield Finding(subject="names", of=of, where=place_of(owner), says=says, mend=mend)


def _misnamed(metric: Metric) -> tuple[str, str]:
    counts = metric.kind is MetricKind.COUNTER
    name = metric.name
    if not metric.doc.strip():
        return (
            f"the metric {name} says nothing of itself",
            f'{type(metric).__name__}("{name}", "What it is, and its unit.")',
        )
    if counts != name.endswith("_total"):
        if counts:
            return f"the counter {name} does not end in _total", f"call it {name}_total, as Prometheus does"
        return f"{name} ends in _total and is no counter", "make it a Counter if it only grows, or call it otherwise"
    if name != name.lower():
        return f"the metric {name} has capital letters", f"call it {re.sub(r'(?<!^)(?=[A-Z])', '_', name).lower()}"
    taken = {"le"} if metric.kind is not MetricKind.SUMMARY else {"le", "quantile"}
    if reserved := sorted(set(metric.labels) & taken):
        return f"the label {reserved[0]} of {name} is what histograms and summaries use", "call the label otherwise"
    return "", ""


def _event_type(event_type: EventType) -> Iterator[Finding]:
    of = f"event type {event_type.name}"
    where = place_of(event_type.data)
    yield from _metrics(of, event_type.data, event_type.metrics)
    if not event_type.example:
        return
    try:
        data = msgspec.convert(event_type.example, event_type.data)
        samples = [
            sample
            for derive in (event_type.counts, event_type.sets, event_type.observes)
            if derive is not None
            for sample in derive(data)
        ]
        for derive_more in (event_type.notice_text, event_type.notice_labels, event_type.receipt):
            if derive_more is not None:
                derive_more(data)
    except Exception as error:  # noqa: BLE001 - a plugin's code may raise anything; it is what is looked for
        yield Finding(
            subject="events",
            of=of,
            where=where,
            says=f"its own example fails: {described(error)}",
            mend="mend the example, or what is derived of it; the daemon would count each such event as failing",
        )
        return
    declared = {metric.name for metric in event_type.metrics}
    for name in sorted({sample.metric for sample in samples} - declared):
        yield Finding(
            subject="events",
            of=of,
            where=where,
            says=f"its example yields {name}, which its metrics do not declare",
            mend=f"EventType(..., metrics=[...]) with the metric {name}",
        )


def _rules(catalog: PluginCatalog) -> Iterator[Finding]:
    own = [rule for rule in catalog.rules if rule.origin.startswith("plugin ")]
    for problem in rule_problems(own):
        yield Finding(
            subject="rules",
            of=f"rule {problem.rule}",
            says=problem.message,
            mend="mend the rule's PromQL or template; until then the daemon leaves the rule out",
        )
    for rule in own:
        if not rule.annotations.get("summary"):
            yield Finding(
                subject="rules",
                of=f"rule {rule.name}",
                says="it has no summary: whoever is woken by it reads its name alone",
                mend='annotations={"summary": "{{ $value }} orders wait in {{ $labels.shop }}"}',
            )
