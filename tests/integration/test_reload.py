"""Reload on the engine's real parts, without servers: all or nothing, and what did not change keeps its alert, timer and
instance. Real files, threads and clock."""

import json
import logging
import random
import socket
import ssl
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import MappingProxyType

import httpx
import pytest
import trio

from sixfbd.config import effective_rules, load_config, plugin_sources
from sixfbd.control.protocol import Refused
from sixfbd.host import load_plugins
from sixfbd.http.server import NO_PUBLIC, HttpServer, begin_listening, bind_listener
from sixfbd.inbound import Inbounds
from sixfbd.instances import close_all
from sixfbd.intake import Intake
from sixfbd.journal.database import JournalDatabase
from sixfbd.journal.errors import JournalFull
from sixfbd.journal.samples import open_samples
from sixfbd.judge import Judge
from sixfbd.model import Actor, AlertState, Status
from sixfbd.outbox.ack_links import AckLinks
from sixfbd.outbox.workers import Outbox
from sixfbd.preview import preview
from sixfbd.quantities import DAY
from sixfbd.readers.for_http import HttpView
from sixfbd.readers.queries import EngineReader
from sixfbd.reload import (
    apply_plan,
    bind,
    declare_checks,
    make_inbounds,
    make_instances,
    place_of,
    policy_of,
    prepare,
    reload,
    summary_of,
)
from sixfbd.rules.engine import RuleEngine
from sixfbd.rules.problems import rule_problems
from sixfbd.running import Running
from sixfbd.schedule import NotRunError, Schedule
from sixfbd.vitals import Vitals
from sixfbd.watchdog import Watchdog
from sixfbd.window.window import Window
from sixfbd.world import RealWorld

ME = Actor("test")
TOY = '''
"""A toy: a check and a notifier that keep account of their lives."""
import msgspec
import trio
from sixfbd.plugin import (
    Check, Event, Gauge, Inbound, InboundRefused, Notifier, Receipt, Report, Secret, Status, hookimpl
)

VALUE = Gauge("toy_value", "A value.", labels=("n",))


class Toy(Check["Toy.Options"]):
    """A toy."""

    class Options(msgspec.Struct, frozen=True):
        value: float = 1.0
        series: int = 1
        act: str = ""

    metrics = (VALUE,)
    lives = []
    broken = set()

    def __init__(self, options, ctx):
        super().__init__(options, ctx)
        if ctx.name in self.broken:
            raise OSError("not there yet")
        self.log = []
        self.lives.append(self)

    async def run(self, cursor):
        self.log.append("begun")
        try:
            if self.options.act == "wait" and len(self.log) > 1:
                await trio.sleep_forever()
            events = (Event(str(id(self)), "note", self.ctx.clock.now()),) if self.options.act == "events" else ()
            samples = tuple(VALUE(self.options.value, n=str(n)) for n in range(self.options.series))
            return Report(Status.HEALTHY, "toy", samples, events)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
            self.log.append("ended")

    async def close(self):
        self.log.append("closed")


class Note(Notifier["Note.Options"]):
    """Keeps what it was given."""

    class Options(msgspec.Struct, frozen=True):
        mark: str = ""

    idempotent = True
    lives = []

    def __init__(self, options, ctx):
        super().__init__(options, ctx)
        self.got = []
        self.closed = 0
        self.lives.append(self)

    async def deliver(self, notification):
        self.got.append(notification)
        return Receipt()

    async def close(self):
        self.closed += 1


class Hook(Inbound["Hook.Options"]):
    """Takes bodies that are a secret of its own."""

    class Options(msgspec.Struct, frozen=True):
        secrets: tuple[str, ...]

    lives = []

    def __init__(self, options, ctx):
        super().__init__(options, ctx)
        self.lives.append(self)

    def receive(self, request):
        if request.body.decode() not in self.options.secrets:
            raise InboundRefused("no")
        return [Event(request.url, "hooked", request.received_at)]


@hookimpl
def sixfbd_inbound(config):
    return {"hook": Hook}


@hookimpl
def sixfbd_checks(config):
    return {"toy": Toy}


@hookimpl
def sixfbd_notifiers(config):
    return {"note": Note}
'''


OTHER = (
    TOY.replace('"toy": Toy', '"other": Toy').replace('"note": Note', '"other": Note').replace('"hook": ', '"other": ')
)


def text_of(checks, rules, mark="", extra="", http='listen = "127.0.0.1:0"', daemon=""):
    """A configuration: checks by name with their options, rules by name with theirs, one notifier."""
    parts = [
        f'[daemon]\nstate_directory = "state"\n{daemon}\n[http]\n{http}\n[control]\nsocket = "control.sock"\n',
        f'[notifiers.note]\nplugin = "note"\nmark = "{mark}"\n[receivers.primary]\nnote = {{ via = "note" }}\n',
        '[severities.high]\nchannels = ["note"]\n',
    ]
    for name, options in checks.items():
        parts.append(f'[checks.{name}]\nplugin = "toy"\ninterval = "1h"\njitter = "0s"\n{options}\n')
    for name, options in rules.items():
        expr = "" if "expr" in options else 'expr = "toy_value > 0"'
        parts.append(f'[[rules]]\nname = "{name}"\nseverity = "high"\n{expr}\n{options}\n')
    return "".join(parts) + extra


class Engine:
    """The running parts and the files that they were made of."""

    def __init__(self, running, directory):
        self.running = running
        self.directory = directory
        self.toys = running.catalog.checks["toy"].cls
        self.notes = running.catalog.notifiers["note"].cls

    def write(self, *args, moved="", **options):
        """Write the configuration; `moved` names a key whose path is another one."""
        text = text_of(*args, **options)
        if moved:
            old = {"control.socket": '"control.sock"', "daemon.state_directory": '"state"'}[moved]
            text = text.replace(old, '"elsewhere"')
        (self.directory / "sixfbd.toml").write_text(text)

    async def reload(self, *args, **options):
        self.write(*args, **options)
        return await reload(self.running, ME)

    def alerts(self):
        """(rule, check) → alert."""
        return {(key.rule, dict(key.labels)["check"]): alert for key, alert in self.state.alerts.copy_items()}

    @property
    def state(self):
        return _Alerts(self.running.judge.state)

    async def until(self, what, probe, limit_s=20.0):
        """Wait for a condition of the running parts."""
        with trio.move_on_after(limit_s):
            while not probe():  # noqa: ASYNC110 - conditions of several parts, which have no event for them
                await trio.sleep(0.01)
            return
        raise AssertionError(f"{what}: not within {limit_s:g} s; alerts: {self.alerts()}")


class _Alerts:
    def __init__(self, state):
        self.alerts = self
        self._state = state

    def copy_items(self):
        return [(key, self._state.alerts[key]) for key in list(self._state.alerts)]


@pytest.fixture
def engine(tmp_path):
    """`async with engine(checks, rules) as engine`: the parts, wired as the daemon wires them."""

    @asynccontextmanager
    async def open_engine(*args, **options):
        path = tmp_path / "sixfbd.toml"
        path.write_text(text_of(*args, **options))
        (tmp_path / "state").mkdir()
        (tmp_path / "plugins.d").mkdir()
        (tmp_path / "plugins.d" / "toy.py").write_text(TOY)
        async with AsyncExitStack() as stack:
            running = await wired(stack, path)
            nursery = await stack.enter_async_context(trio.open_nursery())
            for name, instance in running.checks.items():
                running.schedule.add(instance, paused=name in running.judge.state.paused)
            await nursery.start(running.evaluator.run)
            await nursery.start(running.schedule.run)
            await nursery.start(running.server.serve, HttpView(running), running.stop)
            await nursery.start(running.public.serve, HttpView(running), running.stop)
            await nursery.start(running.inbound.run)
            running.ready = True
            try:
                yield Engine(running, tmp_path)
            finally:
                running.schedule.stop()
                with trio.move_on_after(5, shield=True):
                    await running.schedule.ended.wait()
                nursery.cancel_scope.cancel()
                await close_all(running.checks.values())

    return open_engine


async def wired(stack, path):
    catalog = load_plugins(plugin_sources(path))
    config = load_config(path, catalog, rule_problems)
    state = path.parent / "state"
    world = await stack.enter_async_context(RealWorld())
    window = Window()
    journal = await stack.enter_async_context(JournalDatabase(state / "journal.db"))
    store = await stack.enter_async_context(open_samples(state / "samples.db", window))
    rules, _ = effective_rules(config, catalog.rules)
    bound, problems = bind(rules)
    schedule = Schedule(world, lambda *args: intake.report(*args), journal.cursor)
    policy = policy_of(
        config,
        catalog,
        bound,
        world,
        lambda found: summary_of(schedule.state, found),
        lambda stored: intake.receipt_of(stored),
        lambda stored: intake.notice_of(stored),
    )
    judge = Judge(journal, world.clock, policy)
    evaluator = RuleEngine(
        bound,
        snapshot_of=window.snapshot,
        clock=world.clock,
        emit=judge.submit,
        blind_checks=lambda rule, names, at: (one for one in names | judge.feeders(rule) if schedule.is_blind(one, at)),
        offload=world.offload,
        interval_s=15.0,
    )
    intake = Intake(
        journal,
        window,
        world.clock,
        persist=store.put,
        touch=evaluator.touch,
        committed=lambda events: judge.events_committed(events[-1].seq, events),
    )
    window.bind(bound.touched)
    reader = EngineReader(window, journal, lambda: judge.state.alerts.values())
    checks, notifiers = make_instances(config, catalog, world, reader)
    await stack.enter_async_context(judge.running("1", config.text_hash))
    inbound = Inbounds(intake, world.clock, make_inbounds(config, catalog, world, reader))
    server = stack.enter_context(HttpServer(config.http, bind_listener(config.http.listen)))
    begin_listening(server.listener)
    public = stack.enter_context(HttpServer(NO_PUBLIC, None))
    place = place_of(config, bound, server.url, AckLinks(b"key"))
    outbox = await stack.enter_async_context(Outbox(judge, world.clock, notifiers, place).running())
    declare_checks(intake, checks, catalog, config)
    return Running(
        config_path=path,
        config=config,
        catalog=catalog,
        rules=rules,
        problems=problems,
        world=world,
        journal=journal,
        store=store,
        window=window,
        intake=intake,
        schedule=schedule,
        evaluator=evaluator,
        judge=judge,
        outbox=outbox,
        inbound=inbound,
        server=server,
        public=public,
        vitals=Vitals(),
        reader=reader,
        started_at=world.clock.now(),
        clock=world.clock,
        watchdog=Watchdog(state),
        checks=checks,
        notifiers=notifiers,
    )


def wanted(checks, rules, before):
    """The alerts that a configuration has once all is judged: (rule, check) → state. What fires goes on firing."""
    fires = {key for key, alert in before.items() if alert.state is AlertState.FIRING}
    return {
        (rule, check): AlertState.PENDING if "for" in options and (rule, check) not in fires else AlertState.FIRING
        for rule, options in rules.items()
        for check in checks
    }


def settled(engine, checks, rules, before=MappingProxyType({})):
    """Tell whether the alerts are those, none blind, and nothing is on its way."""
    alerts = engine.alerts()
    states = {key: alert.state for key, alert in alerts.items()}
    blind = any(alert.blind for alert in alerts.values())
    return states == wanted(checks, rules, before) and not blind and not len(engine.running.judge.state.messages)


# ---- the property ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
async def test_any_sequence_of_reloads_keeps_what_it_did_not_change(engine, seed):
    draw = random.Random(seed)
    options = {"check": ["value = 1.0", "value = 2.0"], "rule": ["", 'for = "1h"', 'labels = { team = "x" }']}

    def chosen(kind, names):
        return {name: draw.choice(options[kind]) for name in names if draw.random() < 0.75}

    checks, rules, mark = {"a": "value = 1.0"}, {"R1": "", "R2": 'for = "1h"'}, "one"
    settings = {key: values[0] for key, values in SETTINGS.items()}
    async with engine(checks, rules, mark, **tables(settings)) as made:
        await made.until("the first alerts", lambda: settled(made, checks, rules))
        for _ in range(8):
            before = (checks, rules, mark, made.alerts(), dict(made.running.checks), dict(made.running.notifiers))
            checks, rules = chosen("check", "abc"), chosen("rule", ("R1", "R2", "R3"))
            mark = draw.choice(("one", "two"))
            old, settings = settings, {key: draw.choice(values) for key, values in SETTINGS.items()}
            made.write(checks, rules, mark, **tables(settings))
            view = await preview(made.running)
            words = await reload(made.running, ME)
            assert settings_in(view.changed) == settings_in(words) == {key for key in old if old[key] != settings[key]}
            await in_force(made, settings)
            await made.until(f"the alerts of {checks} and {rules}", partial(settled, made, checks, rules, before[3]))
            foreseen(view, before, made.alerts())
            await kept(made, before, checks, rules, mark)
    unclosed = [toy.log for toy in made.toys.lives if toy.log.count("closed") != 1 or toy.log[-1] != "closed"]
    assert unclosed == []
    assert all(note.closed == 1 for note in made.notes.lives)
    told = [alert for note in made.notes.lives for one in note.got for alert in one.alerts]
    ids = [(alert.id, alert.status) for alert in told if alert.kind != "level"]
    assert ids and len(ids) == len(set(ids)), "nobody was told the same twice"


SETTINGS = {
    "http.listen": ('"127.0.0.1:0"', '"0.0.0.0:0"', '"[::1]:0"'),
    "http.insecure_bind": ("true",),
    "http.hosts": ("[]", '["one.example.com"]', '["two.example.com"]'),
    "http.max_body": ('"4MiB"', '"1KiB"'),
    "daemon.evaluation_interval": ('"15s"', '"100ms"', '"1h"'),
    "window.memory": ('"64MiB"', '"0B"'),
    "journal.samples": ('"30d"', '"1d"'),
    "journal.events": ('"396d"', '"8d"'),
    "journal.alerts": ('"730d"', '"1d"'),
    "journal.max_size": ('"4GiB"', '"1GiB"'),
}


def tables(settings):
    """The settings as arguments of `text_of`."""
    found = {"http": [], "daemon": [], "window": [], "journal": []}
    for key, value in settings.items():
        table, _, name = key.partition(".")
        found[table].append(f"{name} = {value}")
    text = {table: "\n".join(lines) for table, lines in found.items()}
    extra = f"[window]\n{text['window']}\n[journal]\n{text['journal']}\n"
    return {"http": text["http"], "daemon": text["daemon"], "extra": extra}


def settings_in(words):
    return {word.split()[0] for word in words if word.split()[0] in SETTINGS}


async def in_force(made, settings):
    """Ask the parts whether they work by these settings."""
    running = made.running
    host = json.loads(settings["http.listen"]).removesuffix(":0")
    assert running.server.listener.getsockname()[0] == host.strip("[]")
    assert running.outbox.place.url == running.url
    async with httpx.AsyncClient(base_url=running.url, trust_env=False, verify=False) as client:
        for name in ("one.example.com", "two.example.com"):
            known = name in settings["http.hosts"]
            assert (await client.get("/readyz", headers={"Host": name})).status_code == (200 if known else 421)
        asked = await client.post("/api/v1/query", data={"query": "1" + " " * 2000})
        assert asked.status_code == (413 if settings["http.max_body"] == '"1KiB"' else 200), asked.text
    assert (
        running.evaluator._interval_s
        == {'"15s"': 15, '"100ms"': 0.1, '"1h"': 3600}[settings["daemon.evaluation_interval"]]
    )
    assert running.window._chunks._cache.limit_bytes == (64 << 20 if "64" in settings["window.memory"] else 0)
    assert running.journal._keep_events_s == (396 if "396" in settings["journal.events"] else 8) * DAY
    assert running.journal._keep_records_s == (730 if "730" in settings["journal.alerts"] else 1) * DAY
    assert running.journal._max_bytes == (4 if "4" in settings["journal.max_size"] else 1) << 30
    assert running.config.journal.samples == (30 if "30" in settings["journal.samples"] else 1) * DAY


def foreseen(view, before, alerts):
    """What the preview said came true; what a check that is new would find it could not know."""
    old_checks, old_alerts = before[0], before[3]
    fired = {key for key, alert in old_alerts.items() if alert.state is AlertState.FIRING}
    fires = {key for key, alert in alerts.items() if alert.state is AlertState.FIRING}
    assert previewed(view.would_resolve) == dict.fromkeys(fired - fires, AlertState.RESOLVED)
    new = {key: alerts[key].state for key in set(alerts) - set(old_alerts) if key[1] in old_checks}
    new |= {key: AlertState.FIRING for key in fires - fired if key in old_alerts}
    assert previewed(view.would_fire) == new
    assert view.rerouted == ()


def previewed(alerts):
    return {(alert.rule, alert.labels["check"]): alert.state for alert in alerts}


async def kept(made, before, checks, rules, mark):
    old_checks, old_rules, old_mark, old_alerts, instances, notifiers = before
    for name in checks:
        same = made.running.checks[name] is instances.get(name)
        assert same == (old_checks.get(name) == checks[name]), name
    for name in set(old_checks) - {name for name in checks if checks[name] == old_checks.get(name)}:
        await made.until(f"the old {name} is closed", lambda name=name: instances[name].check.log[-1] == "closed")
    assert (made.running.notifiers["note"] is notifiers["note"]) == (mark == old_mark)
    for key, alert in made.alerts().items():
        rule, check = key
        old = old_alerts.get(key)
        if old is None or check not in old_checks:
            continue
        if rules[rule] == old_rules.get(rule):
            assert (alert.id, alert.state) == (old.id, old.state), key
            assert (alert.pending_at, alert.fired_at, alert.due_at) == (old.pending_at, old.fired_at, old.due_at), key
        elif alert.state is AlertState.FIRING and old.state is AlertState.FIRING:
            assert alert.id == old.id, "its incident goes on under the changed rule"


# ---- all or nothing ----------------------------------------------------------------------------------------------------------


async def test_an_invalid_configuration_changes_nothing_and_makes_nothing(engine):
    async with engine({"a": ""}, {"R1": ""}) as made:
        await made.until("the alert", lambda: settled(made, "a", {"R1": ""}))
        before, lives = dict(made.running.checks), len(made.toys.lives)
        with pytest.raises(Refused, match=r"checks\.a\.value"):
            await made.reload({"a": 'value = "x"'}, {})
        assert made.running.checks == before and len(made.toys.lives) == lives
        for moved in ("control.socket", "daemon.state_directory"):
            made.write({"a": ""}, {"R1": ""}, moved=moved)
            with pytest.raises(Refused, match=f"^{moved} cannot change in a reload, nothing was changed; restart"):
                await reload(made.running, ME)
        assert settled(made, "a", {"R1": ""})


async def test_a_reload_that_cannot_be_written_changes_nothing_and_closes_what_it_made(engine):
    async with engine({"a": ""}, {"R1": ""}) as made:
        await made.until("the alert", lambda: settled(made, "a", {"R1": ""}))
        before, policy = dict(made.running.checks), made.running.judge.policy
        commit = made.running.journal.commit

        async def full(records):
            await trio.lowlevel.checkpoint()
            raise JournalFull("journal.db: no space left")

        made.running.journal.commit = full
        with pytest.raises(Refused, match="no space left"):
            await made.reload({"a": "value = 2.0", "b": ""}, {}, "two")
        made.running.journal.commit = commit
        assert made.running.checks == before and made.running.judge.policy is policy
        assert [toy.log[-1:] for toy in made.toys.lives] == [["ended"], ["closed"], ["closed"]]
        assert [note.closed for note in made.notes.lives] == [0, 1]
        await made.until("it can be written again", lambda: not made.running.judge.journal_failing)
        await made.reload({"a": "value = 2.0", "b": ""}, {"R1": ""})
        await made.until("the alerts", lambda: settled(made, "ab", {"R1": ""}))


async def test_a_reload_whose_caller_goes_is_whole_all_the_same(engine):
    """The caller leaves at every point of the way: what the judge judges by is always what the others work with."""
    async with engine({"a": ""}, {"R1": ""}) as made:
        running = made.running
        for number, at_commit in enumerate(("before", "after"), 1):
            made.write({"a": f"value = {number}.5"}, {f"R{number + 1}": ""})
            plan = await prepare(running, running.config_path)
            commit = running.journal.commit
            with trio.CancelScope() as scope:

                async def watched(records, commit=commit, scope=scope, at_commit=at_commit):
                    if at_commit == "before":
                        scope.cancel()
                    seq = await commit(records)
                    scope.cancel()
                    return seq

                running.journal.commit = watched
                await apply_plan(running, plan, ME)
            running.journal.commit = commit
            assert running.config is plan.config and running.checks is plan.checks
            assert set(running.judge.policy.rules) == set(running.evaluator._bound.rules)
        await made.until("the alert", lambda: settled(made, "a", {"R3": ""}))


async def test_reloads_at_once_come_one_after_the_other(engine):
    async with engine({"a": ""}, {}) as made:
        made.write({"a": "", "b": ""}, {})
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(reload, made.running, ME)
        assert sorted(made.running.checks) == ["a", "b"] and len(made.toys.lives) == 2


# ---- the listener, and where plugins come from ---------------------------------------------------------------------------


async def test_an_address_that_is_taken_refuses_the_reload_by_name_and_nothing_changes(engine):
    async with engine({"a": ""}, {"R1": ""}) as made:
        running = made.running
        before = (running.url, running.config, running.checks)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            made.write({"a": "", "b": ""}, {}, http=f'listen = "{address}"')
            said = (
                rf"^\[http\] listen: cannot listen on {address}: Address already in use; choose another .*; nothing was"
            )
            for attempt in (partial(preview, running), partial(reload, running, ME)):
                with pytest.raises(Refused, match=said):
                    await attempt()
        assert (running.url, running.config, running.checks) == before
        await reload(running, ME)
        assert running.url == f"http://{address}" == running.outbox.place.url


async def test_an_address_that_is_taken_during_the_reload_refuses_it_too_and_leaves_no_socket(engine):
    async with engine({"a": ""}, {"R1": ""}) as made:
        made.write({"a": "", "b": ""}, {}, http='listen = "127.0.0.2:0"')
        plan = await prepare(made.running, made.running.config_path)
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(plan.listener.getsockname())
            other.listen()
            with pytest.raises(Refused, match=r"cannot listen on 127\.0\.0\.2:\d+: Address already in use"):
                await apply_plan(made.running, plan, ME)
        assert plan.listener.fileno() == -1 and set(made.running.checks) == {"a"}
        assert [toy.log[-1:] for toy in made.toys.lives[1:]] == [["closed"]]


async def test_a_reload_that_cannot_be_written_gives_the_new_address_back(engine):
    async with engine({"a": ""}, {}) as made:
        commit, url = made.running.journal.commit, made.running.url

        async def full(records):
            await trio.lowlevel.checkpoint()
            raise JournalFull("journal.db: no space left")

        made.running.journal.commit = full
        made.write({"a": ""}, {}, http='listen = "127.0.0.2:0"')
        plan = await prepare(made.running, made.running.config_path)
        with pytest.raises(Refused, match="no space left"):
            await apply_plan(made.running, plan, ME)
        made.running.journal.commit = commit
        assert plan.listener.fileno() == -1 and made.running.url == url


async def test_a_preview_says_from_where_to_where_and_listens_nowhere(engine):
    async with engine({"a": ""}, {"R1": ""}) as made:
        await made.until("the alert", lambda: settled(made, "a", {"R1": ""}))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        made.write(
            {"a": ""},
            {"R1": ""},
            http=f'listen = "127.0.0.1:{port}"\nhosts = ["a.example.com"]',
            extra='[journal]\nsamples = "1d"\n',
        )
        view = await preview(made.running)
        assert view.changed == (
            f'http.listen from "127.0.0.1:0" to "127.0.0.1:{port}" '
            "(the old address closes, requests there are answered, streams come again at the new one)",
            'http.hosts from [] to ["a.example.com"]',
            "journal.samples from 30d to 1d (what is older is deleted within the hour)",
        )
        assert "rule R1" in view.kept
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        made.write({"a": ""}, {"R1": ""}, daemon='evaluation_interval = "1s"')
        view = await preview(made.running)
        assert view.changed == ("daemon.evaluation_interval from 15s to 1s",) and "rule R1" in view.kept


async def test_a_directory_of_plugins_that_moves_no_loaded_code_is_taken_over(engine):
    async with engine({"a": ""}, {}) as made:
        package = made.directory / "more" / "other"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(OTHER)
        made.write({"a": "", "b": ""}, {}, daemon='plugin_directories = ["more"]')
        file = made.directory / "sixfbd.toml"
        file.write_text(file.read_text().replace('[checks.b]\nplugin = "toy"', '[checks.b]\nplugin = "other"'))
        first = made.running.checks["a"]
        assert "check b added" in await reload(made.running, ME)
        assert made.running.checks["a"] is first
        made.write({"a": ""}, {})
        assert "check b removed" in await reload(made.running, ME)


async def test_a_plugin_that_would_come_from_another_file_refuses_the_reload_by_name(engine):
    async with engine({"a": ""}, {}) as made:
        (made.directory / "others.d").mkdir()
        (made.directory / "others.d" / "toy.py").write_text(TOY)
        made.write({"a": ""}, {}, daemon='plugins_d = "others.d"')
        said = r"^plugin toy would come from .*others\.d/toy\.py, not from .*plugins\.d/toy\.py; loaded code cannot"
        for attempt in (partial(preview, made.running), partial(reload, made.running, ME)):
            with pytest.raises(Refused, match=said):
                await attempt()


# ---- the port for the outside ------------------------------------------------------------------------------------------------

PUBLIC = '[http.public]\nlisten = "127.0.0.1:0"\nurl = "https://hooks.example.com"\n'
HOOK = '[inbound.shop]\nkind = "hook"\nsecrets = ["a"]\n'


async def posted(url, body, host="hooks.example.com"):
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=20) as client:
        return (await client.post(f"{url}/webhooks/shop", content=body, headers={"Host": host})).status_code


async def test_a_reload_opens_the_port_for_the_outside_moves_it_and_closes_it(engine):
    async with engine({"a": ""}, {}) as made:
        assert made.running.public.url == ""
        changed = await made.reload({"a": ""}, {}, extra=PUBLIC + HOOK)
        assert "inbound shop added" in changed
        assert 'http.public.url from nothing to "https://hooks.example.com"' in changed
        first = made.running.public.url
        assert await posted(first, "a") == 200
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        await made.reload({"a": ""}, {}, extra=PUBLIC.replace(":0", f":{port}") + HOOK)
        assert made.running.public.url == f"http://127.0.0.1:{port}"
        assert await posted(made.running.public.url, "a") == 200
        assert await posted(made.running.server.url, "a", "localhost") == 404
        assert "inbound shop removed" in await made.reload({"a": ""}, {})
        assert made.running.public.url == ""
        for url in (first, f"http://127.0.0.1:{port}"):
            with pytest.raises(httpx.ConnectError):
                await posted(url, "a")


async def test_a_secret_is_rotated_by_reloads_without_a_request_lost(engine):
    async with engine({"a": ""}, {}) as made:
        hooks = made.running.catalog.inbound["hook"].cls
        await made.reload({"a": ""}, {}, extra=PUBLIC + HOOK)
        url, first = made.running.public.url, hooks.lives[-1]
        await made.reload({"a": ""}, {"R1": ""}, extra=PUBLIC + HOOK)
        assert hooks.lives[-1] is first and made.running.public.url == url
        both, new = HOOK.replace('"a"', '"b", "a"'), HOOK.replace('"a"', '"b"')
        assert [await posted(url, body) for body in "ab"] == [200, 400]
        assert "inbound shop changed" in await made.reload({"a": ""}, {}, extra=PUBLIC + both)
        assert [await posted(url, body) for body in "ab"] == [200, 200]
        await made.reload({"a": ""}, {}, extra=PUBLIC + new)
        assert [await posted(url, body) for body in "ab"] == [400, 200]
        assert made.running.inbound.requests["shop", "refused"] == 2


async def test_a_port_that_is_taken_refuses_the_reload_and_nothing_is_changed(engine):
    async with engine({"a": ""}, {}) as made:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(
                Refused, match=rf"\[http\.public\] listen: cannot listen on 127\.0\.0\.1:{port}: Address"
            ):
                await made.reload({"a": ""}, {}, extra=PUBLIC.replace(":0", f":{port}") + HOOK)
        assert made.running.public.url == "" and not made.running.inbound.instances


async def test_a_certificate_that_was_renewed_is_shown_from_the_next_reload_on(engine):
    async with engine({"a": ""}, {}) as made:
        paths = {"cert_file": made.directory / "cert.pem", "key_file": made.directory / "key.pem"}
        public = PUBLIC + "".join(f'{key} = "{path.name}"\n' for key, path in paths.items())
        shown = []
        for name in ("first", "second"):
            command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            command += ["-keyout", paths["key_file"], "-out", paths["cert_file"], "-subj", f"/CN={name}", "-days", "2"]
            await trio.run_process(command, capture_stdout=True, capture_stderr=True)
            await made.reload({"a": ""}, {}, extra=public + HOOK)
            url = made.running.public.url
            assert await posted(url, "a") == 200
            port = int(url.rpartition(":")[2])
            shown.append(await trio.to_thread.run_sync(ssl.get_server_certificate, ("127.0.0.1", port)))
        assert url.startswith("https://") and shown[0] != shown[1]
        paths["cert_file"].write_text("no certificate")
        with pytest.raises(Refused, match=r"http\.public\.cert_file"):
            await made.reload({"a": ""}, {}, extra=public + HOOK)
        assert await posted(url, "a") == 200


async def test_a_preview_opens_no_port(engine):
    async with engine({"a": ""}, {}) as made:
        made.write({"a": ""}, {}, extra=PUBLIC + HOOK)
        view = await preview(made.running)
        assert "inbound shop" in view.added and any(line.startswith("http.public.url from") for line in view.changed)
        assert made.running.public.url == ""


# ---- the plan shown ----------------------------------------------------------------------------------------------------------

SECOND = '[receivers.second]\nnote = { via = "note" }\n[route]\nreceiver = "primary"\n'
TEAM = '[[route.routes]]\nmatchers = ["alertname=R1"]\nreceiver = "second"\n'


async def test_a_preview_shows_what_becomes_of_everything_and_changes_nothing(engine):
    rules = {"R1": "", "R2": "", "R4": ""}
    async with engine({"a": "", "b": ""}, rules, extra=SECOND) as made:
        await made.until("the alerts", lambda: settled(made, "ab", rules))
        running, before = made.running, made.alerts()
        parts = (running.config, running.catalog, running.checks, running.notifiers, running.judge.policy)
        lives, seq = len(made.toys.lives), running.journal.last_record_seq
        changed = {"R1": "", "R2": 'expr = "toy_value > 1.5"', "R3": "", "R5": 'for = "1h"'}
        made.write({"a": "", "c": 'act = "events"'}, changed, extra=SECOND + TEAM)
        view = await preview(running)
        assert [name for name in view.kept if not name.startswith("rule")] == ["check a", "notifier note"]
        assert "rule R1" in view.kept
        assert set(view.added) == {"check c", "rule R3", "rule R5"}
        assert set(view.dropped) == {"check b", "rule R4"}
        assert view.changed == ("rule R2", "route") and view.restarted == ()
        assert previewed(view.would_fire) == {("R3", "a"): AlertState.FIRING, ("R5", "a"): AlertState.PENDING}
        assert set(previewed(view.would_resolve)) == {("R1", "b"), ("R2", "a"), ("R2", "b"), ("R4", "a"), ("R4", "b")}
        reasons = {(alert.rule, alert.labels["check"]): alert.reason for alert in view.would_resolve}
        assert reasons["R4", "a"] == "rule removed" and reasons["R2", "a"] == "no longer true"
        assert reasons["R1", "b"] == "check b dropped"
        [moved] = view.rerouted
        assert (moved.id, moved.rule, moved.labels["check"]) == (before["R1", "a"].id, "R1", "a")
        assert (moved.told_before, moved.told) == (("primary through note",), ("second through note",))
        assert view.needs_restart == () and view.problems == ()
        assert parts == (
            running.config, running.catalog, running.checks, running.notifiers, running.judge.policy,
        )  # fmt: skip
        assert made.alerts() == before and running.journal.last_record_seq == seq
        assert [toy.log[-1] for toy in made.toys.lives[lives:]] == ["closed"], "what the plan made is closed again"


async def test_a_preview_names_what_needs_a_restart_and_refuses_what_is_invalid_with_all_errors(engine):
    async with engine({"a": ""}, {"R1": ""}) as made:
        made.write({"a": ""}, {"R1": ""}, moved="control.socket")
        assert (await preview(made.running)).needs_restart == ("control.socket",)
        made.write({"a": 'value = "x"'}, {"R1": 'expr = "up{"'})
        with pytest.raises(Refused, match=r"(?s)checks\.a\.value.*rules\[0\] \"R1\"\.expr"):
            await preview(made.running)
        assert not made.running.reloading.locked()


async def test_a_plugin_file_that_a_preview_has_loaded_may_be_edited_before_the_reload(engine):
    async with engine({"a": ""}, {}) as made:
        file = made.directory / "plugins.d" / "other.py"
        file.write_text(OTHER)
        made.write({"a": "", "b": 'plugin = "other"'}, {})
        text = (made.directory / "sixfbd.toml").read_text().replace('[checks.b]\nplugin = "toy"\n', "[checks.b]\n")
        (made.directory / "sixfbd.toml").write_text(text)
        assert (await preview(made.running)).added == ("check b",)
        file.write_text(file.read_text().replace('"""A toy."""', '"""Edited."""', 1))
        await reload(made.running, ME)
        assert made.running.catalog.checks["other"].cls.__doc__ == "Edited."


async def test_the_log_level_follows_a_reload(engine):
    async with engine({"a": ""}, {}) as made:
        level = logging.getLogger().level
        try:
            await made.reload({"a": ""}, {}, extra='[log]\nlevel = "error"\n')
            assert logging.getLogger().level == logging.ERROR
        finally:
            logging.getLogger().setLevel(level)


# ---- checks that come and go -------------------------------------------------------------------------------------------------


async def test_a_check_is_closed_after_its_last_run_and_that_run_reports_nothing(engine):
    async with engine({"a": 'act = "wait"'}, {}) as made:
        await made.until("the first run", lambda: made.running.schedule.state("a").runs == 1)
        first = made.toys.lives[0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_run_now, made)
            await made.until("a run", lambda: made.running.schedule.state("a").running)
            await made.reload({"a": "value = 3.0"}, {})
        assert first.log == ["begun", "ended", "begun", "ended", "closed"]
        await made.until("the new one's report", lambda: made.running.schedule.state("a").runs == 1)


async def _run_now(made):
    with pytest.raises(NotRunError, match="did not finish"):
        await made.running.schedule.run_now("a")


async def test_a_check_that_goes_while_its_events_are_written_takes_nobody_with_it(engine):
    async with engine({"a": 'act = "events"', "b": ""}, {"R1": ""}) as made:
        await made.until("the alerts", lambda: settled(made, "ab", {"R1": ""}))
        put, writing, go = made.running.journal.put_events, trio.Event(), trio.Event()

        async def slowly(*args):
            writing.set()
            with trio.CancelScope(shield=True):  # as the journal does once a write has begun
                await go.wait()
                return await put(*args)

        made.running.journal.put_events = slowly
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.running.schedule.run_now, "a")
            await writing.wait()
            nursery.start_soon(made.reload, {"b": ""}, {"R1": ""})
            await made.until("the reload", lambda: "a" not in made.running.checks)
            go.set()
        await made.until("the alert of the other", lambda: settled(made, "b", {"R1": ""}))
        assert made.running.window.series_count("a") == 0, "its series have ended, and none came after"
        assert (await made.running.schedule.run_now("b")).report.status is Status.HEALTHY


async def test_what_could_not_be_made_is_tried_again_by_a_reload(engine):
    async with engine({}, {"R1": ""}) as made:
        made.toys.broken.add("a")
        await made.reload({"a": ""}, {"R1": ""})
        assert "not there yet" in made.running.schedule.state("a").summary
        made.toys.broken.clear()
        await made.reload({"a": ""}, {"R1": ""})
        await made.until("the alert", lambda: settled(made, "a", {"R1": ""}))


async def test_another_limit_of_series_holds_for_checks_that_stay(engine):
    async with engine({"a": "series = 5"}, {}) as made:
        await made.until("five series", lambda: made.running.window.series_count("a") > 5)
        await made.reload({"a": "series = 5"}, {}, extra="[window]\nmax_series_per_check = 2\n")
        assert len(made.toys.lives) == 1
        await made.running.schedule.run_now("a")
        assert made.running.schedule.state("a").refused_series == 3


async def test_no_evaluation_by_the_old_rules_is_judged_by_the_new_ones(engine):
    """The old rule finds something again and again, and waits; the new one would fire at once, and finds nothing."""
    old, new = {"R1": 'for = "1h"'}, {"R1": 'expr = "toy_value > 9"'}
    async with engine({"a": ""}, old) as made:
        touching = trio.CancelScope()

        async def touch():
            with touching:
                while True:
                    made.running.evaluator.touch(frozenset({"R1"}))
                    await trio.sleep(0.001)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(touch)
            for _ in range(5):
                await made.until("it is pending", lambda: settled(made, "a", old))
                await made.reload({"a": ""}, new)
                await made.until("it is gone", lambda: not made.alerts())
                await made.reload({"a": ""}, old)
            touching.cancel()
        changes = [stored.record for stored in await made.running.journal.records(kinds=("alert",))]
        assert {str(one.alert.state) for one in changes} == {"pending", "inactive"}
