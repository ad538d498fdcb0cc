"""What people do on the dashboard: log in, take an alert on, silence it; and what keeps others from doing so for them."""

import re
from functools import partial

import pytest
import trio

from sixfbd.http.sessions import COOKIE, GUESSES, GUESSES_S, LASTS_S, MOST_SESSIONS, Sessions
from sixfbd.model import Actor, AddSilence
from tests.integration.http.test_http_page_live import CHROMIUM

GUARD, SHOP = "token-of-the-guard", "token-of-the-shop"


async def log_in(client):
    answer = await client.post("/login", data={"token": GUARD})
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    return re.search(r'name="word" value="([^"]+)"', (await client.get("/")).text)[1]


def firing(engine):
    return next(one for one in engine.alert_list if one.state == "firing")


async def test_who_logs_in_gets_a_cookie_for_this_site_alone_and_buttons(client, busy):
    before = (await client.get("/")).text
    assert "I take it on" not in before and '<a href="/login">Log in</a>' in before
    answer = await client.post("/login", data={"token": f" {GUARD}\n"})
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; ")) and GUARD not in cookie
    page = await client.get("/")
    assert "I take it on" in page.text and "guard" in page.text and GUARD not in page.text
    assert "form-action 'self'" in page.headers["content-security-policy"]
    client.cookies.clear()
    assert "I take it on" not in (await client.get("/")).text, "a page that was kept is nobody else's"
    assert "Secure" not in cookie.split("; ")
    answer = await client.post("/login", data={"token": GUARD}, headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in answer.headers["set-cookie"].split("; ")


@pytest.mark.parametrize(
    ("token", "says"), [(SHOP, "does not have the scope alerts"), ("nonsense", "no token like this"), ("", "no token")]
)
async def test_a_token_that_may_not_act_lets_nobody_in(client, busy, token, says):
    answer = await client.post("/login", data={"token": token})
    assert answer.status_code == 403 and says in answer.text and "set-cookie" not in answer.headers


async def test_tokens_cannot_be_guessed_at_will(client):
    for _ in range(GUESSES):
        assert (await client.post("/login", data={"token": "guess"})).status_code == 403
    answer = await client.post("/login", data={"token": GUARD})
    assert answer.status_code == 429 and "try again in 60 s" in answer.text


async def test_an_alert_is_taken_on_and_silenced_by_whom_the_token_is(client, busy):
    word, alert = await log_in(client), firing(busy)
    answer = await client.post(f"/alerts/{alert.id}/ack", data={"word": word, "comment": "on it"})
    assert answer.status_code == 303 and answer.headers["location"] == f"/alerts/{alert.id}"
    assert busy.acked == [(alert.id, "on it", Actor("token:guard"))]
    answer = await client.post(
        f"/alerts/{alert.id}/silence", data={"word": word, "duration": "90m", "comment": "moving"}
    )
    assert answer.status_code == 303
    [(command, by)] = busy.commands
    assert isinstance(command, AddSilence) and by == Actor("token:guard")
    assert (command.duration_s, command.comment) == (5400.0, "moving")
    assert command.matchers[0] == f'alertname="{alert.key.rule}"' and len(command.matchers) == 1 + len(alert.key.labels)


async def test_the_page_of_an_alert_tells_its_story_and_what_a_silence_would_hold(client, busy):
    alert = firing(busy)
    text = (await client.get(f"/alerts/{alert.id}")).text
    assert "u001b" not in text and "is firing since" in text, "the colours are for terminals"
    assert "Its story" in text and alert.key.rule in text and '<a href="/login">Log in</a> to take it on' in text
    await log_in(client)
    text = (await client.get(f"/alerts/{alert.id}")).text
    assert "It holds this alert alone" in text and "alertname=" in text
    assert (await client.get("/alerts/nonesuch")).status_code == 404
    assert (await client.get("/alerts/i")).status_code == 400


async def test_what_is_not_sent_by_the_page_itself_is_refused(client, busy):
    word, alert = await log_in(client), firing(busy)
    for data, headers, code in (
        ({}, {}, "forged"),
        ({"word": "guess"}, {}, "forged"),
        ({"word": word}, {"Origin": "https://evil.example"}, "other_origin"),
        ({"word": word}, {"Sec-Fetch-Site": "cross-site"}, "other_origin"),
    ):
        answer = await client.post(f"/alerts/{alert.id}/ack", data=data, headers=headers)
        assert answer.status_code == 403 and code in answer.text
    client.cookies.clear()
    assert (await client.post(f"/alerts/{alert.id}/ack", data={"word": word})).status_code == 401
    assert busy.acked == []


async def test_what_cannot_be_done_is_said_on_the_page(client, busy):
    word, alert = await log_in(client), firing(busy)
    answer = await client.post(f"/alerts/{alert.id}/silence", data={"word": word, "duration": "soon"})
    assert answer.status_code == 400 and "is not a duration" in answer.text
    answer = await client.post(f"/alerts/{alert.id}/silence", data={"word": word, "duration": "0s"})
    assert answer.status_code in (400, 409) and "0s" in answer.text
    assert (await client.post("/alerts/nonesuch/ack", data={"word": word})).status_code == 409


async def test_who_logs_out_is_out_and_so_is_everybody_whose_token_is_revoked(client, busy, monkeypatch):
    word = await log_in(client)
    kept = dict(client.cookies)
    answer = await client.post("/logout", data={"word": word})
    assert answer.status_code == 303 and "Max-Age=0" in answer.headers["set-cookie"]
    client.cookies.update(kept)
    assert "I take it on" not in (await client.get("/")).text
    client.cookies.clear()
    await log_in(client)
    monkeypatch.setattr(busy, "token", lambda secret: None)
    busy.changed()
    assert "I take it on" not in (await client.get("/")).text


async def test_who_is_logged_in_may_read_through_a_proxy_and_others_may_not(client, busy):
    proxied = {"X-Forwarded-For": "203.0.113.7"}
    assert (await client.get("/", headers=proxied)).status_code == 401
    assert (await client.get("/login", headers=proxied)).status_code == 200
    await log_in(client)
    assert (await client.get("/", headers=proxied)).status_code == 200


def test_sessions_end_and_are_few():
    sessions = Sessions()
    first = sessions.begin("t", 0.0)
    assert sessions.of(first, LASTS_S - 1) is not None and sessions.of(first, LASTS_S) is None
    kept = [sessions.begin("t", 0.0) for _ in range(MOST_SESSIONS + 1)]
    assert sessions.of(kept[0], 1.0) is None and sessions.of(kept[-1], 1.0) is not None
    for _ in range(GUESSES):
        sessions.guessed_wrong(10.0)
    assert sessions.guess_again_in_s(10.0) == GUESSES_S and sessions.guess_again_in_s(10.0 + GUESSES_S) == 0.0
    assert COOKIE.isidentifier()


async def test_in_a_browser_an_alert_is_taken_on_by_a_click(engine, busy, http_config, serving):
    from playwright import sync_api as playwright

    alert, seen = firing(busy), []

    def drive(url):
        with playwright.sync_playwright() as chromium:
            browser = chromium.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            page = browser.new_context(viewport={"width": 390, "height": 800}).new_page()
            page.set_default_timeout(15_000)
            page.on("console", lambda message: seen.append(message.text))
            page.goto(url)
            page.click("text=Log in")
            page.fill("#token", GUARD)
            page.keyboard.press("Enter")
            page.wait_for_selector("text=Log out")
            page.click("text=I take it on")
            page.wait_for_selector("text=Its story")
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            browser.close()

    async with serving(engine, http_config) as client:
        await trio.to_thread.run_sync(partial(drive, str(client.base_url)))
    assert busy.acked == [(alert.id, "", Actor("token:guard"))] and seen == []
