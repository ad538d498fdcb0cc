"""Log lines: their form, what they never carry, and readers who are slow or gone."""

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from sixfbd import logs
from sixfbd.logs import LogWriter, configure_logging, mask_secrets, register_secret
from sixfbd.quantities import Secret

Configure = Callable[..., Callable[[], str]]


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Configure]:
    """Configure logging to a text in memory; the answer returns what was written so far. All is undone at the end."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    quiet = {name: logging.getLogger(name).level for name in logs.QUIET_LOGGERS}
    monkeypatch.setattr(logs, "_secrets", logs._Secrets())

    def start(level: str = "info", form: str = "json") -> Callable[[], str]:
        stream = io.StringIO()
        writer = configure_logging(level, form, stream)

        def written() -> str:
            assert writer.flush()
            return stream.getvalue()

        return written

    yield start
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_a_line_of_json_begins_with_time_level_and_event_and_carries_the_facts(configure: Configure) -> None:
    written = configure()
    structlog.get_logger("sixfbd.x").info("thing.happened", count=3, name="é")
    line = json.loads(written())
    assert list(line) == ["timestamp", "level", "event", "logger", "count", "name"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert (line["event"], line["level"], line["logger"], line["count"]) == ("thing.happened", "info", "sixfbd.x", 3)


def test_a_line_for_the_console_reads_as_text_without_colours_where_there_is_no_terminal(configure: Configure) -> None:
    written = configure(form="console")
    structlog.get_logger("sixfbd.x").warning("thing.happened", count=3)
    assert "thing.happened" in written() and "count=3" in written()
    assert "\x1b" not in written()


def test_auto_is_json_where_there_is_no_terminal(configure: Configure) -> None:
    written = configure(form="auto")
    structlog.get_logger().info("thing.happened")
    assert json.loads(written())["event"] == "thing.happened"


def test_lines_below_the_level_are_left_out(configure: Configure) -> None:
    written = configure(level="warning")
    structlog.get_logger("sixfbd.x").info("quiet")
    logging.getLogger("other").info("quiet")
    structlog.get_logger("sixfbd.x").warning("loud")
    assert json.loads(written())["event"] == "loud"


def test_the_standard_librarys_loggers_come_out_in_the_same_form(configure: Configure) -> None:
    written = configure()
    logging.getLogger("someone.else").warning("disk %s is %d %% full", "/", 93, extra={"mount": "/"})
    line = json.loads(written())
    assert (line["event"], line["logger"], line["mount"]) == ("disk / is 93 % full", "someone.else", "/")


def test_warnings_of_the_language_come_out_as_lines_too(configure: Configure) -> None:
    written = configure()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old news", DeprecationWarning, stacklevel=1)
    assert "old news" in json.loads(written())["event"]


@pytest.mark.parametrize("name", ["httpx", "httpcore", "hypercorn.access", "hypercorn.error"])
def test_loggers_that_tell_of_each_request_are_silent_below_warning(configure: Configure, name: str) -> None:
    written = configure()
    logging.getLogger(name).info("GET http://127.0.0.1/?token=abc")
    assert written() == ""
    logging.getLogger(name).warning("trouble")
    assert "trouble" in written()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_frames_and_no_local_variable(configure: Configure, form: str) -> None:
    written = configure(form=form)

    def fail() -> None:
        private = "local-" + "value"
        raise ExceptionGroup("many", [ValueError("inner"), KeyError(len(private))])

    try:
        fail()
    except ExceptionGroup as error:
        structlog.get_logger("sixfbd.x").error("thing.failed", exc_info=error)
    assert "in fail" in written() or '"name": "fail"' in written()
    assert "ValueError" in written() and "inner" in written()
    assert "local-value" not in written()


SECRET = 'k"e/y\\ 7é+'


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(
    "say",
    [
        lambda log: log.info("sent", token=SECRET),
        lambda log: log.info("sent", url=f"https://example.com/?key={SECRET}&x=1"),
        lambda log: log.info("sent", url="https://example.com/?key=k%22e%2Fy%5C%207%C3%A9%2B"),
        lambda log: log.info(f"sent {SECRET}"),
        lambda log: log.info("sent", headers={"authorization": [f"Bearer {SECRET}"]}),
        lambda log: log.info("sent", body=SECRET.encode().decode()),
        lambda log: log.info("sent", secret=Secret(SECRET, "env KEY")),
        lambda log: log.error("failed", exc_info=ValueError(f"refused {SECRET}")),
        lambda log: logging.getLogger("other").error("refused %s", SECRET),
    ],
)
def test_a_registered_secret_is_masked_wherever_it_stands(
    configure: Configure, form: str, say: Callable[[Any], None]
) -> None:
    written = configure(form=form)
    register_secret(SECRET)
    say(structlog.get_logger("sixfbd.x"))
    text = written()
    assert text
    for shape in (SECRET, json.dumps(SECRET)[1:-1], repr(SECRET)[1:-1], "k%22e"):
        assert shape not in text


def test_a_short_secret_is_masked_where_a_fact_is_nothing_else_and_leaves_words_alone(configure: Configure) -> None:
    written = configure()
    register_secret("info")
    structlog.get_logger("sixfbd.x").info("login", password="info", text="no information")
    line = json.loads(written())
    assert (line["password"], line["text"]) == ("*****", "no information")


def test_an_empty_secret_masks_nothing(configure: Configure) -> None:
    register_secret("")
    assert mask_secrets("all of it") == "all of it"


def test_the_longer_of_two_secrets_is_masked_whole(configure: Configure) -> None:
    register_secret("abcdef")
    register_secret("abcdefghi")
    assert mask_secrets("x abcdefghi abcdef") == "x ***** *****"


def run_code(code: str) -> list[str]:
    """Run code in a process of its own, without pytest's handlers; return the lines that it logged."""
    start = "import structlog, sixfbd.logs as logs\nlog = structlog.get_logger('sixfbd.x')\n"
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60, check=True)
    return done.stderr.splitlines()


def test_a_fact_whose_repr_raises_costs_the_line_and_not_the_caller() -> None:
    lines = run_code(
        "class Broken:\n"
        "    def __repr__(self): raise RuntimeError('no')\n"
        "logs.configure_logging('info', 'json')\n"
        "log.info('one', fact=Broken())\n"
        "log.info('two')\n"
    )
    assert lines[0] == "log.failed logger=sixfbd.x error=RuntimeError"
    assert json.loads(lines[1])["event"] == "two"


def test_configuring_again_changes_form_and_level_and_doubles_no_line() -> None:
    lines = run_code(
        "logs.configure_logging('info', 'console'); log.info('one'); log.debug('left out')\n"
        "logs.configure_logging('debug', 'json'); log.debug('two')\n"
    )
    assert len(lines) == 2
    assert "one" in lines[0] and not lines[0].startswith("{")
    assert json.loads(lines[1])["event"] == "two"


def test_lines_still_queued_at_the_end_of_the_process_are_written() -> None:
    lines = run_code("logs.configure_logging('info', 'json')\nfor i in range(2000): log.info('line', i=i)\n")
    assert [json.loads(line)["i"] for line in lines] == list(range(2000))


def test_a_reader_who_is_gone_does_not_end_the_process() -> None:
    code = (
        "import structlog, sixfbd.logs as logs\n"
        "writer = logs.configure_logging('info', 'json')\n"
        "for i in range(1000): structlog.get_logger('x').info('line', i=i)\n"
        "writer.flush()\n"
        "print('alive', writer.lost)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stderr.close()
        out = process.stdout.read()
        process.wait(60)
    assert out.startswith("alive") and int(out.split()[1]) > 0


def test_a_reader_who_does_not_read_delays_nobody_and_is_told_what_he_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "QUEUED_LINES", 10)
    reader, side = os.pipe()
    with os.fdopen(side, "w", closefd=True) as stream:
        writer = LogWriter(stream)
        handler = logs._QueueHandler(writer)
        handler.setFormatter(logging.Formatter("%(message)s %(count)s", defaults={"count": ""}))
        record = logging.makeLogRecord({"msg": "x" * 50_000})
        done = threading.Event()

        def log_much() -> None:
            for _ in range(100):
                handler.emit(record)
            done.set()

        threading.Thread(target=log_much).start()
        assert done.wait(10), "logging waits for its reader"
        lost = writer.lost
        assert lost >= 100 - 10 - 3
        seen: list[bytes] = []
        drain = threading.Thread(target=lambda: seen.extend(iter(lambda: os.read(reader, 65_536), b"")))
        drain.start()
        assert writer.flush(10)
        handler.emit(logging.makeLogRecord({"msg": "after"}))
        assert writer.flush(10)
        handler.close()
    drain.join(10)
    os.close(reader)
    lines = b"".join(seen).decode().splitlines()
    assert [line.strip() for line in lines[-2:]] == ["after", f"log.lines_lost {lost}"]


@pytest.mark.parametrize("form", ["console", "json"])
def test_nothing_in_a_line_steers_the_terminal_that_shows_it(configure: Configure, form: str) -> None:
    evil = "\x1b]0;owned\x07\x9b2J\u202e"
    written = configure("info", form)
    try:
        raise ValueError(evil)
    except ValueError:
        structlog.get_logger("x").exception(f"event {evil}", name=evil, several=[evil], error=ValueError(evil))
    logging.getLogger("foreign").warning("said %s", evil)
    text = written()
    assert text.count("owned") >= 5
    assert all(char.isprintable() or char == "\n" for char in text), text
    if form == "json":
        assert json.loads(text.splitlines()[0])["name"] == evil


def test_lines_of_a_traceback_stay_lines_on_the_console(configure: Configure) -> None:
    written = configure("info", "console")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    assert written().splitlines()[-2:] == ["ValueError: two", "lines"]
