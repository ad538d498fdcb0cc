"""The families of /metrics: one of each name, typed as declared; a sample's value is the place of its series."""

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from sixfbd.model import MetricKind, Series, labels_of
from sixfbd.readers.families import metric_families


def line(metric, kind=MetricKind.GAUGE, check="web", **labels):
    return Series(metric, labels_of({"check": check, **labels}), kind), check


def shown(*latest, docs=None, summaries=(), lonely=()):
    return {
        family.name: (family.type, [(sample.name, sample.labels, sample.value) for sample in family.samples])
        for family in metric_families(latest, docs or {}, summaries, lonely)
    }


def test_the_label_check_is_left_out_where_it_says_nothing_but_never_of_the_engines_own():
    latest = (line("hits", check="a"), line("hits", check="b"), line("sixfbd_check_status", check="a"))
    assert shown(*latest, lonely={"a"}) == {
        "hits": ("gauge", [("hits", {}, 0), ("hits", {"check": "b"}, 1)]),
        "sixfbd_check_status": ("gauge", [("sixfbd_check_status", {"check": "a"}, 2)]),
    }


def test_what_two_plugins_say_of_the_same_is_two_series_and_not_one_twice():
    latest = (line("up", check="web", instance="shop"), line("up", check="scrape", instance="shop"))
    assert shown(*latest, lonely={"web", "scrape"})["up"][1] == [
        ("up", {"instance": "shop"}, 0),
        ("up", {"check": "scrape", "instance": "shop"}, 1),
    ]


def test_a_label_check_that_is_not_the_series_own_check_stays():
    series = Series("events", labels_of({"check": "elsewhere"}), MetricKind.GAUGE)
    assert shown((series, "web"), lonely={"web"})["events"][1] == [("events", {"check": "elsewhere"}, 0)]


def test_counters_histograms_and_summaries_are_one_family_each():
    latest = (
        line("sold_total", kind=MetricKind.COUNTER),
        line("odd", kind=MetricKind.COUNTER),
        line("took_bucket", kind=MetricKind.HISTOGRAM, le="+Inf"),
        line("took_sum", kind=MetricKind.HISTOGRAM),
        line("took_count", kind=MetricKind.HISTOGRAM),
        line("wait", quantile="0.5"),
        line("wait_sum", kind=MetricKind.COUNTER),
        line("wait_count", kind=MetricKind.COUNTER),
        line("raw", kind=MetricKind.UNTYPED),
    )
    found = shown(*latest, summaries={"wait"}, lonely={"web"})
    assert {name: (kind, len(samples)) for name, (kind, samples) in found.items()} == {
        "sold": ("counter", 1),
        "odd": ("unknown", 1),
        "took": ("histogram", 3),
        "wait": ("summary", 3),
        "raw": ("unknown", 1),
    }


def test_the_first_type_of_a_name_holds():
    latest = (line("x", kind=MetricKind.GAUGE, n="1"), line("x", kind=MetricKind.UNTYPED, n="2"))
    assert shown(*latest) == {"x": ("gauge", [("x", {"check": "web", "n": "1"}, 0)])}


def test_help_is_what_was_declared_or_says_where_it_comes_from():
    latest = (line("sold_total", kind=MetricKind.COUNTER), line("other"))
    helps = {family.name: family.documentation for family in metric_families(latest, {"sold_total": "Sold."}, (), ())}
    assert helps == {"sold": "Sold.", "other": "other, as its source reports it."}


def test_the_exposition_can_be_read_again():

    class Once:
        def collect(self):
            latest = (line("sold_total", MetricKind.COUNTER), line("left", city='a"b\n'))
            return metric_families(latest, {}, (), ())

    registry = CollectorRegistry()
    registry.register(Once())
    again = list(text_string_to_metric_families(generate_latest(registry).decode()))
    assert [(one.name, one.samples[0].value) for one in again] == [("left", 1.0), ("sold", 0.0)]
    assert again[0].samples[0].labels["city"] == 'a"b\n'
