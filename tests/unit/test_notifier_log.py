"""The log notifier."""

from typing import Any

from sixfbd.plugin import MessageId, Notification, NotifiedAlert, PluginConfig, Severity
from sixfbd_plugins.notifiers import log
from sixfbd_plugins.notifiers.log import LogNotifier


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def warning(self, event: str, **facts: Any) -> None:
        self.lines.append(("warning", event, facts))


class Context:
    name = "log"

    def __init__(self) -> None:
        self.log = Lines()


async def test_a_notification_becomes_one_line_with_its_facts_and_is_delivered():
    context = Context()
    alert = NotifiedAlert(
        id="i-1", status="firing", severity=Severity.HIGH, labels={}, annotations={}, value=1.0, starts_at=1.0
    )
    sent = Notification(
        id=MessageId("m-1"),
        receiver="primary",
        address="",
        status="firing",
        severity=Severity.HIGH,
        title="web is down",
        text="web is down for 2 minutes",
        alerts=(alert,),
        attempt=2,
        possibly_repeated=True,
    )
    receipt = await LogNotifier(LogNotifier.Options(), context).deliver(sent)
    assert (receipt.state, receipt.message_id) == ("delivered", "m-1")
    assert context.log.lines == [
        (
            "warning",
            "notification",
            {
                "id": "m-1",
                "receiver": "primary",
                "status": "firing",
                "severity": "high",
                "title": "web is down",
                "text": "web is down for 2 minutes",
                "alerts": ["i-1"],
                "attempt": 2,
                "possibly_repeated": True,
            },
        )
    ]


def test_the_module_brings_the_notifier_log():
    assert log.sixfbd_notifiers(config=PluginConfig()) == {"log": LogNotifier}
