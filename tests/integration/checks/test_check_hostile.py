"""The `webhook` and `scrape` checks against servers that mean harm: every wait ends, every failure says what it was, the
loop goes on meanwhile, and what was sent in confidence is shown nowhere."""

import gzip

import pytest
import trio

from sixfbd.plugin import Duration, Secret, Status
from sixfbd_plugins.checks.scrape import ScrapeCheck, ScrapeOptions
from sixfbd_plugins.checks.targets import BasicAuth
from sixfbd_plugins.checks.webhook import WebhookCheck, WebhookOptions

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SECRET = "hunter2-and-more"
LIMIT_S = 10.0
HEADS = "the answer's headers, interim answers included, are larger than 256KiB"


def webhook(url, context, **options):
    return WebhookCheck(WebhookOptions(url=url, **options), context)


def scrape(url, context, **options):
    return ScrapeCheck(ScrapeOptions(targets=(url,), **options), context)


BOTH = pytest.mark.parametrize("make", [webhook, scrape])


def saying(answer, then=b"", gap_s=0.0):
    """A handler that sends `answer`, and then, if there is one, `then` again and again."""

    async def handler(stream):
        await stream.receive_some(65536)
        await stream.send_all(answer)
        while then:
            await stream.send_all(then)
            await trio.sleep(gap_s)

    return handler


def redirecting(location):
    return saying(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n")


def page(text, **headers):
    lines = [f"Content-Length: {len(text)}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return saying(OK + "\r\n".join([*lines, "", ""]).encode() + text)


async def run(make, port, context, deadline_s=LIMIT_S, path="/metrics", **options):
    with trio.fail_after(deadline_s + 20):
        return await make(f"http://127.0.0.1:{port}{path}", context, deadline=Duration(deadline_s), **options).run(None)


@BOTH
@pytest.mark.parametrize(("handler", "words"), [
    (saying(b"<html>as in HTTP/0.9</html>"), "the server closed the connection without an HTTP answer"),
    (saying(b"\0" * 100), "the answer is not HTTP: "),
    (saying(b"HTTP/9 200 OK\r\n\r\n"), "the answer is not HTTP: illegal status line"),
    (saying(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "the answer is not HTTP: "),
    (saying(OK + b"X: ", b"y" * 65536), "the answer is not HTTP: Receive buffer too long"),
    (saying(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000), HEADS),
    (saying(b"", b"HTTP/1.1 100 Continue\r\nX: " + b"y" * 9000 + b"\r\n\r\n"), HEADS),
    (saying(OK + b"Content-Length: 100\r\n\r\nabc"), "the body ended early, after 3 bytes: "),
    (saying(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nabc"), "the answer is not HTTP: conflicting Content-Length"),
    (saying(OK + b"Content-Length: -1\r\n\r\nabc"), "the answer is not HTTP: bad Content-Length"),
    (saying(OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nabc"), "the answer is not HTTP: bad Content-Length"),
    (saying(CHUNKED + b"zz\r\nabc\r\n"), "the body ended early, after 0 bytes: illegal chunk header"),
    (saying(CHUNKED + b"-1\r\nabc\r\n"), "the body ended early, after 0 bytes: illegal chunk header"),
    (saying(CHUNKED + b"ffff\r\nabc"), "the body ended early, after 3 bytes: "),
    (saying(CHUNKED + b"4;", b"x" * 65536), "the body ended early, after 0 bytes: Receive buffer too long"),
    (saying(CHUNKED + b"0\r\n", b"X: y\r\n" * 1000), "the body ended early, after 0 bytes: Receive buffer too long"),
    (saying(OK + b"\r\n", b"x" * 65536), "the body is larger than "),
    (redirecting(b"file:///etc/passwd"), "redirects to file:/etc/passwd, which is not HTTP"),
    (redirecting(b"javascript:alert(1)"), "redirects to javascript:alert(1), which is not HTTP"),
    (redirecting(b"http://127.0.0.1:99999/"), "redirects to http://127.0.0.1:99999/, where 99999 is not a port"),
    (redirecting(b"http://127.0.0.1:0/"), "redirects to http://127.0.0.1:0/, where 0 is not a port"),
    (redirecting(b"http://a\x01b/"), "redirects to something that is not an address: "),
    (redirecting(b"/next"), "more than 10 redirects, the last to http://127.0.0.1:"),
    (redirecting(b"/" + b"x" * 60_000), "more than 10 redirects, the last to http://127.0.0.1:"),
])  # fmt: skip
async def test_a_hostile_answer_is_named(serve, context, make, handler, words):
    port = await serve(handler)
    report = await run(make, port, context)
    assert report.status is Status.UNHEALTHY
    assert report.summary.removeprefix(f"127.0.0.1:{port}: ").startswith(words)
    assert len(report.summary) <= 500
    assert {sample.value for sample in report.samples if sample.metric == "up"} == {0.0}


@BOTH
@pytest.mark.parametrize("handler", [
    saying(OK, b"x", 0.05), saying(OK + b"Content-Length: 100\r\n\r\n", b"x", 0.05), saying(CHUNKED, b"1\r\nx\r\n" * 1000),
    saying(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.05),
])  # fmt: skip
async def test_an_answer_that_does_not_end_is_cut_off(serve, context, make, handler):
    report = await run(make, await serve(handler), context, deadline_s=0.5)
    assert "timed out after " in report.summary


@BOTH
@pytest.mark.parametrize(
    "handler",
    [
        saying(CHUNKED + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"),
        saying(b"HTTP/1.1 103 X\r\n\r\n" * 10_000 + OK + b"\r\n"),
    ],
    ids=["tiny chunks", "interim answers"],
)
async def test_others_have_their_turn_while_a_flood_of_small_pieces_is_read(serve, context, make, handler):
    port = await serve(handler)
    turns = 0

    async def others():
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await run(make, port, context)
        nursery.cancel_scope.cancel()
    assert turns > 50, "at most some hundred of the pieces in a row"


@BOTH
@pytest.mark.parametrize("answer", [
    b"\x15\x03\x01\x00\x02\x02\x46",  # the alert `protocol_version`
    b"\x16\x03\x01\x00\x2a\x02\x00\x00\x26\x03\x01" + b"r" * 32 + b"\x00\xc0\x13\x00",  # a ServerHello of TLS 1.0
], ids=["alert", "hello"])  # fmt: skip
async def test_a_server_of_old_tls_alone_is_named(serve, context, make, answer):
    port = await serve(saying(answer))
    report = await make(f"https://127.0.0.1:{port}/", context, deadline=Duration(5)).run(None)
    assert "TLS: the server speaks only versions older than 1.2" in report.summary


# ---- pages -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("handler", "words"), [
    (page(gzip.compress(b"x" * 100_000_000), Content_Encoding="gzip"), "the page is larger than 16MiB unpacked"),
    (page(b"".join(b'm{n="%d"} 1\n' % n for n in range(100_000))), "the page has more than 10000 samples (sample_limit)"),
    (page(b'm{a="' + b"x" * 10_000_000 + b'"} 1\n'), "line 1 is longer than 65536 characters: 'm{a="),
    (page(b"\n" * 10_000_000), "the page has more than 1000000 lines"),
    (page(b"<!doctype html>\n", Content_Type="text/html; charset=utf-8"),
     "line 1 is not a sample: '<!doctype html>' (the page says that it is text/html)"),
    (page(b"\x0a\x05hello", Content_Type="application/vnd.google.protobuf; encoding=delimited"),
     "line 2 is not a sample: '\\x05hello' (the page says that it is application/vnd.google.protobuf)"),
    (page(b"h {count:1,sum:2,schema:0}\n# EOF\n", Content_Type="application/openmetrics-text; version=1.0.0"),
     "line 1 is a native histogram, which is not read"),
    (page(b"a 0x10\n"), "line 1: '0x10' is not a number"),
])  # fmt: skip
async def test_a_page_that_is_none_or_too_much_is_named(serve, context, handler, words):
    port = await serve(handler)
    report = await run(scrape, port, context)
    assert report.status is Status.UNHEALTHY
    assert report.summary.startswith(f"127.0.0.1:{port}: {words}")


async def test_a_page_of_odd_but_valid_samples_is_read(serve, context):
    text = b'a NaN 99999999999999999999999\nb -Inf -5\nc{check="evil",exported_check="x"} 1\nup{job="x"} 0\nc{x=""} 2\nc 3\n'
    report = await run(scrape, await serve(page(text)), context)
    assert report.status is Status.HEALTHY, report.summary
    found = {(s.metric, *sorted(set(dict(s.labels)) - {"instance", "job"})) for s in report.samples}
    assert {("a",), ("b",), ("c", "exported_check", "exported_exported_check"), ("up", "exported_job"), ("c",)} <= found
    assert [s.value for s in report.samples if s.metric == "c" and len(s.labels) == 2] == [2.0], (
        "the first of two counts"
    )


async def test_what_a_target_is_remembered_for_has_a_bound(serve, context, monkeypatch):
    monkeypatch.setattr("sixfbd_plugins.checks.scrape._MOST_REMEMBERED", 50)
    port = await serve(page(b"".join(b"m%d 1\n" % number for number in range(200))))
    check = scrape(f"http://127.0.0.1:{port}/", context)
    for _ in range(2):
        assert len((await check.run(None)).samples) == 204
    assert len(check._targets[0].known) == 50


# ---- secrets ---------------------------------------------------------------------------------------------------------------


async def echo(stream):
    """Answer with whatever header the secret came in, as a page, as a label and as JSON."""
    request = (await stream.receive_some(65536)).decode()
    value = next(line for line in request.split("\r\n") if line.lower().startswith("authorization")).partition(": ")[2]
    body = {
        "/label": f'echo{{value="{value}"}} 1\n', "/line": f"{'x' * 70} {value}\n", "/json": f'{{"said": "{value}"}}',
    }.get(request.split(" ")[1], value)  # fmt: skip
    if request.split(" ")[1] == "/status":
        await stream.send_all(f"HTTP/1.1 {value}\r\n\r\n".encode())
    elif request.split(" ")[1] == "/redirect":
        await stream.send_all(f"HTTP/1.1 302 X\r\nLocation: ftp://x/{value}\r\n\r\n".encode())
    else:
        await stream.send_all(OK + f"Content-Length: {len(body)}\r\n\r\n{body}".encode())


@BOTH
@pytest.mark.parametrize("path", ["/label", "/line", "/json", "/status", "/redirect"])
@pytest.mark.parametrize(
    "credentials", [{"bearer": Secret(SECRET, "env X")}, {"basic_auth": BasicAuth("shop", Secret(SECRET, "env X"))}]
)
async def test_a_server_that_echoes_a_secret_cannot_have_it_shown(serve, context, make, path, credentials):
    expected = {"expect_json": {"said": "nothing"}} if make is webhook else {}
    report = await run(make, await serve(echo), context, path=path, **credentials, **expected)
    basic = BasicAuth("shop", Secret(SECRET, "env X")).header().removeprefix("Basic ")
    shown = f"{report.summary} {report.samples}"
    for start in (SECRET[:8], basic[:8]):
        assert start not in shown
    if path in ("/line", "/label") and make is scrape:
        assert "***" in shown or len(report.summary) > 80


@BOTH
@pytest.mark.parametrize("port", [0, 99999])
def test_a_port_that_there_is_not_is_an_error_of_the_configuration(make, port):
    with pytest.raises(ValueError, match=f"{port} is not a port"):
        make(f"http://127.0.0.1:{port}/", None)
