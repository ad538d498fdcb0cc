"""Those who ask much of a daemon at once, as a process of their own: `follow PORT MANY`, or `post PORT TOKEN`.

Followers take what they are sent and throw it away, half of them by WebSocket; one that posts sends batches without a pause.
Each prints "ready" once it has begun, and ends with its standard input.
"""

import http.client
import os
import selectors
import socket
import sys
import threading
from itertools import count
from typing import Final, TextIO

import msgspec

BATCH: Final = 100
HEAD: Final = (
    "GET /api/events/{path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: {upgrade}\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def follow(port: int, many: int) -> None:
    chosen = selectors.DefaultSelector()
    for number in range(many):
        one = socket.create_connection(("127.0.0.1", port))
        path, upgrade = ("ws", "websocket") if number % 2 else ("stream", "none")
        one.sendall(HEAD.format(path=path, upgrade=upgrade).encode())
        head = one.recv(4096)
        if not head.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 200 ")):
            raise SystemExit(f"{path}: {head[:200]!r}")
        chosen.register(one, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in chosen.select():
            if not key.fileobj.recv(1 << 20):  # type: ignore[union-attr]  # each is a socket
                raise SystemExit("the daemon has ended a follower's connection")


def post(port: int, token: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    numbers = count()
    sale = {"cityId": "dallas", "tier": "ga", "quantity": 2, "amount": 5000, "currency": "USD", "customerId": "jane"}
    for turn in count():
        batch = [{"type": "ticket_sale", "data": {"orderId": f"o-{next(numbers)}", **sale}} for _ in range(BATCH)]
        connection.request("POST", "/api/events", msgspec.json.encode(batch), headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {said[:300]!r}")
        if not turn:
            print("ready", flush=True)


def main() -> None:
    kind, port, what = sys.argv[1:]
    work = (lambda: follow(int(port), int(what))) if kind == "follow" else (lambda: post(int(port), what))
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    work()


def _end_with(stdin: TextIO) -> None:
    stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
