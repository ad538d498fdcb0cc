"""A thousand malformed configurations: never a traceback, always a place, never a secret."""

import copy
import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sixfbd.config import Config, PluginSources, Problem, check_config, plugin_sources
from sixfbd.config.text import show_key
from sixfbd.host import PluginCatalog, load_plugins
from sixfbd.rules.problems import rule_problems

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


# ---- the packaged configuration, with every key of every plugin ----------------------------------------------------------

PACKAGED = (Path(__file__).parents[3] / "etc" / "sixfbd.toml").read_text()
EVERY_KEY = re.sub(r"^#([\[a-z].*)$", r"\1", PACKAGED, flags=re.MULTILINE)
EVERY_PLACE = places(tomllib.loads(EVERY_KEY))
ODD_BYTES = [
    b"[", b"]", b'"', b"\'\'\'", b"=", b"}", b"\n[[rules]]\n", b"\0", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"1e999", b"nan",
    b"9" * 5000, b"0x" + b"f" * 400, b"{" * 200, b"[" * 2000, b"\n" + b"a." * 100 + b"a = 1\n", b"\r", b"\xef\xbb\xbf", b"\x7f",
    b"1979-05-27T07:32:00Z", b'"\\u0000"', b"\n[checks.self]\n", b'"5m"', b"-1", b"#",
]  # fmt: skip
ODD_VALUES = st.one_of(
    values,
    st.sampled_from([
        2**63, 10**400, "x" * 100_000, "\U0010ffff", "\x7f\x1b[31m", {"file": "/"}, {"file": "/dev/zero"}, {"credential": "../x"},
        {"env": "A=B"}, {"env": "\0"}, "http://[", "http://a:b@c", "(", "a{", "sum(", "{{ $x", "127.0.0.1:0", [[]], [{}],
    ]),
)  # fmt: skip


@st.composite
def broken_packaged(draw: st.DrawFn) -> bytes:
    """The packaged configuration with odd bytes in it, or with odd values and keys."""
    if draw(st.booleans()):
        data = EVERY_KEY.encode()
        for _ in range(draw(st.integers(1, 3))):
            at = draw(st.integers(0, len(data)))
            data = data[:at] + draw(st.sampled_from(ODD_BYTES)) + data[at + draw(st.integers(0, 60)) :]
        return data
    tree = tomllib.loads(EVERY_KEY)
    for place in draw(st.lists(st.sampled_from(EVERY_PLACE), min_size=1, max_size=4, unique=True)):
        parent: Any = tree
        for step in place[:-1]:
            inside = isinstance(parent, dict) or (
                isinstance(parent, list) and isinstance(step, int) and step < len(parent)
            )
            parent = (parent.get(step) if isinstance(parent, dict) else parent[step]) if inside else None
        if isinstance(parent, dict):
            parent[str(place[-1]) + draw(st.sampled_from(["", "", "x", ".", "\0", "\n"]))] = draw(ODD_VALUES)
    return tomli_w.dumps(tree).encode()


@pytest.fixture(scope="module")
def installed() -> PluginCatalog:
    return load_plugins(PluginSources())


@settings(malformed, max_examples=150)
@given(data=broken_packaged())
def test_the_packaged_configuration_broken_anywhere_is_told_with_file_and_key(data, folder, installed):
    path = folder / "packaged.toml"
    path.write_bytes(data)
    plugin_sources(path)
    config, problems = check_config(path, installed, rule_problems, {"T": SECRET})
    assert (config is None) == any(problem.level == "error" for problem in problems)
    for problem in problems:
        assert problem.file == str(path) or problem.key.startswith("rule ")
        assert problem.key or problem.line is not None
        assert SECRET not in str(problem) and len(str(problem)) < 3000
        str(problem).encode()


def test_a_directory_of_templates_that_cannot_be_one_is_named_by_its_key(folder, installed):
    path = folder / "packaged.toml"
    for name, says in (("x" * 60_000, "cannot be read: File name too long"), ("none", "is no directory; make it")):
        path.write_text(f'[templates]\ndirectory = "{name}"\n')
        [problem] = [one for one in check_config(path, installed, rule_problems)[1] if one.level == "error"]
        assert (problem.file, problem.key) == (str(path), "templates.directory")
        assert says in str(problem) and len(str(problem)) < 500


# ---- files that are none -------------------------------------------------------------------------------------------------

NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a directory": (lambda path: path.mkdir(), "cannot be read: Is a directory"),
    "a link to itself": (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "does not exist"),
    "a pipe": (os.mkfifo, "is not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is not a regular file"),
    "bytes": (lambda path: path.write_bytes(b"\xff\xfe[\0s\0"), "is not UTF-8"),
    "a huge file": (lambda path: path.write_bytes(b"#" * (5 * 1024 * 1024)), "is larger than 4096 KiB"),
}


@pytest.mark.parametrize("where", ["sixfbd.toml", "conf.d/50-odd.toml"])
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_to_read_is_named_beside_all_other_errors(tmp_path, catalog, kind, where):
    make, said = NO_FILES[kind]
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "sixfbd.toml").write_text("[site]\nname = 5\n")
    (tmp_path / "conf.d" / "60.toml").write_text("[log]\nlevle = 5\n")
    (tmp_path / where).unlink(missing_ok=True)
    make(tmp_path / where)
    plugin_sources(tmp_path / "sixfbd.toml")
    config, problems = check_config(tmp_path / "sixfbd.toml", catalog)
    assert config is None
    assert (problems[0].file, problems[0].message) == (str(tmp_path / where), said)
    others = ["log.levle"] if where == "sixfbd.toml" else ["site.name", "log.levle"]
    assert [problem.key for problem in problems[1:]] == others


def test_a_file_in_place_of_conf_d_is_named_beside_all_other_errors(tmp_path, catalog):
    (tmp_path / "sixfbd.toml").write_text("[site]\nname = 5\n")
    (tmp_path / "conf.d").write_text("")
    _, problems = check_config(tmp_path / "sixfbd.toml", catalog)
    assert [problem.key or problem.message for problem in problems] == ["cannot be read: Not a directory", "site.name"]


def test_a_file_of_conf_d_whose_name_is_no_text_is_named_on_one_line(tmp_path, catalog):
    (tmp_path / "sixfbd.toml").write_text("")
    (tmp_path / "conf.d").mkdir()
    for name in (b"\xff\xfe.toml", b"a\nb.toml"):
        Path(os.fsdecode(os.fsencode(tmp_path / "conf.d") + b"/" + name)).write_text("x = 1\n[log\n")
    _, problems = check_config(tmp_path / "sixfbd.toml", catalog)
    assert sorted(problem.file.rpartition("/")[2] for problem in problems) == ["\\udcff\\udcfe.toml", "a\\nb.toml"]


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
