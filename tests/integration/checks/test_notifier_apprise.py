"""The `apprise` notifier, by Apprise's service for JSON and a server on loopback."""

import json
import logging

import pytest

from sixfbd.model import MessageId
from sixfbd.plugin import InvalidOptions, Notification, Secret, Severity, TemporaryFailure
from sixfbd_plugins.notifiers.apprise import AppriseNotifier
from tests.bench.processes import free_port
from tests.integration.checks.conftest import answering

KEY = "hunter2hunter2"


def message(status="firing", severity=Severity.HIGH):
    return Notification(
        id=MessageId("m1"),
        receiver="primary",
        address="",
        status=status,
        severity=severity,
        title="[FIRING:1] Hot",
        text="It is hot.\nVery.",
    )


def notifier(context, port):
    url = Secret(f"json://shop:{KEY}@127.0.0.1:{port}/path?cto=2&rto=2", "a test")
    return AppriseNotifier(AppriseNotifier.Options(url=url), context)


@pytest.mark.parametrize(
    ("status", "severity", "kind"),
    [
        ("firing", Severity.CRITICAL, "failure"),
        ("firing", Severity.MEDIUM, "warning"),
        ("resolved", Severity.HIGH, "success"),
        ("notice", Severity.LOW, "info"),
    ],
)
async def test_a_service_gets_the_message_and_what_kind_it_is(context, serve, status, severity, kind):
    requests = []
    one = notifier(context, await serve(answering(requests=requests)))
    receipt = await one.deliver(message(status, severity))
    assert (receipt.state, receipt.message_id) == ("accepted", "m1")
    [request] = requests
    told = json.loads(request.partition(b"\r\n\r\n")[2])
    assert (told["title"], told["message"], told["type"]) == ("[FIRING:1] Hot", "It is hot.\nVery.", kind)


async def test_what_a_service_does_not_take_is_to_be_tried_again_and_no_key_is_shown(context, serve, caplog):
    logging.getLogger("apprise").propagate = True  # so that a line of its own would show
    one = notifier(context, await serve(answering(503)))
    with pytest.raises(TemporaryFailure, match=r"not taken: .*503") as caught:
        await one.deliver(message())
    assert caught.value.sent is False
    with pytest.raises(TemporaryFailure, match="not taken") as unreachable:
        await notifier(context, free_port()).deliver(message())
    for said in (str(caught.value), str(unreachable.value), repr(one.options)):
        assert KEY not in said
    assert KEY not in caplog.text


@pytest.mark.parametrize("url", ["nothing", "unknown://somewhere", "https://127.0.0.1:1/", ""])
def test_an_address_that_apprise_does_not_know_is_named_without_being_shown(url):
    with pytest.raises(InvalidOptions, match="url: is not an address that Apprise knows") as caught:
        AppriseNotifier.Options(url=url or Secret(KEY, "a test"))
    assert KEY not in str(caught.value) and (not url or url not in str(caught.value))
