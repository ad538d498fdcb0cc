"""Listening, handing a listener over, and letting go of what was taken."""

import socket
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from sixfbd.http.server import ListenError, bind_listener, serve_http


@pytest.mark.parametrize(
    "listen", ["", "localhost", "127.0.0.1:http", "127.0.0.1:-1", "127.0.0.1:70000", "::1:80:x", ":80"]
)
def test_an_address_that_is_none_is_named_with_its_mend(listen):
    with pytest.raises(ListenError) as error:
        bind_listener(listen)
    assert str(error.value) == f'[http] listen: {listen!r} is not an address; write "127.0.0.1:9632"'


def test_a_port_in_use_is_named_with_the_reason():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ListenError, match=f"cannot listen on {listen}: Address already in use; choose another"):
            bind_listener(listen)


def test_a_host_that_is_not_ours_is_named_with_the_reason():
    with pytest.raises(ListenError, match=r"cannot listen on 192\.0\.2\.7:0: Cannot assign requested address"):
        bind_listener("192.0.2.7:0")


async def test_an_ipv6_address_is_listened_on(engine, http_config):
    stop = trio.Event()
    with bind_listener("[::1]:0") as listener:
        async with trio.open_nursery() as nursery:
            url = await nursery.start(partial(serve_http, engine, http_config, listener=listener, stop=stop))
            assert url == f"http://[::1]:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(trust_env=False, verify=False) as client:
                assert (await client.get(f"{url}/readyz")).status_code == 200
            stop.set()


async def test_a_listener_is_handed_from_one_app_to_the_next_without_losing_a_request(engine, http_config):
    answered = 0
    with bind_listener("127.0.0.1:0") as listener:
        port = listener.getsockname()[1]

        async def ask(done: trio.Event) -> None:
            nonlocal answered
            while not done.is_set():
                async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                    await stream.send_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    answer = b"".join([piece async for piece in stream])
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert answer.endswith(b'{"ready":true,"reason":""}')
                answered += 1

        with trio.fail_after(30):
            async with trio.open_nursery() as clients, trio.open_nursery() as serves:
                done, stop = trio.Event(), trio.Event()
                await serves.start(partial(serve_http, engine, http_config, listener=listener, stop=stop))
                for _ in range(4):
                    clients.start_soon(ask, done)
                for _ in range(5):
                    following = trio.Event()
                    await serves.start(partial(serve_http, engine, http_config, listener=listener, stop=following))
                    stop.set()
                    stop = following
                    at = answered
                    while answered < at + 10:  # noqa: ASYNC110 - the clients only count
                        await trio.sleep(0.005)
                done.set()
                await trio.sleep(0.2)  # what is in flight is answered before the last one stops
                stop.set()
    assert answered >= 50


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_serve_gives_back_every_descriptor_and_leaves_the_listener_open(engine, http_config, serving):
    async def one_round() -> None:
        async with serving(engine, http_config) as client:
            await client.get("/readyz")

    await one_round()
    before = descriptors()
    for _ in range(3):
        await one_round()
    assert descriptors() == before

    stop = trio.Event()
    with bind_listener("127.0.0.1:0") as listener:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_http, engine, http_config, listener=listener, stop=stop))
            stop.set()
        assert listener.fileno() >= 0
        with socket.create_connection(listener.getsockname(), timeout=5):
            pass
