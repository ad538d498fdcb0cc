"""Reload, all or nothing: `prepare` builds the new beside the old and touches nothing; `apply_plan` is one judge round, then
the swap. An invalid configuration changes nothing; what cannot be taken over without a restart is refused by name.
"""

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from ssl import SSLContext
from typing import Final, TypeVar, TypeVarTuple, Unpack

import msgspec
import structlog
import trio
from msgspec import Struct

from sixfbd import systemd
from sixfbd.alerting.policy import NoticeOf, Policy, ReceiptOf, build_policy, notifier_policy
from sixfbd.config import Config, Http, HttpPublic, check_config, effective_rules, plugin_sources, tls_context
from sixfbd.config.text import show_value
from sixfbd.containment import described
from sixfbd.control.protocol import Refused
from sixfbd.host import PluginCatalog, load_plugins
from sixfbd.http.server import NO_PUBLIC, ListenError, begin_listening, bind_listener
from sixfbd.instances import (
    CheckInstance,
    InboundInstance,
    NotifierInstance,
    close_all,
    make_check,
    make_inbound,
    make_notifier,
    surroundings,
)
from sixfbd.intake import Intake, declare
from sixfbd.logs import configure_logging
from sixfbd.model import Actor, CheckName, Found, Rule
from sixfbd.outbox.ack_links import AckLinks
from sixfbd.outbox.render import Place
from sixfbd.outbox.wording import Templates
from sixfbd.plugin import Reader
from sixfbd.quantities import Duration, Size
from sixfbd.rules import BoundRules, bind_rules, level_of, render_annotations
from sixfbd.rules.problems import rule_problems
from sixfbd.rules.thresholds import thresholds_of
from sixfbd.running import Running
from sixfbd.schedule import GRACE_S, stale_after_s
from sixfbd.world import World

K = TypeVar("K")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
log = structlog.get_logger("sixfbd.reload")

NEEDS_RESTART: Final = ("daemon.state_directory", "control.socket")
SETTINGS: Final = ("daemon", "http", "control", "window", "journal", "log")  # tables of plain values, shown by key
TABLES: Final = ("site", "tokens", "receivers", "route", "severities", "template_texts")
NAMES: Final = {"template_texts": "templates"}
REMARKS: Final[Mapping[str, str]] = {
    "http.public.listen": "the old address closes, requests there are answered",
    "http.listen": "the old address closes, requests there are answered, streams come again at the new one",
    "journal.samples": "what is older is deleted within the hour",
    "journal.events": "what is older is deleted within the hour",
    "journal.alerts": "what is older is deleted within the hour",
    "journal.max_size": "what is too much is deleted within the hour",
    "journal.max_samples_size": "what is too much is deleted within the hour",
}


class Plan(Struct, frozen=True):
    """What a reload would do. `checks`, `notifiers` and `inbounds` are all instances after it: kept ones are the same
    objects.

    `changed` says it in words; `changed_settings` of these are what is no instance and no rule. What `needs_restart`
    names keeps the plan from taking effect. `listener` is bound to the new address, if that changes, and does not listen;
    so is `public_listener` to that of `[http.public]`, whose next connections are made by `tls`.
    """

    config: Config
    catalog: PluginCatalog
    rules: list[Rule]
    bound: BoundRules
    problems: tuple[str, ...]
    checks: dict[CheckName, CheckInstance]
    notifiers: dict[str, NotifierInstance]
    inbounds: dict[str, InboundInstance]
    changed: tuple[str, ...]
    changed_settings: tuple[str, ...]
    needs_restart: tuple[str, ...]
    warnings: tuple[str, ...]
    listener: socket.socket | None
    public_listener: socket.socket | None
    tls: SSLContext | None


def summary_of(running_state: Callable[[CheckName], object], found: Found) -> str:
    """The last summary of the first check that fed what was found."""
    for check in found.checks:
        state = running_state(CheckName(check))
        if state is not None:
            return str(getattr(state, "summary", ""))
    return ""


def bind(rules: list[Rule]) -> tuple[BoundRules, tuple[str, ...]]:
    """Bind rules; those that cannot be are left out and named."""
    bound = bind_rules(rules)
    for error in bound.errors:
        log.error("rule.refused", rule=error.rule, error=str(error))
    return bound, tuple(str(error) for error in bound.errors)


def plugins_left_out(catalog: PluginCatalog) -> tuple[str, ...]:
    """Say which plugins are left out, and why."""
    return tuple(f"plugin {one.name} is left out: {one.problem}" for one in catalog.failed)


def policy_of(
    config: Config,
    catalog: PluginCatalog,
    bound: BoundRules,
    world: World,
    summary: Callable[[Found], str],
    receipt_of: ReceiptOf,
    notice_of: NoticeOf,
) -> Policy:
    """Return what the judge judges by under this configuration."""

    def annotate(rule: Rule, found: Found) -> Mapping[str, str]:
        labels = dict((*found.labels, *found.describing))
        return render_annotations(bound.rule(rule.name), labels, found.value, summary(found))

    return build_policy(
        config,
        [each.rule for each in bound.rules.values()],
        [notifier_policy(table, catalog.notifiers[table.plugin].cls) for table in config.notifiers.values()],
        catalog.event_types.values(),
        level_of=lambda rule, value, current: level_of(bound.rule(rule.name), value, current),
        annotate=annotate,
        rng=world.rng,
        receipt_of=receipt_of,
        notice_of=notice_of,
    )


def policy_after(running: Running, plan: Plan) -> Policy:
    """Return what the judge judges by once a plan is in effect."""
    summary = partial(summary_of, running.schedule.state)
    intake = running.intake
    return policy_of(plan.config, plan.catalog, plan.bound, running.world, summary, intake.receipt_of, intake.notice_of)


def make_instances(
    config: Config,
    catalog: PluginCatalog,
    world: World,
    read: Reader,
    kept_checks: Mapping[CheckName, CheckInstance] | None = None,
    kept_notifiers: Mapping[str, NotifierInstance] | None = None,
) -> tuple[dict[CheckName, CheckInstance], dict[str, NotifierInstance]]:
    """Make the instances of a configuration, but for those given, which are taken as they are."""
    around = surroundings(config, world, read)
    checks = dict(kept_checks or {})
    for name, table in config.checks.items():
        if table.enabled and CheckName(name) not in checks:
            checks[CheckName(name)] = make_check(table, catalog.checks[table.plugin].cls, around)
    notifiers = dict(kept_notifiers or {})
    for name, notifier in config.notifiers.items():
        if name not in notifiers:
            notifiers[name] = make_notifier(notifier, catalog.notifiers[notifier.plugin].cls, around)
    return checks, notifiers


def make_inbounds(
    config: Config,
    catalog: PluginCatalog,
    world: World,
    read: Reader,
    kept: Mapping[str, InboundInstance] | None = None,
) -> dict[str, InboundInstance]:
    """Make the inbounds of a configuration that are enabled, but for those given, which are taken as they are."""
    around = surroundings(config, world, read)
    made = dict(kept or {})
    for name, table in config.inbound.items():
        if table.enabled and name not in made:
            made[name] = make_inbound(table, catalog.inbound[table.kind].cls, around)
    return made


def declare_checks(
    intake: Intake, checks: Mapping[CheckName, CheckInstance], catalog: PluginCatalog, config: Config
) -> None:
    """Tell the door what each check may report."""
    for name, instance in checks.items():
        stale_s = stale_after_s(instance.interval_s, instance.timeout_s)
        metrics = catalog.checks[instance.plugin].cls.metrics
        intake.declare_check(name, declare(metrics, config.window.max_series_per_check, stale_s))


async def prepare(running: Running, path: Path) -> Plan:
    """Read the configuration again and plan the change. Raises Refused with all that is wrong; nothing is touched.

    A plan is brought to its end by `apply_plan` or `discard`.
    """
    catalog = await _in_thread(lambda: load_plugins(plugin_sources(path)))  # loaded modules stay as they are
    if moved := _moved_code(running.catalog, catalog):
        raise Refused(
            f"{'; '.join(moved)}; loaded code cannot change in a reload, nothing was changed; restart the daemon"
        )
    config, problems = await _in_thread(check_config, path, catalog, rule_problems)
    if config is None:
        errors = [str(problem) for problem in problems if problem.level == "error"]
        raise Refused("the configuration is not valid, nothing was changed:\n" + "\n".join(errors))
    rules, _ = effective_rules(config, catalog.rules)
    bound, left_out = await _in_thread(bind, rules)
    old = running.config
    same_site = config.site == old.site and config.daemon.sandbox == old.daemon.sandbox
    kept_checks = {
        CheckName(name): running.checks[CheckName(name)]
        for name, table in config.checks.items()
        if same_site and table.enabled and old.checks.get(name) == table and _works(running.checks.get(CheckName(name)))
    }
    kept_notifiers = {
        name: running.notifiers[name]
        for name, table in config.notifiers.items()
        if same_site and old.notifiers.get(name) == table and running.notifiers[name].notifier is not None
    }
    kept_inbounds = {
        name: one
        for name, one in running.inbound.instances.items()
        if same_site and old.inbound.get(name) == config.inbound.get(name) and one.inbound is not None
    }
    needs_restart = tuple(key for key, *_ in _different(old, config) if key in NEEDS_RESTART)
    listener, public_listener, tls = (None, None, None) if needs_restart else await _bind_moved(running, config)
    checks, notifiers = make_instances(config, catalog, running.world, running.reader, kept_checks, kept_notifiers)
    inbounds = make_inbounds(config, catalog, running.world, running.reader, kept_inbounds)
    settings = tuple(_settings_changed(old, config))
    changed = (
        *_changes("check", running.checks, checks),
        *_changes("notifier", running.notifiers, notifiers),
        *_changes("inbound", running.inbound.instances, inbounds),
        *_changes("rule", by_name(running.rules), by_name(rules)),
        *settings,
    )
    warnings = tuple(str(problem) for problem in problems if problem.level == "warning")
    left_out = (*left_out, *plugins_left_out(catalog))
    return Plan(
        config,
        catalog,
        rules,
        bound,
        left_out,
        checks,
        notifiers,
        inbounds,
        changed,
        settings,
        needs_restart,
        warnings,
        listener,
        public_listener,
        tls,
    )


async def _in_thread(fn: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
    """Run what may take long, and touches nothing, in a worker thread that a stop does not wait for."""
    return await trio.to_thread.run_sync(fn, *args, abandon_on_cancel=True)


def _moved_code(old: PluginCatalog, new: PluginCatalog) -> list[str]:
    """Name the plugins that would be loaded from another file than the one that they are loaded from."""
    loaded = {one.name: one for one in old.plugins if one.problem is None and Path(one.origin).is_absolute()}
    return [
        f"plugin {one.name} would come from {one.origin}, not from {loaded[one.name].origin}"
        for one in new.plugins
        if one.name in loaded and Path(one.origin).is_absolute() and one.origin != loaded[one.name].origin
    ]


async def _bind_moved(
    running: Running, config: Config
) -> tuple[socket.socket | None, socket.socket | None, SSLContext | None]:
    """Return sockets bound to the addresses to listen on, None for one that does not change. Raises Refused.

    And the TLS of `[http.public]`, read anew: a certificate that was renewed has the name that it had.
    """
    public, listener = config.http.public, None
    try:
        if not running.server.listens_on(config.http.listen):
            listener = await _in_thread(bind_listener, config.http.listen, running.server.listener)
        if public is None:
            return listener, None, None
        tls = await _in_thread(tls_context, public)
        if running.public.listens_on(public.listen):
            return listener, None, tls
        return listener, await _in_thread(bind_listener, public.listen, running.public.listener, public.header), tls
    except (ListenError, OSError, ValueError) as error:
        if listener is not None:
            listener.close()
        raise Refused(f"{error}; nothing was changed") from error


def by_name(rules: Iterable[Rule]) -> dict[str, Rule]:
    """Return rules by name without their tick, which is the daemon's and asks nothing else."""
    return {rule.name: msgspec.structs.replace(rule, interval_s=0.0) for rule in rules}


def _different(old: Config, new: Config) -> Iterator[tuple[str, object, object]]:
    """Yield each key of SETTINGS whose value differs: "table.key", before, after; None for one that is not there."""
    for table in SETTINGS:
        before, after = _flat(getattr(old, table), table), _flat(getattr(new, table), table)
        for key in {**before, **after}:
            if before.get(key) != after.get(key):
                yield key, before.get(key), after.get(key)


def _flat(table: Struct, header: str) -> dict[str, object]:
    """Return the values of a table, and of those in it, by their whole keys."""
    found: dict[str, object] = {}
    for name in table.__struct_fields__:
        value = getattr(table, name)
        if isinstance(value, Struct):
            found |= _flat(value, f"{header}.{name}")
        else:
            found[f"{header}.{name}"] = value
    return found


def _settings_changed(old: Config, new: Config) -> Iterator[str]:
    """Say what changes besides instances and rules: of SETTINGS each key with both values, of the other tables the name."""
    yield from (NAMES.get(name, name) for name in TABLES if getattr(old, name) != getattr(new, name))
    for key, before, after in _different(old, new):
        remark = f" ({REMARKS[key]})" if key in REMARKS else ""
        yield f"{key} from {_shown(before)} to {_shown(after)}{remark}"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if value is None:
        return "nothing"
    return str(value) if isinstance(value, Duration | Size) else show_value(value)


def _works(instance: CheckInstance | None) -> bool:
    """Tell whether there is an instance and it could be made: what could not is tried again at every reload."""
    return instance is not None and instance.check is not None


def _changes(kind: str, old: Mapping[K, object], new: Mapping[K, object]) -> list[str]:
    words = [f"{kind} {name} removed" for name in old if name not in new]
    for name, one in new.items():
        if name not in old:
            words.append(f"{kind} {name} added")
        elif old[name] is not one and old[name] != one:
            words.append(f"{kind} {name} changed")
    return words


async def apply_plan(running: Running, plan: Plan, by: Actor) -> None:
    """Take the plan into effect: one commit of the judge, and the swap at the moment of it. Raises Refused.

    Not to be cancelled on its way: all of it happens or nothing. The judge answers after its round.
    """
    if plan.needs_restart:
        await discard(plan, running)
        fixed = ", ".join(plan.needs_restart)
        raise Refused(f"{fixed} cannot change in a reload, nothing was changed; restart the daemon")
    for listener, header in ((plan.listener, Http.header), (plan.public_listener, HttpPublic.header)):
        try:
            if listener is not None:
                begin_listening(listener, header)
        except ListenError as error:
            await discard(plan, running)
            raise Refused(f"{error}; nothing was changed") from error
    policy = policy_after(running, plan)
    old, ending = running.checks, dict[CheckName, trio.Event]()
    with trio.CancelScope(shield=True):
        outcome = await running.judge.replace(
            policy, plan.config.text_hash, by, lambda: ending.update(_swap(running, plan))
        )
        if not outcome.ok:
            await discard(plan, running)
            raise Refused(outcome.error)
        with trio.move_on_after(GRACE_S):
            for ended in ending.values():
                await ended.wait()
        await close_all(old[name] for name in ending)


def _swap(running: Running, plan: Plan) -> dict[CheckName, trio.Event]:
    """Put the new in the place of the old, without an await. Returns the checks that are no more, or are others now, each
    with the event of its last run's end."""
    old = running.checks
    new = {name: one for name, one in plan.checks.items() if old.get(name) is not one}
    limit_changed = running.config.window != plan.config.window
    running.window.limit_memory(plan.config.window.memory)
    journal = plan.config.journal
    running.journal.keep(journal.events, journal.alerts, journal.max_size)
    running.server.change(plan.config.http, plan.listener)
    running.public.change(plan.config.http.public or NO_PUBLIC, plan.public_listener, plan.tls)
    if plan.listener is not None:
        systemd.keep_listener("http", plan.listener)
    if plan.public_listener is not None:
        systemd.keep_listener("public", plan.public_listener)
    if plan.config.http.public is None:
        running.public.close()
        systemd.keep_listener("public", None)
    running.inbound.replace(plan.inbounds)
    if running.config.log != plan.config.log:
        configure_logging(plan.config.log.level, plan.config.log.format)
    running.config, running.rules, running.problems = plan.config, plan.rules, plan.problems
    running.catalog = plan.catalog
    running.watchdog.knows(plan.catalog)
    running.intake.declare_types(list(plan.catalog.event_types.values()))
    if running.intake.privacy is not None:
        running.intake.privacy.keep(plan.config.privacy.keep)
    running.checks, running.notifiers = plan.checks, plan.notifiers
    declare_checks(running.intake, plan.checks if limit_changed else new, plan.catalog, plan.config)
    now_ms = round(running.world.clock.now() * 1000)
    ending: dict[CheckName, trio.Event] = {}
    for name in old:
        if name not in plan.checks:
            ending[name] = running.schedule.remove(name)
            running.intake.forget_check(name)
            running.store.put(running.window.end_check(name, now_ms).rows)
    running.window.bind(plan.bound.touched)
    running.evaluator.replace(plan.bound, plan.config.daemon.evaluation_interval)
    for name, instance in new.items():
        ended = running.schedule.add(instance, paused=name in running.judge.state.paused)
        if name in old:
            ending[name] = ended
    place = place_of(plan.config, plan.bound, running.url, running.outbox.place.links)
    running.outbox.replace(plan.notifiers, place, templates_of(plan.config))
    running.changed.ring()
    running.reloaded.ring()
    return ending


async def discard(plan: Plan, running: Running) -> None:
    """Close what a plan made that did not come into effect."""
    for listener in (plan.listener, plan.public_listener):
        if listener is not None:
            listener.close()
    checks = [one for name, one in plan.checks.items() if running.checks.get(name) is not one]
    notifiers = [one for name, one in plan.notifiers.items() if running.notifiers.get(name) is not one]
    await close_all([*checks, *notifiers])


def place_of(config: Config, bound: BoundRules, url: str, links: AckLinks) -> Place:
    """Where messages say that they come from, where their links lead, and what rules compare with."""
    public = config.http.public
    links = links.at("" if public is None else public.url)
    thresholds = thresholds_of(bound.rules.values())
    return Place(config.site.name, config.site.environment, url, config.severities, links, thresholds)


def templates_of(config: Config) -> Templates:
    """Return the templates of a checked configuration."""
    return Templates(config.template_texts, config.receivers)


async def reload(running: Running, by: Actor) -> tuple[str, ...]:
    """Read the configuration again and take it into effect; return what changed, in words. Raises Refused."""
    async with running.reloading:
        try:
            plan = await prepare(running, running.config_path)
            await apply_plan(running, plan, by)
        except Refused:
            raise  # whoever asked says so
        except Exception as error:  # a fault of our own: it must not end the daemon, which runs on as it is
            log.exception("reload.failed", by=by.name)
            raise Refused(f"the reload failed: {described(error)}; the log has the details") from error
    log.info("reload.done", by=by.name, changed=plan.changed, config=plan.config.text_hash[:12])
    return plan.changed
