"""Traffic for a daemon under load: sales, pages, followers, a target that comes and goes. Each is a thread that counts what it did.

What fails because the daemon is between two lives, or refuses for good reason, is counted and no failure.
"""

import random
import socket
import threading
import time
from collections import Counter
from itertools import count

import httpx

CITIES = ("dallas", "austin", "houston")


class Load(threading.Thread):
    """Calls `act` until it is told to stop; `done` counts what it did, `failure` is the first exception that is no outage."""

    pause_s = (0.01, 0.05)

    def __init__(self, url, seed):
        super().__init__(daemon=True, name=type(self).__name__)
        self.url = url
        self.draw = random.Random(f"{seed}/{self.name}")
        self.done = Counter()
        self.failure = None
        self.ended = threading.Event()

    def run(self):
        while not self.ended.is_set():
            try:
                self.act()
            except (OSError, httpx.HTTPError):  # the daemon is between two lives
                self.done["outages"] += 1
                self.ended.wait(0.05)
            except Exception as error:  # noqa: BLE001 - shown by the test, which fails for it
                self.failure = error
                return
            self.ended.wait(self.draw.uniform(*self.pause_s))
        self.close()

    def act(self):
        raise NotImplementedError

    def close(self):
        """Let go of what is open."""

    def finish(self):
        self.ended.set()
        self.join(30)
        assert not self.is_alive(), f"{self.name} does not end"
        if self.failure is not None:
            raise self.failure


class Shop(Load):
    """Sends sales in small batches, one in ten batches once more; remembers what was acknowledged."""

    def __init__(self, url, seed, token):
        super().__init__(url, seed)
        self.client = httpx.Client(timeout=10, headers={"Authorization": f"Bearer {token}"})
        self.numbers = count(1)
        self.acknowledged = {}
        self.unsure = set()
        self.last = []

    def act(self):
        again = bool(self.last) and self.draw.random() < 0.1
        batch = self.last if again else [self.sale(next(self.numbers)) for _ in range(self.draw.randrange(1, 6))]
        self.last = batch
        ids = [sale["id"] for sale in batch]
        self.unsure.update(ids)
        answer = self.client.post(self.url + "/api/events", json=batch)
        if answer.status_code != 200:
            self.done["refusals"] += 1
            return
        taken = answer.json()["data"]
        assert taken["refused"] == [], answer.text
        self.acknowledged.update(dict.fromkeys(ids))
        self.done["events"] += taken["accepted"]
        self.done["duplicates"] += taken["duplicates"]

    def sale(self, number):
        city = self.draw.choice(CITIES)
        return {
            "id": f"sale-{number}",
            "type": "ticket_sale",
            "timestamp": time.time(),
            "data": {
                "orderId": f"o{number}", "cityId": city, "tier": "ga", "quantity": 1, "amount": 5000, "currency": "USD",
                "remainingInventory": {"ga": self.draw.randrange(100)},
            },
        }  # fmt: skip

    def close(self):
        self.client.close()


class Visitor(Load):
    """Asks for pages, metrics and queries."""

    pause_s = (0.1, 0.4)
    paths = ("/", "/metrics", "/api/health", "/api/alerts", "/api/v1/query?query=sum(rate(probe_success[1m]))")

    def act(self):
        answer = httpx.get(self.url + self.draw.choice(self.paths), timeout=10)
        assert answer.status_code in (200, 503), f"{answer.url}: {answer.status_code} {answer.text[:200]}"
        self.done["answers" if answer.status_code == 200 else "refusals"] += 1


class Flapper(Load):
    """Stops and starts the probed target."""

    pause_s = (0.3, 2.0)

    def __init__(self, target, seed):
        super().__init__(target.url, seed)
        self.target = target
        self.up = True

    def act(self):
        (self.target.stop if self.up else self.target.start)()
        self.up = not self.up
        self.done["stops" if not self.up else "starts"] += 1

    def close(self):
        if not self.up:
            self.target.start()


class Follower(Load):
    """Follows the event stream through a small window, slowly; comes again after its last event, as browsers do."""

    pause_s = (0.02, 0.06)

    def __init__(self, url, seed, number):
        super().__init__(url, f"{seed}/{number}")
        self.address = tuple(url.removeprefix("http://").rsplit(":", 1))
        self.last = 0
        self.rest = b""
        self.connection = None
        self.piece = 2048

    def act(self):
        if self.connection is None:
            self.connect()
        try:
            read = self.connection.recv(self.piece)
        except TimeoutError:
            return
        except OSError:
            read = b""
        if not read:
            self.close()
            raise ConnectionResetError("the stream ended")
        *lines, self.rest = (self.rest + read).split(b"\n")
        for line in lines:
            if line.startswith(b"id: "):
                number = int(line[4:])
                assert number == self.last + 1, f"event {number} follows on {self.last}"
                self.last = number
                self.done["events"] += 1

    def connect(self):
        self.connection = socket.socket()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.connection.settimeout(1)
        try:
            self.connection.connect((self.address[0], int(self.address[1])))
        except OSError:
            self.close()
            raise
        head = f"GET /api/events/stream?after=0 HTTP/1.1\r\nHost: {':'.join(self.address)}\r\nLast-Event-ID: {self.last}\r\n\r\n"
        self.connection.sendall(head.encode())
        self.rest = b""
        self.done["connections"] += 1

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None
