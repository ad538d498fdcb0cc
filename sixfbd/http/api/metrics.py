"""/metrics and /api/metrics: every family in Prometheus' text form or OpenMetrics, as the Accept header asks."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, cast

import trio
from prometheus_client import Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, choose_encoder, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry
from quart import Response, request

from sixfbd.http.routes import Answer, Room, Route


class _Families(Collector):
    """The families as the registry wants to ask for them."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return the encoder and the content type for an Accept header; the plain text form if it asks for nothing we know."""
    try:
        chosen = choose_encoder(accept)
    except TypeError:  # prometheus_client compares the parts of a version as they come: "version=x" is no number
        chosen = (generate_latest, CONTENT_TYPE_PLAIN_0_0_4)
    return cast(tuple[Callable[[CollectorRegistry], bytes], str], chosen)


async def metrics(room: Room) -> Response:
    encode, content_type = encoder(request.headers.get("Accept", ""))

    async def render() -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Families(await room.engine.families()))
        return await trio.to_thread.run_sync(encode, registry)  # 0.1 s for 10,000 series: not in the loop

    return Response(await room.metrics.get(content_type, render), content_type=content_type)


TEXT: Final = {200: Answer("Prometheus' text form, or OpenMetrics.", {"type": "string"}, "text/plain")}
ROUTES: Final = (
    Route("/metrics", metrics, "All metrics, for Prometheus.", TEXT),
    Route("/api/metrics", metrics, "The same as /metrics.", TEXT),
)
