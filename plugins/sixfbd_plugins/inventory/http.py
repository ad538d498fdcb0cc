"""The source `http`: the shop's own page of its stock, in the seed's shape or mapped to it by JMESPath."""

import json
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from sixfbd.plugin import SECOND, Context, Duration, OptionFaults, Secret, Size, TemporaryFailure, installed
from sixfbd_plugins.checks.targets import hiding, merged_headers, parse_http_url, validate_headers
from sixfbd_plugins.inventory.stock import Reading, SourceError, reading_of_document

MAX_SHOWN = 200  # characters of an error


class HttpSource(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Stock as JSON over HTTP."""

    url: Annotated[str, Meta(description="Address of the stock.")]
    headers: Annotated[dict[str, str], Meta(description="Headers to send.")] = field(default_factory=dict)
    secret_headers: Annotated[dict[str, Secret], Meta(description="Headers whose values are secrets.")] = field(
        default_factory=dict
    )
    jmespath: Annotated[str, Meta(description="JMESPath that makes rows or cities of the answer.")] = ""
    max_body: Annotated[Size, Meta(description="A larger answer is refused.")] = Size(1024 * 1024)
    deadline: Annotated[Duration, Meta(description="Time for the whole exchange.")] = Duration(10 * SECOND)

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("url"):
                parse_http_url(self.url)
            with faults.at("headers"):
                validate_headers({**self.headers, **dict.fromkeys(self.secret_headers, "")})
            with faults.at("jmespath"):
                if self.jmespath:
                    installed("jmespath", extra="jmespath")
                    _compiled(self.jmespath)

    def open(self, ctx: Context) -> "HttpReader":
        return HttpReader(self, ctx)


class HttpReader:
    """Asks once a run; the answer is read in a thread."""

    def __init__(self, options: HttpSource, ctx: Context) -> None:
        self._options = options
        self._ctx = ctx
        secrets = {name: value.reveal() for name, value in options.secret_headers.items()}
        self._hide = hiding(secrets.values())
        usual = {"Accept": "application/json", "User-Agent": f"sixfbd/{ctx.version}"}
        self._headers = merged_headers(usual, {**options.headers, **secrets})
        self._search = _compiled(options.jmespath) if options.jmespath else None

    async def read(self) -> Reading:
        options = self._options
        try:
            answer = await self._ctx.http.request(
                "GET", options.url, headers=self._headers, timeout_s=options.deadline, max_bytes=int(options.max_body)
            )
        except TemporaryFailure as failure:
            raise SourceError(self._hide(f"{options.url}: {failure}")) from None
        if answer.status_code != 200:
            raise SourceError(f"{options.url}: status {answer.status_code}, expected 200")
        try:
            return await self._ctx.to_thread(self._reading, answer.content)
        except SourceError as error:
            raise SourceError(self._hide(f"{options.url}: {error}")[:MAX_SHOWN]) from None

    def _reading(self, content: bytes) -> Reading:
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            raise SourceError("the answer is not JSON") from None
        if self._search is not None:
            document = self._mapped(document)
        return reading_of_document(document)

    def _mapped(self, document: Any) -> Any:
        from jmespath.exceptions import JMESPathError

        assert self._search is not None
        try:
            found = self._search.search(document)
        except (JMESPathError, RecursionError) as error:
            raise SourceError(f"jmespath: {error}") from None
        if found is None:
            raise SourceError("jmespath finds nothing in the answer")
        return found


def _compiled(expression: str) -> Any:
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return jmespath.compile(expression)
    except JMESPathError as error:
        raise ValueError(f"is not JMESPath: {error}".splitlines()[0]) from None
