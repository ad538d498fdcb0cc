"""A check whose labels change at every run: what the window remembers of it has a bound, and others keep their history."""

import pytest

import sixfbd.window.window as module
from sixfbd.model import Series
from sixfbd.window.snapshot import Matcher
from sixfbd.window.window import MAX_LIVE_LAYOUTS, Window

STALE_AFTER_MS = 300_000
STEADY = Series("steady", (("check", "shop"),))
MAX_ENDED_LAYOUTS, MAX_ENDED_COLUMNS = 200, 3_000  # in place of the real ones, which are reached too late for a test
RUNS = 2_000


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    for name, limit in (("MAX_ENDED_LAYOUTS", MAX_ENDED_LAYOUTS), ("MAX_ENDED_COLUMNS", MAX_ENDED_COLUMNS)):
        assert getattr(module, name) > limit
        monkeypatch.setattr(module, name, limit)


def once(number):
    return Series("churning", (("check", "shop"), ("n", str(number))))


def only_new(run):
    return [once(run)]


def overlapping(run):
    """Each series lives for 20 runs."""
    return [once(number) for number in range(run, run + 20)]


def remembered(window):
    """Return how many layouts, columns and series the window holds, and how many the index knows."""
    layouts = window._layouts.values()
    return len(layouts), sum(layout.width for layout in layouts), len(window._entries), len(window._index.entries)


def play(window, members, runs, step_ms, complete=True, check="shop", begin=0):
    for run in range(begin, begin + runs):
        samples = [(one, float(run)) for one in members(run)]
        window.append(check, step_ms * (run + 1), samples, complete=complete, stale_after_ms=STALE_AFTER_MS)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("members", [only_new, overlapping])
def test_what_is_remembered_of_a_check_whose_labels_change_has_a_bound(members, complete):
    window = Window()
    play(window, lambda run: [STEADY, *members(run)], RUNS, 60_000, complete)
    first = remembered(window)
    play(window, lambda run: [STEADY, *members(run)], RUNS, 60_000, complete, begin=RUNS)
    layouts, columns, series, indexed = remembered(window)
    assert layouts <= MAX_ENDED_LAYOUTS + MAX_LIVE_LAYOUTS + 1
    assert series == indexed <= columns <= MAX_ENDED_COLUMNS + 100
    assert layouts <= 2 * first[0] and series <= 2 * first[2], "it is level"
    assert window.series_count("shop") <= 40
    assert len(window.snapshot()._views) <= MAX_LIVE_LAYOUTS + 1


def test_wide_reports_of_new_series_are_bounded_by_what_they_hold():
    window = Window()
    for run in range(100):
        wide = [(once(500 * run + number), 1.0) for number in range(500)]
        window.append("shop", 1000 * (run + 1), wide, complete=True, stale_after_ms=STALE_AFTER_MS)
    layouts, columns, series, _ = remembered(window)
    assert layouts <= 8 and columns <= MAX_ENDED_COLUMNS + 1000 and series <= MAX_ENDED_COLUMNS + 1000


def test_a_series_that_lasts_keeps_its_history_beside_those_that_do_not():
    window = Window()
    runs = 2 * MAX_ENDED_LAYOUTS + 90
    play(window, lambda run: [STEADY, once(run)], runs, 1000)
    [block] = window.snapshot().select([Matcher("__name__", "=", "steady")], 0, 10**12)
    assert len(block.t_ms) == runs
    newest = window.snapshot().select([Matcher("n", "=", str(runs - 2))], 0, 10**12)
    assert [len(block.t_ms) for block in newest] == [2], "the newest of what has ended is still there, with its end"


def test_checks_beside_one_whose_labels_change_lose_nothing():
    window = Window()
    for run in range(MAX_ENDED_LAYOUTS + 100):
        other = Series("other", (("check", "other"), ("n", str(run // 50))))
        window.append("other", 1000 * (run + 1), [(other, 1.0)], complete=True, stale_after_ms=STALE_AFTER_MS)
        window.append("shop", 1000 * (run + 1), [(once(run), 1.0)], complete=True, stale_after_ms=STALE_AFTER_MS)
    blocks = window.snapshot().select([Matcher("__name__", "=", "other")], 0, 10**12)
    assert sum(len(block.series) for block in blocks) == 6


def test_a_few_series_that_come_and_go_do_not_move_thousands():
    window = Window()
    many = [Series("many", (("check", "shop"), ("n", f"{number}"))) for number in range(3000)]
    play(window, lambda run: [*many, *overlapping(run)], 200, 1000)
    wide = [layout for layout in window._layouts.values() if layout.width >= 3000]
    assert len(wide) == 1 and wide[0].live


def test_series_that_unhealthy_reports_do_not_carry_end_when_they_have_gone_stale():
    window = Window()
    window.append("shop", 1000, [(STEADY, 1.0), (once(1), 1.0)], complete=True, stale_after_ms=STALE_AFTER_MS)
    for at_ms, count in ((1000 + STALE_AFTER_MS, 2), (2000 + STALE_AFTER_MS, 1)):
        window.append("shop", at_ms, [(STEADY, 1.0)], complete=False, stale_after_ms=STALE_AFTER_MS)
        assert window.series_count("shop") == count
