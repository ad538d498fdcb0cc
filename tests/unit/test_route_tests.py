"""Tests of routes in files: what passes, what fails with its reason, and what is no file of tests."""

import json

import pytest
from click.testing import CliRunner

from sixfbd.cli import cli

CONFIG = """
[site]
timezone = "America/Chicago"
[notifiers.log]
plugin = "log"
[receivers.primary]
log = {via = "log"}
[receivers.night]
log = {via = "log"}
[time_intervals.nights]
intervals = [{times = [{start_time = "22:00", end_time = "24:00"}]}]
[route]
receiver = "primary"
[[route.routes]]
receiver = "night"
matchers = ['severity="critical"']
active_time_intervals = ["nights"]
continue = true
[[route.routes]]
"""
TESTS = """
[[tests]]
name = "at night"
labels = {severity = "critical"}
at = "2026-11-26T23:00:00"
receivers = ["night", "primary"]
[[tests]]
name = "by day"
labels = {severity = "critical"}
at = "2026-11-26T12:00:00"
receivers = ["primary"]
[[tests]]
labels = {severity = "low"}
receivers = ["primary"]
"""


@pytest.fixture
def run(tmp_path):
    def run_tests(text, *args):
        (tmp_path / "sixfbd.toml").write_text(CONFIG)
        (tmp_path / "routes.toml").write_text(text)
        command = ["test-routes", "--config", str(tmp_path / "sixfbd.toml"), str(tmp_path / "routes.toml"), *args]
        return CliRunner().invoke(cli, command, prog_name="sixfbd")

    return run_tests


def test_who_is_told_is_held_against_the_file_at_its_times(run):
    result = run(TESTS)
    assert (result.exit_code, result.stdout) == (0, "3 of 3 tests passed\n"), result.output


def test_a_test_that_fails_says_who_would_be_told_and_by_which_route(run):
    result = run(TESTS.replace('receivers = ["night", "primary"]', 'receivers = ["primary"]'))
    assert result.exit_code == 1
    first, last = result.stdout.splitlines()
    assert first.endswith(
        'tests[0] "at night": primary must be told, and it is night by route.routes[0], primary by route.routes[1]'
    )
    assert last == "2 of 3 tests passed"
    [failed, *_] = json.loads(run(TESTS.replace('"night", ', ""), "--json").stdout)
    assert failed["failure"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[tests]]\nlabels = {}\n", "receivers"),
        ("tests = 5", "tests"),
        ("[[tests]", "is no TOML"),
        ('[[tests]]\nlabels = {severity = "bad"}\nreceivers = []', "severity is 'bad'"),
        ('[[tests]]\nlabels = {}\nreceivers = []\nat = "soon"', "is not a time"),
    ],
)
def test_a_file_that_is_none_is_named_with_what_is_wrong(run, text, says):
    result = run(text)
    assert result.exit_code == 1 and says in result.stderr
