"""What spares a look into the file: it may be wrong in one way only."""

import sqlite3

from hypothesis import given
from hypothesis import strategies as st

from sixfbd.journal import event_log
from sixfbd.journal.event_log import KNOWN_DAYS, Accepted, Duplicate, Known, NewEvent, insert_events, read_known
from sixfbd.journal.schema import connect_writer
from sixfbd.journal.writer import Numbers, last_numbers
from sixfbd.model import Event
from sixfbd.quantities import DAY

KEYS = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(st.integers(0, KNOWN_DAYS), KEYS), max_size=50))
def test_what_was_noted_within_the_days_that_count_is_never_denied(noted):
    known = Known()
    for day, key in sorted(noted):
        known.note(20_000 + day, key)
    assert all(known.note(20_000 + KNOWN_DAYS + 1, key) for _, key in noted)


def test_what_was_not_noted_is_denied_nearly_always():
    known = Known()
    for key in range(10_000):
        known.note(20_000, event_log.identity_hash("a", str(key)))
    taken = sum(known.note(20_000, event_log.identity_hash("b", str(key))) for key in range(10_000))
    assert taken < 100


def test_days_that_are_over_take_no_memory():
    known = Known()
    for day in range(20_000, 20_400):
        known.note(day, day)
    assert len(known._tables) <= 4


def new(number: int, at: float) -> NewEvent:
    return NewEvent(Event(f"e{number}", "sale", at, {}), at)


def put(connection: sqlite3.Connection, known: Known | None, numbers: range, at: float) -> list[Accepted | Duplicate]:
    connection.execute("BEGIN")
    events = [new(number, at) for number in numbers]
    answers = insert_events(connection, "shop", events, last_numbers(connection), known)
    connection.execute("COMMIT")
    return answers


def test_duplicates_are_found_whatever_was_read_at_the_start(tmp_path, monkeypatch):
    connection = connect_writer(tmp_path / "journal.db")
    at = 20_000 * DAY
    put(connection, read_known(connection), range(20), at)
    read = read_known(connection)
    assert read is not None
    assert put(connection, read, range(10, 30), at + 6 * DAY) == [
        *(Duplicate(number + 1) for number in range(10, 20)),
        *(Accepted(number + 1) for number in range(20, 30)),
    ]
    monkeypatch.setattr(event_log, "READ_AT_START", 5)
    assert read_known(connection) is None
    assert put(connection, None, range(25, 31), at + 6 * DAY)[-2:] == [Duplicate(30), Accepted(31)]
    connection.close()


def test_what_a_failed_transaction_noted_can_still_be_written(tmp_path):
    connection = connect_writer(tmp_path / "journal.db")
    known = read_known(connection)
    connection.execute("BEGIN")
    insert_events(connection, "shop", [new(1, 20_000 * DAY)], Numbers(0, 0), known)
    connection.execute("ROLLBACK")
    assert put(connection, known, range(1, 2), 20_000 * DAY) == [Accepted(1)]
    connection.close()


def test_an_id_twice_in_one_request_is_one_event(tmp_path):
    connection = connect_writer(tmp_path / "journal.db")
    at = 20_000 * DAY
    connection.execute("BEGIN")
    assert insert_events(connection, "shop", [new(1, at), new(1, at), new(2, at)], Numbers(0, 0), Known()) == [
        Accepted(1), Duplicate(1), Accepted(2),
    ]  # fmt: skip
    connection.execute("COMMIT")
    connection.close()
