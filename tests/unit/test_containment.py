"""What plugins raise and say, made harmless: calls that cannot end what is around them, texts that can be written."""

import pytest
import trio

from sixfbd.containment import MAX_LINE, call_guarded, described, leaves, one_line, words_of
from tests.containment_kit import kept_cancelled


class OddError(Exception):
    def __str__(self):
        raise RuntimeError("cannot be shown")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("boom"),
        SystemExit(3),
        KeyboardInterrupt(),
        BaseExceptionGroup("several", [SystemExit(1), ValueError("boom")]),
        ExceptionGroup("several", [ExceptionGroup("more", [ValueError("boom")])]),
    ],
)
async def test_whatever_a_call_raises_is_returned(autojump_clock, error):
    async def call():
        raise error

    ended = await call_guarded(call, 1)
    assert {type(one) for one in leaves(ended.error)} == {type(one) for one in leaves(error)}
    assert not ended.overran


async def test_a_cancelled_that_nobody_asked_for_is_an_error_and_cancels_nothing(autojump_clock):
    async def call():
        raise await kept_cancelled()

    async with trio.open_nursery() as nursery:
        ended = await call_guarded(call, 1)
        assert [type(one) for one in leaves(ended.error)] == [trio.Cancelled]
        await trio.lowlevel.checkpoint()
        assert not nursery.cancel_scope.cancel_called


async def test_a_true_cancel_passes_through(autojump_clock):
    with trio.move_on_after(1) as scope:
        await call_guarded(trio.sleep_forever, 60)
        pytest.fail("the cancel was swallowed")
    assert scope.cancelled_caught


async def test_a_call_that_takes_too_long_overran(autojump_clock):
    ended = await call_guarded(trio.sleep_forever, 2)
    assert ended.overran and ended.error is None
    assert trio.current_time() == pytest.approx(2, abs=0.1)


async def test_a_failure_of_the_clean_up_at_the_timeout_is_the_error(autojump_clock):
    async def call():
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("cleaning up failed")

    ended = await call_guarded(call, 1)
    assert described(ended.error) == "ValueError: cleaning up failed" and not ended.overran


async def test_a_call_that_is_no_coroutine_is_an_error(autojump_clock):
    assert isinstance(leaves((await call_guarded(lambda: 7, 1)).error)[0], TypeError)


def test_an_exception_is_described_by_its_first_leaf_in_one_line():
    group = ExceptionGroup("x", [ExceptionGroup("y", [OSError("no\nsuch  file")]), ValueError("other")])
    assert described(group) == "OSError: no such file"
    assert described(ValueError()) == "ValueError"
    assert words_of(OddError()) == "(its text cannot be shown: RuntimeError)"


def test_a_line_can_always_be_encoded_and_is_short():
    assert one_line("file \udcff\n gone").encode() == b"file ? gone"
    assert len(one_line("é" * 10_000_000)) == MAX_LINE
    assert one_line("x" * MAX_LINE) == "x" * MAX_LINE
