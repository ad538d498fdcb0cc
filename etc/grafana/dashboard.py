"""Writes the Grafana dashboard: `.venv/bin/python etc/grafana/dashboard.py > etc/grafana/sixfbd.json`.

Its panels ask for the metrics that SEED S20 and S21 name, and for those of the checks. What a daemon without trouble has
no series for is 0, so that no panel is empty for want of faults.
"""

import sys
from collections.abc import Sequence

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
BAD_FROM_1 = ((None, "green"), (1.0, "red"))
GOOD_FROM_1 = ((None, "red"), (1.0, "green"))

Query = str | tuple[str, str]
"""A PromQL expression, and what its series are called: a name, or a template of their labels."""
Steps = Sequence[tuple[float | None, str]]
Panel = timeseries.Panel | stat.Panel | table.Panel


def target(query: Query, letter: str = "A") -> prometheus.Dataquery:
    expression, legend = (query, "") if isinstance(query, str) else query
    made = prometheus.Dataquery().expr(expression).ref_id(letter).datasource(SOURCE)
    return made.legend_format(legend) if legend else made


def graph(title: str, unit: str, *queries: Query, about: str = "") -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    panel = timeseries.Panel().title(title).description(about).unit(unit).datasource(SOURCE)
    panel = panel.height(8).span(8).min(0).fill_opacity(8).legend(legend.show_legend(True))
    for number, query in enumerate(queries):
        panel = panel.with_target(target(query, chr(ord("A") + number)))
    return panel


def stand(title: str, query: Query, steps: Steps = ((None, "green"),), width: int = 4) -> stat.Panel:
    """The last value of each series, in the colour of the highest of `steps` that it reaches."""
    thresholds = dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE)
    thresholds = thresholds.steps([Threshold(value=value, color=color) for value, color in steps])
    last = common.ReduceDataOptions().calcs(["lastNotNull"])
    panel = stat.Panel().title(title).datasource(SOURCE).height(4).span(width)
    return panel.thresholds(thresholds).reduce_options(last).with_target(target(query))


def listing(title: str, query: str) -> table.Panel:
    asked = target(query).format(PromQueryFormat.TABLE).instant()
    return table.Panel().title(title).datasource(SOURCE).height(8).span(8).with_target(asked)


def or_zero(expression: str) -> str:
    return f"{expression} or vector(0)"


def or_nothing(expression: str) -> str:
    """What is not known without its check is not 0: a panel of NaN shows nothing."""
    return f"{expression} or vector(NaN)"


def rows() -> dict[str, list[Panel]]:
    return {
        "At a glance": [
            stand("System Health", ("up", "{{job}} {{instance}}"), GOOD_FROM_1, 6),
            stand("Checks not well", 'sum(sixfbd_check_status{status=~"degraded|unhealthy"})', BAD_FROM_1, 4),
            stand("Ticket Sales", ("increase(workshop_tickets_sold_total[1h])", "{{type}} in an hour"), width=5),
            stand("Revenue", ("workshop_revenue_total", "{{currency}}"), width=5),
            stand("Tickets left", "sum(inventory_tickets_available)", GOOD_FROM_1),
        ],
        "Sales and inventory": [
            graph("Tickets sold in an hour", "short", ("increase(workshop_tickets_sold_total[1h])", "{{type}}")),
            graph("Revenue in an hour", "short", ("increase(workshop_revenue_total[1h])", "{{currency}}")),
            listing("Inventory Status", "inventory_tickets_available"),
            graph("Tickets left", "short", ("inventory_tickets_available", "{{city}} {{type}}")),
            graph(
                "Hours until sold out",
                "h",
                ("inventory_hours_until_sellout", "{{city}}"),
                about="Tickets left, divided by those sold an hour in the last 24 hours.",
            ),
            graph("Tickets an hour", "short", ("inventory_tickets_per_hour", "{{city}}")),
        ],
        "Orders and expected sales": [
            graph("Orders that do not add up", "short", (or_zero("ledger_mismatches"), "{{kind}}")),
            graph("Orders within the ledger's window", "short", (or_zero("ledger_orders"), "{{state}}")),
            graph(
                "Orders an hour",
                "short",
                (or_zero("sum(increase(workshop_orders_total[1h]))"), "sold"),
                (or_nothing("sales_usual_orders_per_hour"), "usual at this hour of the week"),
            ),
            graph(
                "Chance that sales pause for so long",
                "percentunit",
                (or_nothing("sales_pause_chance"), "chance"),
                (or_nothing("sales_pause_chance_limit"), "limit"),
                about="Below the limit, something is wrong rather than quiet.",
            ),
            graph("At risk an hour", "short", (or_zero("sales_at_risk_per_hour"), "{{currency}}")),
            graph(
                "Forecast: hours until sold out",
                "h",
                (or_nothing("inventory_forecast_hours"), "{{city}} {{quantile}}"),
            ),
            graph(
                "Forecasts that held the truth, share",
                "percentunit",
                (or_nothing("inventory_forecasts_covered_total / sum(inventory_forecasts_scored_total)"), "of 80 %"),
                about="Nothing until a city has sold out; intervals are of 80 %.",
            ),
        ],
        "Payments": [
            graph(
                "Payments in 15 minutes",
                "short",
                ("increase(payments_attempted_total[15m])", "attempted"),
                (or_zero("increase(payments_failed_total[15m])"), "failed"),
            ),
            graph("Failed payments, share", "percentunit", ("stripe_payment_failure_ratio", "failed")),
            graph(
                "Failed attempts in 15 minutes",
                "short",
                (or_zero("sum by (kind, reason) (increase(stripe_attempts_failed_total[15m]))"), "{{kind}} {{reason}}"),
            ),
            graph("Balance in minor units", "short", ("stripe_balance_minor", "{{currency}} {{state}}")),
            graph("Stripe answers within", "s", ("stripe_api_latency_seconds", "balance")),
            stand("Disputes open", "stripe_disputes_open", ((None, "green"), (1.0, "orange"))),
            stand("Webhooks missing", "stripe_webhooks_missing", BAD_FROM_1),
        ],
        "Messages": [
            graph(
                "SMS of the account in an hour",
                "short",
                ("sum by (status) (increase(twilio_messages_total[1h]))", "{{status}}"),
            ),
            graph(
                "Our own SMS in an hour",
                "short",
                ("increase(sms_notifications_sent_total[1h])", "sent"),
                ("increase(sms_notifications_failed_total[1h])", "failed"),
            ),
            graph(
                "Notifications in an hour",
                "short",
                (
                    or_zero("sum by (notifier, outcome) (increase(sixfbd_notification_attempts_total[1h]))"),
                    "{{notifier}} {{outcome}}",
                ),
            ),
            graph(
                "Providers answer within",
                "s",
                ("sms_service_latency_seconds", "SMS"),
                ("email_service_latency_seconds", "email"),
            ),
            graph("Outbox", "short", ("sixfbd_outbox_messages", "{{state}}")),
            stand("Twilio balance", ("twilio_balance", "{{currency}}"), ((None, "red"), (10.0, "green"))),
        ],
        "The shop": [
            graph("Requests a second", "reqps", ("sum by (status) (rate(http_requests_total[5m]))", "{{status}}")),
            graph(
                "Errors, share of requests",
                "percentunit",
                (
                    or_zero('sum(rate(http_requests_total{status=~"5.."}[5m])) / sum(rate(http_requests_total[5m]))'),
                    "5xx",
                ),
            ),
            graph(
                "Slow requests in an hour",
                "short",
                (or_zero("sum by (path) (increase(http_slow_requests_total[1h]))"), "{{path}}"),
            ),
            graph("Answered within", "s", ("http_request_duration_seconds", "{{quantile}}")),
            graph(
                "Errors in logs in an hour",
                "short",
                (or_zero("sum by (log, pattern) (increase(log_errors_total[1h]))"), "{{log}} {{pattern}}"),
            ),
            graph("Heap of Node.js", "bytes", (or_zero("nodejs_memory_heap_used_bytes"), "used")),
            graph("Probes that succeed", "short", ("probe_success", "{{instance}}")),
            graph("Probes take", "s", ("probe_duration_seconds", "{{instance}}")),
        ],
        "The machine": [
            graph(
                "In use",
                "percentunit",
                ("system_cpu_usage_ratio", "CPU"),
                ("system_memory_usage_ratio", "memory"),
                ("system_filesystem_usage_ratio", "{{mountpoint}}"),
            ),
            graph("Load", "short", ("node_load1", "1 min"), ("node_load5", "5 min"), ("system_cpus", "CPUs")),
            graph(
                "Network",
                "Bps",
                ("sum(rate(node_network_receive_bytes_total[5m]))", "received"),
                ("sum(rate(node_network_transmit_bytes_total[5m]))", "sent"),
            ),
        ],
        "The daemon": [
            graph("Checks take", "s", ("sixfbd_check_duration_seconds", "{{check}}")),
            graph(
                "Runs of checks in an hour that were",
                "short",
                ("sum(increase(sixfbd_check_late_runs_total[1h]))", "late"),
                ("sum(increase(sixfbd_check_timeouts_total[1h]))", "cut off"),
                ("sum(increase(sixfbd_check_crashes_total[1h]))", "crashed"),
            ),
            graph("Events a second", "short", ("sum by (type) (rate(sixfbd_events_total[5m]))", "{{type}}")),
            graph(
                "Loop and journal",
                "s",
                ("sixfbd_loop_delay_seconds", "loop delay"),
                ("sixfbd_journal_commit_seconds", "commit"),
            ),
            graph("Jobs that are late", "s", (or_zero("heartbeat_late_seconds > 0"), "{{job}}")),
            graph("Remote write is behind", "s", (or_nothing("remote_write_lag_seconds"), "{{check}}")),
            graph(
                "Personal fields not kept in an hour",
                "short",
                ("sum by (action) (increase(sixfbd_personal_fields_total[1h]))", "{{action}}"),
            ),
            graph("Memory", "bytes", ("sixfbd_resident_memory_bytes", "resident")),
            graph("Free on disk", "bytes", ("sixfbd_disk_free_bytes", "state directory")),
        ],
    }


def build() -> str:
    """Return the dashboard as Grafana imports it."""
    made = dashboard.Dashboard("6FB Workshop Monitoring").uid("sixfbd").tags(["sixfbd"]).timezone("browser")
    made = made.refresh("30s").time("now-24h", "now").tooltip(DashboardCursorSync.CROSSHAIR)
    made = made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    for title, panels in rows().items():
        made = made.with_row(dashboard.Row(title))
        for panel in panels:
            made = made.with_panel(panel)
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(build())
