"""The daemon's care for itself: vitals reported, signs of life written, old data let go, the wall clock watched.

Each is one endless task of the daemon's nursery; none decides anything about alerts.
"""

import gc
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

import structlog
import trio

from sixfbd import drills, heartbeat, systemd
from sixfbd.alerting.escalation import unfinished
from sixfbd.intake import ENGINE_CHECK, EVENTS_CHECK, SUMMARIES_CHECK
from sixfbd.journal.errors import JournalError
from sixfbd.journal.records import ClockStepped, Damaged
from sixfbd.journal.salvage import MARK
from sixfbd.model import Sample
from sixfbd.privacy import FORMS
from sixfbd.readers.condition import budgets_left, damages
from sixfbd.readers.for_http import HttpView
from sixfbd.running import Running
from sixfbd.schedule import stale_after_s
from sixfbd.vitals import (
    COUNTER,
    INTERVAL_S,
    SUMMARY_STALE_S,
    check_samples,
    counter,
    gauge,
    one_label,
    quantile_samples,
)
from sixfbd.world import EngineClock

log = structlog.get_logger("sixfbd.upkeep")

ALIVE_S: Final = 2.0
RETENTION_S: Final = 3600.0
WORKS_S: Final = 4 * INTERVAL_S  # a daemon that has not reported on itself for longer does not work
COLLECT_S: Final = 300.0
COLLECTIONS: Final = 12  # before one that looks at everything
USUAL: Final = gc.get_threshold()
YOUNG: Final = (1_000, 3, 2**31 - 1)  # gc.set_threshold: small looks at what is young, none at what is old
STEP_S: Final = 1.0  # a wall clock that moves by more than this against engine time has stepped


def begin(running: Running, view: HttpView, nursery: trio.Nursery) -> None:
    """Start all of it in a nursery that ends it by a cancel."""
    for task in (stay_alive, watch_disk, tell_damage, let_go, watch_clock):
        nursery.start_soon(task, running)
    nursery.start_soon(report_vitals, running, view)
    nursery.start_soon(collect_garbage)
    nursery.start_soon(heartbeat.beat, running)
    nursery.start_soon(drills.hold, running)
    running.clock.tell(partial(stood_still, running, view))
    running.watchdog.tell(partial(_report_safely, running, view))
    # Not whether the journal can be written: a restart mends no full disk, and could not even start on one.
    nursery.start_soon(systemd.keep_watchdog, lambda: view.now() - running.vitals.reported_at < WORKS_S)


async def report_vitals(running: Running, view: HttpView) -> None:
    """Report the check `sixfbd` every INTERVAL_S."""
    while True:
        await trio.sleep(INTERVAL_S)
        _report_safely(running, view)


def _report_safely(running: Running, view: HttpView) -> None:
    try:
        report_once(running, view)
    except Exception:  # what cannot be told of the daemon must not end it
        log.exception("vitals.failed")


def stood_still(running: Running, view: HttpView, since: float, until: float) -> None:
    """Have every part know that nothing ran between these engine times; called before anybody acts on the time after."""
    log.warning("daemon.stood_still", for_s=round(until - since, 3))
    running.stood_still = since, until
    running.schedule.stood_still(since, until)
    running.judge.stood_still(since, until)
    _report_safely(running, view)  # or the ages that it told last would speak for now


def report_once(running: Running, view: HttpView) -> None:
    """Report the daemon's own series now."""
    own = running.vitals.samples(running.url.removeprefix("http://"), running.started_at)
    running.intake.report_own(
        ENGINE_CHECK, [*own, *engine_samples(running, view)], stale_after_s(INTERVAL_S, INTERVAL_S)
    )
    now = running.world.clock.now()
    quantiles = quantile_samples(running.window, running.intake.summaries, running.window.sketched(), now)
    running.intake.report_own(SUMMARIES_CHECK, quantiles, SUMMARY_STALE_S)
    running.vitals.reported(now)
    running.changed.ring()


def engine_samples(running: Running, view: HttpView) -> Iterator[Sample]:
    """What the parts count, as series of the daemon's own."""
    intake, judge = running.intake, running.judge
    for state in running.schedule.states():
        stale_s = stale_after_s(state.interval_s, running.checks[state.name].timeout_s)
        yield from check_samples(state, stale_s)
    for parent in sorted({one for check in running.config.checks.values() for one in check.depends_on}):
        yield gauge("sixfbd_check_is_parent", 1.0, check=parent)
    for (event_type, outcome), count in intake.event_outcomes.items():
        yield counter("sixfbd_events_total", count, type=event_type, outcome=outcome)
    yield counter("sixfbd_event_times_clamped_total", intake.clamped_times)
    if intake.privacy is not None:
        for action in FORMS:
            yield counter("sixfbd_personal_fields_total", intake.privacy.counts[action], action=action)
    for message_state in ("pending", "sending", "unknown"):
        yield gauge("sixfbd_outbox_messages", judge.messages_by_state()[message_state], state=message_state)
    yield gauge("sixfbd_outbox_oldest_age_seconds", judge.oldest_message_age_s())
    yield counter("sixfbd_notifications_dead_total", judge.dead)
    yield gauge("sixfbd_escalations_unfinished", _unfinished_escalations(running))
    for (receiver, notifier), left in budgets_left(judge.policy, judge.state, running.world.clock.now()).items():
        yield gauge("sixfbd_budget_left", left, receiver=receiver, notifier=notifier)
    for (notifier, outcome), count in running.outbox.attempts.items():
        yield counter("sixfbd_notification_attempts_total", count, notifier=notifier, outcome=outcome)
    for notifier, (count, seconds) in running.outbox.durations.items():
        yield counter("sixfbd_notification_duration_seconds_count", count, notifier=notifier)
        yield counter("sixfbd_notification_duration_seconds_sum", seconds, notifier=notifier)
    for template, count in running.outbox.templates.failures.items():  # those that never failed too, as of rules
        yield Sample("sixfbd_template_failures_total", count, one_label("template", template), COUNTER)
    yield from drills.samples(running)
    yield from _disk_samples(running)
    yield gauge("sixfbd_series", sum(running.window.series_count(name) for name in running.window.checks()))
    for rule in running.rules:  # those that never failed too: a counter that begins above 0 shows no increase
        failures = running.evaluator.failures.get(rule.name, 0)
        yield Sample("sixfbd_rule_evaluation_failures_total", failures, one_label("rule", rule.name), COUNTER)
    yield from _failed_plugins(running)
    for (inbound, result), count in running.inbound.requests.items():
        yield counter("sixfbd_inbound_requests_total", count, inbound=inbound, outcome=result)
    yield gauge("sixfbd_sandbox", float(running.config.daemon.sandbox))
    yield gauge("sixfbd_clock_offset_seconds", running.clock.wall_offset_s())
    for blame, seconds in running.watchdog.recent().items():
        labels = {"plugin": blame.plugin or "none", "doing": blame.doing, "place": blame.place}
        yield gauge("sixfbd_loop_blocked_seconds", seconds, **labels)
    if running.config.heartbeat.url is not None:
        yield gauge("sixfbd_heartbeat_withheld", float(bool(running.beats.withheld)))
        if running.beats.last_at is not None:
            yield gauge("sixfbd_heartbeat_last_success_timestamp_seconds", running.beats.last_at)
    for (route, status), count in view.requests.items():
        yield counter("sixfbd_http_requests_total", count, route=route, status=str(status))
    yield counter("sixfbd_http_request_seconds_total", view.request_seconds)


def _unfinished_escalations(running: Running) -> int:
    """Audit the escalations; those that are unfinished since the last look are logged."""
    judge = running.judge
    found = unfinished(judge.state, judge.policy.escalations, running.world.clock.now())
    for alert, step in sorted(found - running.unfinished_escalations):
        log.error("escalation.unfinished", alert=alert, step=step)
    running.unfinished_escalations = found
    return len(found)


def _disk_samples(running: Running) -> Iterator[Sample]:
    journal, room = running.journal, running.journal.room
    yield gauge("sixfbd_journal_volatile", float(running.judge.journal_failing))
    yield gauge("sixfbd_journal_queue_age_seconds", journal.oldest_waiting_s)
    yield gauge("sixfbd_journal_commit_seconds", journal.longest_commit_s())
    yield gauge("sixfbd_journal_reserve_bytes", room.reserve_bytes)
    if room.free_bytes is not None:
        yield gauge("sixfbd_disk_free_bytes", room.free_bytes)
    damaged = {damage.file for damage in damages(journal, running.store)}
    damaged |= {name.partition(MARK)[0] for name in room.set_aside}
    for path in (journal.path, running.store.path):
        yield gauge("sixfbd_state_damaged", float(path.name in damaged), file=path.name)
    yield gauge("sixfbd_samples_unwritten", float(running.store.problem is not None))
    yield counter("sixfbd_samples_dropped_total", running.store.dropped)


def _failed_plugins(running: Running) -> Iterable[Sample]:
    catalog = running.catalog
    for plugin in catalog.plugins:
        yield gauge(
            "sixfbd_plugin_failed", float(plugin.problem is not None and not plugin.kept_out), plugin=plugin.name
        )
        yield gauge("sixfbd_plugin_kept_out", float(plugin.kept_out), plugin=plugin.name)
    for name, check in running.checks.items():
        if check.check is None and not catalog.checks[check.plugin].kept_out:
            yield gauge("sixfbd_plugin_failed", 1, plugin=check.plugin, instance=name)
    for notifier_name, notifier in running.notifiers.items():
        if notifier.notifier is None and not catalog.notifiers[notifier.plugin].kept_out:
            yield gauge("sixfbd_plugin_failed", 1, plugin=notifier.plugin, instance=notifier_name)
    for inbound_name, inbound in running.inbound.instances.items():
        if inbound.inbound is None and not catalog.inbound[inbound.kind].kept_out:
            yield gauge("sixfbd_plugin_failed", 1, plugin=inbound.kind, instance=inbound_name)


async def stay_alive(running: Running) -> None:
    """Write a sign of life every ALIVE_S, so that the next start knows how long nobody watched."""
    failed = False
    while True:
        try:
            await running.journal.touch(running.world.clock.now())
            failed = False
        except JournalError as error:
            if not failed:  # the judge says the rest
                log.warning("journal.touch_failed", error=str(error))
            failed = True
        await trio.sleep(ALIVE_S)


async def tell_damage(running: Running) -> None:
    """Write down what this start found damaged."""
    for damage in damages(running.journal, running.store):
        log.error("state.damaged", file=damage.file, said=str(damage))
        record = Damaged(running.world.clock.now(), damage.file, str(damage))
        noted = await running.judge.note([record])
        while not noted.ok:
            await trio.sleep(ALIVE_S)
            noted = await running.judge.note([record])


async def watch_disk(running: Running) -> None:
    """Look every ALIVE_S how much room there is, and keep the journal's reserve."""
    while True:
        await running.journal.look_around()
        await trio.sleep(ALIVE_S)


async def let_go(running: Running) -> None:
    """Delete what is past its retention, every RETENTION_S, in slices that hold nobody up."""
    while True:
        await trio.sleep(RETENTION_S)
        try:
            await _let_go_once(running)
        except JournalError as error:
            log.error("retention.failed", error=str(error))
        except Exception:  # what is not let go now is let go later
            log.exception("retention.failed")


async def _let_go_once(running: Running) -> None:
    if not running.judge.journal_failing:  # else the state is ahead of the journal
        base, upto = running.judge.cut()
        await running.journal.retain(base, upto)
    before_ms = round((running.world.clock.now() - running.config.journal.samples) * 1000)
    await running.store.retain(running.window, before_ms, running.config.journal.max_samples_size)


async def collect_garbage() -> None:
    """Look for cycles among what is old now and then, and set aside what is in use; at first all that the start has made.

    Left alone, Python does it in the middle of a burst, again and again: with 10,000 alerts each time stops the loop for
    0.1 s. What was set aside is looked at again once in COLLECTIONS, lest it be kept for ever.
    """
    gc.set_threshold(*YOUNG)
    gc.enable()  # not so during the start: see `sixfbd run`
    try:
        while True:
            for _ in range(COLLECTIONS):
                gc.freeze()
                await trio.sleep(COLLECT_S)
                gc.collect()
            gc.unfreeze()
            gc.collect()
    finally:
        gc.unfreeze()
        gc.set_threshold(*USUAL)


async def watch_clock(running: Running) -> None:
    """Journal each step of the wall clock against engine time; it is adopted at the next start."""
    clock = running.clock
    offset_s = 0.0
    while True:
        now_offset_s = clock.wall_offset_s()
        if abs(now_offset_s - offset_s) > STEP_S:
            log.warning("clock.stepped", by_s=round(now_offset_s - offset_s, 3))
            noted = await running.judge.note([ClockStepped(clock.now(), now_offset_s - offset_s)])
            if noted.ok:  # else it is tried again: the step stays until it is written
                offset_s = now_offset_s
        await trio.sleep(ALIVE_S)


def end_unwatched(running: Running) -> None:
    """End the series that went stale while nobody watched where that began, so that no query shows more than was seen."""
    started, now = running.judge.state.started, running.world.clock.now()
    if started is not None and started.last_alive_at is not None:
        rows = running.window.end_stale(round(started.last_alive_at * 1000), round(now * 1000))
        running.store.put(rows)


def end_gone_checks(running: Running) -> None:
    """End the series of checks that a configuration before this one had."""
    now_ms = round(running.world.clock.now() * 1000)
    known = {*running.checks, ENGINE_CHECK, EVENTS_CHECK, SUMMARIES_CHECK}
    for name in running.window.checks():
        if name not in known:
            running.store.put(running.window.end_check(name, now_ms).rows)


def set_forward(clock: EngineClock, *newest: float | None) -> None:
    """Let engine time go on from the newest time that is written down, if the wall clock has been set back since."""
    behind_s = clock.not_before(max(at for at in newest if at is not None))
    if behind_s:
        log.warning(
            "clock.behind",
            by_s=round(behind_s, 3),
            what="the wall clock was set back since the last run; times go on from the newest that is written down",
        )
