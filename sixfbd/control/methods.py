"""The methods' table of the control socket: names, docs, parameters, and which engine call answers each.

A method that changes something is audited here, whatever comes of it, so that no method can forget to.
"""

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

import msgspec
import structlog
import trio
from msgspec import Meta, Struct

from sixfbd.control.engine import AlertView, ControlEngine, QueryView, SilenceMade, alert_view
from sixfbd.control.protocol import Refused
from sixfbd.model import Actor, AddSilence
from sixfbd.quantities import show_duration

log = structlog.get_logger("sixfbd.control")

CALL_TIMEOUT_S: Final = 60.0
LONG_CALL_TIMEOUT_S: Final = 1800.0  # what reads or writes a whole journal
AUDIT_TIMEOUT_S: Final = 5.0
MAX_AUDITED_TEXT: Final = 1000  # characters
MAX_POINTS: Final = 11_000  # per series, as Prometheus' query_range

Run: TypeAlias = Callable[[Any, Actor], Awaitable[object] | AsyncIterator[object]]
P = TypeVar("P", bound=Struct)


class Method(Struct, frozen=True):
    """One method: `run` gets the parsed `params` and who calls; it returns a value, or an iterator for a stream.

    `timeout_s` bounds a call; a stream has no end of its own. What only `reads` ends when who asked it hangs up.
    """

    doc: str
    params: type[Struct]
    run: Run
    stream: bool = False
    reads: bool = False
    timeout_s: float = CALL_TIMEOUT_S


class _Params(Struct, frozen=True, forbid_unknown_fields=True):
    """Parameters by name; unknown ones are refused."""


Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]
Expression: TypeAlias = Annotated[str, Meta(min_length=1, max_length=16_384)]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=10_000)]
LAST_SECOND: Final = 253_402_300_799  # of the year 9999, where calendars end
Time: TypeAlias = Annotated[float, Meta(ge=0, le=LAST_SECOND)]


class Nothing(_Params, frozen=True, forbid_unknown_fields=True):
    """A method without parameters."""


class OneCheck(_Params, frozen=True, forbid_unknown_fields=True):
    name: Annotated[Name, Meta(description="Name of a check.")]


class SeriesParams(_Params, frozen=True, forbid_unknown_fields=True):
    matcher: Annotated[str, Meta(max_length=16_384, description='A selector such as up{job="shop"}; "" for all.')] = ""
    limit: Limit = 1000


class QueryParams(_Params, frozen=True, forbid_unknown_fields=True):
    expr: Annotated[Expression, Meta(description="PromQL.")]
    at: Annotated[Time | None, Meta(description="Unix seconds; now if left out.")] = None


class RangeParams(_Params, frozen=True, forbid_unknown_fields=True):
    expr: Annotated[Expression, Meta(description="PromQL.")]
    start: Annotated[Time, Meta(description="Unix seconds.")]
    end: Annotated[Time, Meta(description="Unix seconds.")]
    step: Annotated[float, Meta(gt=0, le=LAST_SECOND, description="Seconds.")]


class AckParams(_Params, frozen=True, forbid_unknown_fields=True):
    alert: Annotated[Name, Meta(description="Id of a firing alert.")]
    comment: Annotated[str, Meta(max_length=1000)] = ""


Matchers: TypeAlias = Annotated[
    tuple[Annotated[str, Meta(max_length=1000)], ...],
    Meta(min_length=1, max_length=50, description='Such as alertname="ServiceDown"; all must match.'),
]


class MatchersParams(_Params, frozen=True, forbid_unknown_fields=True):
    matchers: Matchers


class SilenceParams(_Params, frozen=True, forbid_unknown_fields=True):
    matchers: Matchers
    duration_s: Annotated[float, Meta(gt=0, le=LAST_SECOND, description="Seconds.")]
    starts_at: Annotated[Time | None, Meta(description="Unix seconds; now if left out.")] = None
    comment: Annotated[str, Meta(max_length=1000)] = ""


class OneSilence(_Params, frozen=True, forbid_unknown_fields=True):
    id: Annotated[Name, Meta(description="Id of a silence.")]


class NotifyTestParams(_Params, frozen=True, forbid_unknown_fields=True):
    receivers: Annotated[
        tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=100, description="Names; all if left out.")
    ] = ()
    wait_s: Annotated[float, Meta(ge=0, le=50, description="Seconds to wait for what comes of it.")] = 30.0


class LabelsParams(_Params, frozen=True, forbid_unknown_fields=True):
    labels: Annotated[dict[str, str], Meta(max_length=100, description="Labels of an alert.")]


class OnCallParams(_Params, frozen=True, forbid_unknown_fields=True):
    name: Annotated[Name | None, Meta(description="One rotation; all if left out.")] = None
    at: Annotated[Time | None, Meta(description="Unix seconds; now if left out.")] = None


class OneAlert(_Params, frozen=True, forbid_unknown_fields=True):
    alert: Annotated[Name, Meta(description="Id of an alert.")]


class WhyNotParams(_Params, frozen=True, forbid_unknown_fields=True):
    rule: Annotated[Name, Meta(description="Name of a rule.")]
    labels: Annotated[dict[str, str], Meta(max_length=100, description="Labels that its alert would have.")] = {}
    at: Annotated[Time | None, Meta(description="Unix seconds; now if left out.")] = None


Positive = Annotated[float, Meta(gt=0)]


class ReportParams(_Params, frozen=True, forbid_unknown_fields=True):
    name: Annotated[Name, Meta(description="Name of a report.")]
    timeframe_s: Annotated[Positive | None, Meta(description="Seconds; the report's own if left out.")] = None
    check: Annotated[str, Meta(max_length=200, description='Only what this check measured; "": all.')] = ""
    about: Annotated[str, Meta(max_length=200, description='What it is about, such as an order; "": everything.')] = ""


class EmitParams(_Params, frozen=True, forbid_unknown_fields=True):
    type: Annotated[Name, Meta(description="Such as ticket_sale.")]
    data: dict[str, Any] = {}
    id: Annotated[str | None, Meta(description="Made up if left out; a known one is a duplicate.")] = None
    timestamp: Annotated[float | None, Meta(description="Unix seconds; now if left out.")] = None


class EventsParams(_Params, frozen=True, forbid_unknown_fields=True):
    type: str | None = None
    limit: Limit = 50


class FollowParams(_Params, frozen=True, forbid_unknown_fields=True):
    type: str | None = None
    after: Annotated[
        Annotated[int, Meta(ge=0, le=2**63 - 1)] | None,
        Meta(description="Number of the last event known; those to come if left out."),
    ] = None


class OutboxParams(_Params, frozen=True, forbid_unknown_fields=True):
    state: Annotated[
        Literal["open", "pending", "sending", "unknown", "accepted", "delivered", "dead", "suppressed"] | None,
        Meta(description="In this state only; open: not yet done with (pending, sending, unknown)."),
    ] = None
    limit: Limit = 100


class OneMessage(_Params, frozen=True, forbid_unknown_fields=True):
    id: Annotated[Name, Meta(description="Id of a message.")]


class TokenParams(_Params, frozen=True, forbid_unknown_fields=True):
    name: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
            description='1 to 64 letters, digits, "_", "." and "-", the first a letter or digit.',
        ),
    ]
    scopes: Annotated[tuple[str, ...], Meta(min_length=1, description="Of events, alerts, read.")] = ("events",)


class OneToken(_Params, frozen=True, forbid_unknown_fields=True):
    name: Name


class OnePlugin(_Params, frozen=True, forbid_unknown_fields=True):
    name: Annotated[Name, Meta(description="Name of a plugin that is kept out.")]


class BackupParams(_Params, frozen=True, forbid_unknown_fields=True):
    path: Annotated[
        str, Meta(pattern="^/[^\\x00]*$", max_length=4096, description="the absolute path of the file to write.")
    ]


class EraseParams(_Params, frozen=True, forbid_unknown_fields=True):
    customer: Annotated[str, Meta(min_length=1, max_length=1000, description="the customer's id, as the shop has it.")]
    dry_run: Annotated[bool, Meta(description="count, and change nothing.")] = False

    def told(self) -> "EraseParams":
        """Return what may be told of it: whoever is forgotten is not named."""
        return msgspec.structs.replace(self, customer="(somebody)")


def methods_of(engine: ControlEngine) -> dict[str, Method]:
    """Return the whole table, `rpc.commands` included, which describes the others."""
    table = {**_reading(engine), **_changing(engine)}

    async def describe(params: Nothing, actor: Actor) -> dict[str, Any]:
        return {name: described(method) for name, method in sorted(table.items())}

    table["rpc.commands"] = _method("List the methods: docs and JSON Schemas of their parameters.", Nothing, describe)
    return table


def described(method: Method) -> dict[str, Any]:
    """Return what `rpc.commands` says of a method."""
    return {"doc": method.doc, "stream": method.stream, "params": msgspec.json.schema(method.params)}


def _reading(engine: ControlEngine) -> dict[str, Method]:
    async def query_range(p: RangeParams, actor: Actor) -> QueryView:
        return await engine.query_range(p.expr, p.start, p.end, _fitting_step(p))

    async def alerts(p: Nothing, actor: Actor) -> list[AlertView]:
        return [alert_view(alert) for alert in await engine.alerts()]

    table = {
        "status": _method("The daemon at a glance.", Nothing, lambda p, _: engine.status()),
        "checks": _method("All checks and their last reports.", Nothing, lambda p, _: engine.checks()),
        "series": _method(
            "Series and their last values.", SeriesParams, lambda p, _: engine.series(p.matcher, p.limit)
        ),
        "query": _method("Evaluate PromQL at one time.", QueryParams, lambda p, _: engine.query(p.expr, p.at)),
        "query_range": _method("Evaluate PromQL over a span.", RangeParams, query_range),
        "alerts": _method("Pending and firing alerts, worst first.", Nothing, alerts),
        "events.list": _method("The last events.", EventsParams, lambda p, _: engine.events(p.type, p.limit)),
        "events.follow": _stream(
            "Events as they come.", FollowParams, lambda p, _: engine.follow_events(p.type, p.after)
        ),
        "outbox.list": _method("Messages, newest first.", OutboxParams, lambda p, _: engine.outbox(p.state, p.limit)),
        "outbox.show": _method("One message and its history.", OneMessage, lambda p, _: engine.message(p.id)),
        "why": _method("The whole story of one alert.", OneAlert, lambda p, _: engine.why(p.alert)),
        "why_not": _method(
            "Why a rule does not fire, or nobody is told.",
            WhyNotParams,
            lambda p, _: engine.why_not(p.rule, p.labels, p.at),
        ),
        "report.list": _method("The reports that there are.", Nothing, lambda p, _: engine.reports()),
        "report": _method(
            "One report.", ReportParams, lambda p, _: engine.report(p.name, p.timeframe_s, p.check, p.about)
        ),
        "silence.list": _method("Silences that are not over.", Nothing, lambda p, _: engine.silences()),
        "silence.preview": _method(
            "The alerts that matchers match.", MatchersParams, lambda p, _: engine.preview_silence(p.matchers)
        ),
        "route.test": _method(
            "Who would be told of an alert with these labels.", LabelsParams, lambda p, _: engine.test_route(p.labels)
        ),
        "oncall": _method("Who is on call.", OnCallParams, lambda p, _: engine.oncall(p.name, p.at)),
        "plugins": _method("What plugins brought, and those left out.", Nothing, lambda p, _: engine.plugins()),
        "reload.preview": _method("What a reload would do now.", Nothing, lambda p, _: engine.preview_reload()),
        "token.list": _method("Access tokens by name.", Nothing, lambda p, _: engine.tokens()),
        "journal.status": _method("Sizes, counts, ages.", Nothing, lambda p, _: engine.journal_status()),
        "journal.verify": _method(
            "Check the journal against itself.",
            Nothing,
            lambda p, _: engine.journal_verify(),
            timeout_s=LONG_CALL_TIMEOUT_S,
        ),
        "journal.export": _stream(
            "Every record and event as JSON, oldest first.", Nothing, lambda p, _: engine.journal_export()
        ),
    }
    return {name: msgspec.structs.replace(method, reads=True) for name, method in table.items()}


def _changing(engine: ControlEngine) -> dict[str, Method]:
    async def add_silence(p: SilenceParams, who: Actor) -> SilenceMade:
        return await engine.add_silence(AddSilence(**msgspec.structs.asdict(p)), who)

    # An event is written down whole, with its source; what the judge decides it audits itself, in the same commit.
    own = {
        "events.emit": _method(
            "Take one event in.", EmitParams, lambda p, who: engine.emit(p.type, p.data, p.id, p.timestamp, who)
        ),
        "check.pause": _method("Stop running a check.", OneCheck, lambda p, who: engine.pause_check(p.name, True, who)),
        "check.resume": _method("Run it again.", OneCheck, lambda p, who: engine.pause_check(p.name, False, who)),
        "ack": _method("Take a firing alert on.", AckParams, lambda p, who: engine.ack(p.alert, p.comment, who)),
        "silence.add": _method("Tell nobody of what matchers match.", SilenceParams, add_silence),
        "outbox.drop": _method(
            "Give a message up that is not sent yet.", OneMessage, lambda p, who: engine.drop_message(p.id, who)
        ),
        "outbox.retry": _method(
            "Send again what was given up.", OneMessage, lambda p, who: engine.retry_message(p.id, who)
        ),
        "notify.test": _method(
            "Send a test through every channel of receivers.",
            NotifyTestParams,
            lambda p, who: engine.test_notify(p.receivers, p.wait_s, who),
        ),
        "drill": _method(
            "Hold a drill: a message that says so, through every channel of receivers.",
            NotifyTestParams,
            lambda p, who: engine.hold_drill(p.receivers, p.wait_s, who),
        ),
        "silence.expire": _method("End a silence.", OneSilence, lambda p, who: engine.expire_silence(p.id, who)),
    }
    audited = {
        "check.run": _method(
            "Run a check now.", OneCheck, lambda p, who: engine.run_check(p.name, who), timeout_s=600.0
        ),
        "token.create": _method(
            "Make an access token.", TokenParams, lambda p, who: engine.create_token(p.name, p.scopes, who)
        ),
        "token.revoke": _method("Make a token worthless.", OneToken, lambda p, who: engine.revoke_token(p.name, who)),
        "plugins.release": _method(
            "Take a plugin in again that was kept out.", OnePlugin, lambda p, who: engine.release_plugin(p.name, who)
        ),
        "reload": _method(
            "Take the configuration in anew, all or nothing.", Nothing, lambda p, who: engine.reload(who)
        ),
        "stop": _method("Drain and stop.", Nothing, lambda p, who: engine.stop(who)),
        "journal.backup": _method(
            "Write a copy of the journal to a file.",
            BackupParams,
            lambda p, who: engine.journal_backup(p.path, who),
            timeout_s=LONG_CALL_TIMEOUT_S,
        ),
        "journal.erase": _method(
            "Forget a customer in every event.",
            EraseParams,
            lambda p, who: engine.journal_erase(p.customer, p.dry_run, who),
            timeout_s=LONG_CALL_TIMEOUT_S,
        ),
    }
    return {**own, **{name: _audited(engine, name, method) for name, method in audited.items()}}


def _method(
    doc: str, params: type[P], run: Callable[[P, Actor], Awaitable[object]], *, timeout_s: float = CALL_TIMEOUT_S
) -> Method:
    return Method(doc, params, run, timeout_s=timeout_s)


def _stream(doc: str, params: type[P], run: Callable[[P, Actor], AsyncIterator[object]]) -> Method:
    return Method(doc, params, run, stream=True)


def _audited(engine: ControlEngine, name: str, method: Method) -> Method:
    async def run(params: Struct, actor: Actor) -> object:
        outcome = "cut off"
        try:
            answer = method.run(params, actor)
            assert isinstance(answer, Awaitable)
            result = await answer
            outcome = "ok"
            return result
        except Exception as error:
            outcome = f"refused: {error}" if isinstance(error, Refused) else f"failed: {type(error).__name__}"
            raise
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(AUDIT_TIMEOUT_S):
                await _audit(engine, actor, _command_text(name, params), outcome[:MAX_AUDITED_TEXT])

    return msgspec.structs.replace(method, run=run)


async def _audit(engine: ControlEngine, actor: Actor, command: str, outcome: str) -> None:
    log.info("control.command", by=actor.name, command=command, outcome=outcome)
    try:
        await engine.audit(actor, command, outcome)
    except Exception as error:  # noqa: BLE001 - the command itself took effect; its answer must not be lost for this
        log.error("control.audit_failed", by=actor.name, command=command, error=str(error))


def _command_text(name: str, params: Struct) -> str:
    words = msgspec.json.encode(params.told() if isinstance(params, EraseParams) else params).decode()
    return name if words == "{}" else f"{name} {words}"[:MAX_AUDITED_TEXT]


def _fitting_step(p: RangeParams) -> float:
    if p.end < p.start:
        raise Refused("the end is before the start; swap them")
    if (p.end - p.start) / p.step > MAX_POINTS:
        raise Refused(f"more than {MAX_POINTS} points a series; take a step of at least {_least_step(p)}")
    return p.step


def _least_step(p: RangeParams) -> str:
    least_s = (p.end - p.start) / MAX_POINTS
    return show_duration(math.ceil(least_s) if least_s > 60 else math.ceil(least_s * 1000) / 1000)
