"""Webhooks into a real daemon: taken on the port for the outside only, kept over kill -9, and counted."""

import base64
import json
from datetime import UTC, datetime

import httpx
from standardwebhooks import Webhook

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
HOST = {"Host": "hooks.example.com"}
SALE = b'{"type":"ticket_sale","data":{"orderId":"o","cityId":"dallas","tier":"ga","quantity":2,"amount":100,"currency":"usd"}}'

SLOW = """
import time
from sixfbd.plugin import Inbound, hookimpl

class Slow(Inbound):
    '''Blocks.'''
    def receive(self, request):
        time.sleep(60)

@hookimpl
def sixfbd_inbound(config):
    return {"slow": Slow}
"""


def write_configuration(daemon, extra=""):
    (daemon.directory / "tokens" / "shop").write_text(SECRET)
    (daemon.directory / "tokens" / "shop").chmod(0o600)
    daemon.add(
        "50-test.toml",
        f"""
[daemon]
sandbox = true
[http.public]
listen = "127.0.0.1:0"
url = "https://hooks.example.com"
[inbound.shop]
kind = "standard"
secrets = [{{ file = "tokens/shop" }}]
{extra}
""",
    )


def post(daemon, identity, body=SALE):
    now = datetime.now(UTC)
    headers = {
        "webhook-id": identity,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(identity, now, body.decode()),
    }
    url = daemon.ctl("status")["public"]
    return httpx.post(f"{url}/webhooks/shop", content=body, headers={**HOST, **headers}, timeout=20)


def test_a_webhook_is_taken_once_counted_and_kept_over_a_kill(daemon, wait):
    write_configuration(daemon)
    daemon.start()
    assert [post(daemon, identity).json()["data"]["events"] for identity in ("a", "b", "a")] == [1, 1, 0]
    assert httpx.post(f"{daemon.url}/webhooks/shop", content=SALE).status_code == 404
    daemon.kill()
    daemon.start()
    assert post(daemon, "b").json()["data"] == {"events": 0}
    assert post(daemon, "c").json()["data"] == {"events": 1}
    bad = httpx.post(f"{daemon.ctl('status')['public']}/webhooks/shop", content=b"secret body", headers=HOST)
    assert bad.status_code == 400

    def shown():
        text = httpx.get(f"{daemon.url}/metrics").text
        assert 'sixfbd_inbound_requests_total{inbound="shop",outcome="refused"} 1' in text
        assert 'sixfbd_inbound_requests_total{inbound="shop",outcome="duplicate"} 1' in text
        assert "sixfbd_sandbox 1" in text
        assert 'workshop_tickets_sold_total{type="ga"} 6' in text
        return True

    wait("the counts", shown)
    assert "secret body" not in daemon.log.read_text()
    daemon.stop()


def test_a_plugin_that_blocks_on_a_webhook_is_named_ended_and_kept_out(daemon, wait):
    daemon.plugin("slow", SLOW)
    write_configuration(daemon, '[inbound.slow]\nkind = "slow"\n')
    daemon.start()
    url = daemon.ctl("status")["public"]
    try:
        httpx.post(f"{url}/webhooks/slow", content=b"x", headers=HOST, timeout=60)
    except httpx.HTTPError as error:
        assert isinstance(error, httpx.RemoteProtocolError | httpx.ReadError), error
    assert daemon.process.wait(60) != 0
    assert "inbound slow" in daemon.log.read_text()
    daemon.start()
    url = daemon.ctl("status")["public"]
    assert httpx.post(f"{url}/webhooks/slow", content=b"x", headers=HOST, timeout=20).status_code == 503
    assert post(daemon, "a").json()["data"] == {"events": 1}
    assert "kept out" in str(daemon.ctl("plugins"))
    daemon.stop()


PAGER = """
import msgspec
from sixfbd.plugin import EventType, MessageId, Notifier, Receipt, hookimpl

class Pager(Notifier):
    '''Takes everything and says later what became of it.'''
    receipts = True
    async def deliver(self, notification):
        return Receipt(provider_id=f"P{notification.attempt}-{notification.id}")

class Status(msgspec.Struct):
    pid: str
    state: str

@hookimpl
def sixfbd_notifiers(config):
    return {"pager": Pager}

@hookimpl
def sixfbd_events(config):
    def receipt(status):
        return Receipt(state=status.state, provider_id=status.pid, temporary=True, retry_after_s=0.0)
    return [EventType("pager_status", Status, receipt=receipt)]
"""


def test_a_receipt_by_webhook_ends_a_message_or_has_it_sent_again(daemon, wait):
    daemon.plugin("pager", PAGER)
    write_configuration(
        daemon,
        """[notifiers.pager]
plugin = "pager"
retry_first = "100ms"
[receivers.primary]
webhook = {via = "pager"}
[[rules]]
name = "Always"
expr = "up == 1"
severity = "high"
""",
    )
    daemon.start()

    def message(**wanted):
        for one in daemon.ctl("outbox", "list")["messages"]:
            if one["target"]["notifier"] == "pager" and wanted.items() <= one.items():
                return one
        return None

    def say(identity, state, pid):
        body = json.dumps({"type": "pager_status", "data": {"pid": pid, "state": state}}).encode()
        assert post(daemon, identity, body).status_code == 200

    first = wait("the message is accepted", lambda: message(state="accepted", attempt=1))
    say("1", "failed", first["provider_id"])
    second = wait("it is sent again", lambda: message(state="accepted", attempt=2))
    assert second["id"] == first["id"]
    daemon.kill()
    daemon.start()
    say("2", "failed", first["provider_id"])
    say("3", "delivered", second["provider_id"])
    wait("it is delivered", lambda: message(state="delivered", attempt=2))
    daemon.stop()
