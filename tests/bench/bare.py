"""What some parts of the bench stand beside: processes that do one thing by the same libraries, and nothing else.

`python bare.py PORT timers N`: N tasks that each sleep a second in a loop. `... handler`: hypercorn's trio worker and an
ASGI function that reads a body and parses it. `... page FILE`: hypercorn and quart-trio that send a file's bytes. Each
answers GET /ready; `timers` by the handler's server, which nobody asks anything while it is measured.
"""

import random
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve


async def handler(
    scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Read the body, parse it if there is one, and answer with a few bytes."""
    if scope["type"] == "lifespan":
        while True:
            what = (await receive())["type"]
            await send({"type": f"{what}.complete"})
            if what == "lifespan.shutdown":
                return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    parsed = msgspec.json.decode(body) if body else None
    answer = b'{"parsed":%d}' % (len(parsed) if isinstance(parsed, list) else 1)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def page(path: Path) -> Any:
    """An app that sends a file's bytes, read once."""
    from quart import Response
    from quart_trio import QuartTrio

    app, content = QuartTrio("page", static_folder=None), path.read_bytes()

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(content, content_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/ready")
    async def ready() -> str:
        return "ready"

    return app


async def sleep_again_and_again() -> None:
    await trio.sleep(random.random())
    while True:  # noqa: ASYNC110 - the timer itself is what is measured
        await trio.sleep(1)


async def run(port: int, app: Any, sleepers: int) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.errorlog = config.accesslog = None
    config.include_server_header = False
    async with trio.open_nursery() as nursery:
        for _ in range(sleepers):
            nursery.start_soon(sleep_again_and_again)
        await nursery.start(partial(serve, app, config))


if __name__ == "__main__":
    what, *rest = sys.argv[2:]
    trio.run(
        run,
        int(sys.argv[1]),
        page(Path(rest[0])) if what == "page" else handler,
        int(rest[0]) if what == "timers" else 0,
    )
