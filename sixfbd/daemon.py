"""The daemon: opens the parts in the order of the data's way, runs them, and leaves them in the opposite one.

The only module that knows all the parts. A stop is an event, never a cancel, until the deadline.
"""

import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio

from sixfbd import __version__, lifetime, systemd, upkeep
from sixfbd.config import (
    Config,
    ConfigError,
    Http,
    HttpPublic,
    PluginSources,
    effective_rules,
    load_config,
    plugin_sources,
    tls_context,
)
from sixfbd.control.address import ControlSocketError
from sixfbd.control.methods import methods_of
from sixfbd.control.server import serve_control
from sixfbd.host import PluginCatalog, load_plugins
from sixfbd.http.server import NO_PUBLIC, HttpServer, ListenError, begin_listening, bind_listener, is_bound_to
from sixfbd.inbound import Inbounds
from sixfbd.instances import close_all
from sixfbd.intake import ENGINE_CHECK, SUMMARIES_CHECK, Intake
from sixfbd.journal.database import JournalDatabase
from sixfbd.journal.errors import JournalError
from sixfbd.journal.records import CheckPaused, Record
from sixfbd.journal.samples import open_samples
from sixfbd.judge import Judge
from sixfbd.logs import configure_logging
from sixfbd.model import CheckName, Refusals, Report, Sample, StoredEvent
from sixfbd.outbox.ack_links import AckLinks, read_or_make_key
from sixfbd.outbox.events import MessageEvents
from sixfbd.outbox.workers import Outbox
from sixfbd.preview import preview
from sixfbd.privacy import KEY_FILE, Privacy
from sixfbd.proxies import Proxies, ProxyError
from sixfbd.readers.condition import remarks
from sixfbd.readers.for_control import ControlView
from sixfbd.readers.for_http import HttpView
from sixfbd.readers.queries import EngineReader
from sixfbd.reload import (
    bind,
    declare_checks,
    make_inbounds,
    make_instances,
    place_of,
    plugins_left_out,
    policy_of,
    reload,
    summary_of,
    templates_of,
)
from sixfbd.rules.engine import RuleEngine
from sixfbd.rules.problems import rule_problems
from sixfbd.running import Running
from sixfbd.schedule import GRACE_S, Schedule
from sixfbd.vitals import Vitals, known_before
from sixfbd.watchdog import Watchdog
from sixfbd.window.snapshot import Matcher
from sixfbd.window.window import Window
from sixfbd.world import BootClock, EngineClock, RealWorld

log = structlog.get_logger("sixfbd.daemon")

EXIT_CONFIG: Final = 78  # EX_CONFIG of sysexits.h; the unit does not restart on it
SERVERS_GRACE_S: Final = 2.5
DRAIN_S: Final = 3.0
SWITCH_S: Final = 0.0005  # the journal's writer waits for the interpreter no longer than this, however busy the loop is
FIRST_ROUND_S: Final = 5.0  # what the first evaluation of all rules may take before the daemon is ready


def run_daemon(config_path: Path) -> int:
    """Run until stopped; return the exit code: 0 stopped in order, 78 bad configuration, 1 could not start or run."""
    lifetime.note_reloads()
    sources = plugin_sources(config_path)
    assert sources.state_directory is not None
    with Watchdog(sources.state_directory) as watchdog:
        return _run_watched(config_path, sources, watchdog)


def _run_watched(config_path: Path, sources: PluginSources, watchdog: Watchdog) -> int:
    catalog = load_plugins(sources)
    watchdog.knows(catalog)
    try:
        config = load_config(config_path, catalog, rule_problems)
        Proxies.of_environment()
    except (ConfigError, ProxyError) as error:
        print(error, file=sys.stderr)
        return EXIT_CONFIG
    written = configure_logging(config.log.level, config.log.format)
    sys.setswitchinterval(SWITCH_S)
    for plugin in catalog.plugins:
        if plugin.kept_out:
            log.error("plugin.kept_out", plugin=plugin.name, reason=plugin.problem)
    run = partial(_run, config_path, catalog, config, watchdog)
    failures: BaseExceptionGroup[Exception] | None = None
    try:
        trio.run(run, clock=BootClock(), restrict_keyboard_interrupt_to_checkpoints=True)
    except* (JournalError, ListenError, ControlSocketError) as group:
        failures = group
    if failures is None:
        log.info("daemon.stopped")
    written.flush()  # the reason is the last line
    for line in dict.fromkeys(str(error) for error in _leaves(failures)):
        print(f"sixfbd: {line}", file=sys.stderr)
    return 1 if failures else 0


async def _run(config_path: Path, catalog: PluginCatalog, config: Config, watchdog: Watchdog) -> None:
    """Open the parts, run them, leave them. Checks run in the outermost nursery: one that does not heed its cancel holds
    up the end of the process, for as long as `limit_stop` lets it, but neither the outbox nor the journal."""
    clock = EngineClock()
    with watchdog.watching(clock.turned):
        async with trio.open_nursery() as checks:
            await open_and_serve(config_path, catalog, config, checks, clock, watchdog)


async def open_and_serve(
    config_path: Path,
    catalog: PluginCatalog,
    config: Config,
    runs: trio.Nursery,
    clock: EngineClock,
    watchdog: Watchdog,
    make_world: Callable[[EngineClock], RealWorld] = RealWorld,
    opened: Callable[[Running], object] = lambda running: None,
) -> None:
    """Open the parts, run them until the stop, leave them. Raises JournalError, ListenError or ControlSocketError.

    A simulator brings a clock and a world of its own, and is told by `opened` of all parts before any of them runs.
    """
    state_directory = Path(config.daemon.state_directory)
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(make_world(clock))
        window = Window(config.window.memory)
        journal = await stack.enter_async_context(
            JournalDatabase(
                state_directory / "journal.db",
                keep_events_s=config.journal.events,
                keep_records_s=config.journal.alerts,
                max_bytes=config.journal.max_size,
            )
        )
        passed = systemd.take_listeners()
        listener = _listen("http", config.http, passed)  # after the lock: a second instance is told so
        server = stack.enter_context(HttpServer(config.http, listener))
        public = stack.enter_context(_public_server(config.http.public, passed))
        for name, other in passed.items():
            log.info("http.socket_not_used", name=name)
            other.close()
        store = await stack.enter_async_context(open_samples(state_directory / "samples.db", window))
        upkeep.set_forward(clock, journal.newest_at, window.newest_ms / 1000)
        store.witness = lambda: (journal.last_record_seq, journal.last_event_seq)
        await world.offload(window.restore_steps, journal, round(world.clock.now() * 1000))

        async def deliver(check: CheckName, report: Report, own: Sequence[Sample]) -> Refusals:
            refusals = await intake.report(check, report, own)
            evaluator.look_again(check)
            running.changed.ring()
            return refusals

        def committed(events: Sequence[StoredEvent]) -> None:
            judge.events_committed(events[-1].seq, events)
            running.changed.ring()

        def is_blind(check: CheckName, at: float) -> bool:
            own = check in (ENGINE_CHECK, SUMMARIES_CHECK)
            return vitals.are_unknown(world.clock.now(), at) if own else schedule.is_blind(check, at)

        rules, _ = effective_rules(config, catalog.rules)
        bound, problems = bind(rules)
        vitals = Vitals(watchdog.take_longest_delay)
        schedule = Schedule(world, deliver, journal.cursor)
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
            blind_checks=lambda rule, names, at: (one for one in names | judge.feeders(rule) if is_blind(one, at)),
            offload=world.offload,
            interval_s=config.daemon.evaluation_interval,
            awaits=lambda checks, at: any(schedule.is_awaited(check, at) for check in checks),
        )
        intake = Intake(
            journal,
            window,
            world.clock,
            persist=store.put,
            touch=evaluator.touch,
            committed=committed,
            volatile=lambda: judge.last_journal_error if judge.journal_failing else "",
            failed=judge.doubt_journal,
            privacy=Privacy(await world.offload(read_or_make_key, state_directory, KEY_FILE), config.privacy.keep),
        )
        intake.declare_types(list(catalog.event_types.values()))
        await intake.observe_again()
        window.bind(bound.touched)
        reader = EngineReader(window, journal, lambda: judge.state.alerts.values())
        checks, notifiers = make_instances(config, catalog, world, reader)
        inbound = Inbounds(intake, world.clock, make_inbounds(config, catalog, world, reader))
        await stack.enter_async_context(
            judge.running(__version__, config.text_hash, last_alive_at=journal.last_alive_at)
        )

        def remarking() -> list[str]:
            return remarks(judge, world.clock, sandbox=running.config.daemon.sandbox)

        links = AckLinks(await world.offload(read_or_make_key, state_directory))
        place = place_of(config, bound, server.url, links)
        outbox = Outbox(
            judge, world.clock, notifiers, place, drain_s=DRAIN_S, remarks=remarking, templates=templates_of(config)
        )
        running = Running(
            config_path=config_path,
            config=config,
            catalog=catalog,
            rules=rules,
            problems=(*problems, *plugins_left_out(catalog)),
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
            vitals=vitals,
            reader=reader,
            started_at=clock.now(),
            clock=clock,
            watchdog=watchdog,
            checks=checks,
            notifiers=notifiers,
        )
        opened(running)
        await stack.enter_async_context(outbox.running())
        declare_checks(intake, checks, catalog, config)
        stack.push_async_callback(_close_checks, running)
        await _serve(running, runs)


def _public_server(config: HttpPublic | None, passed: dict[str, socket.socket]) -> HttpServer:
    """Return the server of the port for the outside, without a listener if there is none. Raises ListenError."""
    if config is None:
        systemd.keep_listener("public", None)
        return HttpServer(NO_PUBLIC, None)
    return HttpServer(config, _listen("public", config, passed), tls_context(config))


def _listen(name: str, config: Http | HttpPublic, passed: dict[str, socket.socket]) -> socket.socket:
    """Return a listening socket: the passed one of this name if it has this address, else another, and leave it with systemd
    for the next start. Raises ListenError."""
    left = passed.get(name)
    if left is not None and is_bound_to(left, config.listen):
        listener = passed.pop(name)
    else:
        systemd.keep_listener(name, None)  # it may have this port of another address
        if left is not None:
            passed.pop(name).close()
        listener = bind_listener(config.listen, header=config.header)
    begin_listening(listener, config.header)
    systemd.keep_listener(name, listener)
    return listener


async def _close_checks(running: Running) -> None:
    await close_all(running.checks.values())


async def _serve(running: Running, runs: trio.Nursery) -> None:
    """Run everything that has a task, until the stop; then servers, schedule and rules end, and the outbox drains."""
    view = HttpView(running)
    control = ControlView(running, partial(reload, running), partial(preview, running))
    config = running.config
    async with trio.open_nursery() as tasks:
        tasks.start_soon(lifetime.obey_signals, running)
        running.judge.listen(partial(_follow, running))
        told = MessageEvents(running.intake, running.reader, running.world.clock, lambda: running.notifiers)
        running.judge.listen(told.follow)
        before = known_before(running.window.latest((Matcher("__name__", "=~", "sixfbd_check_.+"),)))
        for name, instance in running.checks.items():  # before the first round: what has not reported yet is blind
            running.schedule.add(instance, paused=name in running.judge.state.paused, before=before.get(name))
        await tasks.start(running.evaluator.run)
        await tasks.start(running.inbound.run)
        upkeep.end_gone_checks(running)
        upkeep.end_unwatched(running)
        upkeep.report_once(running, view)  # or the ages that the last run told would speak in the first round
        with trio.move_on_after(FIRST_ROUND_S):
            await running.evaluator.evaluate_all()
        async with trio.open_nursery() as servers:
            await servers.start(partial(running.server.serve, view, running.stop, grace_s=SERVERS_GRACE_S))
            await servers.start(partial(running.public.serve, view, running.stop, grace_s=SERVERS_GRACE_S))
            answer = partial(serve_control, Path(config.control.socket), methods_of(control), stop=running.stop)
            await servers.start(partial(answer, clock=running.world.clock))
            await runs.start(running.schedule.run)
            upkeep.begin(running, view, tasks)
            tasks.start_soon(told.run)
            running.ready = True
            systemd.ready(f"{len(running.checks)} checks, {len(running.rules)} rules")
            log.info(
                "daemon.ready",
                url=running.url,
                public=running.public.url or None,
                control=config.control.socket,
                checks=len(running.checks),
            )
            await running.stop.wait()
            running.ready = False
            systemd.stopping()
            log.info("daemon.stopping")
            lifetime.limit_stop(running)
            servers.cancel_scope.deadline = trio.current_time() + SERVERS_GRACE_S
        running.schedule.stop()
        with trio.move_on_after(GRACE_S):
            await running.schedule.ended.wait()
        tasks.cancel_scope.cancel()


def _follow(running: Running, records: Sequence[Record]) -> None:
    """Do at once what the judge has written down: whoever asked for it may be gone."""
    for record in records:
        if isinstance(record, CheckPaused) and running.schedule.state(record.check) is not None:
            running.schedule.set_paused(record.check, record.paused)
    running.changed.ring()


def _leaves(error: BaseException | None) -> list[BaseException]:
    """Return what a group is made of, groups in it opened."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [] if error is None else [error]
