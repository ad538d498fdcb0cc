"""What the daemon has to say of itself: that it did not run, that it cannot keep what it decides. Words, no decisions."""

from datetime import UTC, datetime
from typing import Final

from sixfbd.alerting.policy import Policy
from sixfbd.journal.database import JournalDatabase
from sixfbd.journal.records import Started
from sixfbd.journal.salvage import Damage
from sixfbd.journal.samples import SampleStore
from sixfbd.journal.state import MOST_SPENT, State
from sixfbd.judge import Judge
from sixfbd.plugin import Clock
from sixfbd.quantities import MINUTE, show_duration
from sixfbd.running import Running

GAP_S: Final = 10.0  # a restart that took less is none that messages speak of
SANDBOX: Final = "This is a sandbox: no real provider is meant."
FIRST_S: Final = 5 * MINUTE  # messages of this time after a start speak of the gap before it, and the first one does


def blind_before_start_s(started: Started | None) -> float | None:
    """Return for how long nobody watched before this start; None if there was no run before it."""
    if started is None or started.last_alive_at is None:
        return None
    return max(0.0, started.at - started.last_alive_at)


def remarks(judge: Judge, clock: Clock, *, sandbox: bool = False) -> list[str]:
    """Return what every message that is sent now has to say of the daemon itself."""
    said = [SANDBOX] if sandbox else []
    if judge.failing_since is not None:
        said.append(
            f"sixfbd cannot write its journal since {clock_time(judge.failing_since)} ({judge.last_journal_error}). "
            "A restart would forget what it decided since."
        )
    started = judge.state.started
    blind_s = blind_before_start_s(started)
    told = judge.closed["accepted"] + judge.closed["delivered"]
    if started is None or blind_s is None or blind_s < GAP_S:
        return said
    if clock.now() - started.at < FIRST_S or not told:
        said.append(
            f"sixfbd was not running for {show_duration(round(blind_s))}, until {clock_time(started.at)}. "
            "What happened meanwhile was not seen."
        )
    return said


def heartbeat_words(running: Running) -> str:
    """Return how the heartbeat is, "" if none is configured."""
    if running.config.heartbeat.url is None:
        return ""
    beats = running.beats
    last = "none was taken yet" if beats.last_at is None else f"the last was taken at {clock_time(beats.last_at)}"
    return f"withheld: {beats.withheld}; {last}" if beats.withheld else last


def nobody_told(running: Running) -> str:
    """Return why nobody may ever be told of an alert, "" once a message has reached somebody who is still configured."""
    known = running.catalog.notifiers
    people = {
        name
        for name, table in running.config.notifiers.items()
        if (entry := known.get(table.plugin)) is not None and entry.cls.reaches_people
    }
    routing = running.judge.policy.routing
    targets = [one for name in routing.receivers for one in routing.all_of(name) if one.notifier in people]
    if not targets:
        return "Nobody will be told of an alert: no receiver leads to anybody; add one, such as [receivers.primary]"
    if not any(one in running.judge.state.reached for one in targets):
        return "No message has reached anybody yet; try whether one does: sixfbctl notify test"
    return ""


def clock_time(at: float) -> str:
    """Return a time of day for people, with its date."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def damages(journal: JournalDatabase, store: SampleStore) -> list[Damage]:
    """Return what this start found damaged, or lost: samples.db knows how far the journal had come."""
    found = [damage for damage in (journal.damage, store.damage) if damage is not None]
    records, events = journal.opened_with.record, journal.opened_with.event
    lost = [
        f"the last {was - now} {what}"
        for what, was, now in (("records", store.witnessed[0], records), ("events", store.witnessed[1], events))
        if was > now
    ]
    if lost:
        why = "samples.db has seen more: the WAL was damaged or removed, or an older copy put in its place"
        found.append(Damage(file=journal.path.name, why=why, outcome=f"{' and '.join(lost)} are lost"))
    return found


def problems(running: Running) -> list[str]:
    """Return what is wrong with the disk, in words for `sixfbctl status`."""
    found = damages(running.journal, running.store)
    said = [str(damage) for damage in found]
    fresh = {damage.aside for damage in found}
    said += [
        f"{name} lies in the state directory since an earlier start; remove it when nobody needs it any more"
        for name in running.journal.room.set_aside
        if name not in fresh
    ]
    if running.judge.journal_failing:
        said.append(f"the journal cannot be written: {running.judge.last_journal_error}")
    if running.store.problem is not None:
        said.append(f"samples cannot be written: {running.store.problem}")
    return said


def budgets_left(policy: Policy, state: State, now: float) -> dict[tuple[str, str], int]:
    """Return how many messages may still go, by receiver and notifier: those of the address that may get the least."""
    left: dict[tuple[str, str], int] = {}
    for target, budget in policy.budgets.items():
        whom = (target.receiver, target.notifier)
        left[whom] = min(left.get(whom, MOST_SPENT), budget.left(state.spent.get((target, "")) or (), now))
    return left


def spent_budgets(running: Running) -> list[str]:
    """Say for whom something waits since their budget is spent, and until when."""
    waiting: dict[tuple[str, str], list[float]] = {}
    for owed in running.judge.state.obligations.values():
        if owed.postponed and owed.message is None:
            waiting.setdefault((owed.target.receiver, owed.target.notifier), []).append(owed.not_before)
    return [
        f"the budget of {receiver} through {notifier} is spent: {len(times)} wait for a digest, at "
        f"{datetime.fromtimestamp(min(times), UTC):%H:%M:%S} UTC; sixfbctl alerts lists what fires"
        for (receiver, notifier), times in sorted(waiting.items())
    ]
