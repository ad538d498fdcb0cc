"""What packaging/completions.py writes, where the shells themselves look for it, used by real shells."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LIMIT_S = 60.0
PARTS = [("sixfbctl sil", "silence"), ("sixfbctl check pa", "pause"), ("sixfbd check-c", "check-config")]
"""A line that is begun, and what its last word may become."""


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("prefix")
    done = subprocess.run(
        [sys.executable, ROOT / "packaging" / "completions.py", prefix], capture_output=True, text=True, check=True
    )
    assert len(done.stdout.splitlines()) == 6, done.stderr
    return prefix / "share"


def environment(home: Path, **more: str) -> Mapping[str, str]:
    return {"PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(home), "TERM": "dumb", "LC_ALL": "C.UTF-8", **more}


@pytest.mark.parametrize(("line", "word"), PARTS)
def test_bash_completes_a_command(line: str, word: str, share: Path, tmp_path: Path) -> None:
    program, *rest = line.split()
    script = (
        f'. "{share}/bash-completion/completions/{program}"; complete -p {program} >&2; COMP_WORDS=({line});'
        f' COMP_CWORD={len(rest)}; _{program}_completion {program}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    run = ["bash", "--norc", "-c", script]
    done = subprocess.run(run, capture_output=True, text=True, env=environment(tmp_path), timeout=LIMIT_S, check=True)
    assert done.stdout.split() == [word]
    assert f"-F _{program}_completion {program}" in done.stderr


@pytest.mark.parametrize(("line", "word"), PARTS)
def test_fish_completes_a_command(line: str, word: str, share: Path, tmp_path: Path) -> None:
    env = environment(tmp_path, XDG_DATA_DIRS=f"{share}:/usr/share")
    run = ["fish", "--command", f"complete --do-complete '{line}'"]
    done = subprocess.run(run, capture_output=True, text=True, env=env, timeout=LIMIT_S, check=True)
    assert [offered.split("\t")[0] for offered in done.stdout.splitlines()] == [word], done.stderr


@contextmanager
def terminal_of(command: list[str], env: Mapping[str, str]) -> Iterator[int]:
    """Run a command on a terminal of its own; yield the other end."""
    end, terminal = pty.openpty()
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=env, start_new_session=True
    ) as shell:
        os.close(terminal)
        try:
            yield end
        finally:
            shell.kill()
            os.close(end)


def read_until(end: int, wanted: str) -> str:
    deadline = time.monotonic() + LIMIT_S
    seen = ""
    while not re.search(wanted, seen):
        left = deadline - time.monotonic()
        assert left > 0 and select.select([end], [], [], left)[0], f"no {wanted!r} in {seen!r}"
        seen += os.read(end, 4096).decode(errors="replace")
    return seen


def test_zsh_completes_commands_on_a_terminal(share: Path, tmp_path: Path) -> None:
    setup = f"fpath=({share}/zsh/site-functions $fpath); autoload -U compinit; compinit -D -u; PS1='rea''dy> '\n"
    with terminal_of(["zsh", "-f", "-i"], environment(tmp_path)) as end:
        os.write(end, setup.encode())
        read_until(end, "ready> ")
        for line, word in PARTS:
            os.write(end, f"{line}\t".encode())
            last = line.split()[-1]
            read_until(end, re.escape(line) + r"[\x08\r]*.*" + re.escape(word.removeprefix(last)))
            os.write(end, b"\x15")  # Ctrl-U: the next line
