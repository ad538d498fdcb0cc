"""The heartbeat: a sign of life to a dead man's switch outside, sent only on proof that the daemon does its work.

The machine, the network or the daemon may end without a word; then the switch, which expects a request every so often, tells
somebody. A daemon that lives and does not work must not keep the switch quiet: each beat needs checks that ran, a journal
that took a write just now, an outbox in which nothing is stuck, and drills, if there are any, that arrived. What withholds
a beat is logged and shown.
"""

from collections.abc import Callable, Iterable
from typing import Final

import structlog
import trio

from sixfbd.config.tables import Heartbeat
from sixfbd.drills import failed
from sixfbd.journal.errors import JournalError
from sixfbd.model import CheckState
from sixfbd.plugin import Outbound, TemporaryFailure
from sixfbd.quantities import Secret, show_duration
from sixfbd.running import Beats, Running

TRIES: Final = 3  # of one beat, within its interval
MAX_ANSWER_BYTES: Final = 64 * 1024
PROBE_S: Final = 10.0
LATE_FACTOR: Final = 2.0  # a check that has not run for so many intervals does not run
LATE_S: Final = 60.0  # and this much longer
MOST_NAMED: Final = 3
STUCK_S: Final = 900.0

log = structlog.get_logger("sixfbd.heartbeat")


async def beat(running: Running) -> None:
    """Send a beat every interval for as long as it is let; `[heartbeat]` may come, change and go by reloads."""
    beats, outbound = running.beats, running.world.outbound("heartbeat")
    while True:
        settings = running.config.heartbeat
        if settings.url is None:
            beats.withheld = ""
            await running.reloaded.wait(running.reloaded.generation)
            continue
        began = trio.current_time()
        withheld = await what_does_not_work(running)
        _note(beats, withheld or await send(outbound, settings, settings.url, beats, running.world.clock.now))
        await _sleep_until(running, settings, began + float(settings.interval))


async def _sleep_until(running: Running, settings: Heartbeat, at: float) -> None:
    """Return at a time of trio's, or when the configuration says something else."""
    while (left_s := at - trio.current_time()) > 0 and running.config.heartbeat == settings:
        await running.reloaded.wait_at_most(running.reloaded.generation, left_s)


def _note(beats: Beats, withheld: str) -> None:
    if withheld and withheld != beats.withheld:
        log.warning("heartbeat.withheld", reason=withheld)
    elif beats.withheld and not withheld:
        log.info("heartbeat.sent_again")
    beats.withheld = withheld


async def what_does_not_work(running: Running) -> str:
    """Return what is missing to the proof of work, "" if nothing is."""
    now = running.world.clock.now()
    if idle := idle_checks(running.schedule.states(), now):
        more = f" and {len(idle) - MOST_NAMED} more" if len(idle) > MOST_NAMED else ""
        return f"checks do not run: {', '.join(idle[:MOST_NAMED])}{more}"
    if (age_s := running.judge.oldest_message_age_s()) > STUCK_S:
        return f"the oldest message has waited for {show_duration(round(age_s))}"
    if lost := failed(running.judge.state, running.judge.policy.routing, now):
        return str(lost[0])
    try:
        with trio.fail_after(PROBE_S):
            await running.journal.probe(now)
    except trio.TooSlowError:
        return f"the journal took no write within {PROBE_S:g} s"
    except JournalError as error:
        return f"the journal cannot be written: {error}"
    return ""


def idle_checks(states: Iterable[CheckState], now: float) -> list[str]:
    """Return the checks that should have run lately and have not."""
    return [
        state.name
        for state in states
        if not state.paused
        and now - max(state.last_run_at or 0.0, state.awaited_since) > LATE_FACTOR * state.interval_s + LATE_S
    ]


async def send(outbound: Outbound, settings: Heartbeat, secret: Secret, beats: Beats, now: Callable[[], float]) -> str:
    """Send one beat, several times if need be; return why it was not taken, "" if it was."""
    said = ""
    for number in range(TRIES):
        await trio.sleep(float(settings.interval) / (4 * TRIES) * number)
        try:
            answer = await outbound.request(
                settings.method, secret.reveal(), timeout_s=float(settings.timeout), max_bytes=MAX_ANSWER_BYTES
            )
        except TemporaryFailure as error:
            said = _without(secret, f"the switch cannot be reached: {error}")
            continue
        if 200 <= answer.status_code < 300:
            beats.last_at, beats.sent = now(), beats.sent + 1
            return ""
        said = f"the switch answered {answer.status_code}"
    return said


def _without(secret: Secret, text: str) -> str:
    """Return a text without the address, of which the path is the secret part."""
    url = secret.reveal()
    path = url.partition("://")[2].partition("/")[2]
    for part in (url, path):
        text = text.replace(part, "***") if part else text
    return text
