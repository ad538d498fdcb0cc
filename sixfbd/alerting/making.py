"""Messages are made of what is owed: one for a target and a group, and one digest of what is over a budget. Pure."""

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from sixfbd.alerting.budget import Budget
from sixfbd.alerting.commanding import Commanding
from sixfbd.alerting.drafting import Steps
from sixfbd.alerting.identity import message_id
from sixfbd.alerting.inputs import Deliver
from sixfbd.alerting.overdue import late_at
from sixfbd.alerting.owe import group_of
from sixfbd.alerting.policy import Policy
from sixfbd.journal.records import MessageChanged, Postponed, Spent
from sixfbd.journal.state import Purse, State
from sixfbd.model import Message, Obligation, Severity, Target

MAX_OBLIGATIONS: Final = 100  # in one message
MAX_REASON: Final = 300  # characters
DIGEST: Final = "digest"  # the group of such a message

Bundle = tuple[Target, str, list[Obligation]]
"""What would be one message: to whom, of which group, carrying what."""


class Making(Commanding):
    """A decision that makes messages; without `claim` none is taken up."""

    def __init__(self, published: State, policy: Policy, now: float, claim: bool) -> None:
        super().__init__(published, policy, now)
        self.claim = claim

    def new_messages(self) -> Steps[None]:
        """Put what may be told now into messages, as far as the targets' budgets go; claimed at once if there is room."""
        while self.ready:  # what is passed on to another channel meanwhile is told in the same round
            ready, self.ready = self.ready, {}
            groups: dict[tuple[Target, str], list[Obligation]] = {}
            for identity in ready:
                obligation = self.draft.obligations.get(identity)
                if obligation is not None and obligation.message is None:
                    groups.setdefault((obligation.target, group_of(obligation)), []).append(obligation)
                yield from self.rest()
            yield from self._within_budgets(sorted(_bundles(groups), key=_urgent_first))

    def _within_budgets(self, bundles: Sequence[Bundle]) -> Steps[None]:
        over: dict[Purse, tuple[Budget, list[Obligation]]] = {}
        for target, group, obligations in bundles:
            purse, budget = _purse(target, obligations[0]), self._budget(target, obligations[0])
            waits = purse in over or any(one.postponed for one in obligations)
            if budget is None:
                self._new_message(target, group, obligations)
            elif not waits and self._has_room(purse, budget, urgent=_is_urgent(obligations)):
                self.emit(Spent(self.now, *purse))
                self._new_message(target, group, obligations)
            else:
                over.setdefault(purse, (budget, []))[1].extend(obligations)
            yield from self.rest()
        for purse, (budget, waiting) in over.items():
            yield from self._digest(purse, budget, waiting)

    def _budget(self, target: Target, obligation: Obligation) -> Budget | None:
        """Return the budget that a message costs; what only tries out the way to people costs none."""
        if obligation.about is not None:
            return self.policy.budgets.get(target)
        return None if obligation.notice is None else self.policy.notice_budget

    def _has_room(self, purse: Purse, budget: Budget, *, urgent: bool) -> bool:
        return budget.has_room(self.draft.spent.get(purse) or (), self.now, urgent=urgent)

    def _digest(self, purse: Purse, budget: Budget, waiting: Sequence[Obligation]) -> Steps[None]:
        """Tell what is over a budget in one message, if it is time for one; else it waits until it is."""
        at = self._digest_at(purse, budget)
        ends_first = sorted(waiting, key=lambda one: (one.kind != "resolve", -one.severity.rank, one.at))
        if at <= self.now:
            carried, rest = ends_first[:MAX_OBLIGATIONS], ends_first[MAX_OBLIGATIONS:]
            firing = [one for one in rest if one.kind != "resolve"]
            self.emit(Spent(self.now, *purse, digest=True))
            self._new_message(purse[0], purse[1] or DIGEST, carried, digest=True, more=len(firing))
            reason = f"counted in the digest {message_id(carried[0].id)}"
            for one in firing:
                self.suppress(one, reason, self.now)
                yield from self.rest()
            ends_first, at = rest[: len(rest) - len(firing)], self._digest_at(purse, budget)
        why = f"the budget of {purse[0].receiver} through {purse[0].notifier} is spent"
        for one in ends_first:
            self.emit(Postponed(self.now, one.id, max(at, self.now + 1.0), why))
            if one.severity is Severity.CRITICAL:
                self.pass_on([one], why)
            yield from self.rest()

    def _digest_at(self, purse: Purse, budget: Budget) -> float:
        """Return when a digest may go: where there is room for any message, or, now and then, out of the reserve."""
        spent = self.draft.spent.get(purse) or ()
        before = self.draft.digests.get(purse)
        of_reserve = budget.free_at(spent, self.now, urgent=True)
        if before is not None:
            of_reserve = max(of_reserve, before + budget.digest_s)
        return min(of_reserve, budget.free_at(spent, self.now, urgent=False))

    def _new_message(
        self, target: Target, group: str, obligations: Sequence[Obligation], *, digest: bool = False, more: int = 0
    ) -> None:
        notifier = self.policy.notifiers.get(target.notifier)
        message = Message(
            id=message_id(obligations[0].id),
            target=target,
            state="pending",
            created_at=self.now,
            expires_at=self.now + (0.0 if notifier is None else notifier.expiry_s),
            obligations=tuple(one.id for one in obligations),
            group=group,
            next_try_at=self.now,
            late_at=late_at(self.policy.routing, target, obligations, self.now),
            digest=digest,
            more=more,
        )
        if notifier is None:
            reason = f"notifier {target.notifier} is not configured"
            self.move(replace(message, state="dead", last_error=reason), reason, self.now)
        elif self.claim and self.room(target.notifier):
            self.claim_message(message, possibly_repeated=False)
        else:
            self.emit(MessageChanged(self.now, message, "waits for its turn"))

    def room(self, notifier: str) -> bool:
        """Messages beyond a notifier's concurrency wait as pending: `sending` is what is really on its way."""
        settings = self.policy.notifiers.get(notifier)
        return settings is None or (self.draft.sending.get(notifier) or 0) < settings.concurrency

    def claim_message(self, message: Message, *, possibly_repeated: bool) -> None:
        claimed = replace(
            message, state="sending", attempt=message.attempt + 1, possibly_repeated=possibly_repeated,
        )  # fmt: skip
        self.emit(MessageChanged(self.now, claimed, f"attempt {claimed.attempt}"))
        self.effects.append(Deliver(claimed, self.draft.carried(claimed)))

    def move(self, message: Message, what: str, at: float) -> None:
        """Change a message; what waited behind its obligations may go on, and what it gives up goes by another channel."""
        waiting = [(one.subject, one.target) for one in self.draft.carried(message)]
        lost = self.carried_by(message) if message.state == "dead" else ()
        self.emit(MessageChanged(at, message, what))
        for subject, target in waiting:
            self.settle(subject, target, at)
        self.pass_on(lost, f"{message.target.notifier}: given up: {what}"[:MAX_REASON])


def _bundles(groups: dict[tuple[Target, str], list[Obligation]]) -> list[Bundle]:
    return [
        (target, group, obligations[start : start + MAX_OBLIGATIONS])
        for (target, group), obligations in groups.items()
        for start in range(0, len(obligations), MAX_OBLIGATIONS)
    ]


def _urgent_first(bundle: Bundle) -> bool:
    return not _is_urgent(bundle[2])


def _is_urgent(obligations: Sequence[Obligation]) -> bool:
    return any(one.severity is Severity.CRITICAL and one.kind != "resolve" for one in obligations)


def _purse(target: Target, obligation: Obligation) -> Purse:
    return target, "" if obligation.about is not None else group_of(obligation)
