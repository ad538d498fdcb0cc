"""Channels against doubles behind ports of loopback: notifications by hand, contexts, contracts of requests."""

import json
import random
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import trio

from sixfbd.model import Message, Target
from sixfbd.plugin import MessageId, Notification, NotifiedAlert, Notifier, Severity, TemporaryFailure
from sixfbd.world import EngineClock, HttpOutbound
from sixfbd_plugins.sandbox.faults import Fault
from tests.provider_kit import PluginContext, Reader, Wire

CONTRACTS = Path(__file__).resolve().parents[2] / "contract"
AT = 1_800_000_000.0
URL = "http://127.0.0.1:9632/"


def make_alert(name: str = "a1", kind: str = "fire", **changes: Any) -> NotifiedAlert:
    values = {
        "id": name, "status": "resolved" if kind == "resolve" else "firing", "severity": Severity.HIGH, "kind": kind,
        "labels": {"alertname": "HighMemory", "host": "a"}, "annotations": {"summary": "memory <b> & *short*"},
        "value": 93.25, "starts_at": AT, "ends_at": AT + 300 if kind == "resolve" else None,
    }  # fmt: skip
    return NotifiedAlert(**(values | changes))


def make_notification(name: str = "m-1", *alerts: NotifiedAlert, **changes: Any) -> Notification:
    shown = alerts or (make_alert(),)
    status = "resolved" if all(alert.status == "resolved" for alert in shown) else "firing"
    title = f"[{status.upper()}] HighMemory (high) — memory <b> & *short*"
    lines = "Firing: memory <b> & *short*\nValue: 93.25\nAcknowledge: sixfbctl ack a1"
    values = {
        "id": MessageId(name), "receiver": "primary", "address": "#alerts", "status": status, "title": title,
        "severity": Severity.HIGH, "text": f"{title}\n\n{lines}\n\nworkshop / production\n\n{URL}", "alerts": shown,
        "external_url": URL, "color": "#E74A3B", "icon": "🚨", "sent_at": AT,
    }  # fmt: skip
    return Notification(**(values | changes))


def earlier(provider_id: str, *obligations: str, notifier: str = "workshop", address: str = "#alerts") -> Message:
    return Message(
        id=MessageId("m-0"), target=Target("primary", notifier, address), state="accepted", created_at=AT,
        expires_at=AT + 9, obligations=obligations or ("o1",), provider_id=provider_id,
    )  # fmt: skip


class Kit:
    """What the tests of channels share: fixtures cannot be imported."""

    AT, URL = AT, URL
    alert, notification, earlier = staticmethod(make_alert), staticmethod(make_notification), staticmethod(earlier)
    rng = staticmethod(lambda: random.Random(5))

    @staticmethod
    async def one_hangs_another_goes(
        wire: Wire, make: Callable[[], Notifier[Any]], context: PluginContext, **changes: Any
    ) -> None:
        """Let the provider accept and never answer: it costs one slot for one deadline, and nobody else anything."""
        wire.double.faults = [Fault(silent=True)]
        made, other, ended = make(), make(), []
        (getattr(made, "_sendgrid", None) or made)._call_s = 3.0

        async def hang() -> None:
            with pytest.raises(TemporaryFailure, match="no answer within 3 s"):
                await made.deliver(make_notification(**changes))
            ended.append("hanging")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang)
            await wire.asked.wait()
            wire.double.faults = []
            await other.deliver(make_notification("m-2", **changes))
            ended.append("good")
        assert ended == ["good", "hanging"]
        assert context.http._limiter.borrowed_tokens == 0

    @staticmethod
    def keeps(contract: str, part: str, body: object) -> None:
        """Raise if a request's body breaks a part of a contract."""
        document = json.loads((CONTRACTS / contract).read_text("utf-8"))
        jsonschema.Draft202012Validator({**document, "$ref": f"#/$defs/{part}"}).validate(body)


@pytest.fixture
def kit() -> type[Kit]:
    return Kit


class ThreadedContext(PluginContext):
    """A context whose threads are threads, as the engine's."""

    async def to_thread(self, fn: Callable[..., Any], *args: object) -> Any:
        return await trio.to_thread.run_sync(lambda: fn(*args), abandon_on_cancel=True)


@pytest.fixture
async def context() -> AsyncIterator[ThreadedContext]:
    http = HttpOutbound("channel", ssl.create_default_context)
    yield ThreadedContext(http, EngineClock(), Reader())
    await http.close()
