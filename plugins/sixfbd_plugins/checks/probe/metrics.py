"""The metrics that probes share, whatever they speak; names are blackbox_exporter's. The default rules of probes read them."""

from collections.abc import Sequence
from typing import Final

from sixfbd.plugin import Gauge, Status

_I: Final = ("instance",)
SUCCESS: Final = Gauge("probe_success", "1 if the probe succeeded.", _I)
DURATION: Final = Gauge("probe_duration_seconds", "How long the probe took.", _I)
LOOKUP: Final = Gauge("probe_dns_lookup_time_seconds", "How long looking up the name took.", _I)
IP_PROTOCOL: Final = Gauge("probe_ip_protocol", "4 or 6; 0 if no connection was made.", _I)
CERTIFICATE_EXPIRY: Final = Gauge(
    "probe_ssl_earliest_cert_expiry", "When the server's certificate ends, unix seconds.", _I
)
MOST_SUMMARY: Final = 500  # characters


def status_of(failed: int, targets: int) -> Status:
    """Return what becomes of a check some of whose targets failed: degraded if not all did."""
    return Status.HEALTHY if not failed else Status.DEGRADED if failed < targets else Status.UNHEALTHY


def summary_of(failures: Sequence[tuple[str, str]], targets: int, good: str) -> str:
    """Return the summary of a run: each failure with its target, or what is `good`."""
    if not failures:
        return good
    if targets == 1:
        return failures[0][1][:MOST_SUMMARY]
    named = "; ".join(f"{instance}: {failure}" for instance, failure in failures)
    return f"{len(failures)} of {targets} targets fail: {named}"[:MOST_SUMMARY]
