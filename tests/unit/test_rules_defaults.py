"""The engine's own rules on the series that its vitals report: each fires on its fault and is silent without it."""

from collections.abc import Callable
from typing import Any

import pytest

from sixfbd.promql import Stop
from sixfbd.rules import bind_rules
from sixfbd.rules.defaults import ENGINE_RULES, WATCHDOG
from sixfbd.rules.evaluate import evaluate_rule
from sixfbd.vitals import DOCS

Make = Callable[..., Any]
SEEN = 'sixfbd_check_last_seen_timestamp_seconds{check="web"}'
STALE = 'sixfbd_check_stale_after_seconds{check="web"}'

FAULTS = {
    "CheckStale": (f"{SEEN} 0 0 0 0\n{STALE} 150 150 150 150", f"{SEEN} 100 100 100 100\n{STALE} 150 150 150 150"),
    "ParentDown": (
        'sixfbd_check_status{check="net",status="unhealthy"} 0 0 0 1\nsixfbd_check_is_parent{check="net"} 1 1 1 1',
        'sixfbd_check_status{check="net",status="unhealthy"} 1 1 1 1\nsixfbd_check_is_parent{check="other"} 1 1 1 1',
    ),
    "NotificationsDead": ("sixfbd_notifications_dead_total 0 0 1 1", "sixfbd_notifications_dead_total 1 1 1 1"),
    "OutboxStuck": ("sixfbd_outbox_oldest_age_seconds 0 0 0 601", "sixfbd_outbox_oldest_age_seconds 0 0 0 599"),
    "EscalationUnfinished": ("sixfbd_escalations_unfinished 0 0 0 1", "sixfbd_escalations_unfinished 1 1 1 0"),
    "LoopBlocked": ("sixfbd_loop_delay_seconds 0 2 0 0", "sixfbd_loop_delay_seconds 0 0.5 0 0"),
    "PluginBlocks": (
        'sixfbd_loop_blocked_seconds{plugin="p",doing="check c",place="p.py:3"} _ _ _ 0.7',
        'sixfbd_loop_blocked_seconds{plugin="none",place="judge.py:3"} _ _ _ 0.7',
    ),
    "PluginKeptOut": ('sixfbd_plugin_kept_out{plugin="p"} 0 0 0 1', 'sixfbd_plugin_kept_out{plugin="p"} 0 0 0 0'),
    "PluginFailed": ('sixfbd_plugin_failed{plugin="p"} 0 0 0 1', 'sixfbd_plugin_failed{plugin="p"} 0 0 0 0'),
    "WebhooksFailing": (
        'sixfbd_inbound_requests_total{inbound="shop",outcome="failed"} 0 0 1 1',
        'sixfbd_inbound_requests_total{inbound="shop",outcome="unavailable"} 0 0 9 9',
    ),
    "WebhooksRefused": (
        'sixfbd_inbound_requests_total{inbound="shop",outcome="refused"} 0 0 9 9\n'
        'sixfbd_inbound_requests_total{inbound="shop",outcome="accepted"} 7 7 7 7',
        'sixfbd_inbound_requests_total{inbound="shop",outcome="refused"} 0 0 9 9\n'
        'sixfbd_inbound_requests_total{inbound="shop",outcome="duplicate"} 7 7 7 8',
    ),
    "RuleFailing": (
        'sixfbd_rule_evaluation_failures_total{rule="r"} 0 0 0 3',
        'sixfbd_rule_evaluation_failures_total{rule="r"} 3 3 3 3',
    ),
    "DrillFailed": (
        'sixfbd_drill_failed{drill="weekly",receiver="primary",notifier="hook"} 0 0 0 1',
        'sixfbd_drill_failed{drill="weekly",receiver="primary",notifier="hook"} 1 1 1 0',
    ),
    "TemplateFailing": (
        'sixfbd_template_failures_total{template="firing.text"} 0 0 0 3',
        'sixfbd_template_failures_total{template="firing.text"} 3 3 3 3',
    ),
    "HeartbeatWithheld": ("sixfbd_heartbeat_withheld 1 1 1 1", "sixfbd_heartbeat_withheld 1 1 0 1"),
    "JournalVolatile": ("sixfbd_journal_volatile 0 0 0 1", "sixfbd_journal_volatile 1 1 1 0"),
    "StateDamaged": ('sixfbd_state_damaged{file="f"} 0 0 0 1', 'sixfbd_state_damaged{file="f"} 0 0 0 0'),
    "SamplesNotWritten": ("sixfbd_samples_unwritten 0 0 0 1", "sixfbd_samples_unwritten 1 1 1 0"),
    "SamplesDropped": ("sixfbd_samples_dropped_total 0 0 9 9", "sixfbd_samples_dropped_total 9 9 9 9"),
}
NOW = 3 * 60 + 1.0


@pytest.mark.parametrize("name", [rule.name for rule in ENGINE_RULES if rule.name != WATCHDOG])
def test_an_engine_rule_fires_on_its_fault_and_only_then(name: str, snapshot_of: Make) -> None:
    bound = bind_rules(ENGINE_RULES)
    assert bound.errors == ()
    faulty, fine = FAULTS[name]
    found = [evaluate_rule(bound.rule(name), snapshot_of(text), NOW, Stop.within(5)).found for text in (faulty, fine)]
    assert [len(labels) for labels in found] == [1, 0]


def test_an_engine_rule_reads_only_series_that_the_vitals_report() -> None:
    bound = bind_rules(ENGINE_RULES)
    read = {metric for name in bound.names for metric in bound.rule(name).query.metrics}
    assert read <= DOCS.keys()
