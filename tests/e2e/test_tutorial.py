"""The tutorial for authors of plugins, followed word by word: every file is written, every command typed, every answer compared."""

import fnmatch
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.e2e.conftest import wait_for

BIN = Path(sys.executable).parent
TUTORIAL = (Path(__file__).resolve().parents[2] / "etc" / "examples" / "plugin.md").read_text()
FILE = re.compile(r"into `([^`]+)`")
MINUTES = 5


class Step(NamedTuple):
    """One block: a file to write, or a command and what it answers."""

    path: str
    text: str


def steps() -> Iterator[Step]:
    """Yield what the reader does, in order. A file's name is the last one that was said before its text."""
    end = 0
    for block in re.finditer(r"^```(\w+)\n(.*?)^```$", TUTORIAL, re.MULTILINE | re.DOTALL):
        if block[1] == "python":
            yield Step(FILE.findall(TUTORIAL[end : block.start()])[-1], block[2])
        else:
            assert block[1] == "console", block[1]
            yield from (Step("", typed) for typed in re.split(r"^(?=\$ )", block[2], flags=re.MULTILINE) if typed)
        end = block.end()


def typed(text: str) -> tuple[str, str]:
    """Return a command, the lines of its input with it, and the answer that is expected."""
    lines = text.splitlines()
    command = [lines[0].removeprefix("$ ")]
    rest = lines[1:]
    while rest and rest[0].startswith(">"):
        command.append(rest.pop(0).removeprefix(">").removeprefix(" "))
    return "\n".join(command), "\n".join(rest)


def answers(expected: str, said: str) -> bool:
    """Tell whether an answer is the expected one, `...` standing for anything."""
    pattern = re.escape(expected.strip()).replace(re.escape("..."), ".*")
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Terminal:
    """A reader's folder and shell: where they are and what they exported goes from one command to the next."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.env = {"HOME": str(home), "PATH": f"{BIN}:/usr/bin:/bin", "TERM": "dumb", "COLUMNS": "200"}
        self.daemon: subprocess.Popen[bytes] | None = None
        self.log = home / "daemon.log"

    def write(self, path: str, text: str) -> None:
        assert (self.folder / path).is_file(), f"{path} is not what `plugins new` wrote"
        (self.folder / path).write_text(text)

    def type(self, command: str, expected: str) -> None:
        if command == "sixfbd run":
            self._start(expected)
        elif "ctl alerts" in command:  # what comes within moments
            wait_for(f"{command}: {expected}", lambda: answers(expected, self._run(command)), pause_s=0.3)
        else:
            said = self._run(command)
            assert answers(expected, said), f"{command}\n{said}\nand not\n{expected}"

    def _run(self, command: str) -> str:
        script = f"{command}\nended=$?\npwd >&3\nenv -0 >&4\nexit $ended"
        read_where, where = os.pipe()
        read_env, env = os.pipe()
        bash = ["bash", "-c", f"exec 3>&{where} 4>&{env}\n{script}"]
        done = subprocess.run(
            bash, cwd=self.folder, env=self.env, pass_fds=(where, env), capture_output=True, text=True, timeout=120
        )
        os.close(where)
        os.close(env)
        with open(read_where) as pipe:
            self.folder = Path(pipe.read().strip())
        with open(read_env) as pipe:
            pairs = [pair.partition("=") for pair in pipe.read().split("\0") if pair]
        assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        self.env = {name: value for name, _, value in pairs if name not in ("_", "SHLVL", "PWD", "OLDPWD")}
        return done.stdout + done.stderr

    def _start(self, expected: str) -> None:
        config = Path(self.env["SIXFBD_CONFIG"])
        text = config.read_text()
        assert 'listen = "127.0.0.1:9632"' in text
        config.write_text(text.replace("127.0.0.1:9632", f"127.0.0.1:{free_port()}"))  # others run here as well
        with self.log.open("wb") as log:
            self.daemon = subprocess.Popen(
                ["sixfbd", "run"], cwd=self.folder, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        wait_for(f"sixfbd run: {expected}", lambda: answers(expected, self.log.read_text()), 60)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    (tmp_path / "home").mkdir()
    (tmp_path / "empty").mkdir()
    one = Terminal(tmp_path / "empty", tmp_path / "home")
    yield one
    if one.daemon is not None:
        os.killpg(one.daemon.pid, signal.SIGTERM)
        one.daemon.wait(20)


def test_a_reader_who_has_nothing_else_has_a_check_that_alerts_within_minutes(terminal: Terminal) -> None:
    began = time.monotonic()
    for step in steps():
        if step.path:
            terminal.write(step.path, step.text)
        else:
            terminal.type(*typed(step.text))
    assert terminal.daemon is not None, "the tutorial starts no daemon"
    told = terminal.log.read_text()
    assert fnmatch.filter(told.splitlines(), "*notification*BackupOld*"), told
    assert time.monotonic() - began < MINUTES * 60


@pytest.mark.parametrize(
    ("expected", "said", "fits"),
    [("a\n...", "a\nb\nc", True), ("a", "b", False), ("...b...", "abc", True), ("a ... c", "a b d", False)],
)
def test_an_answer_that_differs_would_be_noticed(expected: str, said: str, fits: bool) -> None:
    assert answers(expected, said) is fits
