"""The `log` check: requests and errors in log files or in systemd's journal, each line once, over rotation and restarts.

The cursor, committed together with what was read or not at all, says where the reading of each file stands. What lines
tell of requests is added up by minute and becomes `logged_requests`, which counts as `request` events do; the rest,
`log_lines`. A run reads a page of PAGE_BYTES in a worker thread and asks for another if there is more.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from sixfbd.plugin import (
    HOUR,
    SECOND,
    Check,
    Context,
    Counter,
    Duration,
    Event,
    EventType,
    Gauge,
    Json,
    OptionFaults,
    PluginConfig,
    Report,
    Sample,
    Status,
    hookimpl,
)
from sixfbd_plugins.checks.regex import compile_regex
from sixfbd_plugins.logs import forms, journald
from sixfbd_plugins.logs.files import LONGEST_LINE, MOST_FILES, Files, Place
from sixfbd_plugins.logs.tally import Patterns, Tally

PAGE_BYTES: Final = 2 * 1024 * 1024  # some 10,000 lines, a tenth of a second in the thread
JOURNAL_BYTES: Final = 2 * 1024 * 1024
MOST_PATTERNS: Final = 50
NAMED_EVERY_S: Final = 1 * HOUR
MISFIT: Final = 0.5  # a page of which more could not be read is of another form than configured
LOCK_S: Final = 5.0

LINES = Counter("log_lines_total", "Lines that were read.", ("log",))
UNPARSED = Counter("log_unparsed_lines_total", "Lines that have not the form that is configured.", ("log",))
CUT = Counter("log_cut_lines_total", "Lines that were longer than 16 KiB, or came without text.", ("log",))
GAPS = Counter("log_gaps_total", "Files of which the rest could no longer be found.", ("log",))
MATCHES = Counter("log_errors_total", "Lines that an error pattern matched, by the pattern's name.", ("log", "pattern"))
UNREAD = Gauge("log_unread_bytes", "Bytes of the file that have not been read yet.", ("file",))

Name = Annotated[str, Meta(max_length=200)]
Count = Annotated[int, Meta(ge=0)]


class LogLines(Struct, frozen=True):
    """Lines of a log within a minute. `log` is the check's name; `matches` by the name of the pattern."""

    log: Name
    lines: Count = 0
    unparsed: Count = 0
    cut: Count = 0
    gaps: Count = 0
    matches: Annotated[dict[Name, Count], Meta(max_length=MOST_PATTERNS)] = msgspec.field(default_factory=dict)
    begins: bool = False


def _counted(found: LogLines) -> Sequence[Sample]:
    counted = ((LINES, found.lines), (UNPARSED, found.unparsed), (CUT, found.cut), (GAPS, found.gaps))
    matched = [MATCHES(count, log=found.log, pattern=name) for name, count in found.matches.items()]
    return [*(counter(count, log=found.log) for counter, count in counted if count or found.begins), *matched]


LOG_LINES: Final = EventType(
    "log_lines",
    LogLines,
    counts=_counted,
    metrics=(LINES, UNPARSED, CUT, GAPS, MATCHES),
    doc="A log was read: how many lines of a minute, which error patterns matched, what could not be read.",
)


class JsonFields(Struct, frozen=True, forbid_unknown_fields=True):
    """Names of the fields of a JSON line; `a.b` is the field b of a."""

    time: Annotated[str, Meta(description="When: ISO 8601, as servers write it, or unix seconds.")] = "time"
    method: Annotated[str, Meta(description="Method.")] = "method"
    path: Annotated[str, Meta(description="Path, or the whole request target.")] = "path"
    status: Annotated[str, Meta(description="Status.")] = "status"
    duration: Annotated[str, Meta(description="How long it took, in duration_unit.")] = "duration"


class JournalOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What of systemd's journal is read."""

    units: Annotated[tuple[str, ...], Meta(description="Units, such as shop.service.")] = ()
    identifiers: Annotated[tuple[str, ...], Meta(description="Syslog identifiers.")] = ()
    directory: Annotated[str, Meta(description="Directory of the journal, if it is not this machine's own.")] = ""


class LogOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `log` check; `files` or `journal` is needed."""

    files: Annotated[tuple[str, ...], Meta(description="Files, whole paths; * and ? may stand for what differs.")] = ()
    journal: Annotated[JournalOptions | None, Meta(description="Read systemd's journal in place of files.")] = None
    format: Annotated[
        Literal["combined", "json", "pattern", "text"],
        Meta(
            description="Form of a line: combined (nginx, Apache), json, pattern, or text (only errors are looked for)."
        ),
    ] = "combined"
    fields: Annotated[JsonFields, Meta(description="Of json: the names of fields.")] = JsonFields()
    pattern: Annotated[
        str, Meta(description="Of pattern: RE2 with the named groups path, status, and time, method, duration.")
    ] = ""
    duration_unit: Annotated[
        Literal["", "s", "ms", "us"],
        Meta(
            description='Unit of the time a request took ("us": microseconds); of combined, of a number behind the rest.'
        ),
    ] = ""
    errors: Annotated[dict[str, str], Meta(description="RE2 by name: lines that match are counted.")] = msgspec.field(
        default_factory=dict
    )
    read_from: Annotated[
        Literal["end", "beginning"], Meta(description="Where the first run begins in files that are there already.")
    ] = "end"

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("files"):
                _validate_files(self.files, self.journal)
            with faults.at("journal"):
                if self.journal is not None and self.read_from == "beginning":
                    raise ValueError("is read from now on; drop read_from")
            with faults.at("pattern"):
                if bool(self.pattern) is not (self.format == "pattern"):
                    raise ValueError('is given if format = "pattern", and only then')
                if self.pattern:
                    forms.pattern_groups(self.pattern)
            with faults.at("duration_unit"):
                if not self.duration_unit and "duration" in _groups_of(self):
                    raise ValueError('is needed: what is the duration in, "s", "ms" or "us"?')
            with faults.at("errors"):
                _validate_errors(self.errors, self.format)


def _groups_of(options: LogOptions) -> Sequence[str]:
    """Return what a pattern that is right names."""
    try:
        return list(forms.pattern_groups(options.pattern)) if options.format == "pattern" else []
    except ValueError:
        return []


def _validate_files(files: Sequence[str], journal: JournalOptions | None) -> None:
    if bool(files) is (journal is not None):
        raise ValueError('either files or journal is needed; write files = ["/var/log/nginx/access.log"]')
    if len(files) > MOST_FILES:
        raise ValueError(f"are more than {MOST_FILES}")
    for file in files:
        if not file.startswith("/"):
            raise ValueError(f"{file!r} is no whole path, which begins with /")


def _validate_errors(errors: Mapping[str, str], form: str) -> None:
    if form == "text" and not errors:
        raise ValueError('are needed with format = "text"; write errors = {no_memory = "Out of memory"}')
    if len(errors) > MOST_PATTERNS:
        raise ValueError(f"are more than {MOST_PATTERNS}")
    for name, expression in errors.items():
        if not re.fullmatch(r"[\w.-]{1,100}", name):
            raise ValueError(f"{name!r} is no name; write letters, digits, _ . or -")
        compile_regex(expression)


class Memory(Struct, frozen=True, omit_defaults=True):
    """The cursor: where each file stands; the journal's cursor, and from when it is read as long as there is none; the
    patterns whose counters have begun."""

    places: tuple[Place, ...] = ()
    begun: bool = False
    journal: str = ""
    since: float = 0.0
    patterns: tuple[str, ...] = ()


class _Page(Struct):
    """What a run read: its sums, the cursor after it, and what people are to know."""

    tally: Tally
    after: Memory
    more: bool = False
    files: int = 0
    gaps: tuple[str, ...] = ()
    troubles: tuple[str, ...] = ()
    unread: Mapping[str, int] = {}
    example_at: str = ""


class LogCheck(Check[LogOptions]):
    """Requests and errors in log files or systemd's journal."""

    Options = LogOptions
    metrics = (UNREAD,)
    interval = Duration(10 * SECOND)
    timeout = Duration(10 * SECOND)

    def __init__(self, options: LogOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._files = Files(options.files)
        self._using = threading.Lock()  # a run that was given up may still be at it in its thread
        self._patterns = Patterns(options.errors)
        self._read = _reading(options, ZoneInfo(ctx.timezone))
        self._named_at = -NAMED_EVERY_S

    async def run(self, cursor: Json | None) -> Report:
        """Read a page. Degraded if a file cannot be read or its lines have another form; unknown if none can be."""
        before = Memory() if cursor is None else msgspec.convert(cursor, Memory)
        now = self.ctx.clock.now()
        tally = Tally(self.ctx.name, self._read, self._patterns, now)
        if self.options.journal is None:
            wall = self.ctx.clock.wall().timestamp()
            page = await self.ctx.to_thread(self._read_files, before, tally, wall)
        else:
            try:
                page = await self._read_journal(self.options.journal, before, tally, now)
            except journald.JournalError as error:
                return Report(Status.UNKNOWN, str(error))
        self._tell(page, now)
        return self._report(before, page, now)

    async def close(self) -> None:
        await self.ctx.to_thread(self._close)

    def _close(self) -> None:
        if self._using.acquire(timeout=LOCK_S):
            self._files.close()
            self._using.release()

    # ---- a page --------------------------------------------------------------------------------------------------------

    def _read_files(self, before: Memory, tally: Tally, wall: float) -> _Page:
        """In a worker thread: take each file's share of a page."""
        if not self._using.acquire(timeout=LOCK_S):
            raise TimeoutError("an earlier run still waits for a file to be read; is its disk there?")
        try:
            return self._page_of_files(before, tally, wall)
        finally:
            self._using.release()

    def _page_of_files(self, before: Memory, tally: Tally, wall: float) -> _Page:
        looked = self._files.look(before.places, from_end=not before.begun and self.options.read_from == "end")
        page = _Page(tally, before, files=len(looked.places), gaps=looked.gaps, troubles=looked.troubles)
        share = max(4 * LONGEST_LINE, PAGE_BYTES // max(1, len(looked.places)))
        after: list[Place] = []
        unread: dict[str, int] = {}
        for place in looked.places:
            piece = self._files.read(place, share, wall)
            taken = 0 if piece is None else tally.take(piece.lines)
            reached = place if piece is None else self._files.after(piece, taken)
            left = self._files.unread(place) - (reached.offset - place.offset)
            if piece is not None and tally.example is not None and not page.example_at:
                begins = piece.begins + sum(len(line) + 1 for line in piece.lines[: tally.example[0]])
                page.example_at = f"{place.path} at byte {begins}"
            page.more = page.more or (piece is not None and left > 0)
            unread[place.path] = unread.get(place.path, 0) + max(0, left)
            if left > 0 or not self._files.is_left(place, wall):
                after.append(reached)
            if not before.begun and place.offset:
                page.troubles = (*page.troubles, *self._misfits(place))
        page.unread = unread
        page.after = Memory(places=tuple(after), begun=True, patterns=self._patterns.names)
        return page

    def _misfits(self, place: Place) -> Sequence[str]:
        """Before the first line is counted, and when the check is tried: say if the file's lines have another form."""
        last = self._files.last_lines(place)
        if (misfits := sum(self._read(line) is None for line in last)) <= MISFIT * len(last):
            return ()
        return (f"{place.path}: {misfits} of its last {len(last)} lines have not the form {self.options.format!r}",)

    async def _read_journal(self, journal: JournalOptions, before: Memory, tally: Tally, now: float) -> _Page:
        since = before.since or now
        asked = journald.command(before.journal, since, journal.units, journal.identifiers, journal.directory)
        written, more = await journald.read(asked, JOURNAL_BYTES)

        def take() -> _Page:
            found = journald.page_of(written, more, before.journal)
            taken = tally.take(found.lines, found.times)
            all_taken = taken == len(found.lines)
            tally.cut += found.without_text if all_taken else 0
            reached = found.cursor if all_taken else found.cursors[taken - 1]
            after = Memory(begun=True, journal=reached, since=since, patterns=self._patterns.names)
            return _Page(tally, after, more=found.more or not all_taken, example_at="the journal")

        return await self.ctx.to_thread(take)

    # ---- what is said of it --------------------------------------------------------------------------------------------

    def _report(self, before: Memory, page: _Page, now: float) -> Report:
        tally, name = page.tally, self.ctx.name
        ends = msgspec.json.encode((before, page.after, now))
        events = list(tally.events(blake2b(ends, digest_size=12).hexdigest(), len(page.gaps)))
        if new := [one for one in self._patterns.names if one not in before.patterns or not before.begun]:
            events.insert(0, _beginning(name, new, now))
        elif not before.begun:
            events.insert(0, _beginning(name, (), now))
        troubles = [*page.troubles, *(f"the rest of {gap} cannot be found" for gap in page.gaps)]
        if tally.unread > MISFIT * tally.lines:
            troubles.append(f"{tally.unread} of {tally.lines} lines have not the form {self.options.format!r}")
        blind = page.troubles and not page.files
        status = Status.UNKNOWN if blind else Status.DEGRADED if troubles else Status.HEALTHY
        words = f"{tally.lines} lines, {tally.requests} requests" + (f", {tally.unread} unread" if tally.unread else "")
        if not before.begun and not tally.lines and page.files and self.options.read_from == "end":
            words = f"begins at the end of {page.files} file{'s' if page.files > 1 else ''}"
        samples = tuple(UNREAD(left, file=file) for file, left in page.unread.items())
        more = page.more and bool(tally.lines or page.after != before)
        return Report(
            status, "; ".join(troubles) or words, samples, tuple(events), msgspec.to_builtins(page.after), more=more
        )

    def _tell(self, page: _Page, now: float) -> None:
        """Log what was lost, and once an hour a line that could not be read, as its shape."""
        for gap in page.gaps:
            self.ctx.log.warning(
                "log.gap", file=gap, reason="it was compressed, removed or replaced before it was read"
            )
        if page.tally.example is not None and now - self._named_at >= NAMED_EVERY_S:
            self._named_at = now
            self.ctx.log.warning(
                "log.line_not_parsed",
                where=page.example_at,
                shape=page.tally.example[1],
                format=self.options.format,
                lines=page.tally.unread,
            )


def _beginning(name: str, patterns: Sequence[str], now: float) -> Event:
    """A counter begins at 0, or its first lines show in no rate."""
    data = {"log": name, "begins": True, "matches": dict.fromkeys(patterns, 0)}
    return Event(f"begins-{now:.3f}", LOG_LINES.name, now, data)


def _reading(options: LogOptions, zone: ZoneInfo) -> forms.Read:
    if options.format == "json":
        return forms.json(msgspec.structs.asdict(options.fields), options.duration_unit, zone)
    if options.format == "pattern":
        return forms.pattern(options.pattern, options.duration_unit, zone)
    return forms.combined(options.duration_unit) if options.format == "combined" else forms.text()


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[LogCheck]]:
    """The `log` check."""
    return {"log": LogCheck}


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    """What the check counts of lines; what it counts of requests is the shop's, `logged_requests`."""
    return (LOG_LINES,)
