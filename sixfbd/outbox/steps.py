"""What becomes of a message next: pure functions of the message, its notifier's settings and the time.

A message whose answer was lost is looked up where the notifier can; sent again under the same id where the far side drops
repeats; else sent once more, marked, and then given up, because a third copy would be noise and silence would be a lie.
"""

import random
from collections.abc import Callable
from typing import Final, TypeAlias

from msgspec import Struct

from sixfbd.alerting.policy import NotifierPolicy
from sixfbd.model import Message
from sixfbd.quantities import show_duration

LOST_TWICE: Final = "no answer came, twice; it may have arrived"


class Send(Struct, frozen=True):
    """Try to deliver it; `possibly_repeated`: the far side may have it already and would not notice."""

    possibly_repeated: bool = False


class Look(Struct, frozen=True):
    """Ask the provider whether it has it."""


class Wait(Struct, frozen=True):
    """Nothing before `until`; None: an answer is on its way."""

    until: float | None


class Suppress(Struct, frozen=True):
    """Nothing is left in it that anybody should be told."""

    reason: str


class GiveUp(Struct, frozen=True):
    """It is dead."""

    reason: str


Step: TypeAlias = Send | Look | Wait | Suppress | GiveUp


def next_step(message: Message, carried: int, notifier: NotifierPolicy | None, now: float) -> Step:
    """Return what is to be done with a message that carries `carried` live obligations; None: no such notifier."""
    if message.state == "sending":
        return Wait(None)
    if notifier is None:
        return GiveUp(f"notifier {message.target.notifier} is not configured")
    if message.state == "pending" and carried == 0:
        return Suppress("superseded")
    if now >= message.expires_at:
        age = show_duration(message.expires_at - message.created_at)
        return GiveUp(f"not accepted within {age}: {message.last_error or 'never tried'}")
    if message.state == "unknown" and message.possibly_repeated and notifier.is_unsure:
        return GiveUp(LOST_TWICE)
    if now < message.next_try_at:
        return Wait(min(message.next_try_at, message.expires_at))
    if message.state == "pending" or notifier.idempotent:
        return Send(message.possibly_repeated)
    return Look() if notifier.can_look_up else Send(possibly_repeated=True)


def retry_delay_s(
    message: Message,
    notifier: NotifierPolicy,
    rng: Callable[..., random.Random],
    retry_after_s: float | None = None,
) -> float:
    """Return the wait before the next try: exponential, less up to half by chance, never below what the provider asked.

    The draw is keyed by message and try, so that a seed replays (DESIGN promise 8).
    """
    tries = message.attempt + message.lookups
    exponent = min(max(tries - 1, 0), 32)
    longest = min(notifier.retry_most_s, notifier.retry_first_s * 2.0**exponent)
    draw = rng("retry", message.id, str(tries)).random()
    return max(longest * (1.0 - draw / 2), retry_after_s or 0.0)
