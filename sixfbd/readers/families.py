"""/metrics: the live series as metric families, each name once, with the type and help that it was declared with."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from prometheus_client import Metric

from sixfbd.model import MetricKind, Series

_SUFFIXES: Final = {
    MetricKind.HISTOGRAM: ("_bucket", "_sum", "_count"),
    MetricKind.SUMMARY: ("_sum", "_count"),
}
_TYPES: Final = {MetricKind.UNTYPED: "unknown"}


def metric_families(
    series: Iterable[tuple[Series, str]], docs: Mapping[str, str], summaries: Collection[str], lonely: Collection[str]
) -> list[Metric]:
    """Return the families of series and their checks, by name; a sample's value is the place of its series.

    The label `check` is left out for the checks in `lonely`, which are the only instances of their plugins, unless two series
    would become one. `summaries` are
    declared summaries; `docs` the help texts by metric.
    """
    families: dict[str, Metric] = {}
    seen: set[Series] = set()
    shown: set[tuple[str, frozenset[tuple[str, str]]]] = set()
    for place, (one, check) in enumerate(series):
        if one in seen:
            continue  # also reported by another check before: a series is there once
        seen.add(one)
        name, kind = _family(one, summaries)
        family = families.get(name)
        if family is None:
            doc = docs.get(name) or docs.get(one.metric) or f"{one.metric}, as its source reports it."
            family = families[name] = Metric(_base(name, kind), doc, kind)
        elif family.type != kind:
            continue  # the first declaration of a name holds; two types of one family are not a valid exposition
        labels = dict(one.labels)
        if check in lonely and labels.get("check") == check and not one.metric.startswith("sixfbd_"):
            without = {name: value for name, value in labels.items() if name != "check"}
            if (
                one.metric,
                frozenset(without.items()),
            ) not in shown:  # else another plugin's check says as much of the same
                labels = without
        shown.add((one.metric, frozenset(labels.items())))
        family.add_sample(one.metric, labels, place)
    return [families[name] for name in sorted(families)]


def _family(series: Series, summaries: Collection[str]) -> tuple[str, str]:
    """The family's name and exposition type of one series."""
    if series.metric in summaries:
        return series.metric, "summary"
    for suffix in ("_sum", "_count"):
        if series.metric.removesuffix(suffix) in summaries:
            return series.metric.removesuffix(suffix), "summary"
    if series.kind in _SUFFIXES:
        for suffix in _SUFFIXES[series.kind]:
            if series.metric.endswith(suffix):
                return series.metric.removesuffix(suffix), series.kind.value
        return series.metric, series.kind.value if series.kind is MetricKind.SUMMARY else "unknown"
    if series.kind is MetricKind.COUNTER and not series.metric.endswith("_total"):
        return series.metric, "unknown"  # OpenMetrics has no counter without the suffix
    return series.metric, _TYPES.get(series.kind, series.kind.value)


def _base(name: str, kind: str) -> str:
    return name.removesuffix("_total") if kind == "counter" else name
