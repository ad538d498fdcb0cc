"""The source `sql`: a query of the shop's database, SQLite or PostgreSQL, that cannot write and ends in time.

Columns are known by their names: city, tier, and available or both sold and limit. SQLite's file is opened read-only; on
PostgreSQL the session is, and both stop a query that takes too long. PostgreSQL's user should be one that can only read.
"""

import sqlite3
import time
import urllib.parse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from sixfbd.plugin import SECOND, Context, Duration, FilePath, OptionFaults, Secret, installed
from sixfbd_plugins.checks.targets import hiding
from sixfbd_plugins.inventory.stock import COLUMNS, MOST_STOCKS, Reading, SourceError, stock_of_row, whole

PROGRESS_STEPS: Final = 10_000  # of SQLite's machine, a few ms, between two looks at the time
MAX_SHOWN: Final = 200  # characters of an error


class SqlSource(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Stock by a query of a database."""

    query: Annotated[str, Meta(description="SELECT with columns city, tier and available, or sold and limit.")]
    sqlite: Annotated[FilePath | None, Meta(description="File of a SQLite database.")] = None
    postgresql: Annotated[Secret | None, Meta(description="Connection string of a PostgreSQL database.")] = None
    deadline: Annotated[Duration, Meta(description="Time for connecting and for the query.")] = Duration(5 * SECOND)

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("query"):
                if not self.query.strip():
                    raise ValueError("is empty; write SELECT city, tier, available FROM ...")
            with faults.at("sqlite"):
                if (self.sqlite is None) == (self.postgresql is None):
                    raise ValueError("either sqlite or postgresql is needed")
            with faults.at("postgresql"):
                if self.postgresql is not None:
                    installed("psycopg", extra="postgresql")

    def open(self, ctx: Context) -> "SqlReader":
        return SqlReader(self, ctx)


class SqlReader:
    """Connects for each reading, in a thread: what a database keeps of a connection it keeps for the shop."""

    def __init__(self, options: SqlSource, ctx: Context) -> None:
        self._ctx = ctx
        self._options = options
        self._dsn = options.postgresql.reveal() if options.postgresql is not None else ""
        self._hide = hiding([self._dsn, *_passwords(self._dsn)])
        if options.postgresql is not None:
            import psycopg  # noqa: F401 - here for who has configured it, not in the first reading's time

    async def read(self) -> Reading:
        read = self._read_sqlite if self._options.sqlite is not None else self._read_postgresql
        try:
            names, rows = await self._ctx.to_thread(read)
        except SourceError as error:
            raise SourceError(self._hide(" ".join(str(error).split()))[:MAX_SHOWN]) from None
        return whole([_stock(names, row, place) for place, row in enumerate(rows)])

    def _read_sqlite(self) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
        path, options = self._options.sqlite, self._options
        assert path is not None
        until = time.monotonic() + options.deadline
        address = f"file:{urllib.parse.quote(str(Path(path).absolute()))}?mode=ro"
        try:
            with closing(sqlite3.connect(address, uri=True, timeout=options.deadline)) as database:
                database.execute("PRAGMA query_only = 1")
                database.set_progress_handler(lambda: time.monotonic() > until, PROGRESS_STEPS)
                cursor = database.execute(options.query)
                return _names(cursor.description), cursor.fetchmany(MOST_STOCKS + 1)
        except (sqlite3.Error, sqlite3.Warning) as error:
            said = f"took longer than {options.deadline:g} s" if time.monotonic() > until else error
            raise SourceError(f"{path}: {said}") from None

    def _read_postgresql(self) -> tuple[Sequence[str], Sequence[Sequence[Any]]]:
        import psycopg

        limit_ms = max(1, round(self._options.deadline * 1000))
        settings = f"-c default_transaction_read_only=on -c statement_timeout={limit_ms} -c lock_timeout={limit_ms}"
        try:
            with (
                psycopg.connect(
                    self._dsn,
                    connect_timeout=max(2, round(self._options.deadline)),  # libpq's least
                    options=settings,
                    application_name="sixfbd",
                    tcp_user_timeout=limit_ms,
                ) as database,
                database.cursor() as cursor,
            ):
                cursor.execute(self._options.query.encode())  # bytes: the query is the operator's, not made of parts
                if cursor.description is None:
                    raise SourceError("the query yields no rows; it has to be a SELECT")
                return _names(cursor.description), cursor.fetchmany(MOST_STOCKS + 1)
        except psycopg.Error as error:
            raise SourceError(f"PostgreSQL: {error}") from None


def _names(description: Sequence[Any] | None) -> list[str]:
    if description is None:
        raise SourceError("the query yields no rows; it has to be a SELECT")
    names = [str(column[0]).lower() for column in description]
    given = set(names)
    if not {"city", "tier"} <= given or not ("available" in given or {"sold", "limit"} <= given):
        raise SourceError(
            f"the query's columns are {', '.join(names)}; name them city, tier and available, or sold and limit"
        )
    return names


def _stock(names: Sequence[str], row: Sequence[Any], place: int) -> Any:
    values = dict(zip(names, row, strict=True))
    return stock_of_row({name: values.get(name) for name in COLUMNS}, f"row {place}")


def _passwords(dsn: str) -> list[str]:
    """Return the password in a connection string, of either form, as libpq may say it."""
    if not dsn:
        return []
    from psycopg.conninfo import conninfo_to_dict

    try:
        return [str(conninfo_to_dict(dsn).get("password") or "")]
    except Exception:  # noqa: BLE001 - libpq says what is wrong with it when it connects
        return []
