"""How messages read."""

import pytest

from sixfbd.config.tables import SeverityTable
from sixfbd.model import Alert, AlertKey, Evidence, Message, Obligation, Severity, Target
from sixfbd.outbox.render import MAX_TITLE, Place, render

AT = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
TARGET = Target("primary", "hook", "ops@example.com")


def obligation(kind="fire", host="a", summary="memory is short", severity=Severity.HIGH, text="", **changes):
    resolved = kind == "resolve"
    about = Alert(
        key=AlertKey("HighMemory", (("host", host),)),
        id=f"id-{host}",
        state="resolved" if resolved else "firing",
        since=AT,
        severity=severity,
        value=93.25,
        labels={"host": host, "mount": "/", "alertname": "HighMemory", "severity": str(severity)},
        annotations={"summary": summary} if summary else {},
        fired_at=AT,
        resolved_at=AT + 300 if resolved else None,
        evidence=(Evidence(f'mem_used{{host="{host}"}}', int(AT * 1000), 93.25),),
        **changes,
    )
    return Obligation(
        id=f"{kind}-{host}", kind=kind, target=TARGET, state="sending", at=AT, subject=about.id, severity=severity,
        about=None if kind == "notice" else about, text=text,
    )  # fmt: skip


def rendered(*obligations, **options):
    message = Message(
        id="m1", target=TARGET, state="sending", created_at=AT, expires_at=AT + 9, obligations=(), group="HighMemory",
        attempt=2, **options,
    )  # fmt: skip
    return render(message, obligations, Place("workshop", "production", "http://127.0.0.1:9632/"), AT + 125)


def test_a_firing_alert_reads_whole():
    one = rendered(obligation())
    assert one.title == "[FIRING] HighMemory (high) — memory is short"
    assert one.text == (
        "[FIRING] HighMemory (high) — memory is short\n"
        "\n"
        "Firing: memory is short\n"
        "Labels: host=a, mount=/\n"
        "Value: 93.25\n"
        "Since: 2027-01-15 08:00:00 UTC, for 2m5s\n"
        'Evidence: mem_used{host="a"} = 93.25 at 2027-01-15 08:00:00 UTC\n'
        "Acknowledge: sixfbctl ack id-a\n"
        "Explain: sixfbctl why id-a\n"
        "\n"
        "workshop / production\n"
        "\n"
        "http://127.0.0.1:9632/"
    )
    assert (one.status, one.severity, one.receiver, one.address) == ("firing", "high", "primary", "ops@example.com")
    assert (one.id, one.attempt, one.sent_at, one.possibly_repeated) == ("m1", 2, AT + 125, False)
    [alert] = one.alerts
    assert (alert.id, alert.status, alert.kind, alert.starts_at, alert.ends_at) == ("id-a", "firing", "fire", AT, None)


def test_a_resolved_alert_says_how_long_it_lasted_and_asks_for_nothing():
    one = rendered(obligation("resolve", reason="rule removed"))
    assert one.title == "[RESOLVED] HighMemory (high) — ended after 5m (rule removed), was: memory is short"
    assert one.text == (
        "[RESOLVED] HighMemory (high) — ended after 5m (rule removed), was: memory is short\n"
        "\n"
        "Resolved, was: memory is short\n"
        "Reason: rule removed\n"
        "Labels: host=a, mount=/\n"
        "Last value: 93.25\n"
        "It lasted 5m: from 2027-01-15 08:00:00 UTC to 2027-01-15 08:05:00 UTC\n"
        "Explain: sixfbctl why id-a\n"
        "\n"
        "workshop / production\n"
        "\n"
        "http://127.0.0.1:9632/"
    )
    assert (one.status, one.alerts[0].status, one.alerts[0].ends_at) == ("resolved", "resolved", AT + 300)


def test_a_resolved_alert_says_how_things_are_now_if_that_is_known():
    one = rendered(obligation("resolve", value_at_end=0.02))
    assert one.title == "[RESOLVED] HighMemory (high) — ended after 5m (now 0.02), was: memory is short"
    assert "Value now: 0.02" in one.text.splitlines()
    assert "Last value" not in one.text


def test_a_resolved_alert_without_a_summary_says_that_it_is_over_all_the_same():
    one = rendered(obligation("resolve", summary=""))
    assert one.title == "[RESOLVED] HighMemory (high) — ended after 5m"
    assert one.alerts[0].sentence == "ended after 5m, was: HighMemory"


@pytest.mark.parametrize(
    ("kinds", "title"),
    [
        (("fire", "fire"), "[FIRING:2] HighMemory (high) — memory is short, and 1 more"),
        (("resolve",) * 17, "[RESOLVED:17] HighMemory (high) — ended after 5m, was: memory is short, and 16 more"),
        (("fire", "resolve"), "[FIRING] HighMemory (high) — memory is short, 1 resolved"),
        (("fire", "level", "resolve"), "[FIRING:2] HighMemory (high) — memory is short, and 1 more, 1 resolved"),
    ],
)
def test_the_title_of_several_alerts_says_how_many_of_them_fire(kinds, title):
    assert rendered(*(obligation(kind, f"h{n}") for n, kind in enumerate(kinds))).title == title


def test_the_title_of_several_alerts_without_a_summary_counts_them_all_the_same():
    assert rendered(*(obligation(host=f"h{n}", summary="") for n in range(3))).title == "[FIRING:3] HighMemory (high)"


def test_of_several_alerts_those_that_fire_come_first_the_gravest_before_all():
    one = rendered(
        obligation("resolve", "a"), obligation("fire", "b"), obligation("fire", "c", "the worst", Severity.CRITICAL)
    )
    assert one.status == "firing"
    assert [line for line in one.text.splitlines() if line.startswith(("Firing", "Resolved"))] == [
        "Firing: the worst", "Firing: memory is short", "Resolved, was: memory is short",
    ]  # fmt: skip
    assert [alert.status for alert in one.alerts] == ["resolved", "firing", "firing"], "machines get them as they came"


def test_the_severity_of_a_message_is_the_highest_that_fires():
    one = rendered(
        obligation("resolve", "a", severity=Severity.CRITICAL), obligation("fire", "b", severity=Severity.LOW)
    )
    assert one.severity is Severity.LOW


def test_a_level_says_which_it_is_now():
    assert "Severity is high now" in rendered(obligation("level")).text


def test_without_a_summary_the_title_ends_with_the_severity():
    assert rendered(obligation(summary="")).title == "[FIRING] HighMemory (high)"


@pytest.mark.parametrize(
    ("count", "said"), [(10, ""), (11, "and 1 more; `sixfbctl alerts` lists"), (100, "and 90 more; `sixfbctl")]
)
def test_a_long_message_names_ten_and_counts_the_rest_but_carries_all(count, said):
    one = rendered(*(obligation(host=f"h{n}") for n in range(count)))
    assert one.text.count("Acknowledge:") == 10
    assert ("lists all that fire" in one.text) == bool(said)
    assert said in one.text
    assert len(one.alerts) == count


def test_a_notice_has_no_alerts_and_its_text_as_it_is():
    one = rendered(obligation("notice", text="sale: tier=ga, quantity=2"))
    assert (one.status, one.title, one.alerts, one.group_labels) == (
        "notice", "[NOTICE] sale: tier=ga, quantity=2", (), {},
    )  # fmt: skip
    assert "\n\nsale: tier=ga, quantity=2\n\n" in one.text
    assert rendered(*[obligation("notice", text="sale: a")] * 3).title == "[NOTICE] sale: a, and 2 more"


def test_a_possible_repeat_says_so():
    one = rendered(obligation(), possibly_repeated=True)
    assert one.possibly_repeated
    assert "may be a repeat" in one.text


def test_a_title_has_an_end():
    assert len(rendered(obligation(summary="x" * 1000)).title) == MAX_TITLE


def test_the_fingerprint_is_the_alerts_over_all_its_incidents():
    first = rendered(obligation(host="a")).alerts[0].fingerprint
    assert first == rendered(obligation("resolve", host="a")).alerts[0].fingerprint
    assert first != rendered(obligation(host="b")).alerts[0].fingerprint
    assert len(first) == 16


def test_a_notification_has_the_look_of_its_severity():
    one = rendered(obligation(), obligation("resolve", "b", severity=Severity.CRITICAL))
    assert (one.color, one.icon) == ("#E74A3B", "🚨")
    own = Place(severities={Severity.HIGH: SeverityTable(color="#123456", icon="!")})
    message = Message(id="m1", target=TARGET, state="sending", created_at=AT, expires_at=AT + 9, obligations=())
    assert render(message, [obligation()], own, AT).color == "#123456"
    assert render(message, [obligation(severity=Severity.LOW)], own, AT).icon == ""
