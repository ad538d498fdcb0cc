"""Room on the state directory's file system: what is left, and what is kept back for the journal.

Below FLOOR_BYTES samples are no longer written, so that what is left is the journal's. When that is used up as well the
file `reserve` is removed, which gives the journal RESERVE_BYTES more. Blocks on the disk: for worker threads only.
"""

import os
from pathlib import Path
from typing import Final

import structlog

MIB: Final = 1024**2
FLOOR_BYTES: Final = 64 * MIB  # DESIGN promise 10
RESERVE_BYTES: Final = 16 * MIB
RESERVE_NAME: Final = "reserve"
RESUME_BYTES: Final = (
    FLOOR_BYTES + RESERVE_BYTES
)  # samples are written again: not at the floor, or it would come and go

log = structlog.get_logger(__name__)


def free_bytes(directory: Path) -> int | None:
    """Return what an ordinary user may still write to the file system of a directory; None if nobody can tell."""
    try:
        space = os.statvfs(directory)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize


class Reserve:
    """The file that keeps room for the journal."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / RESERVE_NAME

    def size_bytes(self) -> int:
        """Return what is kept back now: RESERVE_BYTES or 0."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def release(self) -> bool:
        """Give the room to whoever writes next; False if none was kept, or if it cannot be given."""
        try:
            self._path.unlink()
        except OSError:
            return False
        log.warning("journal.reserve_used", file=str(self._path), bytes=RESERVE_BYTES)
        return True

    def restore(self) -> None:
        """Keep room back again if there is so much of it that samples are written on."""
        free = free_bytes(self._path.parent)
        if free is None or free < RESUME_BYTES + RESERVE_BYTES or self.size_bytes() == RESERVE_BYTES:
            return
        self._path.unlink(missing_ok=True)  # a part of one: the process ended while it was made
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(descriptor)
