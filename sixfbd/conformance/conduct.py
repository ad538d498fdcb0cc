"""What a plugin does when it runs: time, cancels, blocking, series, secrets, failures. In a loop of its own, in a thread.

Each check, notifier and inbound is made and called as the daemon does, with its own schedule's, intake's and containment's
code; HTTP ends at a far side that answers, fails in several ways, or hangs. What neither ends nor heeds its cancel is left
behind with its thread.
"""

import logging
import math
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event as Flag
from threading import Thread
from traceback import extract_tb, walk_stack
from typing import Any, Final

import httpx
import structlog
import trio
from msgspec import Struct
from structlog.testing import capture_logs

from sixfbd.config import CheckTable, Config, InboundTable, NotifierTable
from sixfbd.conformance.blocking import Blocking
from sixfbd.conformance.declared import place_of
from sixfbd.conformance.far_side import FAILING, FarSide, Surrounding
from sixfbd.conformance.finding import Finding, Subject
from sixfbd.containment import Ended, call_guarded, described, leaves, receipt_in_writing
from sixfbd.host import PluginCatalog
from sixfbd.instances import CLOSE_LIMIT_S, Surroundings, make_check, make_inbound, make_notifier, surroundings
from sixfbd.model import Json, MessageId, Report, Severity
from sixfbd.plugin import (
    InboundRefused,
    InboundRequest,
    Notification,
    NotifiedAlert,
    PermanentFailure,
    Secret,
    TemporaryFailure,
)
from sixfbd.schedule import GRACE_S, fault_of
from sixfbd.trial import NothingToRead, door

RUNS: Final = 4  # while the far side answers; from the third on nothing should be new
BEGUN_S: Final = 0.2  # after which a call is cancelled that waits for a far side that hangs
SPARE_S: Final = 10.0  # for a whole examination, beyond the time limits of its calls
MOST_TIMEOUT_S: Final = 10.0  # no call is waited for longer
_NOTIFICATION: Final = Notification(
    id=MessageId("m-1"),
    receiver="primary",
    address="",
    status="firing",
    severity=Severity.HIGH,
    title="[FIRING] QueueLong (high)",
    text="[FIRING] QueueLong (high)\n\n120 orders wait",
    alerts=(
        NotifiedAlert(
            id="i-1",
            status="firing",
            severity=Severity.HIGH,
            labels={"alertname": "QueueLong", "severity": "high", "shop": "main"},
            annotations={"summary": "120 orders wait"},
            value=120.0,
            starts_at=1_800_000_000.0,
        ),
    ),
    group_key="g-1",
    sent_at=1_800_000_060.0,
)


class _Ended(Struct, frozen=True):
    """How one call ended."""

    answer: object = None
    error: BaseException | None = None
    overran: bool = False
    swallowed: bool = False  # its cancel


class Examination:
    """One check, notifier or inbound while it is examined. `findings` may be read while it goes on."""

    def __init__(self, of: str, cls: type[Any], root: str) -> None:
        self.of = of
        self.where = place_of(cls)
        self.findings: list[Finding] = []
        self.secrets: set[str] = set()
        self.far_side = FarSide()
        self.blocking = Blocking(root)
        self.stuck = Flag()
        self._said: list[tuple[str, str]] = []  # where, text
        self._root = root

    # ---- finding -------------------------------------------------------------------------------------------------------

    def find(self, subject: Subject, says: str, mend: str, where: str = "") -> None:
        one = Finding(subject=subject, of=self.of, says=says, mend=mend, where=where or self.where)
        if one not in self.findings:
            self.findings.append(one)

    def hear(self, where: str, text: object) -> None:
        """Keep what comes out of the plugin, to be looked through for secrets."""
        self._said.append((where, str(text)))

    def blame(self, error: BaseException) -> str:
        """Return FILE:LINE of the plugin's innermost frame of an error, "" if there is none."""
        own = [frame for frame in extract_tb(leaves(error)[0].__traceback__) if frame.filename.startswith(self._root)]
        return f"{own[-1].filename}:{own[-1].lineno}" if own else ""

    def conclude(self) -> None:
        """Look through what was said and seen."""
        for place, what in self.blocking.found:
            self.find(
                "blocking",
                f"it {what} on the event loop: meanwhile nothing in the daemon runs",
                "await self.ctx.to_thread(...), or trio's own files, sockets and processes",
                place,
            )
        for where, text in self._said:
            if any(secret in text for secret in self.secrets):
                self.find(
                    "secret",
                    f"{where} shows a secret of its options",
                    "say what failed without the request, its address or headers, and without the answer's own words",
                )

    # ---- calling -------------------------------------------------------------------------------------------------------

    async def call(self, call: Callable[[], Awaitable[object]], timeout_s: float, cancel_s: float = 0.0) -> _Ended:
        """Await a plugin's call within its time, or cancel it after `cancel_s`; return how it ended.

        One that does not heed its cancel is told as such, and the examination is over.
        """
        ended: list[_Ended] = []
        done = trio.Event()
        scope = trio.CancelScope()

        async def run() -> None:
            how = Ended()
            with scope:
                how = await call_guarded(call, math.inf, self.of)
            swallowed = scope.cancel_called and not scope.cancelled_caught
            ended.append(_Ended(how.answer, how.error, scope.cancelled_caught, swallowed))
            done.set()

        limit_s = cancel_s or min(timeout_s, MOST_TIMEOUT_S)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            with trio.move_on_after(limit_s):
                await done.wait()
            if not done.is_set():
                scope.cancel()
                with trio.move_on_after(GRACE_S):
                    await done.wait()
            if not done.is_set():
                self.find(
                    "cancel",
                    f"it goes on for more than {GRACE_S:g} s after its cancel",
                    "let Cancelled through; shield nothing but a short cleaning up: "
                    "trio.CancelScope(shield=True, deadline=trio.current_time() + 0.5)",
                )
                self.stuck.set()
        return ended[0]

    async def interrupt(self, call: Callable[[], Awaitable[object]]) -> None:
        """Cancel a call that waits for a far side that hangs."""
        self.far_side.mode = "hangs"
        ended = await self.call(call, MOST_TIMEOUT_S, BEGUN_S)
        if ended.swallowed:
            how = "answers" if ended.error is None else f"raises {type(leaves(ended.error)[0]).__name__}"
            self.find(
                "cancel",
                f"it {how} although it was cancelled",
                "catch Exception, never BaseException or trio.Cancelled, or raise it again",
                self.blame(ended.error) if ended.error else "",
            )

    def overran(self, method: str, timeout_s: float) -> None:
        limit_s = min(timeout_s, MOST_TIMEOUT_S)
        self.find(
            "time",
            f"{method}() has no answer after {limit_s:g} s, though whoever it asks answers or fails at once",
            "wait for nothing without a limit (trio.move_on_after), and for less than the timeout",
        )

    async def close(self, instance: Any) -> None:
        ended = await self.call(instance.close, CLOSE_LIMIT_S)
        if ended.error is not None:
            self.find(
                "close",
                f"close() raises {described(ended.error)}",
                "close what is open, each on its own",
                self.blame(ended.error),
            )
        elif ended.overran:
            self.find(
                "close", f"close() takes longer than {CLOSE_LIMIT_S:g} s", "close without waiting for the far side"
            )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what is logged."""
        handler = _Handler(self)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            with capture_logs() as lines:
                try:
                    yield
                finally:
                    for line in lines:
                        error = line.get("exc_info")
                        shown = "".join(traceback.format_exception(error)) if isinstance(error, BaseException) else ""
                        self.hear(f"its log line {line.get('event', '')!r}", f"{line} {shown}")
        finally:
            root.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, examination: Examination) -> None:
        super().__init__()
        self._examination = examination

    def emit(self, record: logging.LogRecord) -> None:
        self._examination.hear(f"its log line of {record.name}", f"{record.getMessage()} {record.exc_text or ''}")


# ---- checks ------------------------------------------------------------------------------------------------------------


async def _check(
    one: Examination, table: CheckTable, catalog: PluginCatalog, config: Config, around: Surroundings
) -> None:
    instance = make_check(table, catalog.checks[table.plugin].cls, around)
    if instance.check is None:
        _cannot_start(one, instance.problem)
        return
    check, timeout_s = instance.check, instance.timeout_s
    intake = door(instance, catalog, config, around.world.clock)
    cursor: Json | None = None
    seen: set[tuple[str, object]] = set()
    one.far_side.mode = "answers"
    for number in range(RUNS):
        ended = await one.call(lambda: check.run(cursor), timeout_s)  # noqa: B023 - called within this turn
        report = await _report(one, "run", ended, timeout_s)
        if report is None:
            break
        refused = await _refused(intake, instance.name, report)
        for text in refused:
            one.find(
                "report", f"of its report is refused: {text}", "declare it in `metrics`, with labels that stay the same"
            )
        cursor = report.cursor if report.cursor is not None else cursor
        new = {(sample.metric, sample.labels) for sample in report.samples} - seen if not refused else set()
        if number >= 2 and new:
            metric, labels = sorted(new, key=str)[0]
            one.find(
                "series",
                f"its run {number + 1} brings series that no run before it had, such as {metric}{dict(labels)}",
                "labels name what there are few of (a shop, a city), never ids, times or texts; those are events",
            )
            break
        seen |= new
    for mode in FAILING:
        one.far_side.mode = mode
        asked = one.far_side.asked
        ended = await one.call(lambda: check.run(cursor), timeout_s)
        await _report(one, "run", ended, timeout_s, failing=one.far_side.asked > asked)
        if one.far_side.asked == asked:
            break  # it asks nobody: it would do the same each time
    await one.interrupt(lambda: check.run(cursor))
    await one.close(check)


async def _report(
    one: Examination, method: str, ended: _Ended, timeout_s: float, *, failing: bool = False
) -> Report | None:
    """Judge one run; return its report if it is one."""
    if ended.overran:
        one.overran(method, timeout_s)
        return None
    if ended.error is not None:
        error = leaves(ended.error)[0]
        one.hear(f"what {method}() raises ({type(error).__name__})", error)
        if not isinstance(error, Exception):
            _ends_the_process(one, method, error)
        elif not failing and not one.far_side.asked:
            one.find(
                "raises",
                f"{method}() raises {described(error)}, though nobody failed",
                "catch what may fail, and return a Report that is unhealthy, or unknown, and says why",
                one.blame(error),
            )
        return None
    if fault := fault_of(ended.answer):
        one.find("report", f"{method}() returned {fault}", 'return Report(Status.HEALTHY, "one line", (samples...,))')
        return None
    assert isinstance(ended.answer, Report)
    report = ended.answer
    one.hear("the summary of its report", report.summary)
    one.hear("a sample of its report", report.samples)
    one.hear("an event of its report", report.events)
    one.hear("its cursor", report.cursor)
    return report


async def _refused(intake: Any, name: Any, report: Report) -> tuple[str, ...]:
    try:
        return tuple((await intake.report(name, report)).named)
    except Exception as error:  # noqa: BLE001 - a plugin's report may be of any form; it is named
        return (described(error),)


def _ends_the_process(one: Examination, method: str, error: BaseException) -> None:
    one.find(
        "raises",
        f"{method}() raises {type(error).__name__}, which is to end a process",
        "raise an Exception, or return a Report that says what is wrong",
        one.blame(error),
    )


def _cannot_start(one: Examination, problem: str) -> None:
    one.hear("what its constructor raises", problem)
    one.find("raises", problem, "let the constructor keep its options, and open what may fail in the first call")


# ---- notifiers ---------------------------------------------------------------------------------------------------------


async def _notifier(
    one: Examination, table: NotifierTable, catalog: PluginCatalog, address: str, around: Surroundings
) -> None:
    instance = make_notifier(table, catalog.notifiers[table.plugin].cls, around)
    if instance.notifier is None:
        _cannot_start(one, instance.problem)
        return
    notifier, timeout_s = instance.notifier, float(table.timeout)
    notification = _with(address)
    for mode in ("answers", *FAILING):
        one.far_side.mode = mode
        asked = one.far_side.asked
        ended = await one.call(lambda: notifier.deliver(notification), timeout_s)
        if ended.overran:
            one.overran("deliver", timeout_s)
        elif ended.error is not None:
            _raised(one, ended.error)
        elif receipt_in_writing(ended.answer, ("accepted", "delivered")) is None:
            one.find(
                "report", f"deliver() returned {ended.answer!r:.60}, not a Receipt", "return Receipt(provider_id=...)"
            )
        else:
            one.hear("its receipt", ended.answer)
        if one.far_side.asked == asked:
            break
    await one.interrupt(lambda: notifier.deliver(notification))
    await one.close(notifier)


def _raised(one: Examination, error: BaseException) -> None:
    first = leaves(error)[0]
    if isinstance(first, TemporaryFailure | PermanentFailure):
        one.hear(f"what deliver() raises ({type(first).__name__})", first)
    elif not isinstance(first, Exception):
        _ends_the_process(one, "deliver", first)
    else:
        one.find(
            "raises",
            f"deliver() raises {type(first).__name__}: was it sent, and may another try do? The outbox cannot know",
            "raise TemporaryFailure(..., sent=...) if another try may do, else PermanentFailure",
            one.blame(error),
        )


def _with(address: str) -> Notification:
    from msgspec.structs import replace

    return replace(_NOTIFICATION, address=address)


# ---- webhooks ----------------------------------------------------------------------------------------------------------


async def _inbound(one: Examination, table: InboundTable, catalog: PluginCatalog, around: Surroundings) -> None:
    await trio.lowlevel.checkpoint()
    instance = make_inbound(table, catalog.inbound[table.kind].cls, around)
    if instance.inbound is None:
        _cannot_start(one, instance.problem)
        return
    signed = hasattr(table.options, "secrets")
    for body in (b"", b"{}", b"\xff\xfe not json", b'[{"id": 1}]'):
        request = InboundRequest(
            name=table.name,
            url=f"https://hooks.example/webhooks/{table.name}",
            path=f"/webhooks/{table.name}",
            body=body,
            received_at=around.world.clock.now(),
            headers=httpx.Headers({"content-type": "application/json", "x-signature": "t=1,v1=00"}),
        )
        try:
            events: object = instance.inbound.receive(request)
        except InboundRefused as refusal:
            one.hear("why it refuses a request", refusal)
        except BaseException as error:  # noqa: BLE001 - it is what is looked for
            one.find(
                "raises",
                f"receive() raises {type(error).__name__} for a request that nobody signed; its sender would try again for ever",
                "raise InboundRefused for whatever the sender got wrong",
                one.blame(error),
            )
        else:
            if signed or not isinstance(events, list | tuple):
                what = "takes a request that nobody signed" if signed else f"returned {type(events).__name__}"
                one.find(
                    "report",
                    f"receive() {what}",
                    "verify the signature with each of `secrets`, then parse; return events",
                )


# ---- in a thread -------------------------------------------------------------------------------------------------------


class Examinee(Struct, frozen=True):
    """What is examined."""

    of: str
    cls: type[Any]
    table: CheckTable | NotifierTable | InboundTable
    address: str = ""


def examine(subject: Examinee, catalog: PluginCatalog, config: Config, root: str) -> Sequence[Finding]:
    """Examine one check, notifier or inbound; return what was found. Blocks; what does not end is left behind."""
    one = Examination(subject.of, subject.cls, root)
    one.secrets = {secret for secret in _secrets(subject.table.options) if len(secret) >= 4}
    errors: list[BaseException] = []

    def live() -> None:
        try:
            trio.run(_examine, one, subject, catalog, config)
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    thread = Thread(target=live, name=f"examine {subject.of}", daemon=True)
    thread.start()
    limit_s = SPARE_S + (RUNS + len(FAILING) + 1) * MOST_TIMEOUT_S
    until = time.monotonic() + limit_s
    while thread.is_alive() and not one.stuck.is_set() and time.monotonic() < until:
        thread.join(0.05)
    if thread.is_alive() and not one.stuck.is_set():
        where = _standing(sys._current_frames().get(thread.ident or 0), root)
        mend = "await self.ctx.to_thread(...) what takes long, with a time limit of its own"
        one.find("blocking", "it does not come back: the daemon would be ended for it", mend, where)
    for error in errors:
        one.find(
            "raises", f"it breaks the event loop: {described(error)}", "start tasks in a nursery of run()'s own alone"
        )
    one.conclude()
    return one.findings


def _standing(frame: Any, root: str) -> str:
    own = [
        f"{inner.f_code.co_filename}:{line}"
        for inner, line in walk_stack(frame)
        if inner.f_code.co_filename.startswith(root)
    ]
    return own[0] if own else ""


async def _examine(one: Examination, subject: Examinee, catalog: PluginCatalog, config: Config) -> None:
    structlog.contextvars.clear_contextvars()
    async with Surrounding(one.far_side) as world:
        around = surroundings(config, world, NothingToRead())
        with one.blocking.watching(), one.listening():
            match subject.table:
                case CheckTable():
                    await _check(one, subject.table, catalog, config, around)
                case NotifierTable():
                    await _notifier(one, subject.table, catalog, subject.address, around)
                case InboundTable():
                    await _inbound(one, subject.table, catalog, around)


def _secrets(value: object) -> Iterator[str]:
    """Yield the secrets in options, those of tables and lists in them as well."""
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, Struct):
        for name in value.__struct_fields__:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, dict):
        for part in value.values():
            yield from _secrets(part)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _secrets(part)
