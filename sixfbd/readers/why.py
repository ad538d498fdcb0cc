"""The whole story of one alert, as the journal has it, with addresses as they may be shown."""

from sixfbd.control.engine import Routed, StoryRecord, WhyView
from sixfbd.journal.records import AlertChanged
from sixfbd.readers.addresses import Addresses
from sixfbd.running import Running


async def why(running: Running, alert: str, addresses: Addresses) -> WhyView | None:
    """Return what the journal holds of an alert, by its id or the beginning of it; None if there is no such alert.

    Raises AmbiguousIdError, and JournalError if it cannot be read.
    """
    history = await running.journal.history(alert)
    changes = [one for one in history if isinstance(one, AlertChanged)]
    if not changes:
        return None
    last = changes[-1].alert
    rule = next((rule for rule in running.rules if rule.name == last.key.rule), None)
    routes: dict[tuple[str, str], Routed] = {}
    for routed in running.judge.policy.routing.targets(last.labels, last.severity, running.world.clock.now()):
        routes[routed.target.receiver, routed.path] = Routed(routed.target.receiver, (routed.path,))
    records: tuple[StoryRecord, ...] = tuple(addresses.record(one) for one in history if isinstance(one, StoryRecord))
    return WhyView(alert=last, rule=rule, routes=tuple(routes.values()), records=records)
