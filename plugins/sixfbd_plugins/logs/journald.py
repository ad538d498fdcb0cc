"""systemd's journal, read by journalctl: entries after a cursor, as https://systemd.io/JOURNAL_EXPORT_FORMATS/ has them in JSON.

Owns the process: it never outlives the call. What is longer than journalctl shows of a field, 4 KiB, comes without text.
"""

import subprocess
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import trio
from msgspec import Struct

MOST_ERROR_BYTES: Final = 2000


class Page(Struct, frozen=True):
    """Messages, when they were written (unix seconds) and the journal's cursor at each; the cursor after all of them;
    `more`: there were others."""

    lines: Sequence[bytes] = ()
    times: Sequence[float] = ()
    cursors: Sequence[str] = ()
    cursor: str = ""
    without_text: int = 0
    more: bool = False


class JournalError(Exception):
    """The journal cannot be read; says why and how to mend it."""


def command(after: str, since: float, units: Sequence[str], identifiers: Sequence[str], directory: str) -> list[str]:
    """Return how entries after a cursor, or since a time if there is none yet, are asked for, oldest first."""
    return [
        "journalctl", "--output=json", "--output-fields=MESSAGE", "--no-pager", "--quiet",
        f"--after-cursor={after}" if after else f"--since=@{int(since)}",
        *(f"--unit={unit}" for unit in units),
        *(f"--identifier={identifier}" for identifier in identifiers),
        *((f"--directory={directory}",) if directory else ()),
    ]  # fmt: skip


async def read(asked: Sequence[str], most: int) -> tuple[bytes, bool]:
    """Run journalctl; return what it writes, at most so many bytes, and whether there was more. Raises JournalError.

    To be cancelled by whoever has a limit of time.
    """
    try:
        process = await trio.lowlevel.open_process(
            asked, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except FileNotFoundError:
        raise JournalError("there is no journalctl here; it comes with systemd") from None
    except OSError as error:
        raise JournalError(f"journalctl cannot be started: {error.strerror}") from error
    said = bytearray()
    written = bytearray()
    assert process.stdout is not None and process.stderr is not None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_keep_first, process.stderr, said)
            while len(written) < most and (part := await process.stdout.receive_some(65536)):
                written += part
            if is_cut := len(written) >= most:
                process.kill()
        code = await process.wait()
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.stdout.aclose()
            await process.stderr.aclose()
    if code and not is_cut:
        words = said.decode("utf-8", "replace").split("\n")[0].strip() or f"ended with code {code}"
        raise JournalError(f"journalctl: {words}; the daemon's user is to be in the group systemd-journal")
    return bytes(written), is_cut


async def _keep_first(stream: trio.abc.ReceiveStream, said: bytearray) -> None:
    while part := await stream.receive_some(4096):
        said += part[: max(0, MOST_ERROR_BYTES - len(said))]


def page_of(written: bytes, more: bool, after: str) -> Page:
    """Return what journalctl wrote, read; a last line that was cut off is left to the next page."""
    lines, times, cursors, without, cursor = [], [], [], 0, after
    for line in written.split(b"\n")[:-1]:
        entry = msgspec.json.decode(line)
        cursor = entry["__CURSOR"]
        message = entry.get("MESSAGE")
        if message is None:
            without += 1
            continue
        lines.append(_bytes_of(message))
        times.append(int(entry["__REALTIME_TIMESTAMP"]) / 1e6)
        cursors.append(cursor)
    return Page(lines, times, cursors, cursor, without, more)


def _bytes_of(message: Any) -> bytes:
    """Return a message; one that is no text comes as a list of numbers, one that was given twice as a list of both."""
    if isinstance(message, list):
        if message and not isinstance(message[0], int):
            return _bytes_of(message[0])
        return bytes(message)
    return str(message).encode()
