"""The daemon on disks that fail: full, read-only, failing fsync, slow; files that are damaged. Real mounts, real files.

Needs root for its small file systems; where mounting is not permitted it fails and says so.
"""

import json
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.e2e.disks import MIB, FsyncFaults, fill

BIN = Path(sys.executable).parent


@pytest.fixture
def routed(daemon, receiver, target):
    """A daemon that probes a target and posts its alerts to a receiver."""
    daemon.probe(target)
    daemon.tell(receiver.url, 'retry_first = "200ms"')
    daemon.add(
        "50-test.toml",
        """
[[rules]]
name = "ProbeFailed"
for = "0s"
""",
    )
    return daemon


def post(daemon, number: int, size: int = 10) -> httpx.Response:
    event = {"id": f"e{number}", "type": "note", "data": {"text": "x" * size}}
    return httpx.post(
        daemon.url + "/api/events", json=event, headers={"Authorization": f"Bearer {daemon.token}"}, timeout=40
    )


def metric(daemon, name: str) -> float | None:
    for line in httpx.get(daemon.url + "/metrics", timeout=10).text.splitlines():
        if line.startswith(name + " "):
            return float(line.split()[1])
    return None


def texts(receiver, **labels: str) -> list[str]:
    """Return the texts of the messages that carry an alert of these labels."""
    return [
        payload["text"]
        for _, _, payload, _ in list(receiver.got)
        if any(labels.items() <= alert["labels"].items() for alert in payload["alerts"])
    ]


def firing(daemon) -> dict[str, str]:
    return {alert["rule"]: alert["id"] for alert in daemon.ctl("alerts") if alert["state"] == "firing"}


# ---- a disk that is full ------------------------------------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_on_a_full_disk_measuring_judging_and_sending_go_on_and_everything_says_so(
    routed, receiver, target, wait, mounted
):
    daemon, state = routed, routed.directory / "state"
    mounted(state, "-t", "tmpfs", "-o", "size=160m", "tmpfs")
    daemon.start()
    ballast, reserve = state / "ballast", state / "reserve"
    wait("the reserve is there", lambda: reserve.exists() and reserve.stat().st_size == 16 * MIB)
    assert post(daemon, 1).status_code == 200

    fill(ballast, leave=60 * MIB)
    wait("samples are held back", lambda: metric(daemon, "sixfbd_samples_unwritten") == 1)
    wait("an alert says so", lambda: receiver.alerts(alertname="SamplesNotWritten"))
    assert any("less than 64 MiB are free" in problem for problem in daemon.ctl("status")["problems"])
    assert "less than 64 MiB" in daemon.ctl("journal", "status")["facts"]["samples.problem"]
    assert httpx.get(daemon.url + "/api/health").json()["services"]["database"]["status"] == "degraded"
    assert post(daemon, 2).status_code == 200, "what is left is the journal's"
    assert httpx.get(daemon.url + "/readyz").status_code == 200

    number = 3

    def volatile() -> bool:
        nonlocal number
        fill(ballast)
        number += 1
        return post(daemon, number, 60_000).status_code == 503

    wait("events are refused", volatile, 60)
    assert not reserve.exists(), "it was given to the journal first"
    wait("it is not ready", lambda: httpx.get(daemon.url + "/readyz").status_code == 503)
    assert "no space left" in httpx.get(daemon.url + "/readyz").text
    answer = post(daemon, 100_000)
    assert answer.status_code == 503 and "journal" in answer.text, "a small one too, though it might fit"
    wait("the metric says so", lambda: metric(daemon, "sixfbd_journal_volatile") == 1)
    assert daemon.ctl("status")["volatile"] is True
    wait("an alert says so", lambda: receiver.alerts(alertname="JournalVolatile"))
    assert "sixfbd cannot write its journal since" in texts(receiver, alertname="JournalVolatile")[0]

    target.stop()
    wait("what fails now is seen and told", lambda: receiver.alerts(alertname="ProbeFailed"))
    assert "sixfbd cannot write its journal since" in texts(receiver, alertname="ProbeFailed")[0]
    refused = daemon.run_ctl("ack", firing(daemon)["ProbeFailed"])
    assert refused.returncode == 1 and "cannot be written, nothing was done" in refused.stderr
    runs = {check["name"]: check["runs"] for check in daemon.ctl("checks")}["shop"]
    wait("the check goes on", lambda: {c["name"]: c["runs"] for c in daemon.ctl("checks")}["shop"] > runs + 1)

    ballast.unlink()
    wait("it recovers", lambda: httpx.get(daemon.url + "/readyz").status_code == 200)
    wait("the reserve is back", lambda: reserve.exists() and reserve.stat().st_size == 16 * MIB)
    assert post(daemon, 200_000).status_code == 200
    wait("the alerts end", lambda: set(firing(daemon)) == {"ProbeFailed"}, 60)
    wait("every answer is on the disk", lambda: daemon.ctl("outbox", "list", "--open")["messages"] == [])
    assert daemon.ctl("journal", "verify")["problems"] == []
    lines = [json.loads(line) for line in daemon.run_ctl("journal", "export").stdout.splitlines()]
    assert '"volatile"' in json.dumps(lines)

    before = firing(daemon)
    daemon.kill()
    daemon.start()
    assert firing(daemon) == before, "what was decided in memory is what the journal holds"
    assert daemon.ctl("status")["messages"] == {}
    told = [alert["status"] for _, alert in receiver.alerts(alertname="ProbeFailed")]
    assert told == ["firing"], "told once"
    assert "cannot write its journal" not in daemon.run_ctl("status").stdout

    daemon.kill()
    reserve.unlink()
    fill(ballast)
    daemon.start(wait=False)
    wait("it starts on a full disk", lambda: httpx.get(daemon.url + "/readyz").status_code in (200, 503), 60)
    wait("events are refused, at the latest when the room that the WAL had is used up", volatile, 60)
    wait("it says why", lambda: "no space left" in httpx.get(daemon.url + "/readyz").text)
    assert before.items() <= firing(daemon).items() and post(daemon, 300_000).status_code == 503
    ballast.unlink()
    wait("it recovers", lambda: httpx.get(daemon.url + "/readyz").status_code == 200)
    assert post(daemon, 1).json()["data"]["duplicates"] == 1
    assert daemon.ctl("journal", "verify")["problems"] == []


# ---- disks that fail, or are slow ---------------------------------------------------------------------------------------


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which the files `fail` and `slow` make every fsync of the daemon fail, or take a second."""
    made = FsyncFaults(tmp_path / "faults")
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made.folder


@pytest.mark.timeout(120)
def test_what_an_fsync_did_not_confirm_is_not_called_durable_and_the_journal_is_verified_before_it_is_trusted(
    routed, faults, receiver, target, wait
):
    daemon = routed
    daemon.start()
    assert post(daemon, 1).status_code == 200
    (faults / "fail").touch()
    refused = post(daemon, 2)
    assert refused.status_code == 503
    wait("it is not ready", lambda: httpx.get(daemon.url + "/readyz").status_code == 503)
    target.stop()
    wait("what fails now is told", lambda: receiver.alerts(alertname="ProbeFailed"))
    assert "cannot write its journal" in texts(receiver, alertname="ProbeFailed")[0]
    assert "journal.verified" not in daemon.log.read_text()
    (faults / "fail").unlink()
    wait("it recovers", lambda: httpx.get(daemon.url + "/readyz").status_code == 200)
    assert "journal.verified" in daemon.log.read_text()
    assert post(daemon, 2).json()["data"]["accepted"] == 1, "what was refused was not written in secret"
    assert post(daemon, 1).json()["data"]["duplicates"] == 1
    wait("every answer is on the disk", lambda: daemon.ctl("outbox", "list", "--open")["messages"] == [])
    assert daemon.ctl("journal", "verify")["problems"] == []
    before = firing(daemon)
    daemon.kill()
    daemon.start()
    assert firing(daemon) == before
    assert daemon.ctl("journal", "verify")["problems"] == []


@pytest.mark.timeout(120)
def test_on_a_slow_disk_all_goes_on_and_the_metric_says_so(routed, faults, receiver, target, wait):
    daemon = routed
    daemon.start()
    (faults / "slow").touch()
    assert post(daemon, 1).status_code == 200
    target.stop()
    wait("what fails is told", lambda: receiver.alerts(alertname="ProbeFailed"))
    wait("the metric says so", lambda: (metric(daemon, "sixfbd_journal_commit_seconds") or 0) >= 1)
    assert metric(daemon, "sixfbd_loop_delay_seconds") < 1, "the loop does not wait for the disk"
    assert metric(daemon, "sixfbd_journal_volatile") == 0
    checks = {check["name"]: check for check in daemon.ctl("checks")}
    wait("the check goes on", lambda: {c["name"]: c["runs"] for c in daemon.ctl("checks")}["shop"] >= 5)
    assert checks["shop"]["late_runs"] == 0 and checks["shop"]["timeouts"] == 0
    daemon.stop()
    assert "timed_out" not in daemon.log.read_text() and "overran" not in daemon.log.read_text()
    (faults / "slow").unlink()
    daemon.start()
    assert post(daemon, 1).json()["data"]["duplicates"] == 1
    assert [alert["status"] for _, alert in receiver.alerts(alertname="ProbeFailed")] == ["firing"]
    assert daemon.ctl("journal", "verify")["problems"] == []


@pytest.mark.timeout(120)
def test_on_a_file_system_that_turned_read_only_it_goes_on_and_a_start_on_one_names_the_mend(
    routed, receiver, target, wait, mounted, tmp_path
):
    daemon, image = routed, tmp_path / "disk.img"
    state = daemon.directory / "state"
    with image.open("wb") as file:
        file.truncate(160 * MIB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, timeout=30)
    mounted(state, "-o", "loop", image)
    daemon.start()
    assert post(daemon, 1).status_code == 200
    subprocess.run(["mount", "-o", "remount,abort", state], check=True, timeout=20, capture_output=True)
    wait("events are refused", lambda: post(daemon, 2).status_code == 503)
    wait("it is not ready", lambda: httpx.get(daemon.url + "/readyz").status_code == 503)
    target.stop()
    wait("what fails now is told", lambda: receiver.alerts(alertname="ProbeFailed"))
    wait("an alert says so", lambda: receiver.alerts(alertname="JournalVolatile"))
    daemon.stop()
    daemon.start(wait=False)
    assert daemon.process.wait(20) == 1
    assert "read-only file system; mount it writable" in daemon.log.read_text()
    subprocess.run(["umount", state], check=True, timeout=20)
    subprocess.run(["mount", "-o", "loop", image, state], check=True, timeout=20)
    daemon.start()
    assert post(daemon, 1).json()["data"]["duplicates"] == 1
    assert daemon.ctl("journal", "verify")["problems"] == []


# ---- files that are damaged ---------------------------------------------------------------------------------------------


def zero_leaves(path: Path, table: str, count: int) -> None:
    """Write zeros over pages in the middle of a table, while nobody has the file open."""
    with closing(sqlite3.connect(path)) as connection:
        pages = connection.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno", (table,)
        ).fetchall()
    assert len(pages) > count + 2, f"{table} has only {len(pages)} pages"
    body = bytearray(path.read_bytes())
    for [page] in pages[1 : 1 + count]:
        body[(page - 1) * 4096 : page * 4096] = bytes(4096)
    path.write_bytes(body)


@pytest.mark.timeout(120)
def test_damaged_files_are_set_aside_and_the_daemon_starts_and_says_what_was_lost(routed, receiver, target, wait):
    daemon, state = routed, routed.directory / "state"
    daemon.start()
    made = daemon.ctl("token", "create", "shop", "--scope", "events")
    for number in range(40):
        assert post(daemon, number, 3000).status_code == 200
    target.stop()
    wait("the alert arrives", lambda: receiver.alerts(alertname="ProbeFailed"))
    wait("every answer is on the disk", lambda: daemon.ctl("outbox", "list", "--open")["messages"] == [])
    before = firing(daemon)
    daemon.stop()
    zero_leaves(state / "journal.db", "events", 3)
    (state / "samples.db").write_bytes(b"\xff" * 50_000)
    daemon.start()
    assert before.items() <= firing(daemon).items(), "it is known, and not told again"
    said = daemon.run_ctl("status").stdout
    assert "problem: journal.db was damaged and set aside as journal.db.corrupt-" in said
    assert "events lost" in said and "problem: samples.db was damaged" in said
    wait("an alert says so", lambda: len(receiver.alerts(alertname="StateDamaged")) == 2)
    assert httpx.get(daemon.url + "/api/health").json()["services"]["database"]["status"] == "degraded"
    assert httpx.get(daemon.url + "/readyz").status_code == 200
    token = {"Authorization": f"Bearer {made['token']}"}
    event = {"id": "new", "type": "note", "data": {}}
    assert httpx.post(daemon.url + "/api/events", json=event, headers=token).json()["data"]["accepted"] == 1
    assert daemon.ctl("journal", "verify")["problems"] == []
    wait("it is written down", lambda: '"damaged"' in daemon.run_ctl("journal", "export").stdout)
    assert [alert["status"] for _, alert in receiver.alerts(alertname="ProbeFailed")] == ["firing"]
    for aside in state.glob("*.corrupt-*"):
        aside.unlink()
    daemon.stop()
    daemon.start()
    wait("the alert ends when the copies are gone", lambda: "StateDamaged" not in firing(daemon))
    assert daemon.ctl("status")["problems"] == []


@pytest.mark.timeout(120)
def test_a_journal_that_lost_its_wal_is_missed(routed, wait):
    daemon, state = routed, routed.directory / "state"
    daemon.start()
    for number in range(5):
        assert post(daemon, number).status_code == 200
    with closing(sqlite3.connect(state / "samples.db")) as samples:
        known = "SELECT value FROM meta WHERE key = 'journal_events'"
        wait("samples.db knows", lambda: samples.execute(known).fetchone() == (5,))
    daemon.kill()
    (state / "journal.db-wal").unlink()
    daemon.start()
    [problem] = daemon.ctl("status")["problems"]
    assert "the last 5 events are lost" in problem and "samples.db has seen more" in problem
    wait("it is an alert", lambda: "StateDamaged" in firing(daemon))


# ---- gaps ---------------------------------------------------------------------------------------------------------------


def long_ago(journal: Path, seconds: int) -> None:
    """Let everything in a journal of which nobody is in charge have happened so much earlier."""
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("UPDATE meta SET value = value - ? WHERE key = 'last_alive_at'", (seconds,))
        connection.execute(
            "UPDATE records SET at = at - ?1, body = json_set(body, '$.at', json_extract(body, '$.at') - ?1)",
            (seconds,),
        )
        connection.commit()


@pytest.mark.timeout(120)
def test_for_how_long_nobody_watched_is_said_everywhere(routed, receiver, target, wait):
    daemon = routed
    daemon.start()
    assert httpx.get(daemon.url + "/api/health").json()["blindBeforeStart"] is None
    daemon.kill()
    long_ago(daemon.directory / "state" / "journal.db", 60)
    target.stop()
    daemon.start()
    assert 60 < httpx.get(daemon.url + "/api/health").json()["blindBeforeStart"] < 90
    assert 60 < daemon.ctl("status")["blind_before_start_s"] < 90
    assert "before this start" in daemon.run_ctl("status").stdout
    wait("the alert arrives", lambda: receiver.alerts(alertname="ProbeFailed"))
    assert "sixfbd was not running for 1m" in texts(receiver, alertname="ProbeFailed")[0]
    lines = [json.loads(line) for line in daemon.run_ctl("journal", "export").stdout.splitlines()]
    begun = [line["record"] for line in lines if line.get("record", {}).get("r") == "started"]
    assert begun[1]["at"] - begun[1]["last_alive_at"] > 60


# ---- care while it works ------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_a_backup_under_load_is_whole_and_verified(routed, tmp_path):
    daemon = routed
    daemon.start()
    acknowledged: list[int] = []
    go_on = threading.Event()
    go_on.set()

    def load(lane: int) -> None:
        number = lane * 100_000
        while go_on.is_set():
            number += 1
            if post(daemon, number, 500).status_code == 200:
                acknowledged.append(number)

    lanes = [threading.Thread(target=load, args=(lane,)) for lane in range(1, 4)]
    for lane in lanes:
        lane.start()
    try:
        for turn in range(2):
            known = set(acknowledged)
            copy = tmp_path / f"copy{turn}.db"
            assert daemon.run_ctl("journal", "backup", str(copy)).returncode == 0
            assert daemon.ctl("journal", "verify")["problems"] == []
            checked = subprocess.run(
                [BIN / "sixfbd", "journal", "verify", copy], capture_output=True, text=True, timeout=60, check=False
            )
            assert checked.returncode == 0, checked.stdout + checked.stderr
            with closing(sqlite3.connect(copy)) as connection:
                held = {int(name[1:]) for [name] in connection.execute("SELECT id FROM events")}
            assert known <= held
    finally:
        go_on.clear()
        for lane in lanes:
            lane.join(60)
    assert len(acknowledged) > 50
