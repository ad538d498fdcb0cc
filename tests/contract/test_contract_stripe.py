"""Stripe: what the check asks fits Stripe's document, and what the double answers is what the document says.

The document is of 2023, the double's shapes are of 2026 (`stripe_objects.json`): DIFFERENCES has what lies between them.
"""

import httpx
import pytest

from sixfbd.plugin import DAY
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.stripe import Try
from tests.contract.documents import Exchange
from tests.integration.stripe.conftest import Kit
from tests.provider_kit import InProcess, ManualClock

PROVIDER = "stripe"
ASKED = {f"GET /v1/{name}" for name in ("balance", "disputes", "events", "webhook_endpoints")}
DIFFERENCES = [
    f"GET /v1/disputes 200: data.[].{name} is not named"
    for name in (
        "enhanced_eligibility_types",
        "evidence.enhanced_evidence",
        "evidence_details.enhanced_eligibility",
        "payment_method_details.card.case_type",
        "payment_method_details.card.network",
    )
]

pytestmark = pytest.mark.xdist_group("providers")  # one Prism for each, of all of them


@pytest.fixture
async def life(listening):
    """What is said between the check and the double while everything happens that can."""
    clock = ManualClock(Kit.BEGAN)
    double = Kit.double(clock.now)
    double.add_endpoint("https://hooks.example.com/webhooks/stripe", Kit.SIGNING)
    for _ in range(70):
        double.pay(1000, "usd", (Try(0.0, "failed", "do_not_honor"), Try(9.0, "authorized"), Try(20.0, "captured")))
    bare = double.pay(500, "jpy", (Try(0.0, "succeeded"),), bare=True)
    double.pay(1, "eur", (Try(0.0, "processing"), Try(5.0, "canceled")))
    clock.at += 30
    double.advance()
    for number in range(120):
        double.dispute(bare, clock.at + DAY + number, inquiry=number % 2 == 0)
    double.refund(bare, 1, fails=True)
    double.pay_out(1, "usd", fails=True)
    said = listening(InProcess(double))
    check = Kit.check(said, clock, inbound="stripe")
    for faults in ([], [Fault(error=429, path="events")], [Fault(error=500)], [Fault(error=400, path="events")], []):
        double.faults = faults
        clock.at += 1800
        await Kit.run_through(check, cursor=None)
    return said.exchanges


def test_a_request_that_does_not_fit_the_document_is_noticed(contract):
    def asked(path):
        return Exchange(httpx.Request("GET", f"http://x{path}", headers={"authorization": "Bearer x"}), None)

    assert contract.requests([asked("/v1/events?limit=100&created[gte]=1&delivery_success=false")]) == []
    for wrong, words in (
        (asked("/v1/events?limit=many"), "limit must be integer"),
        (asked("/v1/events?delivery_succes=false"), "query delivery_succes"),
        (asked("/v1/event"), "no operation GET /v1/event"),
    ):
        assert any(words in fault for fault in contract.requests([wrong])), contract.requests([wrong])


async def test_everything_that_the_check_asks_fits_the_document(contract, life):
    assert contract.requests(life) == []
    assert contract.asked(life) == ASKED


async def test_what_the_double_answers_differs_from_the_document_only_where_stripe_has_changed_since(contract, life):
    assert contract.answers(life) == DIFFERENCES
