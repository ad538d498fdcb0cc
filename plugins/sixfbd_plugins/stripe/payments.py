"""What becomes of payments: attempts folded into outcomes, and how likely so many failures are by chance. Pure functions.

A payment's outcome is its latest state, final so many seconds after its first attempt: a buyer with four declines and a
success is one success (SEED S9). A success that comes within that time stands whatever else is told of it, because Stripe
attempts nothing after it; so the order in which attempts become known does not matter.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

SUCCEEDED: Final = "succeeded"
DECLINED: Final = "declined"
ERROR: Final = "error"
PROCESSING: Final = "processing"
OUTCOMES: Final = (SUCCEEDED, DECLINED, ERROR, PROCESSING)
FAILED: Final = (DECLINED, ERROR)
_RANK: Final = {PROCESSING: 0, ERROR: 1, DECLINED: 2}  # which of two of the same second is the latest


class Attempt(Struct, frozen=True):
    """One attempt to pay, or what became of it later: `state` is one of OUTCOMES. `amount` is what was paid, in minor units."""

    payment: str
    at: float
    state: str
    reason: str = ""
    amount: int = 0
    currency: str = ""


class Payment(Struct, frozen=True):
    """A payment as its attempts show it. `decided_at`: since when the outcome is what it is, and will stay; None: it may change."""

    id: str
    first_at: float
    outcome: str
    reason: str
    attempts: int
    decided_at: float | None
    amount: int = 0
    currency: str = ""


class Figures(Struct, frozen=True):
    """Payments of some time by outcome; amounts in minor units by currency; reasons of the failed, most frequent first."""

    by_outcome: Mapping[str, int]
    amounts: Mapping[str, int]
    paid: Mapping[str, int]
    reasons: Sequence[tuple[str, int]]

    @property
    def failed(self) -> int:
        return sum(self.by_outcome[one] for one in FAILED)

    @property
    def decided(self) -> int:
        """Payments that succeeded or failed: what a failure rate is of."""
        return self.by_outcome[SUCCEEDED] + self.failed

    @property
    def failure_rate(self) -> float | None:
        """0..1; None if nothing is decided."""
        return self.failed / self.decided if self.decided else None

    @property
    def total(self) -> int:
        return sum(self.by_outcome.values())


def fold(attempts: Iterable[Attempt], final_after_s: float, until: float, late_s: float = 0.0) -> list[Payment]:
    """Return the payments of these attempts, in any order of them, as they are known at `until`.

    `late_s`: an attempt may become known so much later, so that a failure is not called final before.
    """
    of_payment: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        of_payment.setdefault(attempt.payment, []).append(attempt)
    return [_folded(name, found, final_after_s, until - late_s) for name, found in of_payment.items()]


def _folded(name: str, attempts: list[Attempt], final_after_s: float, known_until: float) -> Payment:
    first_at = min(one.at for one in attempts)
    final_at = first_at + final_after_s
    counted = [one for one in attempts if one.at <= final_at]
    successes = [one for one in counted if one.state == SUCCEEDED]
    if successes:
        last = min(successes, key=lambda one: (one.at, one.amount, one.currency))
        paid = max(successes, key=lambda one: (one.amount, one.currency))
        return Payment(name, first_at, SUCCEEDED, "", len(counted), last.at, paid.amount, paid.currency)
    last = max(counted, key=lambda one: (one.at, _RANK[one.state], one.reason))
    decided_at = final_at if known_until >= final_at else None
    return Payment(name, first_at, last.state, last.reason, len(counted), decided_at)


def figures(payments: Iterable[Payment]) -> Figures:
    """Return the figures of these payments."""
    by_outcome = Counter(dict.fromkeys(OUTCOMES, 0))
    amounts: Counter[str] = Counter()
    paid: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for one in payments:
        by_outcome[one.outcome] += 1
        if one.outcome == SUCCEEDED and one.currency:
            amounts[one.currency] += one.amount
            paid[one.currency] += 1
        if one.outcome in FAILED:
            reasons[one.reason] += 1
    ordered = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return Figures(by_outcome, amounts, paid, ordered)


def chance_of(failed: int, total: int, rate: float) -> float:
    """Return how likely at least `failed` of `total` are if each fails with probability `rate`: the exact binomial tail."""
    if failed <= 0:
        return 1.0
    if failed > total:
        return 0.0
    if failed <= total * rate:  # the other tail is the shorter one, and this one is far from 0
        return max(0.0, 1.0 - math.fsum(_terms(range(failed - 1, -1, -1), total, rate)))
    return min(1.0, math.fsum(_terms(range(failed, total + 1), total, rate)))


def _terms(counts: Iterable[int], total: int, rate: float) -> Iterable[float]:
    """Yield the probability of each count, away from the middle, until no more can be seen of the sum."""
    logs = math.log(rate), math.log1p(-rate)
    largest = 0.0
    for count in counts:
        choices = math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)
        term = math.exp(choices + count * logs[0] + (total - count) * logs[1])
        largest = max(largest, term)
        if term <= largest * 1e-20:
            return
        yield term
