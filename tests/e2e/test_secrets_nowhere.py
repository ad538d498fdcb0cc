"""No secret and no full phone number is shown by anything that a daemon says, keeps or answers, whatever its providers do to it.

All that may be configured is: what comes back from the far side says again, in every form, all that it was sent. A provider
is one PARTY here: its tables, the secrets that are put into files for it, and the receivers' channel if it has one.
"""

import base64
import json
import re
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.conftest import Daemon, Server

HOST = {"Host": "hooks.example.com"}
ACCOUNT, KEY = "AC" + "0123456789abcdef" * 2, "SK" + "fedcba9876543210" * 2
NUMBERS = ("+13525550150", "+13525550151", "+13525550152")
STREAMS = ("/api/events/stream", "/api/stream")  # which do not end


class Party(NamedTuple):
    """Whoever is asked or told. `tables`: TOML; {url} is the far side's address, files of `secrets` are named by their key."""

    name: str
    tables: str
    secrets: dict[str, str]
    channel: str = ""


PARTIES = (
    Party(
        "hook",
        """
[notifiers.hook]
plugin = "webhook"
{fast}
url = {{ file = "hook-url" }}
secret = {{ file = "hook-secret" }}
headers = {{ "X-Key" = {{ file = "hook-header" }} }}
""",
        {
            "hook-url": "{url}/hook/T0PSECRETPATH?key=qu3rySecretOfHook",
            "hook-secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "hook-header": "h3ader-Secret-of-hook",
        },
        'webhook = {{ via = "hook" }}',
    ),
    Party(
        "slack",
        """
[notifiers.slack]
plugin = "slack"
token = {{ file = "slack-token" }}
{fast}
rate = 100
base_url = "{url}"
""",
        {"slack-token": "xoxb-123456789012-1234567890123-SlackBotTokenSecret"},
        'slack = {{ via = "slack", to = ["#alerts"] }}',
    ),
    Party(
        "discord",
        """
[notifiers.discord]
plugin = "discord"
{fast}
rate = 50
[notifiers.discord.webhooks]
alerts = {{ file = "discord-url" }}
""",
        {"discord-url": "{url}/api/webhooks/1234567890/DiscordWebhookTokenSecret"},
        'discord = {{ via = "discord", to = ["alerts"] }}',
    ),
    Party(
        "twilio",
        """
[checks.sms]
plugin = "sms"
interval = "2s"
timeout = "1s"
notifier = "twilio"
account_sid = {{ file = "twilio-account" }}
api_key = {{ file = "twilio-key" }}
api_secret = {{ file = "twilio-key-secret" }}
from_number = "+1 (352) 555-0150"
targets = ["+1-352-555-0151"]
base_url = "{url}"
[notifiers.twilio]
plugin = "sms"
account_sid = {{ file = "twilio-account" }}
auth_token = {{ file = "twilio-token" }}
from_number = "+1 (352) 555-0150"
{fast}
rate = 100
status_callback = "https://hooks.example.com/webhooks/twilio"
base_url = "{url}"
[inbound.twilio]
kind = "twilio"
secrets = [{{ file = "twilio-token" }}]
""",
        {
            "twilio-account": ACCOUNT,
            "twilio-key": KEY,
            "twilio-key-secret": "twilio-Key-Secret-0123456789",
            "twilio-token": "twilio-Auth-Token-0123456789",
        },
        'sms = {{ via = "twilio", to = ["+1-352-555-0151"], per_hour = 0, per_day = 0 }}',
    ),
    Party(
        "stripe",
        """
[checks.payments]
plugin = "payments"
interval = "2s"
timeout = "1s"
api_key = {{ file = "stripe-key" }}
base_url = "{url}"
[inbound.stripe]
kind = "stripe"
secrets = [{{ file = "stripe-signing" }}]
""",
        {"stripe-key": "rk_test_StripeKeySecret0123456789", "stripe-signing": "whsec_StripeSigningSecret0123456789"},
    ),
    Party(
        "sendgrid",
        """
[checks.mail]
plugin = "email"
interval = "2s"
timeout = "1s"
sender = "alerts@example.com"
api_key = {{ file = "sendgrid-key" }}
base_url = "{url}"
[notifiers.sendgrid]
plugin = "email"
sender = "alerts@example.com"
api_key = {{ file = "sendgrid-key" }}
{fast}
rate = 100
base_url = "{url}"
""",
        {"sendgrid-key": "SG.SendGridKeySecret.0123456789abcdefghij"},
        'email = {{ via = "sendgrid", to = ["jane.doe@example.com"] }}',
    ),
    Party(
        "mailserver",
        """
[checks.mailserver]
plugin = "email"
interval = "1s"
timeout = "900ms"
sender = "alerts@example.com"
[checks.mailserver.smtp]
host = "127.0.0.1"
port = {port}
tls = "none"
username = "mailer"
password = {{ file = "smtp-password" }}
""",
        {"smtp-password": "smtp-Password-Secret"},
    ),
    Party(
        "probe",
        """
[checks.probe]
plugin = "webhook"
interval = "1s"
timeout = "900ms"
url = "{url}/probe"
basic_auth = {{ username = "probe", password = {{ file = "probe-password" }} }}
secret_headers = {{ "X-Key" = {{ file = "probe-header" }} }}
body_must_match = ["never"]
[checks.scrape]
plugin = "scrape"
interval = "1s"
timeout = "900ms"
targets = ["{url}/scrape"]
bearer = {{ file = "scrape-bearer" }}
""",
        {
            "probe-password": "probe-Password-Secret",
            "probe-header": "probe-Header-Secret",
            "scrape-bearer": "scrape-Bearer-Secret",
        },
    ),
    Party(
        "stock",
        """
[checks.stock]
plugin = "inventory"
interval = "1s"
timeout = "900ms"
[checks.stock.http]
url = "{url}/stock"
secret_headers = {{ Authorization = {{ file = "stock-header" }} }}
[checks.stock-sql]
plugin = "inventory"
interval = "1s"
timeout = "900ms"
[checks.stock-sql.sql]
query = "SELECT city, tier, available FROM stock"
postgresql = {{ file = "stock-dsn" }}
""",
        {
            "stock-header": "Bearer stock-Header-Secret",
            "stock-dsn": "postgresql://shop:stock-Password-Secret@127.0.0.1:1/shop",
        },
    ),
    Party(
        "shop",
        """
[inbound.shop]
kind = "standard"
secrets = [{{ file = "shop-secret" }}]
""",
        {"shop-secret": "whsec_" + base64.b64encode(b"the shop's own secret, 32 bytes.").decode()},
    ),
)

FAST = 'timeout = "1s"\nretry_most = "1s"'
COMMON = """
[site]
name = "workshop"
[daemon]
sandbox = true
[log]
level = "debug"
[http.public]
listen = "127.0.0.1:0"
url = "https://hooks.example.com"
"""
EXACT = ("journal.db", "journal.db-wal", "sixfbd config show")
"""Where numbers are as they were configured: by the journal's is sent, and the effective configuration is the file's."""
FAULTS = ("400", "401", "403", "404", "413", "429", "500", "503", "200", "hangs up", "loses the answer", "hangs")


class FarSide(Server):
    """All providers at once: answers with the status that is set, and with all that it was sent, as each of them says errors."""

    path = ""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[tuple[str, str]] = []
        far_side = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            do_PATCH = do_PUT = do_POST  # noqa: N815 - the base class's names

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                far_side.asked.append((self.command, self.path))
                far_side.reply(self, lambda: (far_side.status, echo(self.path, dict(self.headers), body)))

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Quiet."""

        super().__init__(Handler)

    def meet(self, how: str) -> None:
        """Answer from now on as one of FAULTS says."""
        self.status = int(how) if how.isdigit() else 200
        self.fault = "" if how.isdigit() else how


def echo(path: str, headers: dict[str, str], body: bytes) -> bytes:
    """Return an error answer of every provider at once, whose words are all that came, plain and decoded."""
    basic = headers.get("Authorization", "").removeprefix("Basic ")
    try:
        decoded = base64.b64decode(basic, validate=True).decode()
    except ValueError:
        decoded = ""
    said = " ".join(
        [path, *headers.values(), decoded, *NUMBERS, urllib.parse.unquote_plus(body.decode()), body.decode()]
    )
    words = dict.fromkeys(("message", "detail", "error", "warning", "reason", "description", "title"), said)
    return json.dumps({**words, "ok": False, "code": 20003, "errors": [{"message": said}], "balance": said}).encode()


def hidden(url: str) -> dict[str, str]:
    """Return what must not be shown, by what it is: secrets as they are, as they are written elsewhere, and numbers."""
    found = {}
    for party in PARTIES:
        for name, template in party.secrets.items():
            secret = template.replace("{url}", url)
            found[name] = secret
            if name.endswith("-url"):
                found[f"{name}, its path"] = urllib.parse.urlsplit(secret).path.rpartition("/")[2]
            if name.endswith("-dsn"):
                found[f"{name}, its password"] = str(urllib.parse.urlsplit(secret).password)
            found[f"{name} in base64"] = base64.b64encode(secret.encode()).decode().rstrip("=")
    for user, password in (("probe", "probe-password"), (ACCOUNT, "twilio-token"), (KEY, "twilio-key-secret")):
        both = f"{user}:{found[password]}"
        found[f"credentials of {user[:5]}"] = base64.b64encode(both.encode()).decode()
    return found


def hidden_numbers() -> dict[str, str]:
    found = {}
    for number in NUMBERS:
        found[f"number …{number[-4:]}"] = number[2:]
        found[f"number …{number[-4:]} as people write it"] = f"{number[5:8]}-{number[8:]}"
    return found


@pytest.fixture
def far_side() -> Iterator[FarSide]:
    made = FarSide()
    made.serve()
    yield made
    made.meet("200")
    made.stop()


def configure(daemon: Daemon, url: str) -> None:
    for party in PARTIES:
        for name, secret in party.secrets.items():
            (daemon.directory / name).write_text(secret.replace("{url}", url))
            (daemon.directory / name).chmod(0o600)
        daemon.add(f"60-{party.name}.toml", party.tables.format(url=url, fast=FAST, port=url.rpartition(":")[2]))
    channels = "\n".join(party.channel.format() for party in PARTIES if party.channel)
    daemon.add("50-common.toml", f'{COMMON}\n[receivers.primary]\nlog = {{ via = "log" }}\n{channels}\n')


def add_alert(daemon: Daemon, name: str) -> None:
    """Let one more alert fire, so that every notifier has something to say."""
    rules = daemon.directory / "conf.d" / "70-rules.toml"
    text = rules.read_text() if rules.exists() else ""
    rules.write_text(f'{text}[[rules]]\nname = "{name}"\nexpr = "vector(1)"\nseverity = "critical"\n')


def told(asked: list[tuple[str, str]]) -> set[str]:
    """Return the notifiers whose messages are among these requests."""
    places = {
        "hook": "/hook/",
        "slack": "/api/chat.",
        "discord": "/api/webhooks/",
        "twilio": "/2010-04-01/",
        "sendgrid": "/v3/mail/",
    }
    return {
        name for name, place in places.items() for method, path in asked if path.startswith(place) and method != "GET"
    }


def statements(daemon: Daemon) -> Iterator[tuple[str, str]]:
    """Yield all that the daemon and its commands say, with where it was said."""
    yield from asked_over_http(daemon)
    commands = [
        ["status"], ["checks"], ["series"], ["plugins"], ["alerts"], ["token", "list"], ["events"], ["outbox", "list"],
        ["journal", "status"], ["journal", "export"], ["query", '{__name__=~".+"}'],
    ]  # fmt: skip
    commands += [["why", alert["id"]] for alert in daemon.ctl("alerts")]
    commands += [["outbox", "show", one["id"]] for one in daemon.ctl("outbox", "list")["messages"][:40]]
    commands += [["check", "run", one["name"]] for one in daemon.ctl("checks")]
    for command in commands:
        for more in ([], ["--json"]):
            done = daemon.run_ctl(*command, *more)
            yield f"sixfbctl {' '.join(command)}", done.stdout + done.stderr
    for command in (["check-config"], ["config", "show"], ["plugins"], ["rules"], ["check", "try", "sms"]):
        done = daemon.sixfbd(*command)
        yield f"sixfbd {' '.join(command)}", done.stdout + done.stderr


def asked_over_http(daemon: Daemon) -> Iterator[tuple[str, str]]:
    public = daemon.ctl("status")["public"]
    paths = httpx.get(f"{daemon.url}/openapi.json", timeout=20).json()["paths"]
    plain = [path for path, item in paths.items() if "get" in item and "{" not in path and path not in STREAMS]
    assert len(plain) > 8
    query = {"query": '{__name__=~".+"}', "match[]": '{__name__=~".+"}', "limit": "1000"}
    for path in ["/", *plain]:
        for params in ({}, query):
            yield f"GET {path} {params}", httpx.get(f"{daemon.url}{path}", params=params, timeout=20).text
    for name in ("twilio", "shop", "stripe"):
        forged = {"To": NUMBERS[1], "From": NUMBERS[0], "MessageSid": "SM" + "1" * 32, "MessageStatus": "sent"}
        yield f"a forged {name}", httpx.post(f"{public}/webhooks/{name}", data=forged, headers=HOST, timeout=20).text


def test_no_secret_and_no_number_is_shown_whatever_providers_do(
    daemon: Daemon, far_side: FarSide, wait: Callable[..., Any]
) -> None:
    configure(daemon, far_side.url)
    add_alert(daemon, "Begun")
    with far_side.down():
        daemon.start()
        for name in told_names():
            wait(f"{name} cannot connect", lambda name=name: re.search(f'"notify.failed".*"{name}"', log_of(daemon)))
    for number, how in enumerate(FAULTS):
        far_side.meet(how)
        seen = len(far_side.asked)
        add_alert(daemon, f"Alert{number}")
        daemon.ctl("reload")
        wait(f"all are told ({how})", lambda seen=seen: told(far_side.asked[seen:]) == told_names(), 60)
    far_side.meet("400")
    said = list(statements(daemon))
    broken = daemon.directory / "conf.d" / "90-broken.toml"
    broken.write_text(broken_tables())
    refused = daemon.run_ctl("reload")
    assert refused.returncode == 1
    checked = daemon.sixfbd("check-config")
    assert checked.returncode == 1
    said += [("a refused reload", refused.stdout + refused.stderr), ("check-config", checked.stdout + checked.stderr)]
    broken.unlink()
    daemon.stop()
    said.append(("the log", log_of(daemon)))
    said += [(path.name, path.read_bytes().decode("latin-1")) for path in (daemon.directory / "state").glob("*.db*")]
    secrets, numbers = {**hidden(far_side.url), "the token of events": daemon.token}, hidden_numbers()
    shown = [
        f"{where} shows {what}: ...{text[max(0, text.index(value) - 80) : text.index(value)]}..."
        for where, text in said
        for what, value in (secrets if where in EXACT else {**secrets, **numbers}).items()
        if value in text
    ]
    assert not shown, "\n".join(shown)


def told_names() -> set[str]:
    """Return the names of all notifiers that go out."""
    return {party.name for party in PARTIES if party.channel}


def log_of(daemon: Daemon) -> str:
    return daemon.log.read_text()


def broken_tables() -> str:
    """Return tables each of which has a fault, with values that belong to secrets."""
    return f"""
[notifiers.broken-hook]
plugin = "webhook"
url = "ftp://{NUMBERS[0]}/T0PSECRETPATH"
[notifiers.broken-slack]
plugin = "slack"
token = {{ file = "hook-header" }}
[notifiers.broken-discord]
plugin = "discord"
webhooks = {{ "alerts" = {{ file = "slack-token" }} }}
[notifiers.broken-sms]
plugin = "sms"
account_sid = {{ file = "twilio-token" }}
auth_token = {{ file = "shop-secret" }}
from_number = "{NUMBERS[0]}x"
[notifiers.broken-email]
plugin = "email"
sender = "nobody"
api_key = {{ file = "stripe-key" }}
[checks.broken-payments]
plugin = "payments"
api_key = {{ file = "sendgrid-key" }}
[receivers.broken]
sms = {{ via = "twilio", to = ["{NUMBERS[1]}0000000000"] }}
"""
