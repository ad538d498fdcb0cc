"""The manual pages: as the code is, nothing missing, clean for mandoc, and their examples work."""

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sixfbd import cli, ctl, hookspecs
from sixfbd.config import PluginSources
from sixfbd.config.convert import fields_of
from sixfbd.config.tables import TABLES, Channel
from sixfbd.host import PluginCatalog, load_plugins

ROOT = Path(__file__).resolve().parents[2]
MAN = ROOT / "man"
PAGES = sorted(path.name for path in MAN.iterdir())
MANUAL = runpy.run_path(str(ROOT / "packaging" / "manual.py"))
MEND = """\
man/ is not as the code is now: {}
  Mend it: .venv/bin/python packaging/manual.py
  then read `git diff man/`, and commit it with your change. That writes commands, options, keys, hooks, rules, metrics.
  By hand, outside of the lines between BEGIN and END: exit codes, variables of the environment, files, signals, examples.
  After a rebase with conflicts in man/: take either side, then run the same command."""
SHOWN = {"\\e": "\\", "\\(aq": "'", "\\(ga": "`", "\\(ha": "^", "\\(ti": "~", "\\(dq": '"', "\\-": "-", "\\&": ""}


@pytest.fixture(scope="module")
def catalog() -> PluginCatalog:
    return load_plugins(PluginSources())


def shown(page: str) -> str:
    """What a reader sees of a page, on lines that do not end."""
    tool = shutil.which("mandoc")
    assert tool is not None, "the Debian package mandoc is missing; ./run test installs it"
    run = [tool, "-T", "utf8", "-O", "width=1000", str(MAN / page)]
    text = subprocess.run(run, capture_output=True, text=True, check=True, timeout=30).stdout
    return re.sub(".\b", "", text)


@pytest.fixture(scope="module")
def texts() -> Mapping[str, str]:
    return {page: shown(page) for page in PAGES}


def section(page: str, name: str) -> str:
    return (MAN / page).read_text().partition(f"\n.Sh {name}\n")[2].partition("\n.Sh ")[0]


def examples(page: str) -> list[str]:
    """The displays of a page's EXAMPLES, as a reader copies them."""
    found = re.findall(r"^\.Bd -literal.*\n((?:.*\n)*?)\.Ed$", section(page, "EXAMPLES"), re.MULTILINE)
    pattern = re.compile("|".join(map(re.escape, SHOWN)))
    return [pattern.sub(lambda match: SHOWN[match[0]], text) for text in found]


# ---- drift -----------------------------------------------------------------------------------------------------------


def test_the_pages_are_as_the_code_is() -> None:
    stale = MANUAL["outdated"](MANUAL["parts"]())
    assert not stale, MEND.format(", ".join(path.name for path in stale))


def test_every_part_that_is_made_stands_in_one_page() -> None:
    found = [name for page in PAGES for name in re.findall(r'^\.\\" BEGIN (\S+)$', (MAN / page).read_text(), re.M)]
    assert sorted(found) == sorted(MANUAL["parts"]())


def names_of_options(program: click.Command) -> set[str]:
    found = {flag for one in program.params if isinstance(one, click.Option) for flag in one.opts + one.secondary_opts}
    if isinstance(program, click.Group):
        found |= {flag for one in program.commands.values() for flag in names_of_options(one)}
    return found


def names_of_commands(program: click.Command, path: str = "") -> set[str]:
    if not isinstance(program, click.Group):
        return {path}
    found = {one for name, command in program.commands.items() for one in names_of_commands(command, f"{path} {name}")}
    return found | ({path} if program.invoke_without_command and path else set())


@pytest.mark.parametrize(("program", "page"), [(cli.cli, "sixfbd.8"), (ctl.cli, "sixfbctl.1")], ids=["sixfbd", "ctl"])
def test_every_command_and_every_option_is_in_its_page(
    program: click.Command, page: str, texts: Mapping[str, str]
) -> None:
    lines = [re.sub(" +", " ", line.strip()) for line in texts[page].splitlines()]
    for command in names_of_commands(program):
        assert any(line == command.strip() or line.startswith(f"{command.strip()} ") for line in lines), command
    for option in names_of_options(program):
        assert any(re.search(rf"(^|[ \[]){option}\b", line) for line in lines), option


def test_every_exit_code_of_the_help_is_in_its_page() -> None:
    for program, page in ((cli, "sixfbd.8"), (ctl, "sixfbctl.1")):
        told = re.findall(r"^ +(\d+)  ", program.EPILOG, re.MULTILINE)
        written = re.findall(r"^\.It (\d+)$", section(page, "EXIT STATUS"), re.MULTILINE)
        assert told == written, f"{page}: EXIT STATUS is written by hand; its codes are those of EPILOG"


def test_every_variable_of_ours_is_in_a_page() -> None:
    sources = [path.read_text() for path in (ROOT / "sixfbd").rglob("*.py")]
    used = {name for text in sources for name in re.findall(r'"(SIXFBD_[A-Z_]+[A-Z])"', text)}
    assert used >= {"SIXFBD_CONFIG", "SIXFBD_SOCKET"}
    missing = [name for name in used if f".It Ev {name}" not in section("sixfbd.8", "ENVIRONMENT")]
    assert not missing, "ENVIRONMENT of man/sixfbd.8 is written by hand"


def test_every_key_is_in_the_page_of_the_configuration(catalog: PluginCatalog, texts: Mapping[str, str]) -> None:
    structs: list[Any] = [*(table.struct for table in TABLES), Channel]
    structs += [
        entry.cls.Options for kind in (catalog.checks, catalog.notifiers, catalog.inbound) for entry in kind.values()
    ]
    terms = set(re.findall(r"^ +(\S+) \(", texts["sixfbd.toml.5"], re.MULTILINE))
    assert {field.key for struct in structs for field in fields_of(struct)} <= terms
    for name in (*catalog.checks, *catalog.notifiers, *catalog.inbound):
        assert re.search(rf'^ +(kind = ")?{name}"?$', texts["sixfbd.toml.5"], re.MULTILINE), name
    assert all(f"[{table.header}" in texts["sixfbd.toml.5"] for table in TABLES)


def test_every_hook_is_in_the_page_of_plugins(texts: Mapping[str, str]) -> None:
    hooks = {name for name in vars(hookspecs) if name.startswith("sixfbd_")}
    assert len(hooks) >= 7
    assert all(f"{name}(config)" in texts["sixfbd-plugins.7"] for name in hooks)


def test_every_default_rule_is_in_the_page_of_rules_with_its_expression(
    catalog: PluginCatalog, texts: Mapping[str, str]
) -> None:
    page = " ".join(texts["sixfbd-rules.7"].split())
    for rule in catalog.rules:
        assert f"{rule.name} (" in page, rule.name
        assert " ".join(rule.expr.split()) in page, rule.name


# ---- form ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_finds_nothing_to_say(page: str) -> None:
    tool = shutil.which("mandoc")
    assert tool is not None, "the Debian package mandoc is missing; ./run test installs it"
    ended = subprocess.run([tool, "-T", "lint", str(MAN / page)], capture_output=True, text=True, timeout=30)
    # Whether pages of others are installed is this machine's matter.
    said = [line for line in (ended.stdout + ended.stderr).splitlines() if f"{page}:" in line]
    assert [line for line in said if "referenced manual not found" not in line] == []


@pytest.mark.parametrize("page", PAGES)
def test_pages_of_ours_that_a_page_points_to_are_there(page: str) -> None:
    pointed = re.findall(r"^\.Xr (sixfb\S+) (\d)", (MAN / page).read_text(), re.MULTILINE)
    assert len(pointed) >= 3
    assert all((MAN / f"{name}.{number}").is_file() for name, number in pointed)


# ---- examples --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A first configuration, in the directory that the examples use."""
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli.cli, ["init", "shop"]).exit_code == 0
    (tmp_path / "shop" / "chat-url").write_text("https://chat.example.com/hook\n")
    (tmp_path / "shop" / "chat-url").chmod(0o600)
    return tmp_path / "shop"


@pytest.mark.parametrize(
    ("page", "place"),
    [(page, place) for page in ("sixfbd.toml.5", "sixfbd-rules.7") for place in range(len(examples(page)))],
)
def test_each_configuration_of_the_examples_passes_the_check(page: str, place: int, shop: Path) -> None:
    (shop / "conf.d" / "example.toml").write_text(examples(page)[place])
    result = CliRunner().invoke(cli.cli, ["check-config", "shop/sixfbd.toml"])
    assert result.exit_code == 0 and result.output.endswith(": fine\n"), result.output


def test_the_commands_of_the_daemons_page_work_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for text in examples("sixfbd.8") for line in text.splitlines()]
    assert len(lines) >= 6
    for line in lines:
        program, *words = shlex.split(line)
        result = CliRunner().invoke(cli.cli, words)
        fine = (0, 5) if words[:2] == ["check", "try"] else (0,)  # 5: this machine may not be well
        assert program == "sixfbd" and result.exit_code in fine and result.output, (line, result.output)


def test_the_plugin_of_the_page_measures_and_brings_its_rule(shop: Path) -> None:
    plugin, table, _ = examples("sixfbd-plugins.7")
    (shop / "plugins.d" / "spool.py").write_text(plugin)
    (shop / "spooled").mkdir()
    (shop / "conf.d" / "spool.toml").write_text(table.replace('"/tmp"', f'"{shop}/spooled"'))
    tried = CliRunner().invoke(cli.cli, ["check", "try", "outgoing", "--config", "shop/sixfbd.toml"])
    assert tried.exit_code == 0 and "0 waiting" in tried.stdout, tried.output
    rules = CliRunner().invoke(cli.cli, ["rules", "--config", "shop/sixfbd.toml"])
    assert "SpoolFull" in rules.stdout


def test_the_test_of_the_page_passes(tmp_path: Path) -> None:
    plugin, _, test = examples("sixfbd-plugins.7")
    (tmp_path / "spool.py").write_text(plugin)
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["sixfbd.testing"]\n')
    (tmp_path / "test_spool.py").write_text(test)
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    ended = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout
