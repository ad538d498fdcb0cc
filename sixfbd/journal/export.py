"""The journal as lines of JSON, for other programs and for people who leave. Only reads.

The form is versioned: a header `{"kind":"journal","version":1,...}`, then `{"kind":"record","seq":...,"record":{...}}`
and `{"kind":"event","seq":...,"source":...,"received_at":...,"event":{id,type,timestamp,data}}`, each in order of number.
"""

import sqlite3
from collections.abc import Iterator
from typing import Final

import msgspec

from sixfbd.journal.event_log import EVENT_COLUMNS, stored_event
from sixfbd.journal.writer import last_numbers

FORMAT: Final = 1

_encode: Final = msgspec.json.Encoder().encode


def export_lines(connection: sqlite3.Connection) -> Iterator[bytes]:
    """Yield one line per record and event, each ending in a newline; no more than a row is held."""
    last = last_numbers(connection)
    header = {"kind": "journal", "version": FORMAT, "last_record_seq": last.record, "last_event_seq": last.event}
    yield _encode(header) + b"\n"
    for seq, body in connection.execute("SELECT seq, body FROM records ORDER BY seq"):
        yield _encode({"kind": "record", "seq": seq, "record": msgspec.Raw(body.encode())}) + b"\n"
    for row in connection.execute(f"SELECT {EVENT_COLUMNS} FROM events ORDER BY seq"):
        stored = stored_event(row)
        line = {
            "kind": "event",
            "seq": stored.seq,
            "source": stored.source,
            "received_at": stored.received_at,
            "event": stored.event,
        }
        yield _encode(line) + b"\n"
