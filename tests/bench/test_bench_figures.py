"""What the bench makes of what it measured: ratios, goals, lateness, times to webhooks."""

import pytest

from tests.bench.alerts import times_to
from tests.bench.checks import lateness_ms
from tests.bench.passes import NOT_REACHED, REACHED, Effort, Goal, Row, Side, figures, table, take_turns


def test_a_ratio_is_formed_within_each_pass_and_its_median_is_held_to_the_goal() -> None:
    row = Row("latency", "ms", [1.0, 2.0, 9.0], "them", [1.0, 1.0, 3.0], Goal(2))
    assert row.ratios == [1.0, 2.0, 3.0]
    assert row.verdict == REACHED
    assert Row("latency", "ms", [3.0], "them", [1.0], Goal(2)).verdict == NOT_REACHED


def test_a_goal_may_be_a_least_or_a_figure_of_our_own() -> None:
    assert Row("speed", "rows/s", [7.0], "them", [10.0], Goal(0.8, at_least=True)).verdict == NOT_REACHED
    assert Row("speed", "rows/s", [8.0], "them", [10.0], Goal(0.8, at_least=True)).verdict == REACHED
    assert Row("late", "ms", [19.0], goal=Goal(20, absolute=True)).verdict == REACHED
    assert Row("late", "ms", [21.0], "them", [30.0], Goal(20, absolute=True)).verdict == NOT_REACHED
    assert Row("late", "ms", [21.0]).verdict == ""


def test_the_table_shows_the_goal_beside_the_ratio() -> None:
    text = table([Row("latency", "ms", [1.0, 3.0, 2.0], "them", [1.0, 1.0, 1.0], Goal(1.5)), Row("late", "ms", [3.0])])
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[1] == "latency ms 2 (1-3) 1 (1-1) them 2 (1-3) ≤ 1.5x not reached"
    assert lines[2] == "late ms 3 (3-3) - -"


def test_sides_take_turns_and_the_first_pass_is_thrown_away() -> None:
    order: list[str] = []

    def side(name: str) -> Side:
        def measure() -> dict[str, float]:
            order.append(name)
            return {"value": float(len(order))}

        return measure

    measured = take_turns({"one": side("one"), "other": side("other")}, Effort(2))
    assert order == ["one", "other", "other", "one", "one", "other"]
    assert figures(measured, "value", "one") == [4.0, 5.0]
    assert figures(measured, "value", "one", "other") == [7.0, 11.0]


def test_a_run_is_late_against_the_grid_of_its_check_and_one_left_out_moves_no_other() -> None:
    late = lateness_ms([(1.0, 10.2), (2.0, 5.5), (1.0, 11.21), (1.0, 13.25), (2.0, 6.4)])
    assert late == pytest.approx([0, 10, 50, 100, 0], abs=1e-6)


def test_a_webhook_answers_the_last_flip_of_its_kind_and_one_that_was_overtaken_has_no_time() -> None:
    flips = [(1.0, 10.0), (0.0, 10.1), (1.0, 10.2), (0.0, 10.3)]
    webhooks = [(9.9, "firing"), (10.13, "firing"), (10.14, "resolved"), (10.25, "firing")]
    assert times_to(flips, webhooks) == pytest.approx([130, 40, 50])
