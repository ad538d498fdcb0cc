"""The shop's requests (SEED S12): counted by path, and told when they are very slow or fail.

Owns how paths are grouped: `/orders/123` is no series of its own. Keeps nothing but which groups there are.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Final

from msgspec import Meta, Struct

from sixfbd.plugin import MINUTE, Counter, EventType, Gauge, Sample, Severity, Summary
from sixfbd_plugins.checks.default_rules import default_rule

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
"""Methods of RFC 9110 section 9 and RFC 5789; any other is counted as "other", so that no client makes series at will."""
SLOW_S: Final = 2.0
MOST_GROUPS: Final = 200
MOST_SEGMENTS: Final = 6
LONGEST_SEGMENT: Final = 40
OTHER: Final = "other"
NOT_FOUND: Final = 404

REQUESTS = Counter("http_requests_total", "Requests that the shop answered.", labels=("method", "status"))
REQUEST_DURATION = Summary("http_request_duration_seconds", "How long the shop took to answer.", quantiles=(0.5, 0.95))
PATH_REQUESTS = Counter(
    "http_path_requests_total",
    "Requests by the group of their path and the first digit of their status.",
    ("path", "class"),
)
PATH_SECONDS = Counter(
    "http_path_request_seconds_total", "Time that requests took, by the group of their path.", ("path",)
)
SLOW_REQUESTS = Counter("http_slow_requests_total", "Requests that took longer than 2 s.", ("path",))
SLOW_SECONDS = Gauge(
    "http_slow_request_seconds", "How long the last request that took longer than 2 s took.", ("path",)
)

_VARIES: Final = re.compile(
    r"""\d+                                     # a number
      | [0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}
      | (?=[^/]*\d)[0-9a-zA-Z_-]{16,}           # a hash, an id with digits in it
      | .*[^\w.~-].*                            # what is encoded, or no word at all
      | [a-z]{2,5}[_-][0-9a-zA-Z]{8,}           # a provider's id, such as pi_3NXyz
    """,
    re.VERBOSE,
)
"""What is another one in each request."""


class Paths:
    """The groups of paths that there are; more than `most` are "other", so that nobody makes series at will."""

    def __init__(self, most: int = MOST_GROUPS) -> None:
        self._most = most
        self._groups: set[str] = set()

    def group(self, path: str, status_code: int = 200) -> str:
        """Return the group of a path: `/orders/123?x=1` is in `/orders/:id`, and so is `/orders/:id` itself.

        What was never there makes no group: who tries paths at random does not take the places of those that exist.
        """
        group = _shape(path)
        if group != OTHER and group not in self._groups:
            if len(self._groups) >= self._most or status_code == NOT_FOUND:
                return OTHER
            self._groups.add(group)
        return group


@lru_cache(maxsize=4096)
def _shape(path: str) -> str:
    if path == OTHER:
        return OTHER
    plain = path.partition("?")[0].partition("#")[0]
    segments = [part for part in plain.split("/") if part]
    named = [":id" if _VARIES.fullmatch(part) or len(part) > LONGEST_SEGMENT else part for part in segments]
    return "/" + "/".join(named[:MOST_SEGMENTS]) + ("/..." if len(named) > MOST_SEGMENTS else "")


class Request(Struct, frozen=True, rename="camel"):
    """A request that the shop answered; `duration` in milliseconds."""

    path: Annotated[str, Meta(min_length=1, max_length=2000)]
    method: Annotated[str, Meta(min_length=1, max_length=200)]
    status_code: Annotated[int, Meta(ge=100, le=599)]
    duration: Annotated[float, Meta(ge=0)]
    user_agent: str | None = None
    ip: str | None = None


class Answers(Struct, frozen=True, rename="camel"):
    """Requests of one path, method and status. Times in milliseconds: `duration` is of the `timed` ones together, `slowest`
    of the slowest. `path` is a group of paths, or one path."""

    path: Annotated[str, Meta(min_length=1, max_length=2000)]
    method: Annotated[str, Meta(min_length=1, max_length=200)]
    status_code: Annotated[int, Meta(ge=100, le=599)]
    count: Annotated[int, Meta(ge=1)]
    timed: Annotated[int, Meta(ge=0)] = 0
    duration: Annotated[float, Meta(ge=0)] = 0.0
    slow: Annotated[int, Meta(ge=0)] = 0
    slowest: Annotated[float, Meta(ge=0)] = 0.0


class Timed(Struct, frozen=True, array_like=True):
    """So many requests that took about as long, and the milliseconds that they took together."""

    count: Annotated[int, Meta(ge=1)]
    duration: Annotated[float, Meta(ge=0)]


class LoggedRequests(Struct, frozen=True, rename="camel"):
    """Requests within one minute that a log tells of, added up."""

    answers: Annotated[tuple[Answers, ...], Meta(max_length=1000)] = ()
    durations: Annotated[tuple[Timed, ...], Meta(max_length=10_000)] = ()


paths: Final = Paths()


def known_method(method: str) -> str:
    """Return the method as it is counted."""
    upper = method.upper()
    return upper if upper in METHODS else OTHER


def _counted(request: Request) -> Sequence[Sample]:
    method, path = known_method(request.method), paths.group(request.path, request.status_code)
    counted = [
        REQUESTS(1, method=method, status=str(request.status_code)),
        PATH_REQUESTS(1, path=path, **{"class": f"{request.status_code // 100}xx"}),
        PATH_SECONDS(request.duration / 1000, path=path),
    ]
    return [*counted, SLOW_REQUESTS(1, path=path)] if request.duration > SLOW_S * 1000 else counted


def _slow(request: Request) -> Sequence[Sample]:
    seconds = request.duration / 1000
    return [SLOW_SECONDS(seconds, path=paths.group(request.path, request.status_code))] if seconds > SLOW_S else []


def _counted_of_log(logged: LoggedRequests) -> Sequence[Sample]:
    counted: list[Sample] = []
    for answers in logged.answers:
        path = paths.group(answers.path, answers.status_code)
        counted += [
            REQUESTS(answers.count, method=known_method(answers.method), status=str(answers.status_code)),
            PATH_REQUESTS(answers.count, path=path, **{"class": f"{answers.status_code // 100}xx"}),
        ]
        if answers.timed:
            counted.append(PATH_SECONDS(answers.duration / 1000, path=path))
        if answers.slow:
            counted.append(SLOW_REQUESTS(answers.slow, path=path))
    return counted


def _slow_of_log(logged: LoggedRequests) -> Sequence[Sample]:
    slowest: dict[str, float] = {}
    for answers in logged.answers:
        if answers.slow:
            path = paths.group(answers.path, answers.status_code)
            slowest[path] = max(answers.slowest, slowest.get(path, 0.0))
    return [SLOW_SECONDS(duration / 1000, path=path) for path, duration in slowest.items()]


REQUEST: Final = EventType(
    "request",
    Request,
    counts=_counted,
    observes=lambda request: (REQUEST_DURATION(request.duration / 1000),),
    sets=_slow,
    metrics=(REQUESTS, REQUEST_DURATION, PATH_REQUESTS, PATH_SECONDS, SLOW_REQUESTS, SLOW_SECONDS),
    doc="The shop answered a request.",
)
LOGGED_REQUESTS: Final = EventType(
    "logged_requests",
    LoggedRequests,
    counts=_counted_of_log,
    observes=lambda logged: [
        REQUEST_DURATION.times(timed.count, timed.duration / timed.count / 1000) for timed in logged.durations
    ],
    sets=_slow_of_log,
    metrics=REQUEST.metrics,
    doc="The shop answered requests, as its log says; those of a minute, added up.",
)
RULES: Final = (
    default_rule(
        "web",
        "VerySlowResponse",
        # What was slow once is no news five minutes later: its gauge stays, its count does not grow.
        "max by (path) (max_over_time(http_slow_request_seconds[5m])) * 1000 > 4000"
        " and on(path) (sum by (path) (increase(http_slow_requests_total[5m])) > 0"
        " or sum by (path) (http_slow_requests_total unless http_slow_requests_total offset 5m))",
        'Very slow API response: {{ $labels.path }} took {{ printf "%.0f" $value }}ms',
        Severity.HIGH,
        keep_firing_for_s=5 * MINUTE,
        impact="Buyers leave before the page is there.",
        action="See which paths are slow: sixfbctl report performance",
    ),
    default_rule(
        "web",
        "HighHTTPErrorRate",
        'sum(increase(http_requests_total{status=~"5.."}[5m])) / sum(increase(http_requests_total[5m])) > 0.01'
        " and sum(increase(http_requests_total[5m])) >= 100",
        "High error rate: {{ $value | humanizePercentage }} of the shop's requests failed",
        Severity.MEDIUM,
        for_s=MINUTE,
        impact="What these requests were for did not happen.",
        action="See which paths fail: sixfbctl report performance",
    ),
)
