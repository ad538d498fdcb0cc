"""/api/silences: those that are not over, new ones, and their end."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct
from quart import Response

from sixfbd.faults import not_json, unfit
from sixfbd.http.answers import Refusal, show_time, success
from sixfbd.http.asked import Asked
from sixfbd.http.engine import EngineUnavailable
from sixfbd.http.guard import caller
from sixfbd.http.parameters import read_time
from sixfbd.http.routes import Answer, Body, Parameter, Room, Route
from sixfbd.model import Actor, AddSilence, Command, ExpireSilence, Outcome, Silence
from sixfbd.quantities import Duration


class SilenceView(Struct, frozen=True, rename="camel"):
    """A silence on the wire."""

    id: str
    state: str
    matchers: tuple[str, ...]
    starts_at: str
    ends_at: str
    author: str
    comment: str


class Silences(Struct, frozen=True):
    """The next to end first."""

    silences: list[SilenceView]


class SilenceBody(Struct, frozen=True, forbid_unknown_fields=True, rename="camel", kw_only=True):
    """`matchers` such as `alertname="ServiceDown"`, all of which must match; `duration` or `endsAt`, `startsAt` if not now."""

    matchers: Annotated[tuple[str, ...], Meta(min_length=1, max_length=50)]
    duration: str | None = None
    starts_at: str | None = None
    ends_at: str | None = None
    comment: Annotated[str, Meta(max_length=1000)] = ""


class SilenceDone(Struct, frozen=True):
    """The silence, and what came of it."""

    id: str
    detail: str


def view_of(silence: Silence, now: float) -> SilenceView:
    return SilenceView(
        id=silence.id,
        state="active" if silence.starts_at <= now else "pending",
        matchers=silence.matchers,
        starts_at=show_time(silence.starts_at),
        ends_at=show_time(silence.ends_at),
        author=silence.author,
        comment=silence.comment,
    )


async def silences(room: Room) -> Response:
    now = room.engine.now()
    open_ = sorted((one for one in room.engine.silences() if one.ends_at > now), key=lambda one: (one.ends_at, one.id))
    return success(Silences([view_of(one, now) for one in open_]))


async def add_silence(room: Room, asked: Asked) -> Response:
    try:
        body = msgspec.json.decode(asked.content, type=SilenceBody)
    except msgspec.ValidationError as error:
        raise Refusal(400, "bad_request", f"the body is not a silence: {' '.join(unfit(error))}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refusal(400, "bad_request", f"the body is not JSON: {not_json(error)}") from error
    outcome = await _commanded(room, asked, _command_of(body, room.engine.now()))
    return success(SilenceDone(outcome.id, outcome.detail))


async def expire_silence(room: Room, asked: Asked, id: str) -> Response:  # noqa: A002 - the name of the path's parameter
    if not any(one.id == id for one in room.engine.silences()):
        raise Refusal(404, "no_such_silence", f"no silence has the id {id!r:.80}; GET /api/silences lists them")
    outcome = await _commanded(room, asked, ExpireSilence(id))
    return success(SilenceDone(id, outcome.detail))


async def _commanded(room: Room, asked: Asked, command: Command) -> Outcome:
    outcome = await room.engine.command(command, Actor(f"token:{caller(asked).name}"))
    if not outcome.ok:
        ready, why = room.engine.ready()
        if not ready:
            raise EngineUnavailable(why)
        raise Refusal(400, "bad_silence", outcome.error)
    return outcome


def _command_of(body: SilenceBody, now: float) -> AddSilence:
    starts_at = None if body.starts_at is None else _time("startsAt", body.starts_at)
    return AddSilence(
        matchers=body.matchers,
        duration_s=_duration_s(body, now if starts_at is None else starts_at),
        starts_at=starts_at,
        comment=body.comment,
    )


def _duration_s(body: SilenceBody, starts_at: float) -> float:
    if body.duration is not None and body.ends_at is None:
        try:
            return float(Duration.parse(body.duration))
        except ValueError as error:
            raise Refusal(400, "bad_request", f"duration: {body.duration!r:.60} {error}") from error
    if body.ends_at is not None and body.duration is None:
        return _time("endsAt", body.ends_at) - starts_at
    raise Refusal(400, "bad_request", 'a silence has either a duration, such as "2h", or endsAt')


def _time(name: str, text: str) -> float:
    at = read_time(text)
    if at is None:
        raise Refusal(400, "bad_request", f"{name}: {text!r:.60} is not a time; write 2026-11-23T21:07:30Z")
    return at


_ID: Final = (Parameter("id", "path", "The silence's id.", required=True),)

ROUTES: Final = (
    Route("/api/silences", silences, "The silences that are not over.", {200: Answer("", Silences, envelope="house")}),
    Route(
        "/api/silences",
        add_silence,
        "Tell nobody of the alerts that all matchers match, for a while.",
        {200: Answer("Made; durable.", SilenceDone, envelope="house")},
        methods=("POST",),
        scope="alerts",
        body=Body({"application/json": SilenceBody}),
        plain=True,
    ),
    Route(
        "/api/silences/<id>",
        expire_silence,
        "End a silence now.",
        {200: Answer("Ended; durable.", SilenceDone, envelope="house"), 404: Answer("No silence has this id.")},
        methods=("DELETE",),
        scope="alerts",
        parameters=_ID,
        plain=True,
    ),
)
