"""The `remote_write` check against a server that takes, refuses, asks to wait: what it sends, drops and sends again."""

import itertools
import math
import struct
import time

import cramjam
import httpx
import pytest
import trio

from sixfbd.plugin import Duration, Secret, Status
from sixfbd_plugins.checks.targets import BasicAuth
from sixfbd_plugins.remote_write.check import SAMPLES_A_REQUEST, SETTLE_S, RemoteWriteCheck, RemoteWriteOptions
from sixfbd_plugins.remote_write.wire import WriteRequest
from tests.bench.processes import free_port, need, started

START = 1_800_000_000.0
STALE_BITS = 0x7FF0000000000002
SECRET = Secret("p", "test")


class Clock:
    def __init__(self):
        self.at = START + SETTLE_S

    def now(self):
        return self.at


class Window:
    """A reader of series that are given as (labels, value at a time or None)."""

    def __init__(self):
        self.series = {(("__name__", "up"), ("job", "shop")): lambda at: 1.0}
        self.asked = []

    async def query(self, expr, start, end, step):
        await trio.lowlevel.checkpoint()
        self.asked.append((expr, start, end, step))
        times = [start + number * step for number in range(round((end - start) / step) + 1)]
        rows = ((labels, [(at, value_at(at)) for at in times]) for labels, value_at in self.series.items())
        found = [(labels, [point for point in points if point[1] is not None]) for labels, points in rows]
        return [row for row in found if row[1]]


class Receiver:
    """What takes remote write; answers by `answers`, in turn, and then takes everything."""

    def __init__(self):
        self.requests, self.answers = [], []

    async def handle(self, stream):
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(65536)
        head, _, body = data.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:])
        while len(body) < int(headers["content-length"]):
            body += await stream.receive_some(65536)
        status, more, text = self.answers.pop(0) if self.answers else (204, {}, "")
        self.requests.append((headers, WriteRequest.FromString(bytes(cramjam.snappy.decompress_raw(body))), status))
        answer = [f"HTTP/1.1 {status} X", f"Content-Length: {len(text)}", *(f"{k}: {v}" for k, v in more.items())]
        await stream.send_all("\r\n".join([*answer, "", text]).encode())

    def taken(self):
        """Every sample that was taken, by labels: [(seconds, value or "stale")]."""
        found = {}
        for _, request, status in self.requests:
            if status < 300:
                for series in request.timeseries:
                    labels = ",".join(f"{one.name}={one.value}" for one in series.labels)
                    found.setdefault(labels, []).extend(
                        (one.timestamp / 1000 - START, value_of(one.value)) for one in series.samples
                    )
        return found


def value_of(value):
    stale = struct.unpack("<Q", struct.pack("<d", value))[0] == STALE_BITS
    return "stale" if stale else value


@pytest.fixture
async def sending(context, serve):
    """A check, the server that it sends to, and the window that it reads, run by `run` until there is no more to send."""
    receiver, window, clock = Receiver(), Window(), Clock()
    port = await serve(receiver.handle)
    context.read, context.clock = window, clock

    class Sending:
        cursor = None

        def make(self, **options):
            options.setdefault("url", f"http://127.0.0.1:{port}/api/v1/write")
            self.check = RemoteWriteCheck(RemoteWriteOptions(**options), context)

        async def run(self, after_s=0.0):
            clock.at += after_s
            while True:
                report = await self.check.run(self.cursor)
                self.cursor = self.cursor if report.cursor is None else report.cursor
                self.values = {sample.metric: sample.value for sample in report.samples}
                if not report.more:
                    return report

    made = Sending()
    made.receiver, made.window, made.clock = receiver, window, clock
    made.make()
    await made.run()
    assert receiver.requests == [], "who begins sends nothing of the past"
    return made


async def test_every_step_is_sent_once_with_the_labels_of_the_machine_beside_its_own(sending):
    sending.make(external_labels={"site": "dallas", "job": "other"}, step=Duration(5))
    assert (await sending.run(11.0)).status is Status.HEALTHY
    await sending.run(1.0)
    await sending.run(7.0)
    assert sending.receiver.taken() == {"__name__=up,job=shop,site=dallas": [(5.0, 1.0), (10.0, 1.0), (15.0, 1.0)]}
    headers = sending.receiver.requests[0][0]
    assert headers["content-encoding"] == "snappy" and headers["content-type"] == "application/x-protobuf"
    assert headers["x-prometheus-remote-write-version"] == "0.1.0"
    assert sending.values["remote_write_samples_total"] == 3
    assert sending.values["remote_write_lag_seconds"] == SETTLE_S + 19.0 - 15.0


async def test_a_series_that_ended_is_told_to_have_ended_once(sending):
    sending.window.series = {(("__name__", "gone"),): lambda at: 7.0 if at <= START + 30 else None}
    for _ in range(4):
        await sending.run(30.0)
    assert sending.receiver.taken() == {"__name__=gone": [(15.0, 7.0), (30.0, 7.0), (45.0, "stale")]}


@pytest.mark.parametrize("status", [500, 503, 401, 404])
async def test_what_an_outage_or_a_wrong_token_kept_is_sent_afterwards_oldest_first(sending, status):
    sending.receiver.answers = [(status, {}, "not now")] * 4
    for _ in range(4):
        report = await sending.run(15.0)
        assert report.status is Status.UNHEALTHY and f"answered {status}: not now" in report.summary
        assert report.cursor is None
    assert sending.values["remote_write_lag_seconds"] == SETTLE_S + 60.0
    assert (await sending.run(15.0)).status is Status.HEALTHY
    [points] = sending.receiver.taken().values()
    assert points == [(15.0 * number, 1.0) for number in range(1, 6)]
    assert sending.values["remote_write_samples_dropped_total"] == 0


async def test_a_long_outage_is_made_up_for_in_runs_of_bounded_work(sending):
    labels = [(("__name__", "x"), ("n", str(number))) for number in range(3000)]
    sending.window.series = {one: lambda at: at for one in labels}
    await sending.run(15.0 * 20)
    taken = sending.receiver.taken()
    assert len(taken) == 3000 and all(
        points == [(15.0 * number, START + 15.0 * number) for number in range(1, 21)] for points in taken.values()
    )
    per_request = [sum(len(series.samples) for series in one.timeseries) for _, one, _ in sending.receiver.requests]
    assert max(per_request) < SAMPLES_A_REQUEST + 40 and sum(per_request) == 60_000


async def test_what_is_refused_for_good_is_dropped_counted_and_said(sending):
    sending.receiver.answers = [(400, {}, "out of order sample")]
    report = await sending.run(15.0)
    assert report.status is Status.DEGRADED and "answered 400: out of order sample" in report.summary
    assert sending.values["remote_write_samples_dropped_total"] == 1
    assert (await sending.run(15.0)).status is Status.HEALTHY
    assert list(sending.receiver.taken().values()) == [[(30.0, 1.0)]]


async def test_who_asks_to_wait_is_not_asked_before(sending):
    sending.receiver.answers = [(429, {"Retry-After": "60"}, "slow down")]
    await sending.run(15.0)
    assert "asked to wait for 45 s more" in (await sending.run(15.0)).summary
    assert len(sending.receiver.requests) == 1
    assert (await sending.run(45.0)).status is Status.HEALTHY
    [points] = sending.receiver.taken().values()
    assert [at for at, _ in points] == [15.0, 30.0, 45.0, 60.0, 75.0]


async def test_what_is_older_than_max_age_is_given_up_and_counted(sending):
    sending.make(max_age=Duration(60))
    await sending.run(15.0)
    report = await sending.run(600.0)
    assert report.status is Status.DEGRADED and "max_age" in report.summary
    [points] = sending.receiver.taken().values()
    assert [at for at, _ in points] == [15.0, 570.0, 585.0, 600.0, 615.0]
    assert sending.values["remote_write_samples_dropped_total"] == (555.0 - 15.0) / 15


async def test_credentials_are_sent_and_shown_to_nobody(sending):
    sending.make(bearer=Secret("t0ken-of-mine", "test"), headers={"X-Scope-OrgID": "tenant-7"})
    sending.receiver.answers = [(403, {}, "no: Bearer t0ken-of-mine for tenant-7")]
    report = await sending.run(15.0)
    headers = sending.receiver.requests[0][0]
    assert headers["authorization"] == "bearer t0ken-of-mine" and headers["x-scope-orgid"] == "tenant-7"
    assert "t0ken" not in report.summary and "403" in report.summary


async def test_a_server_that_is_not_there_keeps_everything(sending):
    sending.make(url="http://127.0.0.1:1/write")
    report = await sending.run(30.0)
    assert report.status is Status.UNHEALTHY and "cannot connect" in report.summary and report.cursor is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "ftp://x"}, "is not an HTTP address"),
        ({"external_labels": {"a-b": "c"}}, "'a-b' is not a label's name; write letters, digits and _"),
        (
            {"bearer": Secret("a", "test"), "basic_auth": BasicAuth(username="u", password=Secret("p", "test"))},
            "exclude each other",
        ),
    ],
)
def test_options_that_cannot_be_meant_are_refused_with_the_mend(options, says):
    with pytest.raises(Exception, match=says):
        RemoteWriteOptions(**{"url": "http://127.0.0.1:9090/api/v1/write"} | options)


def test_a_value_that_is_no_number_is_sent_as_it_is():
    request = WriteRequest()
    request.timeseries.add().samples.add(value=math.nan, timestamp=1)
    assert value_of(WriteRequest.FromString(request.SerializeToString()).timeseries[0].samples[0].value) != "stale"


# ---- a real Prometheus -------------------------------------------------------------------------------------------------


async def test_after_ten_minutes_without_prometheus_it_has_every_sample_once(sending, tmp_path):
    """The ten minutes are the check's clock; the Prometheus, its end and its second start are real."""
    port = free_port()
    (tmp_path / "prometheus.yml").write_text("global: {}\n")
    command = [
        need("prometheus", "prometheus"), f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-remote-write-receiver",
    ]  # fmt: skip
    sending.make(url=f"http://127.0.0.1:{port}/api/v1/write", external_labels={"site": "dallas"})
    began = time.time() // 15 * 15 - 1200  # Prometheus takes no samples of a far future
    sending.clock.at, sending.cursor = began + SETTLE_S, None
    await sending.run()

    def start():
        return started(command, port, "/-/ready", tmp_path / "log")

    running = start()
    await trio.to_thread.run_sync(running.__enter__)
    try:
        assert (await sending.run(60.0)).status is Status.HEALTHY
    finally:
        await trio.to_thread.run_sync(running.__exit__, None, None, None)
    for _ in range(40):
        assert (await sending.run(15.0)).status is Status.UNHEALTHY
    running = start()
    await trio.to_thread.run_sync(running.__enter__)
    try:
        assert (await sending.run(15.0)).status is Status.HEALTHY
        async with httpx.AsyncClient() as client:
            asked = {"query": 'up{site="dallas"}[30m]', "time": str(time.time())}
            answer = await client.get(f"http://127.0.0.1:{port}/api/v1/query", params=asked, timeout=10)
    finally:
        await trio.to_thread.run_sync(running.__exit__, None, None, None)
    [found] = answer.json()["data"]["result"]
    times = [at for at, _ in found["values"]]
    assert (times[0], times[-1]) == (began + 15, began + 60 + 600 + 15)
    assert {b - a for a, b in itertools.pairwise(times)} == {15.0}
    assert sending.values["remote_write_samples_dropped_total"] == 0
