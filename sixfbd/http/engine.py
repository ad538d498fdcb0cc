"""What the HTTP room needs of the rest of the daemon, as one protocol, and the values and errors that pass through it.

The room owns the forms on the wire; whoever implements `HttpEngine` owns the facts. Nothing here does I/O.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias

from msgspec import Struct
from prometheus_client.registry import CollectorRegistry

from sixfbd.config import Site
from sixfbd.model import Actor, Alert, CheckState, Command, Event, Outcome, Silence, StoredEvent

Encoder: TypeAlias = Callable[[CollectorRegistry], bytes]
"""What writes metric families in one of their forms."""

Point: TypeAlias = tuple[float, float]
"""Unix seconds and a value; NaN and infinities are values."""


class QueryRefused(Exception):  # noqa: N818 - says what became of the query, as TemporaryFailure does
    """The query cannot be read: its text is wrong at `line` and `column`, counted from 1 (None: no place to name)."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class QueryFailed(Exception):  # noqa: N818 - says what became of the query, as TemporaryFailure does
    """The query reads well but has no answer with the data there is, such as a match of many to many."""


class QueryTooLong(Exception):  # noqa: N818 - says what became of the query, as TemporaryFailure does
    """The query was given up: it ran longer, or would read more, than a query may."""


class EngineUnavailable(Exception):  # noqa: N818 - says what became of the request, as TemporaryFailure does
    """The daemon cannot write or read its journal now (volatile mode, stopping); the text says why and what to do."""


class ReportFailed(Exception):  # noqa: N818 - says what became of the report, as TemporaryFailure does
    """A plugin's report failed or took too long; the text names the plugin."""


class ReportInfo(Struct, frozen=True, rename="camel"):
    """A report that there is; `units` by the names of keys, as `sixfbd.plugin.ReportType` has them."""

    name: str
    title: str
    doc: str
    timeframe: str
    path: str
    units: dict[str, str] = {}


class ResultSeries(Struct, frozen=True):
    """One series of a query's answer. `labels` include `__name__` where PromQL keeps it."""

    labels: dict[str, str]
    points: tuple[Point, ...]


class QueryAnswer(Struct, frozen=True):
    """The value of a query: one point per series for a vector, one series without labels for a scalar.

    A string's only content is `text`, at the time of `series[0]`'s point.
    """

    kind: Literal["vector", "matrix", "scalar", "string"]
    series: tuple[ResultSeries, ...] = ()
    text: str = ""


class EventResult(Struct, frozen=True):
    """What became of one event. `seq` is set when accepted (and when the duplicate's number is known).

    `kept_at` is its time, where that is not the one it claimed.
    """

    status: Literal["accepted", "duplicate", "refused"]
    seq: int | None = None
    field: str = ""
    message: str = ""
    kept_at: float | None = None


class TokenInfo(Struct, frozen=True):
    """Whose token it is, and what it allows: `read`, `events`, `alerts`."""

    name: str
    scopes: tuple[str, ...]


class Answered(Struct, frozen=True):
    """One request that was answered, for the daemon's own `sixfbd_http_*`. `route` is the pattern, "" if none matched."""

    method: str
    route: str
    status: int
    duration_s: float


WebhookOutcome: TypeAlias = Literal[
    "accepted", "duplicate", "refused", "invalid", "failed", "unavailable", "late", "limited"
]


class WebhookTaken(Struct, frozen=True):
    """What became of one webhook. `events` were taken, all of them durable, the rest were known already.

    `refused`: it is not from whom it says, or cannot be read. `invalid`: its sender is known, but events of it cannot be
    kept; `detail` names them. `failed`: a fault of the plugin. `unavailable`: the journal cannot be written. `late`: the
    time is over, and nobody can tell. `limited`: there are too many.
    """

    outcome: WebhookOutcome
    events: int = 0
    detail: str = ""


class HttpEngine(Protocol):
    """Everything that the room asks of the daemon. Called in the trio loop; an `async` method may be cancelled at any wait."""

    @property
    def version(self) -> str:
        """The daemon's version."""
        ...

    @property
    def site(self) -> Site:
        """Whose shop this is."""
        ...

    @property
    def sandbox(self) -> bool:
        """Whether the providers are doubles on this machine."""
        ...

    def now(self) -> float:
        """Engine time, unix seconds."""
        ...

    def new_id(self) -> str:
        """A fresh id for an event that came without one."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Tell whether the daemon is started and not volatile, and if not, why."""
        ...

    def checks(self) -> Sequence[CheckState]:
        """Return the configured checks, in the order in which they are to be shown."""
        ...

    def alerts(self) -> Sequence[Alert]:
        """Return the pending and the firing alerts."""
        ...

    def token(self, secret: str) -> TokenInfo | None:
        """Return whose token this is, None if nobody's; takes the same time whichever it is."""
        ...

    def answered(self, request: Answered) -> None:
        """Count one request."""
        ...

    async def health(self) -> dict[str, Any]:
        """Return the body of /api/health (SEED S19), ready for JSON; its `status` decides the answer's status."""
        ...

    async def exposition(self, encode: Encoder, form: str) -> bytes:
        """Return the live series as `encode` writes them, each family once; `form` names what it writes."""
        ...

    async def query(self, expr: str, time: float) -> QueryAnswer:
        """Evaluate PromQL at one time. Raises QueryRefused, QueryFailed or QueryTooLong."""
        ...

    async def query_range(self, expr: str, start: float, end: float, step: float) -> QueryAnswer:
        """Evaluate PromQL each `step` seconds from `start` to `end`: a matrix. Raises as `query` does."""
        ...

    async def series(self, selectors: Sequence[str], start: float, end: float) -> Sequence[Mapping[str, str]]:
        """Return the labels, `__name__` included, of the series with samples in the span that match any selector.

        Without selectors: of all. Raises QueryRefused for a selector that is none.
        """
        ...

    async def put_events(self, source: str, events: Sequence[Event]) -> Sequence[EventResult]:
        """Take events, one result for each in their order; durable on return. Raises EngineUnavailable: none was taken."""
        ...

    async def webhook(
        self, name: str, url: str, query: str, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> WebhookTaken | None:
        """Take a request to `/webhooks/NAME`, whose public address is `url`; None if there is no such inbound."""
        ...

    def last_seq(self) -> int:
        """Return the number of the last committed event, 0 if there is none; `events_after` already sees it."""
        ...

    async def events_after(self, seq: int, types: Sequence[str], limit: int) -> Sequence[StoredEvent]:
        """Return the first `limit` events numbered above `seq`, oldest first; of `types` only, if any are named.

        Raises EngineUnavailable."""
        ...

    async def last_events(self, types: Sequence[str], limit: int) -> Sequence[StoredEvent]:
        """Return the last `limit` events, oldest first; of `types` only, if any are named. Raises EngineUnavailable."""
        ...

    async def wait_events(self, seq: int) -> None:
        """Return when an event numbered above `seq` is committed; at once if one already is."""
        ...

    async def wait_changed(self, generation: int) -> int:
        """Return the state's generation when it is above `generation`: it grows when a check reports, an alert changes or an
        event is committed. -1 returns at once."""
        ...

    def silences(self) -> Sequence[Silence]:
        """Return the silences; some may be over by now."""
        ...

    async def command(self, command: Command, by: Actor) -> Outcome:
        """Carry a command out; durable when the outcome is ok."""
        ...

    def nobody_told(self) -> str:
        """Return why nobody may ever be told of an alert, "" once a message has reached somebody."""
        ...

    def incident(self, alert: str) -> Alert | None:
        """Return the alert of this id, if it is pending or fires, or something of its end is still owed."""
        ...

    async def why(self, alert: str) -> Mapping[str, Any] | None:
        """Return all that the journal holds of an alert, ready for JSON, as `sixfbctl why --json` shows it; None if there
        is no such alert.

        Raises EngineUnavailable, and QueryRefused for the beginning of more than one id."""
        ...

    async def why_not(self, rule: str, labels: Mapping[str, str], at: float | None) -> Mapping[str, Any] | None:
        """Return why a rule does not fire for labels, now or at a time, as `sixfbctl why-not --json` shows it; None if there
        is no such rule. Raises as `query` does."""
        ...

    def reports(self) -> Sequence[ReportInfo]:
        """Return the reports that there are, by name."""
        ...

    async def report(self, name: str, timeframe_s: float | None, check: str, about: str) -> Mapping[str, Any]:
        """Return a report ready for JSON; None: as far back as it looks by itself. `check` "" is every check, `about`
        what it is about, such as an order, "" everything.

        Raises KeyError if there is no such report, ReportFailed if its plugin fails, EngineUnavailable.
        """
        ...

    def is_ack_link(self, alert: str, receiver: str, signature: str) -> bool:
        """Tell whether a link to acknowledge an alert, made for a receiver, is signed by us."""
        ...

    async def ack(self, alert: str, comment: str, by: Actor) -> Outcome:
        """Acknowledge a firing alert by its id; durable when the outcome is ok."""
        ...
