"""What builds the Debian package, as far as that can be told without building it (`./run test-system` installs a real one)."""

import importlib.util
from pathlib import Path

import pytest

PACKAGING = Path(__file__).parents[2] / "packaging"


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build_deb", PACKAGING / "build_deb.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path):
    def made(name, **files):
        for path, text in files.items():
            file = tmp_path / name / path.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return tmp_path / name

    return made


def test_the_unit_of_the_package_names_its_own_places(build, tmp_path):
    (tmp_path / "source").mkdir()
    build._debianize(tmp_path / "source", "1.2.3")
    unit = (tmp_path / "source/debian/sixfbd.service").read_text()
    assert "ExecStart=/usr/sbin/sixfbd run" in unit and "ExecReload=/usr/bin/sixfbctl reload" in unit
    assert (tmp_path / "source/debian/changelog").read_text().startswith("sixfbd (1.2.3) ")


def test_compiled_files_of_another_python_are_added(build, tree):
    first = tree("a", **{"p__x.cpython-311.so": "1", "p__m.py": "same"})
    build._merge(tree("b", **{"p__x.cpython-312.so": "2", "p__m.py": "same"}), first)
    assert sorted(path.name for path in (first / "p").iterdir()) == ["m.py", "x.cpython-311.so", "x.cpython-312.so"]


@pytest.mark.parametrize("files", [{"p__m.py": "another"}, {"p__new.py": "only here"}, {"p__x.abi3.so": "another"}])
def test_a_file_that_one_package_cannot_hold_twice_ends_the_build(build, tree, files):
    first = tree("a", **{"p__m.py": "same", "p__x.abi3.so": "1"})
    with pytest.raises(SystemExit, match="one package cannot hold both"):
        build._merge(tree("b", **files), first)


def test_what_nobody_runs_is_left_out(build, tree):
    found = tree(
        "a", **{"p__m.py": "#!/usr/bin/env python\nx = 1\n", "p__tests__t.py": "", "bin__tool": "", "p__m.pyi": ""}
    )
    build._tidy(found)
    assert [str(path.relative_to(found)) for path in build._files(found)] == ["p/m.py"]
    assert (found / "p/m.py").read_text() == "\nx = 1\n"
