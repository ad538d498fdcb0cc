"""What comes into a round of the judge, and what comes out of it. Values only; each input carries its engine time `at`."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from msgspec import Struct

from sixfbd.alerting.policy import Policy
from sixfbd.journal.records import Record
from sixfbd.journal.state import State
from sixfbd.model import Actor, Command, Evaluated, Message, MessageId, Obligation, Outcome, Receipt, StoredEvent
from sixfbd.plugin import PermanentFailure, TemporaryFailure


class Lost(Struct, frozen=True):
    """No answer came: nobody knows whether the message was taken."""

    reason: str


class Absent(Struct, frozen=True):
    """A look-up's answer: the provider does not have the message."""


class Answer(Struct, frozen=True):
    """What came of one try to deliver a message, or of one look-up."""

    at: float
    message: MessageId
    outcome: Receipt | TemporaryFailure | PermanentFailure | Lost | Absent
    lookup: bool = False


class EventsCommitted(Struct, frozen=True):
    """The events that carry a notice or a receipt among those committed up to number `last_seq`, in order of number."""

    at: float
    last_seq: int
    events: tuple[StoredEvent, ...] = ()


class CommandInput(Struct, frozen=True):
    """A command; `slot` comes back with its outcome in a Reply."""

    at: float
    command: Command
    by: Actor
    slot: Any


class Noted(Struct, frozen=True):
    """Records that others have to write (tokens, audit, the clock): the judge alone writes records, so that its state
    is the fold of all of them."""

    at: float
    records: tuple[Record, ...]
    slot: Any


class Replaced(Struct, frozen=True):
    """A reload: another policy takes effect, under the hash `config`; `adopt` is called when it does."""

    at: float
    policy: Policy
    config: str
    by: Actor
    slot: Any
    adopt: Callable[[], None] = lambda: None


class Began(Struct, frozen=True):
    """The daemon has started; the configuration may be another than before."""

    at: float


class Stood(Struct, frozen=True):
    """The loop stood still from `at` on, until `until`: what was due meanwhile was not seen to be so."""

    at: float
    until: float


class Tick(Struct, frozen=True):
    """Nothing happened but time."""

    at: float


Input: TypeAlias = Evaluated | Answer | EventsCommitted | CommandInput | Noted | Replaced | Began | Stood | Tick
_SOURCES: Final = (Stood, Began, Evaluated, EventsCommitted, Answer, CommandInput, Noted, Replaced, Tick)


def in_order(inputs: Sequence[Input]) -> list[Input]:
    """Return inputs by time, then source, then as they came."""
    return sorted(inputs, key=lambda one: (one.at, _SOURCES.index(type(one))))


class Deliver(Struct, frozen=True):
    """Effect: try this message now; it is claimed (`sending`) in the journal. Answered by an Answer, whatever happens."""

    message: Message
    obligations: tuple[Obligation, ...]


class Lookup(Struct, frozen=True):
    """Effect: ask the provider whether it has this message. Answered by an Answer with `lookup` set."""

    message: Message
    obligations: tuple[Obligation, ...]


class Reply(Struct, frozen=True):
    """Effect: a command's outcome, durable."""

    slot: Any
    outcome: Outcome


Effect: TypeAlias = Deliver | Lookup | Reply


class Decision(Struct, frozen=True):
    """One round: commit `records`, then publish `draft`, then act on `effects`. `next_due`: when time alone asks again."""

    draft: State
    records: tuple[Record, ...]
    effects: tuple[Effect, ...]
    next_due: float | None
    policy: Policy
