"""CPU, memory, load, disk, network and boot time as samples, named as node_exporter names them where it has a name.

Every function blocks (psutil reads /proc) and belongs in a thread. None keeps state; the counters are the kernel's own.
"""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Final

import msgspec
import psutil

from sixfbd.plugin import Counter, Gauge, Metric, Sample

CPU_SECONDS = Counter("node_cpu_seconds_total", "Seconds the CPUs spent in each mode, all CPUs added.", ("mode",))
CPU_USAGE = Gauge("system_cpu_usage_ratio", "Share of CPU time not idle since the last run, 0 to 1.")
CPU_COUNT = Gauge("system_cpus", "CPUs that are online.")
MEMORY_TOTAL = Gauge("system_memory_total_bytes", "Memory of the machine.")
MEMORY_AVAILABLE = Gauge("system_memory_available_bytes", "Memory that programs can have without swapping.")
MEMORY_USAGE = Gauge("system_memory_usage_ratio", "Share of memory that is not available, 0 to 1.")
SWAP_TOTAL = Gauge("system_swap_total_bytes", "Swap space.")
SWAP_FREE = Gauge("system_swap_free_bytes", "Swap space that is free.")
SWAP_USAGE = Gauge("system_swap_usage_ratio", "Share of swap space in use, 0 to 1; 0 without swap.")
LOAD_1 = Gauge("node_load1", "Load average over 1 minute.")
LOAD_5 = Gauge("node_load5", "Load average over 5 minutes.")
LOAD_15 = Gauge("node_load15", "Load average over 15 minutes.")
DISK_READ = Counter("node_disk_read_bytes_total", "Bytes read from a disk.", ("device",))
DISK_WRITTEN = Counter("node_disk_written_bytes_total", "Bytes written to a disk.", ("device",))
DISK_READS = Counter("node_disk_reads_completed_total", "Reads from a disk.", ("device",))
DISK_WRITES = Counter("node_disk_writes_completed_total", "Writes to a disk.", ("device",))
DISK_BUSY = Counter("node_disk_io_time_seconds_total", "Seconds in which a disk was busy.", ("device",))
NETWORK_IN = Counter("node_network_receive_bytes_total", "Bytes received.", ("device",))
NETWORK_OUT = Counter("node_network_transmit_bytes_total", "Bytes sent.", ("device",))
NETWORK_IN_ERRORS = Counter("node_network_receive_errs_total", "Errors on receiving.", ("device",))
NETWORK_OUT_ERRORS = Counter("node_network_transmit_errs_total", "Errors on sending.", ("device",))
NETWORK_IN_DROPS = Counter("node_network_receive_drop_total", "Received packets dropped.", ("device",))
NETWORK_OUT_DROPS = Counter("node_network_transmit_drop_total", "Packets to send dropped.", ("device",))
BOOT_TIME = Gauge("node_boot_time_seconds", "When the machine started, unix seconds.")
UPTIME = Gauge("system_uptime_seconds", "Seconds since the machine started.")

METRICS: Final[Sequence[Metric]] = (
    CPU_SECONDS, CPU_USAGE, CPU_COUNT, MEMORY_TOTAL, MEMORY_AVAILABLE, MEMORY_USAGE, SWAP_TOTAL, SWAP_FREE, SWAP_USAGE,
    LOAD_1, LOAD_5, LOAD_15, DISK_READ, DISK_WRITTEN, DISK_READS, DISK_WRITES, DISK_BUSY,
    NETWORK_IN, NETWORK_OUT, NETWORK_IN_ERRORS, NETWORK_OUT_ERRORS, NETWORK_IN_DROPS, NETWORK_OUT_DROPS,
    BOOT_TIME, UPTIME,
)  # fmt: skip

# Partitions, RAM disks and loop devices, as node_exporter leaves them out (its --collector.diskstats.device-exclude).
_NOT_A_DISK: Final = re.compile(r"(z?ram|loop|fd|dm-|sr|(h|s|v|xv)d[a-z]+|nvme\d+n\d+p|mmcblk\d+p)\d+")
READING_FAILURES: Final = (OSError, ValueError, LookupError, RuntimeError, psutil.Error)
"""What psutil raises where /proc lacks a file or holds an unknown form (NotImplementedError is a RuntimeError)."""


class Globs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Names chosen by shell patterns: those of `include` (empty: all that are usual) without those of `exclude`."""

    include: Annotated[tuple[str, ...], msgspec.Meta(description="Patterns; empty takes all usual ones.")] = ()
    exclude: Annotated[tuple[str, ...], msgspec.Meta(description="Patterns that are left out.")] = ()

    def take(self, name: str, usual: bool = True) -> bool:
        """Return whether `name` is chosen; `usual` is the answer where `include` is empty."""
        if any(fnmatchcase(name, pattern) for pattern in self.exclude):
            return False
        return any(fnmatchcase(name, pattern) for pattern in self.include) if self.include else usual


def cpu_times() -> dict[str, float]:
    """Return seconds by mode over all CPUs since boot. `user` contains `guest`, as the kernel counts it."""
    times = psutil.cpu_times()._asdict()
    return {mode: float(seconds) for mode, seconds in times.items() if mode not in ("guest", "guest_nice")}


def busy_ratio(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    """Return the share of the time between two `cpu_times()` that was neither idle nor waiting for a disk, 0 to 1.

    A mode that went backwards (the kernel's iowait does) counts as unchanged. No time between: 0.
    """
    spent = {mode: max(0.0, seconds - before.get(mode, 0.0)) for mode, seconds in after.items()}
    total = sum(spent.values())
    return 1.0 - (spent.get("idle", 0.0) + spent.get("iowait", 0.0)) / total if total > 0 else 0.0


def cpu(before: Mapping[str, float], after: Mapping[str, float]) -> list[Sample]:
    """Return the modes' counters and the usage between the two readings."""
    modes = [CPU_SECONDS(seconds, mode=mode) for mode, seconds in after.items()]
    return [CPU_USAGE(busy_ratio(before, after)), CPU_COUNT(psutil.cpu_count() or 1), *modes]


def memory() -> list[Sample]:
    """Return memory and swap. The ratio is that of SEED S13: 1 - available / total."""
    ram, swap = psutil.virtual_memory(), psutil.swap_memory()
    return [
        MEMORY_TOTAL(ram.total),
        MEMORY_AVAILABLE(ram.available),
        MEMORY_USAGE(1.0 - ram.available / ram.total),
        SWAP_TOTAL(swap.total),
        SWAP_FREE(swap.free),
        SWAP_USAGE(1.0 - swap.free / swap.total if swap.total else 0.0),
    ]


def load() -> list[Sample]:
    """Return the three load averages."""
    return [metric(value) for metric, value in zip((LOAD_1, LOAD_5, LOAD_15), os.getloadavg(), strict=True)]


def disk_io(disks: Globs) -> Callable[[], list[Sample]]:
    """Return the reading of whole disks' counters; the usual ones are those that are no partition, RAM disk or loop."""

    def read() -> list[Sample]:
        # nowrap=False: a counter that starts anew is PromQL's business; psutil would keep totals of its own.
        counters = psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
        samples = []
        for device, disk in counters.items():
            if disks.take(device, usual=not _NOT_A_DISK.fullmatch(device)):
                samples += [
                    DISK_READ(disk.read_bytes, device=device),
                    DISK_WRITTEN(disk.write_bytes, device=device),
                    DISK_READS(disk.read_count, device=device),
                    DISK_WRITES(disk.write_count, device=device),
                    DISK_BUSY(disk.busy_time / 1000, device=device),
                ]
        return samples

    return read


def network(interfaces: Globs) -> Callable[[], list[Sample]]:
    """Return the reading of the interfaces' counters."""

    def read() -> list[Sample]:
        samples = []
        for device, nic in psutil.net_io_counters(pernic=True, nowrap=False).items():
            if interfaces.take(device):
                samples += [
                    NETWORK_IN(nic.bytes_recv, device=device),
                    NETWORK_OUT(nic.bytes_sent, device=device),
                    NETWORK_IN_ERRORS(nic.errin, device=device),
                    NETWORK_OUT_ERRORS(nic.errout, device=device),
                    NETWORK_IN_DROPS(nic.dropin, device=device),
                    NETWORK_OUT_DROPS(nic.dropout, device=device),
                ]
        return samples

    return read


def boot() -> list[Sample]:
    """Return the boot time and the uptime, time asleep included."""
    return [BOOT_TIME(psutil.boot_time()), UPTIME(time.clock_gettime(time.CLOCK_BOOTTIME))]
