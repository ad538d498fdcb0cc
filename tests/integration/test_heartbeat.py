"""The heartbeat reaches a real server as long as the daemon proves that it works, and no longer."""

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from sixfbd.alerting.routes import Routing, compile_route
from sixfbd.config.tables import Channel, Heartbeat, RouteTable
from sixfbd.heartbeat import beat, idle_checks, send, what_does_not_work
from sixfbd.journal.errors import JournalFull
from sixfbd.journal.records import DrillHeld
from sixfbd.journal.state import State, apply
from sixfbd.model import CheckName, CheckState, Target
from sixfbd.quantities import Duration, Secret
from sixfbd.readers.bell import Bell
from sixfbd.running import Beats
from sixfbd.world import EngineClock, RealWorld

ANSWER = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Switch:
    """A dead man's switch: counts requests, answers as it is told, or hangs up."""

    def __init__(self):
        self.asked = []
        self.status = 200
        self.hangs_up = False
        self.port = 0

    async def serve(self, stream):
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive_some()
            self.asked.append(head.split(b"\r\n")[0].decode())
            if not self.hangs_up:
                await stream.send_all(ANSWER % self.status)


@pytest.fixture
async def switch():
    made = Switch()
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        made.port = listener.socket.getsockname()[1]
        nursery.start_soon(partial(trio.serve_listeners, made.serve, [listener]))
        yield made
        nursery.cancel_scope.cancel()


class Parts:
    """What the heartbeat asks of the daemon."""

    def __init__(self, world, settings):
        self.world = world
        self.beats = Beats()
        self.states_now = [CheckState(CheckName("shop"), "webhook", 30.0, last_run_at=world.clock.now())]
        self.oldest_s = 0.0
        self.failure = None
        self.probes = 0
        self.config = self.judge = self.journal = self.schedule = self
        self.heartbeat = settings
        self.reloaded = Bell()
        self.state = State()
        self.policy = self
        self.routing = Routing(
            compile_route(RouteTable(receiver="primary")),
            {"primary": {"sms": Channel(via="sms", to=("555-0100",))}},
            {},
        )

    def states(self):
        return self.states_now

    def oldest_message_age_s(self):
        return self.oldest_s

    async def probe(self, at):
        await trio.lowlevel.checkpoint()
        self.probes += 1
        if self.failure is not None:
            raise self.failure


@asynccontextmanager
async def parts(switch, **settings):
    url = Secret(f"http://127.0.0.1:{switch.port}/ping/SECRET", "file x")
    table = Heartbeat(url=url, **({"interval": Duration(0.2)} | settings))
    async with RealWorld(EngineClock()) as world:
        yield Parts(world, table)


async def until(condition):
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 - a condition of a server
            await trio.sleep(0.01)


async def test_beats_come_while_all_works_and_cease_when_something_does_not(switch):
    async with parts(switch) as running, trio.open_nursery() as nursery:
        nursery.start_soon(beat, running)
        await until(lambda: len(switch.asked) >= 3)
        assert set(switch.asked) == {"GET /ping/SECRET HTTP/1.1"}
        assert running.beats.last_at is not None and running.probes >= 3, "each is proved by a write"
        running.failure = JournalFull("no space left")
        await until(lambda: "no space left" in running.beats.withheld)
        count = len(switch.asked)
        await until(lambda before=running.probes: running.probes >= before + 3)
        assert len(switch.asked) == count
        running.failure = None
        await until(lambda: len(switch.asked) > count and running.beats.withheld == "")
        nursery.cancel_scope.cancel()


async def test_a_check_that_does_not_run_and_a_message_that_is_stuck_withhold_it(switch):
    async with parts(switch) as running:
        assert await what_does_not_work(running) == ""
        running.oldest_s = 3600.0
        assert await what_does_not_work(running) == "the oldest message has waited for 1h"
        old = running.world.clock.now() - 121
        running.states_now = [CheckState(CheckName(f"c{n}"), "webhook", 30.0, last_run_at=old) for n in range(5)]
        assert await what_does_not_work(running) == "checks do not run: c0, c1, c2 and 2 more"


async def test_a_drill_that_did_not_arrive_withholds_it_until_one_has(switch):
    async with parts(switch) as running:
        target, now = Target("primary", "sms", "555-0100"), running.world.clock.now()
        apply(running.state, DrillHeld(now - 601, "weekly", (target,)))
        assert await what_does_not_work(running) == "the drill weekly did not reach primary through sms"
        running.state.drilled[target] = now
        assert await what_does_not_work(running) == ""


def test_what_is_paused_or_was_only_just_awaited_is_not_idle():
    never = CheckState(CheckName("new"), "webhook", 30.0, awaited_since=1000.0)
    assert idle_checks([never], 1100.0) == []
    assert idle_checks([never], 1121.0) == ["new"]
    assert idle_checks([CheckState(CheckName("off"), "webhook", 30.0, paused=True)], 1e9) == []


@pytest.mark.parametrize(("trouble", "says"), [(503, "answered 503"), ("hangs up", "cannot be reached")])
async def test_a_switch_that_does_not_take_it_is_asked_again_and_its_address_stays_secret(switch, trouble, says):
    if trouble == "hangs up":
        switch.hangs_up = True
    else:
        switch.status = trouble
    async with parts(switch, method="POST") as running:
        table = running.heartbeat
        said = await send(running.world.outbound("heartbeat"), table, table.url, running.beats, running.world.clock.now)
        assert says in said and "SECRET" not in said
        assert switch.asked == ["POST /ping/SECRET HTTP/1.1"] * 3
        assert running.beats.last_at is None
