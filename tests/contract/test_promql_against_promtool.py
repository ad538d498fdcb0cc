"""Our PromQL against a real Prometheus: the same samples, the same expressions, values to 9 digits and beyond.

Values come from a Prometheus on a free loopback port over a TSDB that promtool made from OpenMetrics text; staleness
markers, which that text cannot carry, from `promtool test rules`. Debian's Prometheus has closed windows and a look-back
of five minutes: all evaluation times lie one second off the samples, so that closed and left-open windows hold the same,
and all blocks have `stale_after` 5 min. What differs on the edges is tested by hand in the unit tests.
"""

import json
import math
import os
import random
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from sixfbd import promql
from sixfbd.model import Labels, Series, SeriesId, labels_of
from sixfbd.promql.parse import AGGREGATIONS, FUNCTIONS
from sixfbd.window.blocks import ABSENT, STALE, Block, is_absent
from sixfbd.window.snapshot import Matcher

T0 = 1_790_000_040  # a multiple of 15 s
INTERVAL = 15
ROWS = 160
STEP = 30
START, END = T0 + 1, T0 + ROWS * INTERVAL + 421  # runs past the last sample, so that all series go stale
EXPRESSIONS = Path(__file__).with_name("promql_expressions.txt")
NAN = math.nan

pytestmark = pytest.mark.xdist_group("prometheus")  # one for all of them

Row = list[float]
Answer = dict[tuple[tuple[str, str], ...], dict[int, float]]


@dataclass(frozen=True)
class OneSnapshot:
    """Blocks in memory, as the window would give them."""

    blocks: list[Block]

    def select(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> list[Block]:
        found = []
        for block in self.blocks:
            columns = [column for column, series in enumerate(block.series) if promql.matches(matchers, series)]
            rows = slice(np.searchsorted(block.t_ms, lo_ms), np.searchsorted(block.t_ms, hi_ms, side="right"))
            if columns:
                series = tuple(block.series[c] for c in columns)
                ids = tuple(block.ids[c] for c in columns)
                values = np.ascontiguousarray(block.v[rows][:, columns])
                found.append(Block(series, ids, block.t_ms[rows], values, block.stale_after_ms, block.check))
        return found

    def points(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> int:
        return sum(block.v.size for block in self.blocks)

    def loaded(self, matchers: Sequence[Matcher], lo_ms: int, hi_ms: int) -> bool:
        return True

    def look_back_ms(self, matchers: Sequence[Matcher]) -> int:
        return 300_000


# ---- the samples


def _make_samples(chance: random.Random) -> dict[tuple[str, Labels], Row]:
    """Return a column of ROWS values per series; ABSENT where it has no sample."""
    out: dict[tuple[str, Labels], Row] = {}

    def add(metric: str, row: Row, **labels: str) -> None:
        out[metric, labels_of(labels)] = row

    for host in "abc":
        for zone in ("eu-1", "us-2"):
            add("gauge", _wander(chance), host=host, zone=zone)
            add("limit", [float(chance.randint(20, 80))] * ROWS, host=host, zone=zone)
            add("limit_by_unit", [float(chance.randint(20, 80))] * ROWS, host=host, zone=zone, unit="%")
        for code in ("200", "500"):
            add("counter_total", _count(chance, reset_chance=0.03), host=host, code=code)
        add("sparse", [v if chance.random() < 0.5 else ABSENT for v in _wander(chance)], host=host)
    for host in "ab":
        add("host_info", [1.0] * ROWS, host=host, rack=f"r{host}")
    add("steady_total", [float(10 * i) for i in range(ROWS)])
    add("restarted_total", _count(chance, reset_chance=0.2))
    add("ends_early", [1000.0 + 3 * i if i < 70 else ABSENT for i in range(ROWS)], host="a")
    add("starts_late", [3.0 * (i - 60) if i >= 60 else ABSENT for i in range(ROWS)], host="a")
    for host in "ab":
        odd = [chance.choice([NAN, math.inf, -math.inf, 0.0, 1.5, -2.5, 7.0]) for _ in range(ROWS)]
        add("odd", odd, host=host)
    _add_histograms(add, chance)
    return out


def _add_histograms(add: Callable[..., None], chance: random.Random) -> None:
    for host in "ab":
        total = [0.0] * ROWS
        for le in ("0.1", "0.5", "1", "2.5", "+Inf"):
            more = _count(chance, reset_chance=0)
            total = [a + b for a, b in zip(total, more, strict=True)]
            add("latency_seconds_bucket", total, host=host, le=le)
    for le, count in (("1", 10.0), ("2", 9.0), ("2.0", 6.0), ("x", 50.0), ("+Inf", 12.0)):
        add("broken_bucket", [count] * ROWS, le=le)
    for le, count in (("-1", 5.0), ("0", 8.0), ("1", 9.0), ("+Inf", 10.0)):
        add("negative_bucket", [count] * ROWS, le=le)


def _wander(chance: random.Random) -> Row:
    value, row = chance.uniform(10, 90), []
    for _ in range(ROWS):
        value = min(max(value + chance.choice([0, 0, 1, -1]) * chance.uniform(0, 25), 0), 100)
        row.append(round(value, 3))
    return row


def _count(chance: random.Random, *, reset_chance: float) -> Row:
    """Start at 0: where a range begins before the counter does, Prometheus 2 and 3 extrapolate other starts differently."""
    value, row = 0.0, []
    for _ in range(ROWS):
        row.append(value)
        value = 0.0 if chance.random() < reset_chance else value + chance.choice([0, 1, 2, 10])
    return row


def _snapshot(samples: dict[tuple[str, Labels], Row]) -> OneSnapshot:
    """One block for the series that are numbers throughout (the fast path), one for the others."""
    times = (T0 + INTERVAL * np.arange(ROWS, dtype=np.int64)) * 1000
    blocks = []
    for plain in (True, False):
        rows = {key: row for key, row in samples.items() if plain != any(math.isnan(value) for value in row)}
        series = tuple(Series(metric, labels) for metric, labels in rows)
        values = np.array(list(rows.values())).T.copy()
        blocks.append(Block(series, tuple(map(SeriesId, range(len(rows)))), times, values, 300_000, "test"))
    return OneSnapshot(blocks)


def _openmetrics(samples: dict[tuple[str, Labels], Row]) -> str:
    lines = []
    for (metric, labels), row in samples.items():
        name = promql.series_text(metric, labels).replace(", ", ",")
        for index, value in enumerate(row):
            if not is_absent(np.array([value]))[0]:
                lines.append(f"{name} {_number(value)} {T0 + index * INTERVAL}")
    return "\n".join([*lines, "# EOF", ""])


def _number(value: float) -> str:
    return repr(value).replace("inf", "Inf").replace("nan", "NaN")


# ---- the two who answer


class Prometheus:
    """A running Prometheus over samples of ours."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._base}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, expr: str) -> Answer | str:
        """Return the rows by labels, each step's value by time in seconds, or the error's text."""
        query = urllib.parse.urlencode({"query": expr, "start": START, "end": END, "step": STEP})
        try:
            with urllib.request.urlopen(f"{self._base}/api/v1/query_range?{query}", timeout=30) as answer:
                body = json.load(answer)
        except urllib.error.HTTPError as refused:
            with refused:
                return str(json.load(refused)["error"])
        return {
            tuple(sorted(row["metric"].items())): {int(at): float(value) for at, value in row["values"]}
            for row in body["data"]["result"]
        }


def _ours(expr: str, snapshot: OneSnapshot) -> Answer | str:
    try:
        query = promql.compile(expr)
        value = promql.evaluate(query, snapshot, START * 1000, END * 1000, STEP * 1000, promql.Stop())
    except (promql.PromQLError, promql.QueryError) as error:
        return str(error)
    return {
        tuple(sorted(labels.items())): {
            int(value.steps_ms[step]) // 1000: float(value.values[row, step])
            for step in np.flatnonzero(value.present[row])
        }
        for row, labels in enumerate(value.label_dicts())
    }


def _binary(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        how = "apt-get install -y --no-install-recommends prometheus"
        where = "this CI runner lacks it" if os.environ.get("CI") else "it is not installed"
        pytest.fail(f"{name} is needed to know what Prometheus answers, and {where}: {how}")
    return found


@pytest.fixture(scope="module")
def samples() -> dict[tuple[str, Labels], Row]:
    return _make_samples(random.Random(20261123))


@pytest.fixture(scope="module")
def snapshot(samples: dict[tuple[str, Labels], Row]) -> OneSnapshot:
    return _snapshot(samples)


@pytest.fixture(scope="module")
def prometheus(
    samples: dict[tuple[str, Labels], Row], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    room = tmp_path_factory.mktemp("prometheus")
    (room / "samples.txt").write_text(_openmetrics(samples))
    (room / "prometheus.yml").write_text("global: {}\n")
    command = [_binary("promtool"), "tsdb", "create-blocks-from", "openmetrics", "samples.txt", "data"]
    subprocess.run(command, cwd=room, check=True, capture_output=True, timeout=120)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [f"--web.listen-address=127.0.0.1:{port}", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    options += ["--storage.tsdb.retention.time=100y", "--log.level=warn"]
    with (room / "log").open("wb") as log:
        process = subprocess.Popen([_binary("prometheus"), *options], cwd=room, stdout=log, stderr=log)
    try:
        running = Prometheus(port)
        deadline = time.monotonic() + 60
        while not running.ready():
            if time.monotonic() > deadline or process.poll() is not None:
                pytest.fail(f"prometheus did not start:\n{(room / 'log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield running
    finally:
        process.terminate()
        process.wait(timeout=30)


# ---- the comparison


def _difference(theirs: Answer | str, ours: Answer | str) -> str | None:
    """Return what differs, in words, or None."""
    if isinstance(theirs, str) or isinstance(ours, str):
        if isinstance(theirs, str) and isinstance(ours, str):
            return None
        return f"prometheus: {str(theirs)[:200]}; ours: {str(ours)[:200]}"
    if theirs.keys() != ours.keys():
        return f"only prometheus has {sorted(theirs.keys() - ours.keys())}, only we have {sorted(ours.keys() - theirs.keys())}"
    for labels, points in theirs.items():
        if points.keys() != ours[labels].keys():
            times = sorted(at - T0 for at in points.keys() ^ ours[labels].keys())
            return f"{labels}: present at different times, first of {len(times)}: T0 + {times[0]} s"
        for at, value in points.items():
            if not _same(value, ours[labels][at]):
                return f"{labels} at T0 + {at - T0} s: prometheus {value!r}, ours {ours[labels][at]!r}"
    return None


def _same(theirs: float, ours: float) -> bool:
    if math.isnan(theirs) or math.isnan(ours):
        return math.isnan(theirs) and math.isnan(ours)
    return math.isclose(theirs, ours, rel_tol=1e-9, abs_tol=1e-9)


def _corpus() -> list[str]:
    lines = EXPRESSIONS.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("line", _corpus())
def test_the_corpus_has_the_values_that_prometheus_computes(
    line: str, prometheus: Prometheus, snapshot: OneSnapshot
) -> None:
    expr = line.removeprefix("! ")
    theirs, ours = prometheus.ask(expr), _ours(expr, snapshot)
    assert isinstance(theirs, str) == line.startswith("! "), f"the corpus is wrong about {expr}: {theirs}"
    difference = _difference(theirs, ours)
    assert difference is None, f"{expr}\n{difference}"


def test_every_supported_function_and_aggregation_is_in_the_corpus() -> None:
    text = " ".join(_corpus())
    missing = [name for name in (*FUNCTIONS, *AGGREGATIONS) if not re.search(rf"\b{name}\b", text)]
    assert missing == []


class Expressions:
    """Random expressions over the samples, by a small grammar; a seed replays."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def vector(self, depth: int) -> str:
        if depth == 0:
            return self._chance.choice([self._selector(), self._over_range()])
        make = self._chance.choice(
            [self._binary, self._with_scalar, self._aggregated, self._set, self._mapped, self._grouped, self._negated]
        )
        return make(depth - 1)

    def _selector(self) -> str:
        metric = self._chance.choice(["gauge", "limit", "sparse", "counter_total", "host_info", "odd", "starts_late"])
        matchers = self._chance.choice(["", "", '{host="a"}', '{host!="b"}', '{zone=~"eu.*"}', '{host=~"a|c"}'])
        offset = self._chance.choice(["", "", "", " offset 45s", " offset 5m", " offset -30s"])
        return f"{metric}{matchers}{offset}"

    def _over_range(self) -> str:
        functions = ["rate", "increase", "irate", "resets", "changes", "delta", "idelta"]
        functions += [
            f"{name}_over_time" for name in ("avg", "min", "max", "sum", "count", "last", "present", "stddev")
        ]
        function = self._chance.choice(functions)
        metric = self._chance.choice(["counter_total", "gauge", "sparse", "odd", 'latency_seconds_bucket{host="a"}'])
        if function in ("rate", "increase") and metric != "counter_total":
            function = "delta"  # where a range starts in a gap, this version extrapolates counters differently
        return f"{function}({metric}[{self._chance.choice(['30s', '1m', '2m30s', '5m'])}])"

    def _scalar(self) -> str:
        return self._chance.choice(["2", "-0.5", "100", "time() % 100", "scalar(sum(gauge))", "1 / 0"])

    def _binary(self, depth: int) -> str:
        op = self._chance.choice(["+", "-", "*", "/", "%", "^", ">", "<", "==", "!=", ">= bool", "< bool"])
        match = self._chance.choice(["", "", "on (host)", "ignoring (zone)", "on (host) group_left", "on (host, zone)"])
        return f"({self.vector(depth)}) {op} {match} ({self.vector(depth)})"

    def _with_scalar(self, depth: int) -> str:
        op = self._chance.choice(["+", "-", "*", "/", "%", ">", "<=", "> bool"])
        sides = [f"({self.vector(depth)})", f"({self._scalar()})"]
        self._chance.shuffle(sides)
        return f"{sides[0]} {op} {sides[1]}"

    def _aggregated(self, depth: int) -> str:
        op = self._chance.choice(["sum", "avg", "count", "min", "max", "group", "stddev"])
        by = self._chance.choice(
            ["", "by (host)", "by (zone, host)", "without (host)", "without (zone, code)", "by ()"]
        )
        return f"{op} {by} ({self.vector(depth)})"

    def _grouped(self, depth: int) -> str:
        return f"quantile by (host) ({self._chance.choice(['0', '0.25', '0.9', '1'])}, {self.vector(depth)})"

    def _set(self, depth: int) -> str:
        op, match = (
            self._chance.choice(["and", "or", "unless"]),
            self._chance.choice(["", "on (host)", "ignoring (zone)"]),
        )
        return f"({self.vector(depth)}) {op} {match} ({self.vector(depth)})"

    def _mapped(self, depth: int) -> str:
        inner = self.vector(depth)
        return self._chance.choice(
            [f"abs({inner})", f"round({inner}, 0.5)", f"clamp({inner}, 5, 50)", f"absent({inner})"]
        )

    def _negated(self, depth: int) -> str:
        return f"-({self.vector(depth)})"


def test_random_expressions_have_the_values_that_prometheus_computes(
    prometheus: Prometheus, snapshot: OneSnapshot
) -> None:
    make = Expressions(random.Random(7))
    differences, errors = [], 0
    for number in range(600):
        expr = make.vector(1 + number % 3)
        theirs = prometheus.ask(expr)
        errors += isinstance(theirs, str)
        difference = _difference(theirs, _ours(expr, snapshot))
        if difference is not None:
            differences.append(f"{expr}\n    {difference}")
    assert not differences, f"{len(differences)} of 600:\n" + "\n".join(differences[:10])
    assert errors < 400  # else the grammar makes nothing worth comparing


# ---- staleness markers

STALE_SERIES = {
    'x{a="1"}': "1 2 stale _ 5 NaN 7 3 stale stale 4 6 1 0 _ _ 2",
    'x{a="2"}': "1000+2x16",
    'x{a="3"}': "4 stale _ _ _ _ _ _ _ _ _ _ _ _ _ _ 9",
    'y{a="1"}': "_ _ 3 4 stale",
}
STALE_EXPRESSIONS = (
    "x", "y", "x - x offset 30s", "idelta(x[2m])", "increase(x{a=\"2\"}[45s])", "changes(x[2m])", "count_over_time(x[1m])",
    "sum(x)", "count(x) - count(y)", "absent(y)", "absent_over_time(y[1m])", "last_over_time(x[30s])", "timestamp(x)",
    "x or y", "x and on (a) y", "irate(x[1m])", "max_over_time(x[1m30s])", "resets(x[4m])", "delta(x[1m])",
    "stddev_over_time(x[1m])", "quantile_over_time(0.5, x[2m])", "present_over_time(y[1m])", "scalar(y)",
)  # fmt: skip
_GOT = re.compile(r"got: ?(.*)")
_SAMPLE = re.compile(r"\{([^}]*)\} ([^,\s]+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def _stale_rows() -> dict[tuple[str, Labels], Row]:
    rows = {}
    for series, text in STALE_SERIES.items():
        marks = [str(1000 + 2 * i) for i in range(17)] if "x16" in text else text.split()
        row = [{"_": ABSENT, "stale": STALE}.get(mark) or float(mark.replace("_", "0")) for mark in marks]
        rows[series[0], labels_of(dict(_LABEL.findall(series)))] = row + [ABSENT] * (17 - len(row))
    return rows


def test_staleness_markers_hide_series_as_promtool_says(tmp_path: Path) -> None:
    tests = [(expr, at) for expr in STALE_EXPRESSIONS for at in range(1, 17 * INTERVAL, INTERVAL)]
    asked = [
        {"expr": expr, "eval_time": f"{at}s", "exp_samples": [{"labels": "wrong", "value": 4711}]} for expr, at in tests
    ]
    series = [{"series": name, "values": values} for name, values in STALE_SERIES.items()]
    unit = {"interval": f"{INTERVAL}s", "input_series": series, "promql_expr_test": asked}
    (tmp_path / "stale.yml").write_text(json.dumps({"evaluation_interval": f"{INTERVAL}s", "tests": [unit]}))
    said = subprocess.run(
        [_binary("promtool"), "test", "rules", "stale.yml"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    got = _GOT.findall(said.stdout + said.stderr)
    assert len(got) == len(tests)
    rows = _stale_rows()
    times = INTERVAL * 1000 * np.arange(17, dtype=np.int64)
    names = tuple(Series(metric, labels) for metric, labels in rows)
    block = Block(names, tuple(map(SeriesId, range(4))), times, np.array(list(rows.values())).T.copy(), 300_000, "test")
    for (expr, at), text in zip(tests, got, strict=True):
        theirs = {tuple(sorted(_LABEL.findall(labels))): float(value) for labels, value in _SAMPLE.findall(text)}
        value = promql.evaluate(promql.compile(expr), OneSnapshot([block]), at * 1000, at * 1000, 1, promql.Stop())
        ours = {
            tuple(sorted(labels.items())): float(value.values[row, 0]) for row, labels in enumerate(value.label_dicts())
        }
        assert theirs.keys() == ours.keys(), f"{expr} at {at} s"
        assert all(_same(theirs[labels], ours[labels]) for labels in theirs), f"{expr} at {at} s: {theirs} {ours}"
