"""Plugins that block the loop of a real daemon: named while they do, ended for, kept out, released; and a machine that pauses."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

HEAD = """import ctypes, time
import msgspec
from sixfbd.plugin import Check, Report, Status, hookimpl


def block(seconds):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass


class Slow(Check["Slow.Options"]):
    '''Blocks as it is told.'''

    class Options(msgspec.Struct, frozen=True):
        how: str = ""

    def __init__(self, options, ctx):
        super().__init__(options, ctx)
        self.runs = 0
        if options.how == "init":
            time.sleep(1000)

    async def run(self, cursor):
        self.runs += 1
        how = self.options.how
        if how == "sleep" and self.runs == 2:
            time.sleep(1.5)  # THE SLEEP
        if how == "loop" and self.runs == 2:
            block(1.5)
        if how == "held" and self.runs == 2:
            ctypes.PyDLL(None).usleep(1_500_000)
        if how == "for ever":
            while True:
                pass  # THE LOOP
        return Report(Status.HEALTHY, f"run {self.runs}")

    async def close(self):
        if self.options.how == "close":
            time.sleep(1000)


@hookimpl
def sixfbd_checks(config):
    return {"slow": Slow}
"""


def write(daemon: Any, how: str, text: str = HEAD) -> Path:
    folder = daemon.directory / "plugins.d"
    folder.mkdir(exist_ok=True)
    (folder / "blocker.py").write_text(text)
    daemon.add("60-slow.toml", f'[checks.web]\nplugin = "slow"\ninterval = "1s"\njitter = "0s"\nhow = "{how}"\n')
    return folder / "blocker.py"


def line_of(mark: str) -> int:
    return next(number for number, line in enumerate(HEAD.splitlines(), 1) if mark in line)


def left_out(daemon: Any) -> list[dict[str, Any]]:
    return [one for one in daemon.ctl("plugins") if one["error"]]


@pytest.mark.parametrize("how", ["sleep", "loop"])
def test_a_block_is_named_with_plugin_check_file_and_line(daemon, wait, how):
    path = write(daemon, how)
    daemon.start()
    wait("the block is over", lambda: '"loop.turned_again"' in daemon.log.read_text())
    said = [line for line in daemon.log.read_text().splitlines() if '"event": "loop.blocked"' in line]
    assert len(said) == 1 and "blocker" in said[0] and "check web" in said[0] and f"{path}:" in said[0], said
    if how == "sleep":
        assert f"{path}:{line_of('THE SLEEP')}" in said[0]
    alert = wait("it alerts", lambda: [one for one in daemon.ctl("alerts") if one["rule"] == "PluginBlocks"])[0]
    assert alert["labels"]["plugin"] == "blocker" and alert["labels"]["doing"] == "check web"
    assert alert["labels"]["place"].startswith(str(path))
    assert left_out(daemon) == []


def test_a_block_that_lets_nobody_else_run_is_told_afterwards_and_blamed_on_nobody(daemon, wait):
    write(daemon, "held")
    daemon.start()
    wait("the block is over", lambda: '"loop.turned_again"' in daemon.log.read_text())
    [said] = [line for line in daemon.log.read_text().splitlines() if '"event": "loop.blocked"' in line]
    assert "unknown: nothing else could run meanwhile" in said and "blocker" not in said.partition("afterwards_at")[0]
    wait("it alerts", lambda: [one for one in daemon.ctl("alerts") if one["rule"] == "LoopBlocked"])
    assert "process.paused" not in daemon.log.read_text()


def test_a_plugin_that_blocks_for_ever_ends_the_daemon_and_is_kept_out_until_it_is_released(daemon, wait):
    path = write(daemon, "for ever")
    daemon.start(wait=False)
    assert daemon.process.wait(40) == 70
    *_, last = daemon.log.read_text().splitlines()
    assert "plugin blocker (check web) blocked the daemon for 20 s" in last and f"{path}:" in last
    assert "sixfbctl plugins release blocker" in last

    daemon.start()
    [kept] = left_out(daemon)
    assert kept["name"] == "blocker" and f"{path}:{line_of('THE LOOP') - 1}"[:-2] in kept["error"]
    assert any("plugin blocker is left out: kept out" in one for one in daemon.ctl("status")["problems"])
    listed = daemon.sixfbd("plugins")
    assert "kept out: it blocked the daemon for 20 s" in listed.stdout
    [web] = [one for one in daemon.ctl("checks") if one["name"] == "web"]
    assert web["status"] == "unknown" and "release blocker" in web["summary"]
    wait("it alerts", lambda: [one for one in daemon.ctl("alerts") if one["rule"] == "PluginKeptOut"])

    refused = daemon.run_ctl("plugins", "release", "other")
    assert refused.returncode == 1 and "blocker" in refused.stderr
    write(daemon, "")
    assert daemon.ctl("plugins", "release", "blocker")["needs_restart"] == ""
    wait("it runs", lambda: [o for o in daemon.ctl("checks") if o["name"] == "web" and o["status"] == "healthy"])
    assert left_out(daemon) == []


def test_a_start_that_a_plugin_holds_up_in_its_constructor_ends_and_the_next_one_leaves_it_out(daemon):
    path = write(daemon, "init")
    daemon.start(wait=False)
    assert daemon.process.wait(40) == 70
    last = daemon.log.read_text().splitlines()[-1]
    assert f"plugin blocker (check web) blocked the daemon for 20 s at {path}:" in last
    daemon.start()
    assert [one["name"] for one in left_out(daemon)] == ["blocker"]
    assert "web" in [one["name"] for one in daemon.ctl("checks")]


def test_a_plugin_that_never_finishes_its_import_does_not_hold_up_the_start(daemon):
    write(daemon, "", HEAD + "while True:\n    pass\n")
    (daemon.directory / "conf.d" / "60-slow.toml").unlink()
    assert 19 < daemon.start() < 60
    [out] = left_out(daemon)
    assert (
        out["name"] == "blocker" and "import is not done after 20 s" in out["error"] and "blocker.py:" in out["error"]
    )


def test_a_release_says_when_a_restart_is_needed(daemon):
    write(daemon, "")
    folder = daemon.directory / "state" / "kept-out"
    folder.mkdir(parents=True)
    (folder / "blocker.json").write_text('{"plugin": "blocker", "at": 0, "blocked_s": 20}')
    daemon.start()
    daemon.edit("control.sock", "other.sock")
    released = daemon.run_ctl("plugins", "release", "blocker")
    assert released.returncode == 1 and "restart the daemon to take it in" in released.stdout
    assert not (folder / "blocker.json").exists()


def test_a_stop_that_a_plugin_holds_up_in_close_names_it(daemon):
    path = write(daemon, "close")
    daemon.start()
    daemon.stop()
    assert daemon.process.returncode == 1
    [said] = [line for line in daemon.log.read_text().splitlines() if "daemon.stop_overran" in line]
    assert "blocker" in said and f"{path}:" in said and "close of web" in said


def test_systemd_is_told_nothing_while_the_loop_is_blocked(daemon, tmp_path, wait, monkeypatch):
    write(daemon, "for ever")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "600000")
        daemon.start(wait=False)
        wait("it is blocked", lambda: "loop.blocked" in daemon.log.read_text())
        manager.setblocking(False)
        drain(manager)
        time.sleep(1)
        assert drain(manager) == []
    daemon.kill()


def drain(manager: socket.socket) -> list[bytes]:
    got = []
    try:
        while True:
            got.append(manager.recv(4096))
    except BlockingIOError:
        return got


def test_a_process_that_was_stopped_is_not_taken_for_a_blocked_one(daemon, wait):
    write(daemon, "")
    daemon.start()
    wait("it runs", lambda: [o for o in daemon.ctl("checks") if o["name"] == "web" and o["status"] == "healthy"])
    os.kill(daemon.process.pid, signal.SIGSTOP)
    time.sleep(23)
    os.kill(daemon.process.pid, signal.SIGCONT)
    since, until = wait("it says so", lambda: daemon.ctl("status")["stood_still"])
    assert 22 < until - since < 30
    text = daemon.log.read_text()
    assert "process.paused" in text and "loop.blocked" not in text
    assert "stood still" in daemon.run_ctl("status").stdout
    assert left_out(daemon) == []
    assert subprocess.run(["kill", "-0", str(daemon.process.pid)], check=False).returncode == 0
