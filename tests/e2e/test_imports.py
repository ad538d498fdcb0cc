"""What a daemon imports: a provider's SDK, a database's driver and the like only when a check or notifier needs it."""

import pytest

SDKS = ("jmespath", "psycopg", "sendgrid", "stripe", "twilio", "python_http_client", "requests", "aiohttp")

WITNESS = f"""
import sys
from sixfbd.plugin import Check, Report, Status, hookimpl

class Witness(Check):
    '''Says which SDKs this process has imported.'''
    async def run(self, cursor):
        found = sorted({{name.partition(".")[0] for name in sys.modules}} & {{*{SDKS!r}}})
        return Report(Status.HEALTHY, "imported: " + " ".join(found))

@hookimpl
def sixfbd_checks(config):
    return {{"witness": Witness}}
"""

STOCK = '[checks.stock]\nplugin = "inventory"\n[checks.stock.http]\nurl = "http://127.0.0.1:1/"\njmespath = "rows"\n'
TWILIO = f"""
[notifiers.twilio]
plugin = "sms"
account_sid = "{"AC" + "1" * 32}"
auth_token = {{ file = "secret" }}
from_number = "+1-352-555-0100"
"""
STRIPE = '[checks.payments]\nplugin = "payments"\napi_key = { file = "stripe-key" }\n'
SENDGRID = '[notifiers.mail]\nplugin = "email"\nsender = "a@example.com"\napi_key = { file = "sendgrid-key" }\n'
SECRETS = {
    "secret": "t0ken-that-nobody-may-see",
    "stripe-key": "rk_test_thatNobodyMaySee",
    "sendgrid-key": "SG.thatNobody.MaySee0123456789",
}


@pytest.mark.parametrize(
    ("tables", "expected"),
    [("", set()), (TWILIO, {"twilio"}), (STOCK, {"jmespath"}), (STRIPE, {"stripe"}), (SENDGRID, {"sendgrid"})],
    ids=["nothing", "sms", "jmespath", "payments", "email"],
)
def test_an_sdk_is_imported_by_a_daemon_that_needs_it_and_by_no_other(daemon, wait, tables, expected):
    for name, secret in SECRETS.items():
        (daemon.directory / name).write_text(secret)
        (daemon.directory / name).chmod(0o600)
    daemon.plugin("witness", WITNESS)
    daemon.add("50-test.toml", f'[checks.witness]\nplugin = "witness"\ninterval = "1s"\n{tables}')
    daemon.start()

    def summary():
        return {check["name"]: check["summary"] for check in daemon.ctl("checks")}["witness"].startswith("imported:")

    wait("it has looked", summary)
    [said] = [check["summary"] for check in daemon.ctl("checks") if check["name"] == "witness"]
    imported = set(said.removeprefix("imported:").split())
    assert imported & {"jmespath", "psycopg", "sendgrid", "stripe", "twilio"} == expected
    assert expected or not imported
