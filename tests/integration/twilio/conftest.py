"""A double of Twilio, in process and behind a port of loopback, and what its tests share."""

import random
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
import trio

from sixfbd.plugin import Secret
from sixfbd.world import EngineClock, HttpOutbound
from sixfbd_plugins.checks import sms
from sixfbd_plugins.sandbox.twilio import TwilioDouble
from tests.provider_kit import Engine, InProcess, ManualClock, PluginContext, Reader, Wire, served

ACCOUNT = "AC" + "0123456789abcdef" * 2
TOKEN = "t0ken-that-nobody-may-see"
KEY, KEY_SECRET = "SK" + "fedcba9876543210" * 2, "the-secret-of-the-key"
SERVICE = "MG" + "00ff" * 8
SENDER = "+13525550100"
HIDDEN = (ACCOUNT, TOKEN, KEY_SECRET, SENDER, "3525550100", "3525550101", "352-555-0101", "352-555-0100")


def make_double(now: Callable[[], float], **changes: Any) -> TwilioDouble:
    double = TwilioDouble(
        ACCOUNT, TOKEN, now, random.Random(4), numbers=(SENDER,), services={SERVICE: (SENDER,)}, **changes
    )
    double.add_key(KEY, KEY_SECRET)
    return double


class Kit:
    """Everything above, for tests: fixtures cannot be imported."""

    ACCOUNT, TOKEN, KEY, KEY_SECRET, SERVICE, SENDER, HIDDEN = ACCOUNT, TOKEN, KEY, KEY_SECRET, SERVICE, SENDER, HIDDEN
    ManualClock, InProcess, Reader, PluginContext = ManualClock, InProcess, Reader, PluginContext
    Engine = staticmethod(partial(Engine, check="sms", cls=sms.SmsCheck))
    double = staticmethod(make_double)

    @staticmethod
    def credentials(**changes: Any) -> dict[str, Any]:
        return {"account_sid": ACCOUNT, "auth_token": Secret(TOKEN, "env TOKEN"), **changes}


@pytest.fixture
def kit() -> type[Kit]:
    return Kit


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_800_000_000.0)


@pytest.fixture
def double(clock: ManualClock) -> TwilioDouble:
    return make_double(clock.now)


@pytest.fixture
async def wire(nursery: trio.Nursery) -> Wire:
    return await served(make_double(EngineClock().now), nursery)


@pytest.fixture
async def real_context() -> AsyncIterator[PluginContext]:
    http = HttpOutbound("sms", ssl.create_default_context)
    yield PluginContext(http, EngineClock())
    await http.close()
