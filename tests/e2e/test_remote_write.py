"""Two daemons that send to one Prometheus or VictoriaMetrics, which is away for a while: afterwards it has every sample, once."""

import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Daemon, wait_for
from tests.e2e.test_measurement_to_notification import need

AWAY_S = 12


def prometheus(folder: Path, port: int) -> list[str]:
    (folder / "prometheus.yml").write_text("global: {}\n")
    return [
        need("prometheus", "prometheus"),
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",  # Debian's own default is /var/lib
        "--web.enable-remote-write-receiver",
        f"--web.listen-address=127.0.0.1:{port}",
    ]


def victoria_metrics(folder: Path, port: int) -> list[str]:
    return [
        need("victoria-metrics", "victoria-metrics"),
        f"-storageDataPath={folder / 'data'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-search.latencyOffset=0s",  # else the last half minute is not shown
    ]


@contextmanager
def taking(command: list[str], folder: Path, port: int) -> Iterator[str]:
    """One that takes remote write; its data stay in the folder."""
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def points(store: str, query: str) -> dict[str, list[float]]:
    """Return the times of the samples of a range selector, by label `site`."""
    answer = httpx.get(f"{store}/api/v1/query", params={"query": query}, timeout=10)
    return {one["metric"]["site"]: [float(at) for at, _ in one["values"]] for one in answer.json()["data"]["result"]}


def sends(daemon: Daemon, site: str, port: int) -> None:
    daemon.add(
        "60-central.toml",
        f"""
[checks.central]
plugin = "remote_write"
url = "http://127.0.0.1:{port}/api/v1/write"
external_labels = {{ site = "{site}" }}
step = "1s"
interval = "1s"
timeout = "900ms"
""",
    )


def arrived(store: str, query: str) -> dict[str, list[float]]:
    try:
        return points(store, query)
    except httpx.TransportError:  # it is not up yet
        return {}


def whole(found: dict[str, list[float]], until: float) -> dict[str, list[float]] | None:
    """Return the samples if both daemons' are there up to a time."""
    return found if len(found) == 2 and all(times[-1] >= until for times in found.values()) else None


def is_behind(daemon: Daemon) -> bool:
    [check] = [one for one in daemon.ctl("checks") if one["name"] == "central"]
    return bool(check["status"] == "unhealthy")


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "second")
    yield made
    if made.process is not None and made.process.poll() is None:
        made.stop()


@pytest.mark.parametrize("store", [prometheus, victoria_metrics])
def test_after_an_outage_and_a_kill_every_sample_of_both_is_there_once(
    daemon, second, tmp_path: Path, free_port: Callable[[], int], store: Callable[[Path, int], list[str]]
) -> None:
    port, folder = free_port(), tmp_path / "store"
    folder.mkdir()
    command = store(folder, port)
    for one, site in ((daemon, "dallas"), (second, "atlanta")):
        sends(one, site, port)
    query = "sixfbd_start_time_seconds[10m]"
    with taking(command, folder, port) as at:
        daemon.start()
        second.start()
        wait_for("samples of both arrive", lambda: len(arrived(at, query)) == 2)
    wait_for("the daemons notice", lambda: is_behind(daemon) and is_behind(second))
    second.kill()
    second.start()
    behind_s = lag_of(daemon)
    wait_for("they have waited", lambda: lag_of(daemon) > max(behind_s, AWAY_S), 60.0)
    assert is_behind(second)
    with taking(command, folder, port) as at:
        wait_for("all is sent", lambda: max(lag_of(daemon), lag_of(second)) < 5, 60.0)
        sent = time.time()
        found = wait_for("all can be seen", lambda: whole(points(at, query), sent - 5))
    for times in found.values():
        assert len(times) > AWAY_S - 5, "what was measured while it was away"
        assert [b - a for a, b in itertools.pairwise(times)] == [1.0] * (len(times) - 1)
    for one in (daemon, second):
        assert value(one, "remote_write_samples_dropped_total") == 0


def lag_of(daemon: Daemon) -> float:
    return value(daemon, "remote_write_lag_seconds")


def value(daemon: Daemon, metric: str) -> float:
    answer: dict[str, Any] = httpx.get(f"{daemon.url}/api/v1/query", params={"query": metric}, timeout=10).json()
    [one] = answer["data"]["result"]
    return float(one["value"][1])
