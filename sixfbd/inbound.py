"""Webhooks of providers on their way in: limited, handed to the plugin that knows them, and their events to the door.

Owns the inbounds of the configuration, the counts of what became of their requests, and the time that one may take. What
a plugin raises or returns is contained and named here. Knows nothing of HTTP, and writes no body anywhere.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from traceback import extract_tb
from typing import Final, get_args

import httpx
import structlog
import trio

from sixfbd.containment import described, kind_of, words_of
from sixfbd.http.engine import WebhookOutcome, WebhookTaken
from sixfbd.instances import InboundInstance
from sixfbd.intake import Intake, Refused
from sixfbd.journal.errors import JournalError
from sixfbd.journal.event_log import Accepted
from sixfbd.model import Event
from sixfbd.plugin import Clock, InboundRefused, InboundRequest
from sixfbd.quantities import MINUTE
from sixfbd.rates import Bucket

MAX_EVENTS: Final = 5000  # of one request; validating them takes the loop some 20 ms
MAX_WAITING: Final = 200  # requests that wait for the disk; of more the sender is told to come again
SAID_EVERY_S: Final = MINUTE  # one line for each inbound and outcome
OUTCOMES: Final[tuple[WebhookOutcome, ...]] = get_args(WebhookOutcome)

log = structlog.get_logger("sixfbd.inbound")


class _Wrong(Exception):  # noqa: N818 - a way out of `_read`, named as what it is
    """A request came to nothing, for this outcome and reason."""

    def __init__(self, outcome: WebhookOutcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


class Inbounds:
    """`run` is a task of the daemon's; `receive` may be called from any number of tasks while it runs."""

    def __init__(self, intake: Intake, clock: Clock, instances: Mapping[str, InboundInstance]) -> None:
        self.requests: Counter[tuple[str, WebhookOutcome]] = Counter()
        """Requests by inbound and outcome."""
        self._intake = intake
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}
        self._said: dict[tuple[str, WebhookOutcome], tuple[float, int]] = {}
        self._waiting = 0
        self._nursery: trio.Nursery | None = None
        self.instances: Mapping[str, InboundInstance] = {}
        self.replace(instances)

    def replace(self, instances: Mapping[str, InboundInstance]) -> None:
        """A reload: requests that are on their way go on with what they have."""
        self.instances = instances
        for name in instances:
            for outcome in OUTCOMES:
                self.requests[name, outcome] += 0  # a counter begins at 0, or its first requests show in no rate

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what is being written going until cancelled, whoever waits for it."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def receive(
        self,
        name: str,
        url: str,
        query: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        *,
        rate: int,
        limit_s: float,
    ) -> WebhookTaken | None:
        """Take one request; None if there is no such inbound. `limit_s` is how long its sender waits for an answer."""
        instance = self.instances.get(name)
        if instance is None:
            await trio.lowlevel.checkpoint()
            return None
        now = self._clock.now()
        bucket = self._buckets.setdefault(name, Bucket(now))
        try:
            if bucket.take(rate, now):
                raise _Wrong("limited", f"more than {rate} requests a second")
            request = InboundRequest(
                name=name,
                url=url,
                path=f"/webhooks/{name}",
                query=query,
                headers=httpx.Headers(list(headers)),
                body=body,
                received_at=self._clock.wall().timestamp(),
            )
            taken = await self._put(name, _read(instance, request, f"inbound {name}"), limit_s)
        except _Wrong as wrong:
            self._say(instance, wrong)
            taken = WebhookTaken(wrong.outcome, detail=wrong.reason)
        self.requests[name, taken.outcome] += 1
        return taken

    async def _put(self, name: str, events: Sequence[Event], limit_s: float) -> WebhookTaken:
        """Have the events written; a sender that leaves, or has waited for long enough, does not keep them from it."""
        if not events:
            await trio.lowlevel.checkpoint()
            return WebhookTaken("accepted")
        if self._nursery is None or self._waiting >= MAX_WAITING:
            raise _Wrong("unavailable", f"{self._waiting} requests wait for the journal")
        answers: list[WebhookTaken | _Wrong] = []
        answered = trio.Event()

        async def put() -> None:
            self._waiting += 1
            try:
                answers.append(await self._taken(name, events))
            except _Wrong as wrong:
                answers.append(wrong)
            finally:
                self._waiting -= 1
                answered.set()

        self._nursery.start_soon(put)
        with trio.move_on_after(limit_s):
            await answered.wait()
        if not answers:
            raise _Wrong("late", f"the journal did not answer within {limit_s:g} s")
        if isinstance(answers[0], _Wrong):
            raise answers[0]
        return answers[0]

    async def _taken(self, name: str, events: Sequence[Event]) -> WebhookTaken:
        try:
            results = await self._intake.events(f"inbound:{name}", events)
        except JournalError as error:
            raise _Wrong("unavailable", str(error)) from error
        except Exception as error:  # a fault of our own: it must not end the daemon
            log.exception("inbound.broken", inbound=name)
            raise _Wrong("failed", f"a fault of the daemon's own: {described(error)}") from error
        accepted = sum(isinstance(one, Accepted) for one in results)
        refused = [(index, one) for index, one in enumerate(results) if isinstance(one, Refused)]
        if refused:
            index, first = refused[0]
            where = f"{first.field}: " if first.field else ""
            raise _Wrong(
                "invalid", f"{len(refused)} of {len(results)} events, first number {index}, {where}{first.message}"
            )
        return WebhookTaken("accepted" if accepted else "duplicate", accepted)

    def _say(self, instance: InboundInstance, wrong: _Wrong) -> None:
        """Log what came to nothing, at most once a minute for each inbound and outcome."""
        key, now = (instance.name, wrong.outcome), self._clock.now()
        said_at, untold = self._said.get(key, (-math.inf, 0))
        if now - said_at < SAID_EVERY_S:
            self._said[key] = said_at, untold + 1
            return
        self._said[key] = now, 0
        log.warning(
            "inbound.not_taken",
            inbound=instance.name,
            kind=instance.kind,
            outcome=wrong.outcome,
            reason=wrong.reason,
            untold=untold,
        )


def _read(instance: InboundInstance, request: InboundRequest, whose: str) -> Sequence[Event]:
    """Return the events of a request. Raises _Wrong, whatever the plugin does.

    `whose` is what the watchdog reads off this frame if the call blocks the loop.
    """
    if instance.inbound is None:
        raise _Wrong("failed", instance.problem)
    try:
        events = instance.inbound.receive(request)
    except InboundRefused as refusal:
        raise _Wrong("refused", words_of(refusal)) from None
    except BaseException as error:
        frame = extract_tb(error.__traceback__)[-1]  # its text may hold what the body held
        place = f"{frame.filename}:{frame.lineno}"
        raise _Wrong("failed", f"kind {instance.kind} raised {type(error).__name__} at {place}") from error
    if not isinstance(events, list | tuple):
        raise _Wrong("failed", f"kind {instance.kind}: receive() returned {kind_of(events)}, not a list of events")
    if len(events) > MAX_EVENTS:
        raise _Wrong("invalid", f"{len(events)} events in one request; at most {MAX_EVENTS} are taken")
    return events
