"""A backup is made of a running daemon, and put in the journal's place once it is stopped: what it knew then it knows again."""

import json
import os
import sqlite3

from tests.e2e.conftest import wait_for


def sell(daemon, number: int) -> None:
    data = (f"orderId=o-{number}", "cityId=dallas", "tier=ga", "quantity=1", "amount=1", "currency=USD")
    daemon.ctl("events", "emit", "ticket_sale", *data)


def orders(daemon) -> int:
    return int(daemon.ctl("report", "business")["sales"]["orders"])


def test_a_backup_is_restored_while_the_daemon_is_stopped_and_the_journal_before_is_kept(daemon, tmp_path):
    backup = tmp_path / "backup.db"
    daemon.start()
    sell(daemon, 1)
    daemon.ctl("journal", "backup", str(backup))
    sell(daemon, 2)
    assert orders(daemon) == 2
    refused = daemon.sixfbd("journal", "restore", str(backup))
    assert refused.returncode == 1 and "pid" in refused.stderr, refused.stderr
    daemon.stop()
    passed = daemon.directory / "conf.d" / "passed.toml"
    passed.parent.mkdir(exist_ok=True)
    passed.write_text('[notifiers.chat]\nplugin = "webhook"\nurl = {credential = "only_the_service_has_it"}\n')
    state = daemon.directory / "state"
    if os.geteuid() == 0:
        os.chown(state, 65534, 65534)
    dry = daemon.sixfbd("journal", "restore", str(backup), "--dry-run", "--json")
    assert dry.returncode == 0 and json.loads(dry.stdout)["restored"] is False
    done = daemon.sixfbd("journal", "restore", str(backup))
    assert done.returncode == 0 and "is restored from" in done.stdout and ".replaced-" in done.stdout
    owner = state.stat()
    for name in ("journal.db", "lock"):
        assert (state / name).stat().st_uid == owner.st_uid, "root restores it, the daemon has to open it"
    passed.write_text("[checks\n")
    refused = daemon.sixfbd("journal", "restore", str(backup))
    assert refused.returncode == 1 and "passed.toml" in refused.stderr, "it may say where the state is"
    passed.unlink()
    daemon.start()
    assert orders(daemon) == 1
    [missing] = wait_for("what is missing is told", lambda: daemon.ctl("status")["problems"][:1])
    assert "an older copy put in its place" in missing and missing.endswith("are lost")
    assert [one["state"] for one in daemon.ctl("alerts") if one["rule"] == "StateDamaged"] == ["firing"]
    sell(daemon, 3)
    assert orders(daemon) == 2
    daemon.stop()
    daemon.start()
    assert "older copy" not in str(daemon.ctl("status")["problems"]) and orders(daemon) == 2
    daemon.stop()
    [before] = [
        one
        for one in (daemon.directory / "state").glob("journal.db.replaced-*")
        if not one.name.endswith(("-wal", "-shm"))
    ]
    assert daemon.sixfbd("journal", "restore", str(before)).returncode == 0
    daemon.start()
    assert orders(daemon) == 2


def test_what_is_no_whole_backup_is_refused_and_nothing_is_done(daemon, tmp_path):
    daemon.start()
    sell(daemon, 1)
    backup = tmp_path / "backup.db"
    daemon.ctl("journal", "backup", str(backup))
    daemon.stop()
    with sqlite3.connect(backup) as connection:
        connection.execute("DELETE FROM events")
    for file, says in ((backup, "is damaged, nothing was done"), (tmp_path / "none.db", "there is no such file")):
        refused = daemon.sixfbd("journal", "restore", str(file))
        assert refused.returncode == 1 and says in refused.stderr, refused.stderr
    daemon.start()
    assert orders(daemon) == 1
