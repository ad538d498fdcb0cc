"""`sixfbd doctor` on a machine that is well, and on one that is not: what is wrong is named with what to do."""

import json


def findings(daemon, *args):
    done = daemon.sixfbd("doctor", "--socket", str(daemon.socket), "--json", *args)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert (done.returncode == 1) == (found["state"] == "fault")
    return {one["what"]: one for one in reversed(found["findings"])}


def test_of_a_daemon_that_runs_all_is_looked_at_and_nobody_told_is_said(daemon, target, wait):
    daemon.probe(target)
    daemon.start()
    found = findings(daemon)
    assert {what for what, one in found.items() if one["state"] == "ok"} >= {
        "daemon", "state directory", "journal", "configuration", "port", "check shop", "check system",
    }  # fmt: skip
    assert found["people"]["state"] == "fault" and "Nobody will be told" in found["people"]["says"]
    target.stop()
    down = findings(daemon)["check shop"]
    assert down["state"] == "fault" and down["mend"] == "sixfbd check try shop shows all of it"
    assert "check shop" not in findings(daemon, "--offline")


def test_what_is_wrong_is_named_with_the_mend(daemon, target):
    daemon.start()
    daemon.stop()
    state = next(path.parent for path in daemon.directory.rglob("journal.db"))
    state.chmod(0o755)
    (daemon.directory / "tokens" / "events").chmod(0o644)
    with (state / "journal.db").open("r+b") as journal:
        journal.seek(4096)
        journal.write(b"\xff" * 4096)
    done = daemon.sixfbd("doctor", "--socket", str(daemon.socket), "--offline")
    assert done.returncode == 1
    for said in (
        "fault    daemon: none answers at",
        "to mend it: start it",
        f"chmod 700 {state}",
        f"chmod 600 {daemon.directory / 'tokens' / 'events'}",
        "fault    journal:",
    ):
        assert said in done.stdout, done.stdout


def test_a_configuration_that_cannot_be_used_is_the_first_finding_and_not_the_last(daemon):
    daemon.start()
    wrong = daemon.directory / "conf.d" / "wrong.toml"
    wrong.parent.mkdir(exist_ok=True)
    wrong.write_text('[notifiers.chat]\nplugin = "webhook"\nurl = {credential = "only_the_service_has_it"}\n')
    found = findings(daemon)
    assert found["configuration"]["state"] == "fault" and "only_the_service_has_it" in found["configuration"]["says"]
    assert found["daemon"]["state"] == "ok" and found["journal"]["state"] == "ok" and "check system" not in found
    wrong.write_text("[checks\n")
    found = findings(daemon)
    assert "wrong.toml" in found["configuration"]["says"] and "journal" not in found
