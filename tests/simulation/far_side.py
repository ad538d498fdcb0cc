"""What the simulated daemon talks to: checks that report what the scenario says, providers that take messages or fail.

Outlives the daemon: what a provider took it keeps, and a check that was set reports the same after a restart.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec
import trio
from msgspec import Struct, field

from sixfbd.host import CheckEntry, NotifierEntry, PluginCatalog
from sixfbd.model import Report, Sample, Status
from sixfbd.plugin import (
    Check,
    Context,
    Gauge,
    Metric,
    Notification,
    Notifier,
    PermanentFailure,
    Receipt,
    TemporaryFailure,
)
from sixfbd.quantities import SECOND, Duration
from sixfbd_plugins.notifiers.pace import Pace
from tests.simulation.scenario import ScenarioError, Step, parse_series

RETRY_AFTER_S = 30.0  # what "throttle" asks for


class Arrival(Struct, frozen=True, kw_only=True):
    """One alert of a message that reached a receiver, or the message itself if it is a notice. `at` is seconds from the
    scenario's beginning."""

    at: float
    message: str
    notifier: str
    receiver: str
    address: str
    kind: str
    alert: str = ""
    incident: str = ""
    severity: str = ""
    labels: dict[str, str] = {}
    text: str = ""


class Script(Struct):
    """What a check reports."""

    status: Status = Status.HEALTHY
    summary: str = "all is well"
    answers: bool = True
    samples: dict[str, Sample] = field(default_factory=dict)


class Trouble(Struct):
    """How a provider fails; `left` tries, None: until further notice."""

    fault: str
    left: int | None


class FarSide:
    """Everything around the daemon. `now` is set by who runs it; `gone` is set when the daemon has died."""

    def __init__(self, metrics: dict[str, Metric]) -> None:
        self.metrics = metrics
        self.scripts: dict[str, Script] = {}
        self.troubles: dict[str, Trouble] = {}
        self.arrivals: list[Arrival] = []
        self.tries = 0
        self.taken: dict[str, str] = {}  # what became of each message that a provider took
        self.elapsed_s = 0.0
        self.begin()

    def begin(self, elapsed_s: float = 0.0) -> None:
        """A life of the daemon begins, so long after the scenario."""
        self.gone = False
        self.elapsed_s = elapsed_s

    def now(self) -> float:
        """Seconds since the scenario began."""
        return self.elapsed_s + trio.current_time()

    # ---- checks ----

    def script(self, name: str) -> Script:
        return self.scripts.setdefault(name, Script())

    def set_check(self, step: Step) -> None:
        script = self.script(step.check)
        script.status = step.status or script.status
        script.summary = script.summary if step.summary is None else step.summary
        script.answers = step.answers
        for series in step.gone:
            script.samples.pop(series, None)
        for series, value in step.series.items():
            name, labels = parse_series(series)
            try:
                script.samples[series] = self.metrics[name](value, **labels)
            except TypeError as error:
                raise ScenarioError(f"at {step.time}: {error}") from None

    # ---- providers ----

    def set_provider(self, step: Step) -> None:
        if step.fault == "none":
            self.troubles.pop(step.notifier, None)
        else:
            self.troubles[step.notifier] = Trouble(step.fault, step.tries or None)

    async def take(self, notifier: str, notification: Notification) -> Receipt:
        """One try. Raises, hangs or answers as the provider does by now."""
        await trio.lowlevel.checkpoint()
        if self.gone:  # what a dead process would have sent
            await trio.sleep_forever()
        self.tries += 1
        fault = self._fault(notifier)
        if fault == "refuse":
            raise TemporaryFailure("503 Service Unavailable")
        if fault == "throttle":
            raise TemporaryFailure("429 Too Many Requests", retry_after_s=RETRY_AFTER_S)
        if fault == "reject":
            raise PermanentFailure("400 no such address")
        if fault == "hang":
            await trio.sleep_forever()
        if fault == "never arrives":
            self.taken[notification.id] = "accepted"
            return Receipt(message_id=notification.id, provider_id=notification.id)
        self._keep(notifier, notification)
        if fault == "lose answer":
            raise TemporaryFailure("connection reset", sent=True)
        return Receipt(message_id=notification.id, provider_id=notification.id)

    def look(self, notification: Notification) -> Receipt | None:
        state = self.taken.get(notification.id)
        if state is None:
            return None
        return Receipt(state=state, message_id=notification.id, provider_id=notification.id)  # type: ignore[arg-type]

    def _fault(self, notifier: str) -> str:
        trouble = self.troubles.get(notifier)
        if trouble is None:
            return ""
        if trouble.left is not None:
            trouble.left -= 1
            if not trouble.left:
                del self.troubles[notifier]
        return trouble.fault

    def _keep(self, notifier: str, said: Notification) -> None:
        self.taken[said.id] = "delivered"
        common = {
            "at": self.now(),
            "message": said.id,
            "notifier": notifier,
            "receiver": said.receiver,
            "address": said.address,
            "text": said.text,
        }
        if not said.alerts:
            self.arrivals.append(Arrival(kind="notice", severity=str(said.severity), **common))
        for one in said.alerts:
            self.arrivals.append(
                Arrival(
                    kind=one.kind,
                    alert=one.labels["alertname"],
                    incident=one.id,
                    severity=str(one.severity),
                    labels=one.labels,
                    **common,
                )
            )


def with_doubles(catalog: PluginCatalog, series: Iterable[str]) -> tuple[PluginCatalog, FarSide]:
    """Return the catalog with what the doubles bring, and what they talk to.

    The check `scripted` may report every metric that a plugin declares, and those of `series` besides. Of notifiers there
    are `once`, which drops repeats, `asked`, which can be asked what became of a message, `plain`, which can neither, and
    `paced`, which takes a message every two seconds.
    """
    own: dict[str, Metric] = {}
    for text in series:
        name, labels = parse_series(text)
        if name not in catalog.metrics:
            own[name] = Gauge(name, "of the scenario", tuple(labels))
    far_side = FarSide({**catalog.metrics, **own})

    class Scripted(Check[Any]):
        """Reports what the scenario says."""

        metrics: ClassVar[Any] = tuple(far_side.metrics.values())
        interval = Duration(30 * SECOND)

        async def run(self, cursor: Any) -> Report:
            script = far_side.script(self.ctx.name)
            if not script.answers:
                await trio.sleep_forever()
            await trio.lowlevel.checkpoint()
            return Report(script.status, script.summary, tuple(script.samples.values()))

    class Plain(Notifier[Any]):
        """Takes a message each time that it comes."""

        async def deliver(self, notification: Notification) -> Receipt:
            return await far_side.take(self.ctx.name, notification)

    class Once(Plain):
        """Drops a message that it has already."""

        idempotent = True

        async def deliver(self, notification: Notification) -> Receipt:
            if far_side.taken.get(notification.id) == "delivered":
                return Receipt(message_id=notification.id)
            return await super().deliver(notification)

    class Asked(Plain):
        """Says, when asked, what became of a message."""

        can_look_up = True
        receipts = True

        @classmethod
        def looks_for_receipts(cls, options: Any) -> bool:
            return True

        async def lookup(self, notification: Notification) -> Receipt | None:
            await trio.lowlevel.checkpoint()
            return far_side.look(notification)

    class Paced(Plain):
        """Takes a message every two seconds, as a channel of Discord does."""

        def __init__(self, options: Any, ctx: Context) -> None:
            super().__init__(options, ctx)
            self._pace = Pace(0.5, ctx.clock)

        async def deliver(self, notification: Notification) -> Receipt:
            await self._pace.turn(notification)
            return await super().deliver(notification)

    kinds = {"plain": Plain, "once": Once, "asked": Asked, "paced": Paced}
    notifiers = {name: NotifierEntry(name, cls, "double") for name, cls in kinds.items()}
    checks = {**catalog.checks, "scripted": CheckEntry("scripted", Scripted, "double")}
    changed = msgspec.structs.replace(catalog, checks=checks, notifiers={**catalog.notifiers, **notifiers})
    return changed, far_side
