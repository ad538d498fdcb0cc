"""A plugin that `sixfbd plugins new` wrote, as its author would use it: installed, tested, loaded by a daemon, alerting."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

BIN = Path(sys.executable).parent
ALERT = {"name": "Many", "expr": "queue_files > 1", "severity": "high"}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("author") / "queue"
    made = subprocess.run([BIN / "sixfbd", "plugins", "new", "queue", "--dir", folder], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert f"wrote {folder}/pyproject.toml" in made.stdout
    return folder


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for PYTHONPATH that it is installed into, without a network."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, "--target", site, package], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return site


def configure(daemon, folder: Path, daemon_table: dict[str, object]) -> None:
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / name).touch()
    checks = {"outgoing": {"plugin": "queue", "directory": str(folder), "interval": "1s"}}
    table = {"daemon": daemon_table, "checks": checks, "rules": [ALERT]}
    daemon.add("60-queue.toml", tomli_w.dumps(table))


def test_its_tests_pass_against_what_was_installed(package, installed):
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "pythonpath="]
    env = {**os.environ, "PYTHONPATH": str(installed)}
    ended = subprocess.run(run, cwd=package, env=env, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_installed_it_is_found_by_its_entry_point_and_alerts(daemon, installed, tmp_path, wait):
    configure(daemon, tmp_path / "outgoing", {})
    daemon.start(env={"PYTHONPATH": str(installed)})
    wait("the alert fires", lambda: [one for one in daemon.ctl("alerts") if one["labels"]["alertname"] == "Many"])
    [origin] = {one["origin"] for one in daemon.ctl("plugins") if one["name"] == "queue" and one["kind"] == "check"}
    assert origin == "sixfbd-queue 0.1.0"
    assert "QueueWaiting" in str(daemon.ctl("plugins"))


def test_without_an_installation_it_is_found_in_its_directory_and_alerts(daemon, package, tmp_path, wait):
    configure(daemon, tmp_path / "outgoing", {"plugin_directories": [str(package)]})
    checked = daemon.sixfbd("check", "try", "outgoing")
    assert "3 files wait" in checked.stdout, checked.stdout + checked.stderr
    daemon.start()
    wait("the alert fires", lambda: [one for one in daemon.ctl("alerts") if one["labels"]["alertname"] == "Many"])
