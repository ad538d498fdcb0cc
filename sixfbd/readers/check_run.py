"""One run of a check as both command lines show it. Pure; what has no form of its own is left to the refusals."""

from typing import Any, Final

import msgspec

from sixfbd.control.engine import CheckRun, number
from sixfbd.intake import is_well_formed
from sixfbd.model import Event
from sixfbd.promql.value import series_text
from sixfbd.schedule import Ran

MAX_SHOWN: Final = 2000  # samples, and events


def check_run(name: str, ran: Ran, remarks: list[str], duration_s: float) -> CheckRun:
    """Return the view of a run; `remarks` are the door's."""
    report = ran.report
    samples = [sample for sample in report.samples[:MAX_SHOWN] if is_well_formed(sample)]
    hidden = [
        f"only the first {MAX_SHOWN} of {len(values)} {what} are shown"
        for what, values in (("samples", report.samples), ("events", report.events))
        if len(values) > MAX_SHOWN
    ]
    return CheckRun(
        check=name,
        status=report.status,
        summary=report.summary,
        duration_s=duration_s,
        samples=tuple((series_text(one.metric, one.labels), number(float(one.value))) for one in samples),
        events=tuple(shown for event in report.events[:MAX_SHOWN] if (shown := _shown_event(event)) is not None),
        more=report.more,
        refused=ran.refused,
        remarks=(*remarks, *hidden),
    )


def _shown_event(event: object) -> Any:
    """An event as JSON has it, None for what cannot be written so."""
    if not isinstance(event, Event):
        return None
    try:
        return msgspec.json.decode(msgspec.json.encode(event))
    except (TypeError, ValueError, RecursionError):
        return None
