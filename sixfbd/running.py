"""The running daemon's parts in one place, for those who read it whole: the views of HTTP and control, and reload.

Holds references; starts and closes nothing. Only daemon.py fills it.
"""

from pathlib import Path

import trio
from msgspec import Struct, field

from sixfbd.config import Config
from sixfbd.host import PluginCatalog
from sixfbd.http.server import HttpServer
from sixfbd.inbound import Inbounds
from sixfbd.instances import CheckInstance, NotifierInstance
from sixfbd.intake import Intake
from sixfbd.journal.database import JournalDatabase
from sixfbd.journal.samples import SampleStore
from sixfbd.judge import Judge
from sixfbd.model import CheckName, Rule
from sixfbd.outbox.workers import Outbox
from sixfbd.readers.bell import Bell
from sixfbd.readers.queries import EngineReader
from sixfbd.rules.engine import RuleEngine
from sixfbd.schedule import Schedule
from sixfbd.vitals import Vitals
from sixfbd.watchdog import Watchdog
from sixfbd.window.window import Window
from sixfbd.world import EngineClock, World


class Beats(Struct):
    """What became of the heartbeat: `last_at` is when one was last taken, `withheld` why there is none now."""

    last_at: float | None = None
    withheld: str = ""
    sent: int = 0


class Running(Struct):
    """One daemon. `config`, `rules`, `checks` and `notifiers` are replaced by a reload; the parts stay."""

    config_path: Path
    config: Config
    catalog: PluginCatalog
    rules: list[Rule]
    problems: tuple[str, ...]
    world: World
    journal: JournalDatabase
    store: SampleStore
    window: Window
    intake: Intake
    schedule: Schedule
    evaluator: RuleEngine
    judge: Judge
    outbox: Outbox
    inbound: Inbounds
    server: HttpServer
    public: HttpServer  # without a listener where there is no [http.public]
    vitals: Vitals
    reader: EngineReader
    started_at: float
    clock: EngineClock
    watchdog: Watchdog
    stood_still: tuple[float, float] | None = None  # the last time that nothing ran, from and until
    checks: dict[CheckName, CheckInstance] = field(default_factory=dict)
    notifiers: dict[str, NotifierInstance] = field(default_factory=dict)
    beats: Beats = field(default_factory=Beats)
    unfinished_escalations: set[tuple[str, str]] = field(default_factory=set)
    ready: bool = False
    changed: Bell = field(default_factory=Bell)
    reloaded: Bell = field(default_factory=Bell)  # rung when another configuration is in effect
    stop: trio.Event = field(default_factory=trio.Event)
    reloading: trio.Lock = field(default_factory=trio.Lock)

    @property
    def url(self) -> str:
        """Where the daemon listens."""
        return self.server.url
