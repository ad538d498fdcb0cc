"""sixfbctl: asks and commands the running daemon over its control socket; tables for people, `--json` for scripts.

Owns words and exit codes; what an answer means is the daemon's, how it looks is `control.show`'s. Imports neither trio
nor the engine, so that it answers at once.
"""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec
from click.shell_completion import CompletionItem

from sixfbd import __version__
from sixfbd.control import show
from sixfbd.control.address import find_socket, how_to_start, is_answered
from sixfbd.control.client import (
    ControlClient,
    ControlError,
    NotAllowedError,
    NotRunningError,
    is_lost,
)
from sixfbd.control.engine import (
    AlertView,
    CheckRun,
    EmitView,
    JournalView,
    MessageView,
    NotifyTestView,
    OnCallView,
    OutboxView,
    PluginView,
    PreviewView,
    QueryView,
    ReleaseView,
    RouteTestView,
    SeriesView,
    SilenceMade,
    SilencePreview,
    SilenceView,
    StatusView,
    TokenView,
    VerifyView,
    WhyNotView,
    WhyView,
)
from sixfbd.control.protocol import RpcError
from sixfbd.control.tables import count_line, size
from sixfbd.control.terminal import (
    FAILED,
    LOST,
    NOT_FINE,
    NOT_RUNNING,
    OK,
    Failure,
    QuietGroup,
    clean,
    completion_script,
    json_text,
    print_json,
    print_lines,
    terminal_width,
)
from sixfbd.model import CheckState, StoredEvent
from sixfbd.quantities import Duration

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

CALL_TIMEOUT_S: Final = 60.0
MOST_TIMEOUT_S: Final = 86_400.0
COMPLETION_TIMEOUT_S: Final = 1.0
STOP_POLL_S: Final = 0.1
STATES: Final = ("pending", "sending", "unknown", "accepted", "delivered", "dead", "suppressed")
RANGE_POINTS: Final = 240  # of `query --range` without --step
EPILOG: Final = """\b
Exit codes:
  0    done
  1    refused or failed; the line on stderr says why
  2    the command line is wrong
  3    the daemon is not running
  4    no answer in time, or the connection was lost
  5    check run: the check is not healthy, or not all of its report was taken
  130  ended by Ctrl-C
  141  the reader of the output left, as head does

With --json an answer is JSON on stdout, and an error is a line of JSON on stderr: {"error": {"message": ...,
"exit_code": ...}}; only what is wrong with the command line itself stays text.

The socket is looked for at --socket, $SIXFBD_SOCKET, the .run directory of the clone that sixfbctl is installed
from, then /run/sixfbd/control.sock."""


class Session:
    """Where to ask, how long to wait, how to print."""

    def __init__(self, path: Path, timeout_s: float, as_json: bool) -> None:
        self.path = path
        self.timeout_s = timeout_s
        self.as_json = as_json

    @contextmanager
    def connect(self) -> Iterator[ControlClient]:
        with _as_exit_codes(self.path), ControlClient(self.path, self.timeout_s) as client:
            yield client

    def ask(self, method: str, /, **params: Any) -> Any:
        """Return one method's result as decoded JSON."""
        with self.connect() as client:
            return client.call(method, **params)

    def show(self, result: Any, form: type[T], lines: Callable[[T], list[str]]) -> T:
        """Print a result, as it is or as lines; return it in its form."""
        try:
            value = msgspec.convert(result, form, strict=False)
        except msgspec.ValidationError as error:
            reason = f"the daemon's answer is not understood ({error})"
            raise Failure(f"{reason}; use a sixfbctl of the same version: this is {__version__}") from None
        if self.as_json:
            print_json(result)
        else:
            print_lines(lines(value))
        return value

    def say(self, result: Any, words: str) -> None:
        """Print a result as it is, or the words for it."""
        if self.as_json:
            print_json(result)
        else:
            print_lines(clean(line) for line in words.split("\n"))


@contextmanager
def _as_exit_codes(path: Path) -> Iterator[None]:
    try:
        yield
    except NotRunningError as error:
        raise Failure(f"sixfbd is not running ({error}); start it with: {how_to_start(path)}", NOT_RUNNING) from None
    except NotAllowedError as error:
        raise Failure(str(error)) from None
    except ControlError as error:
        raise Failure(str(error), LOST) from None
    except RpcError as error:
        if is_lost(error):
            raise Failure(error.message, LOST) from None
        raise Failure("\n".join([error.message, *_details(error.data)])) from None


def _details(data: Any) -> list[str]:
    return [f"  {line}" for line in data] if isinstance(data, list) else []


def _want_json(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted and isinstance(ctx.obj, Session):
        ctx.obj.as_json = True


def json_option(command: F) -> F:
    """Let a command take --json behind its name as well."""
    return click.option(
        "--json", is_flag=True, expose_value=False, callback=_want_json, help="Print the answer as JSON, for scripts."
    )(command)


def _seconds(ctx: click.Context, option: click.Parameter, given: float) -> float:
    if not 0 < given <= MOST_TIMEOUT_S:
        raise click.BadParameter(f"write seconds above 0, at most {MOST_TIMEOUT_S:g}")
    return given


class ReportsAsCommands(QuietGroup):
    """`sixfbctl NAME` is `sixfbctl report NAME` where no command and a report of the daemon's has that name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.get_command(ctx, args[0]) is not None
        if not known and any(one["name"] == args[0] for one in _offered(ctx, "report.list", "")):
            return "report", self.commands["report"], args
        return super().resolve_command(ctx, args)


@click.group(cls=ReportsAsCommands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--socket", "socket_path", metavar="PATH", help="The daemon's control socket.")
@click.option(
    "--timeout",
    default=CALL_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    callback=_seconds,
    help="Longest wait for an answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print answers as JSON, for scripts.")
@click.version_option(__version__, prog_name="sixfbctl")
@click.pass_context
def cli(ctx: click.Context, socket_path: str | None, timeout: float, as_json: bool) -> None:
    """Ask and command the running sixfbd."""
    ctx.obj = Session(find_socket(os.environ, socket_path), timeout, as_json)


pass_session = click.make_pass_decorator(Session)


# ---- completion by asking the daemon ---------------------------------------------------------------------------------


def _offered(ctx: click.Context, method: str, incomplete: str) -> list[dict[str, Any]]:
    given = ctx.find_root().params.get("socket_path")
    with (
        suppress(ControlError, RpcError),
        ControlClient(find_socket(os.environ, given), COMPLETION_TIMEOUT_S) as client,
    ):
        return list(client.call(method))
    return []


def _complete_check(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    checks = _offered(ctx, "checks", incomplete)
    return [CompletionItem(c["name"], help=c["status"]) for c in checks if c["name"].startswith(incomplete)]


def _complete_firing(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    alerts = [a for a in _offered(ctx, "alerts", incomplete) if a["state"] == "firing"]
    return [CompletionItem(a["id"], help=a["rule"]) for a in alerts if a["id"].startswith(incomplete)]


def _complete_silence(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    silences = _offered(ctx, "silence.list", incomplete)
    return [CompletionItem(s["id"], help=" ".join(s["matchers"])) for s in silences if s["id"].startswith(incomplete)]


def _complete_alert(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    alerts = _offered(ctx, "alerts", incomplete)
    return [CompletionItem(a["id"], help=a["rule"]) for a in alerts if a["id"].startswith(incomplete)]


def _complete_token(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    tokens = _offered(ctx, "token.list", incomplete)
    return [CompletionItem(t["name"]) for t in tokens if t["name"].startswith(incomplete)]


def _complete_report(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    reports = _offered(ctx, "report.list", incomplete)
    return [CompletionItem(one["name"], help=one["doc"]) for one in reports if one["name"].startswith(incomplete)]


def _complete_kept_out(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    names = [one["name"] for one in _offered(ctx, "plugins", incomplete) if "kept out" in one["error"]]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


# ---- looking ---------------------------------------------------------------------------------------------------------


@cli.command()
@json_option
@pass_session
def status(session: Session) -> None:
    """The daemon at a glance."""
    session.show(session.ask("status"), StatusView, show.show_status)


@cli.command()
@json_option
@pass_session
def checks(session: Session) -> None:
    """All checks and their last reports."""
    session.show(
        session.ask("checks"), list[CheckState], lambda view: show.show_checks(view, time.time(), terminal_width())
    )


@cli.command()
@click.argument("matcher", default="")
@click.option("--limit", default=200, show_default=True, type=click.IntRange(1, 10_000), help="At most this many.")
@json_option
@pass_session
def series(session: Session, matcher: str, limit: int) -> None:
    """Series and their last values.

    MATCHER is a selector such as 'up{job="shop"}'.
    """
    result = session.ask("series", matcher=matcher, limit=limit)
    session.show(result, SeriesView, lambda view: show.show_series(view, time.time(), terminal_width()))


@cli.command()
@click.argument("expr")
@click.option("--at", metavar="TIME", help="Evaluate then instead of now.")
@click.option("--range", "span", metavar="DURATION", help="Evaluate over the last DURATION, such as 1h.")
@click.option("--start", metavar="TIME", help="Evaluate over a span from here on.")
@click.option("--end", metavar="TIME", help="End of the span; now if left out.")
@click.option(
    "--step", metavar="DURATION", help=f"Distance of the points; the span's {RANGE_POINTS}th part if left out."
)
@json_option
@pass_session
def query(
    session: Session, expr: str, at: str | None, span: str | None, start: str | None, end: str | None, step: str | None
) -> None:
    """Evaluate PromQL, at one time or over a span.

    TIME is 2026-11-23T21:07:30Z, unix seconds, or -2h: so long ago.
    """
    now = time.time()
    if span is None and start is None:
        if end is not None or step is not None:
            raise click.UsageError("--end and --step belong to --start or --range")
        result = session.ask("query", expr=expr, at=None if at is None else _time(at, now))
    else:
        if at is not None or (span is not None and start is not None):
            raise click.UsageError("give one of --at, --range and --start")
        last = now if end is None else _time(end, now)
        first = last - _duration(span) if span is not None else _time(start or "", now)
        step_s = max((last - first) / RANGE_POINTS, 1.0) if step is None else _duration(step)
        result = session.ask("query_range", expr=expr, start=first, end=last, step=step_s)
    session.show(result, QueryView, lambda view: show.show_query(view, terminal_width()))


def _duration(text: str) -> float:
    try:
        return float(Duration.parse(text))
    except ValueError as error:
        raise click.UsageError(f"{text!r} {error}") from None


def _time(text: str, now: float) -> float:
    if text.startswith("-"):
        return now - _duration(text[1:])
    if text.startswith("+"):
        return now + _duration(text[1:])
    try:
        at = float(text)
    except ValueError:
        pass  # not unix seconds; a date then
    else:
        if math.isfinite(at):
            return at
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except ValueError:
        raise click.UsageError(f"{text!r} is not a time; write 2026-11-23T21:07:30Z, unix seconds, or -2h") from None


@cli.command()
@json_option
@pass_session
def alerts(session: Session) -> None:
    """Pending and firing alerts, worst first."""
    session.show(
        session.ask("alerts"), list[AlertView], lambda view: show.show_alerts(view, time.time(), terminal_width())
    )


@cli.command()
@click.argument("alert", shell_complete=_complete_alert)
@json_option
@pass_session
def why(session: Session, alert: str) -> None:
    """The whole story of one alert.

    What was read, decided, owed, tried and acknowledged, in order. ALERT is an id of `sixfbctl alerts`.
    """
    session.show(session.ask("why", alert=alert), WhyView, show.show_why)


@cli.group(invoke_without_command=True)
@json_option
@pass_session
@click.pass_context
def plugins(ctx: click.Context, session: Session) -> None:
    """What plugins brought, and those that were left out."""
    if ctx.invoked_subcommand is None:
        session.show(session.ask("plugins"), list[PluginView], lambda view: show.show_plugins(view, terminal_width()))


@plugins.command("release")
@click.argument("name", shell_complete=_complete_kept_out)
@json_option
@pass_session
def plugins_release(session: Session, name: str) -> None:
    """Take the plugin NAME in again, which was kept out because it blocked the daemon.

    Exit code 1 if that needs a restart.
    """
    result = session.ask("plugins.release", name=name)
    if session.show(result, ReleaseView, show.show_release).needs_restart:
        raise click.exceptions.Exit(1)


# ---- checks, alerts --------------------------------------------------------------------------------------------------


@cli.group()
def check() -> None:
    """Run a check at once, pause and resume it."""


@check.command("run")
@click.argument("name", shell_complete=_complete_check)
@json_option
@pass_session
def check_run(session: Session, name: str) -> None:
    """Run the check NAME now and show its report.

    With what of it was refused. Exit code 5 if it is not healthy or something was refused.
    """
    run = session.show(session.ask("check.run", name=name), CheckRun, show.show_check_run)
    if not run.is_fine:
        click.get_current_context().exit(NOT_FINE)


@check.command("pause")
@click.argument("name", shell_complete=_complete_check)
@json_option
@pass_session
def check_pause(session: Session, name: str) -> None:
    """Stop running a check until it is resumed.

    That holds over restarts too.
    """
    result = session.ask("check.pause", name=name)
    session.say(result, result)


@check.command("resume")
@click.argument("name", shell_complete=_complete_check)
@json_option
@pass_session
def check_resume(session: Session, name: str) -> None:
    """Run the check NAME again."""
    result = session.ask("check.resume", name=name)
    session.say(result, result)


@cli.command()
@click.argument("alert", metavar="ID", shell_complete=_complete_firing)
@click.option("--comment", default="", help="Shown with the acknowledgement.")
@json_option
@pass_session
def ack(session: Session, alert: str, comment: str) -> None:
    """Take a firing alert on.

    It neither repeats nor escalates until it ends.
    """
    result = session.ask("ack", alert=alert, comment=comment)
    session.say(result, result)


@cli.command()
@click.argument("name", required=False, shell_complete=_complete_report)
@click.argument("about", default="")
@click.option("--timeframe", metavar="DURATION", help="How far back, such as 7d; each report has a default.")
@click.option("--check", default="", help="Only what this check measured.", shell_complete=_complete_check)
@json_option
@pass_session
def report(session: Session, name: str | None, about: str, timeframe: str | None, check: str) -> None:
    """A report, such as business or payments; which there are, without NAME.

    ABOUT is what it is about, such as an order of the ledger. What nobody knows is shown as -, and why at the end.
    `sixfbctl NAME` is the same, where no command has that name.
    """
    if name is None:
        session.show(session.ask("report.list"), list[dict[str, Any]], show.show_reports)
        return
    seconds = None if timeframe is None else _duration(timeframe)
    session.show(
        session.ask("report", name=name, timeframe_s=seconds, check=check, about=about),
        dict[str, Any],
        show.show_report,
    )


@cli.command("why-not")
@click.argument("rule")
@click.argument("labels", metavar="[LABEL=VALUE...]", nargs=-1)
@click.option(
    "--at", metavar="TIME", help="A time in the past, such as -2h, as far back as samples go; now if left out."
)
@json_option
@pass_session
def why_not(session: Session, rule: str, labels: tuple[str, ...], at: str | None) -> None:
    """Why RULE does not fire for these labels, or nobody is told.

    Its expression is taken apart: what it compares, which series there are, which checks bring them.
    """
    when = None if at is None else _time(at, time.time())
    result = session.ask("why_not", rule=rule, labels=_labels(labels), at=when)
    session.show(result, WhyNotView, lambda view: show.show_why_not(view, time.time(), terminal_width()))


def _labels(pairs: tuple[str, ...]) -> dict[str, str]:
    given: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{pair!r} is not LABEL=VALUE")
        given[name] = value
    return given


# ---- silences, routes ------------------------------------------------------------------------------------------------


@cli.group()
def silence() -> None:
    """Silences: alerts that nobody is told of for a while."""


@silence.command("add")
@click.argument("matchers", metavar="MATCHER...", nargs=-1, required=True)
@click.option("--for", "duration", default="1h", show_default=True, metavar="DURATION", help="How long it lasts.")
@click.option("--until", metavar="TIME", help="When it ends, instead of --for.")
@click.option("--start", metavar="TIME", help="When it begins; now if left out.")
@click.option("--comment", default="", help="Why; shown with what it holds.")
@click.option("--dry-run", is_flag=True, help="Show which alerts it would hold, and change nothing.")
@json_option
@pass_session
def silence_add(
    session: Session,
    matchers: tuple[str, ...],
    duration: str,
    until: str | None,
    start: str | None,
    comment: str,
    dry_run: bool,
) -> None:
    """Tell nobody of the alerts that all MATCHERs match.

    A MATCHER is alertname="ServiceDown", city!="dallas" or severity=~"low|medium"; quotes may be left out. Who knows of
    such an alert is told when it ends; when the silence ends, what still fires is told to whoever does not know it.
    """
    if dry_run:
        preview = session.ask("silence.preview", matchers=matchers)
        session.show(preview, SilencePreview, lambda view: show.show_held(view, time.time(), terminal_width()))
        return
    now = time.time()
    starts_at = None if start is None else _time(start, now)
    lasts_s = _duration(duration) if until is None else _time(until, now) - (starts_at or now)
    if lasts_s <= 0:
        raise click.UsageError("it would end before it begins; write --for 2h, or a later --until")
    made = session.ask("silence.add", matchers=matchers, duration_s=lasts_s, starts_at=starts_at, comment=comment)
    session.show(made, SilenceMade, lambda view: [view.detail])


@silence.command("list")
@json_option
@pass_session
def silence_list(session: Session) -> None:
    """Silences that are not over, the next to end first."""
    result = session.ask("silence.list")
    session.show(result, list[SilenceView], lambda view: show.show_silences(view, time.time(), terminal_width()))


@silence.command("expire")
@click.argument("ids", metavar="ID...", nargs=-1, required=True, shell_complete=_complete_silence)
@json_option
@pass_session
def silence_expire(session: Session, ids: tuple[str, ...]) -> None:
    """End silences now; what still fires is told."""
    for identity in ids:
        result = session.ask("silence.expire", id=identity)
        session.say(result, result)


_wait_option = click.option(
    "--wait", "wait_s", default=30.0, show_default=True, metavar="SECONDS", type=click.FloatRange(0, 50),
    help="Longest wait for what comes of it.",
)  # fmt: skip


@cli.group()
def notify() -> None:
    """The way to people."""


@notify.command("test")
@click.argument("receivers", metavar="RECEIVER...", nargs=-1)
@_wait_option
@json_option
@pass_session
@click.pass_context
def notify_test(ctx: click.Context, session: Session, receivers: tuple[str, ...], wait_s: float) -> None:
    """Send a message that says that it is a test, through every channel of the RECEIVERs, or of all.

    It goes the way of every other message, and is in the journal as they are. Exit code 1 unless each was taken.
    """
    ctx.exit(_try_out(session, "notify.test", receivers, wait_s))


@cli.command()
@click.argument("receivers", metavar="RECEIVER...", nargs=-1)
@_wait_option
@json_option
@pass_session
@click.pass_context
def drill(ctx: click.Context, session: Session, receivers: tuple[str, ...], wait_s: float) -> None:
    """Hold a drill now, through every channel of the RECEIVERs, or of all.

    As `notify test`, with messages that say that they are a drill; one that does not arrive is an alert (DrillFailed) until one
    has. Exit code 1 unless each was taken.
    """
    ctx.exit(_try_out(session, "drill", receivers, wait_s))


def _try_out(session: Session, method: str, receivers: tuple[str, ...], wait_s: float) -> int:
    """Have the way to people tried out, and print what came of it; the exit code says whether each message was taken."""
    result = session.ask(method, receivers=receivers, wait_s=wait_s)
    view = session.show(result, NotifyTestView, lambda view: show.show_notify_test(view, terminal_width()))
    return OK if all(one.state in ("accepted", "delivered") for one in view.targets) else FAILED


@cli.group()
def route() -> None:
    """The tree of routes: who is told of what."""


@route.command("test")
@click.argument("labels", metavar="LABEL=VALUE...", nargs=-1, required=True)
@json_option
@pass_session
@click.pass_context
def route_test(ctx: click.Context, session: Session, labels: tuple[str, ...]) -> None:
    """Who would be told of an alert with these labels, and why.

    Of a rule that the daemon knows (alertname=NAME) its labels and its severity are filled in. Exit code 1 if nobody
    would be told.
    """
    view = session.show(session.ask("route.test", labels=_labels(labels)), RouteTestView, show.show_route_test)
    ctx.exit(FAILED if view.nobody else OK)


@cli.command()
@click.argument("name", required=False)
@click.option("--at", metavar="TIME", help="A time, such as +8h or 2026-12-24T20:00; now if left out.")
@json_option
@pass_session
def oncall(session: Session, name: str | None, at: str | None) -> None:
    """Who is on call, until when, and who is next.

    NAME is one of [oncall.NAME]; all are listed if it is left out.
    """
    when = None if at is None else _time(at, time.time())
    result = session.ask("oncall", name=name, at=when)
    session.show(result, list[OnCallView], lambda views: show.show_on_call(views, terminal_width()))


# ---- events ----------------------------------------------------------------------------------------------------------


@cli.group(invoke_without_command=True)
@click.option("--follow", "-f", is_flag=True, help="Print events as they come, until Ctrl-C.")
@click.option("--type", "event_type", metavar="TYPE", help="Events of this type only.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="The last so many.")
@json_option
@click.pass_context
def events(ctx: click.Context, follow: bool, event_type: str | None, limit: int) -> None:
    """The last events, those to come, one of your own."""
    if ctx.invoked_subcommand is not None:
        return
    session = ctx.find_object(Session)
    assert session is not None
    with session.connect() as client:
        known = client.call("events.list", type=event_type, limit=limit)
        if session.as_json and not follow:
            print_json(known)
            return
        for event in known:
            _print_event(session, event)
        if not known and not follow:
            click.echo("no events")
        if follow:
            last = known[-1]["seq"] if known else None
            for event in client.stream("events.follow", type=event_type, after=last):
                _print_event(session, event)


def _print_event(session: Session, event: Any) -> None:
    if session.as_json:
        click.echo(json_text(event))
    else:
        click.echo(show.show_event(msgspec.convert(event, StoredEvent)))


@events.command()
@click.argument("event_type", metavar="TYPE")
@click.argument("pairs", metavar="KEY=VALUE...", nargs=-1)
@click.option("--id", "event_id", metavar="ID", help="Its id; an id known for 7 days is a duplicate.")
@click.option("--timestamp", metavar="TIME", help="When it happened; now if left out.")
@json_option
@pass_session
def emit(
    session: Session, event_type: str, pairs: tuple[str, ...], event_id: str | None, timestamp: str | None
) -> None:
    """Tell the daemon of one event.

    A VALUE that reads as JSON is taken so (quantity=2, vip=true, tags='["a"]'), any other as text; note='"5"' is the
    text 5.
    """
    at = None if timestamp is None else _time(timestamp, time.time())
    result = session.ask("events.emit", type=event_type, data=_data(pairs), id=event_id, timestamp=at)
    session.show(result, EmitView, _emit_words)


def _emit_words(view: EmitView) -> list[str]:
    number = "" if view.seq is None else f" as number {view.seq}"
    return [f"known already{number}: {view.id}" if view.duplicate else f"taken{number}: {view.id}"]


def _data(pairs: tuple[str, ...]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{pair!r} is not KEY=VALUE")
        try:
            data[key] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            data[key] = text
    return data


# ---- outbox ----------------------------------------------------------------------------------------------------------


@cli.group()
def outbox() -> None:
    """What is owed and what was sent."""


@outbox.command("list")
@click.option("--state", type=click.Choice(STATES), help="Those in this state only.")
@click.option("--open", "still_open", is_flag=True, help="Those not yet done with: pending, sending, unknown.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000), help="The last so many.")
@json_option
@pass_session
def outbox_list(session: Session, state: str | None, still_open: bool, limit: int) -> None:
    """Messages, newest first."""
    result = session.ask("outbox.list", state="open" if still_open else state, limit=limit)
    session.show(result, OutboxView, lambda view: show.show_outbox(view, time.time(), terminal_width()))


@outbox.command("show")
@click.argument("message", metavar="ID")
@json_option
@pass_session
def outbox_show(session: Session, message: str) -> None:
    """One message, what it carries and every try."""
    session.show(session.ask("outbox.show", id=message), MessageView, show.show_message)


@outbox.command("retry")
@click.argument("messages", metavar="ID...", nargs=-1, required=True)
@json_option
@pass_session
def outbox_retry(session: Session, messages: tuple[str, ...]) -> None:
    """Send again what was given up, as far as it is still so."""
    for message in messages:
        result = session.ask("outbox.retry", id=message)
        session.say(result, result)


@outbox.command("drop")
@click.argument("messages", metavar="ID...", nargs=-1, required=True)
@json_option
@pass_session
def outbox_drop(session: Session, messages: tuple[str, ...]) -> None:
    """Give messages up that are not sent yet."""
    for message in messages:
        result = session.ask("outbox.drop", id=message)
        session.say(result, result)


# ---- tokens ----------------------------------------------------------------------------------------------------------


@cli.group()
def token() -> None:
    """Access tokens of the HTTP interface."""


@token.command("create")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, default=("events",), show_default=True, help="events, alerts or read."
)
@json_option
@pass_session
def token_create(session: Session, name: str, scopes: tuple[str, ...]) -> None:
    """Make a token and print it, the only time."""
    result = session.ask("token.create", name=name, scopes=scopes)
    session.say(result, result["token"])


@token.command("list")
@json_option
@pass_session
def token_list(session: Session) -> None:
    """Tokens by name, without the tokens."""
    session.show(session.ask("token.list"), list[TokenView], lambda view: show.show_tokens(view, terminal_width()))


@token.command("revoke")
@click.argument("name", shell_complete=_complete_token)
@json_option
@pass_session
def token_revoke(session: Session, name: str) -> None:
    """Make the token NAME worthless at once."""
    result = session.ask("token.revoke", name=name)
    session.say(result, result)


# ---- journal ---------------------------------------------------------------------------------------------------------


@cli.group()
def journal() -> None:
    """The journal: its state, its truth, copies of it."""


@journal.command("status")
@json_option
@pass_session
def journal_status(session: Session) -> None:
    """Sizes, counts and ages."""
    session.show(session.ask("journal.status"), JournalView, show.show_journal)


@journal.command("verify")
@json_option
@pass_session
@click.pass_context
def journal_verify(ctx: click.Context, session: Session) -> None:
    """Check it against itself; exit code 1 if wrong."""
    session.timeout_s = max(session.timeout_s, 1800)
    view = session.show(session.ask("journal.verify"), VerifyView, _verify_words)
    ctx.exit(1 if view.problems else 0)


def _verify_words(view: VerifyView) -> list[str]:
    checked = f" ({count_line(view.checked)})" if view.checked else ""
    return [clean(problem) for problem in view.problems] or [f"nothing is wrong{checked}"]


@journal.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@pass_session
def journal_backup(session: Session, file: Path) -> None:
    """Write a whole copy to FILE while the daemon runs.

    The daemon writes it, as its own user, and overwrites nothing.
    """
    session.timeout_s = max(session.timeout_s, 1800)
    result = session.ask("journal.backup", path=str(file.absolute()))
    session.say(result, f"wrote {result['path']} ({size(result['size_bytes'])})")


@journal.command("erase")
@click.argument("who", metavar="customer=ID")
@click.option("--dry-run", is_flag=True, help="Say how many events it would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask whether to do it.")
@json_option
@pass_session
def journal_erase(session: Session, who: str, dry_run: bool, yes: bool) -> None:
    """Forget a customer: in every event "erased" takes their place.

    Sums stay as they are. It cannot be undone. Backups and copies are not reached: those beside the journal are named.
    """
    kind, _, customer = who.partition("=")
    if kind != "customer" or not customer:
        raise Failure(
            "write customer=ID, as the shop calls them; of names, e-mail addresses and telephone numbers nothing is kept "
            "by which somebody could be found"
        )
    session.timeout_s = max(session.timeout_s, 1800)
    found = session.ask("journal.erase", customer=customer, dry_run=True)
    if not dry_run:
        if not yes and found["events"]:
            click.confirm(f"Forget this customer in {found['events']} events, for good?", abort=True, err=True)
        found = session.ask("journal.erase", customer=customer)
    words = f"{'' if found['done'] else 'would be '}erased in {found['events']} events"
    left = [f"not reached, delete it when it is no longer needed: {path}" for path in found["not_reached"]]
    session.say(found, "\n".join([words, *left, "not reached: backups that were made elsewhere"]))


@journal.command("export")
@pass_session
def journal_export(session: Session) -> None:
    """Print all of it as lines of JSON, oldest first."""
    with session.connect() as client:
        for line in client.stream("journal.export"):
            click.echo(json_text(line))


# ---- the daemon ------------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--preview", is_flag=True, help="Show what a reload would do, and do nothing.")
@json_option
@click.pass_context
def reload(ctx: click.Context, preview: bool) -> None:
    """Take the configuration in anew, all or nothing.

    With --preview nothing happens: it shows which checks, notifiers and rules would be kept, added, changed, restarted
    and dropped, which alerts would fire, resolve or be told to others, and what needs a restart of the daemon. Exit
    code 1 if the reload would be refused.
    """
    session = ctx.find_object(Session)
    assert session is not None
    if not preview:
        result = session.ask("reload")
        session.say(result, "\n".join(result["changed"]) or "nothing has changed")
        return
    result = session.ask("reload.preview")
    view = session.show(result, PreviewView, lambda view: show.show_preview(view, time.time(), terminal_width()))
    ctx.exit(FAILED if view.needs_restart else OK)


@cli.command()
@click.option("--wait/--no-wait", default=True, show_default=True, help="Return when the daemon has ended.")
@json_option
@pass_session
def stop(session: Session, wait: bool) -> None:
    """Drain and stop the daemon."""
    result = session.ask("stop")
    if wait:
        _await_end(session.path, result["pid"], result["within_s"] + 5)
    session.say(result, "stopped" if wait else "stopping")


def _await_end(path: Path, pid: int, within_s: float) -> None:
    give_up_at = time.monotonic() + within_s
    while _lives(pid) or is_answered(path):
        if time.monotonic() > give_up_at:
            raise Failure(f"the daemon (pid {pid}) has not ended within {within_s:g} s", LOST)
        time.sleep(STOP_POLL_S)


def _lives(pid: int) -> bool:
    """Return whether a process exists and is no zombie that its parent has yet to collect."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell's completion script.

    For bash: eval "$(sixfbctl completion bash)".
    """
    click.echo(completion_script(cli, "sixfbctl", shell))


def main() -> None:
    """Run sixfbctl with this process's arguments."""
    cli(prog_name="sixfbctl")
