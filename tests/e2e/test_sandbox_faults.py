"""Each fault of the sandbox, switched on from the command line: who is told of what, how soon, and of its end.

`./run faults` runs all of them and prints the table; SIXFBD_SANDBOX_FAULTS is how many are run, the first ones by default.
"""

import os
import time
from typing import Any

import httpx
import msgspec
import pytest

FAULTS = int(os.environ.get("SIXFBD_SANDBOX_FAULTS", "3"))
PRIMARY, SECONDARY = "+13525550101", "+13525550102"
TO_PAGE_S, TO_RESOLVE_S = 60.0, 120.0

QUIET = {
    ("email", "primary@example.com"), ("slack", "#alerts"), ("discord", "#alerts"), ("webhook", "primary"),
}  # fmt: skip
LOUD = {("sms", PRIMARY), *QUIET}
SECOND = {
    ("sms", SECONDARY), ("email", "secondary@example.com"), ("slack", "#critical-alerts"),
    ("discord", "#critical-alerts"), ("webhook", "secondary"),
}  # fmt: skip
TELLS = {"medium": QUIET, "high": LOUD, "critical": LOUD | SECOND}
SERVICES = {"inventory": ("slack", "#inventory-alerts"), "payments": ("slack", "#payment-alerts")}


class Case(msgspec.Struct, frozen=True):
    """Faults to be switched on one after the other, and the alert that must come.

    `buys`: all tickets of this tier are bought then, and some more if there is no end of them. `without`: a channel that the
    faults have broken. `ends`: what else is switched on for the end.
    """

    faults: tuple[str, ...]
    rule: str
    severity: str
    service: str = ""
    buys: str = ""
    without: str = ""
    ends: tuple[str, ...] = ()

    @property
    def receivers(self) -> set[tuple[str, str]]:
        more = {SERVICES[self.service]} if self.service else set()
        return {one for one in TELLS[self.severity] | more if one[0] != self.without}


CASES = (
    Case(("twilio error=503 method=GET",), "SMSServiceError", "critical"),
    Case(("shop down path=/checkout",), "ProbeFailed", "high"),
    Case(("twilio balance=3.50",), "SMSBalanceLow", "medium"),
    Case(("twilio error=401 code=20003 method=GET",), "SMSServiceFailing", "critical"),
    Case(("twilio error=429 code=20429 method=GET",), "SMSServiceFailing", "critical"),
    Case(("twilio down method=GET",), "SMSServiceError", "critical"),
    Case(("twilio account=suspended",), "SMSServiceFailing", "critical"),
    Case(("twilio undelivered=30003", "shop rush=100"), "HighSMSFailureRate", "high", without="sms"),
    Case(("twilio webhooks=forged", "twilio account=closed"), "WebhooksRefused", "medium"),
    Case(("hook error=410", "twilio account=suspended"), "NotificationsDead", "high", without="webhook"),
    Case(("slack refusal=channel_not_found", "twilio balance=1.00"), "NotificationsDead", "high", without="slack"),
    Case(("shop error=500 path=/checkout",), "ProbeFailed", "high"),
    Case(("shop hang path=/health",), "ProbeFailed", "high"),
    Case(("shop latency=1500ms path=/",), "ShopSlow", "medium"),
    Case(("shop down",), "ServiceDown", "critical"),
    Case(("shop error=502 path=/checkout", "shop rush=100"), "ShopErrors", "high"),
    Case((), "InventoryLow", "critical", "inventory", buys="vip", ends=("shop refunds=100%",)),
    Case(("shop oversell",), "InventoryOversold", "high", "inventory", buys="vip", ends=("shop refunds=100%",)),
    Case(("stripe error=500",), "StripeFailing", "high", "payments"),
    Case(("stripe endpoint=disabled",), "StripeWebhookDisabled", "critical", "payments"),
    Case(("stripe webhooks=lost", "shop rush=30"), "StripeWebhookFailures", "critical", "payments"),
    Case(("shop declines=60%", "shop rush=30"), "HighPaymentFailureRate", "high", "payments"),
    Case(("shop unticketed=50%", "shop rush=30"), "PaidWithoutTicket", "high", "payments"),
    Case(("shop unpaid=50%", "shop rush=30"), "TicketWithoutPayment", "high", "payments"),
    Case(("shop unconfirmed=50%", "shop rush=30"), "ConfirmationMissing", "medium", "payments"),
    Case(("stripe payouts=fail",), "StripePayoutFailed", "high", "payments"),
    Case(("stripe disputes=5%",), "StripeDisputeDue", "high", "payments"),
)

CONFIGURATION = """
[checks.system]
enabled = false
[checks.payments]
window = "20s"
final_after = "5s"
undelivered_after = "10s"
[checks.ledger]
interval = "2s"
timeout = "2s"
ticket_within = "10s"
payment_within = "20s"
confirmation_within = "10s"
[checks.storefront]
interval = "4s"
timeout = "4s"
deadline = "3s"

# Windows are shorter than the defaults, so that ends come soon.
[[rules]]
name = "ProbeFailed"
for = "0s"
[[rules]]
name = "ServiceDown"
for = "0s"
[[rules]]
name = "HighSMSFailureRate"
expr = '''
sum(increase(twilio_messages_total{status=~"failed|undelivered",origin=""}[20s]))
  / sum(increase(twilio_messages_total{status=~"sent|failed|undelivered",origin=""}[20s])) > 0.1'''
[[rules]]
name = "WebhooksRefused"
expr = 'sum by (inbound) (increase(sixfbd_inbound_requests_total{job="",outcome="refused"}[20s])) > 2'
[[rules]]
name = "NotificationsDead"
expr = 'increase(sixfbd_notifications_dead_total{job=""}[20s]) > 0'
[[rules]]
name = "StripePayoutFailed"
expr = 'increase(stripe_payouts_total{status="failed"}[20s]) > 0'
[[rules]]
name = "ShopSlow"
expr = 'max(probe_duration_seconds{check="storefront"}) > 1'
severity = "medium"
annotations = {summary = "The shop takes {{ $value }} s to answer"}
[[rules]]
name = "ShopErrors"
expr = '''
sum(increase(http_requests_total{status=~"5.."}[20s])) / sum(increase(http_requests_total[20s])) > 0.05
  and sum(increase(http_requests_total[20s])) >= 60'''
severity = "high"
annotations = {summary = "{{ $value | humanizePercentage }} of the shop's answers are errors"}
"""


def line(*cells: object) -> str:
    return "{:52} {:22} {:9} {:>7} {:>7}  {}".format(*map(str, cells))


@pytest.mark.timeout(60 + 400 * FAULTS)
def test_each_fault_is_told_to_the_right_people_and_its_end_too(daemon, sandbox, wait):
    daemon.add("60-test.toml", CONFIGURATION)
    sandbox.start()
    daemon.start()
    wait("sms is healthy", lambda: any(c["name"] == "sms" and c["status"] == "healthy" for c in daemon.ctl("checks")))
    table = [line("fault", "alert", "severity", "to page", "to end", "receivers")]
    failed: list[str] = []
    for case in CASES[:FAULTS]:
        try:
            paged_s, resolved_s = play(case, daemon, sandbox, wait)
        except AssertionError as error:  # the table goes on: others may work
            sandbox.ask("clear")
            failed.append(f"{' + '.join(case.faults)}: {error}")
            print(failed[-1], flush=True)
            continue
        people = ", ".join(sorted(f"{channel} {to}" for channel, to in case.receivers))
        what = " + ".join(case.faults) or f"all {case.buys} bought"
        table.append(line(what, case.rule, case.severity, f"{paged_s:.1f}", f"{resolved_s:.1f}", people))
        print(table[-1], flush=True)
    print("\n" + "\n".join(table))
    assert failed == []


def play(case: Case, daemon, sandbox, wait) -> tuple[float, float]:
    """Switch the faults on, wait until everybody was told, off, and again; return the seconds of both."""
    wait(f"{case.rule} is over", lambda: firing(daemon, case.rule) == [], TO_RESOLVE_S, 0.5)
    before = max([0, *(one["number"] for one in sandbox.inbox())])
    began = time.time()
    for fault in case.faults:
        sandbox.ask("fault", *fault.split())
    if case.buys:
        buy_all(sandbox, case.buys)

    def told(status: str) -> dict[tuple[str, str], float]:
        found = sandbox.told(case.rule, status, before)
        return found if set(found) >= case.receivers else {}

    paged = wait(f"{case.rule} is told", lambda: told("FIRING"), TO_PAGE_S, 0.1)
    assert set(paged) == case.receivers, f"{case.rule}: somebody else was told"
    assert {one["severity"] for one in firing(daemon, case.rule)} == {case.severity}
    cleared = time.time()
    sandbox.ask("clear")
    for fault in case.ends:
        sandbox.ask("fault", *fault.split())
    ended = wait(f"the end of {case.rule} is told", lambda: told("RESOLVED"), TO_RESOLVE_S, 0.1)
    sandbox.ask("clear")
    return max(paged.values()) - began, max(ended.values()) - cleared


def firing(daemon, rule: str) -> list[dict[str, Any]]:
    return [one for one in daemon.ctl("alerts") if one["rule"] == rule and one["state"] == "firing"]


def buy_all(sandbox, tier: str) -> None:
    """Buy all tickets of a tier of the first city, and five more if the shop sells them."""
    shop = f"http://{sandbox.ask('status')['listen']['shop']}"
    while True:
        city = httpx.get(f"{shop}/internal/inventory").json()["cities"][0]
        left = city["status"]["publicAvailable"][tier]
        wish = {"cityId": city["cityId"], "tier": tier, "quantity": min(5, left or 5), "email": "ana@example.com"}
        bought = httpx.post(f"{shop}/checkout", json=wish)
        assert bought.status_code == 201 or left == 0, bought.text
        if left == 0:
            return
