"""Faults for a daemon under load: each is brought about, must be seen from outside, is ended, and must be recovered from.

A fault is a function of the stage and an account of times. It returns once the daemon has recovered, and raises
AssertionError for what was not seen or did not recover; either way it has undone what it did. Nothing in here judges what
the daemon keeps and owes: the soak does, at the end.
"""

import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any, NamedTuple

import httpx

from tests.e2e.disks import MIB, fill

LIMIT_S = 90.0  # for whatever must be seen or be over: as long as a machine with other work may take
PAUSE_S = 0.1
CLIENTS = 40
CROWD = 330  # above what the daemon serves and what it turns away with a word
STEADY = {("ProbeFailed", "firing"), ("Recent", "firing"), ("Patient", "pending")}
"""What is known of the check `down` from its first report to the end, whatever happens to clocks and to the process."""


class DaemonEndedError(Exception):
    """The daemon is gone, and nobody had ended it."""


class Times:
    """When one fault was brought about, seen, ended and recovered from."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.seen_s: float | None = None
        self.recovered_s: float | None = None
        self._ended = self.began

    def seen(self) -> None:
        self.seen_s = time.monotonic() - self.began
        self._ended = time.monotonic()

    def ended(self) -> None:
        """It lasted on after it was seen, until now."""
        self._ended = time.monotonic()

    def recovered(self) -> None:
        self.recovered_s = time.monotonic() - self._ended


class Stage:
    """A daemon under load and all that can be done to it. `notes` are the ids of the events that faults have posted."""

    def __init__(self, daemon: Any, receiver: Any, front: Any, wall: Any, fsync: Any, wait: Callable[..., Any]) -> None:
        self.daemon, self.receiver, self.front, self.wall, self.fsync = daemon, receiver, front, wall, fsync
        self.state = daemon.directory / "state"
        self.check_steer, self.notifier_steer = daemon.directory / "odd-check", daemon.directory / "odd-notifier"
        self.notes: set[str] = set()
        self.acknowledged: set[str] = set()
        self._numbers = count(1)
        self._wait = wait
        self._env = {**fsync.env, **wall.env, "LD_PRELOAD": f"{fsync.env['LD_PRELOAD']} {wall.env['LD_PRELOAD']}"}

    @property
    def url(self) -> str:
        return str(self.daemon.url)

    def start(self) -> None:
        self.daemon.start(env=self._env)

    def wait(self, what: str, probe: Callable[[], Any], limit_s: float = LIMIT_S, pause_s: float = PAUSE_S) -> Any:
        def alive() -> Any:
            if self.daemon.process.poll() is not None:
                raise DaemonEndedError(f"{what}: the daemon ended with {self.daemon.process.returncode}")
            return probe()

        return self._wait(what, alive, limit_s, pause_s)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=40)

    def is_ready(self) -> bool:
        return self.get("/readyz").status_code == 200

    def metric(self, name: str) -> float:
        """Return a series without labels, as the daemon said it last; NaN before it did."""
        lines = self.get("/metrics").raise_for_status().text.splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), math.nan)

    def firing(self, rule: str, **labels: str) -> bool:
        return any(
            one["rule"] == rule and one["state"] == "firing" and labels.items() <= one["labels"].items()
            for one in self.alerts()
        )

    def alerts(self) -> list[dict[str, Any]]:
        return list(self.get("/api/alerts").raise_for_status().json()["data"]["alerts"])

    def steady(self) -> set[tuple[str, str]]:
        rules = {rule for rule, _ in STEADY}
        down = [one for one in self.alerts() if one["labels"].get("check") == "down"]
        return {(one["rule"], one["state"]) for one in down if one["rule"] in rules}

    def clock(self, fact: str) -> float:
        """Return a fact about clocks in seconds, 0 if there is none."""
        health = self.get("/api/health").json()  # also of a daemon that is not well
        return float(health.get("metrics", {}).get("clock", {}).get(fact, 0))

    def check(self, name: str) -> dict[str, Any]:
        return next(one for one in self.daemon.ask("checks") if one["name"] == name)

    def open_messages(self, notifier: str) -> list[dict[str, Any]]:
        listed = self.daemon.ask("outbox.list", state="open", limit=1000)["messages"]
        return [one for one in listed if one["target"]["notifier"] == notifier]

    def note(self, size: int = 10) -> int:
        """Post one event; return the status."""
        name = f"note-{next(self._numbers)}"
        self.notes.add(name)
        event = {"id": name, "type": "note", "data": {"text": "x" * size}}
        headers = {"Authorization": f"Bearer {self.daemon.token}"}
        answer = httpx.post(self.url + "/api/events", json=event, headers=headers, timeout=40)
        if answer.status_code == 200:
            self.acknowledged.add(name)
        return answer.status_code

    def log(self) -> "Log":
        return Log(self.daemon.log)

    @contextmanager
    def odd(self, steer: Any, how: str) -> Iterator[None]:
        """Let the odd check or the odd notifier misbehave for as long as the block lasts."""
        new = steer.with_suffix(".new")
        new.write_text(how)
        new.replace(steer)
        try:
            yield
        finally:
            steer.unlink(missing_ok=True)

    @contextmanager
    def ballast(self) -> Iterator[Any]:
        path = self.state / "ballast"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


class Log:
    """What the daemon logs from now on."""

    def __init__(self, path: Any) -> None:
        self._path = path
        self._from = path.stat().st_size

    def said(self, *words: str) -> list[str]:
        with self._path.open("rb") as file:
            file.seek(self._from)
            lines = file.read().decode(errors="replace").splitlines()
        return [line for line in lines if all(word in line for word in words)]


# ---- disk ---------------------------------------------------------------------------------------------------------------


def disk_is_nearly_full(stage, draw, times):
    with stage.ballast() as ballast:
        fill(ballast, leave=draw.randrange(40, 60) * MIB)
        stage.wait("samples are held back", lambda: stage.metric("sixfbd_samples_unwritten") == 1)
        stage.wait("an alert says so", lambda: stage.firing("SamplesNotWritten"))
        assert stage.note() == 200, "what is left is the journal's"
        times.seen()
    stage.wait("samples are written again", lambda: stage.metric("sixfbd_samples_unwritten") == 0)
    stage.wait("the alert ends", lambda: not stage.firing("SamplesNotWritten"))


def disk_is_full(stage, draw, times):
    def refused():
        fill(ballast)
        return stage.note(60_000) == 503

    with stage.ballast() as ballast:
        stage.wait("events are refused", refused)
        volatile(stage, "no space left")
        assert not (stage.state / "reserve").exists(), "it was given to the journal first"
        times.seen()
        time.sleep(draw.uniform(0, 5))
        times.ended()
    lasting_again(stage)
    stage.wait("the reserve is back", lambda: (stage.state / "reserve").stat().st_size == 16 * MIB)


def fsync_fails(stage, draw, times):
    log = stage.log()
    with stage.fsync.all("fail"):
        stage.wait("events are refused", lambda: stage.note() == 503)
        volatile(stage, "")
        times.seen()
        time.sleep(draw.uniform(0, 1))
        times.ended()
    lasting_again(stage)
    assert log.said("journal.verified"), "it trusts the journal without having looked"


def fsync_is_slow(stage, draw, times):
    with stage.fsync.all("slow"):
        stage.wait("the metric says so", lambda: stage.metric("sixfbd_journal_commit_seconds") >= 1)
        assert stage.note() == 200
        times.seen()
        time.sleep(draw.uniform(0, 5))
        times.ended()
    stage.wait("it is quick again", lambda: stage.metric("sixfbd_journal_commit_seconds") < 1)


def volatile(stage, why):
    """What says that the journal cannot be written."""
    stage.wait("it is not ready", lambda: not stage.is_ready())
    assert why in stage.get("/readyz").text
    stage.wait("the metric says so", lambda: stage.metric("sixfbd_journal_volatile") == 1)
    stage.wait("an alert says so", lambda: stage.firing("JournalVolatile"))


def lasting_again(stage):
    stage.wait("it is ready again", stage.is_ready)
    stage.wait("events are taken again", lambda: stage.note() == 200)
    stage.wait("the alert ends", lambda: not stage.firing("JournalVolatile"))


# ---- clock --------------------------------------------------------------------------------------------------------------


def wall_clock_steps(stage, draw, times):
    hours = draw.choice((-1, 1)) * draw.randrange(2, 12)
    log = stage.log()
    try:
        stage.wall.set(hours)
        stage.wait("the step is logged", lambda: log.said("clock.stepped"))
        stage.wait("the step is shown", lambda: abs(stage.clock("offset") - hours * 3600) < 30)
        nothing_came_of_it(stage)
        times.seen()
    finally:
        stage.wall.set(0)
    stage.wait("the step back is logged", lambda: len(log.said("clock.stepped")) == 2)
    stage.wait("the wall clock is right again", lambda: abs(stage.clock("offset")) < 30)
    nothing_came_of_it(stage)


def process_stands_still(stage, draw, times, longest_s=20.0):
    seconds = draw.uniform(3, longest_s)
    log = stage.log()
    os.kill(stage.daemon.process.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(stage.daemon.process.pid, signal.SIGCONT)
    times.ended()
    stage.wait("it is logged", lambda: log.said("daemon.stood_still"))
    stage.wait("it is shown", lambda: stage.clock("stoodStill") > seconds - 1)
    times.seen_s = seconds
    nothing_came_of_it(stage)


def nothing_came_of_it(stage):
    """Checks run on, and what is known of a target that was never there is what it was."""
    runs = stage.check("down")["runs"]
    stage.wait("checks run on", lambda: stage.check("down")["runs"] > runs + 1)
    assert stage.steady() == STEADY


# ---- plugins ------------------------------------------------------------------------------------------------------------

SAYS = {
    "raises": "no such thing", "exits": "SystemExit", "hangs": "no answer within", "wrong_type": "not a Report",
    "nan_labels": "whose value is not text", "undeclared": "other: is not declared", "flood 5000": "is over the limit of",
    "event_flood": "brings more than 100 a second", "cursor": "returned a cursor of 1000002 bytes",
}  # fmt: skip


def check_misbehaves(how, says):
    def fault(stage, draw, times):
        with stage.odd(stage.check_steer, how):
            stage.wait("its summary says so", lambda: says in stage.check("odd")["summary"])
            times.seen()
        is_fine_again(stage)

    return fault


def is_fine_again(stage):
    def fine():
        check = stage.check("odd")
        return check["status"] == "healthy" and check["summary"] == "fine"

    stage.wait("the check is fine again", fine)


def eventually(probe, limit_s):
    """Return what a probe says once that is true, or after `limit_s`."""
    until = time.monotonic() + limit_s
    while not (found := probe()) and time.monotonic() < until:
        time.sleep(PAUSE_S)
    return found


def loop_is_blocked(stage, draw, times):
    """Until it is seen: the watchdog asks each 0.25 s for a sign, and on a busy machine it may come too late to blame."""
    log, whose = stage.log(), ('"plugin": "odd"', "odd.py:")

    def seen():
        with stage.odd(stage.check_steer, f"blocks {draw.uniform(1, 2)}"):
            return eventually(lambda: log.said('"loop.blocked"', *whose), 4)  # it runs each 0.5 s, and blocks once

    stage.wait("it is logged with its place", seen)
    times.seen()
    stage.wait("it is logged as over", lambda: log.said('"loop.turned_again"'))
    stage.wait("an alert names it", lambda: stage.firing("PluginBlocks", plugin="odd"))
    is_fine_again(stage)


def loop_is_blocked_for_good(stage, draw, times):
    log = stage.log()
    with stage.odd(stage.check_steer, "blocks 600"):
        assert stage.daemon.process.wait(60) == 70
    assert log.said("plugin odd (check odd) blocked the daemon for 2", "odd.py:", "sixfbctl plugins release odd")
    stage.start()
    stage.wait("an alert says that it is kept out", lambda: stage.firing("PluginKeptOut", plugin="odd"))
    assert "release odd" in stage.check("odd")["summary"]
    times.seen()
    stage.daemon.ctl("plugins", "release", "odd")
    is_fine_again(stage)
    stage.wait("the alert ends", lambda: not stage.firing("PluginKeptOut"))
    nothing_came_of_it(stage)


def notifier_misbehaves(how, says):
    def fault(stage, draw, times):
        with stage.odd(stage.notifier_steer, how):
            late = seen_in_outbox(stage, "odd", says)
            times.seen()
        done_with(stage, "odd", late)

    return fault


# ---- network ------------------------------------------------------------------------------------------------------------


def receiver_fails(ways, says):
    """`ways` enters the fault of a receiver; `says` is in the error of messages then."""

    def fault(stage, draw, times):
        with ways(stage.receiver):
            late = seen_in_outbox(stage, "hook", says)
            times.seen()
        done_with(stage, "hook", late)
        got = {headers["webhook-id"] for _, headers, _, _ in list(stage.receiver.got)}
        for one in late & {message["id"] for message in stage.daemon.ask("outbox.list", state="accepted")["messages"]}:
            assert one in got, f"{one} is accepted, and never arrived"

    return fault


def answering(status):
    @contextmanager
    def ways(receiver):
        before, receiver.answer = receiver.answer, lambda calls: status
        try:
            yield
        finally:
            receiver.answer = before

    return ways


def seen_in_outbox(stage, notifier, says):
    """Wait until messages are tried again because of this; return their ids."""

    def late():
        return {one["id"] for one in stage.open_messages(notifier) if says in one["last_error"]}

    return stage.wait(f"the outbox shows {says!r}", late)


def done_with(stage, notifier, late):
    stage.wait("what waited is told", lambda: not late & {one["id"] for one in stage.open_messages(notifier)})


def target_fails(ways):
    def fault(stage, draw, times):
        with ways(stage.front):
            stage.wait("an alert says so", lambda: stage.firing("ProbeFailed", check="front"))
            times.seen()
            time.sleep(draw.uniform(0, 2))
            times.ended()
        stage.wait("the alert ends", lambda: not stage.firing("ProbeFailed", check="front"))

    return fault


def clients_send_half_a_request(stage, draw, times):
    head = f"POST /api/events HTTP/1.1\r\nHost: {stage.url[7:]}\r\nAuthorization: Bearer {stage.daemon.token}\r\n"
    body = head + 'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n[{"id": "ha'
    with connected(stage, CLIENTS) as clients:
        for number, client in enumerate(clients):
            client.sendall((body if number % 8 == 0 else head).encode())
        let_go(stage, clients, lambda client: None)
        times.seen()
    stage.wait("it is ready", stage.is_ready)


def clients_drip(stage, draw, times):
    with connected(stage, CLIENTS) as clients:
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        let_go(stage, clients, lambda client: client.send(b"x"))
        times.seen()
    stage.wait("it is ready", stage.is_ready)


def let_go(stage, clients, nudge):
    """Wait until the daemon has ended each of these connections, and answers others meanwhile."""
    left = list(clients)

    def all_ended():
        assert stage.get("/healthz").status_code == 200
        for client in list(left):
            if has_ended(client, nudge):
                left.remove(client)
        return not left

    stage.wait("the daemon ends what does not come to an end", all_ended, pause_s=0.5)


def has_ended(client, nudge):
    try:
        nudge(client)
        while client.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def connections_flood(stage, draw, times):
    """In waves: who sends nothing is let go after seconds, and on a busy machine that may be before all are accepted."""
    log = stage.log()

    def flooded():
        with connected(stage, CROWD, at_once=True):
            return eventually(lambda: log.said("http.full"), 4.5)

    stage.wait("it is logged", flooded)
    times.seen()
    stage.wait("it is ready", stage.is_ready)
    stage.wait("checks are known", lambda: stage.check("down"))


@contextmanager
def connected(stage, many, *, at_once=False):
    host, port = stage.url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(many)]
        for one in made:
            one.settimeout(0 if at_once else 10)
            one.connect_ex((host, int(port)))
            one.setblocking(False)
        yield made


# ---- the process --------------------------------------------------------------------------------------------------------


def process_is_killed(stage, draw, times):
    known = stage.steady()
    stage.daemon.kill()
    stage.start()
    times.seen()
    assert stage.steady() >= known - {("Patient", "pending")}, "an alert is forgotten"
    blind = stage.get("/api/health").json()["blindBeforeStart"]
    assert blind is not None and blind < 60, f"it was blind for {blind} s, it says"
    nothing_came_of_it(stage)


class Fault(NamedTuple):
    """`quick`: takes seconds. `alone`: nothing else could be seen meanwhile. `ends`: ends the process."""

    kind: str
    name: str
    run: Callable[..., None]
    quick: bool = False
    alone: bool = False
    ends: bool = False


FAULTS = (
    Fault("disk", "fsync fails", fsync_fails, quick=True),
    Fault("disk", "fsync is slow", fsync_is_slow),
    Fault("disk", "less than 64 MiB free", disk_is_nearly_full),
    Fault("disk", "full", disk_is_full),
    Fault("clock", "wall clock set by hours and back", wall_clock_steps, quick=True),
    Fault("clock", "process stopped for seconds", process_stands_still, alone=True),
    Fault("plugins", "check blocks the loop for 1 to 2 s", loop_is_blocked, quick=True, alone=True),
    Fault("plugins", "check blocks the loop for good", loop_is_blocked_for_good, alone=True, ends=True),
    *(Fault("plugins", f"check {how.split()[0]}", check_misbehaves(how, says)) for how, says in SAYS.items()),
    Fault("plugins", "notifier hangs", notifier_misbehaves("hangs", "no answer within")),
    Fault("plugins", "notifier raises", notifier_misbehaves("raises", "raised RuntimeError")),
    Fault("network", "receiver refuses connections", receiver_fails(lambda one: one.down(), "cannot connect")),
    Fault("network", "receiver hangs up", receiver_fails(lambda one: one.faulty("hangs up"), "disconnected")),
    Fault("network", "receiver hangs", receiver_fails(lambda one: one.faulty("hangs"), "no answer within")),
    Fault("network", "receiver answers 502", receiver_fails(answering(502), "answered 502")),
    Fault("network", "receiver answers 429", receiver_fails(answering(429), "answered 429")),
    Fault(
        "network", "answer is lost after acceptance",
        receiver_fails(lambda one: one.faulty("loses the answer"), "disconnected"),
    ),
    Fault("network", "target is down", target_fails(lambda one: one.down()), quick=True),
    Fault("network", "target hangs", target_fails(lambda one: one.faulty("hangs")), quick=True),
    Fault("network", "target drips", target_fails(lambda one: one.faulty("drips")), quick=True),
    Fault("network", "target hangs up", target_fails(lambda one: one.faulty("hangs up")), quick=True),
    Fault("network", "clients send half a request", clients_send_half_a_request),
    Fault("network", "clients drip a header", clients_drip),
    Fault("network", "clients open more connections than are served", connections_flood, alone=True),
    Fault("process", "killed", process_is_killed, alone=True, ends=True),
)  # fmt: skip
