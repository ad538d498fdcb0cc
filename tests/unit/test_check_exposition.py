"""Reading Prometheus' text format and OpenMetrics, held against prometheus_client as the oracle."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sixfbd.plugin import MetricKind
from sixfbd_plugins.checks.scraping.exposition import read_labels, read_lines

LABEL_VALUES = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
VALUES = st.floats(allow_nan=False)


def registry_of(labelled: list[tuple[str, float]]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    gauge = Gauge("temperature", "With\na line \\ break.", ["place"], registry=registry)
    counter = Counter("hits", "Hits.", ["path"], registry=registry)
    for text, value in labelled:
        gauge.labels(text).set(value)
        counter.labels(text).inc(abs(value) if math.isfinite(value) else 1)
    Histogram("latency_seconds", "Latency.", buckets=(0.1, 1), registry=registry).observe(0.5)
    Summary("size_bytes", "Size.", registry=registry).observe(3)
    Info("build", "Build.", registry=registry).info({"version": "1.0"})
    return registry


def read(text: str, open_metrics: bool) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (line.name, frozenset(read_labels(line.labels).items() if line.labels else ())): line.value
        for line in read_lines(text, open_metrics)
    }


def oracle(families) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): float(sample.value)
        for family in families
        for sample in family.samples
    }


@settings(deadline=None)
@given(st.lists(st.tuples(LABEL_VALUES, VALUES), max_size=5))
def test_the_text_format_reads_as_prometheus_client_reads_it(labelled):
    text = generate_latest(registry_of(labelled)).decode()
    assert read(text, open_metrics=False) == oracle(parse_text(text))


@settings(deadline=None)
@given(st.lists(st.tuples(LABEL_VALUES, VALUES), max_size=5))
def test_open_metrics_reads_as_prometheus_client_reads_it(labelled):
    text = generate_open_metrics(registry_of(labelled)).decode()
    assert read(text, open_metrics=True) == oracle(parse_open_metrics(text))


def one(text: str, open_metrics: bool = False):
    [line] = read_lines(text, open_metrics)
    return line


def test_a_counter_keeps_the_name_that_the_target_gave_it():
    line = one("# TYPE hits counter\nhits 3\n")
    assert (line.name, line.value, line.kind) == ("hits", 3.0, MetricKind.COUNTER)


@pytest.mark.parametrize(
    ("text", "value"), [("NaN", math.nan), ("+Inf", math.inf), ("-Inf", -math.inf), ("1e3", 1000.0), ("-0.5", -0.5)]
)
def test_all_forms_of_values_are_read(text, value):
    read_value = one(f"x {text}").value
    assert read_value == value or (math.isnan(value) and math.isnan(read_value))


@pytest.mark.parametrize(
    "line",
    [
        "x 1 1700000000000",
        "x\t1\t1700000000000",
        'x{} 1 # {trace_id="a}b"} 0.67 1520879607.789',
        "x 1 # {} 0.67",
        "  x  1  ",
        "x 1\r",
    ],
)
def test_timestamps_exemplars_and_blanks_are_passed_over(line):
    assert (one(line).name, one(line).value) == ("x", 1.0)


def test_a_quoted_value_may_hold_whatever_ends_things_elsewhere():
    line = one(r'x{a="} 5 # ,=\"\\\n",b="{"} 7')
    assert line.value == 7.0
    assert read_labels(line.labels) == {"a": '} 5 # ,="\\\n', "b": "{"}


@pytest.mark.parametrize("text", ['{a="1",}', '{ a = "1" , }', '{a="1"}'])
def test_labels_may_have_blanks_and_a_comma_at_the_end(text):
    assert read_labels(text) == {"a": "1"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x", "line 1 is not a sample: 'x'"),
        ("x1", "is not a sample"),
        ("x one", "'one' is not a number"),
        ("x 1_000", "is not a number"),
        ('x{a="b} 1', "is not a sample"),
        ("<html>", "is not a sample: '<html>'"),
        ("9x 1", "is not a sample"),
        ('ok 1\n\nx{"a"} 1 1 1\n', "malformed"),
    ],
)
def test_a_line_that_is_none_is_named(line, message):
    with pytest.raises(ValueError, match=message):
        [read_labels(found.labels) for found in read_lines(line, False) if found.labels]


@pytest.mark.parametrize("text", ['{a="1",a="2"}', "{a=1}", '{a="1" b="2"}', "{,}", '{a-b="1"}'])
def test_malformed_labels_are_refused(text):
    with pytest.raises(ValueError, match="labels are malformed"):
        read_labels(text)


def test_open_metrics_that_was_cut_off_is_refused():
    with pytest.raises(ValueError, match="cut off"):
        list(read_lines("# TYPE x gauge\nx 1\n", open_metrics=True))


def test_each_series_of_a_family_has_its_type():
    text = (
        '# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\n'
        '# TYPE s summary\ns{quantile="0.5"} 1\ns_sum 1\ns_count 1\n# TYPE g gauge\ng 1\nu 1\n# TYPE w strange\nw 1\n'
    )
    kinds = {line.name: line.kind for line in read_lines(text, open_metrics=False)}
    assert kinds == {
        "h_bucket": MetricKind.HISTOGRAM, "h_sum": MetricKind.HISTOGRAM, "h_count": MetricKind.HISTOGRAM,
        "s": MetricKind.GAUGE, "s_sum": MetricKind.COUNTER, "s_count": MetricKind.COUNTER,
        "g": MetricKind.GAUGE, "u": MetricKind.UNTYPED, "w": MetricKind.UNTYPED,
    }  # fmt: skip


@given(st.text(max_size=200))
def test_rubbish_is_refused_with_a_value_error_or_read(text):
    try:
        for line in read_lines(text, open_metrics=False):
            if line.labels:
                read_labels(line.labels)
    except ValueError as error:
        assert str(error)


def test_a_line_of_a_megabyte_that_never_ends_is_refused():
    for rubbish in ('x{a="' + "y" * 1_000_000, "x{" + 'a="b",' * 200_000, 'x{a="' + "y" * 1_000_000 + '"} 1'):
        with pytest.raises(ValueError, match=r"line 2 is longer than 65536 characters: 'x\{a="):
            list(read_lines(f"y 1\n{rubbish}\nz 1\n", open_metrics=False))
        with pytest.raises(ValueError, match="not a sample"):
            list(read_lines(rubbish[:60_000], open_metrics=False))


def test_a_page_of_line_ends_alone_is_refused():
    with pytest.raises(ValueError, match="more than 1000000 lines"):
        list(read_lines("\n" * 2_000_000, open_metrics=False))


def test_a_label_as_long_as_a_line_may_be_is_read():
    [line] = read_lines('x{a="' + "y\\\\" * 20_000 + '", } 1', open_metrics=False)
    assert read_labels(line.labels) == {"a": "y\\" * 20_000}


@pytest.mark.parametrize("line", ["h {count:1,sum:2,schema:0}", 'h{a="b"} {schema:3,count:2,sum:1}'])
def test_a_native_histogram_is_called_one(line):
    with pytest.raises(
        ValueError, match=r"line 1 is a native histogram, which is not read; let the target expose buckets"
    ):
        list(read_lines(line + "\n", open_metrics=False))


def test_line_ends_wherever_they_fall_in_a_long_page():
    lines = [f"metric_{number} {number}" for number in range(40_000)]
    for filler in ("", "# " + "x" * 65_000 + "\n"):
        found = [line.name for line in read_lines(filler + "\n".join(lines), open_metrics=False)]
        assert found == [line.split(" ")[0] for line in lines]
