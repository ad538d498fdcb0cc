"""The unit in packaging/systemd against what systemd says of it, and against the daemon it starts."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from sixfbd.cli import cli as sixfbd
from sixfbd.ctl import cli as sixfbctl
from sixfbd.daemon import EXIT_CONFIG

ROOT = Path(__file__).parents[2]
PACKAGING = ROOT / "packaging" / "systemd"
UNIT = PACKAGING / "sixfbd.service"
MOST_EXPOSED = 17  # ten times the score; what is looser than it could be has its reason beside it


def setting(name: str) -> str:
    [value] = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return value


def analyzed(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *args], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def unit(tmp_path) -> Path:
    """Return the unit with programs that are there, as `verify` wants it."""
    found = tmp_path / UNIT.name
    found.write_text(re.sub(r"/opt/sixfbd/bin/\w+", "/bin/true", UNIT.read_text()))
    return found


def test_systemd_takes_every_line_of_it(unit):
    done = analyzed("verify", "--man=no", unit)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    unit.write_text(unit.read_text().replace("[Service]", "[Service]\nWatchdogSecs=30"))
    assert "WatchdogSecs" in analyzed("verify", "--man=no", unit).stderr, "a misspelt one is seen"


def test_it_is_exposed_as_little_as_it_can_be():
    done = analyzed("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", UNIT)
    assert done.returncode == 0, done.stdout
    assert analyzed("security", "--offline=yes", "--threshold=1", UNIT).returncode != 0, "a threshold is one"


def test_it_says_what_the_daemon_does():
    config = tomllib.loads((ROOT / "etc" / "sixfbd.toml").read_text())
    assert config["daemon"]["state_directory"] == f"/var/lib/{setting('StateDirectory')}"
    assert Path(config["control"]["socket"]).parent == Path("/run") / setting("RuntimeDirectory")
    assert setting("RestartPreventExitStatus") == str(EXIT_CONFIG)
    assert setting("ExecStart").split()[1] in sixfbd.commands and setting("ExecReload").split()[1] in sixfbctl.commands


def test_its_user_is_made_with_a_group_of_the_same_name(tmp_path):
    (tmp_path / "etc").mkdir()
    made = ["systemd-sysusers", f"--root={tmp_path}", str(PACKAGING / "sixfbd.sysusers")]
    if os.geteuid() != 0:
        made.insert(1, "--dry-run")
    done = subprocess.run(made, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert setting("User") == setting("Group") == "sixfbd"
    if os.geteuid() == 0:
        [user] = [one for one in (tmp_path / "etc" / "passwd").read_text().splitlines() if one.startswith("sixfbd:")]
        assert user.endswith(":/var/lib/sixfbd:/usr/sbin/nologin")


def test_the_installer_says_what_it_does_and_refuses_what_it_does_not_know():
    installer = PACKAGING / "install"
    shown = subprocess.run([installer, "--help"], capture_output=True, text=True, timeout=10, check=True).stdout
    for place in ("/opt/sixfbd", "/etc/sixfbd/sixfbd.toml", "/etc/systemd/system/sixfbd.service", "/var/lib/sixfbd"):
        assert place in shown
    refused = subprocess.run([installer, "--now"], capture_output=True, text=True, timeout=10, check=False)
    assert refused.returncode == 1 and refused.stderr == "install: it takes no argument but --help\n"
