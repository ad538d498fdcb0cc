"""`sixfbd plugins new`: what it writes works, and it overwrites nothing."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from sixfbd import cli
from sixfbd.config import PluginSources
from sixfbd.host import load_plugins


def new(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, ["plugins", "new", *map(str, args)])
    return result.exit_code, result.output


def test_a_new_plugin_is_a_package_with_a_check_a_rule_tests_and_a_readme(tmp_path):
    code, said = new("disk-health", "--dir", tmp_path / "disks", "--json")
    assert code == 0
    assert json.loads(said) == {
        "plugin": "disk-health",
        "module": "sixfbd_disk_health",
        "files": [
            str(tmp_path / "disks" / name)
            for name in (
                "pyproject.toml",
                "README.md",
                "sixfbd_disk_health/__init__.py",
                "tests/conftest.py",
                "tests/test_disk_health.py",
            )
        ],
    }
    assert all(Path(file).read_text() for file in json.loads(said)["files"])
    assert not [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and "@" in path.read_text().replace("@hookimpl", "").replace("@pytest", "")
    ]


def test_its_check_takes_about_twenty_lines(tmp_path):
    new("queue", "--dir", tmp_path / "queue")
    text = (tmp_path / "queue" / "sixfbd_queue" / "__init__.py").read_text()
    check = text[text.index("class Options") : text.index("@hookimpl\ndef sixfbd_rules")]
    assert len([line for line in check.splitlines() if line.strip()]) <= 22


@pytest.mark.parametrize("name", ["disk-health", "none"])
def test_its_tests_pass_without_an_installation(tmp_path, name):
    assert new(name, "--dir", tmp_path / "it")[0] == 0
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(run, cwd=tmp_path / "it", capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 passed" in ended.stdout


def test_it_is_loaded_from_the_directory_that_it_was_written_to(tmp_path):
    new("queue", "--dir", tmp_path / "queue")
    catalog = load_plugins(PluginSources(directories=(tmp_path / "queue",)))
    [info] = [one for one in catalog.plugins if one.name == "sixfbd_queue"]
    assert (info.problem, info.checks, info.rules) == (None, ("queue",), ("QueueWaiting",))
    assert {rule.name for rule in catalog.rules} >= {"QueueWaiting"}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Queue", "small letters"),
        ("my_queue", "small letters"),
        ("2queues", "a letter first"),
        ("a--b", "single dashes"),
        ("../up", "small letters"),
        ("x" * 41, "at most 40"),
        ("", "cannot be a plugin's name"),
        ("webhook", "there is a check or plugin webhook already"),
        ("plugins", "sixfbd's own"),
        ("sixfbd-mine", "sixfbd's own"),
    ],
)
def test_a_name_that_does_not_do_is_refused_with_the_reason(tmp_path, name, says):
    code, said = new(name, "--dir", tmp_path / "it")
    assert code == 1
    assert says in said
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    code, said = new("queue", "--dir", tmp_path / "mine")
    assert code == 1
    assert "not empty; nothing was written" in said
    assert "--dir" in said
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["README.md"]


def test_an_empty_directory_is_filled(tmp_path):
    (tmp_path / "mine").mkdir()
    assert new("queue", "--dir", tmp_path / "mine")[0] == 0
    assert (tmp_path / "mine" / "pyproject.toml").is_file()


def test_a_place_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    code, said = new("queue", "--dir", tmp_path / "file" / "queue")
    assert code == 1
    assert "file: File exists; nothing was written" in said


def test_plugins_without_a_command_lists_them_as_before():
    result = CliRunner().invoke(cli.cli, ["plugins", "--json"])
    assert result.exit_code == 0
    assert any(one["name"] == "webhook" for one in msgspec.json.decode(result.stdout))
