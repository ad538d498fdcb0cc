"""The page for people, its files, and the stream that keeps it live."""

import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import trio
from msgspec.structs import replace

from sixfbd.http.dashboard import page
from sixfbd.http.dashboard.page import FILES
from sixfbd.http.engine import QueryTooLong

VOID = {"meta", "link", "path", "br"}


class Page(HTMLParser):
    """What stands in a page: elements with their attributes, and whether every one is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.fixture
async def text(client, busy) -> str:
    answer = await client.get("/")
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    return answer.text


def words(text: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


async def test_a_sandbox_says_so_in_title_and_heading(client, busy, engine):
    assert "andbox" not in (await client.get("/")).text
    engine.sandbox = True
    engine.changed()
    text = (await client.get("/")).text
    assert "<title>Sandbox · " in text and '<span class="chip">sandbox</span>' in text


async def test_the_page_says_how_the_whole_is_in_one_sentence(text):
    assert "<h1>2 alerts firing</h1>" in text
    assert "3 checks: 1 healthy, 1 unhealthy · 1 paused · 1 pending alert" in text


async def test_the_page_shows_every_check_with_status_summary_last_and_next_run(text):
    shown = words(text)
    assert "web webhook healthy answered 200 in 12 ms 12 s ago in 18 s" in shown
    assert "db scrape unhealthy &lt;script&gt;alert(1)&lt;/script&gt; refused 5 min ago running" in shown
    assert "old scrape paused has not run yet never" in shown


async def test_the_page_shows_alerts_worst_first_with_the_way_to_their_story(text):
    shown = words(text)
    assert shown.index("Down firing · 90 s ago") < shown.index("Warm firing") < shown.index("Slow pending")
    assert '<a href="/alerts/incident-Down">Its story, silence</a>' in text
    assert "taken on by token:guard" in shown


async def test_the_page_draws_the_last_hour_and_says_it_in_words(text):
    assert re.search(r'aria-label="CPU, last hour: now [0-9.]+ %, lowest 1[0-9.]+ %, highest [0-9.]+ %"', text)
    assert text.count('class="line line-') == 3
    assert re.search(r"<bdi>api</bdi> .*<bdi>shop</bdi>", text, re.DOTALL)
    assert "bygone" not in text  # its check was removed
    assert "Memory" not in words(text)  # nobody measures it here


async def test_the_page_shows_the_last_events_newest_first(text):
    shown = words(text)
    assert shown.index("request #25") < shown.index("ticket_sale #24") < shown.index("ticket_sale #14")
    assert "ticket_sale #13" not in shown


async def test_what_others_wrote_is_escaped(text):
    assert "Workshop &lt;Dallas&gt;" in text
    assert "<script>alert" not in text


async def test_hostile_text_shows_as_text_wherever_it_comes_from(client, busy, made_hostile):
    clean = Page((await client.get("/")).text)
    made_hostile()
    answer = await client.get("/")
    assert answer.status_code == 200
    hostile = Page(answer.text)
    assert {tag for tag, _ in hostile.elements} <= {tag for tag, _ in clean.elements}
    names = {name for _, attributes in clean.elements for name in attributes}
    assert {name for _, attributes in hostile.elements for name in attributes} <= names
    assert hostile.inline == []
    assert "1337" not in answer.text
    assert not set("\u202e\u2066\x1b\x00") & set(answer.text)
    assert len(answer.content) < 60_000


async def test_nothing_is_inline_and_nothing_comes_from_another_host(text):
    parsed = Page(text)
    assert parsed.inline == []
    for tag, attributes in parsed.elements:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "action"):
            assert (attributes.get(name) or "/").startswith(("/", "#")), attributes
            assert not (attributes.get(name) or "").startswith("//")
    assert tuple(tag for tag, attributes in parsed.elements if tag == "script" and "src" not in attributes) == ()


async def test_files_name_no_other_host_and_no_inline_styles():
    for name, content in FILES.items():
        found = re.findall(rb"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", content.replace(b"http://www.w3.org/2000/svg", b""))
        assert found == [], name
        assert b"innerHTML =" not in content
        assert b"eval(" not in content


async def test_the_page_is_readable_without_javascript_and_made_for_small_screens(text):
    parsed = Page(text)
    metas = [attributes for tag, attributes in parsed.elements if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    assert {"name": "color-scheme", "content": "light dark"} in metas
    assert {"http-equiv": "refresh", "content": "30"} in metas
    assert dict(parsed.elements)["html"] == {"lang": "en"}


async def test_the_pages_files_are_served_with_their_types_and_may_be_kept(client, text):
    links = re.findall(r'(?:href|src)="(/static/[^"]+)"', text)
    assert len(links) == 3
    for link in links:
        answer = await client.get(link)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["Cache-Control"]
        assert (await client.get(link.partition("?")[0])).headers["Cache-Control"] == "no-cache"
    assert (await client.get("/static/page.css")).headers["Content-Type"] == "text/css; charset=utf-8"
    assert (await client.get("/static/page.js")).headers["Content-Type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("name", ["none.css", "..%2Fpage.py", "%2e%2e%2f%2e%2e%2fapp.py"])
async def test_no_other_file_is_served(client, name):
    assert (await client.get(f"/static/{name}")).status_code == 404


async def test_an_empty_daemon_has_a_page_that_says_what_is_missing(client):
    shown = words((await client.get("/")).text)
    for sentence in (
        "Nothing is checked yet",
        "No alert is firing or pending",
        "Nothing has been measured yet",
        "No check is configured",
        "No event has come in yet",
    ):
        assert sentence in shown


async def test_charts_whose_query_fails_do_not_take_the_page_with_them(client, busy):
    busy.range_error = QueryTooLong("the query ran longer than 10 s")
    shown = words((await client.get("/")).text)
    assert "Nothing has been measured yet" in shown
    assert "answered 200 in 12 ms" in shown


async def hang(*_: object) -> None:
    await trio.sleep(60)


async def test_the_page_does_not_wait_for_slow_charts(client, busy, monkeypatch):
    monkeypatch.setattr(page, "CHARTS_WAIT_S", 0.05)
    monkeypatch.setattr(busy, "query_range", hang)
    shown = words((await client.get("/")).text)
    assert "The charts could not be made in time" in shown
    assert "answered 200 in 12 ms" in shown


async def test_a_page_asked_for_after_a_change_shows_the_change(client, busy):
    assert "a new summary" not in (await client.get("/")).text
    busy.check_states = [replace(busy.check_states[0], summary="a new summary")]
    busy.changed()
    assert "a new summary" in (await client.get("/")).text


async def test_the_page_says_when_the_daemon_is_not_ready_and_why(client, busy):
    busy.readiness = (False, "the disk is full")
    shown = words((await client.get("/")).text)
    assert "The daemon is not ready the disk is full" in shown


async def test_many_alerts_are_cut_off_and_counted(client, busy):
    busy.alert_list = busy.alert_list * 50
    shown = words((await client.get("/")).text)
    assert shown.count("Its story") == 100
    assert "and 50 more" in shown


async def test_the_live_stream_says_changed_at_once_and_then_at_most_once_a_second(client, engine):
    engine.changed()
    async with client.stream("GET", "/api/stream") as response:
        heard: list[float] = []
        with trio.move_on_after(1.6):
            async with trio.open_nursery() as nursery:

                async def busy_engine() -> None:
                    while True:
                        await trio.sleep(0.02)
                        engine.changed()

                nursery.start_soon(busy_engine)
                async for piece in response.aiter_text():
                    heard += [trio.current_time()] * piece.count("event: changed")
        assert 1 <= len(heard) <= 3
        assert all(later - earlier > 0.9 for earlier, later in pairwise(heard))
