"""The fixtures for authors of plugins: a whole daemon in simulated time, over one plugin."""

import time

import httpx
import pytest

from sixfbd.testing import ConfigError, Engine, EngineError, NotRunError
from tests import queue_plugin
from tests.e2e import odd_plugin

ORDERS = {"orders": {"plugin": "queue", "url": "http://shop.example/queue", "interval": "30s"}}
PAGER = {"pager": {"plugin": "pager", "url": "https://pager.example/call"}}
TO_PAGER = {"primary": {"webhook": {"via": "pager"}}}


class Shop:
    """What answers: a queue of so many orders, a pager that answers so until nothing is left to answer but 200."""

    def __init__(self, length: int = 0, answers: tuple[int, ...] = ()) -> None:
        self.length = length
        self.answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"length": self.length})
        return httpx.Response(self.answers.pop(0) if self.answers else 200)


def test_a_check_is_run_through_the_schedule_and_its_series_can_be_queried(engine):
    engine.start(queue_plugin, checks=ORDERS, http=Shop(7))
    engine.advance("4m45s")
    assert engine.value("shop_queue_length") == 7
    assert engine.query("shop_queue_length") == {'shop_queue_length{check="orders", shop="main"}': 7}
    assert engine.value("count_over_time(shop_queue_length[5m])") == 10
    assert engine.value("shop_queue_length > 10") is None


def test_an_hour_of_the_engine_takes_moments_and_its_clock_moves_in_the_tests_calls_alone(engine):
    engine.start(queue_plugin, checks=ORDERS, http=Shop(7))
    before, began = engine.now, time.monotonic()
    assert engine.now == before
    engine.advance(3600)
    assert engine.now == pytest.approx(before + 3600)
    assert time.monotonic() - began < 60


def test_the_rules_of_the_plugin_fire_and_somebody_is_told_once_and_of_the_end(engine):
    shop = Shop(120)
    engine.start(queue_plugin, checks=ORDERS, http=shop)
    engine.advance("30s")
    assert [(one.key.rule, one.state) for one in engine.alerts()] == [("QueueLong", "pending")]
    assert engine.firing() == []
    engine.advance("5m")
    assert engine.firing() == ["QueueLong"]
    assert [one.alerts[0].sentence for one in engine.told] == ["120 orders wait"]
    shop.length = 3
    engine.advance("10m")
    assert engine.firing() == []
    assert [one.status for one in engine.told] == ["firing", "resolved"]


def test_what_was_asked_over_http_is_kept_and_what_nobody_answers_is_named(engine):
    engine.start(queue_plugin, checks=ORDERS)
    ran = engine.run("orders")
    assert str(engine.requests[0].url) == "http://shop.example/queue"
    assert ran.report.status == "unknown"
    assert "answers no GET shop.example" in ran.report.summary


def test_a_cursor_and_events_outlive_a_restart(engine):
    engine.start(queue_plugin, checks={"orders": {**ORDERS["orders"], "interval": "1h", "jitter": "0s"}}, http=Shop(1))
    engine.advance("1s")
    engine.restart()
    engine.advance("1s")
    assert engine.run("orders").report.cursor == 3


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("raises", "plugin odd raised RuntimeError: no such thing"),
        ("exits", "plugin odd raised SystemExit: 3"),
        ("hangs", "no answer within 10 s"),
        ("wrong_type", "plugin odd returned an int, not a Report"),
    ],
)
def test_a_check_that_misbehaves_is_contained_as_in_the_daemon(engine, how, says):
    engine.start(odd_plugin, checks={"odd": {"plugin": "odd", "how": how}})
    report = engine.run("odd").report
    assert (report.status, report.summary) == ("unknown", says)


def test_what_the_intake_refuses_of_a_report_is_told(engine):
    engine.start(odd_plugin, checks={"odd": {"plugin": "odd", "how": "undeclared"}})
    assert "not declared" in engine.run("odd").refused.named[0]


def test_a_notifier_is_given_an_obligation_and_tries_until_it_is_delivered(engine):
    engine.start(queue_plugin, notifiers=PAGER, receivers=TO_PAGER, http=Shop(answers=(503, 503)))
    began = engine.now
    [message] = engine.notify("primary")
    assert (message.state, message.attempt) == ("accepted", 3)
    assert len(engine.requests) == 3
    assert engine.now > began


def test_a_message_that_is_given_up_says_why(engine):
    engine.start(queue_plugin, notifiers=PAGER, receivers=TO_PAGER, http=Shop(answers=(404,)))
    [message] = engine.notify("primary")
    assert message.state == "dead"
    assert "404" in message.last_error


def test_an_event_is_counted_and_its_notice_told(engine):
    engine.start(queue_plugin)
    engine.event("order", amount=12.5)
    engine.advance("1m")
    assert engine.value("shop_orders_total") == 1
    assert [one.status for one in engine.told] == ["notice"]


def test_an_event_that_does_not_fit_is_refused_by_name(engine):
    engine.start(queue_plugin)
    with pytest.raises(EngineError, match="amount"):
        engine.event("order", amount="much")


def test_a_configuration_that_does_not_fit_is_refused_as_check_config_does(engine):
    with pytest.raises(ConfigError, match="url"):
        engine.start(queue_plugin, checks={"orders": {"plugin": "queue"}})


def test_a_plugin_that_cannot_be_loaded_is_named(engine):
    with pytest.raises(EngineError, match="plugin time: it implements no hook"):
        engine.start(time)


def test_an_engine_that_does_not_run_says_how_to_begin(engine):
    with pytest.raises(EngineError, match=r"engine\.start"):
        engine.advance(1)
    engine.start(queue_plugin)
    with pytest.raises(EngineError, match="runs already"):
        engine.start(queue_plugin)


def test_a_check_that_there_is_none_of_is_named(engine):
    engine.start(queue_plugin, checks=ORDERS, http=Shop())
    with pytest.raises(NotRunError, match='no check "order"'):
        engine.run("order")


def test_several_values_where_one_is_wanted_are_named(engine):
    engine.start(odd_plugin, checks={name: {"plugin": "odd", "how": "fine"} for name in ("a", "b")})
    engine.advance("2m")
    with pytest.raises(EngineError, match="yields 2 values"):
        engine.value("odd_value")


def test_a_stopped_engine_has_closed_its_checks_and_can_be_followed_by_another(tmp_path, monkeypatch):
    closed = []

    async def close(check):
        closed.append(check.ctx.name)

    monkeypatch.setattr(queue_plugin.Queue, "close", close)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        engine = Engine(tmp_path / name)
        engine.start(queue_plugin, checks=ORDERS, http=Shop())
        engine.stop()
        engine.stop()
    assert closed == ["orders", "orders"]
