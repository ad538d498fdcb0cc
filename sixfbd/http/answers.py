"""The forms of answers: the house's (SEED, Form), Prometheus' under /api/v1/, and bare ones; successes and errors.

A view returns one of these responses or raises `Refusal`; the app turns whatever else is raised into one.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct
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

SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


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


class Ready(Struct, frozen=True):
    """An answer 200 that is sent as it is, for views that need nothing of quart's."""

    body: bytes
    content_type: str = JSON

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return (
            (b"content-type", self.content_type.encode()),
            (b"content-length", b"%d" % len(self.body)),
            (b"cache-control", b"no-store"),
        )


def bare(body: object, status: int = 200) -> Response:
    """Answer with a JSON value as it is."""
    return Response(msgspec.json.encode(body), status=status, content_type=JSON)


def success(data: object) -> Response:
    """Answer 200 in the house's form."""
    return bare(_house(data))


def ready(data: object) -> Ready:
    """Answer 200 in the house's form, without quart."""
    return Ready(msgspec.json.encode(_house(data)))


def _house(data: object) -> dict[str, object]:
    return {"success": True, "data": data}


def refused(path: str, refusal: Refusal) -> Response:
    """Answer an error in the form that the path has."""
    body = house_error(refusal.code, refusal.message, refusal.more)
    if path.startswith(PROMETHEUS_PATHS):
        kind = "timeout" if refusal.code == "timeout" else PROMETHEUS_ERRORS.get(refusal.status, refusal.code)
        body = {"status": "error", "errorType": kind, "error": refusal.message}
    response = bare(body, refusal.status)
    response.headers.update(refusal.headers)
    return response


def house_error(code: str, message: str, more: Mapping[str, Any] | None = None) -> dict[str, object]:
    """Return the body of an error in the house's form."""
    return {"success": False, "error": {"code": code, "message": message, **(more or {})}}


def below_the_app(code: str, message: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body of an error that is answered where there is no app: in the house's form, and final."""
    body = msgspec.json.encode(house_error(code, message))
    headers = {
        "content-type": JSON,
        "content-length": str(len(body)),
        "connection": "close",
        "cache-control": "no-store",
        **{name.lower(): value for name, value in SECURITY_HEADERS.items()},
    }
    return [(name.encode(), value.encode()) for name, value in headers.items()], body


def show_time(at: float) -> str:
    """Return unix seconds as 2026-11-23T21:07:30.123Z (SEED, Units)."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def show_time_or_none(at: float | None) -> str | None:
    """Return `show_time(at)`, or None for None."""
    return None if at is None else show_time(at)
