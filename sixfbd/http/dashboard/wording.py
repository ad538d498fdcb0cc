"""How the page says quantities, ages and the state of the whole: pure functions of values and a time."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

from sixfbd.model import Alert, AlertState, CheckState, Severity, Status
from sixfbd.quantities import DAY, HOUR, MINUTE

Tone = Literal["good", "warn", "bad", "unknown"]
TONES: Final[dict[Status, Tone]] = {
    Status.HEALTHY: "good",
    Status.DEGRADED: "warn",
    Status.UNHEALTHY: "bad",
    Status.UNKNOWN: "unknown",
}


PREFIXES: Final = ("", "k", "M", "G", "T")
YEAR: Final = 365 * DAY
_UNSHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Glance(Struct, frozen=True):
    """The state of the whole in one sentence, and what stands behind it in another."""

    tone: Tone
    headline: str
    detail: str


def glance(ready: tuple[bool, str], checks: Sequence[CheckState], alerts: Sequence[Alert]) -> Glance:
    """Return the worst that is true: not ready, firing alerts, checks that are not healthy, nothing known, all well."""
    firing = [alert for alert in alerts if alert.state is AlertState.FIRING]
    pending = len(alerts) - len(firing)
    statuses = Counter(check.status for check in checks if not check.paused)
    known = [f"{statuses[status]} {status}" for status in Status if statuses[status]]
    paused = sum(check.paused for check in checks)
    parts = [plural(len(checks), "check") + (": " if known else "") + ", ".join(known)]
    parts += [f"{paused} paused"] if paused else []
    parts += [plural(pending, "pending alert")] if pending else []
    detail = " · ".join(parts)
    if not ready[0]:
        return Glance("bad", "The daemon is not ready", ready[1] or detail)
    if firing:
        severe = any(alert.severity.rank >= Severity.HIGH.rank for alert in firing)
        return Glance("bad" if severe else "warn", f"{plural(len(firing), 'alert')} firing", detail)
    troubled = statuses[Status.UNHEALTHY] + statuses[Status.DEGRADED]
    if troubled:
        return Glance("warn", f"{plural(troubled, 'check')} not healthy", detail)
    if statuses[Status.UNKNOWN] or not statuses:
        return Glance("unknown", "Not everything is known yet" if statuses else "Nothing is checked yet", detail)
    return Glance("good", "All is well", detail)


def shown(text: str, most: int | None = None) -> str:
    """Return what somebody else wrote so that it shows as it is, cut to `most` characters.

    Characters without a form of their own, and those that turn the direction of what follows, are written "\\u202e".
    """
    cut = text if most is None or len(text) <= most else text[: most - 1] + "…"
    return _UNSHOWN.sub(lambda found: " " if found[0] in "\t\r\n" else f"\\u{ord(found[0]):04x}", cut)


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def age(at: float | None, now: float) -> str:
    """Return "12 s ago", "in 3 min", "just now"; "never" for None. static/page.js says the same as time passes."""
    if at is None:
        return "never"
    seconds = round(abs(now - at))
    if seconds < 1:
        return "just now"
    text = _long(seconds)
    return f"{text} ago" if at <= now else f"in {text}"


def _long(seconds: int) -> str:
    for unit, size in (("years", YEAR), ("d", DAY), ("h", HOUR), ("min", MINUTE)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{seconds} s"


def amount(value: float, unit: str) -> str:
    """Return a value as people read it: "23.4 %", "120 ms", "1.2 k"."""
    if not math.isfinite(value):
        return "?"
    if unit == "ratio":
        return f"{value * 100:.1f} %"
    if unit == "seconds":
        return f"{value * 1000:.3g} ms" if abs(value) < 1 else f"{value:.3g} s"
    power = 0
    while abs(value) >= 1000 and power < len(PREFIXES) - 1:
        value /= 1000
        power += 1
    return f"{value:.3g} {PREFIXES[power]}".rstrip()


def in_words(key: str) -> str:
    """Return keys of JSON as people write them: `averageOrderValue` is "Average order value", `status.sold` "Status sold".

    What is no such word stays.
    """
    path = key.split(".")
    if not all(re.fullmatch(r"[a-z][A-Za-z0-9]*", part) for part in path):
        return key
    words = " ".join(re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[a-z]{3})(?=[0-9])", " ", part).lower() for part in path)
    return words[:1].upper() + words[1:]


def quantity(value: float, unit: str) -> str:
    """Return a number of a report: a share in percent, times and sizes with their unit, others exact with thousands."""
    if not math.isfinite(value):
        return "?"
    match unit:
        case "ratio":
            return f"{value * 100:.1f} %"
        case "ms":
            return f"{value:,.0f} ms" if abs(value) >= 10 else f"{value:.2g} ms"
        case "seconds":
            return _long(round(value))
        case "bytes":
            return f"{amount(value, 'count')}B"
        case "money":
            return f"{value:,.2f}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
