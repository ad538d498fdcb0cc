"""Lines of logs: what they say of a request, what they are if they cannot be read, what they add up to."""

import math
from datetime import UTC
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sixfbd.model import Series
from sixfbd.window.window import Window
from sixfbd_plugins.business import requests
from sixfbd_plugins.business.requests import LOGGED_REQUESTS, LoggedRequests
from sixfbd_plugins.logs import forms
from sixfbd_plugins.logs.check import LOG_LINES, LogLines, LogOptions
from sixfbd_plugins.logs.files import LONGEST_LINE
from sixfbd_plugins.logs.forms import Entry, Other
from sixfbd_plugins.logs.tally import MOST_ANSWERS, MOST_MINUTES, Patterns, Tally, shape

AT = 1_795_769_411.0  # 27 Nov 2026 08:50:11 UTC
TIME = b"[27/Nov/2026:08:50:11 +0000]"
BERLIN = ZoneInfo("Europe/Berlin")
NGINX = (
    b"203.0.113.7 - - " + TIME + b' "GET /orders/12?x=1 HTTP/1.1" 200 512 "https://shop.example/" "Mozilla/5.0 \\"x\\""'
)


@pytest.fixture(autouse=True)
def no_groups(monkeypatch):
    """Which groups of paths there are belongs to the process."""
    monkeypatch.setattr(requests.paths, "_groups", set())


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (NGINX, Entry(AT, "GET", "/orders/12?x=1", 200, None)),
        (NGINX + b" 0.123", Entry(AT, "GET", "/orders/12?x=1", 200, 123.0)),
        (NGINX + b' "0.123"', Entry(AT, "GET", "/orders/12?x=1", 200, 123.0)),
        (NGINX + b" - upstream", Entry(AT, "GET", "/orders/12?x=1", 200, None)),
        (NGINX + b' 1.2.3.4 "-"', Entry(AT, "GET", "/orders/12?x=1", 200, None)),
        (b"::1 - ann [27/Nov/2026:09:50:11 +0100] \"POST / HTTP/2.0\" 503 -", Entry(AT, "POST", "/", 503, None)),
        (b"shop:443 10.0.0.1 - - " + TIME + b' "GET /a HTTP/1.1" 404 9 "-" "-"', Entry(AT, "GET", "/a", 404, None)),
        (b"10.0.0.1 - - " + TIME + b' "\\x16\\x03\\x01" 400 150 "-" "-"', Entry(AT, "-", "-", 400, None)),
        (b"10.0.0.1 - - " + TIME + b' "-" 408 0 "-" "-"', Entry(AT, "-", "-", 408, None)),
        (b"", None),
        (b"no log line", None),
        (b"10.0.0.1 - - " + TIME + b' "GET /a HTTP/1.1', None),
        (b"10.0.0.1 - - " + TIME + b' "GET /a HTTP/1.1" 999 1 "-" "-"', None),
        (b'10.0.0.1 - - [31/Feb/2026:08:50:11 +0000] "GET / HTTP/1.1" 200 1 "-" "-"', None),
        (b"\xff\xfe\x00" * 30, None),
    ],
)  # fmt: skip
def test_what_servers_write_is_read_and_what_they_do_not_is_not(line, entry):
    assert forms.combined("s")(line) == entry


def test_a_number_behind_the_line_is_a_duration_only_if_its_unit_is_configured():
    assert forms.combined("")(NGINX + b" 17").duration is None
    assert forms.combined("us")(NGINX + b" 17").duration == pytest.approx(0.017)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b'{"time":"2026-11-27T08:50:11Z","method":"GET","path":"/a","status":200,"duration":0.5}',
         Entry(AT, "GET", "/a", 200, 500.0)),
        (b'{"time":"2026-11-27T09:50:11","method":"GET","path":"/a","status":"200"}', Entry(AT, "GET", "/a", 200, None)),
        (b'{"time":1795769411000,"path":"/a","status":200,"duration":"-"}', Entry(AT, "-", "/a", 200, None)),
        (b'{"time":1795769411.0,"level":"info"}', Other(AT)),
        (b'{"path":"/a","status":200}', Entry(None, "-", "/a", 200, None)),
        (b'{"time":"yesterday","path":"/a","status":200}', None),
        (b'{"path":"/a","status":"ok"}', None),
        (b'{"path":"/a","status":200,"duration":-1}', None),
        (b'{"path":"/a","status":200,"duration":{}}', None),
        (b'{"path":"/a","status":1e400}', None),
        (b"[1]", None),
        (b"{", None),
        (b"[" * 100_000, None),
    ],
)  # fmt: skip
def test_json_lines_are_read_by_the_names_of_their_fields(line, found):
    fields = {"time": "time", "method": "method", "path": "path", "status": "status", "duration": "duration"}
    assert forms.json(fields, "s", BERLIN)(line) == found


def test_a_field_may_be_within_another_or_have_a_dot_in_its_name():
    fields = {"time": "ts", "method": "http.method", "path": "request.uri", "status": "status", "duration": "duration"}
    line = b'{"ts":1795769411,"request":{"uri":"/a"},"http.method":"PUT","status":201,"duration":0.01}'
    assert forms.json(fields, "s", UTC)(line) == Entry(AT, "PUT", "/a", 201, 10.0)


def test_a_pattern_of_ones_own_is_read_by_its_groups():
    read = forms.pattern(r"(?P<time>\S+) (?P<status>\d+) (?P<path>\S+)(?: (?P<duration>[\d.]+))?", "ms", UTC)
    assert read(b"2026-11-27T08:50:11+00:00 500 /pay 12.5") == Entry(AT, "-", "/pay", 500, 12.5)
    assert read(b"2026-11-27T08:50:11+00:00 500 /pay") == Entry(AT, "-", "/pay", 500, None)
    assert read(b"never 500 /pay") is None
    assert read(b"\xff") is None


def test_a_pattern_that_would_stall_another_engine_takes_no_time():
    read = forms.pattern(r"(?P<path>(a+)+)\$(?P<status>\d+)", "", UTC)
    assert read(b"a" * LONGEST_LINE) is None


@given(st.binary(max_size=300))
def test_no_line_breaks_a_form(line):
    fields = {"time": "time", "method": "method", "path": "path", "status": "status", "duration": "duration"}
    for read in (
        forms.combined("s"),
        forms.json(fields, "s", UTC),
        forms.pattern("(?P<path>.+) (?P<status>.+)", "", UTC),
    ):
        found = read(line)
        assert found is None or isinstance(found, Other) or 100 <= found.status <= 599


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_whatever_stands_in_a_request_is_one_request_or_none(request, agent):
    quoted = [text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"") for text in (request, agent)]
    found = forms.combined("s")(b'::1 - - ' + TIME + b' "' + quoted[0] + b'" 200 1 "-" "' + quoted[1] + b'" 0.5')  # fmt: skip
    assert found is not None and found.status == 200 and found.duration == 500.0


@pytest.mark.parametrize(
    ("options", "key", "text"),
    [
        ({}, "files", "either files or journal"),
        ({"files": ("access.log",)}, "files", "whole path"),
        ({"files": ("/a",), "format": "pattern"}, "pattern", "given if"),
        ({"files": ("/a",), "pattern": "(?P<path>.)(?P<status>.)"}, "pattern", "given if"),
        ({"files": ("/a",), "format": "pattern", "pattern": "(?P<path>.)"}, "pattern", "no group 'status'"),
        ({"files": ("/a",), "format": "pattern", "pattern": "(?P<path>.)(?P<ip>.)"}, "pattern", "group 'ip'"),
        ({"files": ("/a",), "format": "pattern", "pattern": "("}, "pattern", "not an RE2 expression"),
        (
            {"files": ("/a",), "format": "pattern", "pattern": "(?P<path>.)(?P<status>.)(?P<duration>.)"},
            "duration_unit",
            "what is the duration in",
        ),
        ({"files": ("/a",), "errors": {"x y": "."}}, "errors", "no name"),
        ({"files": ("/a",), "errors": {"x": "(?=a)"}}, "errors", "not an RE2 expression"),
        ({"files": ("/a",), "format": "text"}, "errors", "are needed"),
    ],
)
def test_options_that_do_not_fit_are_named_with_their_mend(options, key, text):
    with pytest.raises(ValueError, match=key) as error:
        LogOptions(**options)
    assert text in str(error.value)


# ---- sums --------------------------------------------------------------------------------------------------------------


def access(path=b"/", status=b"200", took=b"0.1", at=b"27/Nov/2026:08:50:11"):
    return b"::1 - - [" + at + b' +0000] "GET ' + path + b' HTTP/1.1" ' + status + b' 1 "-" "agent" ' + took


def tally(errors=None):
    return Tally("access", forms.combined("s"), Patterns(errors or {}), AT + 5)


def samples_of(events):
    """What the events count, by metric and label values."""
    found = {}
    for event in events:
        kind = LOG_LINES if event.type == "log_lines" else LOGGED_REQUESTS
        data = msgspec.convert(event.data, LogLines if event.type == "log_lines" else LoggedRequests)
        for sample in kind.counts(data):
            key = (sample.metric, *(value for _, value in sample.labels))
            found[key] = found.get(key, 0) + sample.value
    return found


def test_lines_add_up_by_minute_path_method_and_status():
    sums = tally({"agent": "agent", "never": "Out of memory"})
    lines = [access(b"/o/1"), access(b"/o/2", b"500", b"2.5"), access(at=b"27/Nov/2026:08:49:59"), b"rubbish 17"]
    assert sums.take(lines) == 4
    events = sums.events("page")
    assert [(event.type, event.timestamp) for event in events] == [
        ("log_lines", AT - 12), ("logged_requests", AT - 12), ("log_lines", AT + 5), ("logged_requests", AT + 5),
    ]  # fmt: skip
    found = samples_of(events)
    assert found == {
        ("log_lines_total", "access"): 4,
        ("log_unparsed_lines_total", "access"): 1,
        ("log_errors_total", "access", "agent"): 3,
        ("http_requests_total", "GET", "200"): 2,
        ("http_requests_total", "GET", "500"): 1,
        ("http_path_requests_total", "2xx", "/"): 1,
        ("http_path_requests_total", "2xx", "/o/:id"): 1,
        ("http_path_requests_total", "5xx", "/o/:id"): 1,
        ("http_path_request_seconds_total", "/"): pytest.approx(0.1),
        ("http_path_request_seconds_total", "/o/:id"): pytest.approx(2.6),
        ("http_slow_requests_total", "/o/:id"): 1,
    }
    assert sums.example == (3, "a 0")


def test_an_event_holds_nothing_of_who_asked():
    sums = tally()
    line = access(b"/reset/ann@example.com?token=secret").replace(b"::1", b"203.0.113.7").replace(b"agent", b"Mozilla")
    sums.take([line, b"203.0.113.7 ann@example.com"])
    written = msgspec.json.encode(sums.events("page"))
    assert not [word for word in (b"203", b"ann", b"secret", b"Mozilla") if word in written]
    assert sums.example[1] == "0.0.0.0 a@a.a"


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=200))
def test_quantiles_of_added_up_requests_are_those_of_each_one(seconds):
    sums, each, together = tally(), Window(), Window()
    sums.take([access(took=f"{one:.6f}".encode()) for one in seconds])
    [_, logged] = sums.events("page")
    observed = LOGGED_REQUESTS.observes(msgspec.convert(logged.data, LoggedRequests))
    took = Series("took_seconds")
    for one in seconds:
        each.observe(took, 0, {float(f"{one:.6f}"): 1})
    together.observe(took, 0, {sample.value: sample.times for sample in observed})
    assert sum(sample.times for sample in observed) == len(seconds)
    assert math.fsum(sample.value * sample.times for sample in observed) == pytest.approx(sum(seconds), abs=1e-4)
    for q in (0.0, 0.5, 0.95, 1.0):
        assert together.quantile(took, q, 0, 1) == pytest.approx(each.quantile(took, q, 0, 1), rel=1e-9)


def test_a_page_of_too_many_minutes_leaves_lines_to_the_next():
    lines = [access(at=f"27/Nov/2026:{h:02}:{m:02}:00".encode()) for h in range(2) for m in range(60)]
    sums = tally()
    assert sums.take(lines) == MOST_MINUTES == 60
    assert len(sums.events("page")) == 2 * MOST_MINUTES


def test_many_paths_and_statuses_become_several_events_that_fit():
    sums = tally()
    sums.take(
        [
            access(f"/{chr(97 + n // 26)}{chr(97 + n % 26)}.{'x' * 30}".encode(), str(status).encode())
            for n in range(150)
            for status in range(200, 212)
        ]
    )
    events = sums.events("page")
    assert len({event.id for event in events}) == len(events) > 2
    assert all(len(msgspec.json.encode(event.data)) < 64 * 1024 for event in events)
    assert all(len(event.data.get("answers", ())) <= MOST_ANSWERS for event in events)
    assert sum(value for key, value in samples_of(events).items() if key[0] == "http_requests_total") == 1800


def test_a_long_line_is_cut_and_counted():
    sums = tally({"end": "at the end"})
    sums.take([access() + b" " + b"x" * LONGEST_LINE + b"at the end"])
    found = samples_of(sums.events("page"))
    assert found["log_cut_lines_total", "access"] == 1
    assert found["http_requests_total", "GET", "200"] == 1
    assert ("log_errors_total", "access", "end") not in found


@given(st.binary(max_size=2000))
def test_a_shape_has_no_word_and_no_number_of_the_line(line):
    assert set("".join(c for c in shape(line) if c.isalnum() and c.isascii())) <= {"a", "0"}
