"""The `alertmanager` check: each peer is told of all that fires, again and again; and a real cluster of two tells people once."""

import json
from contextlib import ExitStack, asynccontextmanager, contextmanager

import pytest
import trio
from msgspec.structs import replace

from sixfbd.model import Alert, AlertKey, AlertState, RuleName, Severity, labels_of
from sixfbd.plugin import InvalidOptions, Secret, Status
from sixfbd_plugins.checks.alertmanager import ENDED_S, HOLDS_S, RESEND_S, AlertmanagerCheck, AlertmanagerOptions
from sixfbd_plugins.checks.targets import BasicAuth
from tests.bench.processes import free_port, need, started
from tests.integration.checks.conftest import answering
from tests.provider_kit import ManualClock

T = 1_800_000_000.0


class Firing:
    """A reader of alerts by hand."""

    def __init__(self):
        self.now = []

    async def alerts(self, matchers):
        await trio.lowlevel.checkpoint()
        return tuple(self.now)


def alert(name="Down", state=AlertState.FIRING, at=T, **labels):
    labels = {"alertname": name, "instance": "shop", "severity": "high", "empty": "", **labels}
    return Alert(
        key=AlertKey(RuleName(name), labels_of(labels)),
        id=f"{name}-{at}",
        state=state,
        since=at,
        fired_at=at,
        severity=Severity.HIGH,
        value=1.0,
        labels=labels,
        annotations={"summary": f"{name} is down"},
    )


@pytest.fixture
def check(context):
    context.clock, context.read = ManualClock(T), Firing()

    def made(*ports, **options):
        peers = tuple(f"http://127.0.0.1:{port}" for port in ports)
        return AlertmanagerCheck(AlertmanagerOptions(peers=peers, **options), context)

    return made


def posts(requests):
    return [json.loads(request.partition(b"\r\n\r\n")[2]) for request in requests]


async def test_what_fires_is_told_at_once_then_each_minute_and_its_end_for_a_while(check, context, serve):
    requests = []
    one = check(await serve(answering(requests=requests)), url="https://sixfbd.example.com/")
    context.read.now = [alert(), alert("Later", AlertState.PENDING)]
    report = await one.run(None)
    assert (report.status, report.summary) == (Status.HEALTHY, "1 alert sent")
    [[told]] = posts(requests)
    assert told == {
        "labels": {"alertname": "Down", "instance": "shop", "severity": "high"},
        "annotations": {"summary": "Down is down"},
        "startsAt": "2027-01-15T08:00:00.000Z",
        "endsAt": "2027-01-15T08:04:00.000Z",
        "generatorURL": "https://sixfbd.example.com/",
    }
    assert HOLDS_S == 240
    await one.run(None)
    assert len(requests) == 1, "nothing is new"
    context.clock.at = T + RESEND_S
    await one.run(None)
    assert posts(requests)[1][0]["endsAt"] == "2027-01-15T08:05:00.000Z"
    context.clock.at, context.read.now = T + 90, []
    report = await one.run(None)
    assert report.summary == "0 alerts sent"
    assert posts(requests)[2][0]["endsAt"] == "2027-01-15T08:01:30.000Z"
    context.clock.at = T + 90 + ENDED_S
    await one.run(None)
    assert posts(requests)[-1] == []


async def test_an_alert_that_fires_again_ends_no_more(check, context, serve):
    requests = []
    one = check(await serve(answering(requests=requests)))
    for firing in ([alert()], [], [alert(at=T + 10)]):
        context.read.now = firing
        await one.run(None)
    [told] = posts(requests)[-1]
    assert told["startsAt"] == "2027-01-15T08:00:10.000Z" and told["endsAt"] == "2027-01-15T08:04:00.000Z"


async def test_labels_of_the_alert_win_over_those_that_are_added_and_credentials_go_along(check, context, serve):
    requests = []
    port = await serve(answering(requests=requests))
    auth = BasicAuth("sixfbd", Secret("hunter2hunter2", "a test"))
    context.read.now = [alert()]
    await check(port, labels={"site": "north", "severity": "low"}, basic_auth=auth).run(None)
    assert posts(requests)[0][0]["labels"]["site"] == "north" and posts(requests)[0][0]["labels"]["severity"] == "high"
    assert b"Basic c2l4ZmJkOmh1bnRlcjJodW50ZXIy" in requests[0]


async def test_a_peer_that_does_not_take_them_is_named_and_told_at_the_next_run(check, context, serve):
    requests = []
    good, closed = await serve(answering(requests=requests)), free_port()
    refusing = await serve(answering(500, b"no\ndisk"))
    one = check(good, closed, refusing)
    context.read.now = [alert()]
    report = await one.run(None)
    assert report.status is Status.DEGRADED and f"http://127.0.0.1:{refusing}: answered 500: no disk" in report.summary
    up = {dict(sample.labels).get("peer"): sample.value for sample in report.samples if sample.labels}
    assert list(up.values()) == [1, 0, 0]
    await one.run(None)
    assert len(requests) == 2, "it is tried again, with all peers"
    report = await check(closed).run(None)
    assert (report.status, report.reachable) == (Status.UNHEALTHY, False)


async def test_many_alerts_are_told_in_several_requests(check, context, serve):
    requests = []
    one = check(await serve(answering(requests=requests)))
    context.read.now = [alert(instance=str(n), at=T + n) for n in range(600)]
    await one.run(None)
    assert [len(post) for post in posts(requests)] == [256, 256, 88]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"peers": ("alertmanager:9093",)}, "peers: .* is not an HTTP address"),
        ({"peers": ("http://a:9093", "http://a:9093/")}, "peers: a peer stands there twice"),
        ({"peers": ("http://a:9093",), "labels": {"a-b": "c"}}, "labels: 'a-b' is not a label's name"),
        ({"peers": ("http://a:9093",), "url": "here"}, "url: 'here' is not an HTTP address"),
    ],
)
def test_options_that_do_not_fit_are_named(options, said):
    with pytest.raises(InvalidOptions, match=said):
        AlertmanagerOptions(**options)


# ---- a real cluster of two ------------------------------------------------------------------------------------------------


@contextmanager
def node(folder, port, gossip, other, hook):
    folder.mkdir()
    config = folder / "alertmanager.yml"
    route = {"receiver": "people", "group_wait": "200ms", "group_interval": "1s", "group_by": ["alertname"]}
    hooks = [{"name": "people", "webhook_configs": [{"url": hook}]}]
    config.write_text(json.dumps({"route": route, "receivers": hooks}))  # JSON is YAML
    command = [
        need("prometheus-alertmanager", "prometheus-alertmanager"), f"--config.file={config}",
        f"--storage.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
        f"--cluster.listen-address=127.0.0.1:{gossip}", f"--cluster.peer=127.0.0.1:{other}",
        "--cluster.peer-timeout=2s", "--cluster.gossip-interval=50ms", "--cluster.settle-timeout=3s",
        "--cluster.reconnect-interval=500ms",
    ]  # fmt: skip
    with started(command, port, "/-/ready", folder / "log") as running:
        yield running


@asynccontextmanager
async def daemons(context, ports):
    """Two daemons that see the same and run the check each half second; yields what fires."""
    firing = []

    async def run(one):
        while True:
            await one.run(None)
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            reader = Firing()
            reader.now = firing
            context.read = reader
            peers = tuple(f"http://127.0.0.1:{port}" for port in ports)
            nursery.start_soon(run, AlertmanagerCheck(AlertmanagerOptions(peers=peers), context))
        yield firing
        nursery.cancel_scope.cancel()


@pytest.mark.xdist_group("alertmanager")
async def test_a_cluster_of_two_tells_people_once_also_when_one_of_it_is_killed(context, serve, tmp_path):
    requests = []
    hook = f"http://127.0.0.1:{await serve(answering(requests=requests))}/"
    ports, gossip = [free_port(), free_port()], [free_port(), free_port()]

    async def told(count, limit_s=30.0):
        with trio.fail_after(limit_s):
            while len(requests) < count:  # noqa: ASYNC110 - a process of others tells nobody
                await trio.sleep(0.05)
        await trio.sleep(3.5)  # longer than the other one waits for this one: whoever tells twice has done so by then
        assert len(requests) == count, [post["alerts"] for post in posts(requests)]
        return posts(requests)[-1]

    with ExitStack() as stack:
        nodes = [
            await trio.to_thread.run_sync(
                stack.enter_context, node(tmp_path / f"n{n}", ports[n], gossip[n], gossip[1 - n], hook)
            )
            for n in range(2)
        ]
        async with daemons(context, ports) as firing:
            firing.append(replace(alert(), fired_at=context.clock.now()))
            post = await told(1)
            assert post["status"] == "firing" and post["alerts"][0]["labels"]["alertname"] == "Down"
            nodes[0].kill()
            await trio.sleep(1)
            firing.append(replace(alert("Full"), fired_at=context.clock.now()))
            post = await told(2)
            assert post["alerts"][0]["labels"]["alertname"] == "Full"
            firing.clear()
            with trio.fail_after(30):
                while len(requests) < 4:  # noqa: ASYNC110 - a process of others tells nobody
                    await trio.sleep(0.05)
            assert sorted((post["status"], post["groupLabels"]["alertname"]) for post in posts(requests)[2:]) == [
                ("resolved", "Down"),
                ("resolved", "Full"),
            ]
