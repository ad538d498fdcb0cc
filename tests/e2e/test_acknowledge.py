"""The signed link in a message: its page shows and changes nothing, its button takes the alert on, and escalation stops."""

import re
from urllib.parse import urlsplit

import httpx

HOST = {"Host": "hooks.example.com"}

TABLES = """
[http.public]
listen = "127.0.0.1:0"
url = "https://hooks.example.com"
[receivers.boss]
webhook = { via = "hook" }
[route]
receiver = "primary"
[[escalations]]
name = "high"
matchers = ['severity="high"']
steps = [{ after = "4s", receiver = "boss" }]
[[rules]]
name = "Acked"
expr = 'vector(1)'
severity = "high"
annotations = { summary = "<b>Down</b> & out" }
"""


def link_of(receiver, name):
    return [alert["ackURL"] for _, alert in receiver.alerts(alertname=name)]


def test_a_link_shows_the_alert_and_its_button_takes_it_on(daemon, receiver, wait):
    daemon.tell(receiver.url)
    daemon.add("60-test.toml", TABLES)
    daemon.start()
    [link] = wait("the alert is told", lambda: link_of(receiver, "Acked"))
    parts = urlsplit(link)
    assert (parts.scheme, parts.netloc) == ("https", "hooks.example.com")
    public = daemon.ctl("status")["public"]
    url = f"{public}{parts.path}?{parts.query}"
    page = httpx.get(url, headers=HOST)
    assert page.status_code == 200 and "&lt;b&gt;Down&lt;/b&gt; &amp; out" in page.text
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert len(page.headers.get_list("content-security-policy")) == 1
    [alert] = [one for one in daemon.ctl("alerts") if one["rule"] == "Acked"]
    assert alert["acked_by"] is None, "who only looks takes nothing on"
    forged = re.sub("&s=.", "&s=", url)
    assert httpx.post(forged, headers=HOST).status_code == httpx.get(forged, headers=HOST).status_code == 404
    assert httpx.get(f"{daemon.url}{parts.path}?{parts.query}").status_code == 404, "the local port has no such page"
    done = httpx.post(url, headers=HOST)
    assert done.status_code == 200 and "Acknowledged" in done.text and "<form" not in done.text
    [alert] = [one for one in daemon.ctl("alerts") if one["rule"] == "Acked"]
    assert alert["acked_by"] == "link:primary" and alert["escalate_at"] is None
    again = httpx.post(url, headers=HOST)
    assert again.status_code == 200 and "Acknowledged" in again.text
    daemon.kill()
    daemon.start()
    url = url.replace(public, daemon.ctl("status")["public"])
    assert "Acknowledged" in httpx.get(url, headers=HOST).text, "the key and the acknowledgement outlive the process"
    rules = daemon.directory / "conf.d" / "60-test.toml"
    rules.write_text(rules.read_text().partition("[[rules]]")[0])
    daemon.ctl("reload")
    wait("it is over", lambda: "This is over" in httpx.get(url, headers=HOST).text)


def test_what_nobody_acknowledges_reaches_the_next_receiver_and_its_own_link(daemon, receiver, wait):
    daemon.tell(receiver.url)
    daemon.add("60-test.toml", TABLES)
    daemon.start()
    links = wait("it is escalated", lambda: found if len(found := link_of(receiver, "Acked")) == 2 else [], 60)
    assert [re.search("by=([^&]+)", link)[1] for link in links] == ["primary", "boss"]
