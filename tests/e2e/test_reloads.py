"""A real daemon that is reloaded again and again, while it works, while it starts and while it stops.

SIXFBD_RELOADS_SEED is the chance.
"""

import os
import random
import signal
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

SEED = os.environ.get("SIXFBD_RELOADS_SEED", "20261124")
RELOADS = 30
BROKEN = (
    '[http]\nmax_body = "many"\n',
    '[[rules]]\nname = "Broken"\nexpr = "sum("\nseverity = "low"\n',
    '[daemon]\nstate_directory = "elsewhere"\n',
    "[http\n",
)


class Address:
    """Where the daemon is reached, as the test knows it: behind, for a moment, when the listener moves."""

    def __init__(self, url):
        self.url = url

    def moved_from(self, url):
        """Wait until the test has heard of another address; tell whether it has."""
        deadline = time.monotonic() + 10
        while self.url == url and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.url != url


class Client(threading.Thread):
    """Asks without a pause, on one connection or on one each time. Only who comes to an address that was just left may
    find nobody; any other failure is the test's."""

    def __init__(self, address, token, keep):
        super().__init__(daemon=True)
        self.address = address
        self.keep = keep
        self.token = token
        self.number = 0
        self.sent = []
        self.failures = []
        self.leaving = threading.Event()

    def run(self):
        while not self.leaving.is_set():
            with httpx.Client(timeout=10, trust_env=False, headers={"Authorization": f"Bearer {self.token}"}) as client:
                while self.ask(client) and self.keep and not self.leaving.is_set():
                    pass

    def ask(self, client):
        url = self.address.url
        event = {"id": f"{self.keep}-{self.number}", "type": "note", "data": {}}
        try:
            answer = client.post(f"{url}/api/events", json=event)
        except httpx.ConnectError as error:
            if not self.address.moved_from(url):
                self.failures.append(error)
            return False
        except httpx.HTTPError as error:
            self.failures.append(error)
            return False
        if answer.status_code != 200:
            self.failures.append(answer.text)
        self.sent.append(event["id"])
        self.number += 1
        self.leaving.wait(0.002)
        return True


class Follower(threading.Thread):
    """Follows the events; comes again where it left off, as browsers do."""

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address = address
        self.seqs = []
        self.failures = []
        self.leaving = threading.Event()

    def run(self):
        while not self.leaving.is_set():
            url = self.address.url
            try:
                self.follow(url)
            except httpx.ReadTimeout:  # nothing came: whether to leave is asked again
                continue
            except httpx.ConnectError as error:
                if not self.address.moved_from(url):
                    self.failures.append(error)
            except httpx.HTTPError as error:
                self.failures.append(error)

    def follow(self, url):
        seen = {"Last-Event-ID": str(self.seqs[-1] if self.seqs else 0)}
        with httpx.stream("GET", f"{url}/api/events/stream", headers=seen, timeout=1, trust_env=False) as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                if line.startswith("id: "):
                    self.seqs.append(int(line[4:]))
                if self.leaving.is_set():
                    return


@contextmanager
def at_work(address, token):
    """Clients and a follower, until the block ends; yields them."""
    clients = [Client(address, token, keep) for keep in (True, False)]
    follower = Follower(address)
    for one in (*clients, follower):
        one.start()
    try:
        yield clients, follower
    finally:
        for one in (*clients, follower):
            one.leaving.set()
        for one in (*clients, follower):
            one.join(30)
            assert not one.is_alive()


BASE = """
[notifiers.hook]
plugin = "webhook"
url = "{hook}"
[receivers.primary]
webhook = {{ via = "hook" }}
[checks.probe]
plugin = "webhook"
url = "{target}"
interval = "1s"
timeout = "1s"
[[rules]]
name = "Fires"
expr = "sixfbd_series > 0"
severity = "high"
[[rules]]
name = "Waits"
expr = "sixfbd_series > 0"
for = "{wait}"
severity = "high"
"""


def write_base(daemon, receiver, target, wait="1h"):
    daemon.add("40-base.toml", BASE.format(hook=receiver.url, target=target.url, wait=wait))


def settings(draw, ports, number):
    """A valid configuration of what may change, another text for each number."""
    extra = (
        '[checks.extra]\nplugin = "system"\ninterval = "1s"\n',
        '[[rules]]\nname = "Extra"\nexpr = "sixfbd_series < 0"\nseverity = "low"\n',
    )
    return f"""
# {number}
[http]
listen = "{draw.choice(("127.0.0.1", "0.0.0.0"))}:{draw.choice(ports)}"
insecure_bind = true
hosts = {draw.choice(("[]", '["shop.example.com"]'))}
max_body = "{draw.choice(("1MiB", "64KiB"))}"
request_timeout = "{draw.choice(("10s", "30s"))}"
[window]
memory = "{draw.choice(("1MiB", "64MiB"))}"
[journal]
samples = "{draw.choice(("1d", "30d"))}"
events = "{draw.choice(("8d", "30d"))}"
[daemon]
evaluation_interval = "{draw.choice(("200ms", "15s"))}"
{"".join(text for text in extra if draw.random() < 0.5)}"""


def alerts_of(daemon):
    return {one["rule"]: one for one in daemon.ctl("alerts") if one["rule"] in ("Fires", "Waits")}


def reload(daemon, draw, valid):
    """Ask for a reload in one of the two ways and see to it that it is taken, or refused."""
    done, refused = log_count(daemon, "reload.done"), log_count(daemon, "reload.refused")
    if draw.random() < 0.5:
        asked = daemon.run_ctl("reload")
        assert asked.returncode == (0 if valid else 1), asked.stdout + asked.stderr
        return
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if (log_count(daemon, "reload.done") > done, log_count(daemon, "reload.refused") > refused) == (
            valid,
            not valid,
        ):
            return
        time.sleep(0.02)
    raise AssertionError(f"the signal was not obeyed:\n{daemon.log.read_text()[-2000:]}")


def test_thirty_reloads_lose_no_event_no_request_no_alert_and_no_timer(daemon, receiver, target, wait, free_port):
    draw = random.Random(SEED)
    ports = [free_port(), free_port()]
    daemon.edit('listen = "127.0.0.1:0"\n', "")
    write_base(daemon, receiver, target)
    daemon.add("50-settings.toml", settings(draw, ports, 0))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        broken = (*BROKEN, f'[http]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n')
        daemon.start()
        wait("the first alert is told", lambda: receiver.alerts(alertname="Fires"))
        before = wait("the second waits", lambda: found if len(found := alerts_of(daemon)) == 2 else None)
        assert before["Waits"]["state"] == "pending"
        address = Address(daemon.url)
        with at_work(address, daemon.token) as (clients, follower):
            status = daemon.ctl("status")
            for number in range(1, RELOADS + 1):
                valid = draw.random() < 0.7
                text = settings(draw, ports, number) if valid else draw.choice(broken)
                daemon.add("50-settings.toml", text)
                reload(daemon, draw, valid)
                before_it, status = status, daemon.ctl("status")
                assert (status["config_hash"] != before_it["config_hash"]) == valid, text
                assert valid or status["http"] == before_it["http"]
                address.url = status["http"]
                sent = sum(client.number for client in clients)
                wait("the clients go on", lambda sent=sent: sum(one.number for one in clients) > sent + 5)
    assert [failure for one in (*clients, follower) for failure in one.failures] == []
    after = alerts_of(daemon)
    for rule in ("Fires", "Waits"):
        assert {key: after[rule][key] for key in ("id", "state", "since", "fired_at", "blind")} == {
            key: before[rule][key] for key in ("id", "state", "since", "fired_at", "blind")
        }
    assert [alert["status"] for _, alert in receiver.alerts(alertname="Fires")] == ["firing"]
    assert not receiver.alerts(alertname="Waits")
    check_events(address.url, clients, follower)
    assert {one["name"]: one["status"] for one in daemon.ctl("checks")}["probe"] == "healthy"
    write_base(daemon, receiver, target, wait="1s")
    daemon.add("50-settings.toml", settings(draw, ports, "last"))
    daemon.ctl("reload")
    [(_, told)] = wait("its time is over already", lambda: receiver.alerts(alertname="Waits"))
    assert told["status"] == "firing"


def check_events(url, clients, follower):
    """Every event that was answered is there, once, and the follower missed none that came before it left."""
    stored = []
    while True:
        page = httpx.get(f"{url}/api/events", params={"after": stored[-1]["seq"] if stored else 0}, timeout=10).json()
        stored += page["data"]["events"]
        if not page["data"]["events"]:
            break
    sent = [one for client in clients for one in client.sent]
    assert len(sent) > 100 and sorted(one["id"] for one in stored) == sorted(sent)
    assert follower.seqs == list(range(1, len(follower.seqs) + 1)) and len(follower.seqs) > len(sent) // 2


# ---- at bad moments --------------------------------------------------------------------------------------------------

SLOW = """
import time
from pathlib import Path
from sixfbd.plugin import hookimpl

Path(__file__).with_suffix(".loading").touch()
time.sleep({seconds})
"""


def add_slow_plugin(daemon, seconds):
    """Add a plugin file that takes long to load; return the file that tells that it loads."""
    folder = daemon.directory / "plugins.d"
    folder.mkdir(exist_ok=True)
    (folder / "slow.py").write_text(SLOW.format(seconds=seconds))
    return folder / "slow.loading"


def log_count(daemon, what):
    return daemon.log.read_text().count(what)


def test_signals_during_a_reload_are_one_more_reload(daemon, wait):
    daemon.start()
    loading = add_slow_plugin(daemon, 1)
    daemon.process.send_signal(signal.SIGHUP)
    wait("the reload is on its way", loading.exists)
    daemon.add("50-more.toml", '[checks.more]\nplugin = "system"\n')
    for _ in range(5):
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.02)
    wait("both are done", lambda: log_count(daemon, "reload.done") == 2)
    assert "more" in {one["name"] for one in daemon.ctl("checks")}
    assert daemon.ctl("reload")["changed"] == [] and log_count(daemon, "reload.done") == 3


def test_a_stop_during_a_reload_ends_in_order(daemon, wait):
    daemon.start()
    loading = add_slow_plugin(daemon, 30)
    daemon.process.send_signal(signal.SIGHUP)
    wait("the reload is on its way", loading.exists)
    assert daemon.stop() < 8
    assert daemon.process.returncode == 0, daemon.log.read_text()[-2000:]
    assert log_count(daemon, "daemon.stopped") == 1 and "daemon.stop_overran" not in daemon.log.read_text()


def test_a_stop_at_any_moment_of_a_reload_ends_in_order(daemon, receiver, target, wait, free_port):
    draw = random.Random(SEED)
    ports = [free_port(), free_port()]
    daemon.edit('listen = "127.0.0.1:0"\n', "")
    write_base(daemon, receiver, target)
    for number in range(4):
        daemon.add("50-settings.toml", settings(draw, ports, 2 * number))
        daemon.start()
        daemon.add("50-settings.toml", settings(draw, ports, 2 * number + 1))
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(draw.choice((0, 0.01, 0.05, 0.1, 0.2)))
        assert daemon.stop() < 8
        assert daemon.process.returncode == 0, daemon.log.read_text()[-2000:]
    assert "Traceback" not in daemon.log.read_text()
    daemon.start()
    assert daemon.ctl("journal", "verify")["problems"] == []


def test_a_reload_during_the_start_is_obeyed_when_it_can_be(daemon, wait):
    loading = add_slow_plugin(daemon, 1)
    daemon.start(wait=False)
    wait("it starts", loading.exists)
    daemon.process.send_signal(signal.SIGHUP)
    wait("it is ready", lambda: daemon.process.poll() is None and "daemon.ready" in daemon.log.read_text())
    wait("it has reloaded", lambda: log_count(daemon, "reload.done") == 1)
    assert daemon.ctl("status")["state"] == "running"


def test_signals_all_through_the_start_change_nothing(daemon, wait):
    daemon.start(wait=False)
    wait("it has begun", lambda: (daemon.directory / "state" / "journal.db").exists())
    while "daemon.ready" not in daemon.log.read_text():
        assert daemon.process.poll() is None, daemon.log.read_text()[-2000:]
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    wait("the last is done", lambda: "reload.done" in daemon.log.read_text())
    wait("it runs", lambda: httpx.get(daemon.url + "/readyz", timeout=2).status_code == 200)
    assert "Traceback" not in daemon.log.read_text()


def test_a_reload_by_sixfbctl_during_another_waits_for_its_turn(daemon, wait):
    daemon.start()
    loading = add_slow_plugin(daemon, 1)
    daemon.process.send_signal(signal.SIGHUP)
    wait("the reload is on its way", loading.exists)
    daemon.add("50-more.toml", '[checks.more]\nplugin = "system"\n')
    daemon.ctl("reload")
    assert log_count(daemon, "reload.done") == 2
    assert "more" in {one["name"] for one in daemon.ctl("checks")}


@pytest.mark.parametrize("listen", ["127.0.0.2:0", "0.0.0.0:0"])
def test_the_daemons_own_series_and_links_follow_the_listener(daemon, receiver, wait, listen):
    daemon.edit('listen = "127.0.0.1:0"\n', "")
    daemon.tell(receiver.url)
    daemon.add("50-settings.toml", '[http]\nlisten = "127.0.0.1:0"\n')
    daemon.start()
    old = daemon.url
    rule = '[[rules]]\nname = "Fires"\nexpr = "sixfbd_series > 0"\nseverity = "high"\n'
    daemon.add("50-settings.toml", f'{rule}[http]\nlisten = "{listen}"\ninsecure_bind = true\n')
    shown = daemon.run_ctl("reload", "--preview").stdout
    assert f'http.listen from "127.0.0.1:0" to "{listen}" (the old address closes' in " ".join(shown.split())
    daemon.ctl("reload")
    new = daemon.url
    assert new != old
    wait("the alert is told", lambda: receiver.alerts(alertname="Fires"))
    assert receiver.got[-1][2]["externalURL"].startswith(new)
    wait("its series name it", lambda: f'instance="{new.removeprefix("http://")}"' in metrics(daemon), 40)
    assert f'instance="{old.removeprefix("http://")}"' not in metrics(daemon)
    with pytest.raises(httpx.ConnectError):
        httpx.get(old + "/readyz", timeout=2)


def metrics(daemon):
    return httpx.get(daemon.url + "/metrics", timeout=5).text
