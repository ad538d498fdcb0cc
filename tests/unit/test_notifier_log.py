"""The log notifier."""

from structlog.testing import capture_logs

from sixfbd.plugin import PluginConfig
from sixfbd_plugins.notifiers import log
from sixfbd_plugins.notifiers.log import LogNotifier

TO_LOG = {"primary": {"webhook": {"via": "log"}}}


def test_a_notification_becomes_one_line_with_its_facts_and_is_delivered(engine):
    with capture_logs() as lines:
        engine.start(log, notifiers={"log": {"plugin": "log"}}, receivers=TO_LOG)
        [message] = engine.notify("primary")
    assert message.state == "delivered"
    [line] = [line for line in lines if line["event"] == "notification"]
    title, text = line.pop("title"), line.pop("text")
    assert title in text
    assert line == {
        "event": "notification",
        "log_level": "warning",
        "notifier": "log",
        "id": message.id,
        "receiver": "primary",
        "status": "notice",
        "severity": "low",
        "alerts": [],
        "attempt": 1,
        "possibly_repeated": False,
    }


def test_an_alert_is_named_by_its_id(engine):
    always = {"name": "Always", "expr": "vector(1)", "severity": "high"}
    with capture_logs() as lines:
        engine.start(log, notifiers={"log": {"plugin": "log"}}, receivers=TO_LOG, rules=[always])
        engine.advance("1m")
    [alert] = engine.alerts()
    assert [line["alerts"] for line in lines if line["event"] == "notification"] == [[alert.id]]


def test_the_module_brings_the_notifier_log():
    assert log.sixfbd_notifiers(config=PluginConfig()) == {"log": LogNotifier}
