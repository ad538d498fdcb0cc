"""The default rules of e-mail (SEED S19): when each holds and what it says, on series by hand."""

import subprocess
import sys

import pytest

from sixfbd.rules import bind_rules
from sixfbd_plugins.checks.email import RULES
from tests import rules_kit


@pytest.mark.parametrize(("failures", "severity"), [(1, "medium"), (2, "medium"), (3, "high")])
def test_a_failure_is_medium_and_the_third_in_a_row_high(snapshot_of, failures, severity):
    snapshot = snapshot_of(f'email_service_failures{{check="email"}} {failures}')
    found = rules_kit.found(bind_rules(RULES), "EmailServiceFailing", snapshot, 0.0)
    assert found == [(failures, severity, "Email service health check failed: why")]


def test_nothing_is_said_while_all_is_well(snapshot_of):
    bound = bind_rules(RULES)
    assert not bound.errors
    snapshot = snapshot_of('email_service_failures{check="email"} 0')
    assert rules_kit.found(bound, "EmailServiceFailing", snapshot, 0.0) == []


def test_only_who_is_configured_pays_for_the_sdk():
    code = (
        "import sys, sixfbd_plugins.checks.email, sixfbd_plugins.notifiers.email, sixfbd_plugins.inbound.sendgrid\n"
        "assert not {name for name in sys.modules if name.split('.')[0] in ('sendgrid', 'cryptography')}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
