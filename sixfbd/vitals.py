"""The daemon's own series (`sixfbd_*`): measured by the engine, reported through intake as the check `sixfbd`.

Asks the parts for their counts by callables. Also reports the quantiles of
summaries that event types observe, and `up` for the daemon itself.
"""

import os
from collections.abc import Callable, Iterable
from functools import cache
from typing import Final, Protocol

import psutil

from sixfbd import __version__
from sixfbd.model import CheckName, CheckState, Labels, MetricKind, Sample, Series, labels_of
from sixfbd.plugin import Summary
from sixfbd.schedule import Before

INTERVAL_S: Final = 5.0
SUMMARY_STALE_S: Final = 60.0

FAILURES: Final = "sixfbd_check_consecutive_failures"
LAST_SEEN: Final = "sixfbd_check_last_seen_timestamp_seconds"
STALE_AFTER: Final = "sixfbd_check_stale_after_seconds"

GAUGE: Final = MetricKind.GAUGE
COUNTER: Final = MetricKind.COUNTER

DOCS: Final = {
    "sixfbd_build_info": "Version of the daemon.",
    FAILURES: "Reports in a row that were not healthy.",
    "sixfbd_budget_left": "Messages that the address with the least may still get, by receiver and notifier.",
    "sixfbd_check_crashes_total": "Runs in which the plugin raised or returned rubbish.",
    "sixfbd_check_duration_seconds": "How long the last run took.",
    LAST_SEEN: "Time of the last report that was not unknown, or from when on one was awaited.",
    "sixfbd_check_is_parent": "1 for a check that others depend on.",
    "sixfbd_check_late_runs_total": "Runs that fell due while the one before was still going, or while the daemon slept.",
    "sixfbd_check_refused_total": "Samples and events of the check that were refused.",
    "sixfbd_check_runs_total": "Runs that ended.",
    STALE_AFTER: "How long the last report speaks for the check.",
    "sixfbd_check_status": "1 for the check's current status, 0 for the others.",
    "sixfbd_check_timeouts_total": "Runs that were cut off at the timeout.",
    "sixfbd_cpu_seconds_total": "CPU time of the daemon, user and system.",
    "sixfbd_personal_fields_total": "Fields of events that are not kept as they came, by what was done.",
    "sixfbd_event_times_clamped_total": "Events whose claimed time was more than a minute ahead.",
    "sixfbd_escalations_unfinished": "Steps of escalations that were due and not taken, or not told for too long.",
    "sixfbd_events_total": "Events by type and outcome.",
    "sixfbd_heartbeat_last_success_timestamp_seconds": "When the dead man's switch last took a heartbeat.",
    "sixfbd_heartbeat_withheld": "1 while no heartbeat is sent, or none is taken.",
    "sixfbd_http_request_seconds_total": "Time spent on answering requests.",
    "sixfbd_http_requests_total": "Requests to the daemon's own port, by route and status.",
    "sixfbd_inbound_requests_total": "Webhooks by inbound and what became of them.",
    "sixfbd_disk_free_bytes": "What is free on the file system of the state directory.",
    "sixfbd_journal_commit_seconds": "Longest commit since the last report, or the one that is going on.",
    "sixfbd_journal_queue_age_seconds": "Age of the oldest write that waits.",
    "sixfbd_clock_offset_seconds": "How far the wall clock is ahead of engine time; a restart adopts it.",
    "sixfbd_loop_blocked_seconds": "Longest block of the event loop in the last 5 minutes, by whom and where.",
    "sixfbd_journal_reserve_bytes": "What is kept back for the journal on its file system.",
    "sixfbd_drill_failed": "1 if the last drill did not reach a receiver through a notifier.",
    "sixfbd_drill_last_success_timestamp_seconds": "When a drill last reached a receiver through a notifier; 0: never.",
    "sixfbd_journal_volatile": "1 while the journal cannot be written: decisions are in memory only.",
    "sixfbd_loop_delay_seconds": "Longest delay of the event loop since the last report.",
    "sixfbd_notification_attempts_total": "Tries to deliver a message, by notifier and outcome.",
    "sixfbd_notification_duration_seconds_count": "Tries to deliver a message that ended, by notifier.",
    "sixfbd_notification_duration_seconds_sum": "Time that tries to deliver a message took, by notifier.",
    "sixfbd_notifications_dead_total": "Messages given up.",
    "sixfbd_open_files": "File descriptors in use.",
    "sixfbd_outbox_messages": "Messages by state.",
    "sixfbd_outbox_oldest_age_seconds": "Age of the oldest message that is not yet accepted.",
    "sixfbd_plugin_kept_out": "1 if the plugin is kept out because it blocked the daemon.",
    "sixfbd_plugin_failed": "1 if the plugin or one of its instances could not be loaded.",
    "sixfbd_resident_memory_bytes": "Memory of the daemon.",
    "sixfbd_rule_evaluation_failures_total": "Evaluations that failed, by rule.",
    "sixfbd_samples_dropped_total": "Samples never written to samples.db because the disk was full, too slow or failed.",
    "sixfbd_samples_unwritten": "1 while samples cannot be written.",
    "sixfbd_sandbox": "1 if the providers are doubles on this machine.",
    "sixfbd_series": "Series in the window.",
    "sixfbd_state_damaged": "1 for a file that was found damaged at the start, or whose damaged copy still lies aside.",
    "sixfbd_start_time_seconds": "When the daemon started.",
    "sixfbd_template_failures_total": "Messages sent in plain words because a template failed, by template.",
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


@cache
def one_label(name: str, value: str) -> Labels:
    """Return the labels of what has one of each check or rule: there are hundreds, and each is told of every few seconds."""
    return labels_of({name: value})


def check_samples(state: CheckState, stale_after_s: float) -> Iterable[Sample]:
    """The ages and counts of one check. A paused check has no age: nobody waits for it."""
    labels = one_label("check", state.name)
    if not state.paused:
        yield Sample(LAST_SEEN, state.awaited_since, labels, GAUGE)
        yield Sample(STALE_AFTER, stale_after_s, labels, GAUGE)
    yield Sample("sixfbd_check_runs_total", state.runs, labels, COUNTER)
    yield Sample("sixfbd_check_late_runs_total", state.late_runs, labels, COUNTER)
    yield Sample("sixfbd_check_timeouts_total", state.timeouts, labels, COUNTER)
    yield Sample("sixfbd_check_crashes_total", state.crashes, labels, COUNTER)
    yield Sample("sixfbd_check_refused_total", state.refused_series, labels, COUNTER)


def known_before(latest: Iterable[tuple[Series, int, float, str]]) -> dict[CheckName, Before]:
    """Return what the daemon before this one said last of each check, from the newest samples of `sixfbd_check_...`.

    What was overdue when it ended has not been seen since; what was not overdue then is not to be blamed for the gap.
    """
    told: dict[str, dict[str, tuple[int, float]]] = {}
    for series, at_ms, value, _ in latest:
        labels = dict(series.labels)
        check = labels.get("check") if len(labels) == 1 else None  # others are another daemon's, which a check scrapes
        if check is not None and series.metric in (FAILURES, LAST_SEEN, STALE_AFTER):
            told.setdefault(check, {})[series.metric] = (at_ms, value)
    found = {}
    for check, values in told.items():
        at_ms, last_seen = values.get(LAST_SEEN, (0, float("inf")))
        _, stale_after_s = values.get(STALE_AFTER, (0, float("inf")))
        _, failures = values.get(FAILURES, (0, 0.0))
        overdue = at_ms / 1000 - last_seen >= stale_after_s
        found[CheckName(check)] = Before(int(failures), last_seen if overdue else None)
    return found


class Vitals:
    """Measures the process; `take_delay` returns the loop's longest delay since it was asked last, in seconds.

    The attributes are of the last `samples`, for /api/health. `reported_at` (engine time) is when they were last taken
    in; who reports sets it.
    """

    def __init__(self, take_delay: Callable[[], float] = lambda: 0.0) -> None:
        self._process = psutil.Process(os.getpid())
        self._take_delay = take_delay
        self.loop_delay_s = 0.0
        self.cpu_usage_ratio = 0.0
        self.resident_bytes = 0
        self.reported_at = 0.0
        self._seen_again_at = 0.0

    def reported(self, now: float) -> None:
        """The daemon's own series are reported at this moment."""
        if self.are_stale(now):
            self._seen_again_at = now
        self.reported_at = now

    def are_stale(self, now: float) -> bool:
        """Tell whether the daemon's own series say nothing of now: not reported since the start, or for too long."""
        return now - self.reported_at > SUMMARY_STALE_S  # the first of them to go stale

    def are_unknown(self, now: float, at: float) -> bool:
        """Tell whether they are stale, or were in a snapshot of the time `at`."""
        return self.are_stale(now) or self._seen_again_at > at

    def samples(self, instance: str, started_at: float) -> tuple[Sample, ...]:
        """Return the process's series."""
        self.loop_delay_s = self._take_delay()
        return (
            *self._process_samples(),
            gauge("sixfbd_build_info", 1, version=__version__),
            gauge("sixfbd_start_time_seconds", started_at),
            gauge("sixfbd_loop_delay_seconds", self.loop_delay_s),
            gauge("up", 1, job="sixfbd", instance=instance),
        )

    def _process_samples(self) -> tuple[Sample, ...]:
        """What /proc says of us; nothing when it cannot be read, as when no file descriptor is left."""
        try:
            with self._process.oneshot():
                cpu = self._process.cpu_times()
                self.resident_bytes = self._process.memory_info().rss
                descriptors = self._process.num_fds()
            self.cpu_usage_ratio = self._process.cpu_percent() / 100
        except (OSError, psutil.Error):
            return ()
        return (
            gauge("sixfbd_resident_memory_bytes", self.resident_bytes),
            gauge("sixfbd_open_files", descriptors),
            counter("sixfbd_cpu_seconds_total", cpu.user + cpu.system),
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
