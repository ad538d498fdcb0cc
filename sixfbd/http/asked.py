"""What is asked: a request's head and body as the guards see them, and those views that need nothing of quart's."""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

import trio
from hypercorn.typing import HTTPScope
from quart_trio.wrappers.request import TrioBody, TrioRequest
from werkzeug.exceptions import RequestTimeout

from sixfbd.http.engine import TokenInfo

NO_TARGET: Final = "*"  # the path of a target that names none: no route has it
ABSOLUTE_FORM: Final = re.compile(rb"https?://([^/?#]+)(/[^?#]*)?", re.IGNORECASE)


class Body(TrioBody):
    """A body that can be had without a turn of the loop."""

    @property
    def whole(self) -> bytes | None:
        """The body, None if it is not all there or not to be had."""
        return bytes(self._data) if self._complete.is_set() and self._must_raise is None else None

    async def wait(self, timeout_s: float) -> bytes:
        """Return the body when it is all there. Raises RequestEntityTooLarge or RequestTimeout."""
        if not self._complete.is_set() or self._must_raise is not None:
            with trio.move_on_after(timeout_s) as waiting:
                await self
            if waiting.cancelled_caught:
                raise RequestTimeout
        return bytes(self._data)


class AppRequest(TrioRequest):
    """A request of the app."""

    body_class = Body


class Asked:
    """One request. `token` is whose it is, once it was let in by one; names of headers are in lower case."""

    __slots__ = ("body", "client", "headers", "http_version", "method", "path", "query", "target", "token")

    def __init__(self, scope: HTTPScope, body: Body) -> None:
        self.method = scope["method"]
        self.path = scope["path"]
        self.target = scope["raw_path"]
        self.query = scope["query_string"]
        self.headers = scope["headers"]
        self.http_version = scope["http_version"]
        self.client = None if scope["client"] is None else str(scope["client"][0])
        self.body = body
        self.token: TokenInfo | None = None

    def header(self, name: bytes) -> str:
        """Return the first header of a name, "" if there is none."""
        for given, value in self.headers:
            if given == name:
                return value.decode("latin-1")
        return ""

    def all_headers(self, name: bytes) -> list[str]:
        """Return every header of a name."""
        return [value.decode("latin-1") for given, value in self.headers if given == name]

    @property
    def mimetype(self) -> str:
        """What the body is, without parameters; "" if the request does not say."""
        return self.header(b"content-type").partition(";")[0].strip().lower()

    @property
    def content(self) -> bytes:
        """The body of a request whose route takes one: the app has waited for it."""
        whole = self.body.whole
        assert whole is not None, "the route says nothing of a body"
        return whole

    @property
    def has_body(self) -> bool:
        """Tell whether the request announced a body."""
        return self.header(b"content-length").strip("0") != "" or self.header(b"transfer-encoding") != ""


def origin_form(scope: HTTPScope) -> HTTPScope:
    """Return the scope of a request whose target is a path.

    Of an absolute target ("http://host/path") the host replaces the Host header (RFC 9112 section 3.2.2), so that what
    is checked is what was asked for. Any other target gets the path NO_TARGET; `raw_path` stays as it came.
    """
    if scope["raw_path"].startswith(b"/"):
        return scope
    absolute = ABSOLUTE_FORM.fullmatch(scope["raw_path"])
    if absolute is None:
        return {**scope, "path": NO_TARGET}
    path = absolute[2] or b"/"
    headers = [(b"host", absolute[1]), *(pair for pair in scope["headers"] if pair[0].lower() != b"host")]
    return {**scope, "raw_path": path, "path": unquote_to_bytes(path).decode("utf-8", "replace"), "headers": headers}
