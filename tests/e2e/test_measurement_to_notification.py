"""From a real measurement to a delivered notification, as a user sees it; prints its times (pytest -s shows them)."""

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from standardwebhooks import Webhook

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def write_configuration(daemon, target, receiver) -> None:
    (daemon.directory / "hook-secret").write_text(SECRET)
    (daemon.directory / "hook-secret").chmod(0o600)
    daemon.probe(target)
    daemon.tell(receiver.url, 'secret = { file = "hook-secret" }')
    daemon.add(
        "50-test.toml",
        """
[[rules]]
name = "ProbeFailed"
for = "0s"
""",
    )


def need(binary: str, package: str) -> str:
    found = shutil.which(binary)
    assert found, f"{binary} is missing: apt-get install {package}"
    return found


def test_a_stopped_server_is_told_and_its_return_too(daemon, target, receiver, wait):
    write_configuration(daemon, target, receiver)
    times: dict[str, float] = {}
    times["start to ready"] = daemon.start()

    def shop_is_up() -> bool:
        return {check["name"]: check["status"] for check in daemon.ctl("checks")} == {
            "shop": "healthy",
            "system": "healthy",
        }

    wait("the checks are healthy", shop_is_up)
    health = httpx.get(daemon.url + "/api/health")
    assert health.status_code == 200, health.text
    assert health.json()["status"] == "healthy"
    assert {"status", "timestamp", "uptime", "version", "services", "metrics", "external"} <= health.json().keys()

    metrics = httpx.get(daemon.url + "/metrics").text
    checked = subprocess.run(
        [need("promtool", "prometheus"), "check", "metrics"], input=metrics, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "probe_success" in metrics and "sixfbd_check_status" in metrics and "node_load1" in metrics
    answer = httpx.get(daemon.url + "/api/metrics", headers={"Accept": "application/openmetrics-text"})
    assert {family.name for family in parse_openmetrics(answer.text)} >= {"probe_success", "sixfbd_check_status"}

    target.stop()
    stopped = time.time()
    fired_at, fired = wait("the alert arrives", lambda: receiver.alerts(alertname="ProbeFailed"))[0]
    times["server stopped to webhook received"] = fired_at - stopped
    assert fired["status"] == "firing" and fired["labels"]["instance"] == target.url

    alerts = daemon.ctl("alerts")
    [alert] = [alert for alert in alerts if alert["rule"] == "ProbeFailed"]
    assert daemon.run_ctl("ack", alert["id"], "--comment", "on it").returncode == 0

    target.start()
    started = time.time()

    def resolved():
        return [found for found in receiver.alerts(alertname="ProbeFailed") if found[1]["status"] == "resolved"]

    resolved_at, _ = wait("resolved arrives", resolved)[0]
    times["server started to resolved received"] = resolved_at - started

    for _, headers, _, body in receiver.got:
        Webhook(SECRET).verify(body, headers)
    told = [alert["status"] for _, alert in receiver.alerts(alertname="ProbeFailed")]
    assert told == ["firing", "resolved"], "told once each"

    story = daemon.run_ctl("why", alert["id"]).stdout
    for part in ("probe_success", "firing", "resolved", "primary", "accepted", "on it"):
        assert part in story, f"{part!r} is not in the story:\n{story}"
    times["stop"] = daemon.stop()
    assert times["stop"] < 10
    for what, seconds in times.items():
        print(f"{what}: {seconds * 1000:.0f} ms")
    print(story)


def test_a_real_prometheus_scrapes_it(daemon, target, receiver, wait, tmp_path: Path, free_port):
    write_configuration(daemon, target, receiver)
    daemon.start()
    port = free_port()
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: 6fb-workshop\n"
        "    metrics_path: /api/metrics\n"
        f"    static_configs: [{{targets: ['{daemon.url.removeprefix('http://')}']}}]\n"
    )
    prometheus = subprocess.Popen(
        [
            need("prometheus", "prometheus"),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def scraped(expr: str) -> list[dict]:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expr}, timeout=5)
            return answer.json()["data"]["result"]

        up = wait("Prometheus has scraped the daemon", lambda: scraped('up{job="6fb-workshop"} == 1'))
        assert up[0]["value"][1] == "1"
        theirs = wait("Prometheus has the probe's series", lambda: scraped("probe_success"))
        ours = httpx.get(daemon.url + "/api/v1/query", params={"query": "probe_success"}).json()
        assert ours["status"] == "success"
        assert (
            [found["value"][1] for found in ours["data"]["result"]] == [found["value"][1] for found in theirs] == ["1"]
        )
    finally:
        prometheus.terminate()
        prometheus.wait(10)


def test_a_probe_that_never_answers_does_not_delay_the_others(daemon, wait):
    deaf = socket.socket()
    deaf.bind(("127.0.0.1", 0))
    deaf.listen(1)
    daemon.add(
        "50-test.toml",
        f"""
[checks.deaf]
plugin = "webhook"
url = "http://127.0.0.1:{deaf.getsockname()[1]}/"
interval = "60s"
timeout = "30s"

[checks.quick]
plugin = "webhook"
url = "http://127.0.0.1:1/"
interval = "1s"
timeout = "500ms"
""",
    )
    try:
        daemon.start()

        def quick_runs() -> bool:
            checks = {check["name"]: check for check in daemon.ctl("checks")}
            return checks["quick"]["runs"] >= 3 and checks["deaf"]["running"]

        wait("the quick check runs on while the deaf one waits", quick_runs)
    finally:
        deaf.close()


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_it_stops_in_order_within_ten_seconds(daemon, signal_name):
    daemon.start()
    began = time.monotonic()
    daemon.process.send_signal(getattr(signal, signal_name))
    assert daemon.process.wait(15) == 0
    assert time.monotonic() - began < 10
