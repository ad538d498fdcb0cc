"""Programs run on the side, bounded in time and in what they may write.

A program gets a clean environment and a process group of its own: one that is too slow, or whose run is cancelled, is killed
with all that it started in that group. What it leaves behind when it ends by itself is its own business.
"""

import os
import signal
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import trio
from msgspec import Struct

AT_ONCE: Final = 16  # programs, of all checks; others wait for their turn
CLOSING_S: Final = 1.0  # after it has ended, for what else holds its output
ENDING_S: Final = 2.0  # for the system to end what was killed; what hangs in a disk is left behind
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT: Final[Mapping[str, str]] = {"PATH": PATH, "LC_ALL": "C", "HOME": "/nonexistent"}

_turns = trio.CapacityLimiter(AT_ONCE)


class Ended(Struct, frozen=True):
    """How a program ended: its exit code (a signal's number below 0), and the first of what it wrote; `is_cut`: there was
    more."""

    code: int
    output: bytes
    errors: bytes
    is_cut: bool = False


class CannotStartError(Exception):
    """The program could not be started; says why."""


class TooSlowError(Exception):
    """The program did not end in time, and was killed with all of its group."""


def validate_command(command: Sequence[str]) -> None:
    """Raise ValueError for what is no command."""
    if not command or not command[0].startswith("/"):
        raise ValueError('begins with the whole path of a program, such as "/usr/lib/nagios/plugins/check_ssh"')
    if any("\0" in one for one in command):
        raise ValueError("holds a NUL character; drop it")


def validate_environment(names: Iterable[str], others: Collection[str]) -> None:
    """Raise ValueError for what are no names of variables, or are set by others too."""
    for name in names:
        if not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} is no name of a variable")
        if name in others:
            raise ValueError(f"{name} stands in environment too; drop one")


async def run(
    command: Sequence[str],
    *,
    within_s: float,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    most_bytes: int = 64 * 1024,
) -> Ended:
    """Run a program to its end. Raises CannotStartError, or TooSlowError after `within_s`; its turn is waited for besides."""
    async with _turns:
        try:
            process = await trio.lowlevel.open_process(
                list(command),
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                cwd="/",
                env={**ENVIRONMENT, **(environment or {})},
            )
        except OSError as error:
            raise CannotStartError(f"{command[0]} cannot be started: {error.strerror}") from error
        output, errors = _Kept(most_bytes), _Kept(most_bytes)
        try:
            with trio.fail_after(within_s):
                code = await _followed(process, stdin, output, errors)
        except trio.TooSlowError:
            raise TooSlowError(f"it did not end within {within_s:g} s and was killed") from None
        finally:
            await _end(process)
        return Ended(code, bytes(output.kept), bytes(errors.kept), output.is_cut)


class _Kept:
    """The first of what a program writes; the rest is read and dropped, so that the program need not wait."""

    def __init__(self, most: int) -> None:
        self.kept = bytearray()
        self.is_cut = False
        self._most = most

    def add(self, part: bytes | bytearray) -> None:
        left = self._most - len(self.kept)
        self.kept += part[:left]
        self.is_cut = self.is_cut or len(part) > left


async def _followed(process: trio.Process, stdin: bytes, output: _Kept, errors: _Kept) -> int:
    """Return the exit code, once what it wrote is read; a child that keeps its output open is not waited for."""
    assert process.stdout is not None and process.stderr is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_read, process.stdout, output)
        nursery.start_soon(_read, process.stderr, errors)
        if process.stdin is not None:
            nursery.start_soon(_write, process.stdin, stdin)
        code = await process.wait()
        nursery.cancel_scope.deadline = trio.current_time() + CLOSING_S
    return code


async def _read(stream: trio.abc.ReceiveStream, kept: _Kept) -> None:
    async for part in stream:
        kept.add(part)


async def _write(stream: trio.abc.SendStream, data: bytes) -> None:
    with suppress(trio.BrokenResourceError):  # it need not read what it is told
        async with stream:
            await stream.send_all(data)


async def _end(process: trio.Process) -> None:
    """Kill the group of a program that has not ended, and wait for the program; by then its number may be another's."""
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + ENDING_S):
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()
        await process.wait()
