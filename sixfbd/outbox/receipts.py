"""What becomes of a receipt: a pure function of the receipt and the messages that there are.

A provider says things late, twice and out of order: what has arrived stays so, and what a try that is over has come to
says nothing of the next one. A receipt may also be faster than the answer to its own message: then it waits.
"""

from typing import TypeAlias

from msgspec import Struct

from sixfbd.alerting.policy import Policy
from sixfbd.journal.state import State
from sixfbd.model import Message, Receipt


class Take(Struct, frozen=True):
    """It says something new of this message."""

    message: Message


class Hold(Struct, frozen=True):
    """The message that it is about, or its answer, may still come."""


class Ignore(Struct, frozen=True):
    """It says nothing new, or nothing of ours."""


Heeded: TypeAlias = Take | Hold | Ignore


def heed(receipt: Receipt, state: State, policy: Policy) -> Heeded:
    """Return what is to be done about a receipt."""
    awaited = state.awaited_by(receipt.message_id, receipt.provider_id)
    if awaited is not None:
        return _of_accepted(receipt, awaited.message)
    message = None if receipt.message_id is None else state.messages.get(receipt.message_id)
    if message is not None:
        return _of_open(receipt, message)
    return Hold() if receipt.message_id is None and _may_become_known(state, policy) else Ignore()


def _of_accepted(receipt: Receipt, message: Message) -> Heeded:
    of_another_try = None not in (receipt.provider_id, message.provider_id) and (
        receipt.provider_id != message.provider_id
    )
    if receipt.state == "accepted" or (receipt.state == "failed" and of_another_try):
        return Ignore()
    return Take(message)


def _of_open(receipt: Receipt, message: Message) -> Heeded:
    """An arrival is one whichever try it is of; a failure counts for a try whose answer was lost, not for the next."""
    if message.attempt == 0:
        return Ignore()
    if receipt.state == "delivered" or message.state == "unknown":
        return Take(message)
    return Hold() if message.state == "sending" else Ignore()


def _may_become_known(state: State, policy: Policy) -> bool:
    """Tell whether there is a message of which only the answer will say what its provider calls it."""
    return any(
        message.state in ("sending", "unknown") and _gets_receipts(message, policy)
        for message in state.messages.values()
    )


def _gets_receipts(message: Message, policy: Policy) -> bool:
    notifier = policy.notifiers.get(message.target.notifier)
    return notifier is not None and notifier.receipts
