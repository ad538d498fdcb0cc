"""The examples under etc/: the configuration passes check-config, the shop's route is read by the inventory check."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from sixfbd.alerting.routes import Routing, compile_route
from sixfbd.config import check_config, plugin_sources
from sixfbd.host import load_plugins
from sixfbd.outbox.previews import shown
from sixfbd.outbox.render import Place
from sixfbd.outbox.templates import CONTEXT_NAMES, FILTERS
from sixfbd.rules.problems import rule_problems
from sixfbd_plugins.business.events import TICKET_SALE, TicketSale
from sixfbd_plugins.inventory.stock import reading_of_document
from sixfbd_plugins.stripe.events import Snapshot, events_of

EXAMPLES = Path(__file__).parents[2] / "etc" / "examples"
NODE = shutil.which("node")
VALUES = {
    "STRIPE_SECRET_KEY": "rk_test_thatNobodyMaySee",
    "TWILIO_ACCOUNT_SID": "AC" + "0123456789abcdef" * 2,
    "TWILIO_PHONE_NUMBER": "+1-352-555-0100",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/secret",
    "SLACK_SALES_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B1/secret",
    "SLACK_DALLAS_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B2/secret",
    "STRIPE_WEBHOOK_SECRET": "whsec_thatNobodyMaySee",
}

ASK = """
const http = require("node:http");
const { inventoryRoute } = require(process.argv[1]);
const dallas = { cityId: "dallas-2026-03", tiers: { ga: { limit: 100, sold: 91 }, vip: { limit: 20, sold: 21 } } };
const load = () => { if (process.argv[2] === "broken") throw new Error("no database"); return [dallas]; };
const server = http.createServer(inventoryRoute(load, "Bearer right")).listen(0, "127.0.0.1", async () => {
  const url = `http://127.0.0.1:${server.address().port}/internal/inventory`;
  const headers = process.argv[3] === "none" ? {} : { authorization: process.argv[3] };
  const answer = await fetch(url, { headers });
  console.log(JSON.stringify([answer.status, await answer.json()]));
  server.close();
  server.closeAllConnections();
});
"""


def shop_config(tmp_path):
    text = (EXAMPLES / "shop.toml").read_text()
    path = tmp_path / "sixfbd.toml"
    path.write_text(text)
    environ = {name: VALUES.get(name, "secret-that-nobody-may-see") for name in re.findall(r'env = "(\w+)"', text)}
    config, problems = check_config(path, load_plugins(plugin_sources(path)), rule_problems, environ)
    assert [str(problem) for problem in problems] == []
    return config


def test_the_shops_configuration_passes_check_config(tmp_path):
    config = shop_config(tmp_path)
    assert config.notifiers["twilio"].options.status_callback == "https://hooks.example.com/webhooks/twilio"
    assert config.checks["sms"].options.notifier == "twilio"


@pytest.mark.parametrize(
    ("file", "plugins"),
    [
        ("logs.toml", ["log"] * 4),
        ("jobs.toml", ["heartbeat"]),
        ("programs.toml", ["exec"] * 3),
        ("network.toml", ["tcp", "tls", "tcp", "dns", "dns"]),
    ],
)
def test_the_checks_of_an_example_pass_check_config(tmp_path, monkeypatch, file, plugins):
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "backup").write_text("secret-that-nobody-may-see")
    path = tmp_path / "sixfbd.toml"
    path.write_text((EXAMPLES / file).read_text())
    config, problems = check_config(
        path, load_plugins(plugin_sources(path)), rule_problems, {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    )
    assert [str(problem) for problem in problems if "nobody is told" not in str(problem)] == []
    assert sorted(table.plugin for table in config.checks.values() if table.plugin in plugins) == sorted(plugins)


@pytest.mark.parametrize(
    ("city", "told"), [("dallas-2026-03", ["dallas", "sales"]), ("austin-2026-04", ["sales"])]
)  # fmt: skip
def test_the_shops_sales_are_told_by_a_route_of_their_own_and_by_city(tmp_path, city, told):
    config = shop_config(tmp_path)
    labels = {
        "notice": "sale",
        **TICKET_SALE.notice_labels(msgspec.convert({**TICKET_SALE.example, "cityId": city}, TicketSale)),
    }
    routing = Routing(compile_route(config.route), config.receivers, config.severities)
    assert [one.target.receiver for one in routing.targets(labels, TICKET_SALE.notice_severity, 0.0)] == told


def test_the_example_templates_pass_check_config_and_read_well(tmp_path):
    shutil.copytree(EXAMPLES / "templates", tmp_path / "templates")
    config = shop_config(tmp_path)
    catalog = load_plugins(plugin_sources(tmp_path / "sixfbd.toml"))
    notifiers = {name: entry.cls for name, entry in catalog.notifiers.items()}
    all_of = shown(config, catalog.event_types.values(), Place("workshop"), (), notifiers)
    found = {(one.name, one.channel): one for one in all_of}
    sms = found["firing", "sms"]
    assert sms.text == "workshop: 🔥 High memory usage: 93%, since 2m5s. sixfbctl ack 0123456789ab"
    assert re.fullmatch("workshop: High memory usage: 93%, since 2m5s. sixfbctl ack 0123456789ab #[a-z0-9]+", sms.shows)
    assert "Since 2027-01-15 08:00:00 UTC (2m5s), value 0.93\n" in found["firing", "slack"].shows
    assert found["sale", "slack"].title == "Sale: 2 × VIP dallas-2026-03, $300.00, 18 left"
    assert found["resolved", "sms"].shows.startswith("workshop: [RESOLVED] "), "an SMS is the title"
    assert "Labels:" not in found["resolved", "sms"].shows


def test_the_documentation_of_templates_names_all_that_they_are_given():
    text = (EXAMPLES / "templates" / "README.md").read_text()
    named = set(re.findall(r"`(\w+)`", text))
    assert named >= CONTEXT_NAMES
    assert set(re.findall(r"[a-zA-Z0-9]+", text)) >= FILTERS.keys()


def asked(stock, authorization):
    command = [NODE, "-e", ASK, str(EXAMPLES / "inventory.js"), stock, authorization]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return json.loads(done.stdout)


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_the_shops_route_is_what_the_inventory_check_reads():
    status, body = asked("whole", "Bearer right")
    assert status == 200
    stocks = {(one.city, one.tier): (one.available, one.sold, one.limit) for one in reading_of_document(body).stocks}
    assert stocks == {("dallas-2026-03", "ga"): (9, 91, 100), ("dallas-2026-03", "vip"): (0, 21, 20)}


@pytest.mark.skipif(NODE is None, reason="node is not installed")
@pytest.mark.parametrize("authorization", ["none", "Bearer wrong"])
def test_the_shops_route_answers_nobody_without_the_token(authorization):
    assert asked("whole", authorization) == [401, {"error": "not authorized"}]


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_a_stock_that_cannot_be_read_is_no_stock_of_nothing():
    assert asked("broken", "Bearer right")[0] == 503


@pytest.mark.skipif(NODE is None, reason="node is not installed")
def test_what_the_shop_writes_into_a_payment_is_what_is_kept_of_it():
    program = (
        'console.log(JSON.stringify(require(process.argv[1]).ticketMetadata({cityId: process.argv[2], tier: "ga"})))'
    )

    def written(city):
        command = [NODE, "-e", program, str(EXAMPLES / "payment.js"), city]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    thing = {"id": "pi_1", "amount_received": 100, "currency": "usd", **json.loads(written("dallas-2026-03").stdout)}
    snapshot = {"id": "evt_1", "type": "payment_intent.succeeded", "created": 1, "data": {"object": thing}}
    [event] = events_of(msgspec.convert(snapshot, Snapshot))
    assert (event.data["cityId"], event.data["tier"]) == ("dallas-2026-03", "ga")
    refused = written("5 Elm Street")
    assert refused.returncode != 0 and "cityId is no name" in refused.stderr


def test_every_example_is_named_in_their_readme():
    said = (EXAMPLES / "README.md").read_text()
    assert [one.name for one in EXAMPLES.iterdir() if f"`{one.name}`" not in said] == ["README.md"]
