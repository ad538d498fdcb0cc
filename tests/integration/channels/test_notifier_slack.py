"""The `slack` notifier against a double of Slack: what is posted where, threads, what failures mean, what is never shown."""

import pytest

from sixfbd.plugin import InvalidOptions, PermanentFailure, Secret, TemporaryFailure
from sixfbd_plugins.notifiers.slack import MEANINGS, SlackNotifier, SlackNotifierOptions
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.slack import SlackDouble
from tests.provider_kit import InProcess, ManualClock, PluginContext, served

TOKEN = "xoxb-" + "12345-abcdefSECRET"  # in two parts: a scanner of secrets would take it for one
HOOKS = {"/services/T0/B0/hookSECRETkey": "alerts", "/services/T0/B1/otherSECRET": "inventory-alerts"}
CHANNELS = {"alerts": "C0123ABCD", "inventory-alerts": "C0456EFGH"}


@pytest.fixture
async def wire(kit, nursery, context):
    made = await served(SlackDouble(TOKEN, context.clock.now, kit.rng(), channels=CHANNELS, webhooks=HOOKS), nursery)
    yield made
    for path, body in made.double.posted:
        kit.keeps("slack_requests.json", path.rpartition("/")[2] if path.startswith("/api/") else "webhook", body)


@pytest.fixture
def make(wire, context):
    def slack_notifier(**options):
        given = {"token": Secret(TOKEN, "env T"), "rate": 100.0, "base_url": wire.url} | options
        return SlackNotifier(SlackNotifierOptions(**given), context)

    return slack_notifier


@pytest.fixture
def by_webhook(make, wire):
    channels = {f"#{channel}": Secret(f"{wire.url}{path}", "env H") for path, channel in HOOKS.items()}
    return lambda: make(token=None, webhooks=channels)


async def test_a_notification_is_a_message_with_the_colour_and_the_sign_of_its_severity(make, wire, kit):
    receipt = await make().deliver(kit.notification())
    [sent] = wire.double.messages
    assert (receipt.state, receipt.provider_id) == ("accepted", f"C0123ABCD/{sent.ts}")
    assert sent.content["text"] == "🚨 [FIRING] HighMemory (high) — memory &lt;b&gt; &amp; *short*"
    [attachment] = sent.content["attachments"]
    assert attachment["color"] == "#E74A3B"
    texts = [(block.get("text") or block["elements"][0])["text"] for block in attachment["blocks"]]
    assert texts == [
        "Firing: memory &lt;b&gt; &amp; *short*\nValue: 93.25\nAcknowledge: sixfbctl ack a1",
        "workshop / production",
        "<http://127.0.0.1:9632/>",
    ]


async def test_what_comes_later_of_an_incident_replies_in_the_thread_of_its_first_message(make, wire, kit, context):
    receipt = await make().deliver(kit.notification())
    context.read.about["a1"] = [kit.earlier(receipt.provider_id)]
    await make().deliver(kit.notification("m-2", kit.alert(kind="repeat")))
    await make().deliver(kit.notification("m-3", kit.alert(kind="level")))
    first, *later = wire.double.messages
    assert [one.thread_ts for one in later] == [first.ts, first.ts]
    assert [one.content.get("reply_broadcast", False) for one in later] == [False, True]


async def test_the_resolve_rewrites_the_first_message_and_replies(make, wire, kit, context):
    receipt = await make().deliver(kit.notification())
    context.read.about["a1"] = [kit.earlier(receipt.provider_id)]
    done = await make().deliver(kit.notification("m-2", kit.alert(kind="resolve")))
    first, reply = wire.double.messages
    assert (first.edited, reply.thread_ts) == (1, first.ts)
    assert first.content["text"] == "✅ [RESOLVED] ended after 5m, was: memory &lt;b&gt; &amp; *short*"
    assert first.content["attachments"][0]["color"] == "#1CC88A"
    assert done.detail == "posted, and its first message rewritten"


async def test_a_first_message_that_told_of_more_is_left_as_it_is(make, wire, kit, context):
    receipt = await make().deliver(kit.notification("m-1", kit.alert("a1"), kit.alert("a2")))
    context.read.about["a1"] = [kit.earlier(receipt.provider_id, "o1", "o2")]
    await make().deliver(kit.notification("m-2", kit.alert(kind="resolve")))
    first, reply = wire.double.messages
    assert (first.edited, reply.thread_ts) == (0, first.ts)


async def test_a_message_about_several_incidents_stands_by_itself(make, wire, kit, context):
    made = make()
    for name in ("a1", "a2"):
        receipt = await made.deliver(kit.notification(f"m-{name}", kit.alert(name)))
        context.read.about[name] = [kit.earlier(receipt.provider_id)]
    await made.deliver(kit.notification("m-9", kit.alert("a1", "resolve"), kit.alert("a2", "resolve")))
    *firsts, last = wire.double.messages
    assert ([one.edited for one in firsts], last.thread_ts) == ([1, 1], None)


async def test_only_a_message_to_the_same_address_began_a_thread(make, wire, kit, context):
    context.read.about["a1"] = [
        kit.earlier("C0456EFGH/1800000000.000001", address="#inventory-alerts"),
        kit.earlier("elsewhere", notifier="other"),
    ]
    await make().deliver(kit.notification("m-2", kit.alert(kind="repeat")))
    assert wire.double.messages[0].thread_ts is None


async def test_a_thread_that_is_gone_or_cannot_be_read_keeps_no_message_back(make, wire, kit, context):
    context.read.about["a1"] = [kit.earlier("C0123ABCD/1800000000.000001")]
    await make().deliver(kit.notification("m-2", kit.alert(kind="resolve")))

    async def broken(alert):
        raise OSError("the disk is gone")

    context.read.messages_about = broken
    await make().deliver(kit.notification("m-3", kit.alert(kind="repeat")))
    assert [one.thread_ts for one in wire.double.messages] == [None, None]


async def test_each_webhook_posts_to_its_own_channel(by_webhook, wire, kit):
    for address in ("#alerts", "#inventory-alerts"):
        receipt = await by_webhook().deliver(kit.notification(address=address))
        assert (receipt.state, receipt.provider_id) == ("accepted", None)
    assert [one.channel for one in wire.double.messages] == ["C0123ABCD", "C0456EFGH"]


@pytest.mark.parametrize("code", sorted(MEANINGS))
async def test_a_refusal_of_slacks_is_temporary_or_permanent_by_its_word_and_said_plainly(make, wire, kit, code):
    meaning = MEANINGS[code]
    wire.double.faults, wire.double.fault_code = [Fault(error=200)], code
    with pytest.raises(TemporaryFailure if meaning.temporary else PermanentFailure) as failure:
        await make().deliver(kit.notification())
    assert str(failure.value) == f"{meaning.words} ({code})"
    if meaning.temporary:
        assert failure.value.sent is meaning.sent


@pytest.mark.parametrize(("status", "kind", "words"), [
    (429, TemporaryFailure, "answered 429: too many messages"),
    (503, TemporaryFailure, "answered 503: there is no"),
    (404, PermanentFailure, "answered 404: there is no"),
])  # fmt: skip
async def test_a_status_says_what_a_strange_word_does_not(make, by_webhook, wire, kit, status, kind, words):
    wire.double.faults, wire.double.fault_code = [Fault(error=status, retry_after_s=30)], "channel_not_found"
    if status == 503:
        words, wire.double.fault_code = "answered 503: new_word", "new_word"
    for made in (make(), by_webhook()):
        with pytest.raises(kind, match=words) as failure:
            await made.deliver(kit.notification())
        if kind is TemporaryFailure:
            assert (failure.value.retry_after_s, failure.value.sent) == (30.0, False)


async def test_a_webhook_that_was_removed_is_permanent(by_webhook, wire, kit):
    wire.double.webhooks = {}
    with pytest.raises(PermanentFailure, match="disabled or removed"):
        await by_webhook().deliver(kit.notification())


async def test_an_answer_that_is_lost_or_not_slacks_leaves_open_whether_it_was_taken(make, wire, kit):
    for fault in (Fault(lost=True), Fault(error=200)):
        wire.double.faults, wire.double.fault_code = [fault], ""
        with pytest.raises(TemporaryFailure) as failure:
            await make().deliver(kit.notification())
        assert failure.value.sent
    assert len(wire.double.messages) == 1


async def test_after_a_429_nothing_goes_to_the_channel_until_slack_lets_it(kit):
    clock = ManualClock(kit.AT)
    double = SlackDouble(TOKEN, clock.now, kit.rng(), channels=CHANNELS)
    made = SlackNotifier(SlackNotifierOptions(token=Secret(TOKEN, "env T")), PluginContext(InProcess(double), clock))
    double.faults = [Fault(error=429, retry_after_s=30)]
    with pytest.raises(TemporaryFailure):
        await made.deliver(kit.notification())
    double.faults = []
    with pytest.raises(TemporaryFailure, match="more than 1 messages a second") as failure:
        await made.deliver(kit.notification())
    assert (failure.value.retry_after_s, len(double.requests)) == (30.0, 1)
    await made.deliver(kit.notification("m-9", address="#inventory-alerts"))
    clock.at += 30
    await made.deliver(kit.notification())
    for number in range(2):
        await made.deliver(kit.notification(f"m-{number}"))
    assert clock.at == kit.AT + 32.0
    double.faults = [Fault(error=429, retry_after_s=86_400)]
    with pytest.raises(TemporaryFailure):
        await made.deliver(kit.notification())
    clock.at, double.faults = clock.at + 601, []
    await made.deliver(kit.notification("a wish for a day is not for ever"))


async def test_slack_that_never_answers_costs_one_slot_for_one_deadline(make, wire, kit, context):
    await kit.one_hangs_another_goes(wire, make, context)


async def test_no_failure_holds_the_token_or_a_webhooks_address(make, by_webhook, wire, kit):
    said = [repr(make().options), repr(by_webhook().options)]
    faults = [Fault(error=200), Fault(error=403), Fault(error=500), Fault(lost=True)]
    for word in ("channel_not_found", TOKEN, "see /services/T0/B0/hookSECRETkey"):
        wire.double.fault_code = word
        for fault in faults:
            wire.double.faults = [fault]
            for made in (make(), by_webhook()):
                try:
                    await made.deliver(kit.notification())
                except (TemporaryFailure, PermanentFailure) as failure:
                    said.append(str(failure))
    assert len(said) > 20
    assert not [text for text in said if "SECRET" in text or "/services" in text]


@pytest.mark.parametrize(("options", "words"), [
    ({}, "one of token and webhooks is needed"),
    ({"token": Secret(TOKEN, "e"), "webhooks": {"#a": Secret("https://x.test/y", "e")}}, "one of token and webhooks"),
    ({"token": Secret("a token", "e")}, "is no token of Slack's"),
    ({"webhooks": {"#a": Secret("no address", "e")}}, "'#a' is not an address"),
    ({"token": Secret(TOKEN, "e"), "base_url": "slack.com"}, "is not an address"),
])  # fmt: skip
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(InvalidOptions, match=words) as failure:
        SlackNotifierOptions(**options)
    assert "a token" not in str(failure.value)


def test_addresses_are_channels_or_names_of_webhooks():
    by_token = SlackNotifierOptions(token=Secret(TOKEN, "e"))
    for good in ("#alerts", "#inventory-alerts", "C0123ABCD"):
        SlackNotifier.check_address(by_token, good)
    for bad in ("", "alerts", "#Alerts", "#two words", "@somebody"):
        with pytest.raises(ValueError, match="is no channel"):
            SlackNotifier.check_address(by_token, bad)
    one = SlackNotifierOptions(webhooks={"#a": Secret("https://x.test/y", "e")})
    SlackNotifier.check_address(one, "")
    with pytest.raises(ValueError, match="names no webhook; write one of #a"):
        SlackNotifier.check_address(one, "#b")
