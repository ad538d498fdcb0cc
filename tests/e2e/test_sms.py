"""SMS through a real daemon and a double of Twilio: failures are told by SMS, what became of each is counted once."""

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpx
import pytest

from sixfbd_plugins.sandbox.twilio import SandboxMessage, Step, TwilioDouble

ACCOUNT, TOKEN = "AC" + "0123456789abcdef" * 2, "t0ken-that-nobody-may-see"
SENDER, RECEIVER = "+13525550100", "+13525550101"
HOST = {"Host": "hooks.example.com"}


class Provider:
    """The double behind a port, asked by one thread at a time."""

    def __init__(self) -> None:
        self.double = TwilioDouble(ACCOUNT, TOKEN, time.time, random.Random(1), numbers=(SENDER,))
        self._turn = threading.Lock()
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer(self)

            def do_POST(self) -> None:
                answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length", "0")))
        asked = httpx.URL(f"{self.url}{handler.path}")
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._turn:
            answer = self.double.handle(handler.command, asked.path, dict(asked.params), headers, body)
        handler.send_response(answer.status)
        for name, value in {**answer.headers, "content-length": str(len(answer.body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(answer.body)

    def shop_sends(self, count: int, failed: int) -> None:
        """Let the shop have sent so many messages within the last minutes, so many of which failed."""
        with self._turn:
            for number in range(count):
                at = time.time() - 300 + number
                step = Step(2.0, "undelivered", 30007) if number < failed else Step(2.0, "delivered")
                self.double.add(
                    SandboxMessage(
                        sid=self.double.new_sid(), to="+13525550102", from_=SENDER, body="two tickets", created_at=at,
                        updated_at=at, steps=(Step(1.0, "sent"), step),
                    )
                )  # fmt: skip

    def callbacks(self) -> list[tuple[str, dict[str, str], bytes]]:
        with self._turn:
            return [(one.url, one.headers, one.body) for one in self.double.advance()]

    def ours(self) -> list[SandboxMessage]:
        with self._turn:
            return [one for one in self.double.messages.values() if one.to == RECEIVER]


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join(10)
    made.server.server_close()


QUIET = ("SMSServiceError", "SMSServiceFailing", "NotificationsDead")  # a slow machine, or the test, may make them fire


def write_configuration(daemon, provider, *, callbacks: bool = True) -> None:
    for name, value in (("token", TOKEN), ("account", ACCOUNT)):
        (daemon.directory / name).write_text(value)
        (daemon.directory / name).chmod(0o600)
    account = f"""
account_sid = {{ file = "account" }}
auth_token = {{ file = "token" }}
from_number = "{SENDER}"
base_url = "{provider.url}"
"""
    daemon.add(
        "50-test.toml",
        f"""
[daemon]
sandbox = true
[http.public]
listen = "127.0.0.1:0"
url = "https://hooks.example.com"
[inbound.twilio]
kind = "twilio"
enabled = {"true" if callbacks else "false"}
secrets = [{{ file = "token" }}]
[checks.sms]
plugin = "sms"
interval = "1s"
{account}
[notifiers.twilio]
plugin = "sms"
{account}
[receivers.primary]
sms = {{ via = "twilio", to = ["{RECEIVER}"] }}
{"".join(f'[[rules]]{chr(10)}name = "{name}"{chr(10)}enabled = false{chr(10)}' for name in QUIET)}
""",
    )


def metrics(daemon) -> dict[str, float]:
    lines = httpx.get(f"{daemon.url}/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def outbox(daemon) -> list[tuple[str, str, int]]:
    messages = daemon.ctl("outbox", "list")["messages"]
    ours = [one for one in messages if one["target"]["notifier"] == "twilio"]
    return [(one["state"], one["provider_id"], one["attempt"]) for one in ours]


def test_where_nobody_calls_with_receipts_the_provider_is_asked_for_them(daemon, provider, wait):
    write_configuration(daemon, provider, callbacks=False)
    daemon.add("60-test.toml", "[checks.sms]\nenabled = false\n")
    daemon.start()
    assert daemon.run_ctl("notify", "test", "primary").returncode == 0
    wait("it has arrived, says the provider", lambda: [state for state, *_ in outbox(daemon)] == ["delivered"])
    assert len(provider.ours()) == 1, "asking sends nothing"


def test_without_callbacks_the_log_tells_what_became_of_our_own_messages(daemon, provider, wait):
    provider.double.plan = lambda to: (Step(1.0, "sent"), Step(2.0, "undelivered", 30034))
    provider.shop_sends(30, failed=6)
    write_configuration(daemon, provider, callbacks=False)
    daemon.start()
    wait("the alert goes out by SMS", provider.ours)
    wait("it is given up", lambda: [state for state, _, _ in outbox(daemon)] == ["dead"], 60)
    wait("that is counted", lambda: metrics(daemon).get("sms_notifications_failed_total") == 1)
    assert "not registered for A2P 10DLC" in daemon.run_ctl("outbox", "list").stdout
    daemon.stop()


def test_failures_of_the_shops_sms_are_told_by_sms_and_each_status_is_counted_once(daemon, provider, wait):
    write_configuration(daemon, provider)
    provider.shop_sends(30, failed=6)
    daemon.start()
    [told] = wait("the alert goes out by SMS", provider.ours)
    assert "High SMS failure rate: 20%" in told.body
    public = daemon.ctl("status")["public"]

    def delivered() -> bool:
        for url, headers, body in provider.callbacks():
            at = urlsplit(url)
            for _ in range(2):  # Twilio may tell twice
                answer = httpx.post(
                    f"{public}{at.path}?{at.query}", content=body, headers={**HOST, **headers}, timeout=20
                )
                assert answer.status_code == 200, answer.text
        found = metrics(daemon)
        return found.get('twilio_messages_total{origin="sixfbd",status="delivered"}') == 1

    wait("the callback is counted", delivered)

    def read_and_counted() -> bool:
        found = metrics(daemon)
        assert found['twilio_message_errors_total{code="30007"}'] == 6
        return found["twilio_delivery_seconds_count"] == 24

    wait("the log is read", read_and_counted, 60)
    wait("our own is counted", lambda: metrics(daemon).get("sms_notifications_sent_total") == 1)
    assert metrics(daemon)["sms_notifications_failed_total"] == 0
    assert outbox(daemon) == [("delivered", told.sid, 1)]
    counted = {name: value for name, value in metrics(daemon).items() if name.startswith("twilio_messages_total")}
    assert counted == {
        'twilio_messages_total{status="sent"}': 30,
        'twilio_messages_total{status="delivered"}': 24,
        'twilio_messages_total{status="undelivered"}': 6,
        'twilio_messages_total{origin="sixfbd",status="sent"}': 1,
        'twilio_messages_total{origin="sixfbd",status="delivered"}': 1,
    }
    assert httpx.get(f"{daemon.url}/api/health").json()["services"]["sms"]["status"] == "healthy"
    assert len(provider.ours()) == 1
    forged = httpx.post(f"{public}/webhooks/twilio", content=b"MessageSid=SM1", headers=HOST, timeout=20)
    assert forged.status_code == 400
    pages = [
        httpx.get(f"{daemon.url}{path}").text for path in ("/", "/metrics", "/api/health", "/api/alerts", "/api/events")
    ]
    [message] = [one["id"] for one in daemon.ctl("outbox", "list")["messages"] if one["provider_id"] == told.sid]
    asked = (("status",), ("checks",), ("outbox", "list"), ("outbox", "show", message), ("journal", "export"))
    told_by_ctl = [daemon.run_ctl(*command).stdout for command in asked]
    [alert] = [one["id"] for one in daemon.ctl("alerts") if one["rule"] == "HighSMSFailureRate"]
    told_by_ctl += [daemon.run_ctl("why", alert).stdout, daemon.run_ctl("why", alert, "--json").stdout]
    assert all("…0101" in text for text in told_by_ctl[2:])
    daemon.stop()
    with sqlite3.connect(daemon.directory / "state" / "journal.db") as journal:
        events = [row[0] for row in journal.execute("SELECT data FROM events")]
        records = [row[0] for row in journal.execute("SELECT body FROM records")]
    journal.close()
    assert any(f'"{RECEIVER}"' in record for record in records)  # whom it has to tell, exactly
    for text in (daemon.log.read_text(), *pages, *events, *told_by_ctl):
        assert not [hidden for hidden in (TOKEN, ACCOUNT, "5550100", "5550102", "5550101") if hidden in text], text[
            -2000:
        ]
