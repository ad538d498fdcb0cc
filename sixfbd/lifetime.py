"""Signals, and the limit of a stop: SIGTERM and SIGINT end the daemon in order, SIGHUP reloads it."""

import logging
import os
import signal
import threading
from contextlib import suppress
from typing import Final

import structlog
import trio

from sixfbd.control.protocol import Refused
from sixfbd.model import Actor
from sixfbd.reload import reload
from sixfbd.running import Running

log = structlog.get_logger("sixfbd.lifetime")

STOP_MARGIN_S: Final = 1.0  # of [daemon] stop_timeout, for the end itself


async def obey_signals(running: Running) -> None:
    """Take signals until cancelled."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for number in signals:
            if number == signal.SIGHUP:
                with suppress(Refused):  # said by reload in the log; an invalid configuration changes nothing
                    await reload(running, Actor("signal SIGHUP"))
            else:
                running.stop.set()


def limit_stop(running: Running) -> None:
    """End the process when the stop takes too long: a plugin that shields itself from cancels would hold it for ever.

    What the journal acknowledged is on the disk; what is being sent is `unknown` at the next start.
    """

    def give_up() -> None:
        log.error("daemon.stop_overran", running=[state.name for state in running.schedule.states() if state.running])
        logging.shutdown()  # writes what is queued
        os._exit(1)

    timer = threading.Timer(running.config.daemon.stop_timeout - STOP_MARGIN_S, give_up)
    timer.daemon = True
    timer.start()
