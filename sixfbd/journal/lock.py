"""The lock of the state directory: one instance at a time. Owns the file `lock`, which holds the pid of its holder.

The lock is the kernel's (flock): it ends with the process, however that ends; the file itself is never removed.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sixfbd.journal.errors import StateLockedError, directory_error

LOCK_NAME: Final = "lock"


@contextmanager
def lock_state_directory(directory: Path) -> Iterator[None]:
    """Hold the state directory. Raises StateLockedError, naming the holder's pid, or JournalError if there is no directory.

    Not reentrant: a second lock in the same process is refused as well.
    """
    descriptor = _acquire(directory)
    try:
        yield
    finally:
        os.ftruncate(descriptor, 0)  # before the lock goes: a pid that is written there is a holder's
        os.close(descriptor)


def _acquire(directory: Path) -> int:
    try:
        descriptor = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o640)
    except OSError as error:
        raise directory_error(error, directory) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StateLockedError(
            f"{directory}: another sixfbd (pid {pid}) uses this state directory; stop it, or set another "
            "[daemon] state_directory"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise directory_error(error, directory) from error
    return descriptor
