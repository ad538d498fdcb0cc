"""A plugin as an author would write it: a check, a notifier, an event type and a rule. For tests of the author's kit."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from sixfbd.plugin import (
    Check,
    Counter,
    Event,
    EventType,
    Gauge,
    Json,
    Notification,
    Notifier,
    PermanentFailure,
    PluginConfig,
    Receipt,
    Report,
    Rule,
    RuleName,
    Severity,
    Status,
    TemporaryFailure,
    hookimpl,
)

LENGTH = Gauge("shop_queue_length", "Orders waiting.", labels=("shop",))
ORDERS = Counter("shop_orders_total", "Orders.")


class Url(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[str, msgspec.Meta(description="Where it is asked.")]


class Order(msgspec.Struct):
    amount: float = 0


class Queue(Check[Url]):
    """Length of the order queue."""

    Options = Url
    metrics = (LENGTH,)

    async def run(self, cursor: Json | None) -> Report:
        answer = await self.ctx.http.request("GET", self.options.url)
        waiting = await self.ctx.to_thread(lambda: answer.json()["length"])
        reads = cursor + 1 if isinstance(cursor, int) else 1
        read = Event(f"read-{reads}", "read", self.ctx.clock.now(), {})
        return Report(Status.HEALTHY, "queue read", (LENGTH(waiting, shop="main"),), (read,), cursor=reads)


class Pager(Notifier[Url]):
    """Calls somebody."""

    Options = Url

    async def deliver(self, notification: Notification) -> Receipt:
        answer = await self.ctx.http.request("POST", self.options.url, content=notification.text)
        if answer.status_code >= 500:
            raise TemporaryFailure(f"HTTP {answer.status_code}")
        if answer.status_code >= 400:
            raise PermanentFailure(f"HTTP {answer.status_code}")
        return Receipt()


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    return {"queue": Queue}


@hookimpl
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[Notifier[Any]]]:
    return {"pager": Pager}


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    return [EventType("order", Order, counts=lambda order: [ORDERS(1)], metrics=[ORDERS], notice="order")]


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    return [
        Rule(
            name=RuleName("QueueLong"),
            expr="shop_queue_length > 100",
            for_s=60,
            severity=Severity.HIGH,
            annotations={"summary": "{{ $value }} orders wait"},
        )
    ]
