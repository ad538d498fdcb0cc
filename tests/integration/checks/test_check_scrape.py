"""The `scrape` check against real servers: pages good and bad, labels, limits, targets that are down."""

import gzip
import math
import socket
import time
from collections import Counter as Count
from contextlib import ExitStack
from functools import partial

import psutil
import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_asgi_app

from sixfbd.plugin import Duration, MetricKind, Secret, Size, Status, labels_of
from sixfbd_plugins.checks.probe.tls import TlsOptions
from sixfbd_plugins.checks.scrape import ScrapeCheck, ScrapeOptions
from sixfbd_plugins.checks.scraping.relabel import RelabelRule
from sixfbd_plugins.checks.targets import BasicAuth
from tests.bench.processes import free_port, need, started

BOMB = gzip.compress(b"x 1\n" * 9999, mtime=0)
OWN = {"up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling"}


@pytest.fixture
def make(context):
    """Make a check of one port (or of given targets)."""

    def scrape_check(*ports, path="/metrics", **options):
        targets = tuple(port if isinstance(port, str) else f"http://127.0.0.1:{port}{path}" for port in ports)
        return ScrapeCheck(ScrapeOptions(targets=targets, **options), context)

    return scrape_check


@pytest.fixture
def page(serve, server):
    """Serve one page and return the port."""

    async def start(text, **headers):
        body = text if isinstance(text, bytes) else text.encode()
        return await serve(server.answering(body=body, **headers))

    return start


def theirs(report):
    """The target's own series: (metric, labels without job and instance) -> value."""
    return {
        (s.metric, *(pair for pair in s.labels if pair[0] not in ("instance", "job"))): s.value
        for s in report.samples
        if s.metric not in OWN
    }


def about(report, metric):
    return {dict(s.labels)["instance"]: s.value for s in report.samples if s.metric == metric}


async def test_a_python_target_is_scraped_in_open_metrics(nursery, make):
    registry = CollectorRegistry(auto_describe=False)
    Counter("hits", "Hits.", ["path"], registry=registry).labels("/a").inc(3)
    Gauge("queue", "Queue.", registry=registry).set(math.inf)
    Histogram("latency_seconds", "Latency.", buckets=(0.1,), registry=registry).observe(0.05)
    config = Config()
    config.bind, config.errorlog = ["127.0.0.1:0"], None
    stop = trio.Event()
    app = make_asgi_app(registry)
    [bound] = await nursery.start(partial(hypercorn_serve, app, config, shutdown_trigger=stop.wait, mode="asgi"))
    report = await make(f"{bound}/metrics").run(None)
    stop.set()
    assert report.status is Status.HEALTHY, report.summary
    instance = bound.removeprefix("http://")
    found = {(s.metric, s.labels): (s.value, s.kind) for s in report.samples}
    ours = {"instance": instance, "job": "shop"}
    assert found["hits_total", labels_of({**ours, "path": "/a"})] == (3.0, MetricKind.COUNTER)
    assert found["queue", labels_of(ours)] == (math.inf, MetricKind.GAUGE)
    assert found["latency_seconds_bucket", labels_of({**ours, "le": "+Inf"})] == (1.0, MetricKind.HISTOGRAM)
    assert about(report, "up") == {instance: 1.0}
    scraped = about(report, "scrape_samples_scraped")[instance]
    assert scraped == about(report, "scrape_samples_post_metric_relabeling")[instance] == len(theirs(report)) > 5
    assert 0 < about(report, "scrape_duration_seconds")[instance] < 10


async def test_a_real_node_exporter_is_scraped(make, tmp_path):
    port = free_port()
    command = [
        need("prometheus-node-exporter", "prometheus-node-exporter"),
        f"--web.listen-address=127.0.0.1:{port}",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in ("cpu", "filesystem", "loadavg", "meminfo", "netdev", "uname")),
    ]
    with ExitStack() as stack:
        await trio.to_thread.run_sync(stack.enter_context, started(command, port, "/metrics", tmp_path / "log"))
        report = await make(port).run(None)
    assert report.status is Status.HEALTHY, report.summary
    found = {sample.metric: sample for sample in report.samples}
    assert found["node_memory_MemTotal_bytes"].value == psutil.virtual_memory().total
    assert found["node_cpu_seconds_total"].kind is MetricKind.COUNTER
    assert {
        "node_load1",
        "node_filesystem_avail_bytes",
        "node_network_receive_bytes_total",
        "node_uname_info",
    } <= found.keys()
    assert found["up"].value == 1


async def test_the_request_asks_for_both_formats_and_carries_the_credentials(serve, server, make):
    requests = []
    port = await serve(server.answering(body=b"x 1\n", requests=requests))
    check = make(port, path="/m?a=b", headers={"X-Scope": "1"}, basic_auth=BasicAuth("me", Secret("pa", "x")))
    assert (await check.run(None)).status is Status.HEALTHY
    head = requests[0].decode()
    assert head.startswith("GET /m?a=b HTTP/1.1")
    for words in ("application/openmetrics-text", "text/plain", "X-Scope: 1", "Authorization: Basic bWU6cGE=", "gzip"):
        assert words in head


async def test_a_compressed_page_is_read(page, make):
    port = await page(gzip.compress(b"x 1\n"), Content_Encoding="gzip")
    assert theirs(await make(port).run(None)) == {("x",): 1.0}


async def test_times_that_the_target_claims_are_ignored_and_nan_passes(page, make):
    report = await make(await page("a 1 1500000000000\nb NaN\nc -Inf\n")).run(None)
    values = theirs(report)
    assert values["a",] == 1.0
    assert math.isnan(values["b",])
    assert values["c",] == -math.inf


async def test_clashing_labels_of_the_target_are_exported(page, make):
    port = await page('x{instance="i",job="j",exported_job="e",check="c",team="t"} 1\n')
    report = await make(port, labels={"team": "web"}).run(None)
    [labels] = [dict(s.labels) for s in report.samples if s.metric == "x"]
    assert labels == {
        "instance": f"127.0.0.1:{port}", "job": "shop", "team": "web",
        "exported_instance": "i", "exported_job": "e", "exported_exported_job": "j", "exported_check": "c", "exported_team": "t",
    }  # fmt: skip


async def test_labels_of_the_target_are_kept_when_they_are_honored(page, make):
    port = await page('x{job="theirs",check="c"} 1\ny 2\n')
    report = await make(port, honor_labels=True).run(None)
    labels = {s.metric: dict(s.labels) for s in report.samples}
    assert labels["x"] == {"instance": f"127.0.0.1:{port}", "job": "theirs", "exported_check": "c"}
    assert labels["y"]["job"] == labels["up"]["job"] == "shop"


async def test_relabelling_renames_and_drops(page, make):
    port = await page('old_x{a="1",__tmp="t"} 1\ngo_gc 2\ngo_mem 3\n')
    rules = (
        RelabelRule(source_labels=("__name__",), regex="go_.*", action="drop"),
        RelabelRule(source_labels=("__name__",), regex="old_(.*)", target_label="__name__", replacement="new_$1"),
        RelabelRule(regex="a", action="labeldrop"),
    )
    report = await make(port, relabel=rules).run(None)
    assert theirs(report) == {("new_x",): 1.0}
    assert about(report, "scrape_samples_scraped") == {f"127.0.0.1:{port}": 3.0}
    assert about(report, "scrape_samples_post_metric_relabeling") == {f"127.0.0.1:{port}": 1.0}


async def test_of_two_samples_of_one_series_the_first_counts(page, make):
    assert theirs(await make(await page("x 1\nx 2\n")).run(None)) == {("x",): 1.0}


@pytest.mark.parametrize(("text", "headers", "options", "words"), [
    ("<html>login</html>", {}, {}, "line 1 is not a sample: '<html>login</html>'"),
    ("x 1\n", {"Content_Type": "application/openmetrics-text; version=1.0.0"}, {}, 'the text ends without "# EOF"'),
    (b"x{a=\"\xff\"} 1\n", {}, {}, "the page is not UTF-8 at byte 5"),
    ("a 1\nb 1\nc 1\n", {}, {"sample_limit": 2}, "the page has more than 2 samples (sample_limit)"),
    ('x{a="1",b="2"} 1\n', {}, {"label_limit": 3}, "x has more than 3 labels (label_limit)"),
    ("x 1\n" * 100, {}, {"max_body": Size(100)}, "the body is larger than 100B"),
    (BOMB, {"Content_Encoding": "gzip"}, {"max_body": Size(1024)}, "the page is larger than 1KiB unpacked"),
    (b"no gzip", {"Content_Encoding": "gzip"}, {}, "the page is not gzip as it says: "),
    (gzip.compress(b"x 1\n", mtime=0)[:-3], {"Content_Encoding": "gzip"}, {}, "the page is not one whole gzip stream"),
    (b"?", {"Content_Encoding": "br"}, {}, "the page is packed as 'br', which was not asked for"),
    ("x 1\n", {}, {"relabel": (RelabelRule(regex="__name__", action="labeldrop"),)}, "relabelling leaves x without a name"),
])  # fmt: skip
async def test_a_page_that_cannot_be_taken_fails_the_scrape_and_is_named(page, make, text, headers, options, words):
    port = await page(text, **headers)
    report = await make(port, **options).run(None)
    assert report.status is Status.UNHEALTHY
    assert report.summary.startswith(f"127.0.0.1:{port}: {words}")
    assert about(report, "up") == {f"127.0.0.1:{port}": 0.0}
    assert theirs(report) == {}


async def test_an_answer_that_is_not_200_is_named(serve, server, make):
    port = await serve(server.answering(503, body=b"x 1\n"))
    assert (await make(port).run(None)).summary == f"127.0.0.1:{port}: status 503, expected 200"


async def test_a_redirect_is_followed_without_the_credentials(serve, server, make):
    requests = []
    end = await serve(server.answering(body=b"x 1\n", requests=requests))
    port = await serve(server.answering(302, Location=f"http://127.0.0.1:{end}/metrics"))
    report = await make(port, bearer=Secret("hunter2", "env X")).run(None)
    assert theirs(report) == {("x",): 1.0}
    assert b"hunter2" not in requests[0]


async def test_a_target_in_tls_is_scraped(serve, server, make, certificates):
    port = await serve(server.answering(body=b"x 1\n"), certificates.signed("metrics"))
    check = make(f"https://localhost:{port}/metrics", tls=TlsOptions(ca_file=certificates.ca_file))
    assert theirs(await check.run(None)) == {("x",): 1.0}
    unknown = await make(f"https://localhost:{port}/metrics").run(None)
    assert unknown.summary == f"localhost:{port}: certificate's issuer is not known"


async def test_a_target_that_is_down_is_named_and_the_others_go_on(page, make):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        closed = taken.getsockname()[1]
        port = await page("x 1\n")
        report = await make(port, closed).run(None)
    assert report.status is Status.DEGRADED
    assert report.summary.startswith(
        f"1 of 2 targets fail: 127.0.0.1:{closed}: connection refused by 127.0.0.1 port {closed}"
    )
    assert about(report, "up") == {f"127.0.0.1:{port}": 1.0, f"127.0.0.1:{closed}": 0.0}
    assert theirs(report) == {("x",): 1.0}


async def test_a_target_that_drips_is_cut_off_and_delays_no_other(serve, page, make):
    async def dripping(stream):
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(1000):
            await stream.send_all(b"x")
            await trio.sleep(0.02)

    slow, good = await serve(dripping), await page("x 1\n")
    started = time.perf_counter()
    report = await make(slow, good, deadline=Duration(0.5)).run(None)
    assert time.perf_counter() - started < 3
    assert about(report, "up") == {f"127.0.0.1:{slow}": 0.0, f"127.0.0.1:{good}": 1.0}
    assert "timed out after 500ms in phase transfer" in report.summary


async def test_a_series_seen_again_is_not_worked_out_again_and_one_that_went_is_forgotten(
    serve, server, make, monkeypatch
):
    texts = ['x{a="1"} 1\ny 1\n', 'x{a="1"} 2\n', 'x{a="1"} 3\ny 4\n']
    pages = iter(texts)

    async def handler(stream):
        await server.answering(body=next(pages).encode())(stream)

    check = make(await serve(handler))
    worked_out = Count()
    original = check._meaning
    monkeypatch.setattr(
        check, "_meaning", lambda target, line: (worked_out.update([line.name]), original(target, line))[1]
    )
    values = [theirs(await check.run(None)) for _ in texts]
    assert values == [
        {("x", ("a", "1")): 1.0, ("y",): 1.0},
        {("x", ("a", "1")): 2.0},
        {("x", ("a", "1")): 3.0, ("y",): 4.0},
    ]
    assert worked_out == {"x": 1, "y": 2}


async def test_two_pages_of_one_port_are_told_apart(serve, server, make):
    port = await serve(server.answering(body=b"x 1\n"))
    report = await make(f"http://127.0.0.1:{port}/a", f"http://127.0.0.1:{port}/b").run(None)
    assert set(about(report, "up")) == {f"http://127.0.0.1:{port}/a", f"http://127.0.0.1:{port}/b"}


async def test_the_instance_is_host_and_port_even_where_the_address_names_no_port(make):
    check = make("http://shop.example.com/metrics", "https://pay.example.com/metrics", "http://[::1]:9100/metrics")
    assert [target.instance for target in check._targets] == [
        "shop.example.com:80",
        "pay.example.com:443",
        "[::1]:9100",
    ]


async def test_a_secret_is_in_no_summary(serve, make):
    async def hang_up(stream):
        await stream.receive_some(65536)

    report = await make(await serve(hang_up), bearer=Secret("hunter2", "env X")).run(None)
    assert report.status is Status.UNHEALTHY
    assert "hunter2" not in str(report)
