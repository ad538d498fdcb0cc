"""Receivers' addresses as they may be shown: their notifier says how. What is sent and what is journaled is never changed."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from sixfbd.config import Config
from sixfbd.containment import one_line
from sixfbd.control.engine import StoryRecord
from sixfbd.host import PluginCatalog
from sixfbd.journal.records import MessageChanged, Owed
from sixfbd.model import Json, Message, Obligation, Target

HIDDEN: Final = "…"
ENDING: Final = 4  # characters that are shown of an address about which nobody can be asked


class Addresses:
    """The addresses of one configuration."""

    def __init__(self, config: Config, catalog: PluginCatalog) -> None:
        self._config = config
        self._catalog = catalog

    def shown(self, notifier: str, address: str) -> str:
        """Return an address as its notifier lets it be shown; of a notifier that is no more, or is broken, its end."""
        table = self._config.notifiers.get(notifier)
        entry = None if table is None else self._catalog.notifiers.get(table.plugin)
        if not address:
            return ""
        if entry is None or entry.kept_out:
            return f"{HIDDEN}{address[-ENDING:]}"
        try:
            return one_line(entry.cls.show_address(address))
        except (Exception, SystemExit):  # noqa: BLE001 - a plugin may raise anything, and it may hold the address
            return HIDDEN

    def target(self, target: Target) -> Target:
        return replace(target, address=self.shown(target.notifier, target.address))

    def message(self, message: Message) -> Message:
        return replace(message, target=self.target(message.target))

    def obligation(self, owed: Obligation) -> Obligation:
        return replace(owed, target=self.target(owed.target))

    def record(self, record: StoryRecord) -> StoryRecord:
        if isinstance(record, Owed):
            return replace(record, obligation=self.obligation(record.obligation))
        if isinstance(record, MessageChanged):
            return replace(record, message=self.message(record.message))
        return record

    def everywhere(self, value: Json) -> Json:
        """Return a record as JSON, each target in it with its address as it may be shown."""
        if isinstance(value, list):
            return [self.everywhere(part) for part in value]
        if not isinstance(value, Mapping):
            return value
        shown: dict[str, Any] = {name: self.everywhere(part) for name, part in value.items()}
        if value.keys() == set(Target.__struct_fields__):
            shown["address"] = self.shown(str(value["notifier"]), str(value["address"]))
        return shown
