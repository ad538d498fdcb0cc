"""Signals, and the limit of a stop: SIGTERM and SIGINT end the daemon in order, SIGHUP reloads it."""

import logging
import os
import signal
import threading
from types import FrameType
from typing import Final

import structlog
import trio

from sixfbd.control.protocol import Refused
from sixfbd.model import Actor
from sixfbd.reload import reload
from sixfbd.running import Running

log = structlog.get_logger("sixfbd.lifetime")

STOP_MARGIN_S: Final = 1.0  # of [daemon] stop_timeout, for the end itself


class _Noted:
    """The handler of SIGHUP while nobody obeys it: before the daemon can reload, and while it ends."""

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.came = True


def note_reloads() -> None:
    """Have a SIGHUP that comes before `obey_signals` noted, so that it does not end the process: the configuration may
    have been read already, so it is a reload as soon as one can be."""
    signal.signal(signal.SIGHUP, _Noted())


async def obey_signals(running: Running) -> None:
    """Take signals until cancelled. A stop does not wait for a reload; of reloads that wait, one is enough."""
    before = signal.getsignal(signal.SIGHUP)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as reloads:
            if isinstance(before, _Noted) and before.came:
                reloads.start_soon(_reload, running)
            async for number in signals:
                if number != signal.SIGHUP:
                    running.stop.set()
                elif not running.reloading.statistics().tasks_waiting:
                    reloads.start_soon(_reload, running)


async def _reload(running: Running) -> None:
    by = Actor("signal SIGHUP")
    try:
        await reload(running, by)
    except Refused as error:  # nobody waits for an answer
        log.error("reload.refused", by=by.name, error=str(error))


def limit_stop(running: Running) -> None:
    """End the process when the stop takes too long: a plugin that shields itself from cancels would hold it for ever.

    What the journal acknowledged is on the disk; what is being sent is `unknown` at the next start.
    """

    def give_up() -> None:
        runs = [state.name for state in running.schedule.states() if state.running]
        at = running.watchdog.now()  # a plugin that blocks in close(), for one
        blame = {"plugin": at.plugin, "doing": at.doing, "at": at.place} if at.plugin else {}
        log.error("daemon.stop_overran", running=runs, **blame)
        logging.shutdown()  # writes what is queued
        os._exit(1)

    limit_s = float(running.config.daemon.stop_timeout)
    timer = threading.Timer(max(limit_s - STOP_MARGIN_S, limit_s / 2), give_up)
    timer.daemon = True
    timer.start()
