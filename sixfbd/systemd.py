"""What systemd is told of the daemon's life: READY, STATUS, STOPPING, WATCHDOG; nothing where systemd did not start it.

Speaks sd_notify(3)'s datagrams. A message that cannot be sent is lost and said so; it never disturbs the daemon. Listening
sockets are left with systemd over a restart (FDSTORE), so that who connects meanwhile waits and is not refused.
"""

import os
import socket
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Final

import trio

FIRST_PASSED: Final = 3  # descriptor, SD_LISTEN_FDS_START of sd_listen_fds(3)
PINGS_PER_LIMIT: Final = 3  # sd_watchdog_enabled(3) asks for two at least; one may come late


def notify(*lines: str, environ: Mapping[str, str] = os.environ, descriptors: Sequence[int] = ()) -> bool:
    """Send assignments such as "READY=1", and descriptors, in one datagram; return whether systemd was told. Never blocks,
    never raises."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            text = "\n".join(lines).encode()
            if descriptors:
                socket.send_fds(sock, [text], descriptors)
            else:
                sock.sendall(text)
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


def keep_listener(name: str, listener: socket.socket | None, environ: Mapping[str, str] = os.environ) -> bool:
    """Leave a listening socket with systemd, in place of what was left by this name before; None: leave none."""
    told = notify("FDSTOREREMOVE=1", f"FDNAME={name}", environ=environ)
    if listener is None or not told:
        return told
    return notify("FDSTORE=1", f"FDNAME={name}", environ=environ, descriptors=(listener.fileno(),))


def take_listeners(environ: MutableMapping[str, str] = os.environ) -> dict[str, socket.socket]:
    """Return the sockets that the process before left with systemd, or that a socket unit passes, by name; the caller closes
    them. Once: what this process starts is passed none. https://www.freedesktop.org/software/systemd/man/sd_listen_fds.html
    """
    pid, count, names = (environ.pop(f"LISTEN_{key}", "") for key in ("PID", "FDS", "FDNAMES"))
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, socket.socket] = {}
    for descriptor, name in zip(range(FIRST_PASSED, FIRST_PASSED + int(count)), names.split(":"), strict=False):
        try:
            passed = socket.socket(fileno=descriptor)
            passed.set_inheritable(False)
        except OSError:  # no socket, or none at all
            continue
        if name in found:
            passed.close()
        else:
            found[name] = passed
    return found


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
