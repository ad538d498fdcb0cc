"""Plugins that misbehave, each in the way that its option `how` says; tests put this file into a daemon's plugins.d."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import trio

from sixfbd.plugin import (
    Check,
    Context,
    Event,
    Gauge,
    Json,
    Notification,
    Notifier,
    PluginConfig,
    Receipt,
    Report,
    Sample,
    Status,
    hookimpl,
)

VALUE = Gauge("odd_value", "A value.", labels=("n",))
PHASE_S = 4  # how long `phase` stays as it is


class HowOptions(msgspec.Struct, frozen=True):
    """The options of all of them. While there is a file `steer`, they misbehave as it says instead, such as `flood 5000`."""

    how: str
    steer: str = ""


async def hang() -> None:
    await trio.sleep_forever()


async def shield() -> None:
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


def block(seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        pass  # time.sleep fails where the wall clock is a false one


def steered(options: HowOptions) -> str:
    """Return how to misbehave now. `blocks SECONDS` is meant once: its file is removed before it does."""
    if not options.steer:
        return options.how
    try:
        how = Path(options.steer).read_text()
    except FileNotFoundError:
        return options.how
    if how.startswith("blocks"):
        Path(options.steer).unlink()
    return how


class Odd(Check[HowOptions]):
    """Misbehaves as it is told."""

    Options = HowOptions
    metrics = (VALUE,)

    def __init__(self, options: HowOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self.runs = 0
        self.flood: tuple[Sample, ...] = ()

    async def run(self, cursor: Json | None) -> Report:
        self.runs += 1
        how, _, number = steered(self.options).partition(" ")
        match how:
            case "blocks":
                block(float(number))
            case "raises":
                raise RuntimeError("no such thing")
            case "exits":
                raise SystemExit(3)
            case "hangs":
                await hang()
            case "shields":
                await shield()
            case "wrong_type":
                return 17  # type: ignore[return-value] # that is what is odd
            case "nan_labels":
                sample = Sample("odd_value", 1.0, (("n", float("nan")),))  # type: ignore[arg-type] # odd as well
                return Report(Status.HEALTHY, "nan", (sample,))
            case "wordy":
                return Report(Status.HEALTHY, "x" * 10_000_000)
            case "flood":
                self.flood = self.flood or tuple(VALUE(1, n=str(n)) for n in range(int(number or 100_000)))
                return Report(Status.HEALTHY, "flood", self.flood)
            case "undeclared":
                return Report(Status.HEALTHY, "undeclared", (Sample("other", 1.0),))
            case "churn":
                return Report(Status.HEALTHY, "churn", self._new(5))
            case "sick_churn":
                return Report(Status.UNHEALTHY, "churn", self._new(5))
            case "event_flood":
                return Report(Status.HEALTHY, "events", events=self._events(2_000))
            case "more":
                return Report(Status.HEALTHY, "and so on", cursor="x" * 60_000, more=True)
            case "cursor":
                return Report(Status.HEALTHY, "too much to keep", cursor="x" * 1_000_000)
            case "phase":
                return Report(Status.HEALTHY, "phase", (VALUE(time.time() // PHASE_S % 2, n="phase"),))
        return Report(Status.HEALTHY, "fine", (VALUE(1, n="1"),))

    def _new(self, count: int) -> tuple[Sample, ...]:
        """Samples whose labels never come again, and one that does."""
        return VALUE(1, n="steady"), *(VALUE(1, n=f"{self.runs}/{number}/{time.time_ns()}") for number in range(count))

    def _events(self, count: int) -> tuple[Event, ...]:
        begun = time.time_ns()
        return tuple(Event(f"{begun}/{number}", "odd", time.time(), {"text": "x" * 100}) for number in range(count))


class Unmakable(Odd):
    """Cannot be made."""

    def __init__(self, options: HowOptions, ctx: Context) -> None:
        raise OSError("no such device")


class OddNotifier(Notifier[HowOptions]):
    """Misbehaves as it is told; delivers only if it is `fine`."""

    Options = HowOptions

    async def deliver(self, notification: Notification) -> Receipt:
        match steered(self.options):
            case "hangs":
                await hang()
            case "raises":
                raise RuntimeError("no such thing " + "x" * 1_000_000)
            case "fine":
                return Receipt(state="delivered")
        return "delivered"  # type: ignore[return-value] # that is what is odd


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    return {"odd": Odd, "unmakable": Unmakable}


@hookimpl
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[Notifier[Any]]]:
    return dict.fromkeys(("hanging", "raising", "rubbish"), OddNotifier)  # a receiver takes one of each name
