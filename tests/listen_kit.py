"""Starts a program as systemd does that passes it sockets: descriptors from 3 on, and their names in the environment."""

import sys
from collections.abc import Sequence
from typing import Any

_PASS = """
import fcntl, os, sys
given = [int(one) for one in sys.argv[1].split(",")]
count = len(given)
there = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 100) for one in given]
for one in set(given):
    os.close(one)
for place, one in enumerate(there):
    os.dup2(one, 3 + place)
os.environ |= {"LISTEN_PID": sys.argv[3] or str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": sys.argv[2]}
os.execv(sys.argv[4], sys.argv[4:])
"""


def passing(descriptors: Sequence[int], names: Sequence[str], *command: Any, pid: str = "") -> dict[str, Any]:
    """Return arguments for subprocess that start `command` with descriptors; `pid` is whom they are said to be for."""
    if not descriptors:
        return {"args": [str(one) for one in command]}
    numbers = ",".join(map(str, descriptors))
    args = [sys.executable, "-c", _PASS, numbers, ":".join(names), pid, *map(str, command)]
    return {"args": args, "pass_fds": tuple(descriptors)}
