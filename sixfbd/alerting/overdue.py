"""What has not arrived in time: receipts that nobody calls with are asked for, and the next channel takes over. Pure.

A page counts when it arrived (DESIGN promise 3): what was not taken, or of which no receipt says that it arrived, within
LATE_S goes by another channel of the same receiver too, and so does at once what is given up.
"""

from collections.abc import Iterable
from typing import Final

from sixfbd.alerting.drafting import DUE_AT_ONCE, Steps
from sixfbd.alerting.holding import Holding
from sixfbd.alerting.inputs import Lookup
from sixfbd.alerting.owe import owe_next_channel
from sixfbd.alerting.routes import Routing
from sixfbd.journal.records import MessageLate, ReceiptAsked, ReceiptMissed
from sixfbd.model import Alert, AlertState, Message, MessageId, Obligation, Severity, Target
from sixfbd.quantities import show_duration

LATE_S: Final = 120.0
LOOKS_S: Final = (5.0, 15.0, 30.0, 60.0)  # after which a provider is asked what became of what it took
URGENT: Final = frozenset({Severity.HIGH, Severity.CRITICAL})


def look_at(accepted_at: float, looks: int) -> float | None:
    """Return when a provider is asked for the next time, None after the last."""
    return accepted_at + LOOKS_S[looks] if looks < len(LOOKS_S) else None


def late_at(routing: Routing, target: Target, obligations: Iterable[Obligation], now: float) -> float | None:
    """Return when a message that carries these should have arrived, None if nobody waits for it or no other way is left."""
    others = any(one.via != target.notifier for one in routing.receivers.get(target.receiver, {}).values())
    return now + LATE_S if others and any(_presses(one) for one in obligations) else None


def _presses(obligation: Obligation) -> bool:
    return obligation.about is not None and obligation.kind != "resolve" and obligation.severity in URGENT


class Overdue(Holding):
    """A decision that sees to it that what was sent arrives."""

    def heed_receipts(self) -> Steps[None]:
        """Ask for receipts that are to be asked for, and await no longer what did not come."""
        while due := self.draft.receipts_due(self.now, DUE_AT_ONCE):
            for identity in due:
                self._heed_receipt(identity)
            yield from self.rest()

    def _heed_receipt(self, identity: MessageId) -> None:
        awaited = self.draft.awaited[identity]
        message = awaited.message
        if message.receipt_until is not None and message.receipt_until <= self.now:
            self.emit(ReceiptMissed(self.now, identity))
            return
        assert message.look_at is not None
        accepted_at, looks = message.look_at - LOOKS_S[message.looks], message.looks + 1
        while (at := look_at(accepted_at, looks)) is not None and at <= self.now:
            looks += 1
        self.emit(ReceiptAsked(self.now, identity, looks, at))
        if awaited.obligations:
            self.effects.append(Lookup(message, awaited.obligations))

    def heed_late(self) -> Steps[None]:
        """Have the next channel take over from what should have arrived by now."""
        while late := self.due_now(self.draft.messages_late, self._is_of_unseen):
            for identity in late:
                self._heed_late(identity)
                yield from self.rest()

    def _is_of_unseen(self, identity: MessageId) -> bool:
        awaited = self.draft.awaited.get(identity)
        message = self.draft.messages[identity] if awaited is None else awaited.message
        return bool(self.unseen) and any(self.is_unseen(one.subject) for one in self.carried_by(message))

    def _heed_late(self, identity: MessageId) -> None:
        awaited = self.draft.awaited.get(identity)
        message = self.draft.messages[identity] if awaited is None else awaited.message
        carried = self.carried_by(message)
        what = "not taken" if awaited is None else "taken, but no receipt came"
        why = f"{message.target.notifier}: {what} within {show_duration(LATE_S)}"
        self.emit(MessageLate(self.now, identity, why))
        self.pass_on(carried, why)

    def pass_on(self, missed: Iterable[Obligation], why: str) -> None:
        """Tell by the next channel what has not arrived, as far as it still fires and nobody has taken it on."""
        for one in missed:
            alert = self.draft.incident(one.subject)
            if _presses(one) and alert is not None and _is_open(alert):
                self.owe(owe_next_channel(self.draft, self.policy, alert, one, why, self.now), self.now)

    def carried_by(self, message: Message) -> tuple[Obligation, ...]:
        """Return what a message carries, or carried when it was accepted."""
        awaited = self.draft.awaited.get(message.id)
        return self.draft.carried(message) if awaited is None else awaited.obligations


def _is_open(alert: Alert) -> bool:
    return alert.state is AlertState.FIRING and alert.acked_by is None and not alert.held
