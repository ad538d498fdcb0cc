"""Who holds up the loop: whose code a stack is in, what a note keeps, and what the thread itself costs."""

import sys
import time
import types
from pathlib import Path
from typing import Any

import pytest
import trio

from sixfbd import watchdog as room
from sixfbd.config import PluginSources
from sixfbd.containment import call_guarded
from sixfbd.host import PluginCatalog, PluginInfo, load_plugins
from sixfbd.kept_out import CheckNote, Note, read_notes, release, write_note
from sixfbd.model import Rule, RuleName, Severity
from sixfbd.watchdog import Blame, Watchdog, culprit


def module(name: str, source: str, **known: Any) -> Any:
    """A module of this name and source, as if it were loaded from a file."""
    made = types.ModuleType(name)
    vars(made).update(known)
    exec(compile(source, f"/plugins/{name}.py", "exec"), vars(made))
    return made


def frame_below() -> Any:
    return sys._getframe(1)


GRAB = {"grab": lambda: sys._getframe(1)}


def test_the_innermost_frame_of_a_plugin_names_it() -> None:
    library = module("library", "def deep(call):\n    return call()\n")
    plugin = module("acme.check", "def run(deep):\n    return deep(\n        grab)\n", **GRAB)
    assert culprit(plugin.run(library.deep), {"acme.check": "acme"}) == Blame("acme", "", "/plugins/acme.check.py:2")
    assert culprit(plugin.run(library.deep), {"acme": "whole"}).plugin == "whole"


def test_a_block_in_the_engine_that_a_plugin_called_is_the_engines() -> None:
    engine = module("sixfbd.promql", "def evaluate():\n    return grab()\n", **GRAB)
    plugin = module("acme", "def run(call):\n    return call()\n")
    assert culprit(plugin.run(engine.evaluate), {"acme": "acme"}) == Blame("", "", "/plugins/sixfbd.promql.py:2")


def test_what_the_engine_lends_to_plugins_counts_for_the_plugin() -> None:
    lent = module("sixfbd.plugin", "def gauge():\n    return grab()\n", **GRAB)
    plugin = module("acme", "def run(call):\n    return call()\n")
    assert culprit(plugin.run(lent.gauge), {"acme": "acme"}).plugin == "acme"


def test_a_stack_of_nobody_is_told_by_its_place_alone() -> None:
    assert culprit(frame_below(), {}).plugin == ""
    assert culprit(frame_below(), {}).place.startswith(__file__)
    assert culprit(None, {}) == Blame()


async def test_a_guarded_call_tells_on_whose_behalf_it_is_made() -> None:
    plugin = module("acme", "async def run():\n    return grab()\n", **GRAB)
    ended = await call_guarded(plugin.run, 1, "check web")
    assert isinstance(ended.answer, types.FrameType)
    seen: list[Blame] = []
    plugin = module(
        "acme", "async def run():\n    look(grab())\n", **GRAB, look=lambda f: seen.append(culprit(f, {"acme": "acme"}))
    )
    await call_guarded(plugin.run, 1, "check web")
    assert seen == [Blame("acme", "check web", "/plugins/acme.py:2")]


# ---- the thread ----------------------------------------------------------------------------------------------------------


async def test_an_idle_watchdog_wakes_a_few_times_a_second_and_the_loop_as_often(tmp_path: Path) -> None:
    turns: list[float] = []
    with Watchdog(tmp_path) as watchdog, watchdog.watching(lambda: turns.append(time.monotonic())):
        await trio.sleep(2)
        assert 3 <= watchdog.ticks <= 9 and 2 <= len(turns) <= 9
    assert watchdog.recent() == {} and watchdog.take_longest_delay() < 0.5


async def test_a_block_in_a_library_is_the_engines_and_ends_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(room, "ABORT_S", 1.0)
    ends: list[int] = []
    news = trio.Event()
    with Watchdog(tmp_path, ends.append) as watchdog, watchdog.watching(lambda: None):
        watchdog.tell(news.set)
        await trio.sleep(0.3)
        time.sleep(2)
        with trio.fail_after(5):
            await news.wait()
        [(blame, seconds)] = watchdog.recent().items()
        assert blame.plugin == "" and "time.sleep" not in blame.place and seconds > 1.5
        assert watchdog.take_longest_delay() > 1.5
    assert ends == [] and read_notes(tmp_path) == {}


ENDLESS = """
import time
def block(seconds):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass
"""


@pytest.mark.parametrize("noted", [True, False])
async def test_a_plugin_that_does_not_let_go_ends_the_process_with_a_note(
    tmp_path: Path, monkeypatch: Any, capfd: Any, noted: bool
) -> None:
    monkeypatch.setattr(room, "ABORT_S", 1.5)
    monkeypatch.setattr(room.logging, "shutdown", lambda: None)
    codes: list[int] = []
    state = tmp_path / "state"
    if not noted:
        state.write_text("a file where the directory should be")
    info = PluginInfo(name="acme", module="acme", origin="/plugins/acme.py")
    with Watchdog(state, codes.append) as watchdog, watchdog.watching(lambda: None):
        watchdog.knows(PluginCatalog(plugins=(info,)))
        await trio.sleep(0.3)
        module("acme", ENDLESS).block(4)
    assert codes[0] == room.EXIT_BLOCKED
    said = capfd.readouterr().err
    assert "sixfbd: plugin acme blocked the daemon for 2 s at /plugins/acme.py:" in said
    assert ("it will not be kept out, for that could not be noted" in said) != noted
    assert ("acme" in read_notes(state)) == noted


# ---- notes ---------------------------------------------------------------------------------------------------------------

NOTE = Note(
    plugin="acme",
    at=1_800_000_000.0,
    blocked_s=20.2,
    doing="check web",
    place="/x/acme.py:7",
    brings=True,
    checks={"probe": CheckNote("sms", None)},
    notifiers=("horn",),
    rules=(Rule(name=RuleName("Late"), expr="up == 0", severity=Severity.HIGH),),
)


def test_a_note_is_read_as_it_was_written_and_released_once(tmp_path: Path) -> None:
    write_note(tmp_path / "state", NOTE)
    write_note(tmp_path / "state", NOTE)
    assert read_notes(tmp_path / "state") == {"acme": NOTE}
    assert "for 20 s at /x/acme.py:7 (check web) on 2027-01-15 08:00:00 UTC" in NOTE.reason
    assert release(tmp_path / "state", "acme") and not release(tmp_path / "state", "acme")
    assert not release(tmp_path / "state", "../state/kept-out/acme")
    assert read_notes(tmp_path / "state") == {} and read_notes(None) == {}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[]", b'{"plugin": 3}'])
def test_a_note_that_cannot_be_read_keeps_its_plugin_out_all_the_same(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "kept-out").mkdir()
    (tmp_path / "kept-out" / "acme.json").write_bytes(body)
    assert "no longer tells" in read_notes(tmp_path)["acme"].reason


PLUGIN = """raise AssertionError("a plugin that is kept out must not be loaded")"""


@pytest.mark.parametrize("brings", [True, False])
def test_a_plugin_that_is_kept_out_is_not_loaded_and_its_names_stay_taken(tmp_path: Path, brings: bool) -> None:
    (tmp_path / "acme.py").write_text(PLUGIN)
    note = NOTE if brings else Note(plugin="acme", at=0.0, blocked_s=20.0)
    write_note(tmp_path / "state", note)
    sources = PluginSources(
        files_in=tmp_path, state_directory=tmp_path / "state", checks=("probe", "system"), notifiers=("horn",)
    )
    catalog = load_plugins(sources)
    [info] = catalog.failed
    assert info.name == "acme" and info.kept_out and info.problem == note.reason
    assert catalog.checks["probe"].kept_out and catalog.notifiers["horn"].kept_out
    assert not catalog.checks["system"].kept_out
    assert catalog.checks["probe"].cls.service == ("sms" if brings else None)
    assert ("Late" in [rule.name for rule in catalog.rules]) == brings
