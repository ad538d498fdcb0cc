"""Builds the Debian package: lays out a tree that works with each Python of PYTHONS, then has dpkg-buildpackage pack it.

    python packaging/build_deb.py [--version VERSION] [--into DIRECTORY]

Every package of requirements.lock that sixfbd needs is fetched as a wheel for each Python, by its hash. They differ in
compiled files alone, whose names say what they are for, so that all lie in one directory. Prints the path of the package.
"""

import argparse
import filecmp
import gzip
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from email.utils import formatdate
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE: Final = Path(__file__).resolve().parent
PROJECT: Final = HERE.parent
PYTHONS: Final = ("3.11", "3.12", "3.13")
PLATFORMS: Final = {"amd64": "x86_64", "arm64": "aarch64"}
MANYLINUX: Final = (
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_17",
    "manylinux2014",
    "manylinux_2_12",
    "manylinux2010",
)
TOOLS: Final = {"dpkg-buildpackage": "dpkg-dev", "dh": "debhelper"}
TELL_OF_THEIR_BUILD: Final = ("numpy/__config__.py",)  # and are read by who asks how it was built
LIB: Final = Path("usr/lib/sixfbd/lib")
LAUNCHER: Final = """#!/usr/bin/python3 -IB
import sys

sys.path.insert(0, "/usr/lib/sixfbd/lib")
sys.path.append("/usr/local/lib/sixfbd/plugins")
from {module} import main

sys.exit(main())
"""
COMMANDS: Final = {
    "usr/sbin/sixfbd": "sixfbd.cli",
    "usr/bin/sixfbctl": "sixfbd.ctl",
    "usr/bin/sixfbd-sandbox": "sixfbd_plugins.sandbox.cli",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the Debian package.")
    parser.add_argument("--version", help="of the package; sixfbd's own if left out")
    parser.add_argument("--into", type=Path, default=PROJECT / "dist", help="directory for the package (default: dist)")
    asked = parser.parse_args()
    if missing := sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None}):
        sys.exit(
            f"sixfbd: a Debian package is built with tools that are not here: sudo apt install {' '.join(missing)}"
        )
    architecture = _output(["dpkg", "--print-architecture"])
    if architecture not in PLATFORMS:
        sys.exit(f"sixfbd: packages are built on {', '.join(PLATFORMS)}, and this is {architecture}")
    with tempfile.TemporaryDirectory(prefix="sixfbd-deb-") as folder:
        source = Path(folder) / "sixfbd"
        source.mkdir()
        _lay_out(source / "root", Path(folder), PLATFORMS[architecture])
        _debianize(source, asked.version or _version(source / "root" / LIB))
        _say("packing")
        _run(["dpkg-buildpackage", "--build=binary", "--no-sign", "--no-check-builddeps"], cwd=source)
        asked.into.mkdir(parents=True, exist_ok=True)
        for made in sorted(Path(folder).glob("sixfbd_*.deb")):
            print(shutil.move(made, asked.into / made.name))


def _lay_out(root: Path, folder: Path, platform: str) -> None:
    trees = {python: _fetch(folder / f"python{python}", python, platform) for python in PYTHONS}
    first = trees[PYTHONS[0]]
    for python in PYTHONS[1:]:
        _merge(trees[python], first)
    _keep_what_is_needed(first)
    _tidy(first)
    (root / LIB).parent.mkdir(parents=True)
    shutil.move(first, root / LIB)
    for path, module in COMMANDS.items():
        _write(root / path, LAUNCHER.format(module=module), 0o755)
    _write(root / "etc/sixfbd/sixfbd.toml", (PROJECT / "etc/sixfbd.toml").read_text())
    for empty in ("etc/sixfbd/conf.d", "etc/sixfbd/plugins.d", "usr/local/lib/sixfbd/plugins"):
        (root / empty).mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / "usr/local")  # Debian's packages leave it alone; it is made by who puts a plugin there
    shutil.copytree(PROJECT / "etc/examples", root / "usr/share/doc/sixfbd/examples")
    for kind in ("grafana", "prometheus"):
        shutil.copytree(PROJECT / "etc" / kind, root / "usr/share/doc/sixfbd/examples" / kind, dirs_exist_ok=True)
    for example in (HERE / "systemd").glob("*.example"):
        shutil.copy(example, root / "usr/share/doc/sixfbd/examples")
    _run([sys.executable, str(HERE / "completions.py"), str(root / "usr"), "--zsh", "zsh/vendor-completions"])
    for page in sorted((PROJECT / "man").glob("*.[1-9]")):
        kept = root / f"usr/share/man/man{page.suffix[1:]}" / f"{page.name}.gz"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(gzip.compress(page.read_bytes(), mtime=0))


def _fetch(into: Path, python: str, platform: str) -> Path:
    """Install the locked packages for one Python, and sixfbd itself."""
    _say(f"fetching the packages for Python {python}")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "install", "--no-deps"]
    tags = [part for one in MANYLINUX for part in ("--platform", f"{one}_{platform}")]
    # abi3 and none are of any Python; pip knows that by itself only if it is told of no ABI.
    target = ["--target", str(into), "--no-compile", "--only-binary=:all:", "--python-version", python, *tags]
    _run([*pip, *target, "--implementation", "cp", "--require-hashes", "-r", str(PROJECT / "requirements.lock")])
    _run([*pip, "--target", str(into), "--no-compile", "--no-build-isolation", str(PROJECT)])
    return into


def _merge(tree: Path, into: Path) -> None:
    """Add the compiled files of another Python. Ends the build if anything else differs: then one package cannot do."""
    for path in _files(tree):
        name = path.relative_to(tree)
        there = into / name
        if ".dist-info" in str(name) or name.parts[0] in ("bin", "share"):
            continue
        if path.suffix == ".so" and not there.exists():
            shutil.copy(path, there)
        elif str(name) in TELL_OF_THEIR_BUILD:
            continue
        elif not there.exists() or not filecmp.cmp(path, there, shallow=False):
            sys.exit(f"sixfbd: {name} is another one for {tree.name}; one package cannot hold both")


def _keep_what_is_needed(tree: Path) -> None:
    """Drop what is only for building: what sixfbd with all its extras does not need, however indirectly."""
    there = {canonicalize_name(one.metadata["Name"]): one for one in distributions(path=[str(tree)])}
    needed = {"sixfbd"}
    waiting = [("sixfbd", "all")]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        for text in there[canonicalize_name(name)].requires or []:
            wanted = Requirement(text)
            key = canonicalize_name(wanted.name)
            if key not in there or (wanted.marker and not wanted.marker.evaluate({"extra": extra})):
                continue
            needed.add(key)
            new = {(key, one) for one in ("", *wanted.extras)} - seen
            seen |= new
            waiting += new
    for key, one in there.items():
        if key not in needed:
            _remove(one, tree)


def _remove(one: Distribution, tree: Path) -> None:
    for file in one.files or []:
        (tree / file).unlink(missing_ok=True)


def _tidy(tree: Path) -> None:
    """Drop what nobody runs from here: scripts, tests, headers; and directories that are empty then."""
    for name in ("bin", "share", "include"):
        shutil.rmtree(tree / name, ignore_errors=True)
    for path in sorted(tree.rglob("*")):
        if path.is_dir() and path.name in ("tests", "_tests", "__pycache__", "include") and path.exists():
            shutil.rmtree(path)
    for path in list(_files(tree)):
        if path.suffix in (".pyi", ".pyx", ".pxd", ".h", ".c", ".cc"):
            path.unlink()
        elif path.suffix == ".py" and path.read_bytes().startswith(b"#!"):
            path.write_bytes(b"\n" + path.read_bytes().split(b"\n", 1)[1])  # nobody starts it by its name
        if path.exists():
            path.chmod(0o644)
    for path in sorted((one for one in tree.rglob("*") if one.is_dir()), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def _debianize(source: Path, version: str) -> None:
    debian = source / "debian"
    shutil.copytree(HERE / "debian", debian)
    shutil.copy(HERE / "systemd/sixfbd.sysusers", debian / "sixfbd.sysusers")
    unit = (HERE / "systemd/sixfbd.service").read_text()
    unit = unit.replace("/opt/sixfbd/bin/sixfbctl", "/usr/bin/sixfbctl").replace(
        "/opt/sixfbd/bin/sixfbd", "/usr/sbin/sixfbd"
    )
    assert "/opt/" not in unit, "the unit names a place of the other installation"
    (debian / "sixfbd.service").write_text(unit)
    (debian / "sixfbd.install").write_text("root/* /\n")
    (debian / "sixfbd.docs").write_text("README.md\nNEWS.md\n")
    shutil.copy(PROJECT / "README.md", source)
    shutil.copy(PROJECT / "CHANGELOG.md", source / "NEWS.md")  # by its own name it would be taken for Debian's
    said = "  * See CHANGELOG.md."
    by = "The sixfbd authors <sixfbd@sixfbd.invalid>"
    changelog = f"sixfbd ({version}) unstable; urgency=medium\n\n{said}\n\n -- {by}  {formatdate(_committed_at())}\n"
    (debian / "changelog").write_text(changelog)


def _committed_at() -> float:
    """Return when what is packed was committed, so that the same commit gives the same package."""
    try:
        return float(_output(["git", "-C", str(PROJECT), "log", "-1", "--format=%ct"]))
    except (OSError, subprocess.CalledProcessError):  # not a clone
        return (PROJECT / "CHANGELOG.md").stat().st_mtime


def _version(lib: Path) -> str:
    [own] = (one for one in distributions(path=[str(lib)]) if one.metadata["Name"] == "sixfbd")
    return own.version


def _files(tree: Path) -> Iterator[Path]:
    return (path for path in sorted(tree.rglob("*")) if path.is_file())


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _say(text: str) -> None:
    print(f"sixfbd: {text}", file=sys.stderr)


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\nsixfbd: {command[0]} failed; see above")


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
