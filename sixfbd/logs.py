"""Logging: structlog and the standard library's loggers in one form, console or JSON, on stderr, without secrets.

Owns the root logger's handler and the thread that writes. Lines are rendered by who logs and written by the thread, so
that a reader who stops reading (a full pipe, a terminal on hold) never stops the daemon; a reader who is gone costs
lines, which are counted. Tracebacks carry no local variables; registered secrets are masked wherever they stand.
"""

import base64
import contextlib
import io
import json
import logging
import queue
import re
import sys
import threading
import urllib.parse
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from sixfbd.control.terminal import UNSEEN

MASK: Final = "*****"
MIN_MASKED_LENGTH: Final = 6  # shorter secrets are masked only where a fact is nothing but the secret
QUEUED_LINES: Final = 10_000
FLUSH_S: Final = 2.0
_STEERS: Final = re.compile(rf"[\x00-\x08\x0b-\x1f]|{UNSEEN.pattern}")  # all but tabs and ends of lines
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
QUIET_LOGGERS: Final = ("httpx", "httpcore", "hypercorn", "hypercorn.access", "hypercorn.error", "quart", "hpack", "h2")
"""Loggers that say each request at INFO, httpx with the whole URL, query string included."""


class LogWriter:
    """A thread that writes lines to a stream, at most `QUEUED_LINES` behind; `lost` counts those that found no place."""

    def __init__(self, stream: TextIO) -> None:
        self.lost = 0
        self.stream = stream
        self._lines: queue.Queue[str | threading.Event | None] = queue.Queue(QUEUED_LINES)
        self._thread = threading.Thread(target=self._write_all, name="sixfbd-log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue one line. Never waits, never raises."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.lost += 1

    def has_room(self) -> bool:
        """Return whether the reader keeps up: less than half of the places are taken."""
        return self._lines.qsize() < QUEUED_LINES // 2

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Return whether all lines queued so far were written (or lost to a reader that is gone) in time."""
        written = threading.Event()
        with contextlib.suppress(queue.Full):
            self._lines.put(written, timeout=timeout_s)
        return written.wait(timeout_s)

    def close(self) -> None:
        """Write what is queued, for at most `FLUSH_S`, and end the thread."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=FLUSH_S)
        self._thread.join(FLUSH_S)

    def _write_all(self) -> None:
        while (line := self._lines.get()) is not None:
            if isinstance(line, threading.Event):
                line.set()
                continue
            try:
                self.stream.write(line + "\n")
                self.stream.flush()
            except (OSError, ValueError):  # the reader is gone, or the stream was closed
                self.lost += 1


class _QueueHandler(logging.Handler):
    """Hands rendered lines to the writer."""

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self.writer = writer
        self._told_lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.write(self.format(record))
        except Exception as error:  # noqa: BLE001 - a fact whose repr raises must not reach who logs it
            self.writer.write(f"log.failed logger={record.name} error={type(error).__name__}")
        lost = self.writer.lost - self._told_lost
        if lost and self.writer.has_room():
            self._told_lost += lost
            facts = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "count": lost}
            self.writer.write(self.format(logging.makeLogRecord({**facts, "msg": "log.lines_lost"})))

    def close(self) -> None:
        self.writer.close()
        super().close()


# ---- secrets -----------------------------------------------------------------------------------------------------------


class _Secrets:
    """The values that no line may carry, and the forms in which they may turn up in one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: frozenset[str] = frozenset()
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str) -> None:
        with self._lock:
            if not value or value in self._values:
                return
            self._values |= {value}
            forms = {form for known in self._values if len(known) >= MIN_MASKED_LENGTH for form in _forms(known)}
            longest_first = sorted(forms, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def is_one(self, value: object) -> bool:
        return isinstance(value, str) and value in self._values

    def mask(self, text: str) -> str:
        return text if self._pattern is None else self._pattern.sub(MASK, text)


def _forms(value: str) -> Iterable[str]:
    """Yield the value as JSON, repr, a URL and HTTP Basic write it."""
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield urllib.parse.quote(value, safe="")
    yield urllib.parse.quote_plus(value)
    yield base64.b64encode(value.encode()).decode()


_secrets: Final = _Secrets()  # one for the process: a secret stays one whatever is logged, by whom


def register_secret(value: str) -> None:
    """Mask this value in every line from now on. Called for each secret when the configuration is loaded."""
    _secrets.add(value)


def mask_secrets(text: str) -> str:
    """Return the text with every registered secret of 6 characters or more masked."""
    return _secrets.mask(text)


# ---- set-up --------------------------------------------------------------------------------------------------------------


def configure_logging(level: str = "info", form: str = "auto", stream: TextIO | None = None) -> LogWriter:
    """Send all logging to `stream` (stderr) in one form: "console", "json", or "auto" (console on a terminal).

    May be called again, as a reload does. Returns the writer; `logging.shutdown`, which runs at exit, closes it.
    """
    target = sys.stderr if stream is None else stream
    console = form == "console" or (form == "auto" and target.isatty())
    handler = _handler_for(target)
    handler.setFormatter(_formatter(console, colors=console and target.isatty()))
    logging.getLogger().setLevel(LEVELS[level])
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(LEVELS[level], logging.WARNING))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,  # loggers are made at import, before this call
    )
    return handler.writer


def _handler_for(stream: TextIO) -> _QueueHandler:
    """Return the root logger's handler for this stream, the one in place if it writes there already."""
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _QueueHandler)]:
        if old.writer.stream is stream:
            return old
        root.removeHandler(old)
        old.close()
    handler = _QueueHandler(LogWriter(stream))
    root.addHandler(handler)
    return handler


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        _timestamp,
        _mask_facts,
    ]


def _formatter(console: bool, colors: bool) -> logging.Formatter:
    renderers: list[Processor]
    if console:
        renderers = [_escape_facts, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_write_traceback)]
    else:
        plain = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderers = [
            structlog.processors.ExceptionRenderer(plain),
            _known_first,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
            _escape_json,
        ]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.PositionalArgumentsFormatter(), *_shared()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers, _mask_line],
    )


def _escape_facts(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Texts reach the terminal without what it obeys; the renderer shows whatever is no text by its repr."""
    return {name: _escaped(value) if isinstance(value, str) else value for name, value in event.items()}


def _escaped(text: str) -> str:
    return _STEERS.sub(lambda match: repr(match[0])[1:-1], text)


def _write_traceback(out: TextIO, error: ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, error)
    out.write(_escaped(text.getvalue()))


def _escape_json(logger: WrappedLogger, method: str, line: Any) -> str:
    return UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", str(line))


def _timestamp(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return event


def _known_first(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    known = {name: event.pop(name) for name in ("timestamp", "level", "event", "logger") if name in event}
    return {**known, **event}


def _mask_facts(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if _secrets.is_one(value):
            event[name] = MASK
    return event


def _mask_line(logger: WrappedLogger, method: str, line: Any) -> str:
    return _secrets.mask(str(line))
