"""The webhook notifier against a real receiver on loopback."""

import base64
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import h11
import pytest
import trio
from standardwebhooks import Webhook

from sixfbd.plugin import (
    Duration,
    MessageId,
    Notification,
    NotifiedAlert,
    PermanentFailure,
    Secret,
    Severity,
    TemporaryFailure,
)
from sixfbd.world import RealWorld
from sixfbd_plugins.notifiers.webhook import WebhookNotifier
from tests.provider_kit import read_request

KEY = "whsec_" + base64.b64encode(b"a key of thirty-two bytes, yes..").decode()


class Receiver:
    """Takes one request a connection, keeps it, and answers as told; `hang` reads it and never answers."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.hang = False
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        request, body = await read_request(connection, stream)
        if request is None:
            return
        headers = {name.decode(): value.decode() for name, value in request.headers}
        self.requests.append((request.target.decode(), headers, body))
        if self.hang:
            return  # the connection closes without an answer
        answer = [*self.headers, ("content-length", str(len(self.body))), ("connection", "close")]
        await stream.send_all(connection.send(h11.Response(status_code=self.status, headers=answer)))
        await stream.send_all(connection.send(h11.Data(data=self.body)) + connection.send(h11.EndOfMessage()))


@asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, receiver.serve, listeners)
        yield receiver, f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


class Context:
    """The parts of a plugin's context that the notifier uses, over the real way out."""

    version = "1.2.3"

    def __init__(self, world: RealWorld) -> None:
        self.http = world.outbound("webhook")
        self.clock = world.clock


@pytest.fixture
async def context() -> AsyncIterator[Context]:
    async with RealWorld() as world:
        yield Context(world)


def notification(**changes: Any) -> Notification:
    alert = NotifiedAlert(
        id="i-1",
        status="firing",
        severity=Severity.HIGH,
        labels={"alertname": "Down", "city": "Düsseldorf"},
        annotations={},
        value=0.0,
        starts_at=1.0,
    )
    values = {
        "id": MessageId("m-1"),
        "receiver": "primary",
        "address": "",
        "status": "firing",
        "severity": Severity.HIGH,
        "title": "down",
        "text": "down",
        "alerts": (alert,),
    }
    return Notification(**(values | changes))


def notifier(context: Context, url: str, **options: Any) -> WebhookNotifier:
    return WebhookNotifier(WebhookNotifier.Options(url=url, **options), context)


async def test_a_notification_is_posted_as_json_with_its_id_and_the_configured_headers(context):
    async with receiving() as (receiver, url):
        made = notifier(
            context, f"{url}/hook?a=b", headers={"X-Tenant": "shop", "Authorization": Secret("Bearer t", "env T")}
        )
        receipt = await made.deliver(notification())
    [(target, headers, body)] = receiver.requests
    assert (receipt.state, receipt.message_id) == ("accepted", "m-1")
    assert target == "/hook?a=b"
    assert json.loads(body)["alerts"][0]["labels"]["city"] == "Düsseldorf"
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == "m-1"
    assert headers["user-agent"] == "sixfbd/1.2.3"
    assert (headers["x-tenant"], headers["authorization"]) == ("shop", "Bearer t")
    assert "webhook-signature" not in headers


async def test_with_a_secret_the_post_is_signed_so_that_standard_webhooks_verifies_it(context):
    async with receiving() as (receiver, url):
        await notifier(context, url, secret=Secret(KEY, "env HOOK")).deliver(notification())
    [(_, headers, body)] = receiver.requests
    Webhook(KEY).verify(body, headers)
    assert abs(int(headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < 60


async def test_a_second_try_of_a_message_has_the_same_id(context):
    async with receiving() as (receiver, url):
        made = notifier(context, url)
        await made.deliver(notification(attempt=1))
        await made.deliver(notification(attempt=2))
    assert [headers["webhook-id"] for _, headers, _ in receiver.requests] == ["m-1", "m-1"]
    assert WebhookNotifier.idempotent


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503])
async def test_a_passing_refusal_is_temporary_and_carries_the_wish_for_a_pause(context, status):
    async with receiving() as (receiver, url):
        receiver.status, receiver.headers = status, [("retry-after", "7")]
        with pytest.raises(TemporaryFailure, match=str(status)) as failure:
            await notifier(context, url).deliver(notification())
    assert (failure.value.retry_after_s, failure.value.sent) == (7.0, False)


@pytest.mark.parametrize(
    ("status", "message"), [(400, "400: no such channel"), (404, "404"), (410, "410"), (301, "redirect")]
)
async def test_any_other_refusal_is_permanent_and_says_why(context, status, message):
    async with receiving() as (receiver, url):
        receiver.status, receiver.body = status, b"no such\nchannel"
        with pytest.raises(PermanentFailure, match=message):
            await notifier(context, url).deliver(notification())


async def test_an_answer_that_never_comes_leaves_the_message_unknown(context):
    async with receiving() as (receiver, url):
        receiver.hang = True
        with pytest.raises(TemporaryFailure) as failure:
            await notifier(context, url).deliver(notification())
    assert failure.value.sent
    assert len(receiver.requests) == 1


async def test_a_receiver_that_is_not_there_certainly_did_not_take_it(context):
    async with receiving() as (_, url):
        pass
    with pytest.raises(TemporaryFailure, match="cannot connect") as failure:
        await notifier(context, url).deliver(notification())
    assert not failure.value.sent


async def test_no_failure_prints_the_url_or_a_token_even_if_the_receiver_echoes_them(context):
    async with receiving() as (receiver, url):
        receiver.status = 403
        receiver.body = f"POST {url}/services/T0KEN and Bearer s3cr3t-value from /services/T0KEN".encode()
        made = notifier(context, f"{url}/services/T0KEN", headers={"Authorization": "Bearer s3cr3t-value"})
        with pytest.raises(PermanentFailure) as failure:
            await made.deliver(notification())
    assert "403" in str(failure.value)
    for hidden in ("T0KEN", "s3cr3t-value"):
        assert hidden not in str(failure.value)
        assert hidden not in repr(made.options)


BOMB = gzip.compress(b"x" * 50_000_000)
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(("answer", "words"), [
    (b"", "without sending a response"),
    (b"\0" * 100, "RemoteProtocolError"),
    (OK + b"X: " + b"y" * 200_000, "Receive buffer too long"),
    (OK + b"Content-Length: 100\r\n\r\nabc", "peer closed connection"),
    (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "illegal chunk header"),
    (OK + b"\r\n" + b"x" * 200_000, "the answer is larger than 65536 bytes"),
    (OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB, "is larger than 65536 bytes"),
    (OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "not gzip as it says"),
    (OK + b"Content-Encoding: br\r\nContent-Length: 3\r\n\r\nabc", "packed as 'br', which was not asked for"),
])  # fmt: skip
async def test_a_hostile_answer_is_a_temporary_failure_of_a_message_that_may_have_arrived(context, answer, words):
    async def hostile(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some(65536)
            await stream.send_all(answer)
            await stream.send_eof()
            await stream.receive_some(1)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.lowlevel.checkpoint()  # the notifier hung up first

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hostile, listeners)
        port = listeners[0].socket.getsockname()[1]
        with pytest.raises(TemporaryFailure, match=words) as failure:
            await notifier(context, f"http://127.0.0.1:{port}/T0KEN").deliver(notification())
        nursery.cancel_scope.cancel()
    assert failure.value.sent
    assert "T0KEN" not in str(failure.value)


async def test_a_packed_answer_is_unpacked(context):
    async with receiving() as (receiver, url):
        receiver.status, receiver.body = 400, gzip.compress(b"no such channel")
        receiver.headers = [("content-encoding", "gzip")]
        with pytest.raises(PermanentFailure, match="400: no such channel"):
            await notifier(context, url).deliver(notification())


async def test_a_receiver_that_accepts_and_never_answers_costs_one_slot_for_one_deadline(context):
    """Every other delivery, through the same way out, goes on; and the slot is free again afterwards."""
    answered = []

    async def silent(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await trio.sleep_forever()

    async with receiving() as (_, good), trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, silent, listeners)
        port = listeners[0].socket.getsockname()[1]
        hanging = notifier(context, f"http://127.0.0.1:{port}/")
        hanging.timeout = Duration(1.0)  # type: ignore[misc] # shorter than anybody would set it

        async def hang() -> None:
            with pytest.raises(TemporaryFailure, match="no answer within 1 s"):
                await hanging.deliver(notification())
            answered.append("hanging")

        async with trio.open_nursery() as deliveries:
            deliveries.start_soon(hang)
            await trio.sleep(0.1)
            for _ in range(5):
                await notifier(context, good).deliver(notification())
                answered.append("good")
            assert context.http._limiter.borrowed_tokens == 1
        assert answered == ["good"] * 5 + ["hanging"]
        assert context.http._limiter.borrowed_tokens == 0
        nursery.cancel_scope.cancel()
