"""What people command of the judge: acknowledgements, silences, pauses, tests of the way to a receiver. Pure.

The part of a round that carries a command out, answers it and has it audited, in one commit.
"""

from typing import Final

from msgspec.structs import replace

from sixfbd.alerting.identity import obligation_id, silence_id
from sixfbd.alerting.inputs import CommandInput, Reply
from sixfbd.alerting.overdue import Overdue
from sixfbd.alerting.routes import all_match, parse_matcher
from sixfbd.journal.records import Acked, Audited, CheckPaused, DrillHeld, SilenceChanged
from sixfbd.model import (
    Ack,
    Actor,
    AddSilence,
    AlertState,
    CheckName,
    DropMessage,
    ExpireSilence,
    HoldDrill,
    Obligation,
    Outcome,
    PauseCheck,
    RetryMessage,
    Severity,
    Silence,
    Target,
    TestNotify,
)
from sixfbd.quantities import show_duration

MAX_SILENCES: Final = 1000
MAX_MATCHERS: Final = 50
TEST_TEXT: Final = "Test: sixfbd can reach {receiver} through {channel}. Nothing is wrong, and nothing has to be done."
AT_ONCE: Final = "another {} began at this very moment; try again"
DRILL_TEXT: Final = (
    "DRILL: this only tries out the way to {receiver} through {channel}. Nothing is wrong, and nobody has to act."
)


class Commanding(Overdue):
    """A decision that carries out commands."""

    def commanded(self, given: CommandInput) -> None:
        match given.command:
            case Ack():
                outcome, said = self._ack(given.command, given.by, given.at)
            case PauseCheck():
                outcome, said = self._pause(given.command, given.by, given.at)
            case AddSilence():
                outcome, said = self._add_silence(given.command, given.by, given.at)
            case ExpireSilence():
                outcome, said = self._expire_silence(given.command, given.at)
            case TestNotify():
                outcome, said = self._test_notify(given.command, given.at)
            case HoldDrill():
                outcome, said = self._drill(given.command, given.at)
            case DropMessage():
                outcome, said = self._drop(given.command, given.by, given.at)
            case RetryMessage():
                outcome, said = self._retry_dead(given.command, given.at)
        self.emit(Audited(given.at, given.by.name, said, outcome.error or outcome.detail))
        self.effects.append(Reply(given.slot, outcome))

    def _ack(self, command: Ack, by: Actor, at: float) -> tuple[Outcome, str]:
        said = f"ack {command.alert}"
        alert = self.draft.incident(command.alert)
        if alert is None:
            mend = "`sixfbctl alerts` lists those that fire"
            return Outcome(False, error=f"no alert {command.alert!r} is firing; {mend}"), said
        if alert.state is not AlertState.FIRING:
            return Outcome(False, error=f"{alert.key.rule} {alert.id} is {alert.state}, not firing"), said
        if alert.acked_by is not None:
            return Outcome(True, f"{alert.key.rule} {alert.id} was acknowledged by {alert.acked_by} before"), said
        self.emit(Acked(at, alert.id, by.name, command.comment))
        return Outcome(True, f"{alert.key.rule} {alert.id} acknowledged"), said

    def _pause(self, command: PauseCheck, by: Actor, at: float) -> tuple[Outcome, str]:
        check = CheckName(command.check)
        done = "paused" if command.paused else "running"
        said = f"{'pause' if command.paused else 'resume'} {check}"
        if (check in self.draft.paused) == command.paused:
            return Outcome(True, f"{check} is {done} already"), said
        self.emit(CheckPaused(at, check, command.paused, by.name))
        return Outcome(True, f"{check} is {done} now"), said

    # ---- silences ------------------------------------------------------------------------------------------------------

    def _add_silence(self, command: AddSilence, by: Actor, at: float) -> tuple[Outcome, str]:
        said = f"silence {' '.join(command.matchers)} for {show_duration(command.duration_s)}"
        if (error := self._refused(command)) is not None:
            return Outcome(False, error=error), said
        starts_at = at if command.starts_at is None else max(at, command.starts_at)
        silence = Silence(
            id=silence_id(command.matchers, by.name, at, len(self.records)),
            matchers=command.matchers,
            starts_at=starts_at,
            ends_at=starts_at + command.duration_s,
            author=by.name,
            comment=command.comment,
        )
        self.emit(SilenceChanged(at, silence))
        self.doubt_all_holds()
        count = sum(all_match(map(parse_matcher, silence.matchers), one.labels) for one in self.draft.alerts.values())
        return Outcome(True, f"silence {silence.id} matches {count} of the alerts that there are", id=silence.id), said

    def _refused(self, command: AddSilence) -> str | None:
        if not command.matchers:
            return 'a silence without matchers would silence everything; name some, such as alertname="HighCPU"'
        if len(command.matchers) > MAX_MATCHERS:
            return f"{len(command.matchers)} matchers; a silence has {MAX_MATCHERS} at most"
        if command.duration_s <= 0:
            return "a silence must last for more than 0s"
        if len(self.draft.silences) >= MAX_SILENCES:
            return f"there are {MAX_SILENCES} silences; let some expire: `sixfbctl silence list`"
        try:
            matchers = [parse_matcher(text) for text in command.matchers]
        except ValueError as error:
            return str(error)
        if all(matcher.matches({}) for matcher in matchers):
            return 'every alert without these labels would match too; add a matcher such as alertname="HighCPU"'
        return None

    def _expire_silence(self, command: ExpireSilence, at: float) -> tuple[Outcome, str]:
        said = f"expire silence {command.silence}"
        silence = self.draft.silences.get(command.silence)
        if silence is None:
            return Outcome(False, error=f"there is no silence {command.silence!r}; see `sixfbctl silence list`"), said
        self.emit(SilenceChanged(at, replace(silence, starts_at=min(silence.starts_at, at), ends_at=at)))
        self.doubt_all_holds()
        return Outcome(True, f"silence {silence.id} has ended", id=silence.id), said

    # ---- messages ------------------------------------------------------------------------------------------------------

    def _drop(self, command: DropMessage, by: Actor, at: float) -> tuple[Outcome, str]:
        said = f"outbox drop {command.message}"
        message = self.draft.messages.get(command.message)
        if message is None:
            return Outcome(False, error=f"no message {command.message} waits; see `sixfbctl outbox list --open`"), said
        if message.state != "pending":
            return Outcome(False, error=f"message {message.id} is {message.state}: it may be there already"), said
        for owed in self.draft.carried(message):
            self.suppress(owed, f"dropped by {by.name}", at)
            self.settle(owed.subject, owed.target, at)
        return Outcome(True, f"message {message.id} is dropped", id=message.id), said

    def _retry_dead(self, command: RetryMessage, at: float) -> tuple[Outcome, str]:
        """Owe anew what is still so: a notice, and what fires. That something has ended nobody need be told any more."""
        said = f"outbox retry {command.message}"
        again = [
            replace(
                owed,
                id=obligation_id(owed.subject, owed.kind, owed.target, owed.severity, at, owed.id),
                state="pending",
                at=at,
                message=None,
                reason="",
                changed_at=at,
                held=False,
                not_before=0.0,
            )
            for owed in command.obligations
            if owed.state == "dead" and self._is_still_so(owed)
        ]
        if not again:
            return Outcome(False, error=f"nothing of message {command.message} is still to be told"), said
        self.owe(again, at)
        return Outcome(True, f"{len(again)} of message {command.message} are owed anew", id=command.message), said

    def _is_still_so(self, owed: Obligation) -> bool:
        if owed.about is None:
            return True
        alert = self.draft.incident(owed.subject)
        return owed.kind != "resolve" and alert is not None and alert.state is AlertState.FIRING

    # ---- tests of the way to people --------------------------------------------------------------------------------------

    def _test_notify(self, command: TestNotify, at: float) -> tuple[Outcome, str]:
        """Owe every channel of the receivers a message that says that it is a test; the outcome's id is its subject."""
        said = f"notify test {' '.join(command.receivers)}".strip()
        targets = self._all_of(command.receivers)
        if isinstance(targets, str):
            return Outcome(False, error=targets), said
        subject = f"test/{at!r}"
        if self.draft.open_obligations(subject):
            return Outcome(False, error=AT_ONCE.format("test")), said
        self._try_out(targets, subject, TEST_TEXT, at)
        return Outcome(True, f"{len(targets)} test messages are on their way", id=subject), said

    def _drill(self, command: HoldDrill, at: float) -> tuple[Outcome, str]:
        """Owe every channel of the receivers a drill, and note when it began; the outcome's id is its subject."""
        said = " ".join(["drill", *([f"({command.name})"] if command.name else []), *command.receivers])
        targets = self._all_of(command.receivers)
        if isinstance(targets, str):
            return Outcome(False, error=targets), said
        before = self.draft.drills.get(command.name)
        if before is not None and before.at == at:
            return Outcome(False, error=AT_ONCE.format("drill")), said
        drill = DrillHeld(at, command.name, tuple(targets))
        self.emit(drill)
        self._try_out(targets, drill.subject, DRILL_TEXT, at)
        return Outcome(True, f"{len(targets)} messages of a drill are on their way", id=drill.subject), said

    def _all_of(self, receivers: tuple[str, ...]) -> list[Target] | str:
        """Return the targets of all channels of these receivers, of all of them if none is named; else what is wrong."""
        known = self.policy.routing.receivers
        unknown = [name for name in receivers if name not in known]
        if unknown or not known:
            there = ", ".join(known) or "none; add [receivers.primary]"
            return f"there is no receiver {', '.join(unknown) or 'at all'}; there are {there}"
        return [target for name in receivers or tuple(known) for target in self.policy.routing.all_of(name)]

    def _try_out(self, targets: list[Target], subject: str, text: str, at: float) -> None:
        owed = [
            Obligation(
                id=obligation_id(subject, "notice", target, Severity.LOW, at),
                kind="notice",
                target=target,
                state="pending",
                at=at,
                subject=subject,
                severity=Severity.LOW,
                text=text.format(receiver=target.receiver, channel=target.notifier),
                changed_at=at,
            )
            for target in targets
        ]
        self.owe(owed, at)
