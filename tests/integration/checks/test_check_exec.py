"""The `exec` check and the `exec` notifier over real programs: exit codes, limits, groups of processes, secrets."""

import json
import os
import sys
import textwrap
from pathlib import Path

import pytest
import trio

from sixfbd.model import MessageId
from sixfbd.plugin import InvalidOptions, Notification, PermanentFailure, Secret, Severity, Status, TemporaryFailure
from sixfbd.quantities import Duration
from sixfbd_plugins import programs
from sixfbd_plugins.checks.exec import ExecCheck, ExecOptions
from sixfbd_plugins.notifiers.exec import ExecNotifier
from tests.provider_kit import ManualClock, PluginContext

SECRET = "hunter2-hunter2"


@pytest.fixture
def script(tmp_path):
    def made(text):
        path = tmp_path / "program"
        path.write_text(f"#!{sys.executable}\n{textwrap.dedent(text)}")
        path.chmod(0o755)
        return str(path)

    return made


def check(*command, **options):
    return ExecCheck(ExecOptions(command=command, **options), PluginContext(None, ManualClock(1000.0)))


def values(report):
    return {(one.metric, *(value for _, value in one.labels)): one.value for one in report.samples}


@pytest.mark.parametrize(
    ("code", "status", "state", "text"),
    [
        (0, Status.HEALTHY, 0, "OK: fine"),
        (1, Status.DEGRADED, 1, "WARNING: fine"),
        (2, Status.UNHEALTHY, 2, "CRITICAL: fine"),
        (3, Status.UNKNOWN, 3, "UNKNOWN: fine"),
        (4, Status.UNKNOWN, 3, "UNKNOWN: exit code 4: fine"),
        (127, Status.UNKNOWN, 3, "UNKNOWN: exit code 127: fine"),
    ],
)
async def test_the_exit_code_is_the_state_and_the_first_line_the_summary(script, code, status, state, text):
    report = await check(script(f"print('fine | a=1s;2;3')\nprint('more')\nraise SystemExit({code})")).run(None)
    assert (report.status, report.summary) == (status, text)
    found = values(report)
    assert found["exec_state",] == state and found["exec_perfdata", "a", "seconds"] == 1
    assert found["exec_perfdata_limit", "a", "critical", "seconds"] == 3


async def test_the_state_is_said_once_if_the_program_says_it(script):
    assert (await check(script("print('DISK CRITICAL - full'); raise SystemExit(2)")).run(None)).summary == (
        "DISK CRITICAL - full"
    )


async def test_a_program_that_says_nothing_is_said_to_and_its_errors_are_shown(script):
    assert (await check(script("pass")).run(None)).summary == "OK: it said nothing"
    failing = check(script("import sys; print('no library', file=sys.stderr); raise SystemExit(3)"))
    assert (await failing.run(None)).summary == "UNKNOWN: no library"


async def test_a_program_that_is_killed_or_is_not_there_is_unknown(script):
    report = await check(script("import os; os.kill(os.getpid(), 9)")).run(None)
    assert (report.status, report.summary) == (Status.UNKNOWN, "UNKNOWN: killed by SIGKILL: it said nothing")
    report = await check("/nonexistent/check_nothing").run(None)
    assert (report.status, report.summary) == (
        Status.UNKNOWN,
        "UNKNOWN: /nonexistent/check_nothing cannot be started: No such file or directory",
    )


SLOW = """
    import os, subprocess, sys
    child = subprocess.Popen(["sleep", "1000"])
    with open({path!r}, "w") as file:
        file.write(f"{{os.getpid()}} {{child.pid}}")
    os.rename({path!r}, {path!r} + ".done")
    child.wait()
"""


async def ends(*pids):
    """Wait until none of these processes runs."""
    with trio.fail_after(10):
        while any(_runs(pid) for pid in pids):  # noqa: ASYNC110 - a process of others tells nobody
            await trio.sleep(0.01)


def _runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def pids_in(path):
    with trio.fail_after(10):
        while not path.exists():  # noqa: ASYNC110 - a process tells nobody
            await trio.sleep(0.01)
    return [int(pid) for pid in path.read_text().split()]


async def test_a_program_that_is_too_slow_is_killed_with_its_children(script, tmp_path):
    path = tmp_path / "pids"
    report = await check(script(SLOW.format(path=str(path))), deadline=Duration(1)).run(None)
    assert (report.status, report.summary) == (Status.UNKNOWN, "UNKNOWN: it did not end within 1 s and was killed")
    await ends(*await pids_in(path.with_name("pids.done")))


async def test_a_program_whose_run_is_cancelled_is_killed_with_its_children(script, tmp_path):
    path = tmp_path / "pids"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(check(script(SLOW.format(path=str(path)))).run, None)
        pids = await pids_in(path.with_name("pids.done"))
        nursery.cancel_scope.cancel()
    await ends(*pids)


async def test_a_child_that_keeps_the_output_open_is_not_waited_for(script):
    with trio.fail_after(10):
        report = await check(
            script("import subprocess; subprocess.Popen(['sleep', '15']); print('OK', flush=True)")
        ).run(None)
    assert (report.status, report.summary) == (Status.HEALTHY, "OK")


async def test_a_flood_of_output_is_read_and_dropped(script):
    flood = "import sys\nprint('OK flood')\nfor _ in range(3000): print('x' * 1000); print('y' * 1000, file=sys.stderr)"
    ended = await programs.run([script(flood)], within_s=30, most_bytes=5000)
    assert (ended.code, len(ended.output), len(ended.errors), ended.is_cut) == (0, 5000, 5000, True)


async def test_the_environment_is_what_is_configured_and_secrets_are_hidden(script, monkeypatch):
    monkeypatch.setenv("OF_THE_DAEMON", "1")
    program = script("import os; print('OK', sorted(os.environ), os.environ['PASSWORD'])")
    report = await check(
        program, environment={"REGION": "eu"}, secret_environment={"PASSWORD": Secret(SECRET, "a test")}
    ).run(None)
    assert "OF_THE_DAEMON" not in report.summary and SECRET not in report.summary
    assert "'PASSWORD', 'PATH', 'REGION'" in report.summary and report.summary.endswith("***")


async def test_performance_data_that_cannot_be_read_does_not_spoil_the_rest(script):
    report = await check(script("print('OK | a=1 nonsense b=x')")).run(None)
    assert report.status is Status.HEALTHY and values(report)["exec_perfdata", "a"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": ()}, "command: begins with the whole path of a program"),
        ({"command": ("check_users",)}, "command: begins with the whole path of a program"),
        ({"command": ("/bin/true", "a\0b")}, "command: holds a NUL character"),
        ({"command": ("/bin/true",), "environment": {"A=B": "1"}}, "environment: 'A=B' is no name of a variable"),
        (
            {"command": ("/bin/true",), "environment": {"A": "1"}, "secret_environment": {"A": Secret("x", "a test")}},
            "secret_environment: A stands in environment too",
        ),
    ],
)
def test_options_that_do_not_fit_are_named(options, said):
    for kind in (ExecOptions, ExecNotifier.Options):
        with pytest.raises(InvalidOptions, match=said):
            kind(**options)


# ---- the notifier ----------------------------------------------------------------------------------------------------------


def notifier(*command, timeout=30, **options):
    made = ExecNotifier(ExecNotifier.Options(command=command, **options), PluginContext(None, ManualClock(1000.0)))
    made.timeout = Duration(timeout)
    return made


MESSAGE = Notification(
    id=MessageId("m1"),
    receiver="primary",
    address="desk",
    status="firing",
    severity=Severity.HIGH,
    title="[FIRING:1] Hot",
    text="It is hot.",
)


async def test_a_program_gets_the_message_and_takes_it(script, tmp_path):
    path = tmp_path / "told"
    program = script(f"""
        import json, os, sys
        told = {{key: value for key, value in os.environ.items() if key.startswith("SIXFBD_")}}
        open({str(path)!r}, "w").write(json.dumps([json.load(sys.stdin), told]))
        print("ticket 17")
    """)
    receipt = await notifier(program).deliver(MESSAGE)
    assert (receipt.state, receipt.message_id, receipt.detail) == ("accepted", "m1", "ticket 17")
    payload, variables = json.loads(path.read_text())
    assert (payload["id"], payload["address"], payload["title"], payload["text"]) == (
        "m1", "desk", "[FIRING:1] Hot", "It is hot."
    )  # fmt: skip
    assert variables == {
        "SIXFBD_ID": "m1",
        "SIXFBD_STATUS": "firing",
        "SIXFBD_SEVERITY": "high",
        "SIXFBD_RECEIVER": "primary",
        "SIXFBD_ADDRESS": "desk",
        "SIXFBD_TITLE": "[FIRING:1] Hot",
        "SIXFBD_POSSIBLY_REPEATED": "",
    }


@pytest.mark.parametrize(
    ("program", "failure", "sent", "said"),
    [
        (
            "import sys; print('desk is closed', file=sys.stderr); sys.exit(75)",
            TemporaryFailure,
            False,
            "exit code 75: desk is closed",
        ),
        (
            "import sys; print('no such desk'); sys.exit(67)",
            PermanentFailure,
            None,
            "exit code 67: no such desk (no such user)",
        ),
        ("import os; os.kill(os.getpid(), 9)", TemporaryFailure, True, "killed by signal 9"),
        ("import time; time.sleep(1000)", TemporaryFailure, True, "it did not end within 1 s and was killed"),
        ("import os; print(os.environ['KEY']); raise SystemExit(1)", TemporaryFailure, False, "exit code 1: ***"),
    ],
)
async def test_what_becomes_of_a_message_is_what_the_program_says(script, program, failure, sent, said):
    one = notifier(script(program), timeout=1, secret_environment={"KEY": Secret(SECRET, "a test")})
    with pytest.raises(failure) as caught:
        await one.deliver(MESSAGE)
    assert str(caught.value) == said
    assert sent is None or caught.value.sent is sent


async def test_a_program_that_is_not_there_has_told_nobody():
    with pytest.raises(TemporaryFailure, match="/nonexistent cannot be started: No such file or directory") as caught:
        await notifier("/nonexistent").deliver(MESSAGE)
    assert caught.value.sent is False


async def test_a_program_that_does_not_read_may_take_the_message_too(script):
    huge = Notification(**{key: getattr(MESSAGE, key) for key in MESSAGE.__struct_fields__} | {"text": "x" * 2**20})
    assert (await notifier(script("pass")).deliver(huge)).state == "accepted"


async def test_no_more_programs_run_at_once_than_the_limit(script, tmp_path):
    program = script(f"""
        import os, time
        folder = {str(tmp_path)!r}
        mine = os.path.join(folder, f"run-{{os.getpid()}}")
        open(mine, "w").close()
        print(len([name for name in os.listdir(folder) if name.startswith("run-")]))
        time.sleep(0.2)
        os.unlink(mine)
    """)
    seen = []

    async def once():
        seen.append(int((await programs.run([program], within_s=60)).output))

    async with trio.open_nursery() as nursery:
        for _ in range(programs.AT_ONCE + 8):
            nursery.start_soon(once)
    assert len(seen) == programs.AT_ONCE + 8 and max(seen) <= programs.AT_ONCE


def test_the_tests_of_groups_look_at_real_processes():
    assert _runs(os.getpid()) and not _runs(2**22 + 1)
