"""Space and inodes of mounted file systems, where one that hangs costs its own thread and nothing else."""

import os
from collections.abc import Callable
from typing import Final, NamedTuple

import psutil
import trio

from sixfbd.plugin import Gauge, Sample
from sixfbd_plugins.checks.machine.patience import NoAnswerError, Patience
from sixfbd_plugins.checks.machine.readings import Globs

_LABELS = ("device", "fstype", "mountpoint")
SIZE = Gauge("node_filesystem_size_bytes", "Size of a file system.", _LABELS)
FREE = Gauge("node_filesystem_free_bytes", "Free space, root's reserve included.", _LABELS)
AVAILABLE = Gauge("node_filesystem_avail_bytes", "Free space for those who are not root.", _LABELS)
FILES = Gauge("node_filesystem_files", "Inodes of a file system.", _LABELS)
FILES_FREE = Gauge("node_filesystem_files_free", "Free inodes.", _LABELS)
READ_ONLY = Gauge("node_filesystem_readonly", "1 if a file system is mounted read-only.", _LABELS)
USAGE = Gauge(
    "system_filesystem_usage_ratio", "Share of the usable space in use, 0 to 1, as df shows it.", ("mountpoint",)
)
INODE_USAGE = Gauge("system_filesystem_inodes_usage_ratio", "Share of the inodes in use, 0 to 1.", ("mountpoint",))
UNREADABLE = Gauge(
    "node_filesystem_device_error", "1 if a file system could not be read within the time limit.", _LABELS
)

METRICS: Final = (SIZE, FREE, AVAILABLE, FILES, FILES_FREE, READ_ONLY, USAGE, INODE_USAGE, UNREADABLE)

# Kernel interfaces, memory, and images that are full by nature; after node_exporter's --collector.filesystem.fs-types-exclude.
_NOT_STORAGE: Final = frozenset({
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cramfs", "debugfs", "devpts", "devtmpfs",
    "efivarfs", "erofs", "fusectl", "hugetlbfs", "iso9660", "mqueue", "nsfs", "proc", "pstore", "ramfs",
    "rpc_pipefs", "securityfs", "selinuxfs", "squashfs", "sysfs", "tmpfs", "tracefs", "udf",
})  # fmt: skip


class Mount(NamedTuple):
    """One line of the mount table."""

    device: str
    fstype: str
    mountpoint: str


def is_storage(mount: Mount) -> bool:
    """Return whether a mount is a real file system: what somebody's data is on. Overlays only at `/` (a container's root)."""
    if mount.fstype == "overlay":
        return mount.mountpoint == "/"
    return mount.fstype not in _NOT_STORAGE and not mount.fstype.startswith("fuse.")


def chosen(table: list[Mount], globs: Globs) -> list[Mount]:
    """Return the mounts to read, each device once, at its shortest mount point.

    A service's sandbox and containers mount the same device at a dozen places; that is one disk that fills, not twelve.
    """
    taken = [mount for mount in table if globs.take(mount.mountpoint, usual=is_storage(mount))]
    by_place = {mount.mountpoint: mount for mount in taken}  # of two at one place, the later covers the earlier
    by_device: dict[str, Mount] = {}
    for mount in sorted(by_place.values(), key=lambda mount: (len(mount.mountpoint), mount.mountpoint)):
        is_shared = mount.device.startswith("/") or ":" in mount.device  # a disk or HOST:/PATH; "tmpfs" names nothing
        by_device.setdefault(mount.device if is_shared else mount.mountpoint, mount)
    return list(by_device.values())


def mount_table() -> list[Mount]:
    """Read the mount table; touches no file system, so it cannot hang. Blocks."""
    return [Mount(part.device, part.fstype, part.mountpoint) for part in psutil.disk_partitions(all=True)]


def measured(mount: Mount, stat: os.statvfs_result) -> list[Sample]:
    """Return the samples of one file system. One without inode counts (btrfs, vfat) has none."""
    labels, mountpoint = mount._asdict(), mount.mountpoint
    unit = stat.f_frsize
    used = stat.f_blocks - stat.f_bfree
    usable = used + stat.f_bavail  # without root's reserve, as df counts
    samples = [
        metric(value, **labels)
        for metric, value in (
            (SIZE, stat.f_blocks * unit),
            (FREE, stat.f_bfree * unit),
            (AVAILABLE, stat.f_bavail * unit),
            (READ_ONLY, float(bool(stat.f_flag & os.ST_RDONLY))),
        )
    ]
    if usable > 0:
        samples.append(USAGE(used / usable, mountpoint=mountpoint))
    if stat.f_files > 0:
        samples += [
            FILES(stat.f_files, **labels),
            FILES_FREE(stat.f_ffree, **labels),
            INODE_USAGE(1.0 - stat.f_ffree / stat.f_files, mountpoint=mountpoint),
        ]
    return samples


class MountReader:
    """Reads mounts, each in a thread of its own; remembers which reads have not come back."""

    def __init__(self, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> None:
        self._statvfs = statvfs
        self._patience = Patience()

    async def read(self, mounts: list[Mount], limit_s: float) -> tuple[list[Sample], list[str]]:
        """Return the samples of all mounts and one line for each that cannot be read. Takes `limit_s` at most."""
        found: dict[Mount, tuple[os.statvfs_result | None, str]] = {}

        async def read_one(mount: Mount) -> None:
            found[mount] = await self._stat(mount.mountpoint, limit_s)

        async with trio.open_nursery() as nursery:
            for mount in mounts:
                nursery.start_soon(read_one, mount)
        samples: list[Sample] = []
        troubles: list[str] = []
        for mount in mounts:  # in their order, so that each report has its series in the same one
            stat, trouble = found[mount]
            samples.append(UNREADABLE(float(bool(trouble)), **mount._asdict()))
            samples.extend(measured(mount, stat) if stat else ())
            troubles.extend([f"{mount.mountpoint}: {trouble}"] if trouble else ())
        return samples, sorted(troubles)

    async def _stat(self, mountpoint: str, limit_s: float) -> tuple[os.statvfs_result | None, str]:
        try:
            return await self._patience.read(mountpoint, lambda: self._statvfs(mountpoint), limit_s), ""
        except NoAnswerError as error:
            return None, str(error)
        except OSError as error:
            return None, error.strerror or str(error)
