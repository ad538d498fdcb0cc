"""Disks that fail on purpose: full ones, and an fsync that fails or takes its time."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1024**2

FAULTS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int flagged(const char *name) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("DISK_FAULTS"), name);
    return access(path, F_OK) == 0;
}

static int faulty(const char *symbol, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, symbol);
    if (flagged("slow")) sleep(1);
    if (flagged("fail")) { errno = EIO; return -1; }
    return real(fd);
}

int fsync(int fd) { return faulty("fsync", fd); }
int fdatasync(int fd) { return faulty("fdatasync", fd); }
"""


class FsyncFaults:
    """What becomes of every fsync of the processes that are started with `env`, by files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        assert shutil.which("gcc"), "there is no C compiler: apt install gcc libc6-dev"
        folder.mkdir()
        (folder / "faults.c").write_text(FAULTS)
        library = folder / "faults.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, folder / "faults.c", "-ldl"], check=True, timeout=60)
        self.folder = folder
        self.env = {"DISK_FAULTS": str(folder), "LD_PRELOAD": str(library)}

    @contextmanager
    def all(self, how: str) -> Iterator[None]:
        """Let each of them `fail`, or be `slow`, for as long as the block lasts."""
        flag = self.folder / how
        flag.touch()
        try:
            yield
        finally:
            flag.unlink()


def fill(path: Path, leave: int = 0) -> None:
    """Let a file grow until only `leave` bytes are free on its file system."""
    with path.open("ab", buffering=0) as ballast:
        while (free := shutil.disk_usage(path.parent).free) > leave:
            try:
                ballast.write(b"\0" * min(MIB, free - leave))
            except OSError:
                return
