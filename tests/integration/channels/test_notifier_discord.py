"""The `discord` notifier against a double of Discord: what is posted where, rewrites, what failures mean, what is never shown."""

import pytest

from sixfbd.plugin import InvalidOptions, PermanentFailure, Secret, TemporaryFailure
from sixfbd_plugins.notifiers.discord import DiscordNotifier, DiscordNotifierOptions
from sixfbd_plugins.sandbox.discord import DiscordDouble
from sixfbd_plugins.sandbox.faults import Fault
from tests.provider_kit import InProcess, ManualClock, PluginContext, served

HOOKS = {"/api/webhooks/123/hookSECRETkey": "alerts", "/api/webhooks/124/otherSECRET": "stock"}


def options_for(url, **changes):
    webhooks = {f"#{channel}": Secret(f"{url}{path}", "env H") for path, channel in HOOKS.items()}
    return DiscordNotifierOptions(**({"webhooks": webhooks, "rate": 50.0} | changes))


@pytest.fixture
async def wire(kit, nursery, context):
    made = await served(DiscordDouble(context.clock.now, kit.rng(), webhooks=HOOKS), nursery)
    yield made
    for method, body in made.double.posted:
        kit.keeps("discord_requests.json", method, body)


@pytest.fixture
def make(wire, context):
    return lambda **changes: DiscordNotifier(options_for(wire.url, **changes), context)


@pytest.fixture
def on_the_clock(kit):
    """A notifier of a double in process, with a clock that stands."""
    clock = ManualClock(kit.AT)
    double = DiscordDouble(clock.now, kit.rng(), webhooks=HOOKS)
    context = PluginContext(InProcess(double), clock)
    return DiscordNotifier(options_for("https://discord.test", rate=0.5), context), double, clock


async def test_a_notification_is_a_message_with_the_colour_and_the_sign_of_its_severity(make, wire, kit):
    receipt = await make().deliver(kit.notification())
    [sent] = wire.double.messages
    assert (receipt.state, receipt.provider_id) == ("accepted", sent.id)
    assert (sent.channel, sent.content["username"]) == ("alerts", "sixfbd")
    assert sent.content["content"] == "🚨 \\[FIRING\\] HighMemory \\(high\\) — memory \\<b\\> & \\*short\\*"
    [embed] = sent.content["embeds"]
    assert (embed["color"], embed["timestamp"]) == (0xE74A3B, "2027-01-15T08:00:00.000Z")
    assert embed["description"] == (
        "Firing\\: memory \\<b\\> & \\*short\\*\nValue\\: 93.25\nAcknowledge\\: sixfbctl ack a1\n\n"
        "workshop / production\n\nhttp://127.0.0.1:9632/"
    )
    assert sent.content["allowed_mentions"] == {"parse": []}


async def test_the_resolve_rewrites_the_first_message_and_is_told_as_well(make, wire, kit, context):
    receipt = await make().deliver(kit.notification())
    context.read.about["a1"] = [kit.earlier(receipt.provider_id)]
    done = await make().deliver(kit.notification("m-2", kit.alert(kind="resolve")))
    first, _ = wire.double.messages
    assert (first.edited, first.content["embeds"][0]["color"]) == (1, 0x1CC88A)
    assert first.content["content"].startswith("✅ \\[RESOLVED\\]")
    assert done.detail == "posted, and its first message rewritten"


async def test_a_first_message_that_is_gone_or_told_of_more_is_left_and_the_resolve_told(make, wire, kit, context):
    receipt = await make().deliver(kit.notification("m-1", kit.alert("a1"), kit.alert("a2")))
    for message in (kit.earlier(receipt.provider_id, "o1", "o2"), kit.earlier("99"), kit.earlier("../x")):
        context.read.about["a1"] = [message]
        await make().deliver(kit.notification("m-2", kit.alert(kind="resolve")))
    assert [one.edited for one in wire.double.messages] == [0, 0, 0, 0]


MEANINGS = [
    (404, 10015, PermanentFailure, "the webhook was removed"),
    (404, 0, PermanentFailure, "the webhook was removed"),
    (401, 50027, PermanentFailure, "not valid any more"),
    (400, 50035, PermanentFailure, "does not take the message's form"),
    (403, 50013, PermanentFailure, "may not post here"),
    (400, 12345, PermanentFailure, "no reason was given"),
    (429, 0, TemporaryFailure, "too many messages"),
    (500, 0, TemporaryFailure, "answered 500"),
    (503, 0, TemporaryFailure, "answered 503"),
]


@pytest.mark.parametrize(("status", "code", "kind", "words"), MEANINGS)
async def test_a_refusal_is_temporary_or_permanent_and_said_in_plain_words(make, wire, kit, status, code, kind, words):
    wire.double.faults = [Fault(error=status, code=code, retry_after_s=3)]
    with pytest.raises(kind, match=words) as failure:
        await make().deliver(kit.notification())
    if status == 429:
        assert (failure.value.retry_after_s, failure.value.sent) == (3.5, False)


async def test_an_answer_that_is_lost_or_not_discords_leaves_open_whether_it_was_taken(make, wire, kit):
    for fault in (Fault(lost=True), Fault(error=200)):
        wire.double.faults = [fault]
        with pytest.raises(TemporaryFailure) as failure:
            await make().deliver(kit.notification())
        assert failure.value.sent


@pytest.mark.parametrize("everywhere", [False, True])
async def test_a_429_holds_its_channel_back_and_a_global_one_all(on_the_clock, kit, everywhere):
    made, double, clock = on_the_clock
    double.faults, double.everywhere = [Fault(error=429, retry_after_s=30)], everywhere
    with pytest.raises(TemporaryFailure):
        await made.deliver(kit.notification())
    double.faults = []
    with pytest.raises(TemporaryFailure, match="messages a second"):
        await made.deliver(kit.notification())
    if everywhere:
        with pytest.raises(TemporaryFailure, match="messages a second"):
            await made.deliver(kit.notification(address="#stock"))
        clock.at += 31
    await made.deliver(kit.notification(address="#stock"))


async def test_who_has_used_up_the_rate_limit_waits_as_the_headers_say(on_the_clock, kit):
    made, double, clock = on_the_clock
    double.remaining = 0
    for number in range(2):
        await made.deliver(kit.notification(f"m-{number}"))
    assert clock.at == kit.AT + 2.0


async def test_no_more_go_out_in_a_minute_than_discord_takes(on_the_clock, kit):
    made, double, clock = on_the_clock
    for number in range(30):
        await made.deliver(kit.notification(f"m-{number}"))
    assert clock.at == kit.AT + 58.0
    assert len(double.messages) == 30


async def test_discord_that_never_answers_costs_one_slot_for_one_deadline(make, wire, kit, context):
    await kit.one_hangs_another_goes(wire, make, context)


async def test_no_failure_holds_a_webhooks_address(make, wire, kit):
    said = [repr(make().options)]
    for words in ("a reason", f"{wire.url}/api/webhooks/123/hookSECRETkey"):
        wire.double.fault_words = words
        for fault in (Fault(error=400), Fault(error=403), Fault(error=500), Fault(lost=True)):
            wire.double.faults = [fault]
            with pytest.raises((TemporaryFailure, PermanentFailure)) as failure:
                await make().deliver(kit.notification())
            said.append(str(failure.value))
    assert not [text for text in said if "SECRET" in text or "/api/webhooks" in text]


@pytest.mark.parametrize(("changes", "words"), [
    ({"webhooks": {"#a": Secret("no address", "e")}}, "'#a' is not an address"),
    ({"username": "Clyde"}, "takes no such name"),
    ({"username": "my Discord bot"}, "takes no such name"),
])  # fmt: skip
def test_a_wrong_option_is_named(changes, words):
    with pytest.raises(InvalidOptions, match=words) as failure:
        options_for("https://discord.test", **changes)
    assert "SECRET" not in str(failure.value)


def test_addresses_are_names_of_webhooks():
    DiscordNotifier.check_address(options_for("https://d.test"), "#stock")
    with pytest.raises(ValueError, match="write one of #alerts, #stock"):
        DiscordNotifier.check_address(options_for("https://d.test"), "")
