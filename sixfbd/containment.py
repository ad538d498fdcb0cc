"""What plugins do, made harmless: calls that cannot end the daemon, and texts of theirs that can be written and sent.

Owns no state and names nobody: who calls says which plugin it was. A cancel of the engine's own always passes through.
"""

import math
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import trio
from msgspec import Struct
from msgspec.structs import replace

from sixfbd.model import MessageId, Receipt
from sixfbd.quantities import DAY

MOST_WISH_S: Final = 30 * DAY  # a provider that wishes to wait for longer means something else
MAX_LINE: Final = 500  # characters; what people read of a plugin's words is one line


class Ended(Struct, frozen=True):
    """How a plugin's call ended: with `answer`, with `error`, or (`overran`) not within its time."""

    answer: object = None
    error: BaseException | None = None
    overran: bool = False


async def call_guarded(call: Callable[[], Awaitable[object]], timeout_s: float, whose: str = "") -> Ended:
    """Await a plugin's call for at most `timeout_s` and return how it ended, whatever it raises.

    `whose`, such as "check web", is what the watchdog reads off this frame if the call blocks the loop.
    Returns later only if the plugin does not heed its cancel. A Cancelled that nobody has asked for, which a plugin kept
    and raised again, is an error as any other: let out, it would end the nursery around it without a word.
    """
    answer: object = None
    error: BaseException | None = None
    try:
        with trio.move_on_after(timeout_s) as scope:
            answer = await call()
    except* GeneratorExit:
        raise
    except* trio.Cancelled as group:
        if trio.current_effective_deadline() == -math.inf:
            raise
        error = group
    except* BaseException as group:  # noqa: BLE001 - a plugin may raise anything, SystemExit too
        error = group
    return Ended(answer, error, scope.cancelled_caught and error is None)


def leaves(error: BaseException) -> list[BaseException]:
    """Return what an exception is made of: the exceptions of a group, of groups in it as well."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in leaves(one)]
    return [error]


def described(error: BaseException) -> str:
    """Return the first exception of a group as `ValueError: its text`, in one line."""
    first = leaves(error)[0]
    text = words_of(first)
    return f"{type(first).__name__}: {text}" if text else type(first).__name__


def words_of(error: BaseException) -> str:
    """Return the text of an exception in one line; never raises, though the exception's own code may."""
    try:
        return one_line(str(error))
    except Exception as failure:  # noqa: BLE001 - a plugin's exception may fail at being shown
        return f"(its text cannot be shown: {type(failure).__name__})"


def kind_of(value: object) -> str:
    """Return what a value is, in words: "an int", "the class Queue", "None"."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    name = type(value).__name__
    return f"an {name}" if name[:1].lower() in "aeiou" else f"a {name}"


def receipt_in_writing(result: object, states: Collection[str]) -> Receipt | None:
    """Return a receipt in a form that can be written, None if it is none: what the journal holds has to be read again."""
    if not isinstance(result, Receipt) or result.state not in states:
        return None
    wish = result.retry_after_s
    return replace(
        result,
        message_id=None if result.message_id is None else MessageId(_written(result.message_id)),
        provider_id=None if result.provider_id is None else _written(result.provider_id),
        detail=_written(result.detail),
        temporary=bool(result.temporary),
        retry_after_s=float(wish) if isinstance(wish, int | float) and 0 <= wish <= MOST_WISH_S else None,
    )


def _written(value: object) -> str:
    return one_line(value if isinstance(value, str) else repr(value))


def one_line(text: str) -> str:
    """Return a text as one line of at most MAX_LINE characters that can be encoded: lone surrogates become "?"."""
    line = " ".join(text[: MAX_LINE * 4].split()).encode("utf-8", "replace").decode()
    return line if len(line) <= MAX_LINE else line[: MAX_LINE - 1] + "…"
