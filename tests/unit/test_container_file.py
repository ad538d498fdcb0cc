"""The container file against the clone that it is built from, and against the unit that does the same without it."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "packaging" / "container"
FILE = (CONTAINER / "Containerfile").read_text()
QUADLET = (CONTAINER / "sixfbd.container").read_text()
CONFIG = tomllib.loads((ROOT / "etc" / "sixfbd.toml").read_text())


def test_what_it_copies_is_there_and_all_that_the_package_is_made_of():
    copied = [word for line in re.findall(r"^COPY (?!--)(.*) \S+$", FILE, re.MULTILINE) for word in line.split()]
    assert all((ROOT / name).exists() for name in copied)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert {Path(name).parts[0] for name in packages} <= set(copied)


def test_it_is_built_of_what_the_lock_pins_and_runs_without_root():
    assert "--require-hashes -r requirements.lock" in FILE
    assert re.search(r"^USER (\d+):\1$", FILE, re.MULTILINE)[1] == re.search(r"-o (\d+) ", FILE)[1] != "0"


def test_its_places_are_those_of_the_configuration_that_it_brings_and_of_the_service():
    state, run = CONFIG["daemon"]["state_directory"], str(Path(CONFIG["control"]["socket"]).parent)
    assert f'VOLUME ["{state}", "{run}"]' in FILE
    assert {f"Volume=sixfbd-state:{state}", f"Volume=sixfbd-run:{run}"} <= set(QUADLET.splitlines())
    assert f"EXPOSE {CONFIG['http']['listen'].rpartition(':')[2]}" in FILE


def test_the_service_is_started_again_as_the_unit_is():
    unit = (ROOT / "packaging" / "systemd" / "sixfbd.service").read_text()
    for key in ("Restart", "RestartPreventExitStatus", "TimeoutStopSec"):
        [line] = re.findall(rf"^{key}=.*$", unit, re.MULTILINE)
        assert line in QUADLET.splitlines()
    assert {"ReadOnly=true", "NoNewPrivileges=true", "DropCapability=all"} <= set(QUADLET.splitlines())


def test_its_readme_builds_and_runs_it_as_it_is_tested():
    readme, tried = (CONTAINER / "README.md").read_text(), (ROOT / "packaging" / "test_container.py").read_text()
    for word in ("--read-only", "--cap-drop", "no-new-privileges", "/var/lib/sixfbd", "/run/sixfbd", "docker"):
        assert word in readme and word in tried
