"""The payload of the webhook notifier, its options, and how it reads Retry-After."""

import base64
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from sixfbd.plugin import MessageId, Notification, NotifiedAlert, Secret, Severity
from sixfbd_plugins.notifiers.webhook import WebhookNotifier, payload, retry_after_s

Options = WebhookNotifier.Options
GOOD_SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


def one_alert(name: str, **changes) -> NotifiedAlert:
    base = NotifiedAlert(
        id=f"incident-{name}",
        status="firing",
        severity=Severity.HIGH,
        labels={"alertname": name, "service": "web"},
        annotations={"summary": f"{name} is down", "runbook": "https://example.com/r"},
        value=0.0,
        starts_at=1_795_468_050.123,
        fingerprint="0123456789abcdef",
        generator_url="http://127.0.0.1:9632/",
    )
    return replace(base, **changes)


def notification(*alerts: NotifiedAlert, **changes) -> Notification:
    base = Notification(
        id=MessageId("m-1"),
        receiver="primary",
        address="",
        status="firing",
        severity=Severity.HIGH,
        title="web is down",
        text="web is down\nfor 2 minutes",
        alerts=alerts,
        group_key='{alertname="Down"}',
        group_labels={"alertname": "Down"},
        external_url="http://127.0.0.1:9632",
    )
    return replace(base, **changes)


def test_the_payload_has_the_keys_of_alertmanagers_version_4_and_ours():
    body = payload(notification(one_alert("Down")))
    alertmanager = {
        "version": "4",
        "groupKey": '{alertname="Down"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "primary",
        "groupLabels": {"alertname": "Down"},
        "commonLabels": {"alertname": "Down", "service": "web"},
        "commonAnnotations": {"summary": "Down is down", "runbook": "https://example.com/r"},
        "externalURL": "http://127.0.0.1:9632",
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": "Down", "service": "web"},
                "annotations": {"summary": "Down is down", "runbook": "https://example.com/r"},
                "startsAt": "2026-11-23T21:07:30.123Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://127.0.0.1:9632/",
                "fingerprint": "0123456789abcdef",
            }
        ],
    }
    assert body == alertmanager | {"title": "web is down", "text": "web is down\nfor 2 minutes"}


def test_a_resolved_alert_says_when_it_ended():
    resolved = one_alert("Down", status="resolved", ends_at=1_795_468_110.0)
    [alert] = payload(notification(resolved, status="resolved"))["alerts"]
    assert (alert["status"], alert["endsAt"]) == ("resolved", "2026-11-23T21:08:30.000Z")


def test_common_labels_are_those_that_every_alert_has_with_the_same_value():
    body = payload(notification(one_alert("A"), one_alert("B"), one_alert("C", labels={"alertname": "C"})))
    assert body["commonLabels"] == {}
    assert payload(notification(one_alert("A"), one_alert("B")))["commonLabels"] == {"service": "web"}
    assert payload(notification(one_alert("A"), one_alert("B")))["commonAnnotations"] == {
        "runbook": "https://example.com/r"
    }


def test_alerts_beyond_the_limit_are_counted_and_still_decide_what_is_common():
    body = payload(notification(one_alert("A"), one_alert("B"), one_alert("C")), max_alerts=2)
    assert [alert["labels"]["alertname"] for alert in body["alerts"]] == ["A", "B"]
    assert body["truncatedAlerts"] == 1
    assert body["commonLabels"] == {"service": "web"}


def test_a_notice_has_the_status_notice_no_alerts_and_its_text():
    body = payload(notification(status="notice", title="Sold", text="2 sold"))
    assert (body["status"], body["alerts"], body["commonLabels"], body["text"]) == ("notice", [], {}, "2 sold")


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120.0),
        (" 3 ", 3.0),
        ("-5", None),
        ("soon", None),
        ("Mon, 23 Nov 2026 21:08:30 GMT", 60.0),
        ("Mon, 23 Nov 2026 21:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert retry_after_s(header, datetime(2026, 11, 23, 21, 7, 30, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    "url", ["", "shop.example.com/hook", "ftp://example.com/", "http://", "http://[::1", "http://a:b@c:d/"]
)
def test_a_url_that_is_none_is_refused_with_its_mend_and_without_its_value(url):
    with pytest.raises(ValueError, match=r'write "https://example.com/hook"') as refusal:
        Options(url=url)
    assert not url or url not in str(refusal.value)


@pytest.mark.parametrize("secret", ["", "whsec_", "hunter2-hunter2", "whsec_c2hvcnQ=", "whsec_!!!!"])
def test_a_secret_that_is_not_one_of_standard_webhooks_is_refused_without_its_value(secret):
    with pytest.raises(ValueError, match="whsec_") as refusal:
        Options(url="https://example.com/hook", secret=Secret(secret, "env HOOK"))
    assert "hunter2" not in str(refusal.value)


def test_a_secret_may_come_with_or_without_its_prefix():
    for text in (GOOD_SECRET, GOOD_SECRET.removeprefix("whsec_")):
        assert Options(url="https://example.com/hook", secret=Secret(text, "env HOOK")).secret is not None


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"X Y": "1"}, "is not the name of a header"),
        ({"X-A": "one\r\nX-B: two"}, "is not printable ASCII"),
        ({"Webhook-Id": "1"}, "is set by sixfbd"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused_by_name(headers, message):
    with pytest.raises(ValueError, match=message):
        Options(url="https://example.com/hook", headers=headers)


def test_the_options_never_show_url_or_header_values():
    options = Options(url="https://example.com/hook/k3y", headers={"Authorization": "Bearer t0ken"})
    assert "k3y" not in repr(options)
    assert "t0ken" not in repr(options)
