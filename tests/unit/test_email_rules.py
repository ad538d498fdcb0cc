"""The default rules of e-mail (SEED S19): when each holds and what it says, on series by hand."""

import subprocess
import sys

import pytest

from sixfbd.promql import Stop
from sixfbd.rules import bind_rules, evaluate_rule
from sixfbd.rules.evaluate import level_of, render_annotations
from sixfbd_plugins.checks.email import RULES


@pytest.mark.parametrize(("failures", "severity"), [(1, "medium"), (2, "medium"), (3, "high")])
def test_a_failure_is_medium_and_the_third_in_a_row_high(snapshot_of, failures, severity):
    rule = bind_rules(RULES).rule("EmailServiceFailing")
    [found] = evaluate_rule(rule, snapshot_of(f'email_service_failures{{check="email"}} {failures}'), 0.0, Stop()).found
    assert str(level_of(rule, found.value, None)) == severity
    text = render_annotations(rule, dict(found.labels), found.value, "why")["summary"]
    assert text == "Email service health check failed: why"


def test_nothing_is_said_while_all_is_well(snapshot_of):
    bound = bind_rules(RULES)
    assert not bound.errors
    rule = bound.rule("EmailServiceFailing")
    assert evaluate_rule(rule, snapshot_of('email_service_failures{check="email"} 0'), 0.0, Stop()).found == ()


def test_only_who_is_configured_pays_for_the_sdk():
    code = (
        "import sys, sixfbd_plugins.checks.email, sixfbd_plugins.notifiers.email, sixfbd_plugins.inbound.sendgrid\n"
        "assert not {name for name in sys.modules if name.split('.')[0] in ('sendgrid', 'cryptography')}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
