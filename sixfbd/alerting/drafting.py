"""A decision in the making: a draft of the state that changes record by record, and what is owed on it. Pure."""

from collections.abc import Generator, Sequence
from typing import Final, TypeVar

from msgspec.structs import replace

from sixfbd.alerting.inputs import Effect
from sixfbd.alerting.policy import Policy
from sixfbd.journal.records import MessageChanged, ObligationChanged, Owed, Record
from sixfbd.journal.state import State, apply
from sixfbd.model import Obligation, Target

WORK_A_STEP: Final = 500  # label sets looked at after which `deciding` lets others run; a record counts for ten
WORK_OF_A_RECORD: Final = 10
DUE_AT_ONCE: Final = 64
SUPERSEDED: Final = "superseded"
NEVER_TOLD: Final = "never told"

T = TypeVar("T")
Steps = Generator[None, None, T]


class Drafting:
    """Records are emitted, and thereby applied; obligations that a message may carry now are collected in `ready`."""

    def __init__(self, published: State, policy: Policy, now: float) -> None:
        self.draft = published.draft()
        self.policy = policy
        self.now = now
        self.records: list[Record] = []
        self.effects: list[Effect] = []
        self.ready: dict[str, None] = {}  # in order
        self._looked = 0
        self._rested_at = 0

    def emit(self, record: Record) -> None:
        apply(self.draft, record)
        self.records.append(record)

    def rest(self) -> Steps[None]:
        """Let others run, once enough has been done since the last time."""
        self._looked += 1
        work = self._looked + WORK_OF_A_RECORD * len(self.records)
        if work - self._rested_at >= WORK_A_STEP:
            self._rested_at = work
            yield

    def owe(self, owed: Sequence[Obligation], at: float) -> None:
        """Write down what is owed, then see what of it is to be told."""
        for obligation in owed:
            self.emit(Owed(at, obligation))
        for obligation in owed:
            self.settle(obligation.subject, obligation.target, at)

    def settle(self, subject: str, target: Target, at: float) -> None:
        """Bring what is open for a target of a subject to one obligation at most: the newest, unless nothing is to be told.

        While a message is on its way, or its answer is lost, the later ones wait for its end: order per target holds.
        """
        open_ = [one for one in self.draft.open_obligations(subject) if one.target == target]
        if not open_ or any(one.state != "pending" for one in open_):
            return
        *older, last = open_
        for one in older:
            self.suppress(one, SUPERSEDED, at)
        if last.kind == "resolve" and last.message is None and self.draft.told_by(subject, target) is None:
            self.suppress(last, SUPERSEDED if older else NEVER_TOLD, at)
        elif last.message is None and last.not_before <= self.now:
            self.ready[last.id] = None

    def suppress(self, obligation: Obligation, reason: str, at: float, *, held: bool = False) -> None:
        self.emit(ObligationChanged(at, obligation.id, "suppressed", reason, held))
        message = None if obligation.message is None else self.draft.messages.get(obligation.message)
        if message is not None and not self.draft.carried(message):
            self.emit(MessageChanged(at, replace(message, state="suppressed"), reason))
