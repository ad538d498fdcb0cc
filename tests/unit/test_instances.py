"""Instances of plugins: one that cannot be made or closed costs nobody else anything."""

import pytest
import trio

from sixfbd.config import CheckTable, NotifierTable
from sixfbd.instances import CLOSE_LIMIT_S, Surroundings, close_all, make_check, make_notifier
from sixfbd.plugin import Check, Notifier
from sixfbd.quantities import Duration


@pytest.fixture
async def quiet(world):
    """A world whose outbound may be asked for, since every instance gets one."""
    world.outbound = lambda service: service
    return world


class Fine(Check):
    service = "web"
    closed = 0

    async def close(self):
        self.closed += 1


class Slow(Fine):
    async def close(self):
        await trio.sleep_forever()


class Raising(Fine):
    async def close(self):
        raise SystemExit(1)


class Unmade(Fine):
    def __init__(self, options, ctx):
        raise RuntimeError("no such host")


def table(name, **options):
    return CheckTable(name=name, plugin="fine", interval=Duration(60), timeout=Duration(5), **options)


async def test_an_instance_knows_its_name_and_fills_what_its_class_or_its_table_says(quiet):
    made = make_check(table("a"), Fine, Surroundings(quiet, None, "shop"))
    assert (made.name, made.service, made.external, made.interval_s, made.problem) == ("a", "web", None, 60.0, "")
    assert (made.check.ctx.name, made.check.ctx.http, made.check.ctx.site) == ("a", "check.a", "shop")
    assert make_check(table("b", service="pay"), Fine, Surroundings(quiet, None, "")).service == "pay"


@pytest.mark.parametrize("error", [RuntimeError("no such host"), SystemExit("no such host")])
async def test_what_cannot_be_made_says_why_and_is_no_end(quiet, error):
    class Broken(Fine, Notifier):
        def __init__(self, options, ctx):
            raise error

    check = make_check(table("a"), Broken, Surroundings(quiet, None, ""))
    assert check.check is None
    assert check.problem == f"plugin fine cannot start: {type(error).__name__}: no such host"
    notifier = make_notifier(
        NotifierTable(name="n", plugin="fine", timeout=Duration(5), concurrency=1),
        Broken,
        Surroundings(quiet, None, ""),
    )
    assert (notifier.notifier, notifier.problem) == (None, check.problem)


async def test_instances_close_beside_each_other_within_a_limit_cancelled_or_not(autojump_clock, quiet):
    made = [make_check(table(cls.__name__), cls, Surroundings(quiet, None, "")) for cls in (Slow, Slow, Raising, Fine)]
    began = trio.current_time()
    with trio.CancelScope() as scope:
        scope.cancel()
        await close_all([*made, make_check(table("x"), Unmade, Surroundings(quiet, None, ""))])
    assert trio.current_time() - began == pytest.approx(CLOSE_LIMIT_S)
    assert made[-1].check.closed == 1


async def test_a_thread_of_an_instance_runs_what_it_is_given(quiet):
    made = make_check(table("a"), Fine, Surroundings(quiet, None, ""))
    assert await made.check.ctx.to_thread(divmod, 7, 2) == (3, 1)
