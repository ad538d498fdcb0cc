"""The sandbox on real sockets: houses, faults on the wire, the control socket, webhooks and events on their way to the daemon."""

import json
import random
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from sixfbd.initial import write_initial
from sixfbd_plugins.sandbox import control
from sixfbd_plugins.sandbox.control import ControlError
from sixfbd_plugins.sandbox.courier import Courier, Reporter
from sixfbd_plugins.sandbox.faults import Answer
from sixfbd_plugins.sandbox.server import MAX_BODY, run_sandbox, serve_house
from sixfbd_plugins.sandbox.setup import Place, SetupError, read_place, write_sandbox
from sixfbd_plugins.sandbox.switches import PostFault
from sixfbd_plugins.sandbox.town import Parcel

LIMIT_S = 30.0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    write_initial(tmp_path / "run")
    write_sandbox(tmp_path / "run", first_port=0)
    return read_place(tmp_path / "run")


@asynccontextmanager
async def running(place: Place) -> AsyncIterator[dict[str, str]]:
    """Run a sandbox; give the URL of each house."""
    ready = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_sandbox, place, ready=ready.set))
        with trio.fail_after(LIMIT_S):
            await ready.wait()
        yield {name: f"http://{address}" for name, address in place.addresses.listen.items()}
        nursery.cancel_scope.cancel()


async def ask(place: Place, method: str, target: str, body: Any = None) -> Any:
    return await trio.to_thread.run_sync(partial(control.ask, place.socket, method, target, body=body))


async def until(what: Callable[[], Any]) -> Any:
    with trio.fail_after(LIMIT_S):
        while not (found := what()):  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.01)
    return found


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10, trust_env=False) as made:
        yield made


class Taker:
    """A server of loopback that keeps what it is sent, and answers with the statuses that it is given, then 200."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        self.url = ""

    def handle(self, method: str, path: str, query: Any, headers: Any, body: bytes) -> Answer:
        self.got.append((path, dict(headers), body))
        status = self.statuses.pop(0) if self.statuses else 200
        count = len(json.loads(body)) if path == "/api/events" else 0
        answer = {"data": {"accepted": count, "duplicates": 0, "refused": []}}
        return Answer(status=status, body=json.dumps(answer).encode())


@pytest.fixture
async def taker(nursery: trio.Nursery) -> Taker:
    made = Taker()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(serve_house, made.handle, listeners)
    made.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    return made


# ---- houses ----------------------------------------------------------------------------------------------------------------


async def test_each_house_answers_on_its_own_port_and_keeps_connections(place, client):
    async with running(place) as urls:
        for path in ("/", "/checkout", "/health", "/internal/inventory"):
            assert (await client.get(urls["shop"] + path)).status_code == 200
        head = await client.head(urls["shop"] + "/")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 0
        assert (await client.get(f"{urls['twilio']}/2010-04-01/Accounts/x.json")).status_code == 401
        assert (await client.post(f"{urls['hook']}/hook", content=b"{}")).status_code == 400


async def test_a_fault_delays_refuses_loses_or_hangs_on_the_wire_until_it_is_cleared(place, client):
    async with running(place) as urls:
        await ask(place, "POST", "/faults", body={"target": "shop", "words": ["down", "path=/health"]})
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{urls['shop']}/health")
        await ask(place, "POST", "/faults", body={"target": "shop", "words": ["hang", "path=/internal"]})
        with pytest.raises(httpx.ReadTimeout):
            await client.get(f"{urls['shop']}/internal/inventory", timeout=0.2)
        await ask(place, "POST", "/faults", body={"target": "twilio", "words": ["error=429", "retry_after=3"]})
        refused = await client.get(f"{urls['twilio']}/2010-04-01/Accounts/x.json")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
        await ask(place, "POST", "/faults", body={"target": "hook", "words": ["latency=300ms"]})
        before = trio.current_time()
        await client.get(f"{urls['hook']}/")
        assert trio.current_time() - before >= 0.3
        assert len(await ask(place, "GET", "/faults")) == 4
        assert len(await ask(place, "DELETE", "/faults")) == 4
        assert (await client.get(f"{urls['shop']}/health")).status_code == 200


async def test_what_is_no_http_or_too_large_is_refused_and_ends_nothing(place, client):
    async with running(place) as urls:
        host, port = place.addresses.listen["shop"].split(":")
        stream = await trio.open_tcp_stream(host, int(port))
        async with stream:
            await stream.send_all(b"\x00nonsense\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 400")
        with pytest.raises(httpx.HTTPError):
            (await client.post(urls["shop"], content=b"x" * (MAX_BODY + 1))).raise_for_status()
        garbled = await client.post(f"{urls['twilio']}/x", content=b"\xff\xfe")
        assert garbled.status_code == 500
        assert (await client.get(f"{urls['shop']}/health")).status_code == 200


# ---- control ---------------------------------------------------------------------------------------------------------------


async def test_the_control_socket_is_for_this_user_only_and_refuses_in_words(place):
    async with running(place):
        assert stat.S_IMODE(place.socket.stat().st_mode) == 0o600
        with pytest.raises(ControlError, match="there is no such target"):
            await ask(place, "POST", "/faults", body={"target": "moon", "words": ["error=500"]})
        with pytest.raises(ControlError, match="there is no GET /moon"):
            await ask(place, "GET", "/moon")
        status = await ask(place, "GET", "/status")
        assert status["listen"] == place.addresses.listen
        assert status["shop"]["available"]
        assert await ask(place, "GET", "/inbox") == []
    assert not place.socket.exists()
    with pytest.raises(ControlError, match="no sandbox answers at "):
        await ask(place, "GET", "/status")


async def test_a_second_sandbox_is_refused_and_a_socket_left_behind_is_not_in_the_way(place):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place.socket))
    async with running(place):
        with pytest.raises(SetupError, match="cannot listen on "):
            await run_sandbox(place)
        assert await ask(place, "GET", "/faults") == []


async def test_the_shop_remembers_what_it_sold_over_a_restart(place, client):
    async with running(place) as urls:
        stock = (await client.get(f"{urls['shop']}/internal/inventory")).json()
        city = stock["cities"][0]["cityId"]
        wish = {"cityId": city, "tier": "ga", "quantity": 10, "email": "ana@example.com"}
        order = await client.post(f"{urls['shop']}/checkout", json=wish)
        assert order.status_code == 201
    async with running(place) as urls:
        stock = (await client.get(f"{urls['shop']}/internal/inventory")).json()
        assert stock["cities"][0]["status"]["publicAvailable"]["ga"] <= 390
    assert order.json()["orderId"] in json.loads(place.state.read_text())["orders"]


# ---- webhooks --------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def courier(nursery: trio.Nursery, client: httpx.AsyncClient) -> tuple[Courier, list[PostFault]]:
    faults: list[PostFault] = []
    made = Courier(client, random.Random(5), lambda house: faults)
    await nursery.start(made.run)
    return made, faults


def parcel(taker: Taker, text: str) -> Parcel:
    return Parcel("twilio", f"{taker.url}/webhooks/x", {"x-twilio-signature": "AbC="}, text.encode())


async def test_a_webhook_is_sent_again_until_it_is_taken_and_a_refusal_is_final(courier, taker):
    post, _ = courier
    taker.statuses[:] = [503]
    post.send(parcel(taker, "a"))
    await until(lambda: post.counts["delivered"])
    assert len(taker.got) == 2
    taker.statuses[:] = [400]
    post.send(parcel(taker, "b"))
    await until(lambda: post.counts["refused"])
    assert [body for _, _, body in taker.got] == [b"a", b"a", b"b"]


async def test_faults_of_webhooks_forge_repeat_and_lose_them(courier, taker):
    post, faults = courier
    faults[:] = [PostFault("forged")]
    post.send(parcel(taker, "a"))
    await until(lambda: taker.got)
    assert taker.got[0][1]["x-twilio-signature"] == "aBc="
    faults[:] = [PostFault("duplicate")]
    post.send(parcel(taker, "b"))
    await until(lambda: len(taker.got) == 3)
    assert taker.got[1][1:] == taker.got[2][1:]
    faults[:] = [PostFault("lost")]
    post.send(parcel(taker, "c"))
    assert post.counts["lost"] == 1
    faults[:] = [PostFault("disorder")]
    for number in range(30):
        post.send(parcel(taker, f"{number:02}"))
    await until(lambda: len(taker.got) == 33)
    bodies = [body for _, _, body in taker.got[3:]]
    assert bodies != sorted(bodies) and len(set(bodies)) == 30


# ---- events ----------------------------------------------------------------------------------------------------------------


async def test_events_wait_for_a_daemon_that_is_down_and_keep_their_ids(client, nursery):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    reporter = Reporter(client, f"http://127.0.0.1:{port}", "the-token")
    nursery.start_soon(reporter.run)
    reporter.put([{"id": "a", "type": "refund"}, {"id": "b", "type": "refund"}])
    await until(lambda: reporter.trouble)
    made = Taker()
    made.statuses[:] = [503]
    nursery.start_soon(serve_house, made.handle, await trio.open_tcp_listeners(port, host="127.0.0.1"))
    reporter.put([{"id": "c", "type": "refund"}])
    await until(lambda: reporter.counts["taken"] == 3)
    assert reporter.trouble == "" and reporter.waiting == 0
    sent = [[one["id"] for one in json.loads(body)] for _, _, body in made.got]
    assert sent[0] == sent[1] and sent[0][:2] == ["a", "b"]
    assert made.got[0][1]["authorization"] == "Bearer the-token"


async def test_events_that_are_refused_do_not_hold_up_the_others(client, nursery, taker):
    reporter = Reporter(client, taker.url, "x")
    taker.statuses[:] = [400]
    nursery.start_soon(reporter.run)
    reporter.put([{"id": "bad"}])
    await until(lambda: reporter.counts["refused"] == 1)
    reporter.put([{"id": "good"}])
    await until(lambda: reporter.counts["taken"] == 1)


# ---- the run directory -----------------------------------------------------------------------------------------------------


def test_keys_are_for_this_user_only_and_stay_when_the_configuration_is_written_again(place):
    folder = place.directory / "sandbox"
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    with pytest.raises(SetupError, match="exists and is left as it is; `init --force`"):
        write_sandbox(place.directory, first_port=0)
    write_sandbox(place.directory, force=True, first_port=0)
    assert read_place(place.directory).keys.hook_secret == place.keys.hook_secret


def test_the_daemon_takes_the_configuration_without_an_error_or_warning(place):
    from sixfbd.config import check_config, plugin_sources
    from sixfbd.host import load_plugins
    from sixfbd.rules.problems import rule_problems

    path = place.directory / "sixfbd.toml"
    config, problems = check_config(path, load_plugins(plugin_sources(path)), rule_problems)
    assert config is not None and problems == []
    assert config.daemon.sandbox
    assert place.keys.twilio_token not in repr(config)


def test_a_directory_without_what_is_needed_is_refused_with_the_mend(tmp_path, place):
    with pytest.raises(SetupError, match="is no run directory of sixfbd; make it: sixfbd init"):
        write_sandbox(tmp_path / "empty")
    with pytest.raises(SetupError, match=r"has no sandbox; make it: sixfbd-sandbox --run-dir .* init"):
        read_place(tmp_path / "empty")
    (place.directory / "sandbox" / "hook-secret").unlink()
    with pytest.raises(SetupError, match="hook-secret: cannot be read"):
        read_place(place.directory)


def test_the_daemon_is_told_where_its_configuration_says_that_it_listens(place):
    (place.directory / "conf.d" / "60-mine.toml").write_text('[http]\nlisten = "127.0.0.1:1234"\n')
    assert read_place(place.directory).daemon == "http://127.0.0.1:1234"


def test_the_example_of_the_readme_fits_beside_the_sandbox(place):
    from sixfbd.config import check_config, plugin_sources
    from sixfbd.host import load_plugins

    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text()
    example = readme.split("```toml\n")[1].split("```")[0]
    assert "[checks.shop]" in example
    (place.directory / "conf.d" / "shop.toml").write_text(example)
    (place.directory / "chat-url").write_text("https://chat.example.com/hook\n")
    (place.directory / "chat-url").chmod(0o600)
    path = place.directory / "sixfbd.toml"
    config, problems = check_config(path, load_plugins(plugin_sources(path)))
    assert config is not None and problems == []
