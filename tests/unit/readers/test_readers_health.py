"""/api/health as a function of the checks' last reports."""

import pytest

from sixfbd.model import CheckName, CheckState, Status
from sixfbd.readers.health import health_body, iso_time

NOW = 1_800_000_000.0


def check(name, status=Status.HEALTHY, **facts):
    facts = {"service": name, "last_run_at": NOW - 1, "duration_s": 0.0123, "summary": "fine", **facts}
    return CheckState(CheckName(name), "p", 60.0, status=status, **facts)


def body(*checks, services=(), externals=(), failing="", disk=(), blind_s=None):
    return health_body(
        checks,
        services,
        externals,
        journal_failing=failing,
        disk_problems=disk,
        blind_before_start_s=blind_s,
        now=NOW,
        started_at=NOW - 60,
        version="1",
        timestamp="t",
        metrics={},
    )


def statuses(found):
    return {name: one["status"] for name, one in found["services"].items()}


def test_what_is_declared_and_has_no_check_is_not_configured_and_spoils_nothing():
    found = body(services={"sms"}, externals={"twilio"})
    assert statuses(found) == {"database": "healthy", "sms": "not_configured"}
    assert found["external"] == {"twilio": {"status": "not_configured", "checkedAt": None}}
    assert (found["status"], found["uptime"]) == ("healthy", 60.0)


def test_a_service_says_when_it_was_looked_at_and_how_long_that_took():
    assert body(check("web"))["services"]["web"] == {
        "status": "healthy",
        "summary": "fine",
        "checkedAt": "2027-01-15T07:59:59.000Z",
        "responseTime": 12.3,
    }


@pytest.mark.parametrize(
    ("bad", "whole"), [(0, "healthy"), (1, "degraded"), (2, "degraded"), (3, "unhealthy"), (4, "unhealthy")]
)
def test_the_whole_is_as_bad_as_the_number_of_bad_services_says(bad, whole):
    checks = [check(f"s{n}", Status.UNHEALTHY if n < bad else Status.HEALTHY) for n in range(5)]
    assert body(*checks)["status"] == whole


def test_of_several_checks_of_a_service_the_worst_counts():
    found = body(
        check("a", service="web"), check("b", Status.DEGRADED, service="web"), check("c", Status.UNKNOWN, service="web")
    )
    assert statuses(found)["web"] == "degraded"


@pytest.mark.parametrize(("waited_s", "whole"), [(120.0, "healthy"), (120.1, "degraded")])
def test_a_check_that_has_not_reported_yet_is_unknown_and_counts_after_two_intervals(waited_s, whole):
    found = body(check("web", Status.UNKNOWN, awaited_since=NOW - waited_s))
    assert (statuses(found)["web"], found["status"]) == ("unknown", whole)


def test_a_journal_that_fails_makes_all_unhealthy_whoever_claims_the_database():
    found = body(check("database"), failing="no space left")
    assert found["services"]["database"]["summary"] == "no space left"
    assert found["status"] == "unhealthy"


def test_a_check_may_claim_the_database():
    assert statuses(body(check("database", Status.DEGRADED)))["database"] == "degraded"


def test_a_problem_of_the_disk_hides_no_worse_one_of_the_check_that_claims_the_database():
    assert statuses(body(check("database", Status.UNHEALTHY), disk=["a copy lies aside"]))["database"] == "unhealthy"
    assert statuses(body(check("database"), disk=["a copy lies aside"]))["database"] == "degraded"


@pytest.mark.parametrize(("reachable", "said"), [(None, "unknown"), (True, "reachable"), (False, "unreachable")])
def test_an_external_is_reachable_if_the_check_reached_it(reachable, said):
    found = body(check("web", external="stripe", reachable=reachable), check("b", external="stripe", reachable=True))
    assert found["external"]["stripe"]["status"] == said


def test_a_time_is_shown_to_the_millisecond_and_carries_over():
    assert iso_time(None) is None
    assert iso_time(NOW + 0.9996) == "2027-01-15T08:00:01.000Z"
    assert iso_time(NOW + 0.0014) == "2027-01-15T08:00:00.001Z"


def test_a_problem_of_the_disk_degrades_the_database_and_a_gap_is_shown_in_seconds():
    found = body(disk=("samples cannot be written: full",), blind_s=12.3456)
    assert found["services"]["database"]["status"] == found["status"] == "degraded"
    assert found["services"]["database"]["summary"] == "samples cannot be written: full"
    assert found["blindBeforeStart"] == 12.346
    assert body()["blindBeforeStart"] is None
