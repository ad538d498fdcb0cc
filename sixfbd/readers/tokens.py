"""Access tokens: made at random, kept as hashes, found by hash. Scopes: `events` (send), `alerts` (acknowledge), `read`."""

import hashlib
import secrets
from collections.abc import Iterator, Mapping
from typing import Final

from sixfbd.config import Token
from sixfbd.journal.records import TokenChanged

SCOPES: Final = ("alerts", "events", "read")
PREFIX: Final = "sixfbd_"


def new_token() -> str:
    """Return a token of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """Return what is kept of a token. Its entropy is its own, so that a fast hash is enough."""
    return hashlib.sha256(secret.encode()).hexdigest()


def find(
    secret: str, fixed: Mapping[str, Token], made: Mapping[str, TokenChanged]
) -> tuple[str, tuple[str, ...]] | None:
    """Return (name, scopes) of a token, None if it is nobody's. Compares every hash in full, whichever fits."""
    wanted = digest(secret)
    found = None
    for name, kept, scopes in _known(fixed, made):
        if secrets.compare_digest(kept, wanted):
            found = (name, scopes)
    return found


def _known(fixed: Mapping[str, Token], made: Mapping[str, TokenChanged]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for name, token in fixed.items():
        yield name, digest(token.secret.reveal()), token.scopes
    for name, record in made.items():
        yield name, record.sha256, record.scopes
