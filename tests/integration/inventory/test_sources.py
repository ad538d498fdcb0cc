"""Where stock is read: a server of loopback, a file of SQLite, a real PostgreSQL, series of a scrape, counted sales."""

import json
import os
import pwd
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import h11
import pytest
import trio

from sixfbd.intake import declare
from sixfbd.model import CheckName, Report, Status
from sixfbd.plugin import Gauge, InvalidOptions, Secret
from sixfbd.world import HttpOutbound
from sixfbd_plugins.checks.inventory import InventoryCheck, InventoryOptions
from sixfbd_plugins.inventory.http import HttpSource
from sixfbd_plugins.inventory.series import EventsSource
from sixfbd_plugins.inventory.sql import SqlSource
from sixfbd_plugins.inventory.stock import Stock

TOKEN = "t0ken-that-nobody-may-see"
STATUS = {"publicAvailable": {"ga": 9, "vip": 3}, "sold": {"ga": 91, "vip": 17}, "publicLimits": {"ga": 100, "vip": 20}}
BOTH = (Stock("dallas", "ga", 9, 91, 100), Stock("dallas", "vip", 3, 17, 20))


@pytest.fixture
async def running(engine):
    async with engine.running():
        yield engine


# ---- http ------------------------------------------------------------------------------------------------------------------


class Shop:
    """A server that answers each request with what it is told to, and keeps the requests."""

    def __init__(self):
        self.status, self.body, self.delay_s, self.asked = 200, b"{}", 0.0, []

    async def serve(self, stream):
        connection, request = h11.Connection(h11.SERVER), None
        async with stream:
            while request is None:
                event = connection.next_event()
                if event is h11.NEED_DATA:
                    connection.receive_data(await stream.receive_some(65536))
                elif isinstance(event, h11.Request):
                    request = event
                else:
                    return
            self.asked.append({name.decode(): value.decode() for name, value in request.headers})
            await trio.sleep(self.delay_s)
            head = [("content-length", str(len(self.body))), ("connection", "close")]
            try:
                await stream.send_all(
                    connection.send(h11.Response(status_code=self.status, headers=head))
                    + connection.send(h11.Data(data=self.body))
                    + connection.send(h11.EndOfMessage())
                )
            except trio.BrokenResourceError:
                await trio.lowlevel.checkpoint()  # the check had enough of it


@pytest.fixture
async def shop(nursery):
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    made = Shop()
    made.url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/internal/inventory"
    nursery.start_soon(partial(trio.serve_listeners, made.serve, [listener]))
    return made


@pytest.fixture
async def over_http(running, shop):
    """Make a check on the shop's page."""
    http = HttpOutbound("check.inventory", ssl.create_default_context)

    def make(**options):
        check = running.check(http={"url": shop.url, **options})
        check._source._ctx.http = http
        return check

    yield make
    await http.close()


async def test_the_shops_page_is_asked_with_its_secrets_and_read_in_the_seeds_shape(running, shop, over_http):
    shop.body = json.dumps({"success": True, "data": {"cities": [{"cityId": "dallas", "status": STATUS}]}}).encode()
    check = over_http(secret_headers={"Authorization": Secret(f"Bearer {TOKEN}", "env T")}, headers={"X-Shop": "6fb"})
    report = await running.run(check)
    assert (report.status, report.summary) == (Status.HEALTHY, "tickets left: dallas VIP 3, dallas GA 9")
    assert (shop.asked[0]["authorization"], shop.asked[0]["x-shop"]) == (f"Bearer {TOKEN}", "6fb")
    assert running.value("inventory_tickets_available", city="dallas", type="ga") == 9
    assert running.value("inventory_tickets_sold", city="dallas", type="vip") == 17
    assert running.value("inventory_tickets_limit", city="dallas", type="vip") == 20


async def test_another_shape_is_mapped_by_jmespath(running, shop, over_http):
    events = [
        {"slug": "dallas", "left": STATUS["publicAvailable"], "gone": STATUS["sold"], "cap": STATUS["publicLimits"]}
    ]
    shop.body = json.dumps({"events": events}).encode()
    expression = "events[].{cityId: slug, publicAvailable: left, sold: gone, publicLimits: cap}"
    assert (await over_http(jmespath=expression)._source.read()).stocks == BOTH


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, b"{}", "status 500, expected 200"),
        (200, b"<html>", "the answer is not JSON"),
        (200, b"[" * 100_000, "the answer is not JSON"),
        (200, b"[]", "it holds no stock at all"),
        (200, b'[{"cityId": "d", "sold": {"' + TOKEN.encode() + b'": "?"}}]', "d ***: sold is a text, not a number"),
        (200, b"{" + b" " * 5000 + b"}", "4096"),
    ],
)
async def test_whatever_else_it_answers_is_unknown_and_shows_no_secret(running, shop, over_http, status, body, said):
    shop.status, shop.body = status, body
    check = over_http(secret_headers={"X-Key": Secret(TOKEN, "env T")}, max_body=4096 if said == "4096" else 1_000_000)
    report = await running.run(check)
    assert (report.status, report.samples, report.cursor) == (Status.UNKNOWN, (), None)
    assert said in report.summary
    assert TOKEN not in repr(report)


async def test_a_shop_that_never_answers_is_unknown_after_the_deadline(running, shop, over_http):
    shop.delay_s = 60
    began = time.monotonic()
    report = await running.run(over_http(deadline=0.3))
    assert report.status is Status.UNKNOWN
    assert time.monotonic() - began < 20


def test_options_of_http_that_do_not_fit_are_named():
    with pytest.raises(InvalidOptions, match="jmespath: is not JMESPath"):
        HttpSource(url="http://127.0.0.1/", jmespath="a[")
    with pytest.raises(InvalidOptions, match="url: 'ftp://x' is not an HTTP address"):
        HttpSource(url="ftp://x")
    with pytest.raises(InvalidOptions, match="http: one source is needed"):
        InventoryOptions()


def test_jmespath_and_psycopg_are_imported_by_nobody_who_has_not_configured_them():
    program = (
        "import sys, sixfbd_plugins.checks.inventory; sys.exit(bool({'jmespath', 'psycopg'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# ---- sql -------------------------------------------------------------------------------------------------------------------

SCHEMA = 'CREATE TABLE stock (city text, tier text, sold integer, "limit" integer)'
ROWS = "INSERT INTO stock VALUES ('dallas', 'ga', 91, 100), ('dallas', 'vip', 17, 20)"
QUERY = 'SELECT city, tier, "limit" - sold AS available, sold, "limit" FROM stock ORDER BY tier'


@pytest.fixture
def sqlite_file(tmp_path):
    path = tmp_path / "shop's stock?.db"
    database = sqlite3.connect(path)
    database.execute(SCHEMA)
    database.execute(ROWS)
    database.commit()
    database.close()
    return path


async def test_a_file_of_sqlite_is_read(running, sqlite_file):
    check = running.check(sql={"sqlite": str(sqlite_file), "query": QUERY})
    assert (await check._source.read()).stocks == BOTH
    assert (await running.run(check)).status is Status.HEALTHY


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("DELETE FROM stock", "attempt to write a readonly database"),
        ("SELECT city, tier FROM stock", "the query's columns are city, tier; name them city, tier and available"),
        ("SELECT city, tier, 'many' AS available FROM stock", "dallas ga: available is a text, not a number"),
        ("SELECT city, tier, sold AS available FROM stock WHERE 0", "it holds no stock at all"),
        ("SELECT city, tier, 1 AS available FROM stocks", "no such table: stocks"),
        ("SELECT city, tier, 1 AS available FROM stock; SELECT 1", "one statement at a time"),
        (
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT 'a' city, 'b' tier, max(x) available FROM n",
            "took longer than 0.3 s",
        ),
    ],
)
async def test_a_query_that_writes_or_takes_too_long_or_yields_something_else_is_unknown(
    running, sqlite_file, query, said
):
    check = running.check(sql={"sqlite": str(sqlite_file), "query": query, "deadline": 0.3 if "took" in said else 60.0})
    report = await running.run(check)
    assert report.status is Status.UNKNOWN
    assert said in report.summary
    assert sqlite3.connect(sqlite_file).execute("SELECT count(*) FROM stock").fetchone() == (2,)


def test_options_of_sql_that_do_not_fit_are_named():
    with pytest.raises(InvalidOptions, match="sqlite: either sqlite or postgresql is needed"):
        SqlSource(query="SELECT 1")
    with pytest.raises(InvalidOptions, match="query: is empty"):
        SqlSource(query=" ", sqlite="/x")


class PostgreSQL:
    """A cluster in a directory of its own, on a socket there, run by a user who is not root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.secret = "pa55word-that-nobody-may-see"
        self.dsn = f"host={folder} user=shop password={self.secret} dbname=postgres"
        self._as = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.getuid() == 0 else []

    def start(self) -> None:
        if self._as:
            account = pwd.getpwnam("postgres")
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        password = self.folder / "password"
        password.write_text(self.secret)
        password.chmod(0o644)
        self._run("initdb", "-D", self.data, "-U", "shop", "-A", "scram-sha-256", f"--pwfile={password}", "-N")
        options = f"-c listen_addresses='' -c unix_socket_directories={self.folder} -c fsync=off"
        self._run("pg_ctl", "-D", self.data, "-w", "-t", "120", "-o", options, "-l", self.folder / "log", "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.data, "-w", "-m", "immediate", "stop")

    def _run(self, command: str, *arguments: object) -> None:
        done = subprocess.run(
            [*self._as, program(command), *map(str, arguments)],
            cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            timeout=180, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def program(name: str) -> str:
    """Find a program of PostgreSQL where Debian keeps them, newest first."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]), reverse=True)
    found = next((path for place in places if (path := shutil.which(name, path=str(place)))), shutil.which(name))
    assert found is not None, f"there is no {name}; install the Debian package postgresql"
    return found


@pytest.fixture(scope="module")
def postgresql():
    folder = Path(
        tempfile.mkdtemp(prefix="sixfbd-pg-")
    )  # a socket's path is at most 107 bytes, and pytest's is private
    made = PostgreSQL(folder)
    try:
        made.start()
        import psycopg

        with psycopg.connect(made.dsn) as database:
            database.execute(SCHEMA)
            database.execute(ROWS)
        yield made
        made.stop()
    finally:
        shutil.rmtree(folder)


def on_postgresql(running, postgresql, query=QUERY, dsn="", **options):
    secret = Secret(dsn or postgresql.dsn, "env DSN")
    return running.check(sql={"postgresql": secret, "query": query, **options})


async def test_postgresql_is_read(running, postgresql):
    check = on_postgresql(running, postgresql)
    assert (await check._source.read()).stocks == BOTH
    assert (await running.run(check)).status is Status.HEALTHY


async def test_sums_and_numerics_of_postgresql_are_numbers_of_tickets(running, postgresql):
    query = "SELECT city, 'all' AS tier, sum(\"limit\")::numeric - sum(sold) AS available FROM stock GROUP BY city"
    assert (await on_postgresql(running, postgresql, query)._source.read()).stocks == (Stock("dallas", "all", 12),)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("DELETE FROM stock RETURNING city, tier, 1 AS available", "read-only transaction"),
        ("SET TRANSACTION READ WRITE", "yields no rows"),
        ("SELECT city, tier FROM stock", "the query's columns are city, tier"),
        ("SELECT city, tier, 1 AS available FROM stocks", 'relation "stocks" does not exist'),
        ("SELECT 'a' AS city, 'b' AS tier, 1 AS available FROM pg_sleep(60)", "statement timeout"),
    ],
)
async def test_a_query_of_postgresql_cannot_write_and_ends_in_time(running, postgresql, query, said):
    deadline = 0.5 if "pg_sleep" in query else 30.0
    report = await running.run(on_postgresql(running, postgresql, query, deadline=deadline))
    assert report.status is Status.UNKNOWN
    assert said in report.summary
    assert len((await on_postgresql(running, postgresql)._source.read()).stocks) == 2


async def test_a_database_that_refuses_or_is_not_there_shows_no_password(running, postgresql):
    wrong = postgresql.dsn.replace(postgresql.secret, "another-secret")
    for dsn, said in (
        (wrong, "password authentication failed"),
        (f"host={postgresql.folder}/no password=another-secret", ""),
    ):
        report = await running.run(on_postgresql(running, postgresql, dsn=dsn))
        assert report.status is Status.UNKNOWN
        assert said in report.summary
        assert "another-secret" not in repr(report)


async def test_a_database_that_accepts_and_never_answers_costs_one_deadline(running, postgresql):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        dsn = f"host=127.0.0.1 port={mute.getsockname()[1]} user=shop password=another-secret"
        began = time.monotonic()
        report = await running.run(on_postgresql(running, postgresql, dsn=dsn, deadline=1.0))
    assert report.status is Status.UNKNOWN
    assert time.monotonic() - began < 20


# ---- series ----------------------------------------------------------------------------------------------------------------


async def scraped(running, *samples):
    """Take a report as of a scrape."""
    running.intake.declare_check(CheckName("shop"), declare((), 100, 300))
    running.intake.declare_check(CheckName("shop"), declare([one for one, _, _ in samples], 100, 300))
    taken = tuple(metric(value, **labels) for metric, value, labels in samples)
    assert not (await running.intake.report(CheckName("shop"), Report(Status.HEALTHY, "", taken))).count


LEFT = Gauge("shop_tickets_left", "", ("city", "job", "kind"))
GONE = Gauge("shop_tickets_gone", "", ("city", "job", "kind"))


async def test_series_that_a_scrape_brought_are_stock(running):
    at = {"city": "dallas", "job": "shop", "kind": "ga"}
    await scraped(running, (LEFT, 9, at), (GONE, 91, at))
    options = {"available": "shop_tickets_left", "sold": "shop_tickets_gone", "tier_label": "kind"}
    assert (await running.check(prometheus=options)._source.read()).stocks == (Stock("dallas", "ga", 9, 91),)


async def test_the_seeds_own_series_are_read_by_default_and_never_the_checks_own(running):
    seeds = Gauge("inventory_tickets_available", "", ("city", "job", "type"))
    await scraped(running, (seeds, 4, {"city": "dallas", "job": "shop", "type": "ga"}))
    check = running.check(prometheus={})
    for _ in range(2):
        assert (await running.run(check)).summary == "tickets left: dallas GA 4"
        running.clock.at += 60
    assert running.texts() == [("high", "🚨 INVENTORY CRITICAL: dallas GA - 4 tickets remaining")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, 'there is no series inventory_tickets_available{job!=""}; is it scraped?'),
        ({"available": "shop_tickets_left"}, "lacks the label city or type"),
        ({"available": "sum by (city) (", "tier_label": "kind"}, "source.available: "),
        ({"available": 'label_replace(shop_tickets_left, "type", "x", "", "")'}, "dallas x is there twice"),
    ],
)
async def test_series_that_are_missing_or_no_stock_are_unknown(running, options, said):
    await scraped(running, *((LEFT, 9, {"city": "dallas", "job": "shop", "kind": kind}) for kind in ("ga", "vip")))
    report = await running.run(running.check(prometheus=options))
    assert report.status is Status.UNKNOWN
    assert said in report.summary


async def test_stock_is_counted_from_sales_and_refunds_whatever_their_order_and_across_restarts(engine):
    async with engine.running():
        check = engine.check(events={"capacity": {"dallas": {"ga": 100, "vip": 20}}})
        assert (await engine.run(check)).summary == "tickets left: dallas VIP 20, dallas GA 100"
        await engine.sell(60)
        await engine.sell(25, at=engine.clock.at - 3600)
        await engine.sell(3, city="austin")
    async with engine.running():
        check = engine.check(events={"capacity": {"dallas": {"ga": 100, "vip": 20}}})
        engine.clock.at += 60
        assert (await check._source.read()).stocks == (
            Stock("dallas", "ga", 15, 85, 100),
            Stock("dallas", "vip", 20, 0, 20),
        )
        await engine.send("refund", orderId="o", cityId="dallas", tier="ga", quantity=5)
        engine.clock.at += 60
        assert (await engine.run(check)).summary == "tickets left: dallas GA 20, dallas VIP 20"
    assert [milestone for _, _, milestone, _ in engine.milestones()] == [25]


def test_a_capacity_that_is_none_is_named():
    with pytest.raises(InvalidOptions, match="capacity: is empty"):
        EventsSource(capacity={"dallas": {}})
    with pytest.raises(InvalidOptions, match="capacity: a number of tickets is not below 0"):
        EventsSource(capacity={"dallas": {"ga": -1}})


def test_the_check_declares_every_series_that_it_reports():
    assert {metric.name for metric in InventoryCheck.metrics} >= {
        "inventory_tickets_available",
        "inventory_sales_closed",
    }
