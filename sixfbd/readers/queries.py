"""Queries: PromQL, series and events for whoever asks, in threads of their own, with a deadline, ended when the client goes."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias, TypeVar

import trio

from sixfbd import promql
from sixfbd.journal.records import MessageChanged, Record
from sixfbd.model import Alert, Event, Labels, Message, Series, StoredEvent
from sixfbd.promql import PromQLError, Query, QueryError, Stop, Value
from sixfbd.promql.nodes import Selector
from sixfbd.window.snapshot import Matcher, Snapshot

T = TypeVar("T")

QUERY_LIMIT_S: Final = 20.0
MAX_POINTS: Final = 20_000_000  # samples that one query may read
QUERY_THREADS: Final = 2
MAX_EVENTS: Final = 10_000  # events that a plugin's read returns at most
MAX_MESSAGES: Final = 10_000
MAX_ALERTS: Final = 200  # incidents that are looked through for those with certain labels

Latest: TypeAlias = Sequence[tuple[Series, int, float, str]]


class Window(Protocol):
    """What readers need of the window."""

    def snapshot(self) -> Snapshot: ...
    def latest(self, matchers: Sequence[Matcher] = ()) -> Latest: ...
    def quantile_of(self, metric: str, q: float, lo_ms: int, hi_ms: int) -> float | None: ...


class Journal(Protocol):
    """What readers need of journal.db."""

    async def events(
        self,
        after_seq: int = 0,
        *,
        types: Collection[str] | None = None,
        start: float | None = None,
        end: float | None = None,
        limit: int = 1000,
        newest_first: bool = False,
    ) -> list[StoredEvent]: ...
    async def messages(self, notifier: str, start: float, end: float, limit: int) -> list[Message]: ...
    async def history(self, alert_id: str) -> list[Record]: ...
    async def recent_alerts(self, limit: int) -> list[Alert]: ...


class EngineReader:
    """The read access of everybody; also `sixfbd.plugin.Reader`."""

    def __init__(self, window: Window, journal: Journal, alerts: Callable[[], Iterable[Alert]]) -> None:
        self._window = window
        self._journal = journal
        self._alerts = alerts
        self._threads = trio.CapacityLimiter(QUERY_THREADS)

    async def evaluate(self, expr: str, start: float, end: float, step: float) -> tuple[Query, Value]:
        """Evaluate PromQL at each `step` seconds from `start` to `end` (instant: start = end), times in unix seconds.

        Raises PromQLError (the text), QueryError (this data, or too much of it) or QueryStopped (took too long).
        """
        span = (round(start * 1000), round(end * 1000), max(1, round(step * 1000)))
        stop = Stop.within(QUERY_LIMIT_S)
        snapshot = self._window.snapshot()

        def work() -> tuple[Query, Value]:
            query = promql.compile(expr)  # of a text made to be slow it takes a second
            points = promql.cost(query, snapshot, *span)
            if points > MAX_POINTS:
                raise QueryError(f"the query would read {points} samples, more than {MAX_POINTS}; narrow it")
            return query, promql.evaluate(query, snapshot, *span, stop)

        try:
            return await self.offload(work)
        except trio.Cancelled:
            stop.cancel("nobody waits for the answer")
            raise

    async def offload(self, work: Callable[[], T]) -> T:
        """Read in one of the threads that queries have: however many ask, rules and the rest keep theirs."""
        return await trio.to_thread.run_sync(work, limiter=self._threads, abandon_on_cancel=True)

    def matching(self, selector: str) -> Latest:
        """Return the live series that a selector matches, with their last samples; "" matches all. Raises PromQLError."""
        return self._window.latest(selector_matchers(selector) if selector else ())

    async def query(
        self, expr: str, start: float, end: float, step: float
    ) -> Sequence[tuple[Labels, list[tuple[float, float]]]]:
        _, value = await self.evaluate(expr, start, end, step)
        return [
            (
                (("__name__", name), *labels) if name else labels,
                [(at / 1000, float(v)) for at, v, there in zip(value.steps_ms, row, present, strict=True) if there],
            )
            for name, labels, row, present in zip(value.names, value.labels, value.values, value.present, strict=True)
        ]

    async def events(self, type: str, start: float, end: float) -> Sequence[Event]:  # noqa: A002 - an event's field
        stored = await self._journal.events(types=(type,), start=start, end=end, limit=MAX_EVENTS)
        return sorted((one.event for one in stored), key=lambda event: event.timestamp)

    async def alerts(self, matchers: Mapping[str, str]) -> Sequence[Alert]:
        await trio.lowlevel.checkpoint()
        return [alert for alert in self._alerts() if matchers.items() <= alert.labels.items()]

    async def quantile(self, metric: str, q: float, start: float, end: float) -> float | None:
        span = (round(start * 1000), round(end * 1000))
        return await self.offload(lambda: self._window.quantile_of(metric, q, *span))

    async def recent_alerts(self, matchers: Mapping[str, str], limit: int) -> Sequence[Alert]:
        found = await self._journal.recent_alerts(MAX_ALERTS)
        return [alert for alert in found if matchers.items() <= alert.labels.items()][:limit]

    async def messages(self, notifier: str, start: float, end: float) -> Sequence[Message]:
        return await self._journal.messages(notifier, start, end, MAX_MESSAGES)

    async def messages_about(self, alert: str) -> Sequence[Message]:
        history = await self._journal.history(alert)
        return list({one.message.id: one.message for one in history if isinstance(one, MessageChanged)}.values())


def selector_matchers(selector: str) -> tuple[Matcher, ...]:
    """Return the matchers of a plain selector such as `probe_success{instance="x"}`. Raises PromQLError for anything else."""
    query = promql.compile(selector)
    if not isinstance(query.root, Selector) or query.root.range_ms:
        raise PromQLError('a selector such as up{job="shop"} is wanted here', 1, 1, selector)
    return tuple(query.selectors[0].matchers)
