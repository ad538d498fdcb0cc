"""/metrics and /api/metrics: every family in Prometheus' text form or OpenMetrics, as the Accept header asks."""

from functools import partial
from typing import Final, cast

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest

from sixfbd.http.answers import Ready
from sixfbd.http.asked import Asked
from sixfbd.http.engine import Encoder
from sixfbd.http.routes import Answer, Room, Route


def encoder(accept: str) -> tuple[Encoder, str]:
    """Return the encoder and the content type for an Accept header; the plain text form if it asks for nothing we know."""
    try:
        chosen = choose_encoder(accept)
    except TypeError:  # prometheus_client compares the parts of a version as they come: "version=x" is no number
        chosen = (generate_latest, CONTENT_TYPE_PLAIN_0_0_4)
    return cast(tuple[Encoder, str], chosen)


async def metrics(room: Room, asked: Asked) -> Ready:
    encode, content_type = encoder(asked.header(b"accept"))
    body = await room.metrics.get(content_type, partial(room.engine.exposition, encode, content_type))
    return Ready(body, content_type)


TEXT: Final = {200: Answer("Prometheus' text form, or OpenMetrics.", {"type": "string"}, "text/plain")}
ROUTES: Final = (
    Route("/metrics", metrics, "All metrics, for Prometheus.", TEXT, plain=True),
    Route("/api/metrics", metrics, "The same as /metrics.", TEXT, plain=True),
)
