"""sixfbctl against a served control socket: what it prints for people and scripts, and its exit codes."""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from sixfbd.control import address
from sixfbd.control.engine import JournalView
from sixfbd.ctl import cli
from sixfbd.model import CheckName, CheckState, Status

Until = Callable[[str, Callable[[], bool]], None]
SIXFBCTL = Path(sys.executable).with_name("sixfbctl")


@pytest.fixture
def ctl(served: Any) -> Callable[..., Result]:
    def run(*args: str, types: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["--socket", str(served.path), *args], input=types, prog_name="sixfbctl")

    return run


def printed_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


# ---- what is printed ------------------------------------------------------------------------------------------------


def test_status_says_what_there_is_and_problems_last(ctl: Any, served: Any) -> None:
    served.engine.problems = ("plugin mine is left out",)
    result = ctl("status")
    assert result.exit_code == 0
    assert "up 1m30s" in result.stdout
    assert "2 healthy, 1 unhealthy" in result.stdout
    assert "http://127.0.0.1:9632" in result.stdout
    assert result.stdout.splitlines()[-1] == "problem: plugin mine is left out"


def test_silences_are_listed_made_tried_out_and_ended(ctl: Any, served: Any) -> None:
    listed = ctl("silence", "list").stdout.splitlines()
    assert listed[0].split() == ["ID", "STATE", "ENDS", "IN", "HOLDS", "MATCHERS", "AUTHOR", "COMMENT"]
    assert listed[1].startswith("silence-1") and "moving" in listed[1]
    made = ctl("silence", "add", 'city="dallas"', "--for", "2h", "--comment", "moving")
    assert made.exit_code == 0 and made.stdout.startswith("silence silence-1 matches 2")
    [(_, command, _)] = [call for call in served.engine.calls if call[0] == "add_silence"]
    assert (command.matchers, command.duration_s, command.comment) == (('city="dallas"',), 7200.0, "moving")
    assert ctl("silence", "expire", "silence-1").stdout == "silence silence-1 has ended\n"
    gone = ctl("silence", "expire", "nonesuch")
    assert gone.exit_code == 1 and "nonesuch" in gone.stderr


def test_a_silence_that_is_only_tried_out_changes_nothing(ctl: Any, served: Any) -> None:
    tried = ctl("silence", "add", 'check="shop"', "--dry-run")
    assert "ProbeFailed" in tried.stdout and "1 of the alerts" in tried.stdout
    assert "no pending or firing alert matches" in ctl("silence", "add", "a=b", "--dry-run").stdout
    assert not [call for call in served.engine.calls if call[0] == "add_silence"]


@pytest.mark.parametrize("option", [("--until", "-1h"), ("--for", "0s"), ("--for", "5x")])
def test_a_silence_that_would_end_before_it_begins_is_a_wrong_command_line(ctl: Any, option: tuple[str, str]) -> None:
    assert ctl("silence", "add", "a=b", *option).exit_code == 2


def test_a_route_is_tried_out_with_labels_and_says_who_is_told_when_and_what_stands_against_it(ctl: Any) -> None:
    told = ctl("route", "test", "alertname=Down", "severity=critical")
    assert told.exit_code == 0
    assert told.stdout.splitlines() == [
        "no rule is called Down; severity critical is assumed",
        'route.routes[0]{severity="critical"}: receiver primary',
        "  hook",
        "  group Down: waits 10s for its group, then at most every 5m, again every 4h",
        "but it would be silenced by silence-1",
        "after 5m without an acknowledgement: boss",
    ]
    nobody = ctl("route", "test", "severity=low")
    assert nobody.exit_code == 1 and nobody.stdout.startswith("nobody would be told: no receiver")
    assert ctl("route", "test", "severity").exit_code == 2


def test_who_is_on_call_is_told_with_who_is_next(ctl: Any) -> None:
    head, line = ctl("oncall").stdout.splitlines()
    assert head.split() == ["ROTATION", "ON", "CALL", "UNTIL", "THEN"]
    assert line.split()[:2] == ["week", "anna"] and line.split()[-1] == "bert"
    assert ctl("oncall", "week", "--at", "+8h").exit_code == 0
    wrong = ctl("oncall", "weeks")
    assert wrong.exit_code == 1 and "no [oncall.NAME]" in wrong.stderr


def test_why_not_says_the_answer_first_and_then_what_it_is_from(ctl: Any, served: Any) -> None:
    said = ctl("why-not", "ProbeFailed", "check=shop", "--at", "2026-11-23T21:00:00Z")
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines()[0] == 'ProbeFailed{check="shop"}: its value is 1, which is not == 0'
    for part in ("probe_success == 0", "and 2 more", "probe_success  3", "200 in 3 ms"):
        assert part in said.stdout
    assert served.engine.calls[-1] == ("why_not", "ProbeFailed", {"check": "shop"}, 1795467600.0)
    wrong = ctl("why-not", "ProbFailed")
    assert wrong.exit_code == 1 and "did you mean" in wrong.stderr
    assert ctl("why-not", "ProbeFailed", "check").exit_code == 2


def test_a_report_is_an_outline_and_ends_with_why_something_is_not_known(ctl: Any, served: Any) -> None:
    said = ctl("report", "sales", "--timeframe", "7d", "--check", "shop")
    assert said.stdout.splitlines() == [
        "sold", "  tickets                  3", "  money                    -", "", "- sold.money: nobody counts",
    ]  # fmt: skip
    assert served.engine.calls[-1] == ("report", "sales", 604_800.0, "shop")
    assert "What was sold." in ctl("report").stdout


def test_the_way_to_people_is_tried_out_and_the_exit_code_says_whether_all_were_reached(ctl: Any, served: Any) -> None:
    reached = ctl("notify", "test")
    assert reached.exit_code == 0
    assert reached.stdout.splitlines()[1].split() == ["primary", "hook", "accepted", "400ms", "-"]
    some = ctl("notify", "test", "boss", "--wait", "5")
    assert some.exit_code == 1 and "replied STOP" in some.stdout
    assert served.engine.calls[-1] == ("test_notify", ("boss",), 5.0)


def test_a_drill_is_held_now_and_its_exit_code_says_whether_it_arrived(ctl: Any, served: Any) -> None:
    held = ctl("drill", "primary")
    assert held.exit_code == 0
    assert held.stdout.splitlines()[1].split() == ["primary", "hook", "delivered", "400ms", "-"]
    assert served.engine.calls[-1] == ("hold_drill", ("primary",), 30.0)


def test_checks_are_a_table_with_heads(ctl: Any) -> None:
    lines = ctl("checks").stdout.splitlines()
    assert lines[0].split() == ["CHECK", "STATUS", "PLUGIN", "EVERY", "LAST", "RUN", "TOOK", "SUMMARY"]
    assert lines[1].startswith("shop") and lines[1].endswith("connection refused")


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["series", "up"], 'up{job="shop"}'),
        (["query", "up"], 'up{job="shop"}  1'),
        (["alerts"], "The shop does not answer"),
        (["check", "run", "shop"], "shop: healthy after 3ms: 200 in 3 ms"),
        (["check", "pause", "shop"], "shop is paused"),
        (["check", "resume", "shop"], "shop is running again"),
        (["ack", "inc-1", "--comment", "on it"], "acknowledged inc-1"),
        (["events"], '2  2027-01-15 08:00:02Z  ticket_sale  sale-2  {"quantity":2}'),
        (["outbox", "list"], "msg-1"),
        (["outbox", "show", "msg-1"], "HTTP 200"),
        (["plugins"], "left out: mine (/etc/sixfbd/plugins.d/mine.py): line 3: no such name"),
        (["plugins", "release", "mine"], "plugin mine is in again"),
        (["token", "create", "shop"], "sixfbd_0123456789abcdef"),
        (["token", "list"], "uid:0 root"),
        (["token", "revoke", "shop"], "revoked shop"),
        (["journal", "status"], "4.0 KiB"),
        (["journal", "verify"], "nothing is wrong (10 records)"),
        (["journal", "backup", "/tmp/copy.db"], "wrote /tmp/copy.db (2.0 KiB)"),
        (["reload"], "check shop: interval 30s → 10s"),
    ],
)
def test_each_command_prints_its_answer_for_people(ctl: Any, args: list[str], part: str) -> None:
    result = ctl(*args)
    assert result.exit_code == 0, result.output
    assert part in result.stdout


def test_a_customer_is_forgotten_when_somebody_has_said_so(ctl: Any, served: Any) -> None:
    engine = served.engine
    refused = ctl("journal", "erase", "customer=7", types="n\n")
    assert refused.exit_code == 1 and "Forget this customer in 3 events, for good?" in refused.stderr
    assert engine.erased == []
    for args, said in ((("--dry-run",), "would be erased in 3 events"), (("--yes",), "erased in 3 events")):
        result = ctl("journal", "erase", "customer=7", *args)
        assert (
            result.stdout.startswith(said)
            and "delete it when it is no longer needed: /state/journal.db.v3" in result.stdout
        )
    assert ctl("journal", "erase", "customer=8", types="y\n").exit_code == 0
    assert engine.erased == ["7", "8"]
    assert "write customer=ID" in ctl("journal", "erase", "email=a@example.com", "--yes").stderr


JSON_COMMANDS = [
    (["status"], "site"),
    (["checks"], 0),
    (["series"], "total"),
    (["query", "up"], "series"),
    (["alerts"], 0),
    (["why", "inc-1"], "records"),
    (["check", "run", "shop"], "samples"),
    (["check", "pause", "shop"], None),
    (["ack", "inc-1"], None),
    (["silence", "add", 'check="shop"'], "id"),
    (["silence", "list"], 0),
    (["silence", "expire", "silence-1"], None),
    (["notify", "test"], "targets"),
    (["drill"], "targets"),
    (["why-not", "ProbeFailed"], "verdict"),
    (["report", "sales"], "sold"),
    (["route", "test", "severity=critical"], "routes"),
    (["oncall"], 0),
    (["events"], 0),
    (["events", "emit", "x"], "seq"),
    (["outbox", "list"], "obligations"),
    (["outbox", "show", "msg-1"], "history"),
    (["outbox", "retry", "msg-1"], None),
    (["outbox", "drop", "msg-1"], None),
    (["plugins"], 0),
    (["plugins", "release", "mine"], "changed"),
    (["token", "create", "x"], "token"),
    (["token", "list"], 0),
    (["token", "revoke", "x"], None),
    (["journal", "status"], "facts"),
    (["journal", "verify"], "problems"),
    (["journal", "backup", "/tmp/x"], "path"),
    (["journal", "erase", "customer=7", "--dry-run"], "events"),
    (["reload"], "changed"),
]


@pytest.mark.parametrize(("args", "key"), JSON_COMMANDS)
def test_each_command_prints_json_with_the_flag_before_or_behind_its_name(ctl: Any, args: list[str], key: Any) -> None:
    behind = printed_json(ctl(*args, "--json"))
    before = printed_json(ctl("--json", *args))
    assert behind == before
    assert key is None or behind[key] is not None


def test_every_command_that_answers_is_tried_with_json() -> None:
    tried = {tuple(word for word in args if word.replace("-", "").isalpha())[:2] for args, _ in JSON_COMMANDS}

    def leaves(group: click.Group, path: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        found: set[tuple[str, ...]] = set()
        for name, command in group.commands.items():
            found |= leaves(command, (*path, name)) if isinstance(command, click.Group) else {(*path, name)}
        return found

    without = {("completion",), ("stop",), ("journal", "export"), ("check", "resume"), ("events", "emit")}
    for leaf in leaves(cli) - without:
        assert any(attempt[: len(leaf)] == leaf for attempt in tried), leaf


def test_alerts_are_flat_for_scripts(ctl: Any) -> None:
    [alert] = printed_json(ctl("alerts", "--json"))
    assert (alert["rule"], alert["state"], alert["labels"]["check"]) == ("ProbeFailed", "firing", "shop")


def test_why_tells_the_whole_story_in_order(ctl: Any) -> None:
    story = ctl("why", "inc-1").stdout
    parts = [
        "probe_success == 0",
        "routed to",
        "inactive → firing, high, value 0",
        'read probe_success{check="shop"} = 0 at 08:00:09.500',
        "owed: fire to primary through hook: accepted",
        "message msg-1 to primary through hook: accepted, try 2: HTTP 200",
        "acknowledged by uid:1000 alice: on it",
    ]
    places = [story.find(part) for part in parts]
    assert -1 not in places, story
    assert places == sorted(places)


def test_a_span_is_a_line_a_series_with_a_chart(ctl: Any, served: Any) -> None:
    result = ctl("query", "up", "--range", "8s", "--step", "1s")
    assert "8       0    3.5  7    7     ▁▂▃▄▅▆▇█" in result.stdout
    assert "warning: cut" in result.stdout
    [call] = served.engine.calls
    assert call[0] == "query_range" and call[3] - call[2] == pytest.approx(8) and call[4] == 1.0


def test_times_are_dates_unix_seconds_or_so_long_ago(ctl: Any, served: Any) -> None:
    ctl("query", "up", "--start", "2026-11-23T21:00:00Z", "--end", "1795467660", "--step", "1m")
    ctl("query", "up", "--at", "-1h")
    (_, _, start, end, step), (_, _, at) = served.engine.calls
    assert (end - start, step) == (60.0, 60.0)
    assert at < end + 10**9 and at is not None


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["query", "up", "--at", "yesterday"], "is not a time"),
        (["query", "up", "--range", "5"], "is not a duration"),
        (["query", "up", "--end", "0"], "--end and --step belong to"),
        (["query", "up", "--range", "5m", "--start", "0"], "give one of"),
        (["events", "emit", "sale", "quantity"], "is not KEY=VALUE"),
        (["chekcs"], "No such command"),
        (["query", "up", "--at", "nan"], "is not a time"),
        (["query", "up", "--start=-inf"], "is not a duration"),
        (["--timeout", "0", "status"], "write seconds above 0"),
        (["--timeout", "nan", "status"], "write seconds above 0"),
        (["--timeout", "1e300", "status"], "write seconds above 0"),
        (["check", "run"], "Missing argument"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_with_the_mend(ctl: Any, args: list[str], words: str) -> None:
    result = ctl(*args)
    assert result.exit_code == 2
    assert words in result.stderr


def test_values_of_an_event_that_read_as_json_are_taken_so_and_others_as_text(ctl: Any, served: Any) -> None:
    result = ctl("events", "emit", "sale", "quantity=2", "vip=true", "tier=ga", 'note="5"', "a=b=c", "--id", "s-1")
    assert result.stdout == "taken as number 3: s-1\n"
    [(_, kind, data, event_id, _, _)] = served.engine.calls
    assert (kind, event_id) == ("sale", "s-1")
    assert data == {"quantity": 2, "vip": True, "tier": "ga", "note": "5", "a": "b=c"}


def test_a_known_event_is_said_to_be_one(ctl: Any) -> None:
    assert ctl("events", "emit", "sale", "--id", "sale-1").stdout == "known already as number 3: sale-1\n"


def test_an_export_is_one_json_object_a_line(ctl: Any) -> None:
    lines = ctl("journal", "export").stdout.splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [0, 1, 2]


def test_messages_are_chosen_by_state_and_open_ones_are_those_not_done_with(ctl: Any, served: Any) -> None:
    assert printed_json(ctl("outbox", "list", "--open", "--json"))["messages"] == []
    assert len(printed_json(ctl("outbox", "list", "--state", "accepted", "--json"))["messages"]) == 1
    assert [call[1] for call in served.engine.calls] == ["open", "accepted"]
    assert ctl("outbox", "list", "--state", "lost").exit_code == 2


def test_stop_returns_when_the_daemon_no_longer_answers(ctl: Any, served: Any) -> None:
    result = ctl("stop")
    assert (result.exit_code, result.stdout) == (0, "stopped\n")
    assert not address.is_answered(served.path)


# ---- exit codes ------------------------------------------------------------------------------------------------------


def test_a_refusal_is_exit_code_1_with_the_daemons_words(ctl: Any) -> None:
    result = ctl("query", "up{")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "sixfbctl: line 1, column 4: the braces are not closed",
        "up{",
        "   ^",
    ]


def test_a_refused_reload_names_every_error(ctl: Any, served: Any) -> None:
    served.engine.problems = ("a.toml: [http] listen: no port", "a.toml: [site] tiemzone: unknown key")
    result = ctl("reload")
    assert result.exit_code == 1
    assert "nothing has changed" in result.stderr
    assert all(f"  {problem}" in result.stderr for problem in served.engine.problems)


def test_a_journal_with_something_wrong_is_exit_code_1(ctl: Any, served: Any) -> None:
    served.engine.problems = ("event 7 is missing",)
    result = ctl("journal", "verify")
    assert (result.exit_code, result.stdout) == (1, "event 7 is missing\n")


def test_a_daemon_that_does_not_run_is_exit_code_3_and_one_line_with_the_command_that_starts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "clone_root", lambda: tmp_path)
    path = tmp_path / ".run" / "control.sock"
    result = CliRunner().invoke(cli, ["--socket", str(path), "status"], prog_name="sixfbctl")
    assert result.exit_code == 3
    [line] = result.stderr.splitlines()
    assert "sixfbd is not running" in line and str(path) in line and line.endswith(f"start it with: {tmp_path}/run")


def test_a_stale_socket_reads_as_not_running(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert CliRunner().invoke(cli, ["--socket", str(path), "checks"]).exit_code == 3


def test_no_answer_in_time_is_exit_code_4_and_says_that_it_may_still_happen(ctl: Any, served: Any) -> None:
    import trio

    async def never() -> Any:
        await trio.sleep(2)

    served.engine.on_status = never
    result = ctl("--timeout", "0.1", "status")
    assert result.exit_code == 4
    assert "no answer within 0.1 s" in result.stderr and "--timeout" in result.stderr


@pytest.mark.parametrize("answer", [b"", b'{"jsonrpc": "2.0", "id"', b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[]\n"])
def test_an_answer_that_breaks_off_or_is_none_is_exit_code_4(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_once)
        thread.start()
        result = CliRunner().invoke(cli, ["--socket", str(path), "status"])
        thread.join(10)
    assert result.exit_code == 4, result.output


def test_a_report_of_which_something_is_refused_is_exit_code_5(ctl: Any) -> None:
    result = ctl("check", "run", "machine")
    assert result.exit_code == 5
    assert result.stdout.splitlines()[-1] == "refused: speed: is not declared in the plugin's metrics"
    answer = ctl("check", "run", "machine", "--json")
    assert answer.exit_code == 5
    kind = {"reason": "speed: is not declared in the plugin's metrics", "count": 1, "examples": []}
    assert json.loads(answer.stdout)["refused"] == {"count": 1, "kinds": [kind], "cursor_stays": False}


def test_the_exit_codes_stand_in_the_help() -> None:
    text = CliRunner().invoke(cli, ["--help"]).stdout
    for code, words in (
        (0, "done"),
        (1, "refused"),
        (2, "command line"),
        (3, "not running"),
        (4, "no answer in time"),
        (5, "not healthy"),
        (130, "Ctrl-C"),
        (141, "reader"),
    ):
        assert any(line.strip().startswith(f"{code}  ") and words in line for line in text.splitlines()), text


def test_with_json_an_error_is_json_on_stderr_with_its_exit_code(ctl: Any, served: Any) -> None:
    served.engine.problems = ("a.toml: [x] is wrong", "b.toml: [y] is wrong")
    result = ctl("reload", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr) == {
        "error": {
            "message": "the configuration has errors; nothing has changed\n  a.toml: [x] is wrong\n  b.toml: [y] is wrong",
            "exit_code": 1,
        }
    }
    served.stop()
    assert json.loads(ctl("--json", "status").stderr)["error"]["exit_code"] == 3


ESCAPE = "\x1b]0;owned\x07\x9b31m\u202e"


@pytest.mark.parametrize("args", [["check", "run", ESCAPE], ["check", "run", ESCAPE, "--json"], ["checks", "--json"]])
def test_nothing_that_others_wrote_steers_the_terminal(ctl: Any, served: Any, args: list[str]) -> None:
    state = CheckState(CheckName("shop"), "webhook", 30.0, Status.UNHEALTHY, ESCAPE)

    async def checks() -> list[CheckState]:
        return [state]

    served.engine.checks = checks
    result = ctl(*args)
    printed = result.stdout + result.stderr
    assert "owned" in printed
    assert all(char.isprintable() or char == "\n" for char in printed), printed
    if args[0] == "checks":
        assert json.loads(result.stdout)[0]["summary"] == ESCAPE


def test_a_preview_shows_what_would_become_of_everything_and_fails_where_the_reload_would(
    ctl: Any, served: Any
) -> None:
    result = ctl("reload", "--preview")
    assert result.exit_code == 0
    assert "kept       check machine, 1 rules" in result.stdout
    assert "dropped    rule ProbeFailed" in result.stdout
    row = 'ProbeFailed{check="shop"}  high      would resolve  rule removed  primary through hook'
    assert row in result.stdout.splitlines()
    served.engine.problems = ("daemon.state_directory", "control.socket")
    result = ctl("reload", "--preview")
    assert result.exit_code == 1
    fixed = "daemon.state_directory, control.socket"
    assert result.stdout.splitlines()[-1] == f"needs restart: {fixed}; a reload would be refused as a whole"
    result = ctl("reload", "--preview", "--json")
    assert (result.exit_code, json.loads(result.stdout)["would_resolve"][0]["id"]) == (1, "inc-1")
    assert served.engine.audited == []


def test_an_answer_of_another_version_is_said_to_be_one(ctl: Any, served: Any) -> None:
    served.engine.on_status = lambda: {"version": 5}
    result = ctl("status")
    assert result.exit_code == 1
    assert "is not understood" in result.stderr and "the same version" in result.stderr


def test_the_facts_of_the_journal_have_names_that_people_use(ctl: Any, served: Any) -> None:
    async def status() -> JournalView:
        facts = {"path": "/j.db", "size_bytes": 4096, "last_commit_age_s": 3.0, "commit_p50_s": None, "last_error": ""}
        return JournalView({f"journal.{name}": fact for name, fact in facts.items()} | {"samples.queued": 0})

    served.engine.journal_status = status
    assert ctl("journal", "status").stdout.splitlines() == [
        "journal.db",
        "  file             /j.db",
        "  size             4.0 KiB",
        "  last commit      3s ago",
        "  commits, median  -",
        "  last error       none",
        "samples.db",
        "  rows to be written  0",
    ]


# ---- as a process ------------------------------------------------------------------------------------------------------


def run_process(served: Any, *args: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [SIXFBCTL, *args],
        env={**os.environ, "SIXFBD_SOCKET": str(served.path), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_following_prints_known_and_coming_events_and_ctrl_c_ends_it_without_a_word(served: Any) -> None:
    with run_process(served, "events", "--follow", "--json") as process:
        assert process.stdout is not None and process.stderr is not None
        assert [json.loads(process.stdout.readline())["seq"] for _ in range(4)] == [1, 2, 3, 4]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == ""
    assert ("follow_events", None, 2) in served.engine.calls


def test_a_reader_that_leaves_ends_it_without_a_word(served: Any) -> None:
    served.engine.export_size = 50_000
    with run_process(served, "journal", "export") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == ""


def test_a_daemon_that_stops_ends_following_with_exit_code_4(served: Any, until: Until) -> None:
    with run_process(served, "events", "--follow") as process:
        until("it follows", lambda: served.engine.followers == 1)
        served.stop()
        assert process.wait(10) == 4
        assert process.stderr is not None and "the daemon stops" in process.stderr.read()


def test_it_imports_neither_trio_nor_the_engines_heavy_parts() -> None:
    heavy = "trio numpy httpx quart hypercorn structlog rich jinja2 pluggy prometheus_client asyncio sqlite3"
    code = f"import sys, sixfbd.ctl; print([name for name in {heavy.split()} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_a_terminal_that_cannot_show_a_character_gets_its_code(served: Any) -> None:
    with run_process(served, "query", "up", "--range", "1h", PYTHONIOENCODING="latin-1") as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert "\\u2588" in out
    with run_process(served, "reload", "--json", PYTHONIOENCODING="latin-1") as process:
        out, err = process.communicate(timeout=20)
    assert json.loads(out)["changed"] == ["check shop: interval 30s → 10s"]


def test_a_disk_that_is_full_under_the_output_is_one_line(served: Any) -> None:
    with Path("/dev/full").open("w") as full:
        environ = {**os.environ, "SIXFBD_SOCKET": str(served.path)}
        done = subprocess.run([SIXFBCTL, "status"], env=environ, stdout=full, stderr=subprocess.PIPE, timeout=20)
    assert (done.returncode, done.stderr) == (1, b"sixfbctl: cannot write the answer: No space left on device\n")


def test_a_table_is_as_wide_as_the_terminal_and_as_it_needs_in_a_pipe(served: Any) -> None:
    main, side = os.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("4H", 24, 60, 0, 0))
    environ = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environ |= {"SIXFBD_SOCKET": str(served.path), "NO_COLOR": "1"}
    subprocess.run([SIXFBCTL, "alerts"], env=environ, stdout=side, check=True, timeout=20)
    os.close(side)
    lines = os.read(main, 65_536).decode().splitlines()
    os.close(main)
    assert lines[1].startswith("inc-1") and max(map(len, lines)) <= 60
    assert any("The shop does not answer" in line for line in lines[2:])
    with run_process(served, "alerts") as process:
        out, _ = process.communicate(timeout=20)
    assert len(out.splitlines()) == 2


def test_no_colours_reach_a_pipe(served: Any) -> None:
    with run_process(served, "checks") as process:
        out, _ = process.communicate(timeout=20)
    assert "\x1b" not in out and "unhealthy" in out


def test_colours_are_left_out_on_a_terminal_too_where_no_color_is_set(served: Any) -> None:
    colors = {}
    for wanted in ("", "1"):
        main, side = os.openpty()
        environ = {**os.environ, "SIXFBD_SOCKET": str(served.path), "NO_COLOR": wanted}
        subprocess.run([SIXFBCTL, "checks"], env=environ, stdout=side, check=True, timeout=20)
        os.close(side)
        colors[wanted] = b"\x1b[" in os.read(main, 65_536)
        os.close(main)
    assert colors == {"": True, "1": False}


# ---- completion ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_each_shell(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell])
    assert result.exit_code == 0
    assert "_SIXFBCTL_COMPLETE" in result.stdout


def complete(served: Any, words: str) -> list[str]:
    environ = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1), "_SIXFBCTL_COMPLETE": "bash_complete"}
    with run_process(served, **environ) as process:
        out, _ = process.communicate(timeout=20)
    return [line.split(",")[1] for line in out.splitlines() if line]


def test_names_of_checks_and_ids_of_alerts_are_completed_by_asking_the_daemon(served: Any) -> None:
    assert complete(served, "sixfbctl check run ") == ["shop", "machine"]
    assert complete(served, "sixfbctl check run sh") == ["shop"]
    assert complete(served, "sixfbctl ack ") == ["inc-1"]
    assert complete(served, "sixfbctl token revoke s") == ["shop"]


def test_zsh_and_fish_are_told_what_each_choice_is(served: Any) -> None:
    with run_process(served, COMP_WORDS="sixfbctl ack ", COMP_CWORD="2", _SIXFBCTL_COMPLETE="zsh_complete") as process:
        assert process.communicate(timeout=20)[0].splitlines() == ["plain", "inc-1", "ProbeFailed"]
    fish = {"COMP_WORDS": "sixfbctl check run", "COMP_CWORD": "sh", "_SIXFBCTL_COMPLETE": "fish_complete"}
    with run_process(served, **fish) as process:
        assert process.communicate(timeout=20)[0].splitlines() == ["plain,shop\tunhealthy"]


def test_bash_completes_by_the_script_that_it_is_given(served: Any, tmp_path: Path) -> None:
    script = (
        'eval "$(sixfbctl completion bash)"; COMP_WORDS=(sixfbctl check run m); COMP_CWORD=3;'
        ' _sixfbctl_completion sixfbctl; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{SIXFBCTL.parent}:{os.environ['PATH']}"
    environ = {**os.environ, "SIXFBD_SOCKET": str(served.path), "PATH": path}
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr) == ("machine\n", "")


def test_completion_does_not_wait_for_a_daemon_that_hangs(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "hung.sock"))
        listening.listen()
        environ = {**os.environ, "SIXFBD_SOCKET": str(tmp_path / "hung.sock"), "_SIXFBCTL_COMPLETE": "bash_complete"}
        done = subprocess.run(
            [SIXFBCTL],
            env={**environ, "COMP_WORDS": "sixfbctl ack ", "COMP_CWORD": "2"},
            capture_output=True,
            timeout=30,
        )
    assert (done.stdout.strip(), done.stderr) == (b"", b"")


def test_completion_without_a_daemon_offers_nothing_and_says_nothing(served: Any) -> None:
    served.stop()
    assert complete(served, "sixfbctl check run ") == []
