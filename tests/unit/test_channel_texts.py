"""What channels make of any notification: within the provider's limits, valid JSON, its markup escaped, never an exception."""

import json
import re
from email.message import EmailMessage
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd.plugin import Notification, NotifiedAlert, Severity
from sixfbd_plugins.mail.letters import MAX_SUBJECT, letter_of
from sixfbd_plugins.mail.smtp import POLICY
from sixfbd_plugins.notifiers import discord, slack
from sixfbd_plugins.notifiers.fitting import blocks_of, fitted, headline, resolved_parts, units

CONTRACTS = Path(__file__).resolve().parents[1] / "contract"
VALIDATORS = {}
for _name, _part in (("slack", "webhook"), ("discord", "PATCH")):
    _document = json.loads((CONTRACTS / f"{_name}_requests.json").read_text("utf-8"))
    VALIDATORS[_name] = jsonschema.Draft202012Validator({**_document, "$ref": f"#/$defs/{_part}"})

MARKUP = st.sampled_from([
    "<!channel>", "<@U012>", "&lt;", "@everyone", "@here", "<@&1>", "**bold**", "```", "[x](http://y)", "||s||", "\n\n", "# h",
    "https://x.test/a_b_c", "\x00", "\ud800", "😀", "<b>", '"', "\\", "\u202e", "-" * 400, "&" * 1000, "😀" * 1100, "a" * 3100,
])  # fmt: skip
TEXTS = st.lists(st.one_of(MARKUP, st.text(max_size=30)), max_size=5).map("".join)
ALERTS = st.builds(
    NotifiedAlert,
    id=st.just("a1"), status=st.just("resolved"), severity=st.sampled_from(Severity),
    labels=st.dictionaries(st.sampled_from(["alertname", "host"]), TEXTS), annotations=st.fixed_dictionaries({"summary": TEXTS}),
    value=st.one_of(st.floats(), st.just("NaN")), starts_at=st.floats(0, 4e9), ends_at=st.none() | st.floats(0, 4e9),
)  # fmt: skip


class Case:
    """A notification whose text, in the report of a failure, is no longer than somebody reads."""

    def __init__(self, notification):
        self.notification = notification

    def __repr__(self):
        return repr(self.notification)[:5000]


@st.composite
def cases(draw):
    made = Notification(
        id="m-1", receiver="primary", address="#a", severity=draw(st.sampled_from(Severity)), title=draw(TEXTS),
        status=draw(st.sampled_from(["firing", "resolved", "notice"])), icon=draw(st.sampled_from(["", "🚨"])),
        text="\n\n".join(draw(st.lists(TEXTS, max_size=70))), color=draw(st.sampled_from(["", "#E74A3B"])),
        external_url=draw(st.sampled_from(["", "http://127.0.0.1:9632/", "javascript:x", "http://x/|>" + "a" * 5000])),
        alerts=tuple(draw(st.lists(ALERTS, max_size=3))), sent_at=draw(st.floats(0, 4e9)),
    )  # fmt: skip
    return Case(made)


def sent(body):
    """A body as the provider reads it."""
    return json.loads(msgspec.json.encode(body))


@settings(deadline=None)
@given(cases())
def test_any_notification_becomes_a_message_that_slack_takes(case):
    notification = case.notification
    body = sent(slack.message_of(notification))
    VALIDATORS["slack"].validate(body)
    blocks = body["attachments"][0]["blocks"]
    texts = [(block.get("text") or block["elements"][0])["text"] for block in blocks]
    assert sum(map(units, texts)) <= 9600
    assert all(units(text) <= slack.MAX_SECTION for text in texts)
    if notification.alerts:
        VALIDATORS["slack"].validate(sent(slack.resolved_message(notification.alerts)))


@settings(deadline=None)
@given(cases())
def test_any_notification_becomes_a_message_that_discord_takes(case):
    notification = case.notification
    body = sent(discord.message_of(notification))
    VALIDATORS["discord"].validate(body)
    description = "".join(embed["description"] for embed in body["embeds"])
    assert units(body["content"]) <= discord.MAX_CONTENT
    assert units(description) <= discord.MAX_DESCRIPTION
    for text in (body["content"], description.removesuffix(notification.external_url)):
        assert not re.search(r"(?<!\\)(?:\\\\)*[*_`|<>@\[\]]", text), "markup that is not escaped"
    if notification.alerts:
        VALIDATORS["discord"].validate(sent(discord.resolved_message(notification.alerts)))


@settings(deadline=None)
@given(cases())
def test_any_notification_becomes_an_e_mail_whose_markup_is_escaped(case):
    letter = letter_of(case.notification, "example.com")
    assert 0 < len(letter.subject) <= MAX_SUBJECT and letter.subject.splitlines() == [letter.subject]
    body = re.sub(r"</?(?:html|body|div|h3|p|br|a)(?: [a-z]+=\"[^\"<>]*\")?>|<!DOCTYPE html>", "", letter.html)
    assert not re.search("[<>]", body), "markup that is not ours"
    made = EmailMessage(policy=POLICY)
    for name, value in (letter.headers | {"Subject": letter.subject, "Message-ID": letter.message_id}).items():
        made[name] = value
    made.set_content(letter.text)
    made.add_alternative(letter.html, subtype="html")
    assert max(map(len, made.as_bytes(policy=POLICY).split(b"\r\n"))) <= 998


@settings(deadline=None)
@given(TEXTS, st.integers(1, 300))
def test_a_fitted_text_is_as_long_as_may_be_and_tears_no_escape(text, limit):
    for escape in (str, slack.escaped, discord.escaped):
        assert units(fitted(text, limit, escape)) <= limit
    assert not re.search("&(?!amp;|lt;|gt;)", fitted(text, limit, slack.escaped))
    assert fitted(text, 10**6) == fitted(fitted(text, 10**6), 10**6)


@pytest.mark.parametrize(("text", "limit", "said"), [
    ("abc", 3, "abc"), ("abcd", 3, "ab…"), ("😀😀", 4, "😀😀"), ("😀😀x", 4, "😀…"), ("a<b", 5, "a…"), ("a<b", 6, "a&lt;b"),
    ("", 5, ""), (" a\x07 ", 5, "a"), ("a\ud83db", 5, "ab"),
])  # fmt: skip
def test_texts_are_cut_between_characters_and_escapes(text, limit, said):
    assert fitted(text, limit, slack.escaped) == said


def test_title_and_dashboard_are_no_paragraphs_of_a_text():
    made = Notification(
        id="m", receiver="r", address="", status="firing", severity=Severity.LOW, title="[FIRING] x", external_url="http://d/",
        text="[FIRING] x\n\nsixfbd was away.\n\nFiring: x\n\nworkshop\n\nhttp://d/",
    )  # fmt: skip
    assert blocks_of(made) == ["sixfbd was away.", "Firing: x", "workshop"]


def test_more_than_fits_is_counted_and_nothing_is_lost_from_the_beginning():
    made = Notification(
        id="m", receiver="r", address="", status="firing", severity=Severity.LOW, title="t",
        text="t\n\n" + "\n\n".join(f"{number}: {'x' * 500}" for number in range(100)),
    )  # fmt: skip
    blocks = slack.message_of(made)["attachments"][0]["blocks"]
    assert blocks[0]["text"]["text"].startswith("0: x")
    assert blocks[-1]["text"]["text"] == f"{100 - len(blocks) + 1} and more: `sixfbctl alerts` lists all"
    assert discord.message_of(made)["embeds"][0]["description"].endswith("and more: sixfbctl alerts lists all")


@pytest.mark.parametrize(("status", "icon", "title", "said"), [
    ("firing", "🚨", "[FIRING] InventoryLow (high) — 🚨 INVENTORY LOW", "🚨 [FIRING] InventoryLow (high) — INVENTORY LOW"),
    ("firing", "🚨", "[FIRING] HighMemory (high) — 🔥 High memory usage", "🚨 [FIRING] HighMemory (high) — 🔥 High memory usage"),
    ("firing", "", "[FIRING] InventoryLow (high) — 🚨 INVENTORY LOW", "[FIRING] InventoryLow (high) — 🚨 INVENTORY LOW"),
    ("resolved", "💀", "[RESOLVED] Hot (critical) — was: ⚠️ 80 °C 👍🏽", "✅ [RESOLVED] Hot (critical) — was: 80 °C"),
])  # fmt: skip
def test_a_headline_has_each_sign_once_and_that_of_what_is_over_no_other(status, icon, title, said):
    made = Notification(
        id="m", receiver="r", address="", status=status, severity=Severity.HIGH, title=title, text=title, icon=icon
    )
    assert headline(made) == said


def test_an_earlier_message_about_what_is_over_says_how_it_ended_before_what_it_was():
    alerts = [
        NotifiedAlert(
            id=name, status="resolved", severity=Severity.HIGH, labels={"alertname": "InventoryLow"}, value=40.0,
            annotations={"summary": "🚨 INVENTORY LOW: dallas GA - 9"}, starts_at=0.0, ends_at=720.0, value_at_end=40.0,
        )
        for name in ("a", "b")
    ]  # fmt: skip
    title, blocks, _ = resolved_parts(alerts)
    assert title == "✅ [RESOLVED] ended after 12m (now 40), was: INVENTORY LOW: dallas GA - 9, and 1 more"
    assert blocks[0] == (
        "Resolved: ended after 12m (now 40), was: 🚨 INVENTORY LOW: dallas GA - 9\n"
        "From 1970-01-01T00:00:00.000Z until 1970-01-01T00:12:00.000Z"
    )
