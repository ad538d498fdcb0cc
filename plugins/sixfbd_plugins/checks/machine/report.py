"""The report `system` (SEED S13, S14): how this machine is, and what it was like within the timeframe."""

from collections.abc import Mapping
from typing import Any, Final

from sixfbd.plugin import HOUR, Duration, ReportRequest, ReportType
from sixfbd_plugins.figures import iso, known, latest, one, recent_alerts

UNKNOWN: Final = "the `system` check is not configured, or has not run yet"
NO_NODE: Final = "the shop neither sends nor exposes figures of its Node process"


async def system(request: ReportRequest) -> Mapping[str, Any]:
    """SEED S13. Sizes in bytes, shares from 0 to 1, times in seconds, the loop's delay in milliseconds."""
    total = (await latest(request, "system_memory_total_bytes", ())).get(())
    available = (await latest(request, "system_memory_available_bytes", ())).get(())
    seconds = round(request.end - request.start)
    disks = await latest(request, "system_filesystem_usage_ratio", ("mountpoint",))
    return {
        "memory": {
            "used": known(None if total is None or available is None else total - available, UNKNOWN),
            "total": known(total, UNKNOWN),
            "usage": known((await latest(request, "system_memory_usage_ratio", ())).get(()), UNKNOWN),
        },
        "cpu": {
            "usage": known((await latest(request, "system_cpu_usage_ratio", ())).get(()), UNKNOWN),
            "highest": known(await one(request, f"max(max_over_time(system_cpu_usage_ratio[{seconds}s]))"), UNKNOWN),
            "cpus": known((await latest(request, "system_cpus", ())).get(()), UNKNOWN),
        },
        "load": {
            minutes: known((await latest(request, f"node_load{minutes}", ())).get(()), UNKNOWN)
            for minutes in ("1", "5", "15")
        },
        "disks": {mount: share for (mount,), share in sorted(disks.items())},
        "uptime": known((await latest(request, "system_uptime_seconds", ())).get(()), UNKNOWN),
        "eventLoop": {"delay": await _loop_ms(request)},
        "node": {
            "heapUsed": known((await latest(request, "nodejs_memory_heap_used_bytes", ())).get(()), NO_NODE),
            "heapTotal": known((await latest(request, "nodejs_memory_heap_total_bytes", ())).get(()), NO_NODE),
            "uptime": known((await latest(request, "nodejs_uptime_seconds", ())).get(()), NO_NODE),
        },
        "alerts": await recent_alerts(request, "system"),
        "timestamp": iso(request.end),
    }


async def _loop_ms(request: ReportRequest) -> Any:
    delay = await one(request, "max(sixfbd_loop_delay_seconds)")
    return known(None if delay is None else round(delay * 1000, 3), "the daemon has not reported on itself yet")


REPORTS: Final = (
    ReportType(
        "system",
        system,
        doc="This machine: memory, CPU, disks, load, and the loop of the daemon.",
        timeframe=Duration(HOUR),
        units={
            **dict.fromkeys(("used", "total", "heapUsed", "heapTotal"), "bytes"),
            **dict.fromkeys(("usage", "highest"), "ratio"),
            "uptime": "seconds",
            "delay": "ms",
        },
    ),
)
