"""The default rules of remote write: when each holds and what it says, on series by hand."""

import pytest

from sixfbd.rules import bind_rules
from sixfbd_plugins.remote_write.check import RULES
from tests import rules_kit

LAG = 'remote_write_lag_seconds{check="central"}'
DROPPED = 'remote_write_samples_dropped_total{check="central"}'


@pytest.mark.parametrize(
    ("rule", "series", "said"),
    [
        ("RemoteWriteBehind", f"{LAG} 400", "Samples for central wait since 6m 40s: why"),
        ("RemoteWriteBehind", f"{LAG} 300", None),
        ("RemoteWriteRefused", f"{DROPPED} 10 10 30 30", "samples for central were refused: why"),
        ("RemoteWriteRefused", f"{DROPPED} 30 30 30 30", None),
    ],
)
def test_what_waits_too_long_or_is_refused_is_told(snapshot_of, rule, series, said):
    bound = bind_rules(RULES)
    assert not bound.errors
    at = 60.0 * (len(series.split()) - 2)
    found = rules_kit.found(bound, rule, snapshot_of(series), at)
    assert [severity for _, severity, _ in found] == (["medium"] if said else [])
    assert all(said in summary for _, _, summary in found)
