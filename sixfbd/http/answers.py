"""The forms of answers: the house's (SEED, Form), Prometheus' under /api/v1/, and bare ones; successes and errors.

A view returns one of these responses or raises `Refusal`; the app turns whatever else is raised into one.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from quart import Response

JSON: Final = "application/json"
PROMETHEUS_PATHS: Final = "/api/v1/"
PROMETHEUS_ERRORS: Final[Mapping[int, str]] = {
    400: "bad_data",
    404: "not_found",
    422: "execution",
    500: "internal",
    503: "unavailable",
}  # https://prometheus.io/docs/prometheus/latest/querying/api/#format-overview, and web/api/v1/api.go of Prometheus


class Refusal(Exception):  # noqa: N818 - a view's way to say no, named as what it is
    """A request that is not answered as asked. `message` says what is wrong and how to mend it; it is shown to the client.

    `code` is a fixed word for programs. `more` is added to the error object of the house's form.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})
        self.more = dict(more or {})


def bare(body: object, status: int = 200) -> Response:
    """Answer with a JSON value as it is."""
    return Response(msgspec.json.encode(body), status=status, content_type=JSON)


def success(data: object) -> Response:
    """Answer 200 in the house's form."""
    return bare({"success": True, "data": data})


def refused(path: str, refusal: Refusal) -> Response:
    """Answer an error in the form that the path has."""
    body: dict[str, object]
    if path.startswith(PROMETHEUS_PATHS):
        kind = "timeout" if refusal.code == "timeout" else PROMETHEUS_ERRORS.get(refusal.status, refusal.code)
        body = {"status": "error", "errorType": kind, "error": refusal.message}
    else:
        body = {"success": False, "error": {"code": refusal.code, "message": refusal.message, **refusal.more}}
    response = bare(body, refusal.status)
    response.headers.update(refusal.headers)
    return response


def show_time(at: float) -> str:
    """Return unix seconds as 2026-11-23T21:07:30.123Z (SEED, Units)."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def show_time_or_none(at: float | None) -> str | None:
    """Return `show_time(at)`, or None for None."""
    return None if at is None else show_time(at)
