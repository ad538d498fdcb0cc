"""A thousand malformed configurations: never a traceback, always a place, never a secret."""

import copy
import tomllib
from typing import Any

import msgspec
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sixfbd.config import Config, Problem, check_config
from sixfbd.config.text import show_key

SECRET = "hunter2-is-the-token"
VALID = """
[site]
name = "workshop"
timezone = "America/Chicago"
url = "https://shop.example.com"
external_labels = {region = "south"}
[daemon]
state_directory = "state"
plugin_directories = ["plugins"]
[http]
listen = "127.0.0.1:9632"
hosts = ["monitor.example.com"]
max_body = "1MiB"
[control]
socket = "c.sock"
[window]
max_series_per_check = 100
[log]
level = "info"
[tokens.t]
secret = {env = "T"}
scopes = ["events", "read"]
[checks.sms]
plugin = "sms"
interval = "5m"
jitter = "10s"
account = "AC1"
token = {env = "T"}
threshold = 0.5
numbers = ["555-0100"]
login = {user = "u", password = {env = "T"}}
page = "4KiB"
headers = {a = "b", c = {env = "T"}}
[notifiers.log]
plugin = "plain"
concurrency = 2
[receivers.primary]
log = {via = "log"}
sms = {via = "log", to = ["555-0100", "555-0101"]}
[receivers.team]
log = {via = "log"}
[route]
receiver = "primary"
routes = [{receiver = "team", matchers = ['severity=~"high|critical"'], continue = true, routes = [{matchers = ["a=b"]}]}]
[severities.high]
icon = "!"
channels = ["sms", "log"]
[[rules]]
name = "Mine"
expr = "up == 0"
for = "1m"
levels = [{severity = "high", when = "> 1", clear = "< 1"}]
labels = {team = "shop"}
annotations = {summary = "down"}
evaluate = "interval"
[[rules]]
name = "DiskFull"
enabled = false
"""

values = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(),
        st.text(max_size=20),
        st.dates(),
        st.datetimes(),
        st.sampled_from(["5m", "0s", "64MiB", "0B", "", "\0", "high", "primary", "a=~\"(\"", "../..", "[::1]:1", "9" * 400 + "s"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3), st.just({"env": "T"})
    ),
    max_leaves=6,
)  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every way into a tree."""
    steps = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for step, inner in steps for place in ((*path, step), *places(inner, (*path, step)))]


PLACES = places(tomllib.loads(VALID))


@st.composite
def broken_trees(draw: st.DrawFn) -> str:
    """The valid configuration with one to three keys misspelt, dropped, moved or given another value."""
    tree = tomllib.loads(VALID)
    for place in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3, unique=True)):
        parent = tree
        try:
            for step in place[:-1]:
                parent = parent[step]
            old = parent[place[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took it away
        match draw(st.sampled_from(["value", "misspell", "drop", "move", "wrap"])):
            case "value":
                parent[place[-1]] = draw(values)
            case "misspell" if isinstance(parent, dict):
                key = place[-1]
                at = draw(st.integers(0, len(key)))
                parent[key[:at] + draw(st.text(max_size=2)) + key[at + 1 :]] = parent.pop(key)
            case "drop":
                del parent[place[-1]]
            case "move":
                tree[draw(st.sampled_from(["site", "checks", "new", "rules"]))] = copy.deepcopy(old)
            case _:
                parent[place[-1]] = [old]
    return tomli_w.dumps(tree)


@st.composite
def broken_bytes(draw: st.DrawFn) -> bytes:
    """The valid configuration cut, with bytes put in, or something else altogether."""
    data = VALID.encode()
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.one_of(st.just(start), st.integers(start, min(len(data), start + 40)), st.just(len(data))))
        piece = draw(st.one_of(st.binary(max_size=6), st.sampled_from([b"[", b'"', b"=", b"\n[[", b"'''"])))
        data = data[:start] + piece + data[end:]
    return draw(st.one_of(st.just(data), st.binary(max_size=200)))


def judge(config: Config | None, problems: list[Problem], path: str) -> None:
    errors = [problem for problem in problems if problem.level == "error"]
    assert (config is None) == bool(errors)
    for problem in problems:
        assert problem.file == path
        assert problem.key or problem.line is not None
        assert problem.message
        assert SECRET not in str(problem)
    msgspec.json.encode(problems)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("malformed")


malformed = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@malformed
@given(text=broken_trees())
def test_a_configuration_with_wrong_keys_and_values_is_told_with_file_and_key(text, folder, catalog):
    path = folder / "tree.toml"
    path.write_text(text, encoding="utf-8")
    judge(*check_config(path, catalog, environ={"T": SECRET}), str(path))


@malformed
@given(data=broken_bytes())
def test_a_configuration_of_broken_text_is_told_with_file_and_line_or_key(data, folder, catalog):
    path = folder / "text.toml"
    path.write_bytes(data)
    judge(*check_config(path, catalog, environ={"T": SECRET}), str(path))


def test_the_configuration_that_these_are_made_of_is_valid(config_of):
    config = config_of(VALID, {"T": SECRET})
    assert config.tokens["t"].secret.reveal() == SECRET
    assert len(config.rules) == 2


def test_every_key_changed_to_a_value_of_another_type_is_an_error_at_that_key_or_beside_it(checked):
    for place in PLACES:
        tree: Any = tomllib.loads(VALID)
        parent = tree
        for step in place[:-1]:
            parent = parent[step]
        parent[place[-1]] = 1e300
        config, problems = checked(tomli_w.dumps(tree), {"T": SECRET})
        assert config is None, place
        table = show_key(place[:1])
        assert any(problem.key.startswith(table) for problem in problems if problem.level == "error"), place
