"""The `system` check: CPU, memory, swap, load, disks, network, processes and boot time of this machine (SEED S13).

Owns the memory of the last CPU reading; everything else is read anew. A part that cannot be read, or does not come back
in time, is named in the summary and the others are reported.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Final

import msgspec
import trio

from sixfbd.plugin import (
    MINUTE,
    SECOND,
    Check,
    Context,
    Duration,
    Json,
    Level,
    PluginConfig,
    Report,
    ReportType,
    Rule,
    Sample,
    Severity,
    Status,
    hookimpl,
)
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.checks.machine import mounts, processes, readings
from sixfbd_plugins.checks.machine.patience import NoAnswerError, Patience
from sixfbd_plugins.checks.machine.processes import Chosen
from sixfbd_plugins.checks.machine.readings import Globs
from sixfbd_plugins.checks.machine.report import REPORTS
from sixfbd_plugins.checks.targets import run_deadline

FIRST_CPU_SAMPLE_S: Final = 0.1  # what "usage" spans where there is no earlier run to count from


class SystemOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `system` check."""

    mounts: Annotated[Globs, msgspec.Meta(description="Mount points; by default all real file systems.")] = Globs()
    disks: Annotated[Globs, msgspec.Meta(description="Disks for I/O counters; by default whole disks.")] = Globs()
    interfaces: Annotated[Globs, msgspec.Meta(description="Network interfaces; by default all but lo and veth*.")] = (
        Globs(exclude=("lo", "veth*"))  # containers' ends of cables come and go by the dozen
    )
    processes: Annotated[tuple[Chosen, ...], msgspec.Meta(description="Processes that must run.")] = ()
    mount_timeout: Annotated[Duration, msgspec.Meta(description="How long one file system may take to answer.")] = (
        Duration(2 * SECOND)
    )

    def __post_init__(self) -> None:
        labels = [choice.label for choice in self.processes]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"processes: the name {twice[0]!r} is used twice; give each entry a name of its own")


class SystemCheck(Check[SystemOptions]):
    """CPU, memory, swap, load, disks, network and processes of this machine."""

    Options = SystemOptions
    metrics = (*readings.METRICS, *mounts.METRICS, *processes.METRICS)
    interval = Duration(15 * SECOND)
    timeout = Duration(10 * SECOND)

    def __init__(self, options: SystemOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._mounts = mounts.MountReader()
        self._patience = Patience()
        self._parts: Mapping[str, Callable[[], list[Sample]]] = {
            "CPU": self._read_cpu,
            "memory": readings.memory,
            "load": readings.load,
            "disk I/O": readings.disk_io(options.disks),
            "network": readings.network(options.interfaces),
            "boot time": readings.boot,
            "processes": processes.reading(options.processes),
        }
        self._cpu: Mapping[str, float] | None = None
        self._cpu_read_at = 0.0

    async def run(self, cursor: Json | None) -> Report:
        """Read every part. Degraded if a chosen process is down or a part cannot be read; unhealthy if one hangs, so that
        what is known of it holds until it is stale."""
        left_s = run_deadline(math.inf) - trio.current_time()
        mounts_s = min(float(self.options.mount_timeout), left_s / 2)
        table: list[mounts.Mount] = []

        def read_table() -> list[Sample]:
            table.extend(mounts.mount_table())
            return []

        parts = {**self._parts, "mount table": read_table}
        samples, troubles, hanging = await self._read_parts(parts, left_s - mounts_s)
        of_mounts, mount_troubles = await self._mounts.read(mounts.chosen(table, self.options.mounts), mounts_s)
        samples = [*samples, *of_mounts]
        down = [dict(s.labels)["process"] for s in samples if s.metric == processes.UP.name and not s.value]
        troubles = [*(f"process {name} is not running" for name in down), *troubles, *mount_troubles]
        status = Status.UNHEALTHY if hanging else Status.DEGRADED if troubles else Status.HEALTHY
        return Report(status, "; ".join(troubles) or _in_short(samples), tuple(samples))

    async def _read_parts(
        self, parts: Mapping[str, Callable[[], list[Sample]]], limit_s: float
    ) -> tuple[list[Sample], list[str], bool]:
        """Read the parts beside each other; return the samples in the parts' order, what failed, whether one hangs."""
        found: dict[str, list[Sample]] = {}
        failed: dict[str, str] = {}
        hanging = False

        async def read(name: str, part: Callable[[], list[Sample]]) -> None:
            nonlocal hanging
            try:
                found[name] = await self._patience.read(name, part, limit_s)
            except NoAnswerError as error:
                hanging = True
                failed[name] = f"{name} cannot be read: {error}"
            except readings.READING_FAILURES as error:
                failed[name] = f"{name} cannot be read: {type(error).__name__}: {error}"

        async with trio.open_nursery() as nursery:
            for name, part in parts.items():
                nursery.start_soon(read, name, part)
        samples = [sample for name in parts for sample in found.get(name, ())]
        return samples, [failed[name] for name in parts if name in failed], hanging

    def _read_cpu(self) -> list[Sample]:
        """Read CPU times; usage counts from the last run's, or from a reading made now and a moment waited."""
        before = self._cpu
        if before is None or time.monotonic() - self._cpu_read_at < FIRST_CPU_SAMPLE_S:
            before = readings.cpu_times()
            time.sleep(FIRST_CPU_SAMPLE_S)
        self._cpu, self._cpu_read_at = readings.cpu_times(), time.monotonic()
        return readings.cpu(before, self._cpu)


def _in_short(samples: Sequence[Sample]) -> str:
    values = {sample.metric: sample.value for sample in samples if not sample.labels}
    cpu, memory = values.get(readings.CPU_USAGE.name, 0.0), values.get(readings.MEMORY_USAGE.name, 0.0)
    fullest = max((s.value for s in samples if s.metric == mounts.USAGE.name), default=0.0)
    return f"CPU {cpu:.0%}, memory {memory:.0%}, fullest disk {fullest:.0%}, load {values.get('node_load1', 0.0):.2f}"


_rule: Final = partial(default_rule, "system")

_FULL: Final = (Level(Severity.MEDIUM, ">= 0.85", "< 0.83"), Level(Severity.HIGH, ">= 0.95", "< 0.94"))

RULES: Final = (
    _rule(
        "HighMemoryUsage",
        "system_memory_usage_ratio > 0.85",
        "🔥 High memory usage: {{ $value | humanizePercentage }}",
        for_s=5 * MINUTE,
        severity=Severity.HIGH,
        impact="Processes will be ended for want of memory.",
        action="Find the largest: ps -eo pid,rss,args --sort=-rss | head",
    ),
    _rule(
        "HighCPUUsage",
        "system_cpu_usage_ratio > 0.80",
        "🔥 High CPU usage: {{ $value | humanizePercentage }}",
        for_s=5 * MINUTE,
        severity=Severity.HIGH,
        impact="Everything on this machine answers slowly.",
        action="Find the busiest: ps -eo pid,pcpu,args --sort=-pcpu | head",
    ),
    _rule(
        "HighSwapUsage",
        "system_swap_usage_ratio > 0.80",
        "🔥 High swap usage: {{ $value | humanizePercentage }}",
        for_s=15 * MINUTE,
        severity=Severity.MEDIUM,
    ),
    _rule(
        "DiskSpaceLow",
        "system_filesystem_usage_ratio",
        "💽 {{ $labels.mountpoint }} is {{ $value | humanizePercentage }} full",
        for_s=0.0,
        severity=None,
        levels=_FULL,
        impact="On a full disk nothing can be written.",
        action="Find the largest: du -xh {{ $labels.mountpoint }} | sort -h | tail",
    ),
    _rule(
        "InodesLow",
        "system_filesystem_inodes_usage_ratio",
        "💽 {{ $labels.mountpoint }} has used {{ $value | humanizePercentage }} of its inodes",
        for_s=0.0,
        severity=None,
        levels=_FULL,
        impact="No more files can be made there.",
        action="Find where most files are: du -x --inodes {{ $labels.mountpoint }} | sort -n | tail",
    ),
    _rule(
        "FilesystemUnreadable",
        "node_filesystem_device_error == 1",
        "💽 {{ $labels.mountpoint }} cannot be read: {{ $summary }}",
        for_s=1 * MINUTE,
        severity=Severity.HIGH,
        impact="What lies there cannot be used.",
        action="See what the kernel says of it: dmesg | tail",
    ),
    _rule(
        "ProcessDown",
        "system_process_up == 0",
        "💥 Process {{ $labels.process }} is not running",
        for_s=1 * MINUTE,
        severity=Severity.HIGH,
        impact="What it does is not done.",
        action="See why it ended (journalctl), and start it.",
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `system`."""
    return {"system": SystemCheck}


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rules of this machine."""
    return RULES


@hookimpl
def sixfbd_reports(config: PluginConfig) -> Sequence[ReportType]:
    return REPORTS
