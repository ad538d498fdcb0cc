"""Requests of the shop: paths in groups, and what is told of slow and failing ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.rules import bind_rules
from sixfbd_plugins.business.requests import MOST_SEGMENTS, OTHER, RULES, Paths
from tests import rules_kit


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/", "/"),
        ("/checkout?step=2#pay", "/checkout"),
        ("/orders/123", "/orders/:id"),
        ("/orders/123/", "/orders/:id"),
        ("/api/v1/cities/dallas-2026-03/tiers", "/api/v1/cities/dallas-2026-03/tiers"),
        ("/o/0f8fad5b-d9cb-469f-a165-70867728950e/receipt", "/o/:id/receipt"),
        ("/files/9b74c9897bac770ffc029102a200c5de", "/files/:id"),
        ("/pay/pi_3MtwBwLkdIwHu7ix28a3tqPa", "/pay/:id"),
        ("/caf%C3%A9/menu", "/:id/menu"),
        ("/a/b/c/d/e/f/g", "/a/b/c/d/e/f/..."),
        ("/_next/static/chunks/main.js", "/_next/static/chunks/main.js"),
    ],
)
def test_what_is_another_one_in_each_request_is_no_group_of_its_own(path, group):
    assert Paths().group(path) == group


@given(st.lists(st.text(max_size=60), max_size=60))
def test_there_are_never_more_groups_than_may_be_and_a_group_stays_what_it_is(paths):
    grouping = Paths(most=5)
    found = [grouping.group(f"/{path}") for path in paths]
    assert len(set(found) - {OTHER}) <= 5
    assert found == [grouping.group(f"/{path}") for path in paths]
    assert all(group.count("/") <= MOST_SEGMENTS + 1 for group in found)


@pytest.fixture
def found(snapshot_of):
    bound = bind_rules(RULES)
    assert not bound.errors
    return lambda rule, series, at: rules_kit.found(bound, rule, snapshot_of(series), at)


def test_a_very_slow_answer_is_told_with_its_path_and_the_worst_time_even_the_first_one(found):
    series = 'http_slow_request_seconds{path="/a"} _ _ 4.5 2.5\nhttp_slow_requests_total{path="/a"} _ _ 1 2'
    assert found("VerySlowResponse", series, 180.0) == [(4500.0, "high", "Very slow API response: /a took 4500ms")]


@pytest.mark.parametrize(
    "series",
    [
        'http_slow_request_seconds{path="/a"} _ _ 3.9 2.5\nhttp_slow_requests_total{path="/a"} _ _ 1 2',
        'http_slow_request_seconds{path="/a"} 9 9 9 9 9 9 9 9\nhttp_slow_requests_total{path="/a"} 1 1 1 1 1 1 1 1',
    ],
)
def test_what_was_not_that_slow_or_not_lately_is_not(found, series):
    assert found("VerySlowResponse", series, 60.0 * (len(series.split("\n")[0].split()) - 2)) == []


@pytest.mark.parametrize(("failed", "told"), [(3, True), (2, False)])
def test_more_than_one_failing_request_in_a_hundred_is_told(found, failed, told):
    counts = {"200": 200 - failed, "500": failed}
    series = "\n".join(
        f'http_requests_total{{method="GET",status="{code}"}} 0 {count}' for code, count in counts.items()
    )
    assert bool(found("HighHTTPErrorRate", series, 60.0)) is told


def test_of_a_handful_of_requests_nothing_is_said(found):
    series = 'http_requests_total{method="GET",status="200"} 0 20\nhttp_requests_total{method="GET",status="500"} 0 5'
    assert found("HighHTTPErrorRate", series, 60.0) == []
