"""What etc/grafana and etc/prometheus ask for is there: in the daemon, and in a Prometheus that has scraped it."""

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from sixfbd import promql
from sixfbd.config import PluginSources
from sixfbd.host import load_plugins
from sixfbd.vitals import DOCS
from sixfbd_plugins.stripe.events import DECLINED
from tests.e2e.test_measurement_to_notification import need

ETC = Path(__file__).parents[2] / "etc"
DASHBOARD = ETC / "grafana" / "sixfbd.json"
COMPARED = re.compile(r"([<>]=?|==) (?=[\d.]+)")


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def test_the_dashboard_is_what_its_source_makes_and_has_the_panels_of_the_seed() -> None:
    assert DASHBOARD.read_text() == runpy.run_path(str(ETC / "grafana" / "dashboard.py"))["build"]()
    asked = {panel["title"]: [one["expr"] for one in panel["targets"]] for panel in panels()}
    assert asked["Ticket Sales"] == ["increase(workshop_tickets_sold_total[1h])"]
    assert asked["Revenue"] == ["workshop_revenue_total"]
    assert asked["Inventory Status"] == ["inventory_tickets_available"]
    assert asked["System Health"] == ["up"]


def test_every_metric_that_the_dashboard_asks_for_is_declared() -> None:
    """A query that ends in `or vector(0)` finds data whatever it asks for: the name must be one that there is."""
    catalog = load_plugins(PluginSources())
    declared = {*catalog.metrics, *DOCS, "up"}
    declared |= {f"{name}{end}" for name in catalog.metrics for end in ("_sum", "_count")}
    queries = [one["expr"] for panel in panels() for one in panel["targets"]]
    asked = {metric for query in queries for metric in promql.compile(query).metrics}
    assert len(asked) > 40 and asked - declared == set()


def test_promtool_takes_the_files_for_prometheus() -> None:
    checked = subprocess.run(
        [need("promtool", "prometheus"), "check", "config", ETC / "prometheus" / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "5 rules found" in checked.stdout


@contextmanager
def scraping(daemon_url: str, folder: Path, port: int) -> Iterator[str]:
    """A Prometheus with the files of etc/prometheus, the daemon at another address and looked at every second."""
    folder.mkdir()
    shutil.copy(ETC / "prometheus" / "alert_rules.yml", folder)
    config = (ETC / "prometheus" / "prometheus.yml").read_text()
    for mine, its in (("127.0.0.1:9632", daemon_url.removeprefix("http://")), ("15s", "1s"), ("30s", "1s")):
        assert mine in config
        config = config.replace(mine, its)
    (folder / "prometheus.yml").write_text(config)
    command = [
        need("prometheus", "prometheus"),
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


def found(url: str, query: str) -> list[Any]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, timeout=10)
    assert answer.status_code == 200, f"{query}: {answer.text}"
    return list(answer.json()["data"]["result"])


def test_every_query_of_the_dashboard_and_the_alerts_finds_data_in_the_daemon_and_in_prometheus(
    daemon, sandbox, wait, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    sandbox.start()
    daemon.start()
    for words in ("rush=300", "technical=20%"):
        sandbox.ask("fault", "shop", words)
    with scraping(daemon.url, tmp_path / "prometheus", free_port()) as prometheus:
        rules = wait("Prometheus has loaded the alerts", lambda: loaded(prometheus))
        queries = [one["expr"] for panel in panels() for one in panel["targets"]]
        # An alert that does not fire finds nothing; with `bool` it says so of what it has looked at.
        queries += [COMPARED.sub(r"\1 bool ", rule["query"]) for rule in rules]
        assert len(queries) > 50
        missing = {(url, query) for url in (daemon.url, prometheus) for query in queries}

        def all_found() -> bool:
            nonlocal missing
            fail_a_payment(daemon)
            missing = {(url, query) for url, query in missing if not found(url, query)}
            return not missing

        try:
            wait("every query has found something", all_found, 90.0, 0.5)
        finally:
            print(*sorted(missing), sep="\n")
        assert {rule["health"] for rule in loaded(prometheus)} <= {"ok", "unknown"}


def fail_a_payment(daemon) -> None:
    """As the check says of a payment once its outcome is final, an hour or so after it was begun."""
    daemon.ctl("events", "emit", "stripe_payment", "payment=pi_1", f"outcome={DECLINED}")


def loaded(prometheus: str) -> list[dict[str, Any]]:
    groups = httpx.get(f"{prometheus}/api/v1/rules", timeout=10).json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]
