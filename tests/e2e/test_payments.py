"""Payments through a real daemon and a double of Stripe: failures are told, and list and webhooks count each event once."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio

from sixfbd_plugins.sandbox.stripe import StripeDouble, Try
from tests.provider_kit import served

KEY, SIGNING = "rk_test_0123456789abcdefghijklmn", "whsec_0123456789abcdefghijklmnopqrstuv"
HOST = {"Host": "hooks.example.com"}
PAID, DECLINED = (Try(1.0, "succeeded"),), (Try(1.0, "failed", "do_not_honor"),)


class Provider:
    """The double behind a port, on a loop of its own in a thread."""

    def __init__(self) -> None:
        self.double = StripeDouble(KEY, time.time, random.Random(1))
        self.url = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,))

    async def _serve(self) -> None:
        self._token, self._done = trio.lowlevel.current_trio_token(), trio.Event()
        async with trio.open_nursery() as nursery:
            self.url = (await served(self.double, nursery)).url
            self._ready.set()
            await self._done.wait()
            nursery.cancel_scope.cancel()

    def __enter__(self) -> "Provider":
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *error: object) -> None:
        self.do(lambda: self._done.set())
        self._thread.join(30)

    def do(self, act: Callable[[], Any]) -> Any:
        """Let something happen between two requests."""
        return trio.from_thread.run_sync(act, trio_token=self._token)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as made:
        yield made


def write_configuration(daemon, provider) -> None:
    for name, value in (("key", KEY), ("signing", SIGNING)):
        (daemon.directory / name).write_text(value)
        (daemon.directory / name).chmod(0o600)
    daemon.add(
        "50-test.toml",
        f"""
[daemon]
sandbox = true
[http.public]
listen = "127.0.0.1:0"
url = "https://hooks.example.com"
[inbound.stripe]
kind = "stripe"
secrets = [{{ file = "signing" }}]
[checks.payments]
plugin = "payments"
interval = "1s"
api_key = {{ file = "key" }}
base_url = "{provider.url}"
""",
    )


def metrics(daemon) -> dict[str, float]:
    lines = httpx.get(f"{daemon.url}/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def stripe_totals(daemon) -> dict[str, float]:
    return {name: value for name, value in metrics(daemon).items() if name.startswith("stripe_events_total")}


def firing(daemon) -> list[str]:
    return [one["rule"] for one in daemon.ask("alerts") if one["state"] == "firing"]


def test_failing_payments_are_told_and_each_event_is_counted_once_by_list_and_webhooks(daemon, provider, wait):
    double = provider.double
    double.add_endpoint("https://hooks.example.com/webhooks/stripe", SIGNING)
    for number in range(25):
        double.pay(4999, "usd", DECLINED if number < 5 else PAID, at=time.time() - 300)
    write_configuration(daemon, provider)
    daemon.start()
    wait("the alert fires", lambda: "HighPaymentFailureRate" in firing(daemon), 120)
    assert metrics(daemon)['stripe_paid_minor_total{currency="USD"}'] == 20 * 4999
    assert metrics(daemon)["payments_attempted_total"] == 20  # the declined ones may still come to a good end
    assert httpx.get(f"{daemon.url}/api/health").json()["services"]["stripe"]["status"] == "healthy"
    before = stripe_totals(daemon)
    assert sum(before.values()) == len(double.events) == 50

    public = daemon.ctl("status")["public"]

    def post(delivery) -> dict[str, Any]:
        url = f"{public}{urlsplit(delivery.url).path}"
        answer = httpx.post(url, content=delivery.body, headers={**HOST, **delivery.headers}, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    deliveries = provider.do(double.deliveries)
    assert len(deliveries) == 50
    for delivery in deliveries[:3]:
        assert [post(delivery), post(delivery)] == [{"events": 1}, {"events": 0}]  # that it came is news, once
    assert stripe_totals(daemon) == before
    daemon.kill()
    paid = next(one.id for one in double.payments.values() if one.charge)
    dispute = provider.do(lambda: double.dispute(paid, time.time() + 86400 * 7))
    daemon.start()
    wait("the restarted daemon has read on", lambda: sum(stripe_totals(daemon).values()) == 52, 120)
    assert metrics(daemon)["stripe_chargebacks_total"] == 1
    [notice] = daemon.ctl("events", "--type", "stripe_dispute")
    assert notice["event"]["id"] == dispute and notice["event"]["data"]["respondBy"]
    shown = [httpx.get(f"{daemon.url}{path}").text for path in ("/", "/metrics", "/api/health", "/api/alerts")]
    shown += [daemon.run_ctl(*command).stdout for command in (("status",), ("checks",), ("journal", "export"))]
    for text in [*shown, daemon.log.read_text()]:
        assert not [word for word in (KEY, SIGNING, "jenny@example.com", "Jenny") if word in text]
        assert not re.search(r"(?<![\w.])4242(?!\w)", text), (
            "a card's last digits; as a part of a time or an id they are none"
        )
    daemon.stop()
