"""What the daemon before this one said of its checks, and what only looks like it."""

from sixfbd.model import Series, labels_of
from sixfbd.schedule import Before
from sixfbd.vitals import FAILURES, LAST_SEEN, STALE_AFTER, known_before


def said(metric, value, **labels):
    return Series(metric, labels_of(labels)), 1_000_000, value, "x"


def test_series_of_another_daemon_that_a_check_scrapes_say_nothing_of_the_check():
    own = [said(FAILURES, 0.0, check="own"), said(LAST_SEEN, 990.0, check="own"), said(STALE_AFTER, 300.0, check="own")]
    theirs = {"check": "own", "instance": "other:9632", "job": "own", "exported_check": "web"}
    scraped = [said(FAILURES, 77.0, **theirs), said(LAST_SEEN, 1.0, **theirs)]
    assert known_before([*own, *scraped]) == known_before([*scraped, *own]) == {"own": Before(0, None)}
