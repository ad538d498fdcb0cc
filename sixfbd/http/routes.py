"""A route: its path, its view, who may use it, and what it takes and answers. One table makes the app and its OpenAPI."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, TypeAlias

from msgspec import Struct
from quart import Response

from sixfbd.config import Http, HttpPublic
from sixfbd.http.answers import Ready
from sixfbd.http.asked import Asked
from sixfbd.http.dashboard.sparkline import Chart
from sixfbd.http.engine import HttpEngine
from sixfbd.http.feed import Feed
from sixfbd.http.recent import Recent
from sixfbd.http.sessions import Sessions
from sixfbd.model import StoredEvent
from sixfbd.rates import Bucket

METRICS_KEEP_S: Final = 1.0
PAGE_KEEP_S: Final = 1.0
CHARTS_KEEP_S: Final = 5.0


class Room:
    """What views share: the engine, the limits, what was just rendered, and how many streams are open."""

    def __init__(self, engine: HttpEngine, config: Http | HttpPublic) -> None:
        self.engine = engine
        self.config = config
        self.metrics: Recent[bytes] = Recent(METRICS_KEEP_S)
        self.pages: Recent[str] = Recent(PAGE_KEEP_S)
        self.charts: Recent[list[Chart]] = Recent(CHARTS_KEEP_S)
        self.streams = 0
        self._feed: Feed | None = None
        self.rates: dict[str, Bucket] = {}  # of events, by the token's name
        self.sessions = Sessions()

    def feed_of(self, encode: Callable[[StoredEvent], bytes]) -> Feed:
        """Return what all who follow events are told from."""
        if self._feed is None:
            self._feed = Feed(self.engine, encode)
        return self._feed


View: TypeAlias = Callable[..., Awaitable[Response | Ready]]
"""Called with the room and the path's parameters by name; a plain one with the request as well."""

Scope: TypeAlias = Literal["open", "read", "events", "alerts"]
"""What a request needs: `open` nothing, ever; `read` a token unless it comes straight from loopback; others always one."""


class Parameter(Struct, frozen=True):
    """One parameter. `form` is a Python type or a JSON Schema."""

    name: str
    where: Literal["query", "path", "header"]
    doc: str
    form: Any = str
    required: bool = False
    repeated: bool = False


class Answer(Struct, frozen=True):
    """One answer: `form` (a Python type or a JSON Schema) as it is, or inside the house's or Prometheus' envelope."""

    doc: str
    form: Any = None
    media: str = "application/json"
    envelope: Literal["bare", "house", "prometheus"] = "bare"


class Body(Struct, frozen=True):
    """What a request's body may be, by media type."""

    media: Mapping[str, Any]
    doc: str = ""
    required: bool = True


class Route(Struct, frozen=True):
    """One path and its methods. `answers` names the successes and the errors of its own; the common ones are added."""

    path: str
    view: View
    summary: str
    answers: Mapping[int, Answer]
    methods: tuple[str, ...] = ("GET",)
    scope: Scope = "read"
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    limited: bool = True  # False: a stream, which has no time limit
    plain: bool = False  # the view takes the request itself and needs nothing of quart's

    def call(self, room: Room, asked: Asked, arguments: Mapping[str, Any]) -> Awaitable[Response | Ready]:
        """Call the view."""
        return self.view(room, asked, **arguments) if self.plain else self.view(room, **arguments)

    @property
    def name(self) -> str:
        """The endpoint's name: the view's, with its path where one view serves two."""
        return f"{self.view.__name__} {self.path}"
