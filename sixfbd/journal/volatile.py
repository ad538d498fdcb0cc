"""What was decided while the journal could not be written: kept in memory, bounded, and written in one piece afterwards.

Beside the records goes the whole state as a base, so that the fold equals memory whatever had to be dropped. No I/O.
"""

from collections.abc import Sequence
from typing import Final

from sixfbd.journal.record_log import subjects
from sixfbd.journal.records import Owed, Record, Volatile
from sixfbd.journal.state import State

KEPT: Final = 20_000  # records; a gap of hours with thousands of transitions


class Unwritten:
    """The records of one gap that began at `since` because of `error`, oldest first.

    Of more than `most` the oldest are dropped and counted; but the last word on each incident, obligation and message that
    the journal holds as open (those of `durable`, the state at the beginning) is kept, so that its account balances.
    """

    def __init__(self, durable: State, since: float, error: str, most: int = KEPT) -> None:
        self.since = since
        self.error = error
        self.dropped = 0
        self.records: list[Record] = []
        self._open = frozenset((*durable.incidents, *durable.obligations, *durable.messages, *durable.awaited))
        self._most = most + 4 * len(self._open)  # what is never dropped fits twice

    def add(self, records: Sequence[Record]) -> None:
        """Take the records of one round."""
        self.records += records
        if len(self.records) > self._most:
            self._drop()

    def gap(self, at: float) -> Volatile:
        """Return the record that says how long nothing was written, until `at`."""
        return Volatile(at, self.since, self.error, self.dropped)

    def _drop(self) -> None:
        half = len(self.records) // 2
        kept: dict[tuple[type, str], Record] = {}
        for record in self.records[:half]:
            about = subjects(record)
            if not isinstance(record, Owed) and not self._open.isdisjoint(about):  # what it owes may have ended in here
                key = (type(record), about[0])
                kept.pop(key, None)  # the last one, in its place
                kept[key] = record
        self.dropped += half - len(kept)
        self.records[:half] = kept.values()
