"""A budget through a real daemon: what is over it comes in one digest, then waits, and the daemon says so."""

import httpx

TABLES = """
[checks.self]
enabled = true
interval = "1s"
[checks.system]
interval = "1s"
timeout = "1s"
[receivers.primary.webhook]
via = "hook"
per_hour = 3
reserve = 1
[route]
receiver = "primary"
group_by = ["..."]
"""
RULE = """
[[rules]]
name = "Storm{number}"
expr = "system_memory_usage_ratio > 0"
severity = "low"
"""


def test_past_the_budget_one_digest_comes_and_the_rest_waits(daemon, receiver, wait):
    daemon.add("40-hook.toml", f'[notifiers.hook]\nplugin = "webhook"\nurl = "{receiver.url}"\n')
    daemon.add("60-test.toml", TABLES + "".join(RULE.format(number=number) for number in range(6)))
    daemon.start()

    def digests():
        return [one for one in receiver.payloads() if one["title"].startswith("[DIGEST]")]

    [digest] = wait("a digest", digests)
    assert digest["title"].startswith("[DIGEST] 4 more alerts firing (low)")
    assert "`sixfbctl alerts` lists all that fire" in digest["text"]
    wait("the two messages beside it", lambda: len(receiver.payloads()) == 3)  # all three are on their way at once
    daemon.add("70-test.toml", RULE.format(number="Late"))
    assert daemon.run_ctl("reload").returncode == 0
    [problem] = wait("the daemon says that it waits", lambda: daemon.ctl("status")["problems"])
    assert problem.startswith("the budget of primary through hook is spent: 1 wait for a digest, at ")
    [late] = [one["id"] for one in daemon.ctl("alerts") if one["rule"] == "StormLate"]
    assert "the budget of primary through hook is spent" in daemon.run_ctl("why", late).stdout

    def metrics():
        return httpx.get(f"{daemon.url}/metrics").text.splitlines()

    wait(
        "the metric",
        lambda: any(line.startswith("sixfbd_budget_left{") and line.endswith(" 0.0") for line in metrics()),
    )
    assert len(receiver.payloads()) == 3
