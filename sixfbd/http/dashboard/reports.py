"""The pages of reports, at /reports/NAME: any report's outline as figures, tables and bars. Knows no report.

What holds only figures becomes cards, a list of alike things a table, a list of times and one number bars.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

import trio
from msgspec import Struct
from quart import Response
from werkzeug.datastructures import MultiDict

from sixfbd.config.text import did_you_mean
from sixfbd.http import parameters
from sixfbd.http.answers import Refusal
from sixfbd.http.asked import Asked
from sixfbd.http.dashboard.page import POLICY, TEMPLATES
from sixfbd.http.dashboard.wording import in_words, quantity
from sixfbd.http.engine import ReportFailed, ReportInfo
from sixfbd.http.parameters import read_time
from sixfbd.http.routes import Answer, Parameter, Room, Route
from sixfbd.http.sessions import session_of

SPANS: Final = ("1h", "24h", "7d", "30d")
MOST_ROWS: Final = 50
LONG: Final = 32  # characters
WIDTH: Final = 960.0
HEIGHT: Final = 120.0
LEFT_OUT: Final = frozenset({"timeframe", "unknown"})

Units = Mapping[str, str]
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


class Cell(Struct, frozen=True):
    """One value: its name, how it reads, and why it is not known, "" if it is. `at` is its time, if it is one; `is_long` text
    goes over several lines."""

    name: str
    text: str = ""
    missing: str = ""
    at: float | None = None

    @property
    def is_long(self) -> bool:
        return len(self.text) > LONG


class Listing(Struct, frozen=True):
    """A table; `more` rows are left out."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    more: int = 0


class Figures(Struct, frozen=True):
    """Some values that belong together."""

    title: str
    cells: tuple[Cell, ...]


class Bars(Struct, frozen=True):
    """A number at times, as an SVG path; `spoken` says it in words."""

    title: str
    highest: str
    begins: str
    ends: str
    path: str
    spoken: str
    width: float = WIDTH
    height: float = HEIGHT


class Group(Struct, frozen=True):
    """One section of a page."""

    id: str
    title: str
    figures: tuple[Figures, ...] = ()
    tables: tuple[Listing, ...] = ()
    bars: tuple[Bars, ...] = ()


def groups_of(report: Mapping[str, Any], units: Units) -> list[Group]:
    """Return the sections of a report, plain values first, in one of their own."""
    unknown: Mapping[str, str] = report.get("unknown", {})
    found, plain = [], []
    for key, value in report.items():
        if key in LEFT_OUT:
            continue
        if isinstance(value, Mapping | list) and value:
            found.append(_group(key, value, units, unknown))
        else:
            plain.append(_cell(key, value, key, units.get(key, "count"), unknown))
    whole = Group("whole", "Figures", (Figures("", tuple(plain)),))
    return [*([whole] if plain else []), *found]


def _group(key: str, value: Any, units: Units, unknown: Mapping[str, str]) -> Group:
    figures: list[Figures] = []
    tables: list[Listing] = []
    bars: list[Bars] = []

    def take(one: Any, path: str, title: str, unit: str) -> None:
        if isinstance(one, list):
            if _is_course(one):
                bars.append(_bars(title, one, units))
            else:
                tables.append(_table(title, one, path, units, unknown))
            return
        if one and all(isinstance(inner, Mapping) for inner in one.values()):
            rows = [{"": name, **inner} for name, inner in one.items()]
            tables.append(_table(title, rows, path, units, unknown))
            return
        plain = {name: inner for name, inner in one.items() if not isinstance(inner, Mapping | list)}
        if plain:
            cells = (
                _cell(name, inner, f"{path}.{name}", units.get(name, unit), unknown) for name, inner in plain.items()
            )
            figures.append(Figures(title, tuple(cells)))
        for name, inner in one.items():
            if name not in plain:
                take(inner, f"{path}.{name}", in_words(name), units.get(name, unit))

    take(value, key, "", units.get(key, "count"))
    return Group(re.sub(r"\W", "-", key), in_words(key), tuple(figures), tuple(tables), tuple(bars))


def _cell(key: str, value: Any, path: str, unit: str, unknown: Mapping[str, str]) -> Cell:
    name = in_words(key)
    if value is None:
        return Cell(name, missing=unknown.get(path, ""), text="–")
    at = read_time(value) if isinstance(value, str) and _TIME.match(value) else None
    return Cell(name, _text(value, unit), at=at)


def _text(value: Any, unit: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return quantity(value, unit)
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_text(one, unit)}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_text(one, unit) for one in value) or "none"
    return str(value)


def _table(title: str, rows: Sequence[Any], path: str, units: Units, unknown: Mapping[str, str]) -> Listing:
    shown = rows[:MOST_ROWS]
    if not all(isinstance(row, Mapping) for row in shown):
        return Listing(title, ("",), tuple((Cell("", _text(row, "count")),) for row in shown), len(rows) - len(shown))
    flat = [_flat(row) for row in shown]
    heads = list(dict.fromkeys(name for row in flat for name in row))
    cells = tuple(
        tuple(
            _cell(
                name, row.get(name, ""), f"{path}[{place}].{name}", units.get(name.rpartition(".")[2], "count"), unknown
            )
            for name in heads
        )
        for place, row in enumerate(flat)
    )
    return Listing(title, tuple(map(in_words, heads)), cells, len(rows) - len(shown))


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return a row whose tables are columns of their own: `status.sold.ga`."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        whole = f"{before}{name}"
        found |= _flat(value, f"{whole}.") if isinstance(value, Mapping) and value else {whole: value}
    return found


def _is_course(rows: Sequence[Any]) -> bool:
    """Tell whether it is one number at many times."""
    return len(rows) > 1 and all(isinstance(row, Mapping) and len(row) == 2 and "time" in row for row in rows)


def _bars(title: str, rows: Sequence[Mapping[str, Any]], units: Units) -> Bars:
    key = next(name for name in rows[0] if name != "time")
    values = [float(row[key] or 0.0) for row in rows]
    highest, step = max(values), WIDTH / len(values)
    parts = [
        f"M{place * step:.1f} {HEIGHT:g}v-{HEIGHT * value / highest:.1f}h{step * 0.85:.2f}V{HEIGHT:g}z"
        for place, value in enumerate(values)
        if value > 0
    ]
    said = quantity(highest, units.get(key, "count"))
    begins, ends = (str(row["time"])[:16].replace("T", " ") for row in (rows[0], rows[-1]))
    spoken = f"{title}: {len(values)} values from {begins} to {ends} UTC, at most {said}"
    return Bars(title, said, f"{begins} UTC", f"{ends} UTC", "".join(parts), spoken)


async def show(room: Room, asked: Asked, name: str) -> Response:
    values = MultiDict(parse_qsl(asked.query.decode("latin-1")))
    session = session_of(room.sessions, room.engine, asked)
    engine, reports = room.engine, list(room.engine.reports())
    found = next((one for one in reports if one.name == name), None)
    if found is None:
        hint = did_you_mean(name, [one.name for one in reports]) or "GET /api/monitoring lists them"
        raise Refusal(404, "no_such_report", f"there is no report {name!r:.80}; {hint}")
    timeframe = values.get("timeframe", "")
    seconds = parameters.span(values, "timeframe") if timeframe else None
    report: Mapping[str, Any] = {}
    failed = ""
    try:
        report = await engine.report(name, seconds, "", "")
    except ReportFailed as error:
        failed = str(error)
    facts = {
        "now": engine.now(),
        "site": engine.site,
        "sandbox": engine.sandbox,
        "version": engine.version,
        "reports": reports,
        "word": "" if session is None else session[0].word,
        "who": "" if session is None else session[1].name,
        "here": name,
        "report": found,
        "spans": SPANS,
        "timeframe": timeframe or _usual(found),
        "groups": groups_of(report, found.units),
        "failed": failed,
    }
    html = await trio.to_thread.run_sync(lambda: TEMPLATES.get_template("report.html").render(facts))
    return Response(html, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": POLICY})


def _usual(report: ReportInfo) -> str:
    return "24h" if report.timeframe == "1d" else report.timeframe


ROUTES: Final = (
    Route(
        "/reports/<name>",
        show,
        "A report as a page for people.",
        {200: Answer("", {"type": "string"}, "text/html"), 404: Answer("No report has this name.")},
        parameters=(
            Parameter("name", "path", "The report's name.", required=True),
            Parameter("timeframe", "query", "How far back, such as `24h`; the report's own if left out."),
        ),
        plain=True,
    ),
)
