"""What `sixfbd-sandbox` says of itself."""

import pytest
from click.testing import CliRunner

from sixfbd_plugins.sandbox.cli import cli
from sixfbd_plugins.sandbox.switches import TARGETS, WORDS


@pytest.mark.parametrize("command", [[], *([name] for name in cli.commands)], ids=str)
def test_help_is_whole_and_fits_a_terminal(command):
    text = CliRunner().invoke(cli, [*command, "--help"], terminal_width=80).output
    assert "Usage: " in text and "..." not in text.replace("[ARGS]...", "").replace("WORDS...", "")
    assert max(map(len, text.splitlines())) <= 80


def test_the_help_of_fault_names_each_target_and_once_each_word():
    text = CliRunner().invoke(cli, ["fault", "--help"], terminal_width=80).output
    assert all(target in text for target in TARGETS)
    described = [
        line.split()[0].rstrip("=")
        for line in text.partition("Words of every target:")[2].splitlines()
        if line[:4] == "    "
    ]
    assert sorted(described) == sorted(WORDS)
