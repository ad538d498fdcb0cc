"""Programs of Debian's monitoring-plugins as `exec` checks, good and failing, against servers of the test's own."""

from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial

import pytest
import trio

from sixfbd.plugin import Status
from sixfbd_plugins.checks.exec import ExecCheck, ExecOptions
from tests.provider_kit import ManualClock, PluginContext

FOLDER = "/usr/lib/nagios/plugins"
OK, WARNING, CRITICAL, UNKNOWN = Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY, Status.UNKNOWN
NOBODY = 1  # a port that nobody listens on


async def greet(greeting: bytes, stream: trio.SocketStream) -> None:
    """Speak first, then answer every line so that HTTP, SMTP and their like are content."""
    with suppress(trio.BrokenResourceError):  # some leave without a word
        await converse(greeting, stream)


async def converse(greeting: bytes, stream: trio.SocketStream) -> None:
    async with stream:
        await stream.send_all(greeting)
        with trio.move_on_after(5):
            async for part in stream:
                if part.startswith((b"GET ", b"HEAD ")):
                    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")
                    return
                if part[:4].upper() in (b"QUIT", b"A1 L") or b"LOGOUT" in part:
                    return
                await stream.send_all(b"250 fine\r\n")


@pytest.fixture
async def port_of(nursery: trio.Nursery) -> AsyncIterator[object]:
    """Return the port of a server that greets with some bytes."""

    async def made(greeting: bytes) -> int:
        listeners = await nursery.start(partial(trio.serve_tcp, partial(greet, greeting), 0, host="127.0.0.1"))
        return int(listeners[0].socket.getsockname()[1])

    yield made


LOCAL = [
    ("check_dummy 0 fine", OK, "OK: fine", ()),
    ("check_dummy 1 soso", WARNING, "WARNING: soso", ()),
    ("check_dummy 2 bad", CRITICAL, "CRITICAL: bad", ()),
    ("check_dummy 3 who", UNKNOWN, "UNKNOWN: who", ()),
    ("check_disk -w 1B -c 1B -p /", OK, "DISK OK", ("/",)),
    ("check_disk -w 101% -c 101% -p /", CRITICAL, "DISK CRITICAL", ("/",)),
    ("check_load -w 999,999,999 -c 999,999,999", OK, "LOAD OK", ("load1", "load5", "load15")),
    ("check_procs -w 1:99999", OK, "PROCS OK", ("procs",)),
    ("check_procs -c 99999:", CRITICAL, "PROCS CRITICAL", ("procs",)),
    ("check_users -w 9999 -c 9999", OK, "USERS OK", ("users",)),
    ("check_swap -n ok -w 1% -c 0%", OK, "SWAP OK", ("swap",)),
    ("check_file_age -f /etc/passwd -w 999999999 -c 999999999", OK, "FILE_AGE OK", ("age", "size")),
    ("check_file_age -f /nonexistent", CRITICAL, "FILE_AGE CRITICAL", ()),
    ("check_cluster -s -d 0,0,0 -c 1", OK, "CLUSTER OK", ()),
    ("check_cluster -s -d 2,2,0 -c 0", CRITICAL, "CLUSTER CRITICAL", ()),
    ("negate /usr/lib/nagios/plugins/check_dummy 0", CRITICAL, "CRITICAL: OK", ()),
    ("check_mrtg -F /nonexistent -a MAX -v 1 -w 1 -c 2", UNKNOWN, "UNKNOWN: Unable to open MRTG log file", ()),
    ("check_nagios -F /nonexistent -e 5 -C nagios", CRITICAL, "NAGIOS CRITICAL", ()),
    ("check_sensors", UNKNOWN, "SENSORS UNKNOWN", ()),
    ("check_disk --nonsense", UNKNOWN, "UNKNOWN: ", ()),
]
SPEAKERS = [
    ("check_tcp -H 127.0.0.1 -p {port}", b"hello\r\n", "TCP OK", ("time",)),
    ("check_http -H 127.0.0.1 -p {port}", b"", "HTTP OK", ("time", "size")),
    ("check_ftp -H 127.0.0.1 -p {port}", b"220 ready\r\n", "FTP OK", ("time",)),
    ("check_smtp -H 127.0.0.1 -p {port}", b"220 ready\r\n", "SMTP OK", ("time",)),
    ("check_pop -H 127.0.0.1 -p {port}", b"+OK ready\r\n", "POP OK", ("time",)),
    ("check_imap -H 127.0.0.1 -p {port}", b"* OK ready\r\n", "IMAP OK", ("time",)),
    ("check_nntp -H 127.0.0.1 -p {port}", b"200 ready\r\n", "NNTP OK", ("time",)),
    ("check_ssh -p {port} 127.0.0.1", b"SSH-2.0-OpenSSH_9.2\r\n", "SSH OK", ("time",)),
]
PROGRAMS = {command.split()[0] for command, *_ in (*LOCAL, *SPEAKERS)}


async def run(command: str) -> tuple[Status, str, set[str]]:
    name, *arguments = command.split()
    options = ExecOptions(command=(f"{FOLDER}/{name}", *arguments))
    report = await ExecCheck(options, PluginContext(None, ManualClock(0.0))).run(None)
    labels = (dict(one.labels) for one in report.samples if one.metric == "exec_perfdata")
    return report.status, report.summary, {one["label"] for one in labels}


def test_twenty_programs_are_tried() -> None:
    assert len(PROGRAMS) >= 20


@pytest.mark.parametrize(("command", "status", "said", "measured"), LOCAL, ids=[one[0] for one in LOCAL])
async def test_a_program_that_looks_at_this_machine(
    command: str, status: Status, said: str, measured: tuple[str, ...]
) -> None:
    found, summary, labels = await run(command)
    assert found is status, summary
    assert summary.startswith(said) and labels >= set(measured)


@pytest.mark.parametrize(("command", "greeting", "said", "measured"), SPEAKERS, ids=[one[0] for one in SPEAKERS])
async def test_a_program_that_asks_a_server(
    port_of: object, command: str, greeting: bytes, said: str, measured: tuple[str, ...]
) -> None:
    port = await port_of(greeting)  # type: ignore[operator]
    found, summary, labels = await run(command.format(port=port))
    assert found is OK, summary
    assert summary.startswith(said) and labels >= set(measured)
    found, summary, _ = await run(command.format(port=NOBODY))
    assert found is CRITICAL and "refused" in summary
