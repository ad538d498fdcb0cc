"""What people do on the dashboard: log in with a token, read an alert's story, take it on, silence it. All of it is audited.

A session is in memory, its cookie of this site alone (SameSite=Strict, HttpOnly); a form carries the session's own word
against forged requests, and one from another origin is refused. A token that is revoked ends its sessions at once.
"""

import hmac
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import click
import msgspec
import trio
from quart import Response

from sixfbd.control.engine import WhyView
from sixfbd.control.show import show_why
from sixfbd.http.answers import Refusal
from sixfbd.http.asked import Asked
from sixfbd.http.dashboard.page import POLICY, TEMPLATES
from sixfbd.http.engine import EngineUnavailable, QueryRefused, TokenInfo
from sixfbd.http.routes import Answer, Body, Parameter, Room, Route
from sixfbd.http.sessions import COOKIE, LASTS_S, SCOPE, cookie_of, session_of
from sixfbd.model import Actor, AddSilence, Alert, AlertState, Command, Outcome
from sixfbd.quantities import Duration

MAX_FORM: Final = 8192
FORM: Final = {"application/x-www-form-urlencoded": {"type": "string"}}


def _form(asked: Asked) -> dict[str, str]:
    """Return the fields of a form. Raises Refusal for another origin's, and for what is no form."""
    origin = asked.header(b"origin")
    if origin and origin != "null" and urlsplit(origin).netloc != asked.header(b"host"):
        raise Refusal(403, "other_origin", f"this form was sent from {origin!r:.100}, which is not this site")
    if asked.header(b"sec-fetch-site") in ("cross-site", "same-site"):
        raise Refusal(403, "other_origin", "this form was sent from another site")
    body = asked.content
    if len(body) > MAX_FORM:
        raise Refusal(413, "body_too_large", f"a form has at most {MAX_FORM} bytes")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise Refusal(400, "bad_request", "the body is not a form") from None
    return {name: values[0] for name, values in fields.items()}


def _allowed(room: Room, asked: Asked) -> tuple[dict[str, str], TokenInfo]:
    """Return a form's fields and whose session sent it. Raises Refusal."""
    fields, found = _form(asked), session_of(room.sessions, room.engine, asked)
    if found is None:
        raise Refusal(401, "log_in", "you are not logged in, or no longer: /login takes a token with the scope alerts")
    session, token = found
    if not hmac.compare_digest(fields.get("word", "").encode(), session.word.encode()):
        raise Refusal(403, "forged", "this form is not of your session; load the page again")
    return fields, token


async def _page(room: Room, asked: Asked, template: str, status: int = 200, **facts: Any) -> Response:
    engine, found = room.engine, session_of(room.sessions, room.engine, asked)
    shared = {
        "now": engine.now(),
        "site": engine.site,
        "sandbox": engine.sandbox,
        "version": engine.version,
        "reports": list(engine.reports()),
        "here": "",
        "word": "" if found is None else found[0].word,
        "who": "" if found is None else found[1].name,
    }
    html = await trio.to_thread.run_sync(lambda: TEMPLATES.get_template(template).render({**shared, **facts}))
    headers = {"Content-Security-Policy": POLICY}
    return Response(html, status, content_type="text/html; charset=utf-8", headers=headers)


def _go(path: str, cookie: str | None = None, *, secure: bool = False) -> Response:
    """Lead on to another page; `cookie` is set (`secure`: never sent without TLS), and dropped if it is ""."""
    response = Response("", 303, headers={"Location": path})
    if cookie is not None:
        age_s = LASTS_S if cookie else 0
        flags = "HttpOnly; SameSite=Strict" + ("; Secure" if secure else "")
        response.headers["Set-Cookie"] = f"{COOKIE}={cookie}; Path=/; Max-Age={age_s:.0f}; {flags}"
    return response


# ---- who it is -------------------------------------------------------------------------------------------------------------


async def login_page(room: Room, asked: Asked) -> Response:
    return await _page(room, asked, "login.html", said="")


async def login(room: Room, asked: Asked) -> Response:
    now, sessions = room.engine.now(), room.sessions
    secret = _form(asked).get("token", "").strip()
    if (wait_s := sessions.guess_again_in_s(now)) > 0:
        said = f"too many tokens that are none; try again in {wait_s:.0f} s"
        return await _page(room, asked, "login.html", 429, said=said)
    token = room.engine.token(secret) if secret else None
    if token is None or SCOPE not in token.scopes:
        sessions.guessed_wrong(now)
        said = (
            "no token like this is known" if token is None else f"the token {token.name} does not have the scope alerts"
        )
        return await _page(room, asked, "login.html", 403, said=said)
    return _go("/", sessions.begin(secret, now), secure=asked.header(b"x-forwarded-proto") == "https")


async def logout(room: Room, asked: Asked) -> Response:
    _allowed(room, asked)
    room.sessions.end(cookie_of(asked))
    return _go("/", "")


# ---- one alert -------------------------------------------------------------------------------------------------------------


async def alert_page(room: Room, asked: Asked, id: str) -> Response:  # noqa: A002 - the name of the path's parameter
    return await _alert(room, asked, id, "")


async def _alert(room: Room, asked: Asked, identity: str, said: str, status: int = 200) -> Response:
    try:
        found = await room.engine.why(identity)
    except QueryRefused as error:
        raise Refusal(400, "bad_request", str(error)) from error
    if found is None:
        raise Refusal(
            404, "no_such_alert", f"no alert has the id {identity!r:.80}; the first page lists those that fire"
        )
    story = [click.unstyle(line) for line in show_why(msgspec.convert(found, WhyView, strict=False))]
    alert = room.engine.incident(identity)
    return await _page(
        room, asked, "alert.html", status, alert=alert, id=identity, story=story, said=said, matchers=_matchers(alert)
    )


def _matchers(alert: Alert | None) -> tuple[str, ...]:
    """Return what matches this alert and no other."""
    if alert is None:
        return ()
    own = {"alertname": str(alert.key.rule), **dict(alert.key.labels)}
    return tuple(f"{name}={msgspec.json.encode(value).decode()}" for name, value in own.items())


async def ack(room: Room, asked: Asked, id: str) -> Response:  # noqa: A002 - the name of the path's parameter
    fields, token = _allowed(room, asked)
    alert = _firing(room, id)
    outcome = await room.engine.ack(alert.id, fields.get("comment", "")[:500], Actor(f"token:{token.name}"))
    return await _done(room, asked, id, outcome)


async def silence(room: Room, asked: Asked, id: str) -> Response:  # noqa: A002 - the name of the path's parameter
    fields, token = _allowed(room, asked)
    alert = _firing(room, id)
    try:
        lasts_s = float(Duration.parse(fields.get("duration", "")))
    except ValueError as error:
        return await _alert(room, asked, id, f"duration: {fields.get('duration', '')!r:.60} {error}", 400)
    command: Command = AddSilence(
        matchers=_matchers(alert), duration_s=lasts_s, comment=fields.get("comment", "")[:500]
    )
    return await _done(room, asked, id, await room.engine.command(command, Actor(f"token:{token.name}")))


def _firing(room: Room, identity: str) -> Alert:
    alert = room.engine.incident(identity)
    if alert is None or alert.state is not AlertState.FIRING:
        raise Refusal(409, "not_firing", f"the alert {identity!r:.80} does not fire (any more); nothing was done")
    return alert


async def _done(room: Room, asked: Asked, identity: str, outcome: Outcome) -> Response:
    if outcome.ok:
        return _go(f"/alerts/{identity}")
    ready, why = room.engine.ready()
    if not ready:
        raise EngineUnavailable(why)
    return await _alert(room, asked, identity, outcome.error, 409)


_ID: Final = (Parameter("id", "path", "The alert's id.", required=True),)
_HTML: Final = Answer("", {"type": "string"}, "text/html")
_ON: Final = Answer("It leads on to another page.")
_FORGED: Final = Answer("Another site's form, or not of this session.")
_OUT: Final = Answer("Nobody is logged in.")

ROUTES: Final = (
    Route("/login", login_page, "Where a token is asked for.", {200: _HTML}, scope="open", plain=True),
    Route(
        "/login",
        login,
        "Log in with a token that has the scope alerts.",
        {
            303: _ON,
            403: Answer("The token is none, or has not the scope.", {"type": "string"}, "text/html"),
            429: Answer("Too many tokens that are none.", {"type": "string"}, "text/html"),
        },
        methods=("POST",),
        scope="open",
        body=Body(FORM),
        plain=True,
    ),
    Route(
        "/logout",
        logout,
        "Log out.",
        {303: _ON, 401: _OUT, 403: _FORGED},
        methods=("POST",),
        body=Body(FORM),
        plain=True,
    ),
    Route(
        "/alerts/<id>",
        alert_page,
        "An alert's story, and what can be done about it.",
        {200: _HTML, 404: Answer("No alert has this id.")},
        parameters=_ID,
        plain=True,
    ),
    Route(
        "/alerts/<id>/ack",
        ack,
        "Take a firing alert on.",
        {
            303: _ON,
            403: _FORGED,
            409: Answer("It does not fire, or was not acknowledged.", {"type": "string"}, "text/html"),
        },
        methods=("POST",),
        parameters=_ID,
        body=Body(FORM),
        plain=True,
    ),
    Route(
        "/alerts/<id>/silence",
        silence,
        "Tell nobody of an alert for a while.",
        {
            303: _ON,
            401: _OUT,
            403: _FORGED,
            409: Answer("It does not fire, or was refused.", {"type": "string"}, "text/html"),
        },
        methods=("POST",),
        parameters=_ID,
        body=Body(FORM),
        plain=True,
    ),
)
