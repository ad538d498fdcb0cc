"""sixfbd's commands that need no daemon: what they print, and their exit codes."""

import json
import os
import signal
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from sixfbd import cli as module
from sixfbd import trial
from sixfbd.cli import SYSTEM_CONFIG, cli, find_config
from sixfbd.journal.schema import connect_writer

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run sixfbd in an empty directory whose configuration, once there is one, is the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SIXFBD_CONFIG", str(tmp_path / "sixfbd.toml"))

    def invoke(*args: str) -> Result:
        return CliRunner().invoke(cli, list(args), prog_name="sixfbd", catch_exceptions=False)

    return invoke


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sixfbd.toml"
    path.write_text(text)
    return path


WITH_CHECK = """
[checks.shop]
plugin = "webhook"
interval = "7s"
url = "http://127.0.0.1:1/"
basic_auth = {username = "shop", password = {env = "SHOP_PASSWORD"}}
[notifiers.log]
plugin = "log"
[receivers.primary]
log = {via = "log"}
[[rules]]
name = "ShopDown"
expr = 'probe_success{check="shop"} == 0'
for = "90s"
severity = "high"
"""


def test_what_init_writes_passes_the_check(run: Run, tmp_path: Path) -> None:
    assert run("init", "here").exit_code == 0
    result = run("check-config", "here/sixfbd.toml")
    assert (result.exit_code, result.stdout) == (0, "here/sixfbd.toml: fine\n")


def test_init_overwrites_nothing_unless_forced(run: Run) -> None:
    run("init", "here")
    again = run("init", "here")
    assert again.exit_code == 1
    assert "exists" in again.stderr and "--force" in again.stderr
    assert run("init", "here", "--force").exit_code == 0


def test_every_problem_is_named_at_once_with_file_key_and_mend(run: Run, tmp_path: Path) -> None:
    write(tmp_path, '[http]\nlisen = "x"\n[site]\ntimezone = "Mars/Olympus"\n[checks.a]\nplugin = "webhok"\n')
    result = run("check-config")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any("http.lisen" in line and 'did you mean "listen"' in line for line in lines)
    assert any("site.timezone" in line for line in lines)
    assert any("checks.a" in line and "webhook" in line for line in lines)
    assert "3 errors" in lines[-1]


def test_problems_are_json_for_scripts(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "[http]\nlisen = 3\n")
    result = run("check-config", "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 1
    assert answer["ok"] is False
    assert answer["problems"][0]["key"] == "http.lisen"


def test_the_configuration_is_named_as_everywhere_or_as_an_argument_but_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    path = write(tmp_path / "there", "[http]\nlisen = 3\n")
    for named in (["--config", str(path)], [str(path)]):
        assert "http.lisen" in run("check-config", *named).stdout
    twice = run("check-config", str(path), "--config", str(path))
    assert twice.exit_code == 2 and "once" in twice.output


def test_a_bad_rule_is_shown_with_line_column_and_a_caret_under_the_place(run: Run, tmp_path: Path) -> None:
    write(tmp_path, '[[rules]]\nname = "A"\nexpr = "up{job="\nseverity = "high"\n')
    result = run("check-config")
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    [place] = [number for number, line in enumerate(lines) if "line 1, column" in line]
    assert lines[place + 1] == "up{job="
    assert lines[place + 2].strip() == "^"


def test_a_configuration_that_is_not_there_is_said_with_the_command_that_writes_one(run: Run) -> None:
    result = run("check-config", "absent.toml")
    assert result.exit_code == 1
    assert "absent.toml" in result.stdout and "sixfbd init" in result.stdout


def test_the_configuration_in_force_loads_again_and_shows_no_secret(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "hunter2222")
    write(tmp_path, WITH_CHECK)
    shown = run("config", "show")
    assert shown.exit_code == 0, shown.output
    assert "hunter2222" not in shown.output
    values = tomllib.loads(shown.stdout)
    assert values["checks"]["shop"]["interval"] == "7s"
    assert values["checks"]["shop"]["basic_auth"]["password"] == {"env": "SHOP_PASSWORD"}
    assert values["http"]["listen"] == "127.0.0.1:9632"
    assert json.loads(run("config", "show", "--json").stdout) == values
    again = tmp_path / "again"
    again.mkdir()
    (again / "sixfbd.toml").write_text(shown.stdout)
    assert run("check-config", str(again / "sixfbd.toml")).stdout.endswith("fine\n")
    reshown = tomllib.loads(run("config", "show", "--config", str(again / "sixfbd.toml")).stdout)
    assert reshown == values


def test_the_schema_is_one_and_knows_the_options_of_plugins(run: Run, tmp_path: Path) -> None:
    result = run("config", "schema")
    assert result.exit_code == 0
    schema = json.loads(result.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "expected_status" in result.stdout


def test_the_rules_in_force_are_the_defaults_and_ones_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_PASSWORD", "x")
    write(tmp_path, WITH_CHECK)
    lines = run("rules").stdout.splitlines()
    assert any(line.startswith("CheckStale") for line in lines)
    [own] = [line for line in lines if line.startswith("ShopDown")]
    assert "high" in own and "1m30s" in own and 'probe_success{check="shop"} == 0' in own
    names = [rule["name"] for rule in json.loads(run("rules", "--json").stdout)]
    assert {"CheckStale", "ShopDown"} <= set(names)


def test_plugins_are_listed_with_their_options_and_broken_ones_with_the_reason(run: Run, tmp_path: Path) -> None:
    write(tmp_path, "")
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "broken.py").write_text("import nonsense_that_is_not_there\n")
    result = run("plugins")
    assert result.exit_code == 0
    assert any(line.startswith("webhook") and "url" in line for line in result.stdout.splitlines())
    assert "left out: broken" in result.stdout and "nonsense_that_is_not_there" in result.stdout
    views = json.loads(run("plugins", "--json").stdout)
    [scrape] = [view for view in views if (view["name"], view["kind"]) == ("scrape", "check")]
    assert {"name": "targets", "required": True}.items() <= scrape["options"][0].items()


TRIED = """
import msgspec
from sixfbd.plugin import Check, Gauge, Report, Status, hookimpl

SPEED = Gauge("speed", "Speed.", labels=("way",))


class Speed(Check["Speed.Options"]):
    "Speed of a way."

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        fail: str = ""

    metrics = (SPEED,)

    async def run(self, cursor):
        if self.options.fail:
            raise RuntimeError(self.options.fail)
        assert await self.ctx.read.query("up", 0, 1, 1) == []
        return Report(Status.DEGRADED, "slow", (SPEED(2.5, way="north"), SPEED(float("nan"), way="south")))


@hookimpl
def sixfbd_checks(config):
    return {"speed": Speed}
"""


@pytest.fixture
def speed(tmp_path: Path) -> Path:
    (tmp_path / "plugins.d").mkdir()
    (tmp_path / "plugins.d" / "speed.py").write_text(TRIED)
    return write(
        tmp_path,
        '[checks.way]\nplugin = "speed"\n[checks.bad]\nplugin = "speed"\nfail = "no road"\n[checks.off]\nplugin = "log"\n',
    )


def test_a_check_is_tried_once_and_its_report_printed(run: Run, tmp_path: Path, speed: Path) -> None:
    write(tmp_path, '[checks.way]\nplugin = "speed"\n')
    result = run("check", "try", "way")
    assert result.exit_code == 5, "degraded is not healthy"
    lines = result.stdout.splitlines()
    assert lines[0].startswith("way: degraded after") and lines[0].endswith(": slow")
    assert lines[1:] == ['speed{way="north"}  2.5', 'speed{way="south"}  NaN']
    answer = json.loads(run("check", "try", "way", "--json").stdout)
    assert answer["samples"] == [['speed{way="north"}', 2.5], ['speed{way="south"}', "NaN"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plugins.d", "sixfbd.toml"]


def test_a_check_that_raises_is_named_and_is_exit_code_5(run: Run, tmp_path: Path, speed: Path) -> None:
    write(tmp_path, '[checks.bad]\nplugin = "speed"\nfail = "no road"\n')
    result = run("check", "try", "bad")
    assert result.exit_code == 5
    assert "bad: unknown" in result.stdout and "no road" in result.stdout


ODD = """
import time
import trio
from sixfbd.plugin import Check, Event, Gauge, Report, Sample, Status, hookimpl

SPEED = Gauge("speed", "Speed.", labels=("way",))
OK = Status.HEALTHY


class Odd(Check):
    interval, timeout = 1, 0.3
    metrics = (SPEED,)
    BODY


@hookimpl
def sixfbd_checks(config):
    return {"odd": Odd}
"""


@pytest.fixture
def tried(run: Run, tmp_path: Path) -> Callable[..., Result]:
    """Try a check whose class holds `body`; with the default limits but `window`."""

    def attempt(body: str, *args: str, window: str = "") -> Result:
        (tmp_path / "plugins.d").mkdir(exist_ok=True)
        body = "\n    ".join(body.splitlines())
        (tmp_path / "plugins.d" / "odd.py").write_text(ODD.replace("BODY", body))
        write(tmp_path, f'{window}\n[checks.way]\nplugin = "odd"\n')
        result = run("check", "try", "way", *args)
        for name in [name for name in sys.modules if name.startswith("sixfbd_plugin_odd")]:
            del sys.modules[name]
        return result

    return attempt


def running(text: str) -> str:
    return "async def run(self, cursor):\n    " + "\n    ".join(text.splitlines())


REFUSED = {
    "an undeclared metric": (
        "return Report(OK, 'x', (Sample('weight', 1.0, ()),))",
        "refused: weight: is not declared in the plugin's metrics",
    ),
    "a series twice": (
        "return Report(OK, 'x', (SPEED(1, way='n'), SPEED(2, way='n')))",
        "refused: speed: is there twice in one report",
    ),
    "a label of another type": (
        "return Report(OK, 'x', (Sample('speed', 1.0, (('way', float('nan')),)),))",
        "refused: speed: has a label way whose value is not text of at most 1024 characters",
    ),
    "a long label": (
        "return Report(OK, 'x', (SPEED(1, way='n' * 5000),))",
        "refused: speed: has a label way whose value is not text of at most 1024 characters",
    ),
    "half a surrogate pair": (
        "return Report(OK, 'x', (SPEED(1, way=chr(0xd800)),))",
        "refused: speed: has a label way whose value is not text: '\\ud800'",
    ),
    "a value that is no number": (
        "return Report(OK, 'x', (SPEED('fast', way='n'),))",
        "refused: speed: could not convert string to float: 'fast'",
    ),
    "a value that fails at being read": (
        "value = type('V', (), {'__float__': lambda self: 1 / 0})()\nreturn Report(OK, 'x', (SPEED(value, way='n'),))",
        "refused: speed: division by zero",
    ),
    "no sample at all": ("return Report(OK, 'x', ('speed',))", "refused: str: is not a Sample"),
    "a long summary": (
        "return Report(OK, 'x' * 10_000_000)",
        "refused: the summary: has 10000000 characters; 500 are kept",
    ),
    "an event that is none": ("return Report(OK, 'x', (), ('sold',))", "refused: event: is not an Event (number 0)"),
    "an event that is too large": (
        "return Report(OK, 'x', (), (Event('1', 'sold', 1e9, {'text': 'x' * 70000}),))",
        "refused: event: data: is 70011 bytes; at most 65536 are kept (number 0)",
    ),
    "an event of a declared type with other data": (
        "return Report(OK, 'x', (), (Event('1', 'ticket_sale', 1e9, {'quantity': 'two'}),))",
        "refused: event: data",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_door_would_refuse_of_a_report_is_shown(tried: Callable[..., Result], kind: str) -> None:
    text, said = REFUSED[kind]
    result = tried(running(text))
    assert result.exit_code == 5, result.output
    assert result.stdout.startswith("way: healthy after ")
    assert any(line.startswith(said) for line in result.stdout.splitlines()), result.stdout
    refused = json.loads(tried(running(text), "--json").stdout)["refused"]
    assert refused["count"] == 1
    [kind_of_it] = refused["kinds"]
    assert said.startswith(f"refused: {kind_of_it['reason']}") or f"refused: {kind_of_it['reason']}".startswith(said)


def test_a_flood_of_series_is_shown_in_part_and_its_limit_named(tried: Callable[..., Result]) -> None:
    text = "return Report(OK, 'x', [SPEED(n, way=str(n)) for n in range(100_000)])"
    lines = tried(running(text), window="[window]\nmax_series_per_check = 50").stdout.splitlines()
    assert (
        'refused: speed: is over the limit of 50 series of this check: 200 times, first {way="50"}, {way="51"}' in lines
    )
    assert "refused: the report: has more than 250 samples: 99750 times" in lines
    assert "refused in all: 99950" in lines
    assert "note: only the first 2000 of 100000 samples are shown" in lines
    assert len(lines) < 2020


def test_an_event_of_an_undeclared_type_is_noted_and_no_fault(tried: Callable[..., Result]) -> None:
    result = tried(running("return Report(OK, 'x', (), (Event('1', 'parade', 1e9, {'bands': 3}),))"))
    assert result.exit_code == 0, result.output
    assert "note: event type parade: no plugin declares it; its events are kept and count nothing" in result.stdout


CONTAINED = {
    "SystemExit": ("raise SystemExit(3)", "plugin odd raised SystemExit: 3"),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", "plugin odd raised KeyboardInterrupt"),
    "a group": ("raise BaseExceptionGroup('two', [KeyboardInterrupt(), ValueError('x')])", "raised KeyboardInterrupt"),
    "a cancel of nobody's": (
        "with trio.move_on_after(0):\n    await trio.sleep(1)\nraise trio.TooSlowError",
        "raised TooSlowError",
    ),
    "nothing": ("pass", "plugin odd returned None, not a Report"),
    "text": ("return 'fine'", "plugin odd returned a str, not a Report"),
    "an int": ("return 5", "plugin odd returned an int, not a Report"),
    "a status in text": ("return Report('ok', 'x')", "plugin odd returned a report whose status is 'ok'"),
    "a summary of no text": ("return Report(OK, 5)", "a report whose summary is an int, not text"),
    "samples that are none": ("return Report(OK, 'x', 5)", "a report whose samples or events are not a tuple"),
    "a hang": ("await trio.sleep_forever()", "no answer within 0.3 s"),
    "a hang that heeds no cancel": (
        "with trio.CancelScope(shield=True): await trio.sleep(5)",
        "plugin odd does not end, though its time limit is 0.3 s",
    ),
    "a loop that is blocked": (
        "time.sleep(5)",
        "plugin odd does not end, though its time limit is 0.3 s; it stands at {file}:14",
    ),
    "a loop that turns": (
        "began = time.monotonic()\nwhile time.monotonic() < began + 3: pass",
        "though its time limit is 0.3 s; it stands at {file}:15",
    ),
    "a task that breaks the loop": (
        "async def fail(): raise ValueError('x')\ntrio.lowlevel.spawn_system_task(fail)\nawait trio.sleep(1)",
        "plugin odd broke the event loop: ",
    ),
}


@pytest.mark.parametrize("kind", CONTAINED)
def test_a_check_that_is_tried_cannot_break_the_command(
    tried: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(trial, "SPARE_S", 0.2)
    monkeypatch.setattr(trial, "CLOSE_LIMIT_S", 0.2)
    text, said = CONTAINED[kind]
    result = tried(running(text))
    assert result.exit_code == 5, result.output
    [head] = result.stdout.splitlines()
    assert head.startswith("way: unknown after ")
    assert said.format(file=tmp_path / "plugins.d" / "odd.py") in head


@pytest.mark.parametrize(("error", "said"), [("SystemExit(3)", "SystemExit: 3"), ("KeyboardInterrupt", "KeyboardI")])
def test_a_check_that_cannot_be_made_is_said_in_one_line(tried: Callable[..., Result], error: str, said: str) -> None:
    result = tried(f"def __init__(self, options, ctx): raise {error}\n" + running("pass"))
    assert result.exit_code == 1
    assert f"sixfbd: check way: plugin odd cannot start: {said}" in result.stderr


@pytest.mark.parametrize("taken_by", ["the process", "the check's thread"])
def test_a_check_that_is_tried_can_be_interrupted(tmp_path: Path, taken_by: str) -> None:
    (tmp_path / "plugins.d").mkdir()
    own = "import signal\nsignal.raise_signal(signal.SIGINT)\n" if taken_by == "the check's thread" else ""
    body = running(f"print('here', flush=True)\n{own}await trio.sleep(600)").replace("\n", "\n    ")
    (tmp_path / "plugins.d" / "odd.py").write_text(ODD.replace("BODY", body).replace("0.3", "1"))
    environ = {
        **os.environ,
        "SIXFBD_CONFIG": str(write(tmp_path, '[checks.way]\nplugin = "odd"\ninterval = "1h"\ntimeout = "1h"\n')),
    }
    with subprocess.Popen(
        [Path(sys.executable).with_name("sixfbd"), "check", "try", "way"],
        env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        try:
            assert process.stdout.readline() == "here\n"
            if not own:
                process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
        assert process.stderr.read() == ""


def test_a_check_that_is_not_configured_is_said_with_the_nearest_name(run: Run, tmp_path: Path, speed: Path) -> None:
    write(tmp_path, '[checks.highway]\nplugin = "speed"\n')
    result = run("check", "try", "higway")
    assert result.exit_code == 1
    assert 'no check "higway"' in result.stderr and "highway" in result.stderr


def test_a_configuration_with_errors_is_not_used_and_says_why(run: Run, speed: Path) -> None:
    result = run("check", "try", "way")
    assert result.exit_code == 1
    assert "the configuration cannot be used" in result.stderr and "checks.off" in result.stderr


def test_a_journals_file_is_verified_and_exported(run: Run, tmp_path: Path) -> None:
    connect_writer(tmp_path / "journal.db").close()
    assert "nothing is wrong" in run("journal", "verify", "journal.db").stdout
    assert json.loads(run("journal", "verify", "journal.db", "--json").stdout)["ok"] is True
    [header] = run("journal", "export", "journal.db").stdout.splitlines()
    assert json.loads(header)["kind"] == "journal"


@pytest.mark.parametrize("command", ["verify", "export"])
def test_a_file_that_is_no_journal_is_refused(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "text").write_text("this is not a database, it only looks like one to whoever does not look\n" * 100)
    for name in ("text", "absent"):
        result = run("journal", command, name)
        assert result.exit_code == 1
        assert name in result.stderr


def test_the_exit_code_of_the_daemon_is_that_of_the_command(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def run_daemon(path: Path) -> int:
        asked.append(path)
        return 78

    daemon: Any = types.ModuleType("sixfbd.daemon")
    daemon.run_daemon = run_daemon
    monkeypatch.setitem(sys.modules, "sixfbd.daemon", daemon)
    assert run("run", "--config", "mine.toml").exit_code == 78
    assert run("run").exit_code == 78
    assert asked == [Path("mine.toml"), tmp_path / "sixfbd.toml"]


def test_the_clones_configuration_comes_before_the_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "clone_root", lambda: tmp_path)
    monkeypatch.setattr(module, "SYSTEM_CONFIG", tmp_path / "system.toml")
    own = tmp_path / ".run" / "sixfbd.toml"
    assert find_config({}) == own
    (tmp_path / "system.toml").touch()
    assert find_config({}) == tmp_path / "system.toml"
    own.parent.mkdir()
    own.touch()
    assert find_config({}) == own
    assert find_config({"SIXFBD_CONFIG": "env.toml"}) == Path("env.toml")
    assert find_config({"SIXFBD_CONFIG": "env.toml"}, Path("given.toml")) == Path("given.toml")
    monkeypatch.setattr(module, "clone_root", lambda: None)
    monkeypatch.setattr(module, "SYSTEM_CONFIG", SYSTEM_CONFIG)
    assert find_config({}) == SYSTEM_CONFIG


def test_help_imports_none_of_the_heavy_parts() -> None:
    heavy = "trio numpy httpx quart hypercorn structlog rich jinja2 pluggy prometheus_client asyncio sqlite3"
    code = f"import sys, sixfbd.cli; print([name for name in {heavy.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_leaves_ends_it_without_a_word(tmp_path: Path) -> None:
    environ = {**os.environ, "SIXFBD_CONFIG": str(write(tmp_path, ""))}
    with subprocess.Popen(
        [Path(sys.executable).with_name("sixfbd"), "config", "schema"],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == ""
