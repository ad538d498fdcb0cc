"""Configured instances of plugins: made with their context, kept apart from each other, closed by the engine.

A class whose constructor fails gives an instance that says so and never runs; the others go on.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import structlog
import trio
from msgspec import Struct

from sixfbd import __version__
from sixfbd.config import CheckTable, Config, InboundTable, NotifierTable
from sixfbd.containment import call_guarded, described
from sixfbd.kept_out import KeptOut
from sixfbd.model import CheckName
from sixfbd.plugin import Check, Clock, Inbound, Log, Notifier, Outbound, Reader
from sixfbd.world import World

T = TypeVar("T")
log = structlog.get_logger("sixfbd.instances")

THREADS_PER_INSTANCE: Final = 4
CLOSE_LIMIT_S: Final = 2.0


class Surroundings(Struct, frozen=True):
    """What all instances of one configuration share."""

    world: World
    read: Reader
    site: str
    sandbox: bool = False
    timezone: str = "UTC"


def surroundings(config: Config, world: World, read: Reader) -> Surroundings:
    """Return what the instances of a configuration share."""
    return Surroundings(world, read, config.site.name, config.daemon.sandbox, config.site.timezone)


class InstanceContext:
    """`sixfbd.plugin.Context` for one instance: its own threads, its own outbound slots, its own bound log."""

    def __init__(self, kind: str, name: str, around: Surroundings) -> None:
        self.name = name
        self.http: Outbound = around.world.outbound(f"{kind}.{name}")
        self.clock: Clock = around.world.clock
        self.log: Log = structlog.get_logger(f"sixfbd.plugin.{kind}").bind(**{kind: name})
        self.read = around.read
        self.site = around.site
        self.timezone = around.timezone
        self.sandbox = around.sandbox
        self.version = __version__
        self._limiter = trio.CapacityLimiter(THREADS_PER_INSTANCE)

    async def to_thread(self, fn: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(lambda: fn(*args), limiter=self._limiter, abandon_on_cancel=True)


class CheckInstance(Struct):
    """A check as configured; `check` is None if it could not be made, and `problem` says why."""

    name: CheckName
    plugin: str
    interval_s: float
    timeout_s: float
    jitter_s: float | None
    service: str | None
    external: str | None
    check: Check[Any] | None
    problem: str = ""
    depends_on: tuple[CheckName, ...] = ()


class NotifierInstance(Struct):
    """A notifier as configured; `notifier` is None if it could not be made, and `problem` says why."""

    name: str
    plugin: str
    table: NotifierTable
    notifier: Notifier[Any] | None
    problem: str = ""


class InboundInstance(Struct):
    """An inbound as configured; `inbound` is None if it could not be made, and `problem` says why."""

    name: str
    kind: str
    table: InboundTable
    inbound: Inbound[Any] | None
    problem: str = ""


def make_check(table: CheckTable, plugin: type[Check[Any]], around: Surroundings) -> CheckInstance:
    """Make one check; never raises for what the plugin does."""
    context = InstanceContext("check", table.name, around)
    made, problem = _make(lambda: plugin(table.options, context), f"check {table.name}", table.plugin)
    return CheckInstance(
        CheckName(table.name),
        table.plugin,
        float(table.interval),
        float(table.timeout),
        None if table.jitter is None else float(table.jitter),
        table.service or plugin.service,
        table.external or plugin.external,
        made,
        problem,
        tuple(map(CheckName, table.depends_on)),
    )


def make_notifier(table: NotifierTable, plugin: type[Notifier[Any]], around: Surroundings) -> NotifierInstance:
    """Make one notifier; never raises for what the plugin does."""
    context = InstanceContext("notifier", table.name, around)
    made, problem = _make(lambda: plugin(table.options, context), f"notifier {table.name}", table.plugin)
    return NotifierInstance(table.name, table.plugin, table, made, problem)


def make_inbound(table: InboundTable, plugin: type[Inbound[Any]], around: Surroundings) -> InboundInstance:
    """Make one inbound; never raises for what the plugin does."""
    context = InstanceContext("inbound", table.name, around)
    made, problem = _make(lambda: plugin(table.options, context), f"inbound {table.name}", table.kind)
    return InboundInstance(table.name, table.kind, table, made, problem)


def _make(construct: Callable[[], T], whose: str, plugin: str) -> tuple[T | None, str]:
    """Call a constructor; `whose` is what the watchdog reads off this frame if the call blocks the loop."""
    try:
        return construct(), ""
    except KeptOut as reason:  # said once for the plugin, by who loaded it
        return None, str(reason)
    except BaseException as error:  # noqa: BLE001 - a constructor may raise anything, and awaits nothing; it is contained
        problem = f"plugin {plugin} cannot start: {described(error)}"
        log.error("plugin.failed", instance=whose, plugin=plugin, error=problem)
        return None, problem


async def close_instance(instance: Check[Any] | Notifier[Any] | None, name: str) -> None:
    """Close a check or notifier within CLOSE_LIMIT_S, cancelled or not; what it raises is named and contained."""
    if instance is None:
        return
    with trio.CancelScope(shield=True):
        ended = await call_guarded(instance.close, CLOSE_LIMIT_S, f"close of {name}")
    if ended.error is not None:
        log.error("plugin.close_failed", instance=name, error=described(ended.error))
    elif ended.overran:
        log.error("plugin.close_failed", instance=name, error=f"close() took longer than {CLOSE_LIMIT_S:g} s")


async def close_all(instances: Iterable[CheckInstance | NotifierInstance]) -> None:
    """Close instances beside each other: one that takes its time takes nobody else's."""
    async with trio.open_nursery() as nursery:
        for one in instances:
            plugin = one.check if isinstance(one, CheckInstance) else one.notifier
            nursery.start_soon(close_instance, plugin, one.name)
