"""The records that the journal holds of the judge's decisions: tagged, immutable, the only way in which state changes.

Each is one row of `records` in journal.db, as JSON with its tag in "r". `sixfbd.journal.state.apply` folds them.
Adding a field with a default, or a record, is a compatible change; anything else needs a migration.
"""

from typing import Final, TypeAlias

from msgspec import Struct

from sixfbd.model import (
    Alert,
    AlertKey,
    AlertState,
    CheckName,
    Message,
    MessageId,
    Obligation,
    ObligationKind,
    ObligationState,
    Receipt,
    Severity,
    Silence,
    Target,
)

RECEIPT_WAITS_S: Final = 600.0
"""For how long a receipt waits for its message: its provider may be faster than its own answer."""


class Started(Struct, frozen=True, tag_field="r", tag="started"):
    """The daemon began at `at`; it was last known alive at `last_alive_at` (None: a new journal). The gap is between."""

    at: float
    version: str
    config: str  # sha256 of the configuration's text
    last_alive_at: float | None = None


class Stopped(Struct, frozen=True, tag_field="r", tag="stopped"):
    """The daemon stopped in order at `at`."""

    at: float


class Volatile(Struct, frozen=True, tag_field="r", tag="volatile"):
    """From `since` to `at` the journal could not be written: what was decided lived in memory, and was written then.

    `dropped` records of that time were too many to keep; the state at its end is in the base that follows.
    """

    at: float
    since: float
    error: str
    dropped: int = 0


class Damaged(Struct, frozen=True, tag_field="r", tag="damaged"):
    """At its start the daemon found a file of its state damaged, or short of what it had held; `said` is all of it."""

    at: float
    file: str
    said: str


class Configured(Struct, frozen=True, tag_field="r", tag="configured"):
    """A reload took effect."""

    at: float
    config: str
    by: str


class AlertChanged(Struct, frozen=True, tag_field="r", tag="alert"):
    """An alert entered `alert.state` (or changed severity, or its holding marks, within it) from `previous`."""

    at: float
    alert: Alert
    previous: AlertState
    why: str = ""


class Acked(Struct, frozen=True, tag_field="r", tag="acked"):
    """Somebody took a firing alert on; ends with its incident."""

    at: float
    alert: str
    by: str
    comment: str = ""


class Owed(Struct, frozen=True, tag_field="r", tag="owed"):
    """An obligation came to be, in any state (suppressed ones with their reason)."""

    at: float
    obligation: Obligation


class ObligationChanged(Struct, frozen=True, tag_field="r", tag="obligation"):
    """An obligation left its message's fate: suppressed (superseded, or `held` back) or dead, with the reason."""

    at: float
    id: str
    state: ObligationState
    reason: str
    held: bool = False


class MessageChanged(Struct, frozen=True, tag_field="r", tag="message"):
    """A message came to be or changed state; the obligations that it carries change with it."""

    at: float
    message: Message
    what: str = ""  # the answer or the decision behind it, for people


class ReceiptHeld(Struct, frozen=True, tag_field="r", tag="receipt"):
    """A receipt came that fits no message yet, or one whose answer is still on its way; it waits for RECEIPT_WAITS_S."""

    at: float
    receipt: Receipt

    @property
    def key(self) -> str:
        """What it is found by."""
        return receipt_key(self.receipt.message_id, self.receipt.provider_id)


class ReceiptMissed(Struct, frozen=True, tag_field="r", tag="receipt_missed"):
    """No receipt came for an accepted message in all the time that it was awaited."""

    at: float
    message: MessageId


class ReceiptAsked(Struct, frozen=True, tag_field="r", tag="receipt_asked"):
    """The provider is asked what became of an accepted message; it is again at `look_at` (None: no more), after `looks` times
    that have passed."""

    at: float
    message: MessageId
    looks: int
    look_at: float | None = None


class MessageLate(Struct, frozen=True, tag_field="r", tag="message_late"):
    """A message has not arrived in the time in which it should; `what` says what follows."""

    at: float
    message: MessageId
    what: str = ""


class Spent(Struct, frozen=True, tag_field="r", tag="spent"):
    """A message was made at the cost of a budget: that of a target, or of one kind of `notice` to it."""

    at: float
    target: Target
    notice: str = ""
    digest: bool = False


class Postponed(Struct, frozen=True, tag_field="r", tag="postponed"):
    """What is owed waits for the budget of its target; it is looked at again at `until`."""

    at: float
    id: str
    until: float
    why: str


class CheckPaused(Struct, frozen=True, tag_field="r", tag="check_paused"):
    """A check was paused or resumed by a command; holds over restarts."""

    at: float
    check: CheckName
    paused: bool
    by: str


class EventsJudged(Struct, frozen=True, tag_field="r", tag="judged"):
    """Events up to this number have been judged; part of every commit that judged any."""

    at: float
    seq: int


class SilenceChanged(Struct, frozen=True, tag_field="r", tag="silence"):
    """A silence was made, or ends now."""

    at: float
    silence: Silence


class HoldsChecked(Struct, frozen=True, tag_field="r", tag="holds"):
    """Up to `at` every hold that began or ended by the clock has been heeded; silences that are over are let go."""

    at: float


class DrillHeld(Struct, frozen=True, tag_field="r", tag="drill"):
    """A drill was begun: the message that says so is owed to `targets`. `name` is "" if somebody asked for it."""

    at: float
    name: str
    targets: tuple[Target, ...]

    @property
    def subject(self) -> str:
        """What the obligations of this drill are about."""
        return f"drill/{self.name}/{self.at!r}"


class Audited(Struct, frozen=True, tag_field="r", tag="audited"):
    """Who commanded what, and what came of it."""

    at: float
    by: str
    command: str
    outcome: str


class ClockStepped(Struct, frozen=True, tag_field="r", tag="clock_stepped"):
    """The wall clock moved away from engine time by `by_s` seconds (positive: forwards)."""

    at: float
    by_s: float


class StoodStill(Struct, frozen=True, tag_field="r", tag="stood_still"):
    """Nothing of the daemon ran from `since` to `at`: the process or the machine was stopped, or its loop was blocked."""

    at: float
    since: float


class TokenChanged(Struct, frozen=True, tag_field="r", tag="token"):
    """An access token was made or revoked. Only its hash is kept."""

    at: float
    name: str
    sha256: str
    scopes: tuple[str, ...]
    by: str
    revoked: bool = False


class Told(Struct, frozen=True):
    """The last obligation of an incident that a target was told, or may have been told (its answer was lost).

    `repeat_at`: when it is told the same again, if nothing changes; None: never.
    """

    incident: str
    target: Target
    kind: ObligationKind
    obligation: str
    message: MessageId | None
    at: float
    severity: Severity | None = None
    repeat_s: float = 0.0
    repeat_at: float | None = None


class Withheld(Struct, frozen=True):
    """A target from which a hold keeps an obligation of an incident."""

    incident: str
    target: Target
    obligation: str


class Reached(Struct, frozen=True):
    """When a message last arrived at a target, or was taken for it."""

    target: Target
    at: float


class Flips(Struct, frozen=True):
    """When an alert's expression began or ceased to hold, lately."""

    key: AlertKey
    times: tuple[float, ...]


class GroupTold(Struct, frozen=True):
    """When the last message of a group of alerts was made for a target, until when the next waits, if one does, and which
    incidents keep the group alive."""

    target: Target
    group: str
    at: float | None
    waits_until: float | None
    incidents: tuple[str, ...]


class SpentBy(Struct, frozen=True):
    """When messages were made at the cost of a budget, oldest first, and the last digest among them."""

    target: Target
    notice: str
    times: tuple[float, ...]
    digest_at: float | None = None


class Awaited(Struct, frozen=True):
    """An accepted message whose receipt may still come, and what it carried when it was accepted."""

    message: Message
    obligations: tuple[Obligation, ...]


class Base(Struct, frozen=True, tag_field="r", tag="base"):
    """The whole state at a cut; the fold starts at the last one. Written by retention, and after the journal failed."""

    at: float
    alerts: tuple[Alert, ...]
    obligations: tuple[Obligation, ...]
    messages: tuple[Message, ...]
    told: tuple[Told, ...]
    paused: tuple[CheckName, ...]
    judged_event: int
    tokens: tuple[TokenChanged, ...]
    started: Started | None = None
    last_alive_at: float | None = None
    awaited: tuple[Awaited, ...] = ()
    held: tuple[ReceiptHeld, ...] = ()
    silences: tuple[Silence, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    groups: tuple[GroupTold, ...] = ()
    flips: tuple[Flips, ...] = ()
    reached: tuple[Reached, ...] = ()
    holds_at: float | None = None
    drills: tuple[DrillHeld, ...] = ()
    drilled: tuple[Reached, ...] = ()
    spent: tuple[SpentBy, ...] = ()


def receipt_key(message: MessageId | None, provider_id: str | None) -> str:
    """Return the name that a receipt and its message share: ours if it has it, else the provider's."""
    return f"ours {message}" if message is not None else f"theirs {provider_id}"


Record: TypeAlias = (
    Started
    | Stopped
    | Volatile
    | Damaged
    | Configured
    | AlertChanged
    | Acked
    | Owed
    | ObligationChanged
    | MessageChanged
    | ReceiptHeld
    | ReceiptMissed
    | ReceiptAsked
    | MessageLate
    | Spent
    | Postponed
    | CheckPaused
    | EventsJudged
    | SilenceChanged
    | HoldsChecked
    | DrillHeld
    | Audited
    | ClockStepped
    | StoodStill
    | TokenChanged
    | Base
)
