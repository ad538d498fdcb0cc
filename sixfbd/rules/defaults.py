"""The engine's own default rules: what it says of itself when a part of it does not work. Plugins bring their own rules.

They read the daemon's own series only, which have no label job: scraped ones of this or another daemon have one.
Every one has the label service="daemon"; `[[rules]]` of the same name changes or drops it, as with a plugin's.
"""

from typing import Final

from sixfbd.model import Rule, RuleName, Severity

WATCHDOG: Final = "Watchdog"
"""Always firing, for a dead man's switch that counts alerts; there only if a route names it, since it tells people nothing."""


PARENT_DOWN: Final = "ParentDown"
"""A check that others depend on is unhealthy: this is told, once, and what depends on it is held."""


PARENT_KEPT_S: Final = 15.0  # its end is told so much later: until then what suffered with it has had time to report


def _rule(
    name: str, expr: str, severity: Severity, summary: str, description: str, keep_firing_for_s: float = 0.0
) -> Rule:
    return Rule(
        name=RuleName(name),
        expr=expr,
        severity=severity,
        labels={"service": "daemon"},
        annotations={"summary": summary, "description": description},
        keep_firing_for_s=keep_firing_for_s,
        origin="engine",
    )


ENGINE_RULES: Final[tuple[Rule, ...]] = (
    _rule(
        "CheckStale",
        'time() - sixfbd_check_last_seen_timestamp_seconds{job=""} > on(check) sixfbd_check_stale_after_seconds{job=""}',
        Severity.HIGH,
        "Check {{ $labels.check }} has reported nothing for too long",
        "Its last report other than unknown is {{ $value | humanizeDuration }} old: what it watches is not seen.",
    ),
    _rule(
        PARENT_DOWN,
        'max by (check) (sixfbd_check_status{job="",status="unhealthy"}) == 1 and on(check) sixfbd_check_is_parent{job=""} == 1',
        Severity.HIGH,
        "{{ $labels.check }} is unhealthy, and what depends on it cannot be told apart from that",
        "Alerts about checks that depend on it are held for as long; `sixfbctl alerts` shows them. {{ $summary }}",
        PARENT_KEPT_S,
    ),
    _rule(
        "NotificationsDead",
        'round(increase(sixfbd_notifications_dead_total{job=""}[10m])) > 0',
        Severity.HIGH,
        "Notifications could not be delivered and were given up",
        "{{ $value | humanize }} messages were given up in ten minutes; `sixfbctl outbox list` shows them with their errors.",
    ),
    _rule(
        "OutboxStuck",
        'sixfbd_outbox_oldest_age_seconds{job=""} > 600',
        Severity.HIGH,
        "The oldest message has waited for {{ $value | humanizeDuration }}",
        "A message waits in the outbox for more than ten minutes; `sixfbctl outbox list` shows why.",
    ),
    _rule(
        "EscalationUnfinished",
        'sixfbd_escalations_unfinished{job=""} > 0',
        Severity.HIGH,
        "{{ $value | humanize }} escalations have not been finished",
        "Somebody should have been told of what nobody acknowledges, and was not. The log names alert and step "
        "(escalation.unfinished); `sixfbctl why ALERT` says what became of it.",
    ),
    _rule(
        "LoopBlocked",
        'max_over_time(sixfbd_loop_delay_seconds{job=""}[5m]) > 1 unless on() sixfbd_loop_blocked_seconds{job="",plugin!="none"}',
        Severity.MEDIUM,
        "The daemon's loop stood still for {{ $value | humanizeDuration }}",
        "Something held the event loop for more than a second, and no plugin was seen to; the log says where (loop.blocked).",
    ),
    _rule(
        "PluginBlocks",
        'max by (plugin, doing, place) (sixfbd_loop_blocked_seconds{job="",plugin!="none"}) > 0',
        Severity.MEDIUM,
        "Plugin {{ $labels.plugin }} held up the daemon for {{ $value | humanizeDuration }}",
        "It blocked the event loop in {{ $labels.doing }} at {{ $labels.place }}; a plugin waits with await, or in a thread.",
    ),
    _rule(
        "PluginKeptOut",
        'sixfbd_plugin_kept_out{job=""} == 1',
        Severity.HIGH,
        "Plugin {{ $labels.plugin }} is kept out because it blocked the daemon",
        "The daemon had to end for it; `sixfbctl plugins` says where it blocked. Mend it, then: "
        "sixfbctl plugins release {{ $labels.plugin }}",
    ),
    _rule(
        "PluginFailed",
        'sixfbd_plugin_failed{job=""} == 1',
        Severity.MEDIUM,
        "Plugin {{ $labels.plugin }} was left out",
        "Plugin {{ $labels.plugin }} does not load or start; `sixfbd plugins` says what does not match.",
    ),
    _rule(
        "WebhooksFailing",
        'sum by (inbound) (increase(sixfbd_inbound_requests_total{job="",outcome=~"failed|invalid|late"}[10m])) > 0',
        Severity.HIGH,
        "Webhooks of {{ $labels.inbound }} cannot be taken",
        "{{ $value | humanize }} in ten minutes; their provider sends them again, but not for ever. The log says why "
        "(inbound.not_taken).",
    ),
    _rule(
        "WebhooksRefused",
        'sum by (inbound) (increase(sixfbd_inbound_requests_total{job="",outcome="refused"}[1h])) > 2 unless on(inbound) '
        'sum by (inbound) (increase(sixfbd_inbound_requests_total{job="",outcome=~"accepted|duplicate"}[1h])) > 0',
        Severity.MEDIUM,
        "All webhooks of {{ $labels.inbound }} are refused",
        "{{ $value | humanize }} in an hour: has the secret been changed, or is [http.public] url not what the provider "
        "calls? The log says why (inbound.not_taken).",
    ),
    _rule(
        "RuleFailing",
        'increase(sixfbd_rule_evaluation_failures_total{job=""}[10m]) > 0',
        Severity.MEDIUM,
        "Rule {{ $labels.rule }} cannot be evaluated",
        "Evaluations of rule {{ $labels.rule }} failed in the last ten minutes: it cannot alert while they do.",
    ),
    _rule(
        "DrillFailed",
        'max by (drill, receiver, notifier) (sixfbd_drill_failed{job=""}) == 1',
        Severity.HIGH,
        "A drill did not reach {{ $labels.receiver }} through {{ $labels.notifier }}",
        "What is wrong there would keep alerts from {{ $labels.receiver }} too; `sixfbctl outbox list` shows what became of the "
        "message. It ends when a drill has arrived: sixfbctl drill {{ $labels.receiver }}",
    ),
    _rule(
        "TemplateFailing",
        'increase(sixfbd_template_failures_total{job=""}[10m]) > 0',
        Severity.MEDIUM,
        "Template {{ $labels.template }} fails: its messages are sent in plain words",
        "The log says what it does amiss, and with which alert or notice (template.failed); `sixfbd template preview` shows it.",
    ),
    _rule(
        "HeartbeatWithheld",
        'min_over_time(sixfbd_heartbeat_withheld{job=""}[5m]) == 1',
        Severity.HIGH,
        "No heartbeat has reached the dead man's switch for five minutes",
        "The switch will tell somebody; `sixfbctl status` says what is missing to the proof that the daemon works.",
    ),
    _rule(
        WATCHDOG,
        "vector(1)",
        Severity.LOW,
        "This alert always fires: it shows that alerts arrive",
        'If it ceases to arrive, alerts do not. It is there once a route names it: alertname="Watchdog".',
    ),
    _rule(
        "JournalVolatile",
        'sixfbd_journal_volatile{job=""} == 1',
        Severity.CRITICAL,
        "The journal cannot be written: what is decided is in memory only",
        "Events and commands are refused, and a restart would forget what was decided; `sixfbctl status` says why.",
    ),
    _rule(
        "StateDamaged",
        'sixfbd_state_damaged{job=""} == 1',
        Severity.HIGH,
        "{{ $labels.file }} was damaged: something is lost",
        "What could be read was saved; `sixfbctl status` says what was not. It ends when the damaged copy is removed from "
        "the state directory and the daemon was started again.",
    ),
    _rule(
        "SamplesNotWritten",
        'sixfbd_samples_unwritten{job=""} == 1',
        Severity.HIGH,
        "Samples are not written to the disk",
        "A restart would lose those since; on a full disk what is left is kept for events and alerts. "
        "`sixfbctl journal status` says why.",
    ),
    _rule(
        "SamplesDropped",
        'increase(sixfbd_samples_dropped_total{job=""}[10m]) > 0',
        Severity.MEDIUM,
        "Samples were dropped",
        "Samples were not kept in the last ten minutes; `sixfbctl journal status` and the log say why.",
    ),
)
