"""Who is logged in on the dashboard: sessions in memory, each of a token, known by a secret in a cookie of this site alone."""

import secrets
from collections import deque
from http.cookies import CookieError, SimpleCookie
from typing import Final

from msgspec import Struct

from sixfbd.http.asked import Asked
from sixfbd.http.engine import HttpEngine, TokenInfo
from sixfbd.quantities import HOUR

COOKIE: Final = "sixfbd_session"
SCOPE: Final = "alerts"
LASTS_S: Final = 12 * HOUR
MOST_SESSIONS: Final = 100
GUESSES: Final = 10  # wrong tokens within GUESSES_S, whoever sends them
GUESSES_S: Final = 60.0
MAX_COOKIE: Final = 4096


class Session(Struct):
    """Somebody who is logged in: by which token, until when (engine time); `word` is what their forms carry."""

    token: str
    word: str
    until: float


class Sessions:
    """Who is logged in, by the secret in their cookie; at most MOST_SESSIONS, the oldest goes."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._wrong: deque[float] = deque(maxlen=GUESSES)

    def begin(self, token: str, now: float) -> str:
        """Return the secret of a new session."""
        secret = secrets.token_urlsafe(32)
        self._sessions[secret] = Session(token, secrets.token_urlsafe(16), now + LASTS_S)
        while len(self._sessions) > MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        return secret

    def of(self, secret: str, now: float) -> Session | None:
        """Return a session that is not over."""
        found = self._sessions.get(secret)
        if found is not None and found.until <= now:
            del self._sessions[secret]
            return None
        return found

    def end(self, secret: str) -> None:
        """End a session, if it is one."""
        self._sessions.pop(secret, None)

    def guess_again_in_s(self, now: float) -> float:
        """Return how long nobody may try another token, 0.0 if somebody may."""
        return max(0.0, self._wrong[0] + GUESSES_S - now) if len(self._wrong) == GUESSES else 0.0

    def guessed_wrong(self, now: float) -> None:
        """Note a token that is none."""
        self._wrong.append(now)


def session_of(sessions: Sessions, engine: HttpEngine, asked: Asked) -> tuple[Session, TokenInfo] | None:
    """Return who is logged in, and by which token, as long as that may do what actions need."""
    session = sessions.of(cookie_of(asked), engine.now())
    token = None if session is None else engine.token(session.token)
    if session is None or token is None or SCOPE not in token.scopes:
        return None
    return session, token


def cookie_of(asked: Asked) -> str:
    """Return the secret in a request's cookie, "" if there is none."""
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(asked.header(b"cookie")[:MAX_COOKIE])
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""
