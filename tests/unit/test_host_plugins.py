"""The plugin host: what is found, in which order, and how each broken kind is named and left out."""

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sixfbd import host
from sixfbd.config import PluginSources
from sixfbd.host import PluginCatalog, PluginInfo, load_plugins
from sixfbd.plugin import PluginConfig
from sixfbd.rules import bind_rules
from sixfbd.rules.defaults import ENGINE_RULES
from sixfbd_plugins.checks.default_rules import SERVICES

HEAD = """
'''A fixture.

More of it.
'''
import msgspec
from sixfbd.plugin import *
"""
CHECK = """
class QueueCheck(Check):
    '''Length of a queue.'''
    async def run(self, cursor): ...

@hookimpl
def sixfbd_checks(config):
    return {NAME: QueueCheck}
"""


@pytest.fixture(autouse=True)
def _forget_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("sixfbd_plugin_", "fixture_")):
            del sys.modules[name]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., PluginCatalog]:
    """Load plugins.d with these files beside the installed plugins."""

    def loaded(**files: str) -> PluginCatalog:
        for name, text in files.items():
            (tmp_path / f"{name}.py").write_text(HEAD + textwrap.dedent(text), encoding="utf-8")
        return load_plugins(PluginSources(files_in=tmp_path, config=PluginConfig(site="shop")))

    return loaded


def check_called(name: str) -> str:
    return CHECK.replace("NAME", repr(name))


def plugin(catalog: PluginCatalog, name: str) -> PluginInfo:
    (found,) = [info for info in catalog.plugins if info.name == name]
    return found


def test_a_single_file_is_loaded_and_described(load, tmp_path):
    catalog = load(queue="__version__ = '1.2'" + check_called("queue"))
    info = plugin(catalog, "queue")
    assert info.problem is None
    assert (info.doc, info.version, info.origin, info.kinds) == (
        "A fixture.",
        "1.2",
        str(tmp_path / "queue.py"),
        ("check",),
    )
    assert catalog.checks["queue"].cls.__doc__ == "Length of a queue."
    assert catalog.checks["queue"].plugin == "queue"


def test_our_own_plugins_load_by_entry_point(load):
    catalog = load()
    assert {"system", "webhook", "scrape"} <= set(catalog.checks)
    assert {"log", "webhook"} <= set(catalog.notifiers)
    assert {"standard"} <= set(catalog.inbound)
    assert {"ticket_sale", "request"} <= set(catalog.event_types)
    assert catalog.failed == ()
    assert plugin(catalog, "system").version


def test_the_engines_rules_come_first_and_name_their_service(load):
    catalog = load()
    assert catalog.rules[: len(ENGINE_RULES)] == ENGINE_RULES
    assert all(rule.labels["service"] == "daemon" and "summary" in rule.annotations for rule in ENGINE_RULES)


def test_each_default_rule_names_its_service_by_a_word_that_channels_can_be_chosen_by(load):
    named = {rule.name: rule.labels.get("service") for rule in load().rules}
    assert {name: word for name, word in named.items() if word not in (*SERVICES, "daemon")} == {}
    assert set(named.values()) == {*SERVICES, "daemon"}, "no word is made up for nothing"


MANY = """
SOLD = Counter("sold_total", "Sold.")
class Sold(msgspec.Struct):
    count: int
class Pigeon(Notifier):
    async def deliver(self, notification): ...
@hookimpl
def sixfbd_notifiers(config):
    return {"pigeon": Pigeon}
class Hook(Inbound):
    def receive(self, request): ...
@hookimpl
def sixfbd_inbound(config):
    return {"hook": Hook}
@hookimpl
def sixfbd_rules():
    return [Rule(name="R", expr="1", severity=Severity.LOW)]
@hookimpl
def sixfbd_events(config):
    assert config.site == "shop"
    return (EventType("sold", Sold, metrics=(SOLD,)),)
"""


def test_every_kind_is_collected_with_its_origin(load):
    catalog = load(many=check_called("queue") + MANY)
    assert plugin(catalog, "many").kinds == ("check", "notifier", "inbound", "rules", "events")
    assert catalog.inbound["hook"].plugin == "many"
    assert catalog.rules[-1].origin == "plugin many"
    assert catalog.metrics["sold_total"].kind == "counter"
    assert catalog.event_types["sold"].name == "sold"


def test_a_package_of_a_plugin_directory_may_import_its_own_modules(tmp_path):
    package = tmp_path / "dir" / "fixture_package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("'''Doc.'''\nfrom fixture_package.inner import sixfbd_checks\n")
    (package / "inner.py").write_text(HEAD + check_called("packaged"))
    (tmp_path / "dir" / "not_a_package").mkdir()
    catalog = load_plugins(PluginSources(directories=(tmp_path / "none", tmp_path / "dir")))
    assert plugin(catalog, "fixture_package").problem is None
    assert catalog.checks["packaged"].plugin == "fixture_package"
    again = load_plugins(PluginSources(directories=(tmp_path / "dir",)))
    assert again.checks["packaged"].cls is catalog.checks["packaged"].cls, "plugin code is loaded once per process"


def test_a_package_called_as_an_installed_module_is_left_out(tmp_path):
    for name in ("json", "wave"):  # one loaded, one not
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise AssertionError('must not run')")
    catalog = load_plugins(PluginSources(directories=(tmp_path,)))
    assert "rename the directory" in str(plugin(catalog, "json").problem)
    assert "rename the directory" in str(plugin(catalog, "wave").problem)


def test_the_order_is_fixed(load):
    first = load(b=check_called("b"), a=check_called("a"))
    assert [info.name for info in first.plugins][-2:] == ["a", "b"]
    installed = [info.name for info in first.plugins][:-2]
    assert installed == sorted(installed)


def test_hidden_files_and_other_files_are_no_plugins(load, tmp_path):
    (tmp_path / ".hidden.py").write_text("raise AssertionError")
    (tmp_path / "_private.py").write_text("raise AssertionError")
    (tmp_path / "notes.txt").write_text("notes")
    assert all(not info.origin.startswith(str(tmp_path)) for info in load().plugins)


BROKEN = {
    "a missing import": (
        "import fixture_nowhere\n",
        r"import failed: ModuleNotFoundError: No module named 'fixture_nowhere' (FILE:8)",
    ),
    "a syntax error": ("def broken(:\n", "import failed: SyntaxError: invalid syntax"),
    "sys.exit at import": ("import sys\nsys.exit(3)\n", "import failed: SystemExit: 3 (FILE:9)"),
    "an odd exception at import": ("class Odd(BaseException): ...\nraise Odd('x')\n", "import failed: Odd: x (FILE:9)"),
    "an exception that cannot be shown": (
        "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd\n",
        "import failed: Odd: (its text cannot be shown: ValueError) (FILE:10)",
    ),
    "no hook at all": ("x = 1\n", "it implements no hook; there are sixfbd_checks, "),
    "a misspelt hook": (
        "@hookimpl\ndef sixfbd_cheks(config): return {}\n",
        'sixfbd_cheks() is not a hook; did you mean "sixfbd_checks"?',
    ),
    "a hook without its mark": (
        "def sixfbd_checks(config): return {}\n",
        "sixfbd_checks() is not marked; write @hookimpl above it",
    ),
    "a wrong argument": (
        "@hookimpl\ndef sixfbd_checks(cfg): return {}\n",
        "sixfbd_checks() has no argument cfg; it may take (config)",
    ),
    "an argument with a default": (
        "@hookimpl\ndef sixfbd_checks(config=None): return {}\n",
        "sixfbd_checks(): write the argument config plainly",
    ),
    "an async hook": (
        "@hookimpl\nasync def sixfbd_checks(config): return {}\n",
        "sixfbd_checks() is async; hooks are plain functions",
    ),
    "a hook that raises": (
        "@hookimpl\ndef sixfbd_checks(config):\n    return 1 / 0\n",
        "sixfbd_checks() failed: ZeroDivisionError: division by zero (FILE:10)",
    ),
    "a hook that exits": (
        "import sys\n@hookimpl\ndef sixfbd_checks(config): sys.exit()\n",
        "sixfbd_checks() failed: SystemExit (FILE:10)",
    ),
    "a hook that forgets to return": (
        "@hookimpl\ndef sixfbd_checks(config): {}\n",
        "sixfbd_checks() returned None; is `return` missing?",
    ),
    "a list of checks": (
        "@hookimpl\ndef sixfbd_checks(config): return []\n",
        "sixfbd_checks() returned a list, not a mapping of names to classes",
    ),
    "a name that is no text": (
        "@hookimpl\ndef sixfbd_checks(config): return {5: Check}\n",
        "sixfbd_checks() returned the name 5; letters",
    ),
    "a class that is no check": (
        "@hookimpl\ndef sixfbd_checks(config): return {'a': int}\n",
        "sixfbd_checks()['a'] is the class int, not a subclass of Check",
    ),
    "an instance in place of a class": (
        "@hookimpl\ndef sixfbd_checks(config): return {'a': 5}\n",
        "sixfbd_checks()['a'] is an int, not a subclass of Check",
    ),
    "a class that is no notifier": (
        "@hookimpl\ndef sixfbd_notifiers(config): return {'a': Check}\n",
        "sixfbd_notifiers()['a'] is the class Check, not a subclass of Notifier",
    ),
    "a rule that is none": (
        "@hookimpl\ndef sixfbd_rules(config): return ['up == 0']\n",
        "sixfbd_rules() returned a str among its Rules",
    ),
    "a rule in place of a list": (
        "@hookimpl\ndef sixfbd_rules(config): return {'a': 1}\n",
        "sixfbd_rules() returned a dict, not a list of Rules",
    ),
    "a rule without severity": (
        "@hookimpl\ndef sixfbd_rules(config): return [Rule(name='A', expr='1')]\n",
        "rule A needs either a severity or levels",
    ),
    "the same rule twice": (
        "@hookimpl\ndef sixfbd_rules(config): return [Rule(name='A', expr='1', severity=Severity.LOW)] * 2\n",
        "sixfbd_rules() returned two rules called A",
    ),
    "an event type without a struct": (
        "@hookimpl\ndef sixfbd_events(config): return [EventType('a', dict)]\n",
        "event type a: its data is the class dict, not a msgspec Struct",
    ),
    "an event type with a bad name": (
        "@hookimpl\ndef sixfbd_events(config): return [EventType('a b', Check.Options)]\n",
        "'a b' is not the name of an event type",
    ),
}

BROKEN_CLASSES = {
    "no run": ("class C(Check): ...", "C has no method run()"),
    "a run that is not async": (
        "class C(Check):\n    def run(self, cursor): ...",
        "C.run() is not async; write `async def run(self, cursor)`",
    ),
    "a run that yields": (
        "class C(Check):\n    async def run(self, cursor): yield 1",
        "C.run() yields; it has to return its answer, once",
    ),
    "a run that is no method": (
        "class C(Check):\n    run = 5",
        "C.run() is not async; write `async def run(self, cursor)`",
    ),
    "a run without the cursor": (
        "class C(Check):\n    async def run(self): ...",
        "C.run() has the arguments (self); write `async def run(self, cursor)`",
    ),
    "a run that wants more": (
        "class C(Check):\n    async def run(self, cursor: int, extra: str, more='x') -> None: ...",
        "C.run() has the arguments (self, cursor, extra, more=...); write `async def run(self, cursor)`",
    ),
    "a static run with self": (
        "class C(Check):\n    @staticmethod\n    async def run(self, cursor): ...",
        "C.run() has the arguments (self, cursor); write `async def run(self, cursor)`",
    ),
    "a constructor without the context": (
        "class C(Check):\n    def __init__(self, options): ...\nRUN",
        "C.__init__() has the arguments (self, options); write `def __init__(self, options, ctx)`",
    ),
    "a constructor that wants more": (
        "class C(Check):\n    def __init__(self, options, ctx, *, url): ...\nRUN",
        "C.__init__() has the arguments (self, options, ctx, *, url); write `def __init__(self, options, ctx)`",
    ),
    "a close that is not async": (
        "class C(Check):\n    def close(self): ...\nRUN",
        "C.close() is not async; write `async def close(self)`",
    ),
    "options that are no struct": (
        "class C(Check):\n    Options = dict\nRUN",
        "C.Options is the class dict, not a msgspec Struct",
    ),
    "options of a type that TOML cannot give": (
        "class C(Check):\n    class Options(msgspec.Struct):\n        x: complex\nRUN",
        "Options: C.Options.x: configuration cannot give a complex",
    ),
    "options that name a type that is not there": (
        "class C(Check):\n    class Options(msgspec.Struct):\n        x: 'Nowhere'\nRUN",
        "Options: name 'Nowhere' is not defined",
    ),
    "options with bounds that do not suit": (
        "from typing import Annotated\nclass C(Check):\n    class Options(msgspec.Struct):\n"
        "        x: Annotated[str, msgspec.Meta(ge=1)]\nRUN",
        "Options: C.Options: Can only set `ge` on a numeric type",
    ),
    "an option that is the engine's": (
        "class C(Check):\n    class Options(msgspec.Struct):\n        interval: int\nRUN",
        "C.Options has the key interval, which is the engine's; rename it",
    ),
    "an interval that is none": (
        "class C(Check):\n    interval = '5m'\nRUN",
        "C.interval is '5m', not a number above 0",
    ),
    "a timeout longer than the interval": (
        "class C(Check):\n    interval = 5\n    timeout = 6\nRUN",
        "C.timeout is longer than its interval",
    ),
    "a service that is no text": ("class C(Check):\n    service = 5\nRUN", "C.service is an int, not a str or None"),
    "metrics that are none": (
        "class C(Check):\n    metrics = ('a',)\nRUN",
        "check a: metrics holds a str, not a metric",
    ),
    "metrics that are no list": (
        "class C(Check):\n    metrics = {1: 2}\nRUN",
        "check a: metrics is a dict, not a list of metrics",
    ),
    "a metric with a bad name": (
        "class C(Check):\n    metrics = (Gauge('a-b', ''),)\nRUN",
        "check a: 'a-b' is not the name of a metric",
    ),
    "a metric of the engine's": (
        "class C(Check):\n    metrics = (Gauge('sixfbd_x', ''),)\nRUN",
        "check a: metric sixfbd_x: names that begin with sixfbd_ are the engine's",
    ),
    "a metric with the label check": (
        "class C(Check):\n    metrics = (Gauge('x', '', ('check',)),)\nRUN",
        "check a: metric x cannot have the label 'check'",
    ),
    "one metric declared in two ways": (
        "class C(Check):\n    metrics = (Gauge('x', ''), Counter('x', ''))\nRUN",
        "check a: metric x is a counter of [] here and a gauge of [] elsewhere",
    ),
}
for _name, (_text, _said) in BROKEN_CLASSES.items():
    _class = _text.replace("RUN", "    async def run(self, cursor): ...")
    BROKEN[_name] = (f"{_class}\n@hookimpl\ndef sixfbd_checks(config): return {{'a': C}}\n", _said)
BROKEN["a notifier that cannot look up"] = (
    "class N(Notifier):\n    can_look_up = True\n    async def deliver(self, n): ...\n"
    "@hookimpl\ndef sixfbd_notifiers(config): return {'a': N}\n",
    "N has no method lookup()",
)


for _name, _deliver, _said in (
    ("a deliver that is not async", "def deliver(self, n): ...", "N.deliver() is not async; write"),
    ("a deliver without arguments", "async def deliver(self): ...", "N.deliver() has the arguments (self); write"),
    ("no deliver", "pass", "N has no method deliver()"),
    (
        "a lookup without arguments",
        "can_look_up = True\n    async def deliver(self, n): ...\n    async def lookup(self): ...",
        "N.lookup() has the arguments (self); write `async def lookup(self, notification)`",
    ),
):
    BROKEN[_name] = (
        f"class N(Notifier):\n    {_deliver}\n@hookimpl\ndef sixfbd_notifiers(config): return {{'a': N}}\n",
        _said,
    )


for _name, _body, _said in (
    ("no receive", "pass", "N has no method receive()"),
    (
        "a receive that is async",
        "async def receive(self, request): ...",
        "N.receive() is no plain function; write `def receive(self, request)`",
    ),
    ("a receive that yields", "def receive(self, request): yield 1", "N.receive() is no plain function"),
    ("a receive without arguments", "def receive(self): ...", "N.receive() has the arguments (self); write"),
    (
        "an inbound that wants more",
        "def __init__(self, options): ...\n    def receive(self, request): ...",
        "N.__init__() has the arguments (self, options); write `def __init__(self, options, ctx)`",
    ),
    (
        "an option that is the engine's",
        "class Options(msgspec.Struct):\n        kind: str\n    def receive(self, request): ...",
        "N.Options has the key kind, which is the engine's; rename it",
    ),
):
    BROKEN[f"inbound: {_name}"] = (
        f"class N(Inbound):\n    {_body}\n@hookimpl\ndef sixfbd_inbound(config): return {{'a': N}}\n",
        _said,
    )
BROKEN["a class that is no inbound"] = (
    "@hookimpl\ndef sixfbd_inbound(config): return {'a': Check}\n",
    "sixfbd_inbound()['a'] is the class Check, not a subclass of Inbound",
)
BROKEN["an address of no option"] = (
    "class N(Notifier):\n    provider_urls = {'url': 'https://x.test'}\n    async def deliver(self, n): ...\n"
    "@hookimpl\ndef sixfbd_notifiers(config): return {'a': N}\n",
    "N.provider_urls is not a mapping from options to addresses",
)


@pytest.mark.parametrize("kind", BROKEN)
def test_each_broken_kind_is_named_and_left_out_and_the_others_load(load, tmp_path, kind):
    text, said = BROKEN[kind]
    catalog = load(broken=text, fine=check_called("fine"))
    info = plugin(catalog, "broken")
    assert info.problem is not None
    assert info.problem.startswith(said.replace("FILE", str(tmp_path / "broken.py"))), info.problem
    assert info.file == info.origin == str(tmp_path / "broken.py")
    assert info.kinds == ()
    assert "fine" in catalog.checks
    assert "a" not in catalog.checks and "a" not in catalog.notifiers and "a" not in catalog.inbound
    assert [rule.name for rule in catalog.rules if rule.origin == "plugin broken"] == []


def test_every_misfit_of_one_plugin_is_named_at_once(load):
    catalog = load(broken="def sixfbd_rules(config): ...\n@hookimpl\ndef sixfbd_chekcs(config): return {}\n")
    problem = str(plugin(catalog, "broken").problem)
    assert "sixfbd_rules() is not marked" in problem and "sixfbd_chekcs() is not a hook" in problem


def test_of_two_plugins_that_bring_one_name_the_later_is_left_out_whole(load, tmp_path):
    two = check_called("queue").replace("{'queue': QueueCheck}", "{'other': QueueCheck, 'queue': QueueCheck}")
    catalog = load(a=check_called("queue"), b=two)
    assert catalog.checks["queue"].plugin == "a"
    assert "other" not in catalog.checks
    problem = plugin(catalog, "b").problem
    assert problem == f"the check queue is registered already, by plugin a ({tmp_path / 'a.py'})"


def test_a_check_and_a_notifier_may_have_the_same_name(load):
    notifier = """
    class N(Notifier):
        async def deliver(self, notification): ...
    @hookimpl
    def sixfbd_notifiers(config):
        return {"queue": N}
    """
    assert load(a=check_called("queue"), b=notifier).failed == ()


def test_a_rule_called_as_one_of_the_engines_is_left_out(load):
    text = "@hookimpl\ndef sixfbd_rules(): return [Rule(name='CheckStale', expr='1', severity=Severity.LOW)]\n"
    assert plugin(load(a=text), "a").problem == "the rule CheckStale is registered already, by the engine"


def test_a_plugin_file_called_as_an_installed_plugin_is_left_out(load):
    catalog = load(system=check_called("queue"))
    assert [info.problem is None for info in catalog.plugins if info.name.startswith("system")] == [True, False]
    assert "the plugin name system is taken" in str(catalog.failed[0].problem)


def test_a_metric_that_another_plugin_declares_otherwise_is_named(load):
    gauge = check_called("a").replace("async def", "metrics = (Gauge('x', '', ('l',)),)\n    async def")
    counter = check_called("b").replace("async def", "metrics = (Counter('x', ''),)\n    async def")
    problem = str(plugin(load(a=gauge, b=counter), "b").problem)
    assert "metric x is a counter of [] here and a gauge of ['l'] elsewhere" in problem


def test_a_metric_that_another_plugin_declares_alike_is_shared(load):
    text = {
        name: check_called(name).replace("async def", "metrics = (Gauge('x', ''),)\n    async def") for name in "ab"
    }
    assert load(**text).failed == ()


def test_a_keyboard_interrupt_of_a_plugins_own_is_as_any_other_error(load):
    assert str(plugin(load(broken="raise KeyboardInterrupt"), "broken").problem).startswith(
        "import failed: KeyboardInterrupt"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import time\ntime.sleep(600)\n", "import is not done after 0.2 s (FILE:9)"),
        ("import threading\nthreading.Event().wait(600)\n", "import is not done after 0.2 s (FILE:9)"),
        (
            "import time\n@hookimpl\ndef sixfbd_checks(config): time.sleep(600)\n",
            "sixfbd_checks() is not done after 0.2 s (FILE:10)",
        ),
    ],
)
def test_a_plugin_that_hangs_while_it_is_loaded_is_named_and_left_out(load, tmp_path, monkeypatch, text, said):
    load()  # what is installed has its usual time
    monkeypatch.setattr(host, "LOAD_LIMIT_S", 0.2)
    catalog = load(broken=text, fine=check_called("fine"))
    assert plugin(catalog, "broken").problem == said.replace("FILE", str(tmp_path / "broken.py"))
    assert "fine" in catalog.checks


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.mkdir(), "import failed: IsADirectoryError: "),
        (lambda path: path.symlink_to(path), "import failed: OSError: "),
        (lambda path: path.symlink_to("nowhere.py"), "import failed: FileNotFoundError: "),
        (
            lambda path: path.write_bytes(b"x = 'caf\xe9'\n"),
            "import failed: SyntaxError: (unicode error) 'utf-8' codec",
        ),
        (
            lambda path: path.write_bytes(b"x = 1\0\n"),
            "import failed: SyntaxError: source code string cannot contain null",
        ),
        (lambda path: path.write_bytes(b"# coding: klingon\n"), "import failed: SyntaxError: unknown encoding"),
        (
            lambda path: path.write_bytes(b"x = " + b"(" * 300),
            "import failed: SyntaxError: too many nested parentheses",
        ),
    ],
)
def test_a_file_that_cannot_be_read_as_python_is_named_and_left_out(load, tmp_path, make, said):
    make(tmp_path / "broken.py")
    catalog = load(fine=check_called("fine"))
    info = plugin(catalog, "broken")
    assert str(info.problem).startswith(said), info.problem
    assert info.file == str(tmp_path / "broken.py")
    assert "fine" in catalog.checks


def test_a_method_that_takes_its_arguments_by_other_names_is_taken(load):
    text = """
    import functools
    def logged(function):
        @functools.wraps(function)
        async def wrapped(*args): return await function(*args)
        return wrapped
    class Odd(Check):
        def __init__(self, *args, **kwargs): super().__init__(*args, **kwargs)
        @logged
        async def run(self, last, extra=None): ...
        async def close(me): ...
    @hookimpl
    def sixfbd_checks():
        return {"odd": Odd}
    """
    assert load(odd=text).failed == ()


def test_a_problem_shows_no_values_of_variables(load):
    text = "def connect(token):\n    raise OSError('refused')\nconnect('hunter2')\n"
    problem = str(plugin(load(broken=text), "broken").problem)
    assert "OSError: refused" in problem and "hunter2" not in problem


def test_a_plugin_that_failed_is_tried_again_by_the_next_load(load, tmp_path):
    assert plugin(load(late="import fixture_nowhere\n"), "late").problem is not None
    assert plugin(load(late=check_called("late")), "late").problem is None


def test_a_file_whose_name_is_no_plugin_name_is_left_out(tmp_path):
    (tmp_path / "a b.py").write_text("")
    catalog = load_plugins(PluginSources(files_in=tmp_path))
    assert "is not a plugin name" in str(plugin(catalog, "a b").problem)


def test_every_default_rule_compiles(load):
    assert bind_rules(load().rules).errors == ()


@pytest.mark.parametrize(
    ("returned", "says"),
    [
        ("[ReportType('a b', make, doc='')]", "'a b' is not the name of a report"),
        ("[ReportType('stock', lambda request: {}, doc='')]", "not an async function"),
        ("[ReportType('stock', make, doc=''), ReportType('stock', make, doc='')]", "two reports called stock"),
        ("[ReportType('business', make, doc='')]", "the report business is registered already, by plugin business"),
        ("{'stock': make}", "sixfbd_reports() returned"),
    ],
)
def test_a_report_that_cannot_be_one_leaves_its_plugin_out(load, returned: str, says: str) -> None:
    catalog = load(
        odd=f"""
        async def make(request):
            return {{}}

        @hookimpl
        def sixfbd_reports(config):
            return {returned}
        """
    )
    [failed] = catalog.failed
    assert failed.name == "odd" and says in (failed.problem or "")
    assert set(catalog.reports) == {"sms", "inventory", "payments", "performance", "system", "business", "ledger"}


def test_a_report_is_listed_with_its_plugin(load) -> None:
    catalog = load(
        odd="""
        async def make(request):
            return {}

        @hookimpl
        def sixfbd_reports(config):
            return [ReportType("stock", make, doc="What is there.")]
        """
    )
    assert catalog.failed == () and catalog.reports["stock"].plugin == "odd"
    [info] = [one for one in catalog.plugins if one.name == "odd"]
    assert (info.reports, info.kinds) == (("stock",), ("reports",))
