"""The examples of sixfbctl(1), one after the other, against a daemon."""

import json
import re
import shlex
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "man" / "sixfbctl.1"
SHOWN = {"\\-": "-", "\\(dq": '"', "\\&": ""}
NOT_WELL = {"check run": 5}
"""Commands whose exit code tells of this machine: another one is fine as well."""


def commands() -> list[list[str]]:
    text = PAGE.read_text().partition(".Sh EXAMPLES\n")[2]
    for written, means in SHOWN.items():
        text = text.replace(written, means)
    return [shlex.split(line)[1:] for line in re.findall(r"^sixfbctl .*", text, re.MULTILINE)]


def test_the_examples_work_one_after_the_other(daemon) -> None:
    lines = [words for words in commands() if "completion" not in words]
    assert len(lines) >= 15
    daemon.start()
    for words in lines:
        done = daemon.run_ctl(*words)
        fine = {0, NOT_WELL.get(" ".join(words[:2]), 0)}
        assert done.returncode in fine and (done.stdout or words[0] == "alerts"), (words, done.stdout + done.stderr)
        if "--json" in words:
            json.loads(done.stdout)


def test_the_form_of_an_error_is_that_of_the_page(daemon) -> None:
    written = re.search(r"^\{\"error\": .*\}$", PAGE.read_text(), re.MULTILINE)
    assert written is not None
    done = daemon.run_ctl("--json", "status")
    error, told = json.loads(done.stderr), json.loads(written[0])
    assert (done.returncode, error["error"]["exit_code"]) == (3, told["error"]["exit_code"])
    assert error.keys() == told.keys() and error["error"].keys() == told["error"].keys()
