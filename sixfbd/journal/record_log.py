"""The judge's records as rows: writing, reading on, the history of one incident. Functions on a connection, no threads.

A record is linked to what it is about (`subjects`), so that `sixfbctl why` reads an incident without a scan. The fold at
start begins at the last base; what the base does not hold are the records after its cut (`base_upto`).
"""

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from sixfbd.journal.records import (
    Acked,
    AlertChanged,
    Base,
    MessageChanged,
    MessageLate,
    ObligationChanged,
    Owed,
    Postponed,
    ReceiptAsked,
    ReceiptMissed,
    Record,
)
from sixfbd.journal.schema import read_meta, write_meta
from sixfbd.journal.writer import Numbers
from sixfbd.model import Alert, Message, MessageId
from sixfbd.quantities import DAY

SCAN_LIMIT: Final = 20_000  # alert records looked at for the list of recent incidents
SET_BACK_S: Final = DAY  # as far as a clock that was set back between two starts may put times out of their order
PREFIX_END: Final = "\U0010ffff"
BASE_SEQ: Final = "base_seq"
BASE_UPTO: Final = "base_upto"

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Record).decode


class StoredRecord(Struct, frozen=True):
    """A record with its number; numbers grow in commit order."""

    seq: int
    record: Record


class AmbiguousIdError(LookupError):
    """A prefix names more than one incident."""


def subjects(record: Record) -> tuple[str, ...]:
    """Return the ids that a record is about: incidents, obligations, messages, a notice's `source/id`."""
    match record:
        case AlertChanged():
            return (record.alert.id,)
        case Acked():
            return (record.alert,)
        case Owed():
            return tuple({record.obligation.subject: None, record.obligation.id: None})
        case ObligationChanged() | Postponed():
            return (record.id,)
        case MessageChanged():
            return tuple(dict.fromkeys((record.message.id, *record.message.obligations)))
        case ReceiptMissed() | ReceiptAsked() | MessageLate():
            return (record.message,)
        case _:
            return ()


def decode(body: str) -> Record:
    """Return the record of a row's body. Raises msgspec.DecodeError or ValidationError."""
    record: Record = _decode(body)
    return record


def insert_records(connection: sqlite3.Connection, records: Sequence[Record], numbers: Numbers) -> int:
    """Write records in the caller's transaction, numbered on from `numbers`; return the last number given."""
    first = numbers.record + 1
    connection.executemany(
        "INSERT INTO records (seq, at, kind, body) VALUES (?, ?, ?, ?)",
        [(seq, one.at, kind_of(one), _encode(one).decode()) for seq, one in enumerate(records, first)],
    )
    connection.executemany(
        "INSERT INTO record_subjects (subject, seq) VALUES (?, ?)",
        [(subject, seq) for seq, one in enumerate(records, first) for subject in subjects(one)],
    )
    numbers.record += len(records)
    return numbers.record


def insert_base(connection: sqlite3.Connection, base: Base, upto: int, numbers: Numbers) -> int:
    """Write the state at the cut `upto` in place of the base before it; the fold starts here from now on.

    One that is older than the base that is there changes nothing. Returns the number of the base.
    """
    there, known = read_meta(connection, BASE_SEQ), read_meta(connection, BASE_UPTO)
    if there is not None and known is not None and upto < known:
        return int(there)
    seq = insert_records(connection, [base], numbers)
    connection.execute("DELETE FROM records WHERE kind = 'base' AND seq < ?", (seq,))
    write_meta(connection, BASE_SEQ, seq)
    write_meta(connection, BASE_UPTO, upto)
    return seq


def kind_of(record: Record) -> str:
    """Return the record's tag, which is the column `kind`."""
    return str(record.__struct_config__.tag)


def read_records(
    connection: sqlite3.Connection, after: int, kinds: Collection[str] | None, limit: int
) -> list[StoredRecord]:
    """Return the records after a number, oldest first; `kinds` are tags of `sixfbd.journal.records`."""
    if kinds is None:
        rows = connection.execute(
            "SELECT seq, body FROM records WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
        ).fetchall()
    else:
        rows = []
        for kind in sorted(set(kinds)):  # each kind by its index, in order of number
            rows += connection.execute(
                "SELECT seq, body FROM records INDEXED BY records_kind WHERE kind = ? AND seq > ? ORDER BY seq LIMIT ?",
                (kind, after, limit),
            ).fetchall()
        rows = sorted(rows)[:limit]
    return [StoredRecord(seq, decode(body)) for seq, body in rows]


def fold_start(connection: sqlite3.Connection) -> tuple[StoredRecord | None, int]:
    """Return the last base, and the number after which the records follow that it does not hold."""
    seq, upto = read_meta(connection, BASE_SEQ), read_meta(connection, BASE_UPTO)
    if seq is None or upto is None:
        return None, 0
    [body] = connection.execute("SELECT body FROM records WHERE seq = ?", (seq,)).fetchone()
    return StoredRecord(int(seq), decode(body)), int(upto)


def pass_over_fold(connection: sqlite3.Connection) -> None:
    """Read what `fold_start` and the records after it are, without a look at them: sqlite3's error if it is damaged."""
    upto = read_meta(connection, BASE_UPTO) or 0
    for _ in connection.execute(
        "SELECT body FROM records WHERE seq > ? OR seq = (SELECT value FROM meta WHERE key = ?)", (upto, BASE_SEQ)
    ):
        continue


def read_history(connection: sqlite3.Connection, wanted: str) -> list[Record]:
    """Return all that is recorded of one incident (or notice, obligation, message), oldest first; [] if unknown.

    `wanted` is an id, or the beginning of an incident's id that no other incident has; else AmbiguousIdError is raised.
    """
    subject = _resolve(connection, wanted)
    found = dict(_linked(connection, subject))
    for record in list(found.values()):
        if isinstance(record, Owed):  # what became of an obligation is linked to it, not to the incident
            found.update(_linked(connection, record.obligation.id))
    return [found[seq] for seq in sorted(found)]


def _linked(connection: sqlite3.Connection, subject: str) -> Iterator[tuple[int, Record]]:
    rows = connection.execute(
        "SELECT seq, body FROM record_subjects JOIN records USING (seq) WHERE subject = ? ORDER BY seq", (subject,)
    )
    for seq, body in rows:
        yield seq, decode(body)


def _resolve(connection: sqlite3.Connection, wanted: str) -> str:
    if connection.execute("SELECT 1 FROM record_subjects WHERE subject = ?", (wanted,)).fetchone():
        return wanted
    rows = connection.execute(
        "SELECT DISTINCT subject FROM record_subjects JOIN records USING (seq)"
        " WHERE subject >= ? AND subject < ? AND kind = 'alert' LIMIT 4",
        (wanted, wanted + PREFIX_END),
    ).fetchall()
    if len(rows) > 1:
        some = ", ".join(subject for [subject] in rows[:3]) + (", ..." if len(rows) > 3 else "")
        raise AmbiguousIdError(f"{wanted!r} begins the ids of several alerts ({some}); give more of it")
    return str(rows[0][0]) if rows else wanted


def read_recent_alerts(connection: sqlite3.Connection, limit: int) -> list[Alert]:
    """Return the last recorded form of the incidents that changed last, latest first."""
    found: dict[str, Alert] = {}
    rows = connection.execute(
        "SELECT body FROM records INDEXED BY records_kind WHERE kind = 'alert' ORDER BY seq DESC LIMIT ?", (SCAN_LIMIT,)
    )
    for [body] in rows:
        if len(found) >= limit:
            break
        record = decode(body)
        assert isinstance(record, AlertChanged)
        found.setdefault(record.alert.id, record.alert)
    return list(found.values())


def read_messages(connection: sqlite3.Connection, notifier: str, start: float, end: float, limit: int) -> list[Message]:
    """Return a notifier's messages that changed at `start <= at < end`, each as it was then last, the oldest change first.

    Of more than `limit` those that changed last.
    """
    found: dict[MessageId, Message] = {}
    rows = connection.execute(
        "SELECT at, body FROM records INDEXED BY records_kind WHERE kind = 'message' ORDER BY seq DESC"
    )
    for at, body in rows:
        if at < start - SET_BACK_S or len(found) >= limit:
            break
        if not start <= at < end:
            continue
        record = decode(body)
        assert isinstance(record, MessageChanged)
        if record.message.target.notifier == notifier:
            found.setdefault(record.message.id, record.message)
    return list(found.values())[::-1]
