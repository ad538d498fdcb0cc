"""Reads Prometheus' text format and OpenMetrics: name, labels, value and type of every sample, line by line.

prometheus_client's own parser renames untyped-looking counters (`hits` becomes `hits_total`), which would break rules
written for the target's real names, refuses a whole text for one label that begins with `__`, and takes 40 us a sample;
tests hold this one against it. A scrape sees the same series each time, so here the caller
keeps what a series' text meant and a known line costs one match and one look-up. Timestamps and exemplars are passed over.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from sixfbd.plugin import MetricKind

_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
# A series is a name and perhaps labels; `}` and `#` may stand within a quoted value.
_SAMPLE: Final = re.compile(
    rf'(({_NAME})(?:[ \t]*+(\{{(?:[^"}}]++|"(?:[^"\\]++|\\.)*+")*+\}}))?)(?:(?<=\}})[ \t]*|[ \t]+)([^ \t{{}}]+)(?:[ \t].*)?'
)
_LABEL: Final = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]++|\\.)*+)"[ \t]*(,|$)')
_TYPE: Final = re.compile(rf"#[ \t]+TYPE[ \t]+({_NAME})[ \t]+([a-z]+)")
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", '"': '"', "\\": "\\"}
_NATIVE: Final = re.compile(rf"{_NAME}[ \t]*(?:\{{[^{{}}]*\}}[ \t]*)?\{{[ \t]*(?:count|schema)[ \t]*:.*")
_SHOWN: Final = 80
_MAX_LINE: Final = 64 * 1024  # characters; a match holds Python's lock, and with it the daemon, for as long as it takes
_MAX_LINES: Final = 1_000_000
_SPLIT_AT_ONCE: Final = 256 * 1024  # characters

# What a family's type says of its series' names; the text format names counters in full, OpenMetrics without `_total`.
_SHARED: Final[dict[str, tuple[tuple[str, MetricKind], ...]]] = {
    "gauge": (("", MetricKind.GAUGE),),
    "histogram": tuple((suffix, MetricKind.HISTOGRAM) for suffix in ("_bucket", "_sum", "_count")),
    "summary": (("", MetricKind.GAUGE), ("_sum", MetricKind.COUNTER), ("_count", MetricKind.COUNTER)),
}
_TEXT: Final = {**_SHARED, "counter": (("", MetricKind.COUNTER),)}
_OPEN_METRICS: Final = {
    **_SHARED,
    "counter": (("_total", MetricKind.COUNTER),),
    "gaugehistogram": tuple((suffix, MetricKind.GAUGE) for suffix in ("_bucket", "_gsum", "_gcount")),
    "info": (("_info", MetricKind.GAUGE),),
    "stateset": (("", MetricKind.GAUGE),),
}


class Line(NamedTuple):
    """One sample: the text that names its series (the key to remember it by), its parts, value and type."""

    series: str
    name: str
    labels: str  # as they stand, braces included; "" without
    value: float
    kind: MetricKind


def read_lines(text: str, open_metrics: bool) -> Iterator[Line]:
    """Yield the samples of an exposition in its order. Raises ValueError that names the line.

    OpenMetrics ends with `# EOF`: without it the text was cut off. `+Inf`, `-Inf` and `NaN` are values.
    """
    families = _OPEN_METRICS if open_metrics else _TEXT
    kinds: dict[str, MetricKind] = {}
    ended = False
    for number, line in enumerate(_lines(text), 1):
        if number > _MAX_LINES:
            raise ValueError(f"the page has more than {_MAX_LINES} lines")
        line = line.strip(" \t\r")
        if not line:
            continue
        if len(line) > _MAX_LINE:
            raise ValueError(f"line {number} is longer than {_MAX_LINE} characters: {line[:_SHOWN]!r}")
        if line.startswith("#"):
            ended = ended or line == "# EOF"
            if declared := _TYPE.fullmatch(line):
                kinds.update((declared[1] + suffix, kind) for suffix, kind in families.get(declared[2], ()))
            continue
        match = _SAMPLE.fullmatch(line)
        if match is None and _NATIVE.fullmatch(line):
            raise ValueError(f"line {number} is a native histogram, which is not read; let the target expose buckets")
        if match is None:
            raise ValueError(f"line {number} is not a sample: {line[:_SHOWN]!r}")
        series, name, labels, value = match.groups("")
        yield Line(series, name, labels, _number(value, number), kinds.get(name, MetricKind.UNTYPED))
    if open_metrics and not ended:
        raise ValueError('the text ends without "# EOF": it was cut off')


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text, which may be nothing but line ends, without a list of them all."""
    at = 0
    while at <= len(text):
        end = text.find("\n", at + _SPLIT_AT_ONCE)
        end = len(text) if end < 0 else end
        yield from text[at:end].split("\n")
        at = end + 1


def read_labels(text: str) -> dict[str, str]:
    """Return the labels in a line's braces. Raises ValueError that shows them."""
    labels: dict[str, str] = {}
    inner = text[1:-1].rstrip(" \t")
    at = 0
    while at < len(inner):
        match = _LABEL.match(inner, at)
        if match is None or match[1] in labels:
            raise ValueError(f"labels are malformed or twice there: {text[:_SHOWN]!r}")
        labels[match[1]] = _ESCAPE.sub(_unescape, match[2]) if "\\" in match[2] else match[2]
        at = match.end()
    return labels


def _unescape(match: re.Match[str]) -> str:
    return _ESCAPED.get(match[1], match[0])


def _number(text: str, line: int) -> float:
    try:
        if "_" in text:  # Python takes 1_000 for a number
            raise ValueError(text)
        return float(text)
    except ValueError:
        raise ValueError(f"line {line}: {text[:_SHOWN]!r} is not a number") from None
