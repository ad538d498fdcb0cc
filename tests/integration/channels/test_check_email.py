"""The `email` check: SendGrid validates in sandbox mode, an SMTP server logs us in; nothing is ever sent."""

import pytest

from sixfbd.plugin import InvalidOptions, Secret, Status
from sixfbd_plugins.checks.email import EmailCheck, EmailOptions
from sixfbd_plugins.mail.options import SmtpServer as SmtpOptions
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.sendgrid import SendGridDouble
from tests.provider_kit import served
from tests.smtp_server import SmtpServer

KEY = "SG." + "keySECRET.abcdef0123456789"
SENDER = "Workshop <alerts@example.com>"


def values(report):
    return {sample.metric: sample.value for sample in report.samples}


@pytest.fixture
async def wire(kit, nursery, context):
    return await served(SendGridDouble(KEY, context.clock.now, kit.rng()), nursery)


@pytest.fixture
def check(wire, context):
    return EmailCheck(EmailOptions(sender=SENDER, api_key=Secret(KEY, "env K"), base_url=wire.url), context)


async def test_sendgrid_validates_a_message_in_sandbox_mode_and_sends_none(check, wire):
    report = await check.run(None)
    assert (report.status, report.reachable) == (Status.HEALTHY, True)
    assert (wire.double.validated, wire.double.mails) == (1, [])
    assert values(report)["email_service_failures"] == 0
    assert 0 < values(report)["email_service_latency_seconds"] < 30
    assert wire.double.posted[0]["mail_settings"] == {"sandbox_mode": {"enable": True}}


@pytest.mark.parametrize(("fault", "status", "error", "words"), [
    (Fault(error=503), Status.UNHEALTHY, 1, "answered 503"),
    (Fault(error=202), Status.DEGRADED, 0, "answered 202"),
    (Fault(error=401), Status.DEGRADED, 0, "the API key is not valid"),
    (Fault(lost=True), Status.UNHEALTHY, 1, "Server disconnected"),
])  # fmt: skip
async def test_what_keeps_mail_back_is_told_apart(check, wire, fault, status, error, words):
    wire.double.faults = [fault]
    report = await check.run(None)
    assert (report.status, report.reachable) == (status, not error)
    assert words in report.summary and "SECRET" not in report.summary
    assert (values(report)["email_service_failures"], values(report)["email_service_error"]) == (1, error)


async def test_failures_in_a_row_are_counted_until_one_goes_well(check, wire):
    wire.double.faults = [Fault(error=503)]
    cursor = {"of": "another form"}
    for expected in (1, 2, 3):
        report = await check.run(cursor)
        cursor = report.cursor
        assert values(report)["email_service_failures"] == expected
    wire.double.faults = []
    assert values(await check.run(cursor))["email_service_failures"] == 0


async def test_an_smtp_server_is_greeted_and_logged_in_to(nursery, context):
    server = SmtpServer(login="\0user\0pass")
    await server.start(nursery)
    options = {"host": "127.0.0.1", "port": server.port, "tls": "none", "username": "user"}

    def check(password):
        return EmailCheck(
            EmailOptions(sender=SENDER, smtp=SmtpOptions(**options, password=Secret(password, "e"))), context
        )

    report = await check("pass").run(None)
    assert (report.status, report.reachable, server.mails) == (Status.HEALTHY, None, [])
    assert server.verbs == ["EHLO", "AUTH", "NOOP", "QUIT"]
    report = await check("wrong").run(None)
    assert (report.status, "the login is refused" in report.summary) == (Status.DEGRADED, True)


def test_a_wrong_option_is_named():
    with pytest.raises(InvalidOptions, match="to: is no e-mail address"):
        EmailOptions(sender=SENDER, api_key=Secret(KEY, "env K"), to="nobody")
