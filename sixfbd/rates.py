"""How much of something may come in a second: a bucket that is full at first and filled again at a rate. No clock, no I/O."""

import math
from typing import Final

BURST_S: Final = 10.0  # what comes at once may be so many seconds' worth of the rate


class Bucket:
    """What one sender may still bring. `rate` is given with each call: a reload may change it."""

    def __init__(self, now: float) -> None:
        self.left = math.inf
        self._at = now

    def take(self, rate: int, now: float, many: int = 1) -> float:
        """Take `many` at once; return 0, or the seconds until something may be taken, if nothing is left: then none is.

        One that is larger than what is left is taken whole, and is owed: the next one waits until that is made up for.
        """
        self.left = min(rate * BURST_S, self.left + max(0.0, now - self._at) * rate)
        self._at = now
        if self.left < 1:
            return (1 - self.left) / rate
        self.left -= many
        return 0.0
