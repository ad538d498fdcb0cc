"""The daemon under everything at once, for as long as one likes: nothing is lost, the account balances, it does not grow.

Sales and repeats of sales come in, a probed target stops and starts at random, a receiver fails a third of what it gets,
slow followers read the event stream, pages and queries are asked for, the configuration is reloaded; and faults of disk,
clock, plugins and network are brought about one after the other, sometimes two at once (faults.py). Each must be seen from
outside and recovered from; what is not is collected, and fails the soak at its end. In the first two thirds the process is
killed and aborted as well; in the last third it lives on, and memory and descriptors must be level there.

SIXFBD_SOAK_MINUTES is the time under load (`./run soak` takes 10), SIXFBD_SOAK_SEED the chance. Needs root, for a small
file system.
"""

import json
import os
import random
import sqlite3
import statistics
import threading
import time
from collections import Counter
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import msgspec
import pytest

from sixfbd.journal.records import AlertChanged, MessageChanged, Owed, Record
from sixfbd.journal.state import account
from tests.e2e.conftest import Target
from tests.e2e.disks import MIB, FsyncFaults
from tests.e2e.faults import FAULTS, STEADY, Stage, Times
from tests.e2e.traffic import Flapper, Follower, Shop, Visitor

ODD = Path(__file__).with_name("odd_plugin.py").read_text()
SOAK_S = 60 * float(os.environ.get("SIXFBD_SOAK_MINUTES", "0.34"))
SEED = int(os.environ.get("SIXFBD_SOAK_SEED", "20261124"))
IS_SHORT = SOAK_S < 120
TARGETS = {("primary", "hook"), ("primary", "log"), ("primary", "odd")}
CRITICAL_TARGETS = TARGETS | {("secondary", "log")}
SETTLE_S = 1.0 if IS_SHORT else 6.0
DISK_BYTES = 256 * MIB + round(SOAK_S / 60 * 8 * MIB)  # room for the traffic, and what must be free
MEMORY_RATIO, MEMORY_BYTES = 1.3, 32 * MIB  # what may come on top after warm-up, generously
DESCRIPTORS = 24
FAULT_S = 600.0  # no fault takes as long: each of its waits has a limit


def configuration(daemon, stage, target, receiver):
    return f"""
[window]
max_series_per_check = 2_000

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

[checks.front]
plugin = "webhook"
url = "{stage.front.url}"
interval = "1s"
timeout = "900ms"
deadline = "400ms"

[checks.down]
plugin = "webhook"
url = "http://127.0.0.1:9/"
interval = "500ms"
timeout = "400ms"

[checks.odd]
plugin = "odd"
how = "fine"
steer = "{stage.check_steer}"
interval = "500ms"
timeout = "400ms"

[notifiers.hook]
plugin = "webhook"
url = "{receiver.url}"
retry_first = "50ms"
retry_most = "500ms"
timeout = "2s"

[notifiers.odd]
plugin = "hanging"
how = "fine"
steer = "{stage.notifier_steer}"
retry_first = "50ms"
retry_most = "500ms"
timeout = "1s"

[receivers.primary]
webhook = {{ via = "hook" }}
email = {{ via = "odd" }}

[[rules]]
name = "ProbeFailed"
for = "0s"
[[rules]]
name = "Recent"
expr = 'count_over_time(probe_success{{check="down"}}[10s]) > 0'
severity = "high"
[[rules]]
name = "Patient"
expr = 'probe_success{{check="down"}} == 0'
for = "30h"
severity = "high"
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


class Injector:
    """Brings faults about, in an order that the seed decides: all in turn, one quick one of each kind first.

    `failures` says what was not seen, or not recovered from; `accounts` has the times of the faults by name.
    """

    def __init__(self, stage, draw):
        self.stage = stage
        self.draw = draw
        self.failures = []
        self.accounts = {fault.name: [] for fault in FAULTS}
        self.reloads = 0
        quick = [fault for fault in FAULTS if fault.quick]
        draw.shuffle(quick)
        self._due = list({fault.kind: fault for fault in quick}.values())
        self._quick = len(self._due)

    def run(self, until, *, ends, more=lambda: None):
        """Go on until it is time, and every kind had its turn; `ends`: faults that end the process as well."""
        while time.monotonic() < until or self._quick > 0:
            batch = self._batch(ends)
            self._quick -= len(batch)
            threads = [threading.Thread(target=self._inject, args=(fault,)) for fault in batch[1:]]
            for thread in threads:
                thread.start()
            self._inject(batch[0])
            for thread in threads:
                thread.join(FAULT_S)
                assert not thread.is_alive(), f"{batch} does not end"
            self._revive()
            if self.draw.random() < 0.3:
                self.reload()
            more()
            time.sleep(self.draw.uniform(0.2, 0.5 if IS_SHORT else 3))

    def inject(self, name):
        """Bring about this one now."""
        self._inject(next(fault for fault in FAULTS if fault.name == name))

    def reload(self):
        self.stage.daemon.add("60-shelf.toml", shelf(self.draw.randrange(5, 15)))
        done = self.stage.daemon.run_ctl("reload")
        if done.returncode != 0:
            self.failures.append(f"reload: {done.stdout}{done.stderr}")
        self.reloads += 1

    def _batch(self, ends):
        first = self._take(lambda fault: ends or not fault.ends)
        if first.alone or IS_SHORT or self.draw.random() < 0.7:
            return [first]
        return [first, self._take(lambda fault: not fault.alone and fault.kind != first.kind)]

    def _take(self, suits):
        while True:
            for fault in self._due:
                if suits(fault):
                    self._due.remove(fault)
                    return fault
            self._due += self.draw.sample(FAULTS, len(FAULTS))

    def _inject(self, fault):
        draw = random.Random(f"{SEED}/{fault.name}/{len(self.accounts[fault.name])}")
        times = Times()
        self.accounts[fault.name].append(times)
        try:
            fault.run(self.stage, draw, times)
        except Exception as error:  # noqa: BLE001 - collected: the soak goes on, and fails for it at the end
            because = f", because of {error.__cause__!r}" if error.__cause__ else ""
            outcome = f"{type(error).__name__}: {error}{because}"
            self.failures.append(f"{fault.name}: {outcome}")
        else:
            times.recovered()
            outcome = f"seen after {times.seen_s:.1f} s, recovered after {times.recovered_s:.1f} s"
        print(f"{time.strftime('%H:%M:%S')} {fault.kind}: {fault.name}: {outcome}", flush=True)

    def _revive(self):
        process = self.stage.daemon.process
        if process.poll() is not None:
            tail = self.stage.daemon.log.read_text()[-2000:]
            self.failures.append(f"the daemon ended with {process.returncode}, and nobody had ended it:\n{tail}")
            self.stage.start()

    def table(self):
        """Return what was injected and what was seen, one line a fault."""

        def spans(values):
            median, most = (f"{statistics.median(values):.1f}", f"{max(values):.1f}") if values else ("-", "-")
            return f"{len(values):11}{median:>10}{most:>9}"

        lines = [
            f"{'fault':60}{'injected':>9}{'seen':>11}{'median s':>10}{'most s':>9}{'recovered':>11}{'median s':>10}{'most s':>9}"
        ]
        for fault in FAULTS:
            accounts = self.accounts[fault.name]
            seen = [one.seen_s for one in accounts if one.seen_s is not None]
            recovered = [one.recovered_s for one in accounts if one.recovered_s is not None]
            lines.append(f"{f'{fault.kind}: {fault.name}':60}{len(accounts):9}{spans(seen)}{spans(recovered)}")
        return "\n".join(lines)

    def kinds(self):
        return {fault.kind for fault in FAULTS if any(one.seen_s is not None for one in self.accounts[fault.name])}


def last_life(injector, daemon, until):
    """Faults that do not end the process; return (when, bytes, descriptors) between them, from the end of warm-up on."""
    pid, sizes = daemon.process.pid, []
    began = time.monotonic()
    warm_at = began + max(SETTLE_S, (until - began) / 3)

    def measure():
        if time.monotonic() >= warm_at:
            sizes.append((time.monotonic(), *daemon.sizes()))

    injector.run(until, ends=False, more=measure)
    time.sleep(max(0.0, warm_at - time.monotonic()))
    for _ in range(3):
        measure()
        time.sleep(SETTLE_S / 3)
    if daemon.process.pid != pid:
        injector.failures.append("the life in which memory is measured has ended early")
    return sizes


def level(sizes):
    """Return the median of the first and of the last quarter: a single one may be high for what has just been."""
    part = max(1, len(sizes) // 4)
    return [
        statistics.median(size[place] for size in some) for some in (sizes[:part], sizes[-part:]) for place in (1, 2)
    ]


@pytest.fixture
def front():
    made = Target()
    made.serve()
    yield made
    made.stop()


@pytest.mark.timeout(2 * SOAK_S + 900)  # as long as one likes, and the end
def test_under_everything_at_once_nothing_is_lost_and_nothing_grows(
    daemon, target, front, receiver, wait, free_port, wall, mounted, tmp_path, monkeypatch
):
    monkeypatch.setattr(ThreadingHTTPServer, "handle_error", lambda *_: None)  # a daemon that is killed hangs up
    stage = Stage(daemon, receiver, front, wall, FsyncFaults(tmp_path / "fsync"), wait)
    mounted(stage.state, "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    daemon.edit('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{port}"')
    daemon.plugin("odd", ODD)
    daemon.add("50-soak.toml", configuration(url, stage, target, receiver))
    daemon.add("60-shelf.toml", shelf(10))
    receiver.answer = lambda calls: 503 if calls % 3 == 0 else 200
    print(f"\nseed {SEED}: SIXFBD_SOAK_SEED={SEED} ./run soak --minutes {SOAK_S / 60:g}")
    stage.start()
    stage.wait("what is steady is known", lambda: stage.steady() == STEADY)
    began = time.monotonic()

    shop = Shop(url, SEED, daemon.token)
    flapper, visitor = Flapper(target, SEED), Visitor(url, SEED)
    followers = [Follower(url, SEED, number) for number in range(3)]
    load = [shop, flapper, visitor, *followers]
    for one in load:
        one.start()
    injector = Injector(stage, random.Random(SEED))
    injector.run(began + SOAK_S * 2 / 3, ends=True)
    injector.reload()
    injector.inject("killed")
    sizes = last_life(injector, daemon, began + SOAK_S)
    took_s = time.monotonic() - began
    print(injector.table())
    print(f"{took_s:.0f} s: {injector.reloads} reloads")
    for one in (shop, visitor, flapper):
        one.finish()

    receiver.answer = lambda calls: 200
    for check in ("shop", "itself", "front", "system", "odd"):
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

    events, records = read_journal(stage.state / "journal.db")
    sales, notes = events["ticket_sale"], events.get("note", [])
    lost = (set(shop.acknowledged) | stage.acknowledged) - {*sales, *notes}
    balance = account_of(records)
    received = Counter(headers["webhook-id"] for _, headers, _, _ in receiver.got)
    repeats = sum(received.values()) - len(received)
    first, first_open, end, end_open = level(sizes)
    print(
        f"traffic: {shop.done['events']} sales and {shop.done['duplicates']} repeats of sales acknowledged, "
        f"{shop.done['refusals']} batches refused, {flapper.done['stops']} stops of the target, "
        f"{visitor.done['answers']} pages, {sum(one.done['events'] for one in followers)} events followed in "
        f"{sum(one.done['connections'] for one in followers)} connections\n"
        f"{sum(map(len, events.values()))} events in the journal, {len(lost)} lost; {balance['transitions']} "
        f"transitions, {balance['obligations']} obligations {balance['states']}, {len(balance['unaccounted'])} unaccounted; "
        f"{len(received)} webhooks, {repeats} repeats for {balance['unknown']} whose answer was lost\n"
        f"memory {first / MIB:.1f} → {end / MIB:.1f} MiB (most {max(size[1] for size in sizes) / MIB:.1f}), "
        f"descriptors {first_open:.0f} → {end_open:.0f} (most {max(size[2] for size in sizes)}) "
        f"in the last {sizes[-1][0] - sizes[0][0]:.0f} s\n"
        "memory in MiB: " + " ".join(f"{size[1] / MIB:.0f}" for size in sizes[:: max(1, len(sizes) // 20)])
    )
    assert not injector.failures, f"seed {SEED}:\n" + "\n".join(injector.failures)
    assert not lost, "an acknowledged event is missing"
    assert set(sales) <= shop.unsure and set(notes) <= stage.notes, "an event is from nowhere"
    assert len(sales) == len(set(sales)), "an event is there twice"
    assert float(sold.json()["data"]["result"][0]["value"][1]) == len(sales), (
        "the counter is not the count of the events"
    )
    assert verified["problems"] == [], verified
    assert balance["unaccounted"] == []
    assert balance["transitions"] > 0 and injector.reloads > 0
    assert injector.kinds() == {"disk", "clock", "plugins", "network", "process"}
    assert balance["told"] <= set(received), "a message counts as accepted, and never arrived"
    assert repeats <= balance["unknown"], "more repeats than messages whose answer was lost"
    assert balance["repeats"] == [], "told again what nobody has forgotten"
    assert balance["steady"] == {("ProbeFailed", "firing"): 1, ("Recent", "firing"): 1}, "clocks and ends fire nothing"
    assert end <= MEMORY_RATIO * first + MEMORY_BYTES, "memory grows"
    assert end_open <= first_open + DESCRIPTORS, "descriptors grow"


def read_journal(path):
    """Return the ids of the events by type, and the records in order of number."""
    decoder = msgspec.json.Decoder(Record)
    with sqlite3.connect(path) as journal:
        numbered = journal.execute("SELECT seq, type, id FROM events ORDER BY seq").fetchall()
        records = [decoder.decode(body) for [body] in journal.execute("SELECT body FROM records ORDER BY seq")]
    assert [seq for seq, _, _ in numbered] == list(range(1, len(numbered) + 1)), "the numbers have gaps"
    events = {}
    for _, kind, identity in numbered:
        events.setdefault(kind, []).append(identity)
    return events, records


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
        "repeats": [one.id for one in owed.values() if one.kind == "repeat"],
        "steady": Counter(
            (one.alert.key.rule, one.alert.state)
            for one in records
            if isinstance(one, AlertChanged)
            and one.alert.labels.get("check") == "down"
            and one.alert.key.rule in {rule for rule, _ in STEADY}
            and one.alert.state in ("firing", "resolved")
            and one.alert.state != one.previous
        ),
        "unknown": sum(message.state == "unknown" for message in messages),
        "told": {message.id for message in messages if message.state in ("accepted", "delivered")},
    }
