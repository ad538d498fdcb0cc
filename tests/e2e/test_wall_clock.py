"""A real daemon whose wall clock is set by hours, forwards and back, and that is started anew afterwards."""

import json
import os
import signal
import sqlite3
import time
from typing import Any

import httpx
import pytest

HOURS = 3600.0


def configure(daemon: Any, target: Any, receiver: Any) -> None:
    daemon.probe(target)
    daemon.tell(receiver.url)
    daemon.add(
        "50-test.toml",
        """
[[rules]]
name = "ProbeFailed"
for = "0s"
[[rules]]
name = "Patient"
expr = "probe_success == 0"
for = "1h"
severity = "high"
""",
    )


def records(daemon: Any) -> list[dict[str, Any]]:
    with sqlite3.connect(daemon.directory / "state" / "journal.db") as journal:
        return [json.loads(body) for (body,) in journal.execute("SELECT body FROM records ORDER BY seq")]


def stepped(daemon: Any) -> list[float]:
    return [round(one["by_s"] / HOURS, 1) for one in records(daemon) if one["r"] == "clock_stepped"]


def states(daemon: Any) -> dict[str, str]:
    return {one["rule"]: one["state"] for one in daemon.ctl("alerts") if one["rule"] in ("ProbeFailed", "Patient")}


def test_a_wall_clock_that_is_set_by_hours_fires_and_resolves_nothing(daemon, target, receiver, wait, wall):
    configure(daemon, target, receiver)
    target.stop()
    daemon.start(env=wall.env)
    wait("the alert arrives", lambda: receiver.alerts(alertname="ProbeFailed"))
    wait("both are known", lambda: states(daemon) == {"ProbeFailed": "firing", "Patient": "pending"})
    before = daemon.ctl("status")["now"]
    began = time.monotonic()
    for hours, steps in ((5, [5.0]), (-7, [5.0, -12.0])):
        wall.set(hours)
        wait("the step is journaled", lambda steps=steps: stepped(daemon) == steps)
        runs = runs_of(daemon)
        wait("checks run on", lambda runs=runs: runs_of(daemon) > runs + 2)
        assert states(daemon) == {"ProbeFailed": "firing", "Patient": "pending"}
        status = daemon.ctl("status")
        assert status["clock_offset_s"] == pytest.approx(hours * HOURS, abs=5) and status["stood_still"] is None
        assert status["now"] - before == pytest.approx(time.monotonic() - began, abs=5)
        offset = httpx.get(daemon.url + "/api/health").json()["metrics"]["clock"]["offset"]
        assert offset == pytest.approx(hours * HOURS, abs=5)
    assert "7h behind" in daemon.run_ctl("status").stdout.replace(" 0m", "")
    assert "clock.stepped" in daemon.log.read_text() and "stood_still" not in daemon.log.read_text()
    assert [one["status"] for _, one in receiver.alerts(alertname="ProbeFailed")] == ["firing"], "told once"
    target.start()
    wait(
        "it resolves",
        lambda: [one for _, one in receiver.alerts(alertname="ProbeFailed") if one["status"] == "resolved"],
    )


def runs_of(daemon: Any) -> int:
    return int(next(one["runs"] for one in daemon.ctl("checks") if one["name"] == "shop"))


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_start_after_the_wall_clock_was_set_keeps_the_order_of_times(daemon, target, receiver, wait, wall, hours):
    configure(daemon, target, receiver)
    target.stop()
    daemon.start(env=wall.env)
    wait("the alert arrives", lambda: receiver.alerts(alertname="ProbeFailed"))
    daemon.kill()
    wall.set(hours)
    daemon.start(env=wall.env)
    status = daemon.ctl("status")
    wait("checks run", lambda: runs_of(daemon) > 2)
    target.start()
    wait(
        "it resolves",
        lambda: [one for _, one in receiver.alerts(alertname="ProbeFailed") if one["status"] == "resolved"],
    )
    if hours > 0:
        assert status["now"] == pytest.approx(time.time() + 5 * HOURS, abs=30), "a restart adopts it"
        assert abs(status["clock_offset_s"]) < 1 and stepped(daemon) == []
    else:
        assert status["now"] >= time.time() - 30, "it does not run behind what is written down"
        wait("it is journaled", lambda: stepped(daemon) == [-5.0])
        assert "clock.behind" in daemon.log.read_text()
    times = [one["at"] for one in records(daemon)]
    started = max(place for place, one in enumerate(records(daemon)) if one["r"] == "started")
    assert min(times[started:]) >= max(times[:started]), "nothing new is older than what was there"
    found = daemon.ctl("query", "probe_success")["series"]
    assert found and abs(found[0]["points"][-1][0] - status["now"]) < 60
    assert daemon.ctl("journal", "verify")["problems"] == []


def test_a_process_that_is_stopped_for_a_minute_fires_and_resolves_nothing(daemon, target, receiver, wait):
    """An alert fires, another is pending, a third would fire by time alone; SIGSTOP, SIGCONT."""
    configure(daemon, target, receiver)
    daemon.add(
        "55-time.toml",
        '[[rules]]\nname = "Silent"\nexpr = "time() - max(timestamp(probe_success)) > 20"\nseverity = "high"\n'
        '[[rules]]\nname = "Recent"\nexpr = "count_over_time(probe_success[10s]) > 0"\nseverity = "high"\n',
    )
    daemon.edit("[daemon]", '[daemon]\nevaluation_interval = "1s"')
    target.stop()
    daemon.start()
    wait("alerts fire", lambda: receiver.alerts(alertname="ProbeFailed") and receiver.alerts(alertname="Recent"))
    os.kill(daemon.process.pid, signal.SIGSTOP)
    time.sleep(60)
    os.kill(daemon.process.pid, signal.SIGCONT)
    since, until = wait("it says so", lambda: daemon.ctl("status")["stood_still"])
    assert 59 < until - since < 70
    runs = runs_of(daemon)
    wait("checks run on", lambda: runs_of(daemon) > runs + 5)
    told = [(one["labels"]["alertname"], one["status"]) for _, one in receiver.alerts()]
    ours = sorted(one for one in told if one[0] in ("ProbeFailed", "Patient", "Silent", "Recent", "CheckStale"))
    assert ours == [("ProbeFailed", "firing"), ("Recent", "firing")], "told once each, and nothing else"
    assert states(daemon) == {"ProbeFailed": "firing", "Patient": "pending"}
    [gap] = [one for one in records(daemon) if one["r"] == "stood_still"]
    assert (gap["since"], gap["at"]) == (pytest.approx(since), pytest.approx(until))
    state = next(one for one in daemon.ctl("checks") if one["name"] == "shop")
    assert 55 <= state["late_runs"] <= 75 and state["runs"] < 60, "counted, not run after"
    assert httpx.get(daemon.url + "/api/health").json()["metrics"]["clock"]["stoodStill"] > 59
    assert "clock.stepped" not in daemon.log.read_text()
