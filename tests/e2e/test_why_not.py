"""Why a rule does not fire, asked of a real daemon: value, missing series, pending, held; now and in the past."""

import httpx

RULES = """
[checks.system]
interval = "1s"
timeout = "1s"
[[rules]]
name = "TooMuch"
expr = 'system_memory_usage_ratio > 2'
severity = "low"
[[rules]]
name = "Nowhere"
expr = 'made_up_metric{city="dallas"} > 2'
severity = "low"
[[rules]]
name = "Later"
expr = 'system_memory_usage_ratio > 0'
for = "1h"
severity = "low"
[[rules]]
name = "Now"
expr = 'system_memory_usage_ratio > 0'
severity = "low"
[[rules]]
name = "Stock"
expr = 'system_memory_usage_ratio'
levels = [{severity = "low", when = "> 5"}]
"""


def test_the_reason_is_told_with_what_it_is_from(daemon, wait):
    daemon.add("60-test.toml", RULES)
    daemon.start()
    wait("the check has run", lambda: any(one["rule"] == "Now" for one in daemon.ctl("alerts")))

    def verdict(*words):
        return daemon.ctl("why-not", *words)["verdict"]

    too_much = daemon.ctl("why-not", "TooMuch")
    assert "which is not > 2" in too_much["verdict"]
    [row] = too_much["rows"]
    assert row["labels"] == {"check": "system"} and 0 < row["value"] < 1 and row["threshold"] == 2
    assert [(one["name"], one["state"]) for one in too_much["checks"]] == [("system", "healthy")]
    assert verdict("TooMuch", "check=other") == "no series of it has the labels check=other"
    assert 'there is no series made_up_metric{city="dallas"}' in verdict("Nowhere")
    assert verdict("Later").startswith("it is pending: it fires in ")
    assert verdict("Now").startswith("it does fire: sixfbctl why ")
    assert verdict("Stock") == "its expression has a value, and no level has it"
    daemon.run_ctl("silence", "add", "alertname=Now", "--for", "1h", "--comment", "known")
    assert verdict("Now").endswith("known)") and "nobody is told: silenced by" in verdict("Now")
    long_ago = daemon.ctl("why-not", "TooMuch", "--at", "-2h")
    assert "there is no series" in long_ago["verdict"] and long_ago["rows"] == []
    over_http = httpx.get(f"{daemon.url}/api/why-not", params={"rule": "TooMuch", "label": "check=other"}).json()[
        "data"
    ]
    assert over_http["verdict"] == verdict("TooMuch", "check=other")
    [alert] = [one["id"] for one in daemon.ctl("alerts") if one["rule"] == "Now"]
    told = httpx.get(f"{daemon.url}/api/alerts/{alert}/why").json()["data"]
    assert told["records"] == daemon.ctl("why", alert)["records"] != []
    unknown = daemon.run_ctl("why-not", "TooMuhc")
    assert unknown.returncode == 1 and 'did you mean "TooMuch"' in unknown.stderr
