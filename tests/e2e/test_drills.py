"""A drill by the calendar goes out as any message does, is counted when it was taken, and is an alert when it was not."""

import httpx

TABLES = """
[time_intervals.always]
intervals = [{}]
[[drills]]
name = "weekly"
receivers = ["primary"]
during = "always"
"""


def titles(receiver):
    return [payload["title"] for payload in receiver.payloads()]


def metrics_of(daemon, name):
    text = httpx.get(daemon.url + "/metrics", timeout=10).text
    return [line for line in text.splitlines() if line.startswith(name + "{")]


def test_a_drill_is_held_once_in_its_interval_and_again_when_somebody_asks(daemon, receiver, wait):
    daemon.tell(receiver.url)
    daemon.add("60-drills.toml", TABLES)
    daemon.start()
    wait("the drill is told", lambda: len(titles(receiver)) == 1)
    assert titles(receiver)[0].startswith("[NOTICE] DRILL: ") and "nobody has to act" in titles(receiver)[0]
    daemon.kill()
    daemon.start()
    said = daemon.run_ctl("drill", "primary")
    assert said.returncode == 0 and "accepted" in said.stdout
    assert len(titles(receiver)) == 2, "what was held in the interval is not held again after a restart"
    succeeded = wait(
        "its success is a metric", lambda: metrics_of(daemon, "sixfbd_drill_last_success_timestamp_seconds")
    )
    assert any('notifier="hook",receiver="primary"' in line and not line.endswith(" 0") for line in succeeded)
    assert all(line.endswith((" 0", " 0.0")) for line in metrics_of(daemon, "sixfbd_drill_failed"))
