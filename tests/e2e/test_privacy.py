"""What names people is in no file, log or answer of a daemon that was told of them; and a customer can be forgotten."""

import json
from pathlib import Path
from typing import Any

import httpx

PEOPLE = {
    "customer id": "jane-4711",
    "name": "Jane Quigley",
    "e-mail": "jane.quigley@example.com",
    "phone": "+1 352 555 0123",
    "address": "192.0.2.77",
    "program": "QuigleyBrowser/7",
    "street": "12 Quigley Lane",
    "query": "quigley-token",
}
PAGES = (
    "/", "/metrics", "/api/metrics", "/api/events?limit=1000", "/api/alerts", "/api/health", "/api/monitoring/business",
    "/api/monitoring/performance", "/api/monitoring/payments", "/api/monitoring/ledger", "/reports/business", "/reports/ledger",
    "/api/v1/series?match[]={__name__=~\".%2B\"}",
)  # fmt: skip


def told(daemon: Any, *events: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(
        f"{daemon.url}/api/events", json=list(events), headers={"Authorization": f"Bearer {daemon.token}"}, timeout=10
    )
    assert answer.status_code == 200 and answer.json()["data"]["refused"] == [], answer.text
    return dict(answer.json()["data"])


def sale(order: str, customer: str) -> dict[str, Any]:
    buyer = {"name": PEOPLE["name"], "email": PEOPLE["e-mail"], "address": {"street": PEOPLE["street"]}}
    data = {"orderId": order, "cityId": "dallas", "tier": "ga", "quantity": 2, "amount": 5000, "currency": "USD"}
    return {"type": "ticket_sale", "data": {**data, "customerId": customer, "phone": PEOPLE["phone"], "buyer": buyer}}


def holding(folder: Path, text: str) -> list[str]:
    return [file.name for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def test_what_names_people_is_in_no_file_log_or_answer(daemon, receiver, wait):
    daemon.tell(receiver.url)
    daemon.start()
    request = {"path": f"/orders?token={PEOPLE['query']}", "method": "GET", "statusCode": 500, "duration": 9000}
    answers = [
        told(
            daemon,
            sale("o-1", PEOPLE["customer id"]),
            sale("o-2", PEOPLE["customer id"]),
            {"type": "request", "data": {**request, "ip": PEOPLE["address"], "userAgent": PEOPLE["program"]}},
            {"type": "system_error", "data": {"message": f"mail to {PEOPLE['e-mail']} failed", "service": "mail"}},
            {"type": "payment_failed", "data": {"orderId": "o-3", "reason": f"card of {PEOPLE['e-mail']} declined"}},
            {"type": "of_another_plugin", "data": {"contact": {"name": PEOPLE["name"], "tel": PEOPLE["phone"]}}},
        )
    ]
    wait("the sales are told", lambda: len(receiver.payloads()) >= 2)
    shown = [httpx.get(f"{daemon.url}{page}", timeout=10).text for page in PAGES]
    shown += [json.dumps(answers), json.dumps(receiver.payloads()), daemon.run_ctl("events", "--limit", "50").stdout]
    shown.append(daemon.run_ctl("journal", "export").stdout)
    returning = httpx.get(f"{daemon.url}/api/monitoring/business", timeout=10).json()["data"]["customers"]
    assert returning["returningCustomers"] == 1, "the same customer is still known as the same"
    assert "cust_" in shown[3] and "…0123" in shown[3], "what is kept of them"
    daemon.stop()
    for what, text in PEOPLE.items():
        assert not [page for page, said in zip((*PAGES, *"abcd"), shown, strict=True) if text in said], what
        assert holding(daemon.directory, text) == [], what


def test_a_customer_is_forgotten_in_every_file_and_sums_stay_as_they_are(daemon):
    daemon.start()
    told(daemon, sale("o-1", "jane"), sale("o-2", "jane"), sale("o-3", "john"))
    events = httpx.get(f"{daemon.url}/api/events?type=ticket_sale", timeout=10).json()["data"]["events"]
    jane, john = {one["data"]["orderId"]: one["data"]["customerId"] for one in events}["o-1"], events[-1]["data"]
    assert holding(daemon.directory, jane)
    before = httpx.get(f"{daemon.url}/api/monitoring/business", timeout=10).json()["data"]["sales"]
    daemon.ctl("journal", "backup", str(daemon.directory / "state" / "journal.db.kept"))
    would = daemon.run_ctl("journal", "erase", "customer=jane", "--dry-run")
    assert would.stdout.startswith("would be erased in 2 events\n")
    assert daemon.run_ctl("journal", "erase", "email=jane@example.com").returncode == 1
    done = daemon.ctl("journal", "erase", "customer=jane", "--yes")
    assert (done["events"], done["done"]) == (2, True)
    assert done["not_reached"] == [str(daemon.directory / "state" / "journal.db.kept")]
    (daemon.directory / "state" / "journal.db.kept").unlink()
    assert holding(daemon.directory, jane) == []
    assert "jane" not in daemon.log.read_text() and "jane" not in daemon.run_ctl("journal", "export").stdout
    assert httpx.get(f"{daemon.url}/api/monitoring/business", timeout=10).json()["data"]["sales"] == before
    assert daemon.ctl("journal", "erase", "customer=jane", "--yes")["events"] == 0
    daemon.stop()
    daemon.start()
    events = httpx.get(f"{daemon.url}/api/events?type=ticket_sale", timeout=10).json()["data"]["events"]
    assert sorted(one["data"]["customerId"] for one in events) == sorted([john["customerId"], "erased", "erased"])
    assert daemon.ctl("journal", "verify")["problems"] == []
    told(daemon, sale("o-4", "jane"))
    assert holding(daemon.directory, jane), "who comes again is known again"
