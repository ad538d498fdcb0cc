"""kill -9 at random moments under event and sample load: nothing acknowledged is missing, the account balances.

SIXFBD_CRASH_ROUNDS sets the number of kills (`./run crash` runs 50), SIXFBD_CRASH_SEED replays the moments.
"""

import json
import os
import random
import sqlite3
import threading
import time
from collections import Counter

import httpx
import pytest

ROUNDS = int(os.environ.get("SIXFBD_CRASH_ROUNDS", "10"))
SEED = int(os.environ.get("SIXFBD_CRASH_SEED", "20261123"))
LONGEST_LIFE_S = 1.2

PLUGIN = '''
"""A busy check: twenty series that change at every run, one of which crosses its rule's threshold now and then."""

import msgspec
from sixfbd.plugin import Check, Gauge, Report, Status, hookimpl

VALUE = Gauge("busy_value", "A value.", labels=("n",))


class Busy(Check["Busy.Options"]):
    """Changes all the time."""

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        pass

    metrics = (VALUE,)

    async def run(self, cursor):
        turn = (cursor or 0) + 1
        values = tuple(VALUE(turn * (n + 1) % 17, n=str(n)) for n in range(20))
        return Report(Status.HEALTHY, f"turn {turn}", values, cursor=turn)


@hookimpl
def sixfbd_checks(config):
    return {"busy": Busy}
'''


class Shop(threading.Thread):
    """Sends sales in small batches for as long as it is told; remembers what was acknowledged."""

    def __init__(self, url: str, token: str, begin: int) -> None:
        super().__init__(daemon=True)
        self.url = url
        self.token = token
        self.next = begin
        self.acknowledged: list[str] = []
        self.unsure: list[str] = []
        self.go_on = True

    def run(self) -> None:
        with httpx.Client(timeout=5, headers={"Authorization": f"Bearer {self.token}"}) as client:
            while self.go_on:
                batch = [self.sale(self.next + n) for n in range(5)]
                self.next += 5
                ids = [sale["id"] for sale in batch]
                try:
                    answer = client.post(self.url + "/api/events", json=batch)
                except httpx.HTTPError:
                    self.unsure += ids
                    continue
                if answer.status_code == 200:
                    assert answer.json()["data"]["refused"] == [], answer.text
                    self.acknowledged += ids
                else:
                    self.unsure += ids
                time.sleep(0.002)

    def sale(self, number: int) -> dict[str, object]:
        return {
            "id": f"sale-{number}",
            "type": "ticket_sale",
            "timestamp": time.time(),
            "data": {
                "orderId": f"o{number}",
                "cityId": "dallas-2026-03",
                "tier": "ga" if number % 3 else "vip",
                "quantity": 1,
                "amount": 5000,
                "currency": "USD",
            },
        }


@pytest.mark.timeout(120 + 20 * ROUNDS)
def test_nothing_acknowledged_is_lost_and_every_obligation_is_accounted_for(daemon, receiver, wait):
    draw = random.Random(SEED)
    plugins = daemon.directory / "plugins.d"
    plugins.mkdir(exist_ok=True)
    (plugins / "busy.py").write_text(PLUGIN)
    daemon.add(
        "50-test.toml",
        f"""
[checks.busy]
plugin = "busy"
interval = "50ms"
timeout = "50ms"

[notifiers.hook]
plugin = "webhook"
url = "{receiver.url}"
retry_first = "50ms"
retry_most = "200ms"

[receivers.primary]
webhook = {{ via = "hook" }}

[[rules]]
name = "BusyHigh"
expr = "busy_value > 12"
severity = "high"
annotations = {{ summary = "busy {{{{ $labels.n }}}} is {{{{ $value }}}}" }}
""",
    )
    receiver.answer = lambda calls: 503 if calls % 3 == 0 else 200
    acknowledged: list[str] = []
    unsure: list[str] = []
    number = 0
    for _ in range(ROUNDS):
        daemon.start()
        shop = Shop(daemon.url, daemon.token, number)
        shop.start()
        time.sleep(draw.uniform(0, LONGEST_LIFE_S))
        daemon.kill()
        shop.go_on = False
        shop.join(10)
        acknowledged += shop.acknowledged
        unsure += shop.unsure
        number = shop.next
    assert acknowledged, "no round lived long enough to acknowledge anything"

    daemon.start()
    assert daemon.run_ctl("check", "pause", "busy").returncode == 0
    wait("nothing is open in the outbox", lambda: daemon.ctl("outbox", "list", "--open")["messages"] == [], 60)
    verified = daemon.ctl("journal", "verify")
    assert verified["problems"] == [], verified
    sold = httpx.get(
        daemon.url + "/api/v1/query", params={"query": "sum(workshop_tickets_sold_total)"}, timeout=30
    ).json()["data"]["result"][0]["value"][1]
    daemon.stop()

    with sqlite3.connect(daemon.directory / "state" / "journal.db") as journal:
        events = [row[0] for row in journal.execute("SELECT id FROM events ORDER BY seq")]
        numbers = [row[0] for row in journal.execute("SELECT seq FROM events ORDER BY seq")]
        records = [json.loads(row[0]) for row in journal.execute("SELECT body FROM records ORDER BY seq")]
    assert set(acknowledged) <= set(events), "an acknowledged event is missing"
    assert set(events) <= set(acknowledged) | set(unsure), "an event came from nowhere"
    assert len(events) == len(set(events)), "an event is there twice"
    assert numbers == list(range(1, len(numbers) + 1)), "the numbers have gaps"
    assert float(sold) == len(events), "the counter is not the count of the events"

    account = account_of(records)
    taken = Counter(headers["webhook-id"] for _, headers, _, _ in receiver.got)
    repeats = sum(count - 1 for count in taken.values())
    in_flight = account["sending at a start"]
    print(
        f"{ROUNDS} kills: {len(acknowledged)} events acknowledged, {len(events) - len(acknowledged)} more written, 0 lost; "
        f"{account['transitions']} transitions, {account['obligations']} obligations ({account['states']}), "
        f"{len(receiver.got)} webhooks, {repeats} repeats for {in_flight} in flight at a kill"
    )
    assert account["transitions"] > 0 and account["unaccounted"] == []
    assert repeats <= in_flight, "more messages repeated than were in flight at a kill"


def account_of(records: list[dict]) -> dict:
    """Fold the records by hand: every firing and every resolution owes each target one obligation, in an end state."""
    owed: dict[str, dict] = {}
    subjects: dict[tuple[str, str], set[str]] = {}
    transitions: list[tuple[str, str]] = []
    in_flight = 0
    for record in records:
        match record["r"]:
            case "alert" if record["alert"]["state"] != record["previous"]:
                kind = {"firing": "fire", "resolved": "resolve"}.get(record["alert"]["state"])
                if kind:
                    transitions.append((record["alert"]["id"], kind))
            case "owed":
                obligation = record["obligation"]
                assert obligation["id"] not in owed, "an obligation was written twice"
                owed[obligation["id"]] = obligation
                key = (obligation["subject"], obligation["kind"])
                subjects.setdefault(key, set()).add(obligation["target"]["notifier"])
            case "obligation":
                owed[record["id"]]["state"] = record["state"]
            case "message":
                message = record["message"]
                in_flight += message["state"] == "unknown"
                for identity in message["obligations"]:
                    if owed[identity]["state"] != "suppressed":
                        owed[identity]["state"] = message["state"]
    open_states = {"pending", "sending", "unknown"}
    unaccounted = [identity for identity, found in owed.items() if found["state"] in open_states]
    unaccounted += [f"{key} owes nobody" for key in transitions if key not in subjects]
    unaccounted += [f"{key} owes only {names}" for key, names in subjects.items() if names != {"hook", "log"}]
    return {
        "transitions": len(transitions),
        "obligations": len(owed),
        "states": dict(Counter(found["state"] for found in owed.values())),
        "unaccounted": unaccounted,
        "sending at a start": in_flight,
    }
