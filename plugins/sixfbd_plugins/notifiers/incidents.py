"""Which of our earlier messages began what a notification goes on about: for channels that thread, or rewrite a message."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import trio
from msgspec import Struct

from sixfbd.plugin import SECOND, Context, Notification, NotifiedAlert, TemporaryFailure
from sixfbd_plugins.notifiers.refused import Refused

MOST_ALERTS: Final = 20  # of a notification that are asked for
READ_S: Final = 2 * SECOND
MOST_REWRITTEN: Final = 5  # first messages that one resolve rewrites


class First(Struct, frozen=True):
    """The first message about some alerts of a notification. `whole`: it told of these alerts and of nothing else."""

    provider_id: str
    alerts: tuple[NotifiedAlert, ...]
    whole: bool


async def first_messages(ctx: Context, notification: Notification) -> list[First]:
    """Return the first messages, to the same address, about the alerts that the address was told of before.

    Those of which nothing is known are left out. Whatever keeps us from reading, the message itself goes out.
    """
    found: dict[str, list[NotifiedAlert]] = {}
    carried: dict[str, int] = {}
    try:
        with trio.move_on_after(READ_S):
            for alert in [one for one in notification.alerts if one.kind != "fire"][:MOST_ALERTS]:
                for message in await ctx.read.messages_about(alert.id):
                    target = message.target
                    ours = (target.notifier, target.receiver, target.address) == (
                        ctx.name, notification.receiver, notification.address,
                    )  # fmt: skip
                    if ours and message.provider_id and message.id != notification.id:
                        found.setdefault(message.provider_id, []).append(alert)
                        carried[message.provider_id] = len(message.obligations)
                        break
    except Exception as error:  # noqa: BLE001 - a thread is a convenience, the message is not
        ctx.log.warning("notifier.thread_unknown", error=type(error).__name__)
    return [First(name, tuple(alerts), carried[name] == len(alerts)) for name, alerts in found.items()]


async def rewrite_over(ctx: Context, firsts: Sequence[First], rewrite: Callable[[First], Awaitable[None]]) -> int:
    """Rewrite the first messages of what is resolved now; return how many. One that told of more is left as it is.

    `rewrite` rewrites one. A refusal for good is logged, one that may pass is raised, as is that no answer came.
    """
    rewritten = 0
    for first in _over(firsts):
        try:
            await rewrite(first)
            rewritten += 1
        except Refused as refused:
            if refused.temporary:
                raise
            ctx.log.info("notifier.not_rewritten", reason=str(refused))
        except TemporaryFailure as failure:  # a rewrite may be repeated: the message itself is not sent yet
            raise TemporaryFailure(str(failure), retry_after_s=failure.retry_after_s, sent=False) from None
    return rewritten


def _over(firsts: Sequence[First]) -> list[First]:
    """Return the first messages to be rewritten, as all that they told of is resolved now. Others are left as they are."""
    return [
        first
        for first in firsts[:MOST_REWRITTEN]
        if first.whole and all(alert.status == "resolved" for alert in first.alerts)
    ]
