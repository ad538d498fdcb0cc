"""`sixfbd plugins check`: what a plugin does wrong is found and named with its place, and nothing is found of a good one."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sixfbd import cli
from sixfbd.conformance import CannotCheckError, check_plugin
from sixfbd.conformance.finding import Subject

ROOT = Path(__file__).resolve().parents[2]

HEAD = '''
import threading
import time
from typing import Annotated

import msgspec
import trio

from sixfbd.plugin import *
from sixfbd.plugin import Summary

VALUE = Gauge("odd_value", "A value.", labels=("n",))


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[str, msgspec.Meta(description="Where it is asked.")] = "http://shop.example/"
    token: Annotated[Secret | None, msgspec.Meta(description="What it shows.")] = None


class Good(Check[Options]):
    """Asks the shop."""

    Options = Options
    metrics = (VALUE,)
    timeout = Duration(0.4)

    async def run(self, cursor):
        self.runs = getattr(self, "runs", 0) + 1
        return await self.ask()

    async def ask(self):
        answer = await self.ctx.http.request("GET", self.options.url, headers={"Authorization": self.token})
        if answer.status_code != 200:
            return Report(Status.UNHEALTHY, f"HTTP {answer.status_code}")
        return self.fine()

    def fine(self):
        return Report(Status.HEALTHY, "fine", (VALUE(1, n="1"),))

    @property
    def token(self):
        return self.options.token.reveal() if self.options.token else ""


class Told(Notifier[Options]):
    """Tells the shop."""

    Options = Options
    timeout = Duration(0.4)

    async def deliver(self, notification):
        token = self.options.token.reveal() if self.options.token else ""
        answer = await self.ctx.http.request("POST", self.options.url, headers={"Authorization": token})
        return self.receipt(answer)

    def receipt(self, answer):
        if answer.status_code != 200:
            raise TemporaryFailure(f"HTTP {answer.status_code}")
        return Receipt()


class Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    secrets: Annotated[tuple[Secret, ...], msgspec.Meta(description="What requests are signed with.")]


class Hook(Inbound[Signed]):
    """Takes the shop's webhooks."""

    Options = Signed

    def receive(self, request):
        raise InboundRefused("the signature fits none of the secrets")
'''
BODY: dict[str, str] = {"check": "class Odd(Good):", "notifier": "class Odd(Told):", "inbound": "class Odd(Hook):"}
HOOK = {"check": "sixfbd_checks", "notifier": "sixfbd_notifiers", "inbound": "sixfbd_inbound"}


def plugin(body: str, kind: str = "check", more: str = "") -> str:
    lines = ["", "", BODY[kind], '    """Odd."""', *(f"    {line}" for line in body.strip("\n").splitlines()), "", ""]
    return HEAD + "\n".join(lines) + f'@hookimpl\ndef {HOOK[kind]}(config):\n    return {{"odd": Odd}}\n{more}\n'


def found(tmp_path: Path, text: str) -> list[tuple[str, str, str]]:
    """What is found of a plugin: (subject, what is said, the text of the line that it points to)."""
    file = tmp_path / f"odd_{abs(hash(text))}.py"
    file.write_text(text)
    lines = text.splitlines()
    verdict = check_plugin(str(file))
    assert verdict.not_run == ()
    for one in verdict.findings:
        assert one.mend
        assert not one.where or one.where.startswith(str(file)), one.where
    numbers = [one.where.rpartition(":")[2] for one in verdict.findings]
    pointed = [lines[int(number) - 1].strip() if number.isdigit() else "" for number in numbers]
    return [(one.subject, one.says, line) for one, line in zip(verdict.findings, pointed, strict=True)]


RULE = """
@hookimpl
def sixfbd_rules(config):
    return [Rule(name=RuleName("Odd"), expr="{expr}", severity=Severity.LOW, annotations={annotations})]
"""
EVENT = """
class Data(msgspec.Struct):
    amount: float

ORDERS = Counter("orders_total", "Orders.")

@hookimpl
def sixfbd_events(config):
    return [EventType("order", Data, {how})]
"""

WRONG: dict[str, tuple[Subject, str, str, str]] = {
    "a plugin that cannot be loaded": ("load", "import failed", "", plugin("pass") + "\nraise RuntimeError('no')\n"),
    "an option without a description": (
        "options", "the option depth has no description", "class Options(msgspec.Struct, frozen=True):",
        plugin("class Options(msgspec.Struct, frozen=True):\n    depth: int = 1"),
    ),
    "options that take what they do not know": (
        "options", "takes keys that it does not know", "class Options(msgspec.Struct, frozen=True):",
        plugin("class Options(msgspec.Struct, frozen=True):\n    depth: int = 1"),
    ),
    "a class without a docstring": (
        "options", "has no docstring", "class Bare(Good):",
        plugin("pass").replace('"odd": Odd', '"odd": Bare') + "\nclass Bare(Good):\n    timeout = Duration(0.4)\n",
    ),
    "a secret that is text": (
        "secret", "the option api_key is text", "class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):",
        plugin(
            "class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):\n"
            "    api_key: Annotated[str, msgspec.Meta(description='A key.')] = ''\n"
            "async def ask(self):\n    return self.fine()"
        ),
    ),
    "a counter without _total": (
        "names", "does not end in _total", "class Odd(Good):", plugin('metrics = (VALUE, Counter("orders", "Orders."))'),
    ),
    "a gauge with _total": (
        "names", "is no counter", "class Odd(Good):", plugin('metrics = (VALUE, Gauge("orders_total", "Orders."))'),
    ),
    "a metric that says nothing": (
        "names", "says nothing of itself", "class Odd(Good):", plugin('metrics = (VALUE, Gauge("orders", " "))'),
    ),
    "a metric in capitals": (
        "names", "has capital letters", "class Odd(Good):", plugin('metrics = (VALUE, Gauge("ordersWaiting", "Orders."))'),
    ),
    "a label that is taken": (
        "names", "the label le", "class Odd(Good):", plugin('metrics = (VALUE, Gauge("orders", "Orders.", labels=("le",)))'),
    ),
    "a label that cannot be": (
        "load", "cannot have the label 'check'", "", plugin('metrics = (VALUE, Gauge("orders", "Orders.", labels=("check",)))'),
    ),
    "a rule that does not compile": (
        "rules", "unexpected end of the expression", "",
        plugin("pass", more=RULE.format(expr="odd_value >", annotations={"summary": "odd"})),
    ),
    "a rule without a summary": (
        "rules", "it has no summary", "", plugin("pass", more=RULE.format(expr="odd_value > 1", annotations={})),
    ),
    "an example that does not fit": (
        "events", "its own example fails", "class Data(msgspec.Struct):",
        plugin("pass", more=EVENT.format(how="example={'amount': 'much'}")),
    ),
    "an event that counts what it does not declare": (
        "events", "yields orders_total", "class Data(msgspec.Struct):",
        plugin("pass", more=EVENT.format(how="counts=lambda data: [ORDERS(1)], example={'amount': 1}")),
    ),
    "a run that never ends": (
        "time", "run() has no answer after 0.4 s", "class Odd(Good):",
        plugin("async def ask(self):\n    await trio.sleep_forever()"),
    ),
    "a delivery that never ends": (
        "time", "deliver() has no answer", "class Odd(Told):",
        plugin("async def deliver(self, notification):\n    await trio.sleep_forever()", "notifier"),
    ),
    "a run that shields itself": (
        "cancel", "goes on for more than 1 s after its cancel", "class Odd(Good):",
        plugin("async def ask(self):\n    with trio.CancelScope(shield=True):\n        await trio.sleep_forever()"),
    ),
    "a run that swallows its cancel": (
        "cancel", "it answers although it was cancelled", "class Odd(Good):",
        plugin(
            "async def run(self, cursor):\n    try:\n        return await self.ask()\n"
            "    except BaseException:\n        return Report(Status.UNKNOWN, 'never mind')"
        ),
    ),
    "a delivery that swallows its cancel": (
        "cancel", "it raises TemporaryFailure although it was cancelled", "raise TemporaryFailure('no') from None",
        plugin(
            "async def deliver(self, notification):\n    try:\n        return await super().deliver(notification)\n"
            "    except BaseException:\n        raise TemporaryFailure('no') from None", "notifier",
        ),
    ),
    "a run that sleeps": (
        "blocking", "calls time.sleep()", "time.sleep(0.01)",
        plugin("async def ask(self):\n    time.sleep(0.01)\n    return await super().ask()"),
    ),
    "a run that reads a file": (
        "blocking", "calls open()", "open(__file__).close()",
        plugin("async def ask(self):\n    open(__file__).close()\n    return await super().ask()"),
    ),
    "a run that starts a process and waits": (
        "blocking", "calls subprocess.Popen()", "subprocess.run(['true'])",
        plugin("async def ask(self):\n    import subprocess\n    subprocess.run(['true'])\n    return await super().ask()"),
    ),
    "a constructor that connects": (
        "blocking", "calls socket.connect()", "socket.create_connection(('127.0.0.1', 9))",
        plugin(
            "def __init__(self, options, ctx):\n    super().__init__(options, ctx)\n    import socket\n    try:\n"
            "        socket.create_connection(('127.0.0.1', 9))\n    except OSError:\n        pass"
        ),
    ),
    "a run that computes for long": (
        "blocking", "does not let others run", "while time.monotonic() < ends: sum(range(1000))",
        plugin(
            "timeout = Duration(3)\nasync def ask(self):\n    ends = time.monotonic() + 0.6\n"
            "    while time.monotonic() < ends: sum(range(1000))\n    return self.fine()"
        ),
    ),
    "series that are new each time": (
        "series", "brings series that no run before it had, such as odd_value{'n': '3'}", "class Odd(Good):",
        plugin("def fine(self):\n    return Report(Status.HEALTHY, 'fine', (VALUE(1, n=str(self.runs)),))"),
    ),
    "a metric that is not declared": (
        "report", "other: is not declared", "class Odd(Good):",
        plugin("def fine(self):\n    return Report(Status.HEALTHY, 'fine', (Sample('other', 1.0),))"),
    ),
    "no report": ("report", "run() returned an int, not a Report", "class Odd(Good):", plugin("def fine(self):\n    return 17")),
    "no receipt": ("report", "deliver() returned 'sent', not a Receipt", "class Odd(Told):",
                   plugin("def receipt(self, answer):\n    return 'sent'", "notifier")),
    "a webhook that takes what nobody signed": (
        "report", "takes a request that nobody signed", "class Odd(Hook):",
        plugin("def receive(self, request):\n    return []", "inbound"),
    ),
    "a run that raises though nobody failed": (
        "raises", "run() raises KeyError: 'x'", "return {}['x']", plugin("async def ask(self):\n    return {}['x']"),
    ),
    "a run that ends the process": (
        "raises", "raises SystemExit, which is to end a process", "raise SystemExit(3)",
        plugin("def fine(self):\n    raise SystemExit(3)"),
    ),
    "a delivery that raises what nobody knows": (
        "raises", "deliver() raises AttributeError", "answer.json().get('data').get('id')",
        plugin("def receipt(self, answer):\n    answer.json().get('data').get('id')\n    return Receipt()", "notifier"),
    ),
    "a webhook that fails at what nobody signed": (
        "raises", "receive() raises JSONDecodeError", "return json.loads(request.body)",
        plugin("def receive(self, request):\n    import json\n    return json.loads(request.body)", "inbound"),
    ),
    "a constructor that fails": (
        "raises", "cannot start: OSError: no such device", "class Odd(Good):",
        plugin("def __init__(self, options, ctx):\n    raise OSError('no such device')"),
    ),
    "a summary that repeats what the far side says": (
        "secret", "the summary of its report shows a secret", "class Odd(Good):",
        plugin(
            "async def ask(self):\n"
            "    answer = await self.ctx.http.request('GET', self.options.url, headers={'Authorization': self.token})\n"
            "    return Report(Status.UNHEALTHY, f'refused: {answer.text}')"
        ),
    ),
    "an exception that shows a secret": (
        "secret", "what run() raises (ValueError) shows a secret", "class Odd(Good):",
        plugin(
            "async def ask(self):\n    await self.ctx.http.request('GET', self.options.url)\n"
            "    raise ValueError(f'not taken: {self.token}')"
        ),
    ),
    "a failure that shows a secret": (
        "secret", "what deliver() raises (PermanentFailure) shows a secret", "class Odd(Told):",
        plugin("def receipt(self, answer):\n    raise PermanentFailure(answer.request.headers['authorization'])", "notifier"),
    ),
    "a log line that shows a secret": (
        "secret", "its log line 'asking' shows a secret", "class Odd(Good):",
        plugin("async def ask(self):\n    self.ctx.log.info('asking', token=self.token)\n    return await super().ask()"),
    ),
    "a label that shows a secret": (
        "secret", "a sample of its report shows a secret", "class Odd(Good):",
        plugin("def fine(self):\n    return Report(Status.HEALTHY, 'fine', (VALUE(1, n=self.token),))"),
    ),
    "a close that raises": ("close", "close() raises OSError: gone", "raise OSError('gone')",
                            plugin("async def close(self):\n    raise OSError('gone')")),
    "a close that takes its time": ("close", "close() takes longer than 2 s", "class Odd(Good):",
                                    plugin("async def close(self):\n    await trio.sleep(60)")),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_found_with_its_place(tmp_path: Path, what: str) -> None:
    subject, says, line, text = WRONG[what]
    all_found = found(tmp_path, text)
    [one] = [one for one in all_found if one[0] == subject and says in one[1]] or [("", str(all_found), "")]
    assert one[0] == subject, one[1]
    assert one[2] == line


@pytest.mark.parametrize(
    "what", ["a run that sleeps", "series that are new each time", "a close that raises", "no receipt"]
)
def test_one_fault_is_one_finding(tmp_path: Path, what: str) -> None:
    assert len(found(tmp_path, WRONG[what][3])) == 1


@pytest.mark.parametrize(("kind", "body"), [
    ("check", "pass"),
    ("notifier", "pass"),
    ("inbound", "pass"),
    ("check", "async def ask(self):\n    await self.ctx.to_thread(time.sleep, 0.01)\n    return self.fine()"),
    ("check", "async def ask(self):\n    await self.ctx.to_thread(open, __file__)\n    return self.fine()"),
    ("check", "async def ask(self):\n    await trio.run_process(['true'])\n    return self.fine()"),
    ("check", "async def ask(self):\n    await trio.Path(__file__).read_text()\n    return self.fine()"),
    ("check", "async def ask(self):\n    try:\n        return await super().ask()\n    finally:\n"
              "        with trio.CancelScope(shield=True), trio.move_on_after(0.1):\n            await trio.sleep(0.01)"),
    ("check", "async def ask(self):\n    async with trio.open_nursery() as n:\n"
              "        n.start_soon(super().ask)\n    return self.fine()"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:unclosed file")
def test_of_what_does_it_well_nothing_is_found(tmp_path: Path, kind: str, body: str) -> None:
    assert found(tmp_path, plugin(body, kind)) == []


CANARIES = {
    "CANARY_SENDGRID": "SG.canary.canarycanary",
    "CANARY_APPRISE": "json://canary-key@127.0.0.1:9/?cto=1&rto=1",
    "CANARY_EXEC": "canary-exec",
    "CANARY_INVENTORY": "Bearer canary-inventory",
    "CANARY_STRIPE": "sk_test_canarycanarycanary",
    "CANARY_BEARER": "canary-bearer",
    "CANARY_TWILIO": "0123456789abcdef0123456789abcde0",
    "CANARY_DISCORD": "https://127.0.0.1:9/api/webhooks/1/canary",
    "CANARY_SLACK": "xoxb-canary-canary",
    "CANARY_URL": "http://127.0.0.1:9/canary-hook",
    "CANARY_WHSEC": "whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5",
    "CANARY_STRIPE_WHSEC": "whsec_canarycanarycanary",
    "CANARY_SENDGRID_KEY": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRa"
    "INXvVpiglSI8eNEc6wEA3F+g==",
}


def shipped() -> list[str]:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return sorted(set(project["entry-points"]["sixfbd.plugins"].values()))


@pytest.mark.parametrize("module", shipped())
def test_each_plugin_of_ours_keeps_to_it(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)
    verdict = check_plugin(module, ROOT / "tests" / "conformance" / "shipped.toml")
    assert [(one.subject, one.of, one.says, one.where) for one in verdict.findings] == []
    assert verdict.not_run == ()


def check(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.cli, ["plugins", "check", *map(str, args)])
    return result.exit_code, result.output


def test_the_command_says_what_where_and_how_to_mend_it_and_fails(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text(WRONG["a run that sleeps"][3])
    code, said = check(tmp_path / "sleeper.py")
    assert code == 1
    lines = said.splitlines()
    assert lines[0].startswith("blocking: check odd: it calls time.sleep() on the event loop")
    assert lines[1].startswith(f"    at {tmp_path}/sleeper.py:")
    assert lines[2].startswith("    to mend it: await self.ctx.to_thread")
    assert lines[3] == f"{tmp_path}/sleeper.py: 1 to mend; run: check odd"


def test_as_json_it_has_every_finding(tmp_path: Path) -> None:
    (tmp_path / "closer.py").write_text(WRONG["a close that raises"][3])
    code, said = check(tmp_path / "closer.py", "--json")
    told = json.loads(said)
    assert (code, told["ok"], told["ran"]) == (1, False, ["check odd"])
    assert {name: told["findings"][0][name] for name in ("subject", "of", "says")} == {
        "subject": "close", "of": "check odd", "says": "close() raises OSError: gone",
    }  # fmt: skip
    assert told["findings"][0]["where"] and told["findings"][0]["mend"]


def test_a_project_is_checked_by_its_entry_points_and_a_new_one_has_nothing_to_mend(tmp_path: Path) -> None:
    made = CliRunner().invoke(cli.cli, ["plugins", "new", "fresh-air", "--dir", str(tmp_path / "new")])
    assert made.exit_code == 0, made.output
    for target in (tmp_path / "new", tmp_path / "new" / "sixfbd_fresh_air", "sixfbd_fresh_air"):
        code, said = check(target)
        assert (code, said.splitlines()[-1]) == (0, f"{target}: nothing to mend; run: check fresh-air"), said


def test_options_that_cannot_be_made_up_are_asked_for_and_taken_from_a_configuration(tmp_path: Path) -> None:
    text = plugin(
        "class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):\n"
        "    code: Annotated[str, msgspec.Meta(description='Seven digits.', pattern='^[0-9]{7}$')]\n"
        "async def ask(self):\n    return self.fine()"
    )
    (tmp_path / "picky.py").write_text(text)
    code, said = check(tmp_path / "picky.py")
    assert (code, "not run: check odd: no options could be made up" in said) == (0, True), said
    assert '--config FILE with a table [checks.NAME] plugin = "odd"' in said
    (tmp_path / "mine.toml").write_text('[checks.mine]\nplugin = "odd"\ncode = "1234567"\n')
    code, said = check(tmp_path / "picky.py", "--config", tmp_path / "mine.toml")
    assert (code, said.splitlines()[-1]) == (0, f"{tmp_path}/picky.py: nothing to mend; run: check odd"), said
    (tmp_path / "mine.toml").write_text('[checks.mine]\nplugin = "odd"\ncode = "12"\n')
    code, said = check(tmp_path / "picky.py", "--config", tmp_path / "mine.toml")
    assert (code, "the configuration cannot be used" in said, "checks.mine.code" in said) == (1, True, True), said


@pytest.mark.parametrize("target", ["/nowhere/at/all", "no such thing", "."])
def test_what_is_no_plugin_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CannotCheckError, match="is no module, no Python file"):
        check_plugin(target)


def test_a_module_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    [one] = check_plugin("no_such_module_anywhere").findings
    assert (one.subject, "No module named" in one.says) == ("load", True)


def test_nothing_is_left_in_the_directory_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.py").write_text(plugin("pass"))
    check_plugin("good.py")
    assert [file.name for file in tmp_path.iterdir() if file.name != "__pycache__"] == ["good.py"]
