"""The bench's plugin in the daemon: checks and events that do next to nothing themselves, and say when they ran.

Copied into the daemon's plugins.d; what it has to tell goes to the bench as datagrams of pairs of numbers. Times are of
time.perf_counter(), a clock that processes share.
"""

import random
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final

import msgspec
import trio

from sixfbd.plugin import ANY, Check, EventType, Gauge, Json, PluginConfig, Report, Sample, Status, hookimpl

PAIR: Final = struct.Struct("<dd")
PAIRS_AT_ONCE: Final = 500  # 8 kB
SLEEP_S: Final = 0.001
TELL_S: Final = 0.2

FAULT: Final = Gauge("bench_fault", "1 while there is a fault.")
REPORTED: Final = Gauge("bench_report", "1 and 0 by turns.")
UP: Final = Gauge("bench_up", "1 after the burst.", labels=("id",))
VALUE: Final = Gauge("bench_value", "Between 0 and 1.", labels=("group", "id"))
GROUPS: Final = 5

_out: Final = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
_out.setblocking(False)


def tell(port: int, *pairs: tuple[float, float]) -> None:
    _out.sendto(b"".join(PAIR.pack(*pair) for pair in pairs), ("127.0.0.1", port))


class BenchOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    to: Annotated[int, msgspec.Meta(description="Port of the bench.")]
    series: Annotated[int, msgspec.Meta(description="How many series to report.")] = 1
    run_s: Annotated[float, msgspec.Meta(description="How long a run lasts, of one that lasts.")] = 0.0
    after_s: Annotated[float, msgspec.Meta(description="How long such a run waits before it begins.")] = 0.0


class _Telling(Check[BenchOptions]):
    """A check that counts its runs."""

    Options = BenchOptions

    def __init__(self, options: BenchOptions, ctx: Any) -> None:
        super().__init__(options, ctx)
        self.runs = 0


class Flip(_Telling):
    """Reports a gauge that is 1 and 0 by turns; tells (value, time) of the run before: telling is the bench's own work."""

    metrics = (REPORTED,)

    def __init__(self, options: BenchOptions, ctx: Any) -> None:
        super().__init__(options, ctx)
        self._before: list[tuple[float, float]] = []

    async def run(self, cursor: Json | None) -> Report:
        if self._before:
            tell(self.options.to, *self._before)
        self.runs += 1
        value = float(self.runs % 2)
        report = Report(Status.HEALTHY, "", (REPORTED(value),))
        self._before = [(value, time.perf_counter())]
        return report


class Burst(_Telling):
    """Reports series that are 0 in the first run and 1 in all others; tells (value, time) right before it returns."""

    metrics = (UP,)

    async def run(self, cursor: Json | None) -> Report:
        self.runs += 1
        value = float(self.runs > 1)
        report = Report(Status.HEALTHY, "", tuple(UP(value, id=str(one)) for one in range(self.options.series)))
        tell(self.options.to, (value, time.perf_counter()))
        return report


class Tick(_Telling):
    """Does nothing; tells (number of the check, time) of its runs, many at once."""

    _numbers = 0
    _told: ClassVar[list[tuple[float, float]]] = []

    def __init__(self, options: BenchOptions, ctx: Any) -> None:
        super().__init__(options, ctx)
        Tick._numbers += 1
        self._number = float(Tick._numbers)

    async def run(self, cursor: Json | None) -> Report:
        self._told.append((self._number, time.perf_counter()))
        if len(self._told) >= PAIRS_AT_ONCE:
            tell(self.options.to, *self._told)
            self._told.clear()
        return Report(Status.HEALTHY, "")


class Page(_Telling):
    """Reports many series, a tenth of them changed in odd runs and all in even ones; tells (run, time)."""

    metrics = ANY

    def __init__(self, options: BenchOptions, ctx: Any) -> None:
        super().__init__(options, ctx)
        self._chance = random.Random(options.series)
        self._samples = [self._sample(number) for number in range(options.series)]

    def _sample(self, number: int) -> Sample:
        labels = (("instance", f"shop-{number % 100}"), ("region", "dallas"), ("tier", f"tier-{number % 7}"))
        return Sample(f"bench_page_metric_{number // 100}", round(1000 * self._chance.random(), 3), labels)

    async def run(self, cursor: Json | None) -> Report:
        self.runs += 1
        for number in range(0, self.options.series, 10 if self.runs % 2 else 1):
            self._samples[number] = self._sample(number)
        tell(self.options.to, (float(self.runs), time.perf_counter()))
        return Report(Status.HEALTHY, "", tuple(self._samples))


class Values(_Telling):
    """Reports series in groups, a tenth of them changed in each run; tells nothing."""

    metrics = (VALUE,)

    def __init__(self, options: BenchOptions, ctx: Any) -> None:
        super().__init__(options, ctx)
        self._chance = random.Random(ctx.name)
        self._name = ctx.name
        self._samples = [self._sample(number) for number in range(options.series)]

    def _sample(self, number: int) -> Sample:
        return VALUE(self._chance.random(), group=str(number % GROUPS), id=f"{self._name}-{number}")

    async def run(self, cursor: Json | None) -> Report:
        self.runs += 1
        for number in range(self.runs % 10, self.options.series, 10):
            self._samples[number] = self._sample(number)
        return Report(Status.HEALTHY, "", tuple(self._samples))


class Sleeper(_Telling):
    """Sleeps a millisecond again and again; tells (time, how late it woke, both in seconds), many at once."""

    async def run(self, cursor: Json | None) -> Report:
        await trio.sleep(self.options.after_s)
        end, told = trio.current_time() + self.options.run_s, list[tuple[float, float]]()
        tell_at = trio.current_time() + TELL_S
        while (due := trio.current_time() + SLEEP_S) < end:
            await trio.sleep_until(due)
            told.append((time.perf_counter(), trio.current_time() - due))
            if due > tell_at or len(told) >= PAIRS_AT_ONCE:
                tell(self.options.to, *told)
                told.clear()
                tell_at = due + TELL_S
        return Report(Status.HEALTHY, "")


class Number(msgspec.Struct, frozen=True):
    value: int


class Sale(msgspec.Struct, frozen=True, rename="camel"):
    order_id: str
    city_id: str
    tier: str
    quantity: int
    amount: int
    currency: str


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    return {
        "bench-flip": Flip,
        "bench-burst": Burst,
        "bench-tick": Tick,
        "bench-page": Page,
        "bench-values": Values,
        "bench-sleeper": Sleeper,
    }


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    return (
        EventType("bench_notice", Number, notice="bench"),
        EventType("bench_fault", Number, sets=lambda fault: [FAULT(fault.value)], metrics=(FAULT,)),
        EventType("bench_sale", Sale),
    )
