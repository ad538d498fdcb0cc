"""What the kinds of inbound share whose requests are signed: headers, the time of signing, the text. Knows no provider."""

from typing import Annotated, TypeAlias

from msgspec import Meta

from sixfbd.plugin import Duration, InboundRefused, InboundRequest

Tolerance: TypeAlias = Annotated[
    Duration, Meta(description="How far the time of a request may be from ours, either way.")
]


def single_header(request: InboundRequest, name: str) -> str:
    """Return a header that must be there once: of two nobody knows which is signed. Raises InboundRefused."""
    values = request.headers.get_list(name)
    if len(values) != 1 or not values[0]:
        raise InboundRefused(f"{name} is missing, or there more than once")
    return values[0]


def recent_time(request: InboundRequest, text: str, name: str, tolerance: Duration) -> int:
    """Return the unix seconds that a request says it was signed at; `name` is where. Raises InboundRefused."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise InboundRefused(f"{name} is no whole number of seconds")
    if abs(request.received_at - int(text)) > tolerance:
        raise InboundRefused(f"{name} is more than {tolerance} from our time")
    return int(text)


def text_of(request: InboundRequest) -> str:
    """Return the body. Raises InboundRefused."""
    try:
        return request.body.decode("utf-8")
    except UnicodeDecodeError:
        raise InboundRefused("the body is not UTF-8") from None
