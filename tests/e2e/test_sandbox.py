"""The sandbox beside a daemon, as `./run` starts them: nothing is wrong at first sight, a fault is told to the right people."""

import os
import signal
import subprocess
from contextlib import suppress

import httpx

from tests.e2e.conftest import BIN, START_LIMIT_S, wait_for

PRIMARY, SECONDARY = "+13525550101", "+13525550102"


def test_at_first_sight_all_is_well_and_the_shop_sells(daemon, sandbox, wait):
    shop = sandbox.start()
    daemon.start()
    assert httpx.get(f"{shop}health").status_code == 200

    def all_is_well() -> bool:
        return {one["name"]: one["status"] for one in daemon.ctl("checks")} == {
            "storefront": "healthy", "sms": "healthy", "system": "healthy", "email": "healthy", "inventory": "healthy",
            "payments": "healthy", "ledger": "healthy",
        }  # fmt: skip

    wait("the checks are healthy", all_is_well, START_LIMIT_S)
    told = [one["text"] for one in sandbox.ask("inbox")]  # of a busy machine the daemon may say medium things
    assert [one for one in told if "(critical)" in one or "(high)" in one] == []
    sandbox.ask("fault", "shop", "rush=300")

    def sold() -> bool:
        status = sandbox.ask("status")
        text = httpx.get(f"{daemon.url}/metrics").text
        assert status["events"]["refused"] == 0
        return status["shop"]["takenMinor"] > 0 and "workshop_tickets_sold_total{" in text

    wait("tickets are sold, and counted by the daemon", sold)
    page = httpx.get(f"{daemon.url}/").text
    assert "<title>Sandbox" in page


def test_a_fault_is_told_to_the_right_people_and_its_end_too(daemon, sandbox, wait):
    sandbox.start()
    daemon.start()
    wait(
        "sms is healthy",
        lambda: any(one["name"] == "sms" and one["status"] == "healthy" for one in daemon.ctl("checks")),
    )
    everybody = {("sms", PRIMARY), ("sms", SECONDARY), ("webhook", "primary"), ("webhook", "secondary")}
    everybody |= {("email", "primary@example.com"), ("email", "secondary@example.com")}
    everybody |= {(channel, to) for channel in ("slack", "discord") for to in ("#alerts", "#critical-alerts")}

    # Only the account's own requests fail, so that texts go out.
    sandbox.ask("fault", "twilio", "error=503", "method=GET")
    wait("critical: primary and secondary", lambda: set(sandbox.told("SMSServiceError", "FIRING")) == everybody, 60)
    assert sandbox.run("faults").stdout == "1  twilio error=503 method=GET\n"
    sandbox.ask("clear", "twilio")
    wait("its end is told to the same", lambda: set(sandbox.told("SMSServiceError", "RESOLVED")) == everybody, 60)
    assert sandbox.run("faults").stdout == "no fault is on\n"

    def receipts() -> bool:
        text = httpx.get(f"{daemon.url}/metrics").text
        return any(
            line.startswith("sms_notifications_sent_total") and float(line.split()[-1]) >= 4
            for line in text.splitlines()
        )

    wait("what the daemon has sent is counted", receipts)
    assert sandbox.ask("status")["webhooks"]["delivered"] >= 4


def test_webhooks_with_wrong_signatures_are_refused_and_counted(daemon, sandbox, wait):
    sandbox.start()
    daemon.start()
    wait(
        "sms is healthy",
        lambda: any(one["name"] == "sms" and one["status"] == "healthy" for one in daemon.ctl("checks")),
    )
    sandbox.ask("fault", "twilio", "webhooks=forged")
    sandbox.ask("fault", "twilio", "account=suspended")
    wait("webhooks are refused", lambda: sandbox.ask("status")["webhooks"]["refused"], 60)
    text = httpx.get(f"{daemon.url}/metrics").text
    assert 'sixfbd_inbound_requests_total{inbound="twilio",outcome="refused"}' in text


def test_the_sandbox_ends_with_the_daemon_and_the_daemon_does_not_end_with_the_sandbox(daemon, sandbox, wait):
    daemon.start()
    sandbox.start(beside=daemon.process.pid)
    assert sandbox.process is not None
    sandbox.process.send_signal(signal.SIGKILL)
    sandbox.process.wait(10)
    assert httpx.get(f"{daemon.url}/healthz").status_code == 200
    sandbox.process.stdout.close()
    sandbox.start(beside=daemon.process.pid)
    daemon.kill()
    assert sandbox.process.wait(30) == 0
    assert not (daemon.directory / "sandbox.sock").exists()


def test_run_starts_both_and_control_c_ends_both(daemon, sandbox, tmp_path):
    """The script's own lines, in a terminal's process group, on a clone whose .venv is this one."""
    script = (BIN.parents[1] / "run").read_text()
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / ".run").symlink_to(daemon.directory)
    (clone / ".venv").symlink_to(BIN.parent)
    ready = "start() {\n    ready run requirements.lock\n"
    assert ready in script
    (clone / "run").write_text(script.replace(ready, "start() {\n"))
    log = tmp_path / "run.log"
    with log.open("w") as out:
        process = subprocess.Popen(["sh", clone / "run"], stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for("both run", lambda: daemon.ctl("status") and sandbox.ask("status"), START_LIMIT_S)
        assert "sixfbd: sandbox    http://127.0.0.1:" in log.read_text()
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 0, log.read_text()
        wait_for("the sandbox is gone", lambda: not (daemon.directory / "sandbox.sock").exists())
        assert "the sandbox has ended" not in log.read_text()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
