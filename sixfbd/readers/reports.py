"""Reports: what plugins make of what is known, each contained and cut off; what they do not know is null, with the reason.

Owns nothing; whoever asks gets what is so now. A report that fails names its plugin, and takes nobody with it.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog

from sixfbd.containment import call_guarded, described
from sixfbd.http.engine import ReportFailed, ReportInfo
from sixfbd.plugin import ReportRequest, Unknown
from sixfbd.quantities import DAY, show_duration
from sixfbd.running import Running

REPORT_LIMIT_S: Final = 10.0
LONGEST_S: Final = 400 * DAY  # events are kept for so long at most

log = structlog.get_logger("sixfbd.reports")


def listed(running: Running) -> list[ReportInfo]:
    """Return the reports that there are, by name."""
    return [
        ReportInfo(
            name,
            entry.type.title,
            entry.type.doc,
            show_duration(entry.type.timeframe),
            f"/api/monitoring/{name}",
            entry.type.units,
        )
        for name, entry in sorted(running.catalog.reports.items())
    ]


async def report(running: Running, name: str, timeframe_s: float | None, check: str, about: str) -> Mapping[str, Any]:
    """Return a report ready for JSON. Raises KeyError for a name that there is not, ReportFailed with what failed."""
    entry = running.catalog.reports[name]
    end = running.world.clock.now()
    span_s = min(float(entry.type.timeframe) if timeframe_s is None else timeframe_s, LONGEST_S)
    request = ReportRequest(
        read=running.reader,
        start=end - span_s,
        end=end,
        check=check,
        about=about,
        timezone=running.config.site.timezone,
        checks={name: table.plugin for name, table in running.config.checks.items() if table.enabled},
        notifiers={name: table.plugin for name, table in running.config.notifiers.items()},
        addresses=_addresses(running),
    )
    ended = await call_guarded(lambda: entry.type.make(request), REPORT_LIMIT_S, f"report {name}")
    if ended.overran or ended.error is not None:
        why = f"took longer than {REPORT_LIMIT_S:g} s" if ended.error is None else described(ended.error)
        log.error("plugin.failed", instance=f"report {name}", plugin=entry.plugin, error=why)
        raise ReportFailed(f"report {name} of plugin {entry.plugin}: {why}")
    unknown: dict[str, str] = {}
    shown = _shown(ended.answer, "", unknown)
    if not isinstance(shown, dict):
        raise ReportFailed(f"report {name} of plugin {entry.plugin}: returned no mapping")
    try:
        return {**msgspec.to_builtins(shown), "timeframe": show_duration(span_s), "unknown": unknown}
    except (TypeError, ValueError) as error:
        raise ReportFailed(f"report {name} of plugin {entry.plugin}: returned what is no JSON: {error}") from None


def _addresses(running: Running) -> dict[str, int]:
    """How many addresses there are, by kind of channel, each counted once."""
    found: dict[str, set[str]] = {}
    for channels in running.config.receivers.values():
        for kind, channel in channels.items():
            found.setdefault(kind, set()).update(channel.to)
    return {kind: len(addresses) for kind, addresses in found.items()}


def _shown(value: object, path: str, unknown: dict[str, str]) -> object:
    """Return a value with null for what is unknown, whose path and reason are noted."""
    if isinstance(value, Unknown):
        unknown[path] = value.reason
        return None
    if isinstance(value, Mapping):
        return {str(key): _shown(one, f"{path}.{key}".lstrip("."), unknown) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(one, f"{path}[{place}]", unknown) for place, one in enumerate(value)]
    return value
