"""A double of Stripe, in process and behind a port of loopback, and what its tests share."""

import random
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import msgspec
import pytest
import trio

from sixfbd.model import Report
from sixfbd.plugin import Secret
from sixfbd.world import EngineClock, HttpOutbound
from sixfbd_plugins.checks import payments
from sixfbd_plugins.sandbox.stripe import StripeDouble
from tests.provider_kit import Engine, InProcess, ManualClock, PluginContext, Wire, served

KEY = "rk_test_0123456789abcdefghijklmn"
SIGNING = "whsec_0123456789abcdefghijklmnopqrstuv"
BEGAN = 1_800_000_000.0


def make_double(now: Callable[[], float], **changes: Any) -> StripeDouble:
    return StripeDouble(KEY, now, random.Random(9), **changes)


async def run_through(check: payments.PaymentsCheck, engine: Engine | None = None, cursor: Any = None) -> Report:
    """Run a check as the schedule does, page after page, each with the cursor that was committed."""
    if engine is not None:
        cursor = await engine.journal.cursor(engine.check)
    for _ in range(50):
        report = await check.run(cursor)
        assert len(msgspec.json.encode(report.cursor)) < 64 * 1024
        if engine is not None:
            refused = await engine.report(report)
            assert not refused.count or refused.cursor_stays, refused.named
            if refused.cursor_stays:
                break
        cursor = msgspec.json.decode(msgspec.json.encode(report.cursor))
        if not report.more:
            break
    return report


def values(report: Report) -> dict[tuple[str, ...], float]:
    """The samples of a report by name and label values."""
    return {(one.metric, *(value for _, value in one.labels)): one.value for one in report.samples}


class Kit:
    """Everything above, for tests: fixtures cannot be imported."""

    KEY, SIGNING, BEGAN = KEY, SIGNING, BEGAN
    ManualClock, InProcess, PluginContext = ManualClock, InProcess, PluginContext
    Engine = staticmethod(
        partial(Engine, types=payments.sixfbd_events(None), check="stripe", cls=payments.PaymentsCheck)
    )  # type: ignore[arg-type]  # the hook asks nothing of its configuration
    double = staticmethod(make_double)
    run_through = staticmethod(run_through)
    values = staticmethod(values)

    @staticmethod
    def check(http: Any, clock: Any, read: Any = None, **options: Any) -> payments.PaymentsCheck:
        key = Secret(KEY, "env STRIPE_SECRET_KEY")
        return payments.PaymentsCheck(
            payments.PaymentsOptions(**{"api_key": key, **options}), PluginContext(http, clock, read)
        )


@pytest.fixture
def kit() -> type[Kit]:
    return Kit


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(BEGAN)


@pytest.fixture
def double(clock: ManualClock) -> StripeDouble:
    return make_double(clock.now)


@pytest.fixture
async def wire(nursery: trio.Nursery) -> Wire:
    return await served(make_double(EngineClock().now), nursery)


@pytest.fixture
async def outbound() -> AsyncIterator[HttpOutbound]:
    http = HttpOutbound("stripe", ssl.create_default_context)
    yield http
    await http.close()
