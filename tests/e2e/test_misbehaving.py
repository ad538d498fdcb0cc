"""All misbehaving plugins at once in one real daemon, at short intervals: it does not grow, and what is good is on time.

SIXFBD_SOAK_MINUTES is how long (`./run soak` takes 10); memory and descriptors are read from /proc, so that what is
measured does not measure itself. The first part is warm-up: caches fill, each kind of failure happens once.
"""

import os
import time
from pathlib import Path

import pytest

ODD = Path(__file__).with_name("odd_plugin.py").read_text()
SECONDS = 60 * float(os.environ.get("SIXFBD_SOAK_MINUTES", "1"))
WARM_UP = 0.4  # of the time
KINDS = (
    "raises", "exits", "hangs", "shields", "wrong_type", "nan_labels", "wordy", "flood", "undeclared", "churn", "sick_churn",
    "event_flood", "more", "cursor",
)  # fmt: skip
GOOD = ("fine", "phase")
MOST_SERIES = 2_000  # of one check: the blocks of a flood fill for two minutes, and this keeps them small
MEMORY_RATIO, MEMORY_BYTES = 1.15, 24 * 1024**2  # what may come on top after warm-up
DESCRIPTORS = 8
ON_TIME = 0.8  # of the runs that fell due
CONFIGURATION = f"""
[window]
memory = "8MiB"
max_series_per_check = {MOST_SERIES}

[notifiers.good]
plugin = "webhook"
url = "URL"
retry_first = "100ms"
[notifiers.hangs]
plugin = "hanging"
how = "hangs"
timeout = "1s"
concurrency = 2
[notifiers.raises]
plugin = "raising"
how = "raises"
retry_first = "100ms"
[notifiers.rubbish]
plugin = "rubbish"
how = "rubbish"
[receivers.primary]
webhook = {{ via = "good" }}
email = {{ via = "hangs" }}
slack = {{ via = "raises" }}
discord = {{ via = "rubbish" }}

[[rules]]
name = "Phase"
expr = 'odd_value{{check="phase"}} == 1'
severity = "high"
annotations = {{ summary = "the phase is 1" }}
[[rules]]
name = "Broken"
expr = 'odd_value{{check="flood"}} * on(check) odd_value{{check="flood"}}'
severity = "high"
[[rules]]
name = "AlsoBroken"
expr = 'label_replace(odd_value{{check="churn"}}, "n", "", "n", ".*") > 0'
severity = "high"
"""


def checks_of(kinds, interval, timeout):
    return "".join(
        f'[checks.{how}]\nplugin = "odd"\nhow = "{how}"\ninterval = "{interval}"\ntimeout = "{timeout}"\n'
        for how in kinds
    )


def runs_of(daemon):
    return {check["name"]: check["runs"] for check in daemon.ctl("checks")}


@pytest.mark.timeout(SECONDS + 300)
def test_under_all_misbehaving_plugins_the_daemon_does_not_grow_and_what_is_good_is_on_time(daemon, receiver, wait):
    daemon.plugin("odd", ODD)
    daemon.add("50-odd.toml", CONFIGURATION.replace("URL", receiver.url))
    daemon.add("60-odd.toml", checks_of(KINDS, "500ms", "300ms") + checks_of(GOOD, "500ms", "400ms"))
    daemon.start()
    wait("every kind has had its turn", lambda: all(runs_of(daemon)[how] > 1 for how in KINDS if how != "shields"), 60)
    time.sleep(WARM_UP * SECONDS)

    began, runs_before, seen = time.monotonic(), runs_of(daemon), [daemon.sizes()]
    while time.monotonic() < began + (1 - WARM_UP) * SECONDS:
        time.sleep(1)
        seen.append(daemon.sizes())
    passed_s, runs = time.monotonic() - began, runs_of(daemon)

    (first, first_open), (last, last_open) = seen[0], seen[-1]
    print(
        f"\n{passed_s:.0f} s: memory {first / 2**20:.1f} → {last / 2**20:.1f} MiB (most {max(seen)[0] / 2**20:.1f}), "
        f"descriptors {first_open} → {last_open}, runs { ({how: runs[how] - runs_before[how] for how in GOOD}) }"
    )
    assert last <= MEMORY_RATIO * first + MEMORY_BYTES, f"memory grows: {seen}"
    assert last_open <= first_open + DESCRIPTORS, f"descriptors grow: {seen}"
    for how in GOOD:
        assert runs[how] - runs_before[how] >= ON_TIME * passed_s / 0.5, f"{how} runs late"
    told = [alert["status"] for _, alert in receiver.alerts(alertname="Phase")]
    assert told.count("firing") >= passed_s / 20 and told.count("resolved") >= passed_s / 20, told

    checks = {check["name"]: check for check in daemon.ctl("checks")}
    assert all(checks[how]["status"] == "healthy" and checks[how]["crashes"] == 0 for how in GOOD)
    assert "no such thing" in checks["raises"]["summary"] and "SystemExit" in checks["exits"]["summary"]
    assert "does not end" in checks["shields"]["summary"]
    for how, words in {
        "flood": f"is over the limit of {MOST_SERIES} series of this check",
        "undeclared": "other: is not declared",
        "nan_labels": "whose value is not text",
        "event_flood": "brings more than 100 a second",
    }.items():
        assert words in checks[how]["summary"], checks[how]["summary"]
    assert checks["cursor"]["summary"].startswith("plugin odd returned a cursor of 1000002 bytes")
    problems = " ".join(daemon.ctl("status")["problems"])
    assert "Broken" in problems, problems
    refused = daemon.log.read_text().count("check.refused")
    assert refused <= 10 * len(KINDS), f"{refused} log lines for refusals that go on"
    daemon.stop()
    daemon.start()
    assert daemon.ctl("journal", "verify")["problems"] == []
