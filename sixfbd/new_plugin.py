"""`sixfbd plugins new`: writes a plugin as a package of its own, with a check, a rule and tests, all of which work.

Owns the texts. Overwrites nothing: what is there stays, and the whole is written or nothing.
"""

import re
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final

from sixfbd import __version__

NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST: Final = 40

PYPROJECT: Final = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "sixfbd-@name@"
version = "0.1.0"
description = "Files that wait in a directory, for sixfbd"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["msgspec", "sixfbd>=@version@"]

[project.optional-dependencies]
test = ["sixfbd[testing]"]

[project.entry-points."sixfbd.plugins"]
@name@ = "@module@"

[tool.hatch.build.targets.wheel]
packages = ["@module@"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]
"""

PLUGIN: Final = '''\
"""The check @name@: how many files wait in a directory."""

from pathlib import Path
from typing import Annotated

import msgspec
from sixfbd.plugin import Check, Gauge, Report, Rule, Severity, Status, hookimpl

FILES = Gauge("@metric@_files", "Files that wait in a directory.", labels=("directory",))


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    directory: Annotated[str, msgspec.Meta(description="The directory that is looked into.")]


class @Class@Check(Check[Options]):
    """Files that wait in a directory."""

    Options = Options
    metrics = (FILES,)

    async def run(self, cursor):
        directory = self.options.directory
        try:
            count = await self.ctx.to_thread(lambda: len(list(Path(directory).iterdir())))
        except OSError as error:
            return Report(Status.UNHEALTHY, f"{directory} cannot be read: {error.strerror}")
        return Report(Status.HEALTHY, f"{count} files wait", (FILES(count, directory=directory),))


@hookimpl
def sixfbd_checks(config):
    return {"@name@": @Class@Check}


@hookimpl
def sixfbd_rules(config):
    text = "{{ $value }} files wait in {{ $labels.directory }}"
    return [
        Rule(
            name="@Class@Waiting",
            expr="@metric@_files > 10",
            for_s=300,
            severity=Severity.MEDIUM,
            annotations={"summary": text},
        )
    ]
'''

CONFTEST: Final = """\
pytest_plugins = ["sixfbd.testing"]  # brings the fixture `engine`
"""

TESTS: Final = '''\
"""The check @name@ in a whole daemon, in simulated time: ten minutes pass in a moment."""

import @module@
import pytest
from sixfbd.testing import ConfigError


@pytest.fixture
def waiting(tmp_path):
    """A directory that the check looks into."""
    directory = tmp_path / "waiting"
    directory.mkdir()
    return directory


def watching(directory):
    """The configuration: what stands under [checks.outgoing]."""
    return {"outgoing": {"plugin": "@name@", "directory": str(directory)}}


def test_the_files_of_the_directory_are_counted(engine, waiting):
    (waiting / "letter").touch()
    engine.start(@module@, checks=watching(waiting))
    engine.advance("1m")
    assert engine.value("@metric@_files") == 1
    assert engine.firing() == []


def test_somebody_is_told_when_many_wait_for_five_minutes_and_when_they_are_gone(engine, waiting):
    for number in range(20):
        (waiting / str(number)).touch()
    engine.start(@module@, checks=watching(waiting))
    engine.advance("10m")
    assert engine.firing() == ["@Class@Waiting"]
    assert f"20 files wait in {waiting}" in engine.told[0].text
    for file in waiting.iterdir():
        file.unlink()
    engine.advance("10m")
    assert engine.firing() == []
    assert [message.status for message in engine.told] == ["firing", "resolved"]


def test_a_directory_that_is_not_there_is_said(engine, waiting):
    engine.start(@module@, checks=watching(waiting / "gone"))
    report = engine.run("outgoing").report
    assert (report.status, report.samples) == ("unhealthy", ())
    assert "No such file or directory" in report.summary


def test_without_a_directory_the_configuration_is_refused(engine):
    with pytest.raises(ConfigError, match="directory"):
        engine.start(@module@, checks={"outgoing": {"plugin": "@name@"}})
'''

README: Final = """\
# sixfbd-@name@

A check for sixfbd: how many files wait in a directory, and an alert when it is more than 10
for five minutes.

    [checks.outgoing]
    plugin = "@name@"
    directory = "/var/spool/outgoing"

| series | what |
|---|---|
| `@metric@_files{directory}` | files that wait in the directory |

| alert | when |
|---|---|
| `@Class@Waiting` | more than 10 for five minutes |

## Work on it

    python -m pytest                          # its tests; needs sixfbd[testing]
    sixfbd plugins check .                    # does it keep to what the daemon asks of plugins?
    sixfbd check try outgoing                 # what does it report with your configuration?

sixfbd finds it once it is installed beside it (`pip install .`), or without that in a directory that
`[daemon] plugin_directories` names, such as the one that this file is in.
"""


class NewPluginError(Exception):
    """The package cannot be written; the text says why."""


def module_of(name: str) -> str:
    """Return the module of the plugin `name`."""
    return f"sixfbd_{name.replace('-', '_')}"


def write_plugin(name: str, directory: Path, taken: Collection[str]) -> list[Path]:
    """Write the package of a new plugin into a directory that is not there or empty; return the files.

    `taken` are the names that checks and plugins have already. Raises NewPluginError.
    """
    _refuse_name(name, taken)
    texts = _texts(name)
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise NewPluginError(f"{directory} is there and not empty; nothing was written. Name another one: --dir")
        directory.parent.mkdir(parents=True, exist_ok=True)
        whole = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            _write(texts, whole)
            whole.chmod(0o755)
            whole.replace(directory)
        except BaseException:
            shutil.rmtree(whole, ignore_errors=True)
            raise
    except OSError as error:
        raise NewPluginError(f"{error.filename or directory}: {error.strerror}; nothing was written") from None
    return [directory / path for path in texts]


def _refuse_name(name: str, taken: Collection[str]) -> None:
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        form = f"small letters, digits and single dashes, a letter first, at most {LONGEST}: such as disk-health"
        raise NewPluginError(f"{name!r} cannot be a plugin's name; it has {form}")
    if name in taken:
        raise NewPluginError(
            f"there is a check or plugin {name} already; `sixfbd plugins` lists them, take another name"
        )
    if name == "plugins" or name.startswith("sixfbd"):
        raise NewPluginError(f"the name {name} is sixfbd's own; take another one")


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))


def _texts(name: str) -> dict[str, str]:
    module = module_of(name)
    words = {
        "@name@": name,
        "@module@": module,
        "@metric@": name.replace("-", "_"),
        "@Class@": _class_name(name),
        "@version@": __version__,
    }
    texts = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        f"{module}/__init__.py": PLUGIN,
        "tests/conftest.py": CONFTEST,
        f"tests/test_{name.replace('-', '_')}.py": TESTS,
    }
    for placeholder, word in words.items():
        texts = {path: text.replace(placeholder, word) for path, text in texts.items()}
    return texts


def _write(texts: dict[str, str], directory: Path) -> None:
    for path, text in texts.items():
        file = directory / path
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
