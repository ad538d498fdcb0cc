"""/metrics rendered again only where something changed says what a rendering of everything would say."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest as text_form
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_form
from prometheus_client.utils import floatToGoString

from sixfbd.http.engine import Encoder
from sixfbd.model import MetricKind, Series, labels_of
from sixfbd.readers.exposition import SLICE, Exposition, Families, encode_families, ends_of_lines
from sixfbd.readers.families import metric_families
from sixfbd.window.window import Newest, Window

SERIES = [
    Series("jobs_total", labels_of({"check": "c"}), MetricKind.COUNTER),
    Series("temperature", labels_of({"check": "c", "at": 'quo"ted \\ line\nbreak'}), MetricKind.GAUGE),
    Series("temperature", labels_of({"check": "c", "at": "é\u2028 # EOF"}), MetricKind.GAUGE),
    Series("temperature", labels_of({"check": "other", "at": "x"}), MetricKind.GAUGE),
    Series("odd_created", labels_of({"check": "c"}), MetricKind.UNTYPED),
    Series("jobs_total", labels_of({"check": "c", "kind": "gauge"}), MetricKind.GAUGE),
    Series("took_seconds", labels_of({"check": "c", "quantile": "0.5"}), MetricKind.GAUGE),
    Series("took_seconds_count", labels_of({"check": "c"}), MetricKind.COUNTER),
]
DOCS = {"temperature": "Degrees,\nin \\ Celsius."}
VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, 1e6, 1234567.0, 1e21, 1e-9, math.inf, -math.inf, math.nan]), st.floats()
)
STALE_MS = 60_000
forms = pytest.mark.parametrize("encode", [text_form, openmetrics_form])


def render(exposition: Exposition, newest: Newest, families: Families) -> bytes:
    if not exposition.fits(newest, "k"):
        exposition.lay_out(newest, "k", families)
    for _ in exposition.take(newest):
        pass
    return exposition.page()


def families(newest: Newest):
    return metric_families(newest.series(), DOCS, {"took_seconds"}, {"c"})


def rendered_whole(encode: Encoder, newest: Newest) -> bytes:
    """What the library writes of the values themselves, families without a sample left out."""
    values = [
        float(value) if shown else None
        for part in newest.layouts
        for value, shown in zip(part.values, part.shown, strict=True)
    ]
    values += [step.value for step in newest.steps]
    kept = []
    for family in families(newest):
        family.samples = [
            one._replace(value=values[int(one.value)]) for one in family.samples if values[int(one.value)] is not None
        ]
        if family.samples:
            kept.append(family)
    return encode_families(encode, kept)


@forms
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.integers(0, len(SERIES) - 1), VALUES, max_size=len(SERIES)),
            st.booleans(),
            st.sampled_from([1_000, 30_000, 90_000]),
            st.one_of(st.none(), st.floats(0, 100)),
        ),
        max_size=8,
    )
)
def test_it_says_what_a_rendering_of_everything_would_say(encode, reports):
    window, exposition, at = Window(), Exposition(encode), 1_000_000
    sold = Series("sold_total", labels_of({"city": "dallas"}), MetricKind.COUNTER)
    for report, complete, later, add in reports:
        at += later
        rows = [(SERIES[number], value) for number, value in report.items()]
        window.append("c", at, rows, complete=complete, stale_after_ms=STALE_MS)
        if add is not None:
            window.step(sold, at, add)
        newest = window.newest(at + 500)
        assert render(exposition, newest, families) == rendered_whole(encode, newest)


def steady(encode: Encoder, asked: list[int]) -> tuple[Window, Exposition, Callable[[], bytes]]:
    window, exposition = Window(), Exposition(encode)

    def counted(newest: Newest):
        asked.append(1)
        return families(newest)

    return window, exposition, lambda: render(exposition, window.newest(1_002_000), counted)


@forms
def test_the_library_is_asked_only_when_there_are_other_series(encode):
    asked: list[int] = []
    window, _, rendered = steady(encode, asked)
    window.append("c", 1_000_000, [(SERIES[1], 1.0)], complete=True, stale_after_ms=STALE_MS)
    first = rendered()
    window.append("c", 1_001_000, [(SERIES[1], 2.5)], complete=True, stale_after_ms=STALE_MS)
    assert rendered() == first.replace(b" 1.0\n", b" 2.5\n")
    assert len(asked) == 1
    window.append("c", 1_002_000, [(SERIES[1], 2.5), (SERIES[2], 3.0)], complete=True, stale_after_ms=STALE_MS)
    assert rendered().count(b"\ntemperature{") == 2
    assert len(asked) == 2


def test_a_series_of_two_checks_is_there_once():
    window = Window()
    for check in ("a", "b"):
        window.append(check, 1_000_000, [(SERIES[3], 1.0)], complete=True, stale_after_ms=STALE_MS)
    text = render(Exposition(text_form), window.newest(1_000_500), families)
    assert text.count(b"temperature{") == 1


@given(st.lists(VALUES, min_size=1))
def test_values_are_written_as_the_library_writes_them(values):
    assert ends_of_lines(np.array(values)) == [f"{floatToGoString(value)}\n".encode() for value in values]


@forms
def test_what_is_written_in_slices_and_left_in_the_middle_is_written_the_next_time(encode):
    window, exposition = Window(), Exposition(encode)
    many = [Series("many", labels_of({"check": "c", "n": str(n)}), MetricKind.GAUGE) for n in range(2 * SLICE + 1)]
    cut = 0
    for step in range(7):
        rows = [(one, 0.5 + step) for one in many[step % 2 :]]
        window.append("c", 1_000_000 + step, rows, complete=True, stale_after_ms=STALE_MS)
        newest = window.newest(1_000_100)
        if not exposition.fits(newest, "k"):
            exposition.lay_out(newest, "k", families)
        slices = exposition.take(newest)
        for _ in zip(range(step), slices, strict=False):
            pass
        cut += next(slices, "at its end") is None
        if step % 3 == 2:
            assert render(exposition, newest, families) == rendered_whole(encode, newest)
    assert cut > 2
