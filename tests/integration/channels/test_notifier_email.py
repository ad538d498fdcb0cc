"""The `email` notifier: what arrives, through a double of SendGrid and an SMTP server; what failures mean; what is never shown."""

import ssl
import subprocess

import pytest
import trio

from sixfbd.plugin import InvalidOptions, PermanentFailure, Secret, TemporaryFailure
from sixfbd_plugins.mail.options import SmtpServer as SmtpOptions
from sixfbd_plugins.mail.options import parse_mailbox
from sixfbd_plugins.notifiers.email import EmailNotifier, EmailNotifierOptions
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.sendgrid import SendGridDouble
from tests.provider_kit import served
from tests.smtp_server import SmtpServer

KEY = "SG." + "keySECRET.abcdef0123456789"
PASSWORD = "passwordSECRET"
SENDER, TO = "Workshop <alerts@example.com>", "ops@example.org"


@pytest.fixture
async def wire(kit, nursery, context):
    return await served(SendGridDouble(KEY, context.clock.now, kit.rng()), nursery)


@pytest.fixture
def make(wire, context):
    def email_notifier(**options):
        given = {"sender": SENDER, "api_key": Secret(KEY, "env K"), "base_url": wire.url, "rate": 1000.0} | options
        return EmailNotifier(EmailNotifierOptions(**given), context)

    return email_notifier


@pytest.fixture
def mail(kit):
    return lambda name="m-1", *alerts, **changes: kit.notification(name, *alerts, **({"address": TO} | changes))


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that is its own authority: (its file, a server's context)."""
    folder = tmp_path_factory.mktemp("smtp")
    pem, key = folder / "it.pem", folder / "it.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    where = ["-subj", "/CN=it", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(pem)]
    subprocess.run([*command, *where], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    return str(pem), context


@pytest.fixture
def smtp(nursery, context):
    """Start a server and make a notifier of it."""

    async def start(server=None, **options):
        made = server or SmtpServer()
        await made.start(nursery)
        given = SmtpOptions(**({"host": "127.0.0.1", "port": made.port, "tls": "none"} | options))
        notifier = EmailNotifier(EmailNotifierOptions(sender=SENDER, smtp=given, rate=1000.0), context)
        return made, notifier

    return start


# ---- SendGrid --------------------------------------------------------------------------------------------------------------


async def test_a_notification_is_one_mail_that_carries_our_messages_id_and_is_never_in_sandbox_mode(make, wire, mail):
    receipt = await make().deliver(mail())
    [sent] = wire.double.mails
    assert (receipt.state, receipt.provider_id, sent.to) == ("accepted", sent.id, TO)
    body = sent.body
    assert body["from"] == {"email": "alerts@example.com", "name": "Workshop"}
    assert body["subject"] == "🚨 [FIRING] HighMemory (high) — memory <b> & *short*"
    assert body["custom_args"] == {"sixfbd_message": "m-1"}
    assert "mail_settings" not in body
    assert body["tracking_settings"]["click_tracking"]["enable"] is False
    assert body["headers"]["Auto-Submitted"] == "auto-generated"
    assert body["headers"]["References"] == "<incident.a1.sixfbd@example.com>"
    text, html = body["content"]
    assert text["value"] == mail().text
    assert "memory &lt;b&gt; &amp; *short*<br>Value: 93.25" in html["value"]
    assert "#E74A3B" in html["value"] and '<a href="http://127.0.0.1:9632/">' in html["value"]


MEANINGS = [
    (400, PermanentFailure, "a fault of the sandbox"),
    (401, PermanentFailure, "the API key is not valid"),
    (403, PermanentFailure, "the sender is not verified"),
    (413, PermanentFailure, "too large"),
    (200, PermanentFailure, "validated, and not sent"),
    (429, TemporaryFailure, "too many requests"),
    (500, TemporaryFailure, "answered 500"),
    (503, TemporaryFailure, "answered 503"),
]


@pytest.mark.parametrize(("status", "kind", "words"), MEANINGS)
async def test_a_refusal_of_sendgrids_is_temporary_or_permanent_by_its_status(make, wire, mail, status, kind, words):
    wire.double.faults = [Fault(error=status, retry_after_s=7)]
    with pytest.raises(kind, match=words) as failure:
        await make().deliver(mail())
    if kind is TemporaryFailure:
        assert (failure.value.retry_after_s, failure.value.sent) == (7.0, False)


async def test_an_answer_that_is_lost_leaves_open_whether_it_was_taken(make, wire, mail):
    wire.double.faults = [Fault(lost=True)]
    with pytest.raises(TemporaryFailure) as failure:
        await make().deliver(mail())
    assert failure.value.sent and len(wire.double.mails) == 1


async def test_sendgrid_that_never_answers_costs_one_slot_for_one_deadline(make, wire, kit, context):
    await kit.one_hangs_another_goes(wire, make, context, address=TO)


async def test_no_failure_of_sendgrids_holds_the_key_or_an_address(make, wire, mail):
    wire.double.fault_words = f"{KEY} may not send from alerts@example.com to <{TO}>"
    said = [repr(make().options)]
    for fault in (Fault(error=400), Fault(error=403), Fault(error=500), Fault(lost=True)):
        wire.double.faults = [fault]
        with pytest.raises((TemporaryFailure, PermanentFailure)) as failure:
            await make().deliver(mail())
        said.append(str(failure.value))
    assert not [text for text in said if "SECRET" in text or "ops@" in text]
    assert not [text for text in said[1:] if "alerts@" in text]


# ---- SMTP ------------------------------------------------------------------------------------------------------------------


async def test_a_mail_arrives_whole_with_an_id_that_a_repeat_has_as_well(smtp, mail):
    server, made = await smtp()
    first, again = await made.deliver(mail()), await made.deliver(mail(attempt=2, possibly_repeated=True))
    (sender, to, message), (_, _, repeat) = server.mails
    assert (sender, to) == ("alerts@example.com", TO)
    assert first.provider_id == again.provider_id == message["Message-ID"] == repeat["Message-ID"]
    assert message["Message-ID"] == "<message.m-1.sixfbd@example.com>"
    assert message["Subject"] == "🚨 [FIRING] HighMemory (high) — memory <b> & *short*"
    assert message["From"] == SENDER
    assert (message["In-Reply-To"], message["Auto-Submitted"]) == ("<incident.a1.sixfbd@example.com>", "auto-generated")
    assert message["List-Id"] == "sixfbd <sixfbd.example.com>"
    assert message.get_body(("plain",)).get_content().splitlines() == mail().text.splitlines()
    assert "#E74A3B" in message.get_body(("html",)).get_content()
    assert server.verbs[-1] == "QUIT"


async def test_a_sender_may_have_any_name(smtp, mail, context):
    server, _ = await smtp()
    given = SmtpOptions(host="127.0.0.1", port=server.port, tls="none")
    options = EmailNotifierOptions(sender="Wörk, Shop 🎟 <alerts@example.com>", smtp=given)
    await EmailNotifier(options, context).deliver(mail())
    [address] = server.mails[0][2]["From"].addresses
    assert (address.display_name, address.addr_spec) == ("Wörk, Shop 🎟", "alerts@example.com")


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_the_login_goes_over_tls_to_a_server_whose_certificate_holds(smtp, mail, certificate, tls):
    ca_file, context = certificate
    server = SmtpServer(context, implicit=tls == "implicit", login=f"\0user\0{PASSWORD}")
    options = {"tls": tls, "ca_file": ca_file, "username": "user", "password": Secret(PASSWORD, "env P")}
    _, made = await smtp(server, **options)
    await made.deliver(mail())
    assert len(server.mails) == 1 and "AUTH" in server.verbs
    server.login = "\0user\0another"
    with pytest.raises(PermanentFailure, match=r"the login is refused: user name or password is wrong \(answered 535"):
        await made.deliver(mail())


async def test_a_certificate_of_an_unknown_authority_gets_no_mail(smtp, mail, certificate):
    server, made = await smtp(SmtpServer(certificate[1]), tls="starttls")
    with pytest.raises(TemporaryFailure, match="the server's certificate is not good") as failure:
        await made.deliver(mail())
    assert (server.mails, failure.value.sent) == ([], False)


async def test_a_server_without_starttls_gets_no_mail_in_the_clear(smtp, mail):
    server, made = await smtp(tls="starttls")
    with pytest.raises(PermanentFailure, match="offers no STARTTLS"):
        await made.deliver(mail())
    assert server.mails == []


REPLIES = [
    ("CONNECT", "554 5.3.2 no service", PermanentFailure, "the server refuses"),
    ("CONNECT", "421 later", TemporaryFailure, "not available now"),
    ("MAIL", "550 5.7.1 not you", PermanentFailure, "the sender is refused"),
    ("RCPT", "550 5.1.1 <ops@example.org> unknown", PermanentFailure, "the receiver is refused: the mailbox does not exist"),
    ("RCPT", "450 4.2.0 greylisted", TemporaryFailure, "wants us to come again"),
    ("DATA", "451 4.3.0 broken", TemporaryFailure, "the server failed"),
    ("END", "452 4.3.1 disk full", TemporaryFailure, "no room"),
    ("END", "552 5.3.4 too large", PermanentFailure, "too large"),
    ("END", "554 5.7.1 spam", PermanentFailure, "the server refuses"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "reply", "kind", "words"), REPLIES)
async def test_4xx_is_temporary_and_5xx_permanent_wherever_it_is_said(smtp, mail, verb, reply, kind, words):
    server, made = await smtp()
    server.replies = {verb: reply}
    with pytest.raises(kind, match=words) as failure:
        await made.deliver(mail())
    assert "ops@" not in str(failure.value)
    assert not getattr(failure.value, "sent", False)
    assert server.mails == []


@pytest.mark.parametrize(("verb", "sent"), [("CONNECT", False), ("RCPT", False), ("END", True)])
@pytest.mark.parametrize("how", ["hang", "drop"])
async def test_only_once_the_message_leaves_is_it_open_whether_it_was_taken(smtp, mail, verb, sent, how):
    server, made = await smtp()
    setattr(server, how, verb)
    made._smtp._talk_s = 1.0
    with trio.fail_after(30), pytest.raises(TemporaryFailure) as failure:
        await made.deliver(mail())
    assert failure.value.sent is sent


async def test_a_server_that_drips_has_its_connection_cut_and_delays_nobody(smtp, mail):
    slow, made = await smtp()
    slow.drip = True
    _, other = await smtp()
    made._smtp._talk_s = 1.0
    ended = []

    async def hang():
        with pytest.raises(TemporaryFailure, match="no answer within 1 s"):
            await made.deliver(mail())
        ended.append("dripping")

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            await slow.connected.wait()
            await other.deliver(mail())
            ended.append("good")
    assert ended == ["good", "dripping"]


async def test_a_server_that_is_not_there_is_temporary(context, mail):
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        options = EmailNotifierOptions(sender=SENDER, smtp=SmtpOptions(host="127.0.0.1", port=port, tls="none"))
        with pytest.raises(TemporaryFailure, match="cannot connect") as failure:
            await EmailNotifier(options, context).deliver(mail())
    assert not failure.value.sent


async def test_no_failure_of_smtp_holds_the_password(smtp, mail, certificate):
    server = SmtpServer(certificate[1], login="x")
    options = {"tls": "starttls", "ca_file": certificate[0], "username": "user", "password": Secret(PASSWORD, "env P")}
    _, made = await smtp(server, **options)
    server.replies = {"AUTH": f"535 {PASSWORD} is wrong for user"}
    with pytest.raises(PermanentFailure) as failure:
        await made.deliver(mail())
    assert "SECRET" not in str(failure.value) + repr(made.options)


# ---- options ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "words"), [
    ({"api_key": None}, "one of api_key and smtp is needed"),
    ({"smtp": SmtpOptions(host="x")}, "one of api_key and smtp is needed"),
    ({"api_key": Secret("a b", "env K")}, "api_key: is empty, or has a blank"),
    ({"sender": "nobody"}, "sender: is no e-mail address"),
    ({"base_url": "ftp://x"}, "is not an address"),
])  # fmt: skip
def test_a_wrong_option_is_named(options, words):
    with pytest.raises(InvalidOptions, match=words):
        EmailNotifierOptions(**({"sender": SENDER, "api_key": Secret(KEY, "env K")} | options))


@pytest.mark.parametrize(("options", "words"), [
    ({"host": "a host"}, "is not a host"),
    ({"username": "u"}, "both or neither"),
    ({"username": "u", "password": Secret("é", "e")}, "has a letter outside ASCII"),
    ({"username": "u", "password": Secret("p", "e"), "tls": "none"}, "would send the password in the clear"),
])  # fmt: skip
def test_a_wrong_option_of_the_server_is_named(options, words):
    with pytest.raises(InvalidOptions, match=words):
        SmtpOptions(**({"host": "smtp.example.com"} | options))


def test_addresses_are_checked_and_not_shown():
    assert parse_mailbox('"A, B" <a.b+c@mail.example.com>') == ("A, B", "a.b+c@mail.example.com")
    EmailNotifier.check_address(None, "ops@localhost")
    assert EmailNotifier.show_address("ops@example.org") == "o***@example.org"
    doubtful = ["", "opsy", "opsy@", "@x.test", "a b@x.test", "a@x..test", "o@x.test\nBcc: m@x.test", "ä@x.test"]
    for bad in (*doubtful, "a" * 65 + "@x.test"):
        with pytest.raises(ValueError, match="is no e-mail address") as failure:
            EmailNotifier.check_address(None, bad)
        assert not bad or bad not in str(failure.value)
