"""A reference target that fails too: the outage is told as ours, once, and what depends on it is held until it is back."""

TABLES = """
[checks.internet]
plugin = "webhook"
url = "{url}"
interval = "1s"
timeout = "900ms"
[checks.shop]
depends_on = ["internet"]
[[rules]]
name = "ProbeFailed"
for = "3s"
[[rules]]
name = "ServiceDown"
for = "3s"
"""


def test_an_outage_of_the_parent_is_told_once_and_its_children_are_held(daemon, receiver, target, wait):
    daemon.tell(receiver.url)
    daemon.probe(target)
    daemon.add("60-test.toml", TABLES.format(url=target.url))
    daemon.start()
    wait("both are healthy", lambda: [one["status"] for one in daemon.ctl("checks")].count("healthy") >= 2)
    target.stop()
    wait("the outage is told", lambda: receiver.alerts(alertname="ParentDown", check="internet"))

    def held():
        return [one for one in daemon.ctl("alerts") if one["labels"].get("check") == "shop" and one["held"]]

    [hold] = {hold for one in wait("the shop's alerts fire and are held", held) for hold in one["held"]}
    assert hold == "put down to internet"
    wait(
        "so are the parent's other alerts",
        lambda: [one for one in daemon.ctl("alerts") if one["rule"] == "ServiceDown"],
    )
    told = {alert["labels"]["alertname"] for _, alert in receiver.alerts()}
    assert told == {"ParentDown"}
    assert "put down to internet" in daemon.ctl("why-not", "ProbeFailed", "check=shop")["verdict"]
    target.start()
    wait(
        "its end is told", lambda: [a for _, a in receiver.alerts(alertname="ParentDown") if a["status"] == "resolved"]
    )
    told = {alert["labels"]["alertname"] for _, alert in receiver.alerts()}
    assert told == {"ParentDown"}, "what was held and has ended with its cause is told to nobody"
