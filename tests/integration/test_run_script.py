"""`./run` in a copied tree with stubbed Pythons: which one it takes, what it makes, what it repairs, what it says."""

import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PYTHON_STUB = """\
#!/bin/sh
# A Python of version {version}; what it is asked to do that changes something goes to $CALLS.
case "$*" in
    *'sys.exit(sys.version_info'*) {exit_new_enough} ;;
    *'import sys; print('*) echo {version} ;;
    *'import ensurepip'*) exit {exit_ensurepip} ;;
    --version) echo "Python {version}.0" ;;
    '-m venv '*)
        echo "venv with $0" >>"$CALLS"
        mkdir -p "$3/bin"
        cp "$0" "$3/bin/python"
        ;;
    *'pip '*)
        echo "pip $*" >>"$CALLS"
        [ ! -e "$STUBS/no-network" ] || exit 1
        cp "$STUBS/sixfbd" "$STUBS/sixfbctl" "$STUBS/sixfbd-sandbox" "$(dirname "$0")"
        ;;
    '-m pytest'*) echo "pytest $*" >>"$CALLS" ;;
esac
"""

SIXFBD_STUB = """\
#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
[ "$1" != init ] || { mkdir -p "$2"; cp "$STUBS/toml" "$2/sixfbd.toml"; }
"""

SANDBOX_STUB = """\
#!/bin/sh
echo "sixfbd-sandbox $*" >>"$CALLS"
case "$3" in
    init) mkdir -p "$2/conf.d" && echo >"$2/conf.d/50-sandbox.toml" ;;
    run)
        [ ! -e "$STUBS/no-sandbox" ] || exit 3
        echo http://127.0.0.1:9640/
        ;;
esac
"""


class Clone:
    """A copy of the clone's own files and a PATH of its own, in which only stubs and coreutils are found."""

    def __init__(self, place: Path) -> None:
        self.root = place / "a clone"
        self.stubs = place / "stubs"
        self.calls = place / "calls"
        self.root.mkdir()
        self.stubs.mkdir()
        for name in ("run", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
            shutil.copy2(ROOT / name, self.root / name)
        text = '[http]\nlisten = "127.0.0.1:1234"\n[http.public]\nlisten = "127.0.0.1:1235"\n'
        (self.stubs / "toml").write_text(text)
        for name in ("sixfbd", "sixfbctl"):
            self.add_command(name, SIXFBD_STUB)
        self.add_command("sixfbd-sandbox", SANDBOX_STUB)
        for tool in (
            "basename",
            "sh",
            "dirname",
            "cat",
            "cksum",
            "rm",
            "mkdir",
            "mkfifo",
            "cp",
            "chmod",
            "grep",
            "sed",
            "head",
            "id",
            "flock",
        ):
            found = shutil.which(tool)
            if found is not None:
                (self.stubs / tool).symlink_to(found)

    def add_python(self, name: str, version: str, *, has_venv: bool = True) -> None:
        minor = int(version.split(".")[1])
        self.add_command(
            name,
            PYTHON_STUB.format(
                version=version,
                exit_new_enough=f"exit {int(minor < 11)}",
                exit_ensurepip=int(not has_venv),
            ),
        )

    def add_command(self, name: str, text: str) -> None:
        assert "/" not in name, "a stub stands among the stubs, never in the place of a real command"
        (self.stubs / name).write_text(text)
        (self.stubs / name).chmod(0o755)

    def add_test_commands(self) -> None:
        """Let there be what the tests of the clone need of Debian."""
        for name in re.search(r'^test_commands="([^"]*)"', (self.root / "run").read_text(), re.M)[1].split():
            self.add_command(name, "#!/bin/sh\n")

    def run(self, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.root / "run"), *args],
            env={"PATH": str(self.stubs), "CALLS": str(self.calls), "STUBS": str(self.stubs), **environ},
            capture_output=True,
            text=True,
            timeout=60,
            cwd=self.root.parent,
        )

    def called(self) -> list[str]:
        """Return the calls since this was asked last."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return lines


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_the_first_run_makes_venv_and_run_directory_and_starts_the_daemon_on_them(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    done = clone.run()
    assert done.returncode == 0, done.stderr
    venv, locked, itself, init, sandbox, beside, start = clone.called()
    assert venv.startswith("venv with")
    assert "--require-hashes" in locked and locked.endswith("/requirements.lock")
    assert "--no-deps --no-build-isolation -e" in itself
    assert init == f"sixfbd init {clone.root}/.run"
    assert sandbox == f"sixfbd-sandbox --run-dir {clone.root}/.run init"
    assert re.fullmatch(rf"sixfbd-sandbox --run-dir {re.escape(str(clone.root))}/\.run run --beside \d+", beside)
    assert start == f"sixfbd run --config {clone.root}/.run/sixfbd.toml"
    assert "http://127.0.0.1:1234/" in done.stderr
    assert "http://127.0.0.1:9640/" in done.stderr
    assert "sixfbctl status" in done.stderr
    assert not (clone.root / ".run" / "sandbox.ready").exists()


def test_the_second_run_starts_at_once_without_pip_and_init(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    clone.run()
    clone.called()
    clone.run()
    beside, start = clone.called()
    assert "run --beside" in beside
    assert start == f"sixfbd run --config {clone.root}/.run/sixfbd.toml"


def test_a_second_start_beside_a_daemon_that_runs_says_so_and_starts_nothing(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    clone.run()
    clone.called()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(clone.root / ".run" / "control.sock"))
        done = clone.run()
    assert done.returncode == 1 and "it runs here already" in done.stderr
    [asked] = clone.called()
    assert asked.startswith("sixfbctl ") and asked.endswith(" status")


def test_a_run_directory_without_the_sandbox_starts_the_daemon_alone(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    clone.run()
    (clone.root / ".run" / "conf.d" / "50-sandbox.toml").unlink()
    clone.called()
    clone.run()
    assert clone.called() == [f"sixfbd run --config {clone.root}/.run/sixfbd.toml"]


def test_a_sandbox_that_is_dead_is_said_and_the_daemon_starts(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    (clone.stubs / "no-sandbox").touch()
    done = clone.run()
    assert done.returncode == 0
    assert "the sandbox has ended (3), the daemon goes on" in done.stderr
    assert clone.called()[-1].startswith("sixfbd run")


def test_the_sandbox_is_asked_through_the_script(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    clone.run()
    clone.called()
    clone.run("sandbox", "fault", "twilio", "error=503")
    assert clone.called() == [f"sixfbd-sandbox --run-dir {clone.root}/.run fault twilio error=503"]


def test_a_newer_named_python_is_taken_before_an_older_one_and_python3_last(clone: Clone) -> None:
    for name, version in (("python3", "3.11"), ("python3.11", "3.11"), ("python3.12", "3.12")):
        clone.add_python(name, version)
    clone.run()
    assert clone.called()[0].endswith("/python3.12")


def test_the_python_that_the_environment_names_is_taken_whatever_else_is_there(clone: Clone) -> None:
    clone.add_python("python3.13", "3.13")
    clone.add_python("mine", "3.11")
    clone.run(PYTHON="mine")
    assert clone.called()[0].endswith("/mine")


@pytest.mark.parametrize(("name", "words"), [("mine", "older than Python 3.11"), ("absent", "no such command")])
def test_a_named_python_that_is_old_or_absent_is_named(clone: Clone, name: str, words: str) -> None:
    clone.add_python("mine", "3.9")
    clone.add_python("python3", "3.12")
    done = clone.run(PYTHON=name)
    assert done.returncode == 1
    assert name in done.stderr and words in done.stderr
    assert clone.called() == []


def test_a_python_that_is_too_old_is_named_with_its_version_and_the_mend(clone: Clone) -> None:
    clone.add_python("python3", "3.9")
    done = clone.run()
    assert done.returncode == 1
    assert "python3 is 3.9" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr


def test_no_python_at_all_is_said_with_the_command_that_installs_it(clone: Clone) -> None:
    done = clone.run()
    assert done.returncode == 1
    assert "apt install python3 python3-venv" in done.stderr


def test_a_python_without_venv_is_said_with_the_command_that_installs_it(clone: Clone) -> None:
    clone.add_python("python3", "3.11", has_venv=False)
    done = clone.run()
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr
    assert clone.called() == []


def test_a_venv_that_was_left_half_made_is_made_anew(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    (clone.root / ".venv" / "bin").mkdir(parents=True)
    leftover = clone.root / ".venv" / "leftover"
    leftover.touch()
    done = clone.run()
    assert done.returncode == 0, done.stderr
    assert not leftover.exists()
    assert "half-made" in done.stderr
    assert clone.called()[0].startswith("venv with")


def test_an_install_that_failed_is_said_and_repaired_by_the_next_run(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    (clone.stubs / "no-network").touch()
    done = clone.run()
    assert done.returncode == 1
    assert "could not be installed" in done.stderr
    (clone.stubs / "no-network").unlink()
    clone.called()
    assert clone.run().returncode == 0
    assert [call.split()[0] for call in clone.called()] == [
        *("venv", "pip", "pip"),
        *("sixfbd", "sixfbd-sandbox", "sixfbd-sandbox", "sixfbd"),
    ]


def test_a_changed_lock_brings_the_same_venv_up_to_date(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    clone.run()
    clone.called()
    with (clone.root / "requirements.lock").open("a") as lock:
        lock.write("# another\n")
    assert clone.run().returncode == 0
    assert [call.split()[0] for call in clone.called()] == ["pip", "pip", "sixfbd-sandbox", "sixfbd"]


def test_a_clone_that_was_moved_makes_its_venv_anew(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    clone.run()
    clone.called()
    clone.root = clone.root.rename(clone.root.with_name("moved"))
    assert clone.run().returncode == 0
    assert clone.called()[0].startswith("venv with")


def test_tests_install_the_development_lock_once_and_the_daemon_starts_from_it_too(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    clone.add_test_commands()
    done = clone.run("test", "-k", "nothing")
    assert done.returncode == 0, done.stderr
    calls = clone.called()
    assert calls[1].endswith("/requirements-dev.lock")
    assert calls[-1] == "pytest -m pytest -k nothing"
    clone.run("test")
    assert clone.called() == ["pytest -m pytest -n 4 --dist loadgroup"], "the whole suite runs side by side"
    clone.run("ctl", "status", "--json")
    assert clone.called() == ["sixfbctl status --json"]


def test_whoever_is_not_root_is_told_which_debian_packages_the_tests_need(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    (clone.stubs / "id").unlink()
    clone.add_command("id", "#!/bin/sh\necho 1000\n")
    done = clone.run("test")
    assert done.returncode == 1
    assert "apt install prometheus" in done.stderr
    assert not any(call.startswith("pytest") for call in clone.called())


def test_an_unknown_command_is_refused_with_the_list_of_those_there_are(clone: Clone) -> None:
    done = clone.run("sok")
    assert done.returncode == 2
    assert "no command sok" in done.stderr
    assert "./run test" in done.stderr


def test_the_development_lock_holds_every_pin_of_the_other_so_that_one_venv_serves_both() -> None:
    def pins(name: str) -> set[str]:
        lines = (ROOT / name).read_text().splitlines()
        return {line.split(" ")[0] for line in lines if line[:1].isalnum()}

    assert pins("requirements.lock") <= pins("requirements-dev.lock")
    assert pins("requirements.lock")


def test_what_tests_need_of_npm_is_installed_by_its_lock_once_and_again_when_that_changed(clone: Clone) -> None:
    clone.add_python("python3", "3.11")
    clone.add_test_commands()
    (clone.root / "tests").mkdir(exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(ROOT / "tests" / name, clone.root / "tests")
    assert clone.run("test").returncode == 0, "it is for the tests that need it to say what is missing"
    clone.called()
    clone.add_command("npm", '#!/bin/sh\necho "npm $* in $PWD" >>"$CALLS"\n[ ! -e "$STUBS/no-network" ] || exit 1\n')
    (clone.stubs / "no-network").touch()
    assert "npm could not install them" in clone.run("test").stderr
    (clone.stubs / "no-network").unlink()
    clone.called()
    for calls in (1, 0):
        done = clone.run("test")
        assert done.returncode == 0, done.stderr
        assert [call for call in clone.called() if call.startswith("npm")] == [
            f"npm ci --ignore-scripts in {clone.root}/.node"
        ] * calls
    with (clone.root / "tests" / "package.json").open("a") as package:
        package.write("\n")
    clone.run("test")
    assert any(call.startswith("npm") for call in clone.called())


def test_the_lock_of_npm_names_no_registry() -> None:
    packages = json.loads((ROOT / "tests" / "package-lock.json").read_text())["packages"]
    assert len(packages) > 100
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert all(package["integrity"].startswith("sha512-") for name, package in packages.items() if name)


@pytest.mark.parametrize("script", ["run", ".ci/run"])
def test_the_scripts_are_plain_posix_shell_and_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run([shutil.which("dash") or "sh", "-n", str(ROOT / script)], check=True, timeout=10)
