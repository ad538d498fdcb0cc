"""What a shop's process tells of itself: the heap of Node.js (SEED S13, S20), and events that it could not keep."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from sixfbd.plugin import Counter, EventType, Gauge

HEAP_USED: Final = Gauge("nodejs_memory_heap_used_bytes", "Heap that the shop's process uses.")
HEAP_TOTAL: Final = Gauge("nodejs_memory_heap_total_bytes", "Heap that the shop's process has.")
UPTIME: Final = Gauge("nodejs_uptime_seconds", "How long the shop's process had run when it last told of itself.")
DROPPED: Final = Counter(
    "workshop_events_dropped_total", "Events that the shop had no room for, or that were refused, as it says."
)


class NodeProcess(Struct, frozen=True, rename="camel"):
    """Node's `process.memoryUsage()` in bytes and `process.uptime()` in seconds; of several processes the last one's stays."""

    heap_used: Annotated[float, Meta(ge=0)]
    heap_total: Annotated[float, Meta(ge=0)]
    uptime: Annotated[float, Meta(ge=0)]


class EventsDropped(Struct, frozen=True):
    """So many events more were dropped."""

    count: Annotated[int, Meta(ge=1)]


NODE_PROCESS: Final = EventType(
    "node_process",
    NodeProcess,
    sets=lambda said: (HEAP_USED(said.heap_used), HEAP_TOTAL(said.heap_total), UPTIME(said.uptime)),
    metrics=(HEAP_USED, HEAP_TOTAL, UPTIME),
    doc="The shop's Node.js process tells of its heap.",
)
EVENTS_DROPPED: Final = EventType(
    "events_dropped",
    EventsDropped,
    counts=lambda said: (DROPPED(said.count),),
    metrics=(DROPPED,),
    doc="The shop had no room for events while the daemon did not answer.",
)
