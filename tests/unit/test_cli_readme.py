"""What the README shows is real: its plugin loads and runs, its configuration passes, its commands exist."""

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from sixfbd import cli, ctl

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A first configuration with what the README adds to it."""
    directory = tmp_path / "run"
    assert CliRunner().invoke(cli.cli, ["init", str(directory)]).exit_code == 0
    (plugin,) = blocks("python")
    (directory / "plugins.d" / "spool.py").write_text(plugin)
    for number, table in enumerate(blocks("toml")):
        (directory / "conf.d" / f"{number}.toml").write_text(table)
    (directory / "chat-url").write_text("https://chat.example.com/hook\n")
    (directory / "chat-url").chmod(0o600)
    return directory


def test_the_configurations_of_the_readme_pass_the_check(directory: Path) -> None:
    result = CliRunner().invoke(cli.cli, ["check-config", str(directory / "sixfbd.toml")])
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, f"{directory}/sixfbd.toml: fine"), result.output


def test_the_plugin_of_the_readme_loads_and_reports(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "watched").mkdir()
    (tmp_path / "watched" / "letter").touch()
    table = (directory / "conf.d" / "1.toml").read_text()
    (directory / "conf.d" / "1.toml").write_text(table.replace('"/tmp"', f'"{tmp_path}/watched"'))
    config = str(directory / "sixfbd.toml")
    listed = CliRunner().invoke(cli.cli, ["plugins", "--config", config])
    assert any(line.startswith("spool") and "directory*" in line for line in listed.stdout.splitlines()), listed.output
    tried = CliRunner().invoke(cli.cli, ["check", "try", "outgoing", "--config", config])
    assert tried.exit_code == 0, tried.output
    assert "1 waiting" in tried.stdout
    assert f'spool_files{{directory="{tmp_path}/watched"}}  1' in tried.stdout


def test_the_plugin_of_the_readme_takes_about_twenty_lines() -> None:
    (plugin,) = blocks("python")
    assert len([line for line in plugin.splitlines() if line.strip()]) <= 22


def commands() -> list[list[str]]:
    """Every sixfbd and sixfbctl command of the README, without its comment."""
    found = []
    for line in re.findall(r"^    (.*)$", README, re.MULTILINE):
        words = shlex.split(line.rstrip("\\"), comments=True) if line.count("'") % 2 == 0 else []
        if words[:2] == ["./run", "ctl"]:
            found.append(["sixfbctl", *words[2:]])
        elif words and Path(words[0]).name in ("sixfbd", "sixfbctl"):
            found.append([Path(words[0]).name, *words[1:]])
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_each_command_line_of_the_readme_is_understood(words: list[str]) -> None:
    program: click.Command = {"sixfbd": cli.cli, "sixfbctl": ctl.cli}[words[0]]
    with program.make_context(words[0], words[1:]) as context:
        rest = [*context._protected_args, *context.args]
        while isinstance(program, click.Group) and rest:
            name, found, rest = program.resolve_command(context, rest)
            assert found is not None and name is not None
            program = found
            context = found.make_context(name, rest, parent=context)
            rest = [*context._protected_args, *context.args] if isinstance(found, click.Group) else []


def test_the_readme_shows_the_first_commands_of_both_programs() -> None:
    assert len(commands()) >= 8


@pytest.mark.parametrize("name", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_each_file_that_the_readme_points_to_is_there(name: str) -> None:
    assert (ROOT / name).is_file()
