"""A scenario as a file: what happens when, and who must be told of what, between when and when. Nothing else may be told.

The form is described in CONTRIBUTING.md. Reads TOML and checks it; runs nothing.
"""

import re
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from sixfbd.model import Status
from sixfbd.quantities import Duration

VERBS: Final = ("check", "event", "notifier", "command", "daemon", "clock")
START: Final = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)  # a Monday
TAIL_S: Final = 300.0  # what goes on after the last step or expectation, so that what is told too much shows
_SERIES: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?")
_LABEL: Final = re.compile(r'\s*(\w+)="([^"]*)"\s*(?:,|$)')

Fault = Literal["none", "refuse", "throttle", "hang", "reject", "lose answer", "never arrives"]
Command = Literal["ack", "silence", "expire", "pause", "resume", "reload"]


class ScenarioError(Exception):
    """A scenario cannot be read or run; the text says where and why."""


class Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[at]]`: exactly one of `check`, `event`, `notifier`, `command`, `daemon` and `clock`, with its own keys.

    `times` repeats it, `every` apart.
    """

    time: Duration
    times: Annotated[int, Meta(ge=1)] = 1
    every: Duration = Duration(0)
    # what a check reports from now on
    check: str = ""
    status: Status | None = None
    summary: str | None = None
    series: dict[str, float] = {}
    gone: tuple[str, ...] = ()  # series that it reports no more
    answers: bool = True  # false: its runs hang
    # an event comes in, or a burst of them
    event: str = ""
    data: dict[str, Any] = {}
    count: int = 1
    # a provider fails, for so many tries (0: until further notice)
    notifier: str = ""
    fault: Fault = "none"
    tries: int = 0
    # somebody gives a command
    command: Command | None = None
    alert: str = ""
    labels: dict[str, str] = {}
    matchers: tuple[str, ...] = ()
    comment: str = ""
    lasts: Duration = Duration(0)
    target: str = ""  # the check of `pause` and `resume`
    config: dict[str, Any] = {}  # of `reload`, over what holds
    # the daemon dies, or is started
    daemon: Literal["crash", "start"] | None = None
    clock: float = 0.0  # seconds by which the wall clock jumps

    def __post_init__(self) -> None:
        verbs = [name for name in VERBS if getattr(self, name)]
        if len(verbs) != 1:
            raise ValueError(f"a step has one of {', '.join(VERBS)}, not {len(verbs)} of them")


class Expectation(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[expect]]`: who is told of what, between when and when; `count` messages of it.

    `alert` is its name, and left out for a notice or a digest. `labels` are some of its labels, `says` is part of the text.
    """

    receiver: str
    alert: str = ""
    kind: Literal["fire", "level", "resolve", "repeat", "escalate", "notice"]
    from_: Duration = field(name="from")
    to: Duration
    labels: dict[str, str] = {}
    severity: str = ""
    via: str = ""
    address: str = ""
    says: str = ""
    count: Annotated[int, Meta(ge=1)] = 1
    times: Annotated[int, Meta(ge=1)] = 1
    every: Duration = Duration(0)

    def __post_init__(self) -> None:
        if self.from_ > self.to:
            raise ValueError("from is after to")

    def __str__(self) -> str:
        labels = "".join(f" {name}={value}" for name, value in self.labels.items())
        what = f"{self.alert or self.says!r}{labels}"
        via = f" by {self.via}" if self.via else ""
        return f"{self.receiver}: {self.kind} {what} {self.severity}{via} between {self.from_} and {self.to}".replace(
            "  ", " "
        )


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole file. `says` is the sentence: what happens, who must be told when, who must not.

    `start` is the wall time of time 0. `messages` is how many messages there are, if that matters: one may tell of several
    alerts. `pace` is how often the daemon reports on itself: of a month less often. `wrong` says what is wrong with the daemon
    while a scenario fails for a fault that is known.
    """

    says: Annotated[str, Meta(min_length=20)]
    start: datetime = START
    lasts: Duration = Duration(0)
    messages: int | None = None
    config: dict[str, Any] = {}
    at: Annotated[tuple[Step, ...], Meta(min_length=1)]
    expect: tuple[Expectation, ...] = ()
    pace: Duration = Duration(30)
    name: str = ""
    wrong: str = ""

    @property
    def end_s(self) -> float:
        """When it is over, in seconds from its beginning."""
        ends = [step.time + (step.times - 1) * step.every for step in self.at]
        ends += [one.to + (one.times - 1) * one.every for one in self.expect]
        return max(float(self.lasts), *(end + TAIL_S for end in ends))

    @property
    def steps(self) -> list[tuple[float, Step]]:
        """Every step with its time, those that repeat unrolled, in order."""
        unrolled = [(step.time + n * step.every, step) for step in self.at for n in range(step.times)]
        return sorted(unrolled, key=lambda one: one[0])

    @property
    def expected(self) -> list[Expectation]:
        """Every message that is expected, one by one, those that have to come first first."""
        unrolled = [
            msgspec.structs.replace(
                one,
                from_=Duration(one.from_ + n * one.every),
                to=Duration(one.to + n * one.every),
                count=1,
                times=1,
            )
            for one in self.expect
            for n in range(one.times)
            for _ in range(one.count)
        ]
        return sorted(unrolled, key=lambda one: (one.to, one.from_))


def read_scenario(path: Path) -> Scenario:
    """Return the scenario of a file. Raises ScenarioError with the file and what is wrong in it."""
    try:
        return scenario_of(tomllib.loads(path.read_text(encoding="utf-8")), path.stem)
    except (OSError, tomllib.TOMLDecodeError, ScenarioError) as error:
        raise ScenarioError(f"{path}: {error}") from None


def scenario_of(values: Mapping[str, Any], name: str) -> Scenario:
    """Return the scenario of a TOML document. Raises ScenarioError."""
    try:
        scenario = msgspec.convert({**values, "name": name}, Scenario, dec_hook=_duration)
    except (msgspec.ValidationError, ValueError) as error:
        raise ScenarioError(str(error)) from None
    if scenario.start.tzinfo is None:
        raise ScenarioError("start has no time zone; write 2026-06-01T12:00:00Z")
    return scenario


def parse_series(text: str) -> tuple[str, dict[str, str]]:
    """Return name and labels of a series as a rule writes it: `up{instance="a"}`. Raises ScenarioError."""
    whole = _SERIES.fullmatch(text)
    if whole is None:
        raise ScenarioError(f"{text!r} is not a series")
    labels = whole[2] or ""
    found = _LABEL.findall(labels)
    if _LABEL.sub("", labels).strip():
        raise ScenarioError(f"{text!r} is not a series: its labels cannot be read")
    return whole[1], dict(found)


def _duration(kind: type, value: Any) -> Any:
    if kind is Duration:
        try:
            return Duration.parse(value)
        except ValueError as error:
            raise ValueError(f"{value!r} {error}") from None
    raise NotImplementedError
