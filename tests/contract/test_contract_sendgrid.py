"""SendGrid: what the notifier posts fits SendGrid's document, and what the double answers is what the document says.

DIFFERENCES is what the API answers and the document does not have.
"""

import random

import httpx
import pytest

from sixfbd.plugin import MessageId, Notification, NotifiedAlert, PermanentFailure, Secret, Severity, TemporaryFailure
from sixfbd_plugins.mail.letters import letter_of
from sixfbd_plugins.mail.sendgrid import SendGrid
from sixfbd_plugins.notifiers.email import EmailNotifier, EmailNotifierOptions
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.sendgrid import SendGridDouble
from tests.contract.documents import Exchange
from tests.provider_kit import InProcess, ManualClock, PluginContext

PROVIDER = "sendgrid"
KEY = "SG.key.abcdef0123456789"
SEND = "POST /v3/mail/send"
DIFFERENCES = [
    # https://www.twilio.com/docs/sendgrid/for-developers/sending-email/sandbox-mode
    f"{SEND}: 200 is no answer of it",
    # https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/rate-limits
    f"{SEND}: 429 is no answer of it",
    f"{SEND}: 503 is no answer of it",
    *(f"{SEND} {status}: errors.[].help: None is not of type 'object'" for status in (400, 401, 403, 413, 500)),
]
FAULTS = [
    [], [Fault(lost=True)], *([Fault(error=status, retry_after_s=3)] for status in (400, 401, 403, 413, 429, 500, 503)),
]  # fmt: skip

pytestmark = pytest.mark.xdist_group("providers")  # one Prism for each, of all of them


def options(**changes):
    return EmailNotifierOptions(
        **{"sender": "Wörkshop <alerts@example.com>", "api_key": Secret(KEY, "env K"), "rate": 1000.0} | changes
    )


def notification(name, **changes):
    alert = NotifiedAlert(
        id="i-1", status="firing", severity=Severity.HIGH, labels={"alertname": "Down"},
        annotations={"summary": "<b>shop</b> fails ≥ 3 — ж"}, value=1.0, starts_at=1.0,
    )  # fmt: skip
    values = {
        "id": MessageId(name), "receiver": "primary", "address": "ops@example.org", "status": "firing",
        "severity": Severity.HIGH, "title": "[FIRING] Down 🚨 \r\nBcc: x@example.org", "text": "long", "alerts": (alert,),
    }  # fmt: skip
    return Notification(**(values | changes))


async def life(http, base):
    """Send all that is sent: alerts, a resolve, a repeat, in sandbox mode too."""
    given = options() if base is None else options(base_url=base)
    context = PluginContext(http, ManualClock(1_800_000_000.0))
    notifier, account = EmailNotifier(given, context), SendGrid(given, context)
    for name, changes in (
        ("m-1", {}),
        ("m-2", {"status": "resolved", "group_key": "g", "external_url": "https://x.example.com/"}),
        ("m-3", {"attempt": 2, "possibly_repeated": True, "remarks": ("sixfbd was away.",), "alerts": ()}),
    ):
        said = notification(name, **changes)
        for send in (
            lambda said=said: notifier.deliver(said),
            lambda said=said: account.send(letter_of(said, "example.com"), said.address, sandbox=True),
        ):
            try:
                await send()
            except (TemporaryFailure, PermanentFailure):
                continue


def test_a_mail_that_does_not_fit_the_document_is_noticed(contract):
    def posted(**body):
        mail = {
            "personalizations": [{"to": [{"email": "a@example.org"}]}], "from": {"email": "b@example.org"},
            "subject": "s", "content": [{"type": "text/plain", "value": "x"}],
        } | body  # fmt: skip
        headers = {"authorization": "Bearer x"}
        return Exchange(httpx.Request("POST", "http://x/v3/mail/send", headers=headers, json=mail), None)

    assert contract.requests([posted()]) == []
    for wrong, words in (
        (posted(personalizations={}), "must be array"),
        (posted(content=[{"type": "text/plain"}]), "must have required property 'value'"),
        (posted(sandbox=True), "body sandbox"),
        (posted(mail_settings={"sandbox_mode": {"enable": "yes"}}), "enable must be boolean"),
    ):
        assert any(words in fault for fault in contract.requests([wrong])), contract.requests([wrong])


async def test_what_is_posted_fits_the_document_and_its_own_answers_are_understood(contract, wire, listening):
    heard = listening(wire)
    await life(heard, contract.url)
    assert len(heard.exchanges) == 6
    assert contract.requests(heard.exchanges) == []
    assert contract.asked(heard.exchanges) == {SEND}
    receipt = await EmailNotifier(
        options(base_url=contract.url), PluginContext(wire, ManualClock(1_800_000_000.0))
    ).deliver(notification("m-4"))
    assert receipt.state == "accepted"


async def test_what_the_double_answers_differs_from_the_document_only_where_the_api_does(contract, listening):
    clock = ManualClock(1_800_000_000.0)
    double = SendGridDouble(KEY, clock.now, random.Random(1))
    heard = listening(InProcess(double))
    for on in FAULTS:
        double.faults = on
        await life(heard, None)
    assert double.mails and double.validated
    assert contract.requests(heard.exchanges) == []
    assert contract.answers(heard.exchanges) == sorted(DIFFERENCES)
