"""What a plugin may keep that it must not: for tests of who contains it."""

import trio


async def kept_cancelled() -> trio.Cancelled:
    """Return a Cancelled that outlived its scope."""
    kept: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep(1)
        except trio.Cancelled as cancelled:
            kept.append(cancelled)
            raise
    return kept[0]
