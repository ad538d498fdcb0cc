"""The wheel and the source distribution: whole, with metadata that an index takes, and nothing in the wheel but the program."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from sixfbd import __version__

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


def test_the_wheel_holds_the_program_with_all_that_it_reads_and_nothing_else(dist: Path) -> None:
    [path] = dist.glob("*.whl")
    names = zipfile.ZipFile(path).namelist()
    assert {name.split("/")[0] for name in names} == {"sixfbd", "sixfbd_plugins", f"sixfbd-{__version__}.dist-info"}
    here = [
        one for package in ("sixfbd", "plugins/sixfbd_plugins") for one in (ROOT / package).rglob("*") if one.is_file()
    ]
    wanted = {str(one.relative_to(ROOT)).removeprefix("plugins/") for one in here if "__pycache__" not in one.parts}
    assert wanted <= set(names), "something is left out"


def test_its_metadata_are_valid_and_name_every_extra(dist: Path) -> None:
    [path] = dist.glob("*.whl")
    text = zipfile.ZipFile(path).read(f"sixfbd-{__version__}.dist-info/METADATA")
    metadata = Metadata.from_email(text, validate=True)
    assert metadata.description_content_type == "text/markdown" and metadata.description
    assert {"stripe", "twilio", "sendgrid", "postgresql", "cron"} <= set(metadata.provides_extra or ())
    assert "://" not in "".join(map(str, metadata.requires_dist or ())), "a dependency by its address"


def test_the_source_distribution_can_build_and_test_it(dist: Path) -> None:
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"run", "pyproject.toml", "requirements.lock", "man/sixfbd.8", "packaging/systemd/sixfbd.service"} <= names
    assert any(name.startswith("tests/") for name in names) and not any(name.startswith(".venv") for name in names)
