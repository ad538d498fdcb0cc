"""The `webhook` check against real servers: good ones, and every kind of bad one."""

import random
import socket
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from quart import request
from quart_trio import QuartTrio

from sixfbd.plugin import DAY, Duration, Secret, Size, Status
from sixfbd_plugins.checks.probe.tls import TlsOptions
from sixfbd_plugins.checks.targets import BasicAuth
from sixfbd_plugins.checks.webhook import WebhookCheck, WebhookOptions


@pytest.fixture
def probe(context):
    """Run one probe and return its report, its values by metric (phases by metric and phase), and its duration."""

    async def run(url="", timeout_s=10.0, **options):
        check = WebhookCheck(WebhookOptions(url=url, **options), context)
        started = time.perf_counter()
        with trio.fail_after(timeout_s):
            report = await check.run(None)
        values = {}
        for sample in report.samples:
            labels = dict(sample.labels)
            values[(sample.metric, labels["phase"]) if "phase" in labels else sample.metric] = sample.value
        return report, values, time.perf_counter() - started

    return run


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]  # bound and not listening: refused, and nobody else gets it


@pytest.fixture
async def shop(nursery):
    """The shop as users would run it: quart-trio on hypercorn."""
    app = QuartTrio("shop")

    @app.get("/health")
    async def health():
        return {"status": "ok", "services": [{"name": "db", "ok": True}], "agent": request.headers["User-Agent"]}

    @app.post("/echo")
    async def echo():
        return await request.get_data(), 201, {"Content-Type": "text/plain"}

    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = config.accesslog = None
    stop = trio.Event()
    [bound] = await nursery.start(partial(hypercorn_serve, app, config, shutdown_trigger=stop.wait))
    yield bound
    stop.set()


async def test_a_good_answer_is_healthy_and_measured(shop, probe):
    report, values, seconds = await probe(
        f"{shop}/health", expect_json={"status": "ok", "services[0].ok": True}, body_must_match=("sixfbd/0.1.0",)
    )
    assert report.status is Status.HEALTHY
    assert report.summary.startswith("status 200 in 0.")
    assert report.reachable
    assert values["up"] == values["probe_success"] == 1
    assert values["probe_http_status_code"] == 200
    assert values["probe_http_version"] == 1.1
    assert values["probe_ip_protocol"] == 4
    assert values["probe_http_ssl"] == values["probe_http_redirects"] == values["probe_failed_due_to_regex"] == 0
    assert values["probe_http_content_length"] == values["probe_http_uncompressed_body_length"] > 20
    assert "probe_ssl_earliest_cert_expiry" not in values
    phases = [
        values["probe_http_duration_seconds", phase]
        for phase in ("resolve", "connect", "tls", "processing", "transfer")
    ]
    assert all(phase > 0 for phase in phases[:2] + phases[3:])
    assert phases[2] == 0
    assert sum(phases) <= values["probe_duration_seconds"] <= seconds


async def test_up_carries_the_name_of_the_check_as_its_job(shop, probe):
    report, _, _ = await probe(f"{shop}/health")
    [up] = [dict(sample.labels) for sample in report.samples if sample.metric == "up"]
    assert up == {"job": "shop", "instance": f"{shop}/health"}


async def test_method_headers_and_body_are_sent(shop, probe):
    report, values, _ = await probe(
        f"{shop}/echo", method="POST", body="hello", expected_status=(201,), body_must_match=("^hello$",)
    )
    assert report.status is Status.HEALTHY, report.summary
    assert values["probe_http_uncompressed_body_length"] == 5


async def test_credentials_and_headers_reach_the_server_and_no_summary(serve, server, probe):
    requests = []
    port = await serve(server.answering(500, requests=requests))
    report, _, _ = await probe(
        f"http://127.0.0.1:{port}/",
        headers={"Host": "shop.example.com", "User-Agent": "mine"},
        secret_headers={"X-Key": Secret("hunter2", "env KEY")},
        basic_auth=BasicAuth("me", Secret("passw0rd", "env PASSWORD")),
    )
    head = requests[0].decode()
    for line in (
        "Host: shop.example.com",
        "User-Agent: mine",
        "X-Key: hunter2",
        "Authorization: Basic bWU6cGFzc3cwcmQ=",
    ):
        assert head.count(line) == 1
    assert head.lower().count("host:") == head.lower().count("user-agent:") == 1
    assert "hunter2" not in str(report)
    assert "passw0rd" not in str(report)


@pytest.mark.parametrize(("answer", "options", "summary"), [
    ((500, b"sorry"), {}, "status 500, expected 2xx"),
    ((404, b""), {"expected_status": ("2xx", 403)}, "status 404, expected 2xx or 403"),
    ((200, b"under construction"), {"body_must_match": ("Tickets",)}, "body does not match 'Tickets'"),
    ((200, b"Fatal error"), {"body_must_not_match": ("Fatal",)}, "body matches 'Fatal', which it must not"),
    ((200, b"<html>"), {"expect_json": {"ok": True}}, "body is not JSON"),
    ((200, b'{"ok": false}'), {"expect_json": {"ok": True}}, "JSON ok is false, expected true"),
])  # fmt: skip
async def test_a_wrong_answer_is_unhealthy_and_said_in_words(serve, server, probe, answer, options, summary):
    port = await serve(server.answering(*answer))
    report, values, _ = await probe(f"http://127.0.0.1:{port}/", **options)
    assert (report.status, report.summary) == (Status.UNHEALTHY, summary)
    assert report.reachable
    assert values["probe_success"] == values["up"] == 0
    assert values["probe_http_status_code"] == answer[0]
    assert values["probe_failed_due_to_regex"] == float(summary.startswith("body") and "JSON" not in summary)


async def test_a_refused_connection_is_named(probe, closed_port):
    report, values, _ = await probe(f"http://127.0.0.1:{closed_port}/")
    assert report.summary == f"connection refused by 127.0.0.1 port {closed_port}"
    assert report.status is Status.UNHEALTHY
    assert report.reachable is False
    assert values["probe_http_status_code"] == 0
    assert values["probe_http_duration_seconds", "processing"] == 0


async def test_a_name_that_does_not_exist_is_named_as_dns(probe):
    report, _, _ = await probe("http://nobody.invalid/")
    assert report.summary.startswith("DNS: nobody.invalid cannot be resolved: ")


async def test_a_name_that_is_too_long_for_dns_is_named_as_dns(probe):
    report, _, _ = await probe(f"http://{'a' * 70}.example.com/")
    assert report.summary.startswith("DNS: ")


async def test_of_two_addresses_the_second_is_tried_when_the_first_refuses(serve, server, probe):
    port = await serve(server.answering(), host="127.0.0.1")
    report, values, _ = await probe(f"http://localhost:{port}/", ip_protocol="6")
    assert report.status is Status.HEALTHY, report.summary
    assert values["probe_ip_protocol"] == 4


async def test_an_ip_version_without_fallback_is_kept_to(probe):
    report, _, _ = await probe("http://127.0.0.1:1/", ip_protocol="6", ip_fallback=False)
    assert report.summary == "DNS: 127.0.0.1 has no IPv6 address"


async def silent(stream):
    await trio.sleep_forever()


async def dripping(stream):
    await stream.receive_some(65536)
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(1000):
        await stream.send_all(b"x")
        await trio.sleep(0.02)


async def dripping_head(stream):
    await stream.receive_some(65536)
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X-Long: 1\r\n" * 100:
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.02)


@pytest.mark.parametrize(("handler", "phase", "words"), [
    (silent, "processing", "waiting for the answer"),
    (dripping_head, "processing", "waiting for the answer"),
    (dripping, "transfer", "reading the body"),
], ids=["no answer", "dripping head", "dripping body"])  # fmt: skip
async def test_a_slow_server_is_cut_off_at_the_deadline_and_the_phase_named(serve, probe, handler, phase, words):
    port = await serve(handler)
    report, values, seconds = await probe(f"http://127.0.0.1:{port}/", deadline=Duration(0.3))
    assert report.summary.startswith(f"timed out after 300ms in phase {phase} ({words}")
    assert values["probe_http_duration_seconds", phase] == pytest.approx(values["probe_duration_seconds"], abs=0.2)
    assert 0.3 <= seconds < 3


async def test_a_server_that_never_ends_the_handshake_times_out_in_tls(serve, probe):
    port = await serve(silent)
    report, values, _ = await probe(f"https://127.0.0.1:{port}/", deadline=Duration(0.3))
    assert report.summary == "timed out after 300ms in phase tls (agreeing on TLS)"
    assert values["probe_http_ssl"] == 0


async def test_the_report_is_made_before_the_engine_would_cancel_the_run(serve, probe):
    port = await serve(silent)
    report, _, seconds = await probe(f"http://127.0.0.1:{port}/", timeout_s=1.0, deadline=Duration(60))
    assert "timed out" in report.summary
    assert seconds < 1.0


async def hang_up(stream):
    await stream.receive_some(65536)


async def half_body(stream):
    await stream.receive_some(65536)
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


async def no_http(stream):
    await stream.receive_some(65536)
    await stream.send_all(b"220 mail.example.com ESMTP\r\n\r\n")


async def reset(stream):
    await stream.receive_some(65536)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def endless_head(stream):
    await stream.receive_some(65536)
    await stream.send_all(b"HTTP/1.1 200 OK\r\n")
    for _ in range(100_000):
        await stream.send_all(b"X-Header: " + b"y" * 1000 + b"\r\n")


@pytest.mark.parametrize(("handler", "words"), [
    (hang_up, "the server closed the connection without an HTTP answer"),
    (half_body, "the body ended early, after 4 bytes: "),
    (no_http, "the answer is not HTTP: "),
    (reset, "connection lost while waiting for the answer: connection reset by peer"),
    (endless_head, "the answer is not HTTP: "),
])  # fmt: skip
async def test_a_server_that_misbehaves_is_named(serve, probe, handler, words):
    port = await serve(handler)
    report, values, _ = await probe(f"http://127.0.0.1:{port}/")
    assert report.summary.startswith(words)
    assert values["probe_success"] == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_body_that_is_too_large_is_not_read_to_its_end(serve, probe, certificates, scheme):
    sent = 0

    async def ten_megabytes(stream):
        nonlocal sent
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n")
        for _ in range(160):
            await stream.send_all(b"x" * 65536)
            sent += 65536

    port = await serve(ten_megabytes, certificates.self_signed("large") if scheme == "https" else None)
    report, values, _ = await probe(
        f"{scheme}://127.0.0.1:{port}/", max_body=Size(64 * 1024), tls=TlsOptions(insecure_skip_verify=True)
    )
    assert report.summary == "the body is larger than 64KiB"
    assert values["probe_http_uncompressed_body_length"] < 1024 * 1024
    assert sent < 10 * 1024 * 1024


async def test_a_body_of_ten_megabytes_is_read_when_allowed(serve, server, probe):
    port = await serve(server.answering(body=b"x" * 10_000_000 + b"end"))
    report, values, _ = await probe(
        f"http://127.0.0.1:{port}/", max_body=Size(16 * 1024 * 1024), body_must_match=("end$",)
    )
    assert report.status is Status.HEALTHY, report.summary
    assert values["probe_http_uncompressed_body_length"] == 10_000_003


async def test_redirects_are_followed_counted_and_lose_credentials_on_another_host(serve, server, probe):
    first, second = [], []
    end = await serve(server.answering(requests=second))
    start = await serve(server.answering(302, requests=first, Location=f"http://127.0.0.1:{end}/there"))
    report, values, _ = await probe(
        f"http://127.0.0.1:{start}/here",
        method="POST",
        body="x=1",
        bearer=Secret("t0ken", "x"),
        secret_headers={"X-Key": Secret("k3y", "x")},
        headers={"Cookie": "c00kie", "X-Plain": "yes"},
    )
    assert report.status is Status.HEALTHY, report.summary
    assert values["probe_http_redirects"] == 1
    assert first[0].startswith(b"POST /here")
    assert all(word in first[0] for word in (b"t0ken", b"k3y", b"c00kie", b"X-Plain: yes"))
    assert second[0].startswith(b"GET /there HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{end}".encode() in second[0]
    assert not any(word in second[0] for word in (b"t0ken", b"k3y", b"c00kie", b"Content-Length", b"x=1"))
    assert b"X-Plain: yes" in second[0]


async def test_a_redirect_on_the_same_host_keeps_credentials_and_the_method_of_307(serve, probe, server):
    requests = []

    async def twice(stream):
        requests.append(await server.read_request(stream))
        answer = b"HTTP/1.1 307 X\r\nLocation: ../b?q=1#part\r\n" if len(requests) == 1 else b"HTTP/1.1 200 X\r\n"
        await stream.send_all(answer + b"Content-Length: 0\r\n\r\n")

    port = await serve(twice)
    report, _, _ = await probe(f"http://127.0.0.1:{port}/x/a", method="PUT", body="1", bearer=Secret("t0ken", "x"))
    assert report.status is Status.HEALTHY, report.summary
    assert requests[1].startswith(b"PUT /b?q=1 HTTP/1.1")
    assert requests[1].endswith(b"1")
    assert b"t0ken" in requests[1]


async def test_a_redirect_that_is_not_followed_is_the_answer(serve, server, probe):
    port = await serve(server.answering(301, Location="/x"))
    report, values, _ = await probe(f"http://127.0.0.1:{port}/", follow_redirects=False, expected_status=(301,))
    assert report.status is Status.HEALTHY, report.summary
    assert values["probe_http_redirects"] == 0


@pytest.mark.parametrize(("location", "words"), [
    ("/again?token=t0ken", "more than 10 redirects, the last to http://127.0.0.1:"),
    ("ftp://files.example.com/", "redirects to ftp://files.example.com/, which is not HTTP"),
    ("http://[::1", "redirects to something that is not an address: "),
])  # fmt: skip
async def test_a_redirect_that_leads_nowhere_is_named(serve, server, probe, location, words):
    port = await serve(server.answering(302, Location=location))
    report, _, _ = await probe(f"http://127.0.0.1:{port}/")
    assert report.summary.startswith(words)
    assert "t0ken" not in report.summary


async def test_a_good_certificate_is_verified_and_its_end_reported(serve, server, probe, certificates):
    port = await serve(server.answering(), certificates.signed("good", ends=12))
    report, values, _ = await probe(f"https://localhost:{port}/", tls=TlsOptions(ca_file=certificates.ca_file))
    assert report.status is Status.HEALTHY, report.summary
    assert values["probe_http_ssl"] == 1
    assert values["probe_http_duration_seconds", "tls"] > 0
    assert values["probe_ssl_earliest_cert_expiry"] == pytest.approx(time.time() + 12 * DAY, abs=300)


@pytest.mark.parametrize(("make", "words", "ends_in_days"), [
    (lambda made: made.signed("expired", begins=-9, ends=-3.5), "certificate expired 3 days ago, on ", -3.5),
    (lambda made: made.signed("early", begins=2.5, ends=9), "certificate is not valid before ", 9),
    (lambda made: made.signed("other", names="DNS:else.example.com"), "certificate is for another host, not 127.0.0.1", 30),
    (lambda made: made.self_signed("own"), "certificate is self-signed", 5),
], ids=["expired", "not yet valid", "other host", "self-signed"])  # fmt: skip
async def test_a_bad_certificate_is_refused_named_and_its_end_reported(
    serve, server, probe, certificates, make, words, ends_in_days
):
    port = await serve(server.answering(), make(certificates))
    report, values, _ = await probe(f"https://127.0.0.1:{port}/", tls=TlsOptions(ca_file=certificates.ca_file))
    assert report.summary.startswith(words)
    assert values["probe_http_status_code"] == values["probe_success"] == values["probe_http_ssl"] == 0
    assert values["probe_ssl_earliest_cert_expiry"] == pytest.approx(time.time() + ends_in_days * DAY, abs=300)


async def test_a_certificate_of_an_unknown_authority_is_refused(serve, server, probe, certificates):
    port = await serve(server.answering(), certificates.signed("unknown"))
    report, _, _ = await probe(f"https://127.0.0.1:{port}/")
    assert report.summary == "certificate's issuer is not known"


async def test_any_certificate_is_taken_without_verification_and_its_end_still_reported(
    serve, server, probe, certificates
):
    port = await serve(
        server.answering(), certificates.signed("late", names="DNS:else.example.com", begins=-9, ends=-1)
    )
    report, values, _ = await probe(f"https://127.0.0.1:{port}/", tls=TlsOptions(insecure_skip_verify=True))
    assert report.status is Status.HEALTHY, report.summary
    assert values["probe_ssl_earliest_cert_expiry"] == pytest.approx(time.time() - DAY, abs=300)


async def test_another_server_name_is_asked_for_and_verified(serve, server, probe, certificates):
    asked = []
    tls = certificates.signed("named", names="DNS:shop.example.com")
    tls.sni_callback = lambda connection, name, context: asked.append(name)
    port = await serve(server.answering(), tls)
    for options in (
        {"tls": TlsOptions(ca_file=certificates.ca_file, server_name="shop.example.com")},
        {"tls": TlsOptions(ca_file=certificates.ca_file), "headers": {"Host": "shop.example.com"}},
    ):
        report, _, _ = await probe(f"https://127.0.0.1:{port}/", **options)
        assert report.status is Status.HEALTHY, report.summary
    assert asked == ["shop.example.com"] * 2


async def test_a_server_without_tls_is_named(serve, probe):
    port = await serve(no_http)
    report, _, _ = await probe(f"https://127.0.0.1:{port}/")
    assert report.summary == "TLS: the server does not answer in TLS"


async def test_a_server_that_hangs_up_in_the_handshake_is_named(serve, probe):
    port = await serve(hang_up)
    report, _, _ = await probe(f"https://127.0.0.1:{port}/")
    assert report.summary.startswith("TLS: ")


async def test_an_authority_file_that_is_gone_by_the_first_run_is_told_by_the_report(probe, certificates, tmp_path):
    file = tmp_path / "ca.pem"
    file.write_bytes(Path(certificates.ca_file).read_bytes())
    tls = TlsOptions(ca_file=str(file))
    file.unlink()
    report, values, _ = await probe("https://127.0.0.1:1/", tls=tls)
    assert report.status is Status.UNKNOWN
    assert report.summary == f"tls: {file}: no such file or directory; a PEM file of certificates is needed"
    assert values == {}


async def pump(source, sink):
    async for piece in source:
        await sink.send_all(piece)


@pytest.fixture
async def proxy(serve, server):
    """A forward proxy for plain HTTP and CONNECT; yields its port and the request lines that it saw."""
    lines = []

    async def handler(stream):
        data = await server.read_request(stream)
        lines.append(data.decode())
        method, target, _ = data.split(b" ", 2)
        place = target if method == b"CONNECT" else target.split(b"/")[2]
        host, _, port = place.decode().rpartition(":")
        async with await trio.open_tcp_stream(host, int(port)) as upstream:
            if method == b"CONNECT":
                await stream.send_all(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                await upstream.send_all(data)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pump, stream, upstream)
                await pump(upstream, stream)
                nursery.cancel_scope.cancel()

    yield await serve(handler), lines


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_is_used_with_its_credentials(serve, server, probe, proxy, certificates, scheme):
    proxy_port, lines = proxy
    tls = certificates.signed("behind") if scheme == "https" else None
    port = await serve(server.answering(), tls)
    report, values, _ = await probe(
        f"{scheme}://localhost:{port}/",
        proxy=f"http://127.0.0.1:{proxy_port}",
        proxy_auth=BasicAuth("me", Secret("pa", "x")),
        tls=TlsOptions(ca_file=certificates.ca_file),
    )
    assert report.status is Status.HEALTHY, report.summary
    assert "Proxy-Authorization: Basic bWU6cGE=" in lines[0]
    assert lines[0].startswith(f"CONNECT localhost:{port}" if scheme == "https" else f"GET http://localhost:{port}/")
    assert ("probe_ssl_earliest_cert_expiry" in values) is (scheme == "https")


async def test_a_socks_proxy_is_used_and_given_the_name(serve, server, probe, certificates):
    asked = []
    port = await serve(server.answering(), certificates.signed("behind-socks"))

    async def socks(stream):
        await stream.receive_some(64)
        await stream.send_all(b"\x05\x00")  # version 5, no authentication
        request = await stream.receive_some(512)
        asked.append(request[5:-2].decode())
        await stream.send_all(b"\x05\x00\x00\x01" + bytes(6))
        async with await trio.open_tcp_stream("127.0.0.1", port) as upstream, trio.open_nursery() as nursery:
            nursery.start_soon(pump, stream, upstream)
            await pump(upstream, stream)
            nursery.cancel_scope.cancel()

    report, _, _ = await probe(
        f"https://localhost:{port}/",
        proxy=f"socks5://127.0.0.1:{await serve(socks)}",
        tls=TlsOptions(ca_file=certificates.ca_file),
    )
    assert report.status is Status.HEALTHY, report.summary
    assert asked == ["localhost"]


async def test_a_proxy_that_refuses_is_named(serve, server, probe):
    port = await serve(server.answering(407))
    report, _, _ = await probe("https://shop.example.com/", proxy=f"http://127.0.0.1:{port}")
    assert report.summary == f"the proxy 127.0.0.1 port {port} refused: 407 X"


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_is_not_there_is_told_from_a_target_that_is_not(probe, closed_port, scheme):
    report, _, _ = await probe(f"{scheme}://shop.example.com/", proxy=f"http://127.0.0.1:{closed_port}")
    assert report.summary == f"the proxy cannot be reached: connection refused by 127.0.0.1 port {closed_port}"
    report, _, _ = await probe("http://shop.example.com/", proxy="http://proxy.invalid:3128")
    assert report.summary.startswith("the proxy cannot be reached: DNS: proxy.invalid cannot be resolved")


async def test_a_proxy_that_speaks_no_socks_is_named(serve, probe):
    async def web_server(stream):
        await stream.receive_some(64)
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    port = await serve(web_server)
    report, _, _ = await probe("http://shop.example.com/", proxy=f"socks5://127.0.0.1:{port}")
    assert report.summary == f"the proxy 127.0.0.1 port {port} does not speak SOCKS5"


async def test_several_targets_are_probed_at_once_and_one_bad_one_degrades(serve, server, probe, closed_port):
    slow_started = []

    async def slow(stream):
        slow_started.append(trio.current_time())
        await server.read_request(stream)
        await trio.sleep(0.3)
        await stream.send_all(b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n")

    ports = [await serve(slow) for _ in range(3)]
    urls = [f"http://127.0.0.1:{port}/" for port in (*ports, closed_port)]
    report, _, _ = await probe(targets=tuple(urls))
    assert report.status is Status.DEGRADED
    assert report.summary == f"1 of 4 targets fail: {urls[3]}: connection refused by 127.0.0.1 port {closed_port}"
    assert [sample.value for sample in report.samples if sample.metric == "probe_success"] == [1, 1, 1, 0]
    assert max(slow_started) - min(slow_started) < 0.3  # one after the other they would start 0.3 s apart


async def test_the_same_series_are_reported_whether_a_probe_succeeds_or_fails(serve, server, probe, closed_port):
    good, _, _ = await probe(f"http://127.0.0.1:{await serve(server.answering())}/")
    bad, _, _ = await probe(f"http://127.0.0.1:{closed_port}/")

    def forms(report):
        return {(s.metric, *(pair for pair in s.labels if pair[0] != "instance")) for s in report.samples}

    assert forms(good) == forms(bad)


async def test_a_probe_leaves_no_socket_behind(serve, server, context, certificates, probe):
    plain = await serve(server.answering())
    secure = await serve(server.answering(), certificates.self_signed("left"))
    me = psutil.Process()
    for _ in range(4):
        for url in (f"http://127.0.0.1:{plain}/", f"https://127.0.0.1:{secure}/", "http://127.0.0.1:1/"):
            await probe(url)
        await probe(f"https://127.0.0.1:{secure}/", tls=TlsOptions(insecure_skip_verify=True))
        clients = [
            c
            for c in me.net_connections("tcp")
            if c.raddr and c.raddr.port in (plain, secure) and c.status == "ESTABLISHED"
        ]
        assert clients == []


async def test_no_answer_however_mangled_crashes_a_probe(serve, probe):
    chance = random.Random(6)
    good = b"HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfine\r\n0\r\n\r\n"

    async def mangled(stream):
        await stream.receive_some(65536)
        answer = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            answer[chance.randrange(len(answer))] = chance.randrange(256)
        await stream.send_all(bytes(answer[: chance.randrange(len(answer))]))

    port = await serve(mangled)
    for _ in range(100):
        report, _, _ = await probe(f"http://127.0.0.1:{port}/", deadline=Duration(1))
        assert not report.summary.startswith("the probe failed"), report.summary
