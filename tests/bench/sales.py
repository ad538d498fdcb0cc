"""How soon a checkout that died is noticed, and how often wolf is cried, on simulated shops; beside two fixed rules.

`tail`: an exact tail of the orders that an hour of the week brings; `checkouts`: the same, of a shop that tells of checkouts.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.passes import Effort, Goal, Row
from tests.simulation.sales import judge_shops

SHOPS: Final = {5: 40, 50: 20, 500: 6}
BESIDE: Final = {"ratio": "an hour below 30 % of its like", "silence": "two hours without an order"}


def rows(directory: Path, effort: Effort) -> Sequence[Row]:
    """Measure the rows of sales; no time of this machine is in them."""
    found = []
    for a_day, shops in SHOPS.items():
        judged = judge_shops(a_day, effort.pick(shops, 1))
        for way in ("tail", "checkouts"):
            for fixed, words in BESIDE.items():
                ours, theirs = judged.false_a_month[way], judged.false_a_month[fixed]
                found.append(
                    Row(
                        f"{a_day} sales a day, {way}: false pages a month",
                        "",
                        [ours],
                        words,
                        [theirs],
                        Goal(0.5, absolute=True),
                    )
                )
                ours, theirs = median(judged.to_page_h[way]), median(judged.to_page_h[fixed])
                found.append(Row(f"{a_day} sales a day, {way}: to page", "h", [ours], words, [theirs]))
    return found
