"""The daemon's own series (`sixfbd_*`): measured by the engine, reported through intake as the check `sixfbd`.

Owns the measurement of the loop's delay; asks the parts for their counts by callables. Also reports the quantiles of
summaries that event types observe, and `up` for the daemon itself.
"""

import os
from collections.abc import Iterable
from typing import Final, Protocol

import psutil
import trio

from sixfbd import __version__
from sixfbd.model import CheckState, MetricKind, Sample, Series, labels_of
from sixfbd.plugin import Summary

INTERVAL_S: Final = 5.0
PROBE_S: Final = 0.1  # how often the loop's delay is measured
SUMMARY_STALE_S: Final = 60.0

GAUGE: Final = MetricKind.GAUGE
COUNTER: Final = MetricKind.COUNTER

DOCS: Final = {
    "sixfbd_build_info": "Version of the daemon.",
    "sixfbd_check_consecutive_failures": "Reports in a row that were not healthy.",
    "sixfbd_check_crashes_total": "Runs in which the plugin raised or returned rubbish.",
    "sixfbd_check_duration_seconds": "How long the last run took.",
    "sixfbd_check_last_seen_timestamp_seconds": "Time of the last report that was not unknown.",
    "sixfbd_check_late_runs_total": "Runs that fell due while the one before was still going, or while the daemon slept.",
    "sixfbd_check_refused_total": "Samples and events of the check that were refused.",
    "sixfbd_check_runs_total": "Runs that ended.",
    "sixfbd_check_stale_after_seconds": "How long the last report speaks for the check.",
    "sixfbd_check_status": "1 for the check's current status, 0 for the others.",
    "sixfbd_check_timeouts_total": "Runs that were cut off at the timeout.",
    "sixfbd_cpu_seconds_total": "CPU time of the daemon, user and system.",
    "sixfbd_event_times_clamped_total": "Events whose claimed time was more than a minute ahead.",
    "sixfbd_events_total": "Events by type and outcome.",
    "sixfbd_http_request_seconds_total": "Time spent on answering requests.",
    "sixfbd_http_requests_total": "Requests to the daemon's own port, by route and status.",
    "sixfbd_journal_failing": "1 while decisions cannot be written.",
    "sixfbd_journal_queue_age_seconds": "Age of the oldest write that waits.",
    "sixfbd_loop_delay_seconds": "Longest delay of the event loop since the last report.",
    "sixfbd_notification_attempts_total": "Tries to deliver a message, by notifier and outcome.",
    "sixfbd_notifications_dead_total": "Messages given up.",
    "sixfbd_open_files": "File descriptors in use.",
    "sixfbd_outbox_messages": "Messages by state.",
    "sixfbd_outbox_oldest_age_seconds": "Age of the oldest message that is not yet accepted.",
    "sixfbd_plugin_failed": "1 if the plugin or one of its instances could not be loaded.",
    "sixfbd_resident_memory_bytes": "Memory of the daemon.",
    "sixfbd_rule_evaluation_failures_total": "Evaluations that failed, by rule.",
    "sixfbd_samples_dropped_total": "Reports not written to samples.db because the disk was too slow.",
    "sixfbd_series": "Series in the window.",
    "sixfbd_start_time_seconds": "When the daemon started.",
    "up": "1 if the target answered.",
}


class Window(Protocol):
    """What the vitals need of the window, besides what intake does."""

    def quantile(self, series: Series, q: float, lo_ms: int, hi_ms: int) -> float | None: ...


def gauge(name: str, value: float, **labels: str) -> Sample:
    """One gauge of the daemon's own."""
    return Sample(name, value, labels_of(labels), GAUGE)


def counter(name: str, value: float, **labels: str) -> Sample:
    """One counter of the daemon's own."""
    return Sample(name, value, labels_of(labels), COUNTER)


def check_samples(state: CheckState, stale_after_s: float, started_at: float) -> Iterable[Sample]:
    """The ages and counts of one check. A paused check has no age: nobody waits for it."""
    name = state.name
    if not state.paused:
        yield gauge("sixfbd_check_last_seen_timestamp_seconds", state.last_seen_at or started_at, check=name)
        yield gauge("sixfbd_check_stale_after_seconds", stale_after_s, check=name)
    yield counter("sixfbd_check_runs_total", state.runs, check=name)
    yield counter("sixfbd_check_late_runs_total", state.late_runs, check=name)
    yield counter("sixfbd_check_timeouts_total", state.timeouts, check=name)
    yield counter("sixfbd_check_crashes_total", state.crashes, check=name)
    yield counter("sixfbd_check_refused_total", state.refused_series, check=name)


class Vitals:
    """Measures the process. `measure_loop` is its task; the attributes are of the last `samples`, for /api/health."""

    def __init__(self) -> None:
        self._process = psutil.Process(os.getpid())
        self._longest_delay_s = 0.0
        self.loop_delay_s = 0.0
        self.cpu_usage_ratio = 0.0
        self.resident_bytes = 0

    async def measure_loop(self) -> None:
        """Measure how late the loop wakes a sleeper."""
        while True:
            due = trio.current_time() + PROBE_S
            await trio.sleep_until(due)
            self._longest_delay_s = max(self._longest_delay_s, trio.current_time() - due)

    def samples(self, instance: str, started_at: float) -> tuple[Sample, ...]:
        """Return the process's series; takes what the loop's delay was since the last call."""
        self.loop_delay_s, self._longest_delay_s = self._longest_delay_s, 0.0
        with self._process.oneshot():
            cpu = self._process.cpu_times()
            self.resident_bytes = self._process.memory_info().rss
            descriptors = self._process.num_fds()
        self.cpu_usage_ratio = self._process.cpu_percent() / 100
        return (
            gauge("sixfbd_build_info", 1, version=__version__),
            gauge("sixfbd_start_time_seconds", started_at),
            gauge("sixfbd_loop_delay_seconds", self.loop_delay_s),
            gauge("sixfbd_resident_memory_bytes", self.resident_bytes),
            gauge("sixfbd_open_files", descriptors),
            counter("sixfbd_cpu_seconds_total", cpu.user + cpu.system),
            gauge("up", 1, job="sixfbd", instance=instance),
        )


def quantile_samples(
    window: Window, summaries: Iterable[Summary], series: Iterable[Series], now: float
) -> list[Sample]:
    """The quantiles of each summary series over its window, as gauges labelled `quantile` (SEED S20)."""
    declared = {summary.name: summary for summary in summaries}
    found = []
    for one in series:
        summary = declared.get(one.metric)
        if summary is None:
            continue
        for q in summary.quantiles:
            value = window.quantile(one, q, round((now - summary.window_s) * 1000), round(now * 1000))
            if value is not None:
                labels = labels_of({**dict(one.labels), "quantile": f"{q:g}"})
                found.append(Sample(one.metric, value, labels, GAUGE))
    return found
