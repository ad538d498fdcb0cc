"""What a scenario's messages are worth: what was missed, what was told that nobody should hear, what came late."""

from collections import Counter
from collections.abc import Sequence

from msgspec import Struct

from tests.simulation.far_side import Arrival
from tests.simulation.scenario import Expectation, Scenario


class Verdict(Struct, frozen=True):
    """`missed` never came, `false` nobody should hear, `late` came after its time; each said in words.

    `pages` is how many times somebody was told that an incident began, `incidents` how many beginnings those were.
    """

    scenario: str
    messages: int
    missed: tuple[str, ...]
    false: tuple[str, ...]
    late: tuple[str, ...]
    pages: int = 0
    incidents: int = 0

    @property
    def is_good(self) -> bool:
        return not (self.missed or self.false or self.late)

    def __str__(self) -> str:
        words = [f"missed  {one}" for one in self.missed] + [f"false   {one}" for one in self.false]
        return "\n".join(f"    {one}" for one in (*words, *(f"late    {one}" for one in self.late)))


def judged(scenario: Scenario, arrivals: Sequence[Arrival]) -> Verdict:
    """Hold what arrived against what is expected; each arrival meets one expectation at most.

    What came too early was not asked for: it is false, and what was expected in its place is missed.
    """
    left = list(arrivals)
    missed: list[str] = []
    late: list[str] = []
    open_ones = []
    for one in scenario.expected:
        if (found := _first(left, one, one.to)) is None:
            open_ones.append(one)
        else:
            left.remove(found)
    for one in open_ones:
        if (found := _first(left, one, float("inf"))) is None:
            missed.append(str(one))
        else:
            left.remove(found)
            late.append(f"{one}: it came at {shown(found.at)}")
    messages = len({(one.message, one.notifier) for one in arrivals})
    false = [described(one) for one in left]
    if scenario.messages is not None and messages != scenario.messages:
        (missed if messages < scenario.messages else false).append(f"{messages} messages, not {scenario.messages}")
    begun = Counter((one.incident, one.notifier, one.address) for one in arrivals if one.kind == "fire")
    return Verdict(scenario.name, messages, tuple(missed), tuple(false), tuple(late), begun.total(), len(begun))


def _first(arrivals: Sequence[Arrival], expected: Expectation, until: float) -> Arrival | None:
    return next((one for one in arrivals if expected.from_ <= one.at <= until and _fits(one, expected)), None)


def _fits(arrival: Arrival, expected: Expectation) -> bool:
    return (
        arrival.receiver == expected.receiver
        and arrival.kind == expected.kind
        and arrival.alert == expected.alert
        and expected.labels.items() <= arrival.labels.items()
        and expected.severity in ("", arrival.severity)
        and expected.via in ("", arrival.notifier)
        and expected.address in ("", arrival.address)
        and expected.says in arrival.text
    )


def described(arrival: Arrival) -> str:
    """Say what arrived, in one line."""
    labels = " ".join(f"{name}={value}" for name, value in arrival.labels.items() if name != "alertname")
    what = f"{arrival.alert} {labels}" if arrival.alert else arrival.text.partition("\n")[0]
    return f"{shown(arrival.at)} {arrival.receiver} by {arrival.notifier}: {arrival.kind} {what}"


def shown(seconds: float) -> str:
    """Seconds since the beginning, as they are written in a scenario."""
    whole, hours = divmod(seconds, 60), int(seconds // 3600)
    minutes = int(whole[0]) % 60
    return f"{hours}h{minutes:02}m{whole[1]:04.1f}s" if hours else f"{minutes}m{whole[1]:04.1f}s"


def table(verdicts: Sequence[Verdict]) -> str:
    """Return a line for each scenario, what is wrong with it below, and the sums."""
    width = max([8, *(len(one.scenario) for one in verdicts)])
    lines = [f"{'scenario':{width}}  messages  missed  false  late"]
    for one in verdicts:
        lines.append(
            f"{one.scenario:{width}}  {one.messages:8}  {len(one.missed):6}  {len(one.false):5}  {len(one.late):4}"
        )
        lines += [str(one)] if not one.is_good else []
    pages, incidents = sum(one.pages for one in verdicts), sum(one.incidents for one in verdicts)
    sums = [sum(len(getattr(one, what)) for one in verdicts) for what in ("missed", "false", "late")]
    lines.append(
        f"{len(verdicts)} scenarios, {sum(one.messages for one in verdicts)} messages: {sums[0]} missed, {sums[1]} false, "
        f"{sums[2]} late; {pages / incidents if incidents else 0:.2f} pages per incident"
    )
    return "\n".join(lines)
