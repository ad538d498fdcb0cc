"""The daemon's life as an admin meets it: starts that are refused, reloads, restarts, broken plugins, an end in order."""

import json
import select
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

BIN = Path(sys.executable).parent


def run(daemon, *, limit_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the daemon in the foreground until it ends by itself."""
    return subprocess.run(
        [BIN / "sixfbd", "run", "--config", daemon.config], capture_output=True, text=True, timeout=limit_s, check=False
    )


def post(daemon, event: object, token: str | None = None) -> httpx.Response:
    return httpx.post(
        daemon.url + "/api/events", json=event, headers={"Authorization": f"Bearer {token or daemon.token}"}, timeout=10
    )


# ---- starts that are refused ---------------------------------------------------------------------------------------------


def test_a_second_instance_on_the_same_state_is_refused(daemon):
    daemon.start()
    second = run(daemon)
    assert second.returncode == 1
    assert str(daemon.process.pid) in second.stderr and "Traceback" not in second.stderr
    assert daemon.ctl("status")["state"] == "running"


def test_a_port_in_use_is_named_with_the_mend(daemon):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        daemon.edit('listen = "127.0.0.1:0"', f'listen = "127.0.0.1:{port}"')
        refused = run(daemon)
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("sixfbd: ") and f"127.0.0.1:{port}" in last and "another address or port" in last
    assert "Traceback" not in refused.stderr and "daemon.stopped" not in refused.stderr


def test_a_control_socket_that_cannot_be_made_is_the_last_line(daemon):
    daemon.add("50-control.toml", '[control]\nsocket = "/nonexistent/control.sock"\n')
    (daemon.directory / "sixfbd.toml").write_text(
        "".join(line for line in daemon.config.read_text().splitlines(True) if not line.startswith("socket ="))
    )
    refused = run(daemon)
    assert refused.returncode == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith("sixfbd: /nonexistent/control.sock: the directory /nonexistent does not exist; make it"), (
        last
    )
    assert "daemon.stopped" not in refused.stderr and "Traceback" not in refused.stderr


def test_a_state_directory_that_cannot_be_one_is_named(daemon):
    (daemon.directory / "state").rmdir() if (daemon.directory / "state").is_dir() else None
    (daemon.directory / "state").write_text("a file")
    refused = run(daemon)
    assert refused.returncode == 1
    assert str(daemon.directory / "state") in refused.stderr and "Traceback" not in refused.stderr


def test_a_bad_configuration_names_every_error_and_ends_with_78(daemon):
    daemon.add("50-bad.toml", '[checks.system]\ninterval = "5x"\nintervall = "5m"\n\n[checks.web]\nplugin = "webhok"\n')
    refused = run(daemon)
    assert refused.returncode == 78
    for part in ('checks.system.interval: "5x" is not a duration', "did you mean", "webhok", "50-bad.toml"):
        assert part in refused.stderr, refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_bad_rule_is_shown_with_line_column_and_caret(daemon):
    daemon.add("50-bad.toml", '[[rules]]\nname = "Bad"\nexpr = "sum(up) by (job) +"\nseverity = "high"\n')
    checked = subprocess.run(
        [BIN / "sixfbd", "check-config", daemon.config], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 1
    output = checked.stdout + checked.stderr
    assert '".expr: line 1, column 19: ' in output and "\n                  ^" in output


def test_without_a_daemon_sixfbctl_says_so_and_how_to_start_it(daemon):
    answer = daemon.run_ctl("status")
    assert answer.returncode == 3
    assert len(answer.stderr.strip().splitlines()) == 1 and "not running" in answer.stderr


# ---- reload --------------------------------------------------------------------------------------------------------------


def test_an_invalid_reload_changes_nothing(daemon):
    daemon.start()
    before = daemon.ctl("status")["config_hash"]
    daemon.add("50-bad.toml", "[checks.system]\ninterval = 5\n")
    refused = daemon.run_ctl("reload")
    assert refused.returncode == 1 and "checks.system.interval" in refused.stderr
    assert daemon.ctl("status")["config_hash"] == before
    daemon.process.send_signal(1)
    time.sleep(0.2)
    assert daemon.ctl("status")["config_hash"] == before


def test_a_reload_adds_restarts_and_drops_and_a_removed_rule_resolves(daemon, receiver, wait):
    daemon.tell(receiver.url)
    daemon.add(
        "50-test.toml",
        """
[[rules]]
name = "AlwaysHigh"
expr = "sixfbd_series > 0"
severity = "high"
annotations = { summary = "there are series" }
""",
    )
    daemon.start()
    wait("the alert arrives", lambda: receiver.alerts(alertname="AlwaysHigh"))
    daemon.add("50-test.toml", "")
    daemon.add(
        "60-more.toml",
        f'[checks.more]\nplugin = "webhook"\nurl = "{daemon.url}/healthz"\ninterval = "1s"\ntimeout = "1s"\n',
    )
    changed = daemon.ctl("reload")["changed"]
    assert "rule AlwaysHigh removed" in changed and "check more added" in changed
    alerts = wait(
        "resolved arrives", lambda: [a for _, a in receiver.alerts(alertname="AlwaysHigh") if a["status"] == "resolved"]
    )
    assert len(alerts) == 1
    wait("the new check runs", lambda: {c["name"]: c["status"] for c in daemon.ctl("checks")}.get("more") == "healthy")
    (daemon.directory / "conf.d" / "60-more.toml").unlink()
    assert "check more removed" in daemon.ctl("reload")["changed"]
    assert "more" not in {check["name"] for check in daemon.ctl("checks")}


def test_what_needs_a_restart_is_refused_by_name(daemon):
    daemon.start()
    daemon.add("50-test.toml", '[daemon]\nstate_directory = "elsewhere"\n')
    refused = daemon.run_ctl("reload")
    assert refused.returncode == 1 and "daemon.state_directory" in refused.stderr and "restart" in refused.stderr


# ---- plugins that are broken ---------------------------------------------------------------------------------------------

HEAD = "import msgspec\nfrom sixfbd.plugin import *\nfrom sixfbd.plugin import hookimpl\n"
BROKEN = {
    "does_not_import": "import a_module_that_is_not_there\n",
    "exits": "raise SystemExit(3)\n",
    "syntax": "def (:\n",
    "misspelt": HEAD + "@hookimpl\ndef sixfbd_cheks(config):\n    return {}\n",
    "signature": HEAD + "@hookimpl\ndef sixfbd_checks(config, more):\n    return {}\n",
    "raises": HEAD + "@hookimpl\ndef sixfbd_checks(config):\n    raise ValueError('boom')\n",
    "wrong_type": HEAD + "@hookimpl\ndef sixfbd_checks(config):\n    return ['x']\n",
    "no_cursor": HEAD
    + "class C(Check):\n    async def run(self): ...\n@hookimpl\ndef sixfbd_checks(config):\n    return {'c': C}\n",
    "plain_deliver": HEAD
    + "class N(Notifier):\n    def deliver(self, n): ...\n@hookimpl\ndef sixfbd_notifiers(config):\n    return {'n': N}\n",
    "name_twice": HEAD
    + "class C(Check):\n    '''Twice.'''\n    async def run(self, cursor):\n        return Report(Status.HEALTHY, 'x')\n"
    + "@hookimpl\ndef sixfbd_checks(config):\n    return {'system': C}\n",
}
ODD = Path(__file__).with_name("odd_plugin.py").read_text()


def test_broken_plugins_are_named_and_left_out_and_the_daemon_starts(daemon):
    for name, text in BROKEN.items():
        daemon.plugin(name, text)
    daemon.start()
    errors = {plugin["name"]: plugin["error"] for plugin in daemon.ctl("plugins") if plugin["error"]}
    assert errors.keys() == BROKEN.keys()
    for name, part in {
        "does_not_import": "a_module_that_is_not_there",
        "misspelt": "sixfbd_checks",
        "signature": "more",
        "raises": "boom",
        "wrong_type": "list",
        "no_cursor": "C.run() has the arguments (self); write `async def run(self, cursor)`",
        "plain_deliver": "N.deliver() is not async",
        "name_twice": "system",
    }.items():
        assert part in errors[name], errors[name]
    assert {"system", "webhook", "scrape"} <= {
        plugin["name"] for plugin in daemon.ctl("plugins") if not plugin["error"]
    }
    listed = subprocess.run(
        [BIN / "sixfbd", "plugins", "--config", daemon.config], capture_output=True, text=True, timeout=60, check=False
    )
    assert "misspelt" in listed.stdout + listed.stderr


def test_a_check_that_misbehaves_is_contained_and_named(daemon, wait):
    daemon.plugin("odd", ODD)
    kinds = ("raises", "hangs", "wrong_type", "nan_labels", "wordy", "flood", "undeclared", "fine")
    daemon.add(
        "50-odd.toml",
        "".join(f'[checks.{how}]\nplugin = "odd"\nhow = "{how}"\ninterval = "2s"\ntimeout = "500ms"\n' for how in kinds)
        + '[checks.unmakable]\nplugin = "unmakable"\nhow = "x"\n',
    )
    daemon.start()

    def all_ran() -> dict[str, dict]:
        found = {check["name"]: check for check in daemon.ctl("checks")}
        return found if all(found[how]["runs"] >= 2 for how in kinds) else {}

    checks = wait("every check has run twice", all_ran, 60)
    assert "RuntimeError: no such thing" in checks["raises"]["summary"]
    assert checks["hangs"]["summary"] == "no answer within 0.5 s"
    assert "returned an int, not a Report" in checks["wrong_type"]["summary"]
    assert checks["nan_labels"]["refused_series"] > 0 and checks["undeclared"]["refused_series"] > 0
    assert len(checks["wordy"]["summary"]) <= 500
    assert "OSError: no such device" in checks["unmakable"]["summary"]
    assert checks["fine"]["status"] == "healthy" and checks["fine"]["crashes"] == 0
    asked = daemon.run_ctl("check", "run", "undeclared")
    assert asked.returncode == 5, asked.stderr
    assert asked.stdout.splitlines()[-1] == "refused: other: is not declared in the plugin's metrics", asked.stdout
    flood = daemon.ctl("query", 'count(odd_value{check="flood"})')["series"][0]["points"][0][1]
    assert flood == 20_000
    log = daemon.log.read_text()
    assert "is over the limit of 20000 series" in log


def test_a_stop_ends_within_ten_seconds_whatever_hangs(daemon, wait):
    daemon.plugin("odd", ODD)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        daemon.tell(f"http://127.0.0.1:{deaf.getsockname()[1]}/")
        daemon.add(
            "50-test.toml",
            """
[checks.shields]
plugin = "odd"
how = "shields"
interval = "1s"
timeout = "500ms"
[[rules]]
name = "Always"
expr = "sixfbd_series > 0"
severity = "high"
""",
        )
        daemon.start()
        wait("a message is on its way", lambda: daemon.ctl("status")["messages"].get("sending"))
        wait("the check hangs", lambda: {c["name"]: c["late_runs"] for c in daemon.ctl("checks")}["shields"] > 1)
        with httpx.stream("GET", daemon.url + "/api/events/stream", timeout=20):
            began = time.monotonic()
            daemon.process.terminate()
            daemon.process.wait(15)
    assert time.monotonic() - began < 10
    assert "daemon.stop_overran" in daemon.log.read_text()
    daemon.start()
    assert daemon.ctl("journal", "verify")["problems"] == []


# ---- what a person does --------------------------------------------------------------------------------------------------


def test_a_check_is_tried_run_paused_and_resumed(daemon, wait):
    tried = subprocess.run(
        [BIN / "sixfbd", "check", "try", "system", "--config", daemon.config, "--json"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert tried.returncode == 0, tried.stderr
    assert json.loads(tried.stdout)["status"] == "healthy"
    daemon.start()
    assert daemon.ctl("check", "run", "system")["status"] == "healthy"
    assert daemon.run_ctl("check", "pause", "system").returncode == 0
    assert daemon.ctl("status")["paused"] == ["system"]
    daemon.stop()
    daemon.start()
    assert daemon.ctl("status")["paused"] == ["system"], "a pause holds over a restart"
    assert daemon.run_ctl("check", "resume", "system").returncode == 0
    wait("it runs again", lambda: daemon.ctl("checks")[0]["runs"] > 0)
    assert daemon.run_ctl("check", "run", "nosuch").returncode == 1


def test_tokens_are_made_used_and_revoked(daemon):
    daemon.start()
    made = daemon.ctl("token", "create", "shop", "--scope", "events")
    event = {"id": "1", "type": "note", "data": {}}
    assert post(daemon, event, made["token"]).status_code == 200
    assert post(daemon, event, "sixfbd_wrong").status_code in (401, 403)
    assert made["token"] not in json.dumps(daemon.ctl("token", "list"))
    assert daemon.run_ctl("token", "revoke", "shop").returncode == 0
    assert post(daemon, event, made["token"]).status_code in (401, 403)
    with sqlite3.connect(daemon.directory / "state" / "journal.db") as journal:
        assert not any(made["token"] in body for [body] in journal.execute("SELECT body FROM records"))


def test_a_restart_restores_series_events_and_alerts(daemon, receiver, wait):
    daemon.tell(receiver.url)
    daemon.add(
        "50-test.toml",
        """
[[rules]]
name = "Sold"
expr = "workshop_tickets_sold_total > 1"
severity = "high"
annotations = { summary = "sold" }
""",
    )
    daemon.start()
    sale = {"orderId": "o", "cityId": "dallas", "tier": "ga", "quantity": 2, "amount": 5000, "currency": "USD"}
    event = {"id": "s1", "type": "ticket_sale", "data": sale}
    assert post(daemon, event).json()["data"]["accepted"] == 1
    wait("the alert arrives", lambda: receiver.alerts(alertname="Sold"))
    [alert] = [alert for alert in daemon.ctl("alerts") if alert["rule"] == "Sold"]
    wait("the system was measured", lambda: daemon.ctl("query", "count(node_load1)")["series"])
    daemon.stop()
    daemon.start()
    assert post(daemon, event).json()["data"]["duplicates"] == 1, "duplicates are recognised across restarts"
    assert daemon.ctl("query", "workshop_tickets_sold_total")["series"][0]["points"][0][1] == 2
    assert daemon.ctl("query", "count_over_time(node_load1[10m])")["series"], (
        "samples from before the restart are there"
    )
    again = [found for found in daemon.ctl("alerts") if found["rule"] == "Sold"]
    assert [found["id"] for found in again] == [alert["id"]]
    time.sleep(1)
    assert len(receiver.alerts(alertname="Sold")) == 1, "told once"
    exported = daemon.run_ctl("journal", "export").stdout.splitlines()
    assert len([line for line in exported if '"s1"' in line]) == 1
    copy = daemon.directory / "copy.db"
    assert daemon.run_ctl("journal", "backup", str(copy)).returncode == 0
    with sqlite3.connect(copy) as journal:
        assert journal.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_events_are_emitted_and_followed(daemon):
    daemon.start()
    follower = subprocess.Popen(
        [BIN / "sixfbctl", "--socket", daemon.socket, "events", "--follow", "--json"], stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 20
        seen = ""
        number = 0
        while "hello" not in seen and time.monotonic() < deadline:
            number += 1
            assert daemon.run_ctl("events", "emit", "note", f"text=hello {number}").returncode == 0
            if select.select([follower.stdout], [], [], 1.0)[0]:  # who follows only now has not seen the first one
                seen = follower.stdout.readline()
        assert "hello" in seen
    finally:
        follower.terminate()
        follower.communicate(timeout=5)


def test_no_secret_is_shown_anywhere(daemon, receiver, wait):
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    path = "/hook/T0PSECRETPATH"
    (daemon.directory / "secret").write_text(secret)
    (daemon.directory / "secret").chmod(0o600)
    receiver.answer = lambda calls: 500
    daemon.tell(receiver.url.replace("/hook", path), 'secret = { file = "secret" }')
    daemon.add(
        "50-test.toml",
        """
[[rules]]
name = "Always"
expr = "sixfbd_series > 0"
severity = "high"
""",
    )
    daemon.start()
    wait("a delivery failed", lambda: "notify.failed" in daemon.log.read_text())
    shown = [daemon.log.read_text(), httpx.get(daemon.url + "/metrics").text]
    for args in (["status"], ["plugins"], ["outbox", "list"], ["alerts"], ["journal", "export"]):
        shown.append(daemon.run_ctl(*args, "--json").stdout)
    shown.append(
        subprocess.run(
            [BIN / "sixfbd", "config", "show", "--config", daemon.config], capture_output=True, text=True, check=False
        ).stdout
    )
    for text in shown:
        assert secret not in text and daemon.token not in text and "T0PSECRETPATH" not in text


@pytest.mark.parametrize(
    "rubbish", [b"\xff\xfe\n", b"{}\n", b'{"jsonrpc":"2.0","id":1,"method":"no"}\n', b"x" * 100_000]
)
def test_a_control_client_that_sends_rubbish_disturbs_nobody(daemon, rubbish):
    daemon.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(daemon.socket))
        client.sendall(rubbish)
        if rubbish.endswith(b"\n"):
            assert b'"error"' in client.recv(65536)
    assert daemon.ctl("status")["state"] == "running"


def test_a_restart_resolves_nothing_before_the_check_has_reported(daemon, receiver, target, wait):
    daemon.probe(target)
    daemon.tell(receiver.url)
    daemon.add(
        "50-test.toml",
        """
[[rules]]
name = "ProbeFailed"
for = "0s"
""",
    )
    daemon.start()
    target.stop()
    wait("the alert arrives", lambda: receiver.alerts(alertname="ProbeFailed"))
    wait("its answer is on the disk", lambda: daemon.ctl("outbox", "list", "--open")["messages"] == [])
    daemon.kill()
    (daemon.directory / "state" / "samples.db").unlink()  # the worst case: nothing is known of before but the alert
    daemon.start()
    wait("the check has reported", lambda: {c["name"]: c["runs"] for c in daemon.ctl("checks")}["shop"] > 1)
    told = [alert["status"] for _, alert in receiver.alerts(alertname="ProbeFailed")]
    assert told == ["firing"], "neither resolved nor told again"
    target.start()
    wait("resolved arrives", lambda: len(receiver.alerts(alertname="ProbeFailed")) == 2)


def test_a_restart_resolves_nothing_that_the_daemon_says_of_itself_before_it_says_it_again(daemon, receiver, wait):
    daemon.plugin("does_not_import", BROKEN["does_not_import"])
    daemon.tell(receiver.url)
    daemon.start()
    wait("the alert arrives", lambda: receiver.alerts(alertname="PluginFailed"))
    wait("its answer is on the disk", lambda: daemon.ctl("outbox", "list", "--open")["messages"] == [])
    [alert] = [alert for alert in daemon.ctl("alerts") if alert["rule"] == "PluginFailed"]
    daemon.kill()
    (daemon.directory / "state" / "samples.db").unlink()  # as after hours: its series of before are no more
    daemon.start()
    wait("it has seen it again", lambda: daemon.ctl("query", "sixfbd_plugin_failed == 1")["series"])
    time.sleep(1)
    again = [(found["id"], found["blind"]) for found in daemon.ctl("alerts") if found["rule"] == "PluginFailed"]
    assert again == [(alert["id"], False)]
    assert [one["status"] for _, one in receiver.alerts(alertname="PluginFailed")] == ["firing"], "nor told again"


def test_a_plugin_file_that_is_new_comes_with_a_reload(daemon, wait):
    daemon.start()
    daemon.plugin("odd", ODD)
    daemon.add("50-odd.toml", '[checks.fine]\nplugin = "odd"\nhow = "fine"\ninterval = "1s"\ntimeout = "500ms"\n')
    assert "check fine added" in daemon.ctl("reload")["changed"]
    wait("it runs", lambda: {c["name"]: c["status"] for c in daemon.ctl("checks")}["fine"] == "healthy")


def test_the_engines_rules_work_while_the_daemon_scrapes_itself(daemon, wait):
    daemon.start()
    scrape = f'[checks.own]\nplugin = "scrape"\ntargets = ["{daemon.url}/metrics"]\ninterval = "1s"\ntimeout = "1s"\n'
    daemon.add("50-own.toml", scrape)
    assert "check own added" in daemon.ctl("reload")["changed"]
    expr = 'count(sixfbd_check_last_seen_timestamp_seconds{job="own"})'
    wait("it has scraped its own series", lambda: daemon.ctl("query", expr)["series"])
    wait("the rules were evaluated since", lambda: daemon.ctl("check", "run", "own")["status"] == "healthy")
    assert daemon.ctl("status")["problems"] == []
