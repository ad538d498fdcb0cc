"""Faults that are switched on while a double runs: what every one of them has in common. No I/O, no clock of its own."""

import random
from collections.abc import Callable

import msgspec

Form = dict[str, str]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a double answers. Whoever serves it waits `delay_s` first; `lost`: then hangs up without a word."""

    status: int = 200
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    delay_s: float = 0.0
    lost: bool = False


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """A fault of a provider, for the part `rate` of the requests whose path holds `path`.

    `error`: this status in place of an answer, and nothing is done. `lost`: it is done, but the answer is lost. `silent`: the
    answer never comes. `latency_s` comes on top of each.
    """

    error: int = 0
    code: int = 0
    retry_after_s: int = 0
    rate: float = 1.0
    latency_s: float = 0.0
    lost: bool = False
    silent: bool = False
    method: str = ""
    path: str = ""

    def hits(self, method: str, path: str, rng: random.Random) -> bool:
        """Tell whether a request meets this fault."""
        if self.path not in path or self.method not in ("", method):
            return False
        return self.rate >= 1.0 or rng.random() < self.rate


NEVER_S = 3600.0  # how long who never answers keeps a connection


def answered(
    faults: list[Fault], method: str, path: str, rng: random.Random, act: Callable[[], Answer],
    refuse: Callable[[Fault], Answer],
) -> Answer:  # fmt: skip
    """Return the answer to a request under the faults that are on: `act` does what was asked, `refuse` says no."""
    met = [fault for fault in faults if fault.hits(method, path, rng)]
    refusing = next((fault for fault in met if fault.error), None)
    answer = act() if refusing is None else refuse(refusing)
    delay_s = sum(fault.latency_s for fault in met) + (NEVER_S if any(fault.silent for fault in met) else 0.0)
    lost = any(fault.lost or fault.silent for fault in met)
    return msgspec.structs.replace(answer, delay_s=delay_s, lost=lost)
