"""What systemd is told of the daemon's life: READY, STATUS, STOPPING, WATCHDOG; nothing where systemd did not start it.

Speaks sd_notify(3)'s datagrams. A message that cannot be sent is lost and said so; it never disturbs the daemon.
"""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Final

import trio

PINGS_PER_LIMIT: Final = 3  # sd_watchdog_enabled(3) asks for two at least; one may come late


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Send assignments such as "READY=1" in one datagram; return whether systemd was told. Never blocks, never raises."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.sendall("\n".join(lines).encode())
    except OSError:
        return False
    return True


def ready(status: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Say that the daemon is up: dependents start now."""
    return notify("READY=1", f"STATUS={_one_line(status)}", environ=environ)


def status(text: str, environ: Mapping[str, str] = os.environ) -> bool:
    """Set the line that `systemctl status` shows."""
    return notify(f"STATUS={_one_line(text)}", environ=environ)


def stopping(environ: Mapping[str, str] = os.environ) -> bool:
    """Say that the stop began."""
    return notify("STOPPING=1", "STATUS=stopping", environ=environ)


def watchdog_limit_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """Return systemd's watchdog limit in seconds if it is set for this process, else None."""
    try:
        limit_us = int(environ.get("WATCHDOG_USEC", ""))
        pid = int(environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return limit_us / 1e6 if limit_us > 0 and pid == os.getpid() else None


async def keep_watchdog(
    works: Callable[[], bool],
    environ: Mapping[str, str] = os.environ,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Ping the watchdog for as long as `works()` is true, until cancelled; return at once where there is none.

    `works` is proof of work, not of life: that the loop turns is shown by this task, that checks run is for `works`.
    """
    task_status.started()
    limit_s = watchdog_limit_s(environ)
    while limit_s is not None:
        if works():
            notify("WATCHDOG=1", environ=environ)
        await trio.sleep(limit_s / PINGS_PER_LIMIT)


def _one_line(text: str) -> str:
    return " ".join(text.split())
