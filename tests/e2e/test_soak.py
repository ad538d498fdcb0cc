"""The daemon under everything at once, for as long as one likes: nothing is lost, the account balances, it does not grow.

Sales and repeats of sales come in, a probed target stops and starts at random, a receiver fails a third of what it gets,
slow followers read the event stream, pages and queries are asked for, the configuration is reloaded, and in the first half
the daemon is killed now and then. In the second half it lives on: memory and descriptors must be level there.

SIXFBD_SOAK_MINUTES is the time under load (`./run soak` takes 10), SIXFBD_SOAK_SEED the chance.
"""

import json
import os
import random
import socket
import sqlite3
import threading
import time
from collections import Counter
from http.server import ThreadingHTTPServer
from itertools import count

import httpx
import msgspec
import pytest

from sixfbd.journal.records import AlertChanged, MessageChanged, Owed, Record
from sixfbd.journal.state import account

SOAK_S = 60 * float(os.environ.get("SIXFBD_SOAK_MINUTES", "0.34"))
SEED = int(os.environ.get("SIXFBD_SOAK_SEED", "20261124"))
CITIES = ("dallas", "austin", "houston")
TARGETS = {("primary", "hook"), ("primary", "log")}
CRITICAL_TARGETS = TARGETS | {("secondary", "log")}
LIFE_S = (4.0, 60.0)  # between two kills: shortest, and longest on a long soak
SETTLE_S = 6.0  # longer than the daemon's report of itself takes to come round
MEMORY_RATIO, MEMORY_BYTES = 1.3, 32 * 1024**2  # what may come on top after warm-up, generously
DESCRIPTORS = 24


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


def configuration(daemon, target, receiver):
    return f"""
[checks.shop]
plugin = "webhook"
url = "{target.url}"
interval = "200ms"
timeout = "150ms"

[checks.itself]
plugin = "webhook"
url = "{daemon}/healthz"
interval = "500ms"
timeout = "400ms"

[notifiers.hook]
plugin = "webhook"
url = "{receiver.url}"
retry_first = "50ms"
retry_most = "500ms"

[receivers.primary]
webhook = {{ via = "hook" }}

[[rules]]
name = "ProbeFailed"
for = "0s"
"""


def shelf(low):
    """A rule on what sales say is left; a reload changes where it fires."""
    return f"""
[[rules]]
name = "ShelfLow"
expr = "inventory_tickets_remaining"
levels = [
    {{ severity = "medium", when = "< {3 * low}", clear = ">= {3 * low + 5}" }},
    {{ severity = "critical", when = "< {low}" }},
]
annotations = {{ summary = "{{{{ $labels.city }}}} has {{{{ $value }}}} left" }}
"""


def own_series(url):
    """Return the daemon's resident memory in bytes and its open descriptors, as it says itself."""
    found = {}
    for line in httpx.get(url + "/metrics", timeout=10).text.splitlines():
        name, _, value = line.partition(" ")
        if name in ("sixfbd_resident_memory_bytes", "sixfbd_open_files"):
            found[name] = float(value)
    return found["sixfbd_resident_memory_bytes"], found["sixfbd_open_files"]


def reload(daemon, draw, seen):
    daemon.add("60-shelf.toml", shelf(draw.randrange(5, 15)))
    done = daemon.run_ctl("reload")
    assert done.returncode == 0, done.stdout + done.stderr
    seen["reloads"] += 1


def first_half(daemon, draw, until, seen):
    """Lives that end by kill -9."""
    while (left := until - time.monotonic()) > LIFE_S[0]:
        life_ends = time.monotonic() + min(left, draw.uniform(LIFE_S[0], max(LIFE_S[0], min(LIFE_S[1], SOAK_S / 6))))
        while time.monotonic() < life_ends:
            time.sleep(min(draw.uniform(0.2, 3), max(0.0, life_ends - time.monotonic())))
            if draw.random() < 0.5:
                reload(daemon, draw, seen)
        daemon.kill()
        seen["kills"] += 1
        daemon.start()


def second_half(daemon, url, draw, until, seen):
    """One life; return (when, bytes, descriptors) as the daemon said them, from the end of warm-up on."""
    seconds = until - time.monotonic()
    warm_at = time.monotonic() + max(SETTLE_S, seconds / 3)
    sizes = []
    while time.monotonic() < max(until, warm_at + SETTLE_S):
        time.sleep(draw.uniform(0.5, 2))
        if draw.random() < 0.3:
            reload(daemon, draw, seen)
        if time.monotonic() >= warm_at:
            sizes.append((time.monotonic(), *own_series(url)))
    return sizes


@pytest.mark.timeout(2 * SOAK_S + 600)  # as long as one likes, and the end
def test_under_everything_at_once_nothing_is_lost_and_nothing_grows(
    daemon, target, receiver, wait, free_port, monkeypatch
):
    monkeypatch.setattr(ThreadingHTTPServer, "handle_error", lambda *_: None)  # a daemon that is killed hangs up
    draw = random.Random(SEED)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    daemon.edit('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{port}"')
    daemon.add("50-soak.toml", configuration(url, target, receiver))
    daemon.add("60-shelf.toml", shelf(10))
    receiver.answer = lambda calls: 503 if calls % 3 == 0 else 200
    seen = Counter()
    daemon.start()
    began = time.monotonic()

    shop = Shop(url, SEED, daemon.token)
    flapper, visitor = Flapper(target, SEED), Visitor(url, SEED)
    followers = [Follower(url, SEED, number) for number in range(3)]
    load = [shop, flapper, visitor, *followers]
    for one in load:
        one.start()
    first_half(daemon, draw, began + SOAK_S / 2, seen)
    sizes = second_half(daemon, url, draw, began + SOAK_S, seen)
    took_s = time.monotonic() - began
    shop.finish()
    visitor.finish()
    flapper.finish()

    receiver.answer = lambda calls: 200
    for check in ("shop", "itself", "system"):
        assert daemon.run_ctl("check", "pause", check).returncode == 0
    wait("nothing is open in the outbox", lambda: daemon.ctl("outbox", "list", "--open")["messages"] == [], 60)
    last = daemon.ctl("status")["events"]
    for follower in followers:
        follower.piece, follower.pause_s = 1 << 20, (0.0, 0.0)
        wait("a follower has caught up", lambda follower=follower: follower.last == last or follower.failure, 120)
        follower.finish()
    verified = daemon.ctl("journal", "verify")
    sold = httpx.get(url + "/api/v1/query", params={"query": "sum(workshop_tickets_sold_total)"}, timeout=30)
    daemon.stop()

    events, records = read_journal(daemon.directory / "state" / "journal.db")
    balance = account_of(records)
    received = Counter(headers["webhook-id"] for _, headers, _, _ in receiver.got)
    repeats = sum(received.values()) - len(received)
    first, end = sizes[0], sizes[-1]
    print(
        f"\n{took_s:.0f} s: {seen['kills']} kills, {seen['reloads']} reloads, {flapper.done['stops']} stops of the target, "
        f"{shop.done['events']} events and {shop.done['duplicates']} repeats of events acknowledged, "
        f"{visitor.done['answers']} pages, {sum(one.done['events'] for one in followers)} events followed in "
        f"{sum(one.done['connections'] for one in followers)} connections\n"
        f"{len(events)} events in the journal, {len(set(shop.acknowledged) - set(events))} lost; {balance['transitions']} "
        f"transitions, {balance['obligations']} obligations {balance['states']}, {len(balance['unaccounted'])} unaccounted; "
        f"{len(received)} webhooks, {repeats} repeats for {balance['unknown']} in flight at a kill\n"
        f"memory {first[1] / 2**20:.1f} → {end[1] / 2**20:.1f} MiB (most {max(size[1] for size in sizes) / 2**20:.1f}), "
        f"descriptors {first[2]:.0f} → {end[2]:.0f} (most {max(size[2] for size in sizes):.0f}) "
        f"in the last {end[0] - first[0]:.0f} s"
    )
    assert set(shop.acknowledged) <= set(events), "an acknowledged event is missing"
    assert set(events) <= shop.unsure and len(events) == len(set(events)), "an event is there twice, or from nowhere"
    assert float(sold.json()["data"]["result"][0]["value"][1]) == len(events), (
        "the counter is not the count of the events"
    )
    assert verified["problems"] == [], verified
    assert balance["unaccounted"] == []
    assert balance["transitions"] > 0 and seen["kills"] > 0 and seen["reloads"] > 0
    assert balance["told"] <= set(received), "a message counts as accepted, and never arrived"
    assert repeats <= balance["unknown"], "more repeats than messages that were in flight"
    assert end[1] <= MEMORY_RATIO * first[1] + MEMORY_BYTES, "memory grows"
    assert end[2] <= first[2] + DESCRIPTORS, "descriptors grow"


def read_journal(path):
    """Return the ids of the events and the records, in order of number."""
    decoder = msgspec.json.Decoder(Record)
    with sqlite3.connect(path) as journal:
        numbered = journal.execute("SELECT seq, id FROM events ORDER BY seq").fetchall()
        records = [decoder.decode(body) for [body] in journal.execute("SELECT body FROM records ORDER BY seq")]
    assert [seq for seq, _ in numbered] == list(range(1, len(numbered) + 1)), "the numbers have gaps"
    return [identity for _, identity in numbered], records


def account_of(records):
    """Every transition owes each target one obligation, and each has come to an end."""
    owed = account(records)
    unaccounted = [
        f"{one.id} is {one.state}" for one in owed.values() if one.state in ("pending", "sending", "unknown")
    ]
    by_transition, severities, transitions = {}, {}, {}
    for one in records:
        if isinstance(one, Owed):
            target = one.obligation.target
            by_transition.setdefault((one.obligation.subject, one.at), []).append((target.receiver, target.notifier))
        elif isinstance(one, AlertChanged):
            alert, before = one.alert, severities.get(one.alert.id)
            severities[alert.id] = alert.severity
            firing_changed = alert.state == "firing" and (one.previous != "firing" or before is not alert.severity)
            if firing_changed or alert.state == "resolved":
                transitions[alert.id, one.at] = CRITICAL_TARGETS if alert.severity == "critical" else TARGETS
    for key, named in transitions.items():
        targets = by_transition.get(key, [])
        if not named <= set(targets) or len(targets) != len(set(targets)):
            unaccounted.append(f"{key} owes {targets}, not {sorted(named)}")
    messages = [
        one.message for one in records if isinstance(one, MessageChanged) and one.message.target.notifier == "hook"
    ]
    return {
        "transitions": len(transitions),
        "obligations": len(owed),
        "states": json.dumps(Counter(one.state for one in owed.values())),
        "unaccounted": unaccounted,
        "unknown": sum(message.state == "unknown" for message in messages),
        "told": {message.id for message in messages if message.state in ("accepted", "delivered")},
    }
