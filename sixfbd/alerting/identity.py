"""Ids of incidents, obligations and messages: derived from what they name, so that a decision draws no chance."""

import base64
import hashlib
from collections.abc import Sequence
from typing import Final

from sixfbd.model import AlertKey, MessageId, ObligationKind, Severity, Target

ID_LENGTH: Final = 20  # characters of base32: 100 bits


def incident_id(key: AlertKey, at: float) -> str:
    """The id of the incident that begins (or may begin) for an alert at a time."""
    return _derive("incident", key.rule, *(part for pair in key.labels for part in pair), repr(at))


def obligation_id(
    subject: str, kind: ObligationKind, target: Target, severity: Severity, at: float, instead_of: str = ""
) -> str:
    """The id of what a subject owes a target at a time; `instead_of` is an obligation that a hold suppressed."""
    address = (target.receiver, target.notifier, target.address)
    return _derive("owed", subject, kind, *address, severity, repr(at), *([instead_of] if instead_of else []))


def silence_id(matchers: Sequence[str], by: str, at: float, place: int) -> str:
    """The id of a silence; `place` tells apart what is asked twice at one time."""
    return _derive("silence", by, repr(at), str(place), *matchers)


def message_id(first_obligation: str) -> MessageId:
    """The id of the message whose first obligation this is; an obligation is first in one message only."""
    return MessageId(_derive("message", first_obligation))


def _derive(*parts: str) -> str:
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=16).digest()
    return base64.b32encode(digest).decode().lower()[:ID_LENGTH]
