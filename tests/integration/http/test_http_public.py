"""The port for the outside: webhooks and nothing else, on real sockets, into a real journal."""

import base64
import hmac
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx
import msgspec
import pytest
import structlog
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from standardwebhooks import Webhook

from sixfbd.config import HttpPublic, InboundTable, tls_context
from sixfbd.http.server import HttpServer, begin_listening, bind_listener
from sixfbd.inbound import Inbounds
from sixfbd.instances import Surroundings, make_inbound
from sixfbd.intake import Intake
from sixfbd.journal.database import JournalDatabase
from sixfbd.journal.errors import JournalFull
from sixfbd.plugin import Event, EventType, Inbound, InboundRefused, InboundRequest, Secret
from sixfbd.quantities import Duration, FilePath, Size
from sixfbd.window.window import Window
from sixfbd_plugins.inbound.standard import StandardInbound

HOST = "hooks.example.com"
NEW, OLD, OTHER = ("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2, 3))


class Sale(msgspec.Struct):
    quantity: int


class Provider(Inbound[Any]):
    """A provider's form of its own: "t=TIME,v1=HMAC" over the time and the body, ids of its own, batches."""

    def receive(self, request: InboundRequest) -> Sequence[Event]:
        given = dict(part.partition("=")[::2] for part in request.headers.get("X-Signature", "").split(","))
        signed = f"{request.url}.{given.get('t')}.".encode() + request.body
        if not hmac.compare_digest(hmac.digest(b"key", signed, "sha256").hex(), given.get("v1", "")):
            raise InboundRefused("the signature does not fit")
        if abs(request.received_at - float(given["t"])) > 300:
            raise InboundRefused("the time is too far from ours")
        return [Event(one["id"], one["type"], request.received_at, one["data"]) for one in json.loads(request.body)]


class Faulty(Inbound[Any]):
    """Does what the body says, all of it wrong."""

    def receive(self, request: InboundRequest) -> Any:
        match request.body:
            case b"raise":
                raise KeyError("what the body held")
            case b"exit":
                raise SystemExit(3)
            case b"none":
                return None
            case b"strings":
                return ["an event"]
            case b"many":
                return [Event(str(n), "x", 1.0) for n in range(5001)]
            case b"refuse":
                raise InboundRefused("as \ud800 was wished\n" * 3)
        return ()


class Unmade(Inbound[Any]):
    """Cannot be made."""

    def __init__(self, options: Any, ctx: Any) -> None:
        raise OSError("no")

    def receive(self, request: InboundRequest) -> Any: ...


class WallClock:
    def now(self) -> float:
        return time.time()

    def wall(self) -> datetime:
        return datetime.now(UTC)

    async def sleep_until(self, at: float) -> None:
        await trio.sleep(at - time.time())


class Door:
    """The journal as intake sees it, which may be full, or hold its answers back."""

    def __init__(self, journal: JournalDatabase) -> None:
        self.journal = journal
        self.full = False
        self.open = trio.Event()
        self.open.set()
        self.waiting = 0

    @property
    def last_event_seq(self) -> int:
        return self.journal.last_event_seq

    async def put_events(self, *args: Any) -> Any:
        if self.full:
            raise JournalFull("no space left")
        self.waiting += 1
        await self.open.wait()
        return await self.journal.put_events(*args)

    async def events(self, *args: Any, **more: Any) -> Any:
        return await self.journal.events(*args, **more)


async def until(condition: Callable[[], object]) -> None:
    with trio.fail_after(30):
        while True:
            if condition():
                return
            await trio.sleep(0.005)


class NoWorld:
    """What an inbound's context is made of."""

    clock = WallClock()

    def outbound(self, service: str) -> Any:
        return None


class Outside:
    """A served port: what is asked of it, and what came of it."""

    def __init__(self, engine: Any, server: HttpServer, door: Door, inbound: Inbounds, config: HttpPublic) -> None:
        self.engine = engine
        self.server = server
        self.door = door
        self.inbound = inbound
        self.config = config
        self.client = httpx.AsyncClient(
            base_url=server.url, timeout=20, trust_env=False, verify=False, headers={"Host": HOST}
        )

    async def webhook(self, name, url, query, headers, body):
        """What the room asks its engine for."""
        return await self.inbound.receive(
            name, url, query, headers, body, rate=self.config.max_rate, limit_s=float(self.config.request_timeout)
        )

    async def shop(self, body: bytes = b'{"type":"x"}', identity: str = "m-1", secret: str = NEW, **more: Any) -> Any:
        now = datetime.now(UTC)
        headers = {
            "webhook-id": identity,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(secret).sign(identity, now, body.decode("latin-1")),
        }
        return await self.client.post("/webhooks/shop", content=body, headers=headers, **more)

    async def provider(self, *events: dict[str, Any], query: str = "", base: str = f"https://{HOST}/monitor") -> Any:
        body, now = json.dumps(events).encode(), int(time.time())
        url = f"/webhooks/provider{query}"
        signature = hmac.digest(b"key", f"{base}{url}.{now}.".encode() + body, "sha256").hex()
        return await self.client.post(url, content=body, headers={"X-Signature": f"t={now},v1={signature}"})

    async def kept(self) -> list[tuple[str, str, str]]:
        return [(one.source, one.event.type, one.event.id) for one in await self.door.journal.events()]

    def counted(self) -> dict[tuple[str, str], int]:
        return {key: count for key, count in self.inbound.requests.items() if count}


@pytest.fixture
def config() -> HttpPublic:
    return HttpPublic(
        url=f"https://{HOST}/monitor",
        max_body=Size(64 * 1024),
        body_timeout=Duration(0.5),
        request_timeout=Duration(5),
        max_rate=1000,
    )


@asynccontextmanager
async def served(tmp_path, engine, config, tls=None) -> AsyncIterator[Outside]:
    stop = trio.Event()
    async with JournalDatabase(tmp_path / "journal.db") as journal:
        door, clock = Door(journal), WallClock()
        silent: dict[str, Any] = {name: lambda _: None for name in ("persist", "touch", "committed")}
        intake = Intake(door, Window(), clock, **silent)
        intake.declare_types([EventType("sale", Sale)])
        options = StandardInbound.Options(secrets=(Secret(NEW, "a"), Secret(OLD, "b")))
        made = {
            name: make_inbound(
                InboundTable(name=name, kind=name, options=given), cls, Surroundings(NoWorld(), None, "")
            )
            for name, cls, given in (
                ("shop", StandardInbound, options),
                ("provider", Provider, None),
                ("faulty", Faulty, None),
                ("unmade", Unmade, None),
            )
        }
        inbound = Inbounds(intake, clock, made)
        with HttpServer(config, bind_listener("127.0.0.1:0"), tls) as server:
            begin_listening(server.listener)
            async with trio.open_nursery() as nursery:
                await nursery.start(inbound.run)
                outside = Outside(engine, server, door, inbound, config)
                engine.webhook = outside.webhook
                async with outside.client, trio.open_nursery() as serving:
                    await serving.start(server.serve, engine, stop)
                    try:
                        yield outside
                    finally:
                        door.open.set()
                        stop.set()
                nursery.cancel_scope.cancel()


@pytest.fixture
async def outside(tmp_path, engine, config) -> AsyncIterator[Outside]:
    async with served(tmp_path, engine, config) as made:
        yield made


# ---- what is served ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/api/health", "/api/events", "/readyz", "/openapi.json", "/webhooks/", "/webhooks/nobody",
     "/webhooks/shop/", "/webhooks/shop/x", "//webhooks/shop", "/static/page.css", "/webhooks/%2e%2e/healthz"],
)  # fmt: skip
async def test_whatever_is_no_webhook_is_not_there(outside, path):
    answers = [await outside.client.request(method, path) for method in ("GET", "POST")]
    assert {answer.status_code for answer in answers} <= {404, 405 if path == "/webhooks/nobody" else 404}
    assert answers[1].status_code == 404
    assert "openapi" not in answers[1].text


async def test_the_loop_is_told_to_turn_on_the_outside_too(outside):
    assert (await outside.client.get("/healthz")).text == "ok\n"


async def test_a_webhook_is_posted_and_nothing_else(outside):
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        answer = await outside.client.request(method, "/webhooks/shop")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


async def test_the_local_port_serves_no_webhooks(client):
    assert (await client.post("/webhooks/shop")).status_code == 404


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "evil.example.com", "hooks.example.com.evil.example.com"])
async def test_a_host_that_is_not_the_public_urls_is_unknown_and_nothing_of_us_is_told(outside, host):
    answer = await outside.client.get("/healthz", headers={"Host": host})
    assert answer.status_code == 421
    assert "[http]" not in answer.text


@pytest.mark.parametrize("host", ["hooks.example.com", "HOOKS.example.com:8443", "hooks.example.com."])
async def test_the_public_urls_host_may_have_any_port(outside, host):
    assert (await outside.client.get("/healthz", headers={"Host": host})).status_code == 200


# ---- what is taken -------------------------------------------------------------------------------------------------------


async def test_a_webhook_is_durable_before_it_is_answered(outside, tmp_path):
    answer = await outside.shop()
    assert (answer.status_code, answer.json()) == (200, {"success": True, "data": {"events": 1}})
    assert await outside.kept() == [("inbound:shop", "x", "m-1")]
    assert outside.counted() == {("shop", "accepted"): 1}


async def test_nothing_is_answered_before_the_disk_has_it(outside):
    outside.door.open = trio.Event()
    async with trio.open_nursery() as nursery:
        answers: list[int] = []

        async def post() -> None:
            answers.append((await outside.shop()).status_code)

        nursery.start_soon(post)
        await until(lambda: outside.door.waiting)
        assert answers == []
        outside.door.open.set()
    assert answers == [200]


async def test_a_repeat_is_known_again_and_answered_as_the_first_was(outside):
    sales = [{"id": f"e-{n}", "type": "sale", "data": {"quantity": n}} for n in (1, 2, 3)]
    assert (await outside.provider(*sales[1:])).json()["data"] == {"events": 2}
    assert (await outside.provider(*sales[1:])).json()["data"] == {"events": 0}
    assert (await outside.provider(*sales)).json()["data"] == {"events": 1}  # late, and its followers once more
    assert [identity for *_, identity in await outside.kept()] == ["e-2", "e-3", "e-1"]
    assert outside.counted() == {("provider", "accepted"): 2, ("provider", "duplicate"): 1}


async def test_many_repeats_at_once_are_one_event(outside):
    statuses: list[int] = []

    async def post() -> None:
        statuses.append((await outside.shop()).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(post)
    assert statuses == [200] * 20
    assert len(await outside.kept()) == 1


@pytest.mark.parametrize(("secret", "status"), [(NEW, 200), (OLD, 200), (OTHER, 400)])
async def test_during_a_rotation_either_secret_is_good(outside, secret, status):
    assert (await outside.shop(secret=secret)).status_code == status


async def test_the_signed_address_is_the_public_one_with_the_query_as_it_came(outside):
    sale = {"id": "e-1", "type": "sale", "data": {"quantity": 1}}
    assert (await outside.provider(sale, query="?a=%20b&a=c")).status_code == 200
    assert (await outside.provider(sale, base=outside.server.url)).status_code == 400


async def test_a_webhook_that_says_nothing_is_fine(outside):
    answer = await outside.client.post("/webhooks/faulty", content=b"")
    assert (answer.status_code, answer.json()["data"]) == (200, {"events": 0})


async def test_what_waits_behind_others_of_its_kind_is_told_to_come_again(tmp_path, engine, config):
    async with served(tmp_path, engine, replace(config, max_rate=1)) as outside:
        statuses = [(await outside.shop()).status_code for _ in range(12)]
        assert statuses[:10] == [200] * 10 and statuses[-1] == 429
        assert (await outside.client.post("/webhooks/faulty")).status_code == 200  # others have a rate of their own
        limited = await outside.shop()
        assert (limited.status_code, limited.headers["Retry-After"]) == (429, "10")
        assert outside.counted()["shop", "limited"] >= 2


# ---- what is refused -----------------------------------------------------------------------------------------------------


async def test_a_bad_signature_is_400_counted_and_neither_body_nor_reason_leave_the_log(outside):
    with structlog.testing.capture_logs() as lines:
        answers = [await outside.shop(b'{"type":"private"}', secret=OTHER) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {400}
    assert outside.counted() == {("shop", "refused"): 3}
    assert await outside.kept() == []
    [line] = [line for line in lines if line["event"] == "inbound.not_taken"]
    assert line["reason"] == "webhook-signature fits none of the secrets"
    assert "private" not in str(lines) and "secrets" not in answers[0].text


@pytest.mark.parametrize("body", [b"raise", b"exit", b"none"])
async def test_a_fault_of_the_plugin_is_named_and_the_sender_told_to_come_again(outside, body):
    with structlog.testing.capture_logs() as lines:
        answer = await outside.client.post("/webhooks/faulty", content=body)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert outside.counted() == {("faulty", "failed"): 1}
    [line] = [line for line in lines if line["event"] == "inbound.not_taken"]
    assert line["inbound"] == "faulty" and line["reason"].startswith("kind faulty")
    assert "what the body held" not in str(lines) + answer.text
    assert (await outside.client.post("/webhooks/faulty")).status_code == 200


async def test_an_inbound_that_could_not_be_made_is_told_to_come_again(outside):
    assert (await outside.client.post("/webhooks/unmade")).status_code == 503


@pytest.mark.parametrize(("body", "outcome"), [(b"strings", "invalid"), (b"many", "invalid"), (b"refuse", "refused")])
async def test_what_cannot_be_kept_is_refused(outside, body, outcome):
    answer = await outside.client.post("/webhooks/faulty", content=body)
    assert answer.status_code == {"invalid": 422, "refused": 400}[outcome]
    assert outside.counted() == {("faulty", outcome): 1}


async def test_of_a_batch_the_good_events_are_kept_and_the_first_bad_one_is_named(outside):
    answer = await outside.provider(
        {"id": "e-1", "type": "sale", "data": {"quantity": 1}}, {"id": "e-2", "type": "sale", "data": {"quantity": "x"}}
    )
    assert answer.status_code == 422
    assert "1 of 2 events, first number 1, data.quantity" in answer.json()["error"]["message"]
    assert [identity for *_, identity in await outside.kept()] == ["e-1"]


async def test_a_full_journal_is_503_and_the_next_try_is_taken(outside):
    outside.door.full = True
    answer = await outside.shop()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")
    assert "space" not in answer.text
    outside.door.full = False
    assert (await outside.shop()).json()["data"] == {"events": 1}
    assert outside.counted() == {("shop", "unavailable"): 1, ("shop", "accepted"): 1}


async def test_a_disk_that_hangs_is_503_in_time_and_what_it_wrote_late_is_known_again(tmp_path, engine, config):
    async with served(tmp_path, engine, replace(config, request_timeout=Duration(0.2))) as outside:
        outside.door.open = trio.Event()
        assert (await outside.shop()).status_code == 503
        outside.door.open.set()
        await until(lambda: outside.door.last_event_seq)
        assert (await outside.shop()).json()["data"] == {"events": 0}
        assert outside.counted() == {("shop", "late"): 1, ("shop", "duplicate"): 1}


async def test_a_sender_that_leaves_does_not_take_its_event_along(outside):
    outside.door.open = trio.Event()
    with trio.move_on_after(0.5):
        await outside.shop()
    outside.door.open.set()
    await until(lambda: outside.door.last_event_seq)


# ---- limits --------------------------------------------------------------------------------------------------------------


async def test_a_body_over_the_limit_is_refused_before_anybody_reads_it(outside):
    big = b"x" * (64 * 1024 + 1)
    answer = await outside.client.post("/webhooks/faulty", content=big)
    assert answer.status_code == 413
    assert "[http.public]" in answer.json()["error"]["message"]

    async def pieces() -> AsyncIterator[bytes]:
        yield big

    assert (await outside.client.post("/webhooks/faulty", content=pieces())).status_code == 413
    assert outside.counted() == {}


async def test_a_body_that_drips_is_cut_off(outside):
    head = f"POST /webhooks/faulty HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", outside.client.base_url.port) as stream:
        await stream.send_all(head.encode())
        async with trio.open_nursery() as nursery:

            async def drip() -> None:
                while True:
                    await stream.send_all(b"x")
                    await trio.sleep(0.05)

            nursery.start_soon(drip)
            with trio.fail_after(20):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")
            nursery.cancel_scope.cancel()


async def test_a_compressed_body_is_refused(outside):
    answer = await outside.client.post("/webhooks/faulty", content=b"x", headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


HEADERS = st.sampled_from(
    ["webhook-id", "webhook-timestamp", "webhook-signature", "x-signature", "content-type", "x-forwarded-host"]
)
VALUES = st.one_of(
    st.sampled_from(["", "t=,v1=", "t=nan,v1=00", "v1,", "0", "9" * 30, "application/json"]),
    st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30),
)


async def test_whatever_comes_is_never_answered_500(tmp_path, engine, config):
    config = replace(config, max_rate=1_000_000)
    portal = trio.lowlevel.current_trio_token()
    async with served(tmp_path, engine, config) as outside:

        @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(
            st.sampled_from(["shop", "provider", "faulty", "unmade", "nobody", "%00", "%ff"]),
            st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#"), max_size=20),
            st.lists(st.tuples(HEADERS, VALUES), max_size=5),
            st.one_of(
                st.binary(max_size=60), st.sampled_from([b"raise", b"exit", b"none", b"strings", b"many", b"refuse"])
            ),
        )
        def every(name: str, query: str, headers: list[tuple[str, str]], body: bytes) -> None:
            raw = [(key.encode(), value.strip().encode("latin-1")) for key, value in headers]
            ask = partial(
                outside.client.post, f"/webhooks/{name}?{query}", content=body, headers=[*raw, (b"host", HOST.encode())]
            )
            answer = trio.from_thread.run(ask, trio_token=portal)
            assert answer.status_code in (200, 400, 404, 422, 503), answer.text

        await trio.to_thread.run_sync(every)


# ---- TLS and reloads -----------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(tmp_path) -> dict[str, FilePath]:
    """A certificate for HOST, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(cert), "-subj", f"/CN={HOST}", "-days", "2"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return {"cert_file": FilePath(str(cert)), "key_file": FilePath(str(key))}


async def test_with_a_certificate_it_speaks_tls_and_nothing_else(tmp_path, engine, config, pair):
    config = replace(config, **pair)
    async with served(tmp_path, engine, config, tls_context(config)) as outside:
        assert outside.server.url.startswith("https://")
        for _ in range(3):
            assert (await outside.shop()).status_code == 200
        plain = await trio.open_tcp_stream("127.0.0.1", int(outside.server.url.rpartition(":")[2]))
        async with plain:
            await plain.send_all(b"GET /healthz HTTP/1.1\r\nHost: hooks.example.com\r\n\r\n")
            with trio.fail_after(10):
                answer = b"".join([piece async for piece in plain])
            assert b"HTTP" not in answer
        assert (await outside.client.get("/healthz")).status_code == 200


async def test_a_server_begins_without_a_listener_gets_one_and_loses_it(tmp_path, engine, config):
    stop = trio.Event()
    with HttpServer(HttpPublic(url=""), None) as server:
        async with trio.open_nursery() as nursery:
            assert await nursery.start(server.serve, engine, stop) == ""
            for _ in range(2):
                listener = bind_listener("127.0.0.1:0")
                begin_listening(listener)
                server.change(config, listener)
                async with httpx.AsyncClient(trust_env=False, verify=False) as client:
                    answer = await client.get(f"{server.url}/healthz", headers={"Host": HOST})
                    assert answer.status_code == 200
                    url = server.url
                    server.change(HttpPublic(url=""))
                    server.close()
                    with pytest.raises(httpx.ConnectError):
                        while True:
                            async with httpx.AsyncClient(trust_env=False, verify=False) as another:
                                await another.get(f"{url}/healthz", headers={"Host": HOST})
            stop.set()
