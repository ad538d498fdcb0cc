"""The daemon as the control socket sees it (`sixfbd.control.engine.ControlEngine`): facts of the parts in sixfbctl's forms."""

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from sixfbd import __version__
from sixfbd.config.text import did_you_mean
from sixfbd.control.engine import (
    BackupView,
    CheckRun,
    EmitView,
    ErasedView,
    JournalView,
    MessageView,
    NotifyTestView,
    OnCallView,
    OutboxView,
    PluginView,
    PreviewView,
    QuerySeries,
    QueryView,
    ReleaseView,
    ReloadView,
    RouteTestView,
    SeriesLine,
    SeriesView,
    SilenceMade,
    SilencePreview,
    SilenceView,
    StatusView,
    StopView,
    TestedTarget,
    TokenMade,
    TokenView,
    VerifyView,
    WhyNotView,
    WhyView,
    alert_view,
    number,
)
from sixfbd.control.plugin_list import plugin_views
from sixfbd.control.protocol import Refused
from sixfbd.http.engine import ReportFailed, ReportInfo
from sixfbd.intake import Refused as EventRefused
from sixfbd.journal.errors import JournalError
from sixfbd.journal.event_log import Duplicate
from sixfbd.journal.record_log import AmbiguousIdError
from sixfbd.journal.records import (
    Audited,
    MessageChanged,
    ObligationChanged,
    Owed,
    Record,
    TokenChanged,
)
from sixfbd.journal.state import account
from sixfbd.kept_out import release
from sixfbd.logs import register_secret
from sixfbd.model import (
    OPEN_STATES,
    Ack,
    Actor,
    AddSilence,
    Alert,
    AlertState,
    CheckName,
    CheckState,
    DropMessage,
    Event,
    ExpireSilence,
    HoldDrill,
    Json,
    Message,
    MessageId,
    Obligation,
    Outcome,
    PauseCheck,
    RetryMessage,
    StoredEvent,
    TestNotify,
)
from sixfbd.promql import PromQLError, QueryError, QueryStopped, Value
from sixfbd.readers import tokens
from sixfbd.readers.addresses import Addresses
from sixfbd.readers.check_run import check_run
from sixfbd.readers.condition import blind_before_start_s, heartbeat_words, nobody_told, problems, spent_budgets
from sixfbd.readers.reports import listed, report
from sixfbd.readers.routing import matched, on_call_view, route_of
from sixfbd.readers.why import why
from sixfbd.readers.why_not import why_not
from sixfbd.running import Running
from sixfbd.schedule import NotRunError

MESSAGE_SCAN: Final = 2000  # records of messages looked through for those that ended
RECORDS_PAGE: Final = 500

Reload = Callable[[Actor], Awaitable[tuple[str, ...]]]
Preview = Callable[[], Awaitable[PreviewView]]


class ControlView:
    """`ControlEngine` over a running daemon. `reload` and `preview` raise Refused for what cannot be taken over."""

    def __init__(self, running: Running, reload: Reload, preview: Preview) -> None:
        self._running = running
        self._reload = reload
        self._preview = preview

    # ---- at a glance -----------------------------------------------------------------------------------------------------

    async def status(self) -> StatusView:
        running, state = self._running, self._running.judge.state
        await trio.lowlevel.checkpoint()
        checks = running.schedule.states()
        alerts = list(state.alerts.values())
        firing = [alert for alert in alerts if alert.state is AlertState.FIRING]
        messages = running.judge.messages_by_state()
        return StatusView(
            version=__version__,
            pid=os.getpid(),
            now=running.world.clock.now(),
            started_at=running.started_at,
            site=running.config.site.name,
            state="stopping" if running.stop.is_set() else "running" if running.ready else "starting",
            volatile=running.judge.journal_failing,
            config_files=running.config.files,
            config_hash=running.config.text_hash,
            state_directory=running.config.daemon.state_directory,
            http=running.url,
            public=running.public.url,
            sandbox=running.config.daemon.sandbox,
            checks=dict(Counter(check.status.value for check in checks)),
            paused=tuple(check.name for check in checks if check.paused),
            alerts=dict(Counter(alert.severity.value for alert in firing)),
            pending_alerts=len(alerts) - len(firing),
            messages=dict(messages),
            oldest_message_s=running.judge.oldest_message_age_s() if messages else None,
            rules=len(running.rules),
            series=sum(running.window.series_count(name) for name in running.window.checks()),
            events=running.journal.last_event_seq,
            awaited=tuple(check.name for check in checks if check.last_run_at is None and not check.paused),
            blind_before_start_s=blind_before_start_s(state.started),
            stood_still=running.stood_still,
            clock_offset_s=running.clock.wall_offset_s(),
            heartbeat=heartbeat_words(running),
            nobody_told=nobody_told(running),
            problems=(*problems(running), *running.problems, *_failing_rules(running), *spent_budgets(running)),
        )

    async def checks(self) -> Sequence[CheckState]:
        await trio.lowlevel.checkpoint()
        return self._running.schedule.states()

    async def run_check(self, name: str, actor: Actor) -> CheckRun:
        began = self._running.world.clock.now()
        try:
            ran = await self._running.schedule.run_now(CheckName(name))
        except NotRunError as error:
            raise Refused(str(error)) from error
        remarks = self._running.intake.remarks(ran.report)
        return check_run(name, ran, remarks, self._running.world.clock.now() - began)

    async def pause_check(self, name: str, paused: bool, actor: Actor) -> str:
        schedule, check = self._running.schedule, CheckName(name)
        if schedule.state(check) is None:
            raise Refused(f'there is no check "{name}"; sixfbctl checks lists them')
        return _done(await self._running.judge.command(PauseCheck(name, paused), actor))

    # ---- series ------------------------------------------------------------------------------------------------------------

    async def series(self, matcher: str, limit: int) -> SeriesView:
        try:
            found = self._running.reader.matching(matcher)
        except PromQLError as error:
            raise Refused(str(error)) from error
        await trio.lowlevel.checkpoint()
        lines = tuple(
            SeriesLine(series_text(series), series.kind.value, number(value), at_ms / 1000)
            for series, at_ms, value, _ in found[:limit]
        )
        return SeriesView(lines, len(found))

    async def query(self, expr: str, at: float | None) -> QueryView:
        at = self._running.world.clock.now() if at is None else at
        return _query_view(await self._evaluate(expr, at, at, 1.0), instant=True)

    async def query_range(self, expr: str, start: float, end: float, step: float) -> QueryView:
        return _query_view(await self._evaluate(expr, start, end, step), instant=False)

    async def _evaluate(self, expr: str, start: float, end: float, step: float) -> Value:
        try:
            return (await self._running.reader.evaluate(expr, start, end, step))[1]
        except (PromQLError, QueryError, QueryStopped) as error:
            raise Refused(str(error)) from error

    # ---- alerts and what is owed ---------------------------------------------------------------------------------------------

    async def alerts(self) -> Sequence[Alert]:
        await trio.lowlevel.checkpoint()
        return sorted(self._running.judge.state.alerts.values(), key=lambda alert: (-alert.severity.rank, alert.since))

    async def ack(self, alert: str, comment: str, actor: Actor) -> str:
        return _done(await self._running.judge.command(Ack(alert, comment), actor))

    async def silences(self) -> Sequence[SilenceView]:
        await trio.lowlevel.checkpoint()
        state, now = self._running.judge.state, self._running.world.clock.now()
        views = [
            SilenceView(
                id=one.id,
                state="active" if one.starts_at <= now else "pending",
                matchers=one.matchers,
                starts_at=one.starts_at,
                ends_at=one.ends_at,
                author=one.author,
                comment=one.comment,
                matches=len(matched(state, one.matchers)),
            )
            for one in state.silences.values()
            if one.ends_at > now
        ]
        return sorted(views, key=lambda one: (one.ends_at, one.id))

    async def preview_silence(self, matchers: tuple[str, ...]) -> SilencePreview:
        await trio.lowlevel.checkpoint()
        try:
            found = matched(self._running.judge.state, matchers)
        except ValueError as error:
            raise Refused(str(error)) from error
        return SilencePreview(tuple(map(alert_view, found)))

    async def add_silence(self, command: AddSilence, actor: Actor) -> SilenceMade:
        outcome = await self._running.judge.command(command, actor)
        return SilenceMade(outcome.id, _done(outcome))

    async def expire_silence(self, silence: str, actor: Actor) -> str:
        return _done(await self._running.judge.command(ExpireSilence(silence), actor))

    async def test_notify(self, receivers: tuple[str, ...], wait_s: float, actor: Actor) -> NotifyTestView:
        return await self._try_out(TestNotify(receivers), wait_s, actor)

    async def hold_drill(self, receivers: tuple[str, ...], wait_s: float, actor: Actor) -> NotifyTestView:
        return await self._try_out(HoldDrill(receivers), wait_s, actor)

    async def _try_out(self, command: TestNotify | HoldDrill, wait_s: float, actor: Actor) -> NotifyTestView:
        judge, began = self._running.judge, self._running.world.clock.now()
        outcome = await judge.command(command, actor)
        _done(outcome)
        ended = trio.Event()

        def look(records: Sequence[Record]) -> None:
            if outcome.id not in judge.state.open_of:
                ended.set()

        with trio.move_on_after(wait_s):
            end = judge.listen(look)
            try:
                look(())
                await ended.wait()
            finally:
                end()
        owed = [one for one in await self._running.journal.history(outcome.id) if isinstance(one, Owed)]
        tested = [await self._tested(one.obligation, began) for one in owed]
        return NotifyTestView(tuple(sorted(tested, key=lambda one: one.target)))

    async def _tested(self, owed: Obligation, began: float) -> TestedTarget:
        """What an obligation has come to by now."""
        records = await self._running.journal.history(owed.id)
        now = account(records)[owed.id]
        last = [one.message.last_error for one in records if isinstance(one, MessageChanged)]
        reason = now.reason or (last[-1] if last else "")
        return TestedTarget(self._addresses().target(owed.target), now.state, now.changed_at - began, reason)

    async def test_route(self, labels: dict[str, str]) -> RouteTestView:
        await trio.lowlevel.checkpoint()
        judge, now = self._running.judge, self._running.world.clock.now()
        try:
            return route_of(judge.policy, judge.state, labels, now, self._addresses())
        except ValueError as error:
            raise Refused(str(error)) from error

    async def oncall(self, name: str | None, at: float | None) -> Sequence[OnCallView]:
        await trio.lowlevel.checkpoint()
        rotations = self._running.judge.policy.routing.rotations
        if name is not None and name not in rotations:
            hint = did_you_mean(name, rotations) or "sixfbctl oncall lists them"
            raise Refused(f'there is no [oncall.NAME] of the name "{name}"; {hint}')
        moment = self._running.world.clock.now() if at is None else at
        try:
            return [
                on_call_view(one, rotations[one], moment) for one in sorted(rotations) if name is None or name == one
            ]
        except (OverflowError, ValueError, OSError):
            raise Refused("no calendar goes as far as that time; ask about an earlier one") from None

    async def outbox(self, state: str | None, limit: int) -> OutboxView:
        held = self._running.judge.state
        states = OPEN_STATES if state == "open" else None if state is None else {state}
        found: dict[str, Message] = {}
        if states is None or not states <= OPEN_STATES:
            found = {message.id: message for message in await self._latest_messages()}
        found |= {message.id: message for message in held.messages.values()}
        wanted = [message for message in found.values() if states is None or message.state in states]
        wanted.sort(key=lambda message: (message.created_at, message.id), reverse=True)
        owed: Counter[str] = Counter(obligation.state for obligation in held.obligations.values())
        shown = tuple(self._addresses().message(message) for message in wanted[:limit])
        return OutboxView(shown, {str(state): count for state, count in owed.items()})

    async def _latest_messages(self) -> list[Message]:
        """The last form of the messages that changed last; the newest record of each comes last."""
        last = self._running.journal.last_record_seq
        after = max(0, last - MESSAGE_SCAN)
        found: dict[str, Message] = {}
        while page := await self._running.journal.records(after, kinds=("message",), limit=RECORDS_PAGE):
            for stored in page:
                if isinstance(stored.record, MessageChanged):
                    found[stored.record.message.id] = stored.record.message
            after = page[-1].seq
        return list(found.values())

    async def drop_message(self, id: str, actor: Actor) -> str:  # noqa: A002 - a message's field
        return _done(await self._running.judge.command(DropMessage(MessageId(id)), actor))

    async def retry_message(self, id: str, actor: Actor) -> str:  # noqa: A002 - a message's field
        carried = tuple((await self._carried(await self._changes(id))).values())
        return _done(await self._running.judge.command(RetryMessage(MessageId(id), carried), actor))

    async def message(self, id: str) -> MessageView:  # noqa: A002 - a message's field
        changes = await self._changes(id)
        carried = await self._carried(changes)
        shown = self._addresses()
        return MessageView(
            shown.message(changes[-1].message),
            tuple(map(shown.obligation, carried.values())),
            tuple(msgspec.structs.replace(one, message=shown.message(one.message)) for one in changes),
        )

    async def _changes(self, message: str) -> tuple[MessageChanged, ...]:
        history = await self._running.journal.history(message)
        changes = tuple(one for one in history if isinstance(one, MessageChanged) and one.message.id == message)
        if not changes:
            raise Refused(f"there is no message {message}; sixfbctl outbox list shows them")
        return changes

    async def _carried(self, changes: Sequence[MessageChanged]) -> dict[str, Obligation]:
        """Return what a message carries, each obligation as it is by now."""
        message = changes[-1].message
        carried: dict[str, Obligation] = {}
        for identity in message.obligations:
            for record in await self._running.journal.history(identity):
                if isinstance(record, Owed):
                    carried[identity] = record.obligation
                elif isinstance(record, ObligationChanged) and identity in carried:
                    carried[identity] = msgspec.structs.replace(
                        carried[identity], state=record.state, reason=record.reason, changed_at=record.at
                    )
                elif isinstance(record, MessageChanged) and carried[identity].state != "suppressed":
                    carried[identity] = msgspec.structs.replace(
                        carried[identity], state=record.message.state, message=record.message.id, changed_at=record.at
                    )
        return carried

    async def why(self, alert: str) -> WhyView:
        try:
            found = await why(self._running, alert, self._addresses())
        except AmbiguousIdError as error:
            raise Refused(str(error)) from error
        if found is None:
            raise Refused(f"there is no alert {alert}; sixfbctl alerts lists those that are open")
        return found

    async def why_not(self, rule: str, labels: dict[str, str], at: float | None) -> WhyNotView:
        try:
            return await why_not(self._running, rule, labels, at)
        except KeyError:
            known = self._running.evaluator.rules.rules
            hint = did_you_mean(rule, known) or "`sixfbd rules` lists them"
            raise Refused(f'there is no rule "{rule}"; {hint}') from None
        except (PromQLError, QueryError, QueryStopped) as error:
            raise Refused(str(error)) from error

    async def reports(self) -> Sequence[ReportInfo]:
        await trio.lowlevel.checkpoint()
        return listed(self._running)

    async def report(self, name: str, timeframe_s: float | None, check: str, about: str) -> Mapping[str, Any]:
        known = self._running.catalog.reports
        if name not in known:
            raise Refused(f'there is no report "{name}"; {did_you_mean(name, known) or "`sixfbctl report` lists them"}')
        if check and check not in self._running.checks:
            raise Refused(f'there is no check "{check}"; sixfbctl checks lists them')
        try:
            return await report(self._running, name, timeframe_s, check, about)
        except ReportFailed as error:
            raise Refused(str(error)) from error

    # ---- events ------------------------------------------------------------------------------------------------------------

    async def emit(
        self,
        type: str,  # noqa: A002 - an event's field
        data: dict[str, Any],
        id: str | None,  # noqa: A002 - an event's field
        timestamp: float | None,
        actor: Actor,
    ) -> EmitView:
        world = self._running.world
        at = world.clock.now() if timestamp is None else timestamp
        event = Event(id or world.new_id("event"), type, at, data)
        try:
            [taken] = await self._running.intake.events("control", [event])
        except JournalError as error:
            raise Refused(str(error)) from error
        if isinstance(taken, EventRefused):
            raise Refused(f"the event is refused: {taken.field}: {taken.message}")
        return EmitView(event.id, taken.seq, isinstance(taken, Duplicate))

    async def events(self, type: str | None, limit: int) -> Sequence[StoredEvent]:  # noqa: A002 - an event's field
        types = None if type is None else (type,)
        return (await self._running.journal.events(types=types, limit=limit, newest_first=True))[::-1]

    async def follow_events(
        self,
        type: str | None,  # noqa: A002 - an event's field
        after: int | None,
    ) -> AsyncIterator[StoredEvent]:
        journal = self._running.journal
        types = None if type is None else (type,)
        seq = journal.last_event_seq if after is None else after
        with journal.subscribe() as news:
            while True:
                page = await journal.events(seq, types=types, limit=RECORDS_PAGE)
                for stored in page:
                    yield stored
                    seq = stored.seq
                if not page:
                    try:
                        await news.receive()
                    except trio.EndOfChannel:
                        return

    # ---- plugins, tokens -----------------------------------------------------------------------------------------------------

    async def plugins(self) -> Sequence[PluginView]:
        await trio.lowlevel.checkpoint()
        running = self._running
        checks = {str(name): check.plugin for name, check in running.checks.items()}
        notifiers = {name: one.plugin for name, one in running.notifiers.items()}
        inbound = {name: one.kind for name, one in running.inbound.instances.items()}
        return plugin_views(running.catalog, checks, notifiers, inbound)

    async def release_plugin(self, name: str, actor: Actor) -> ReleaseView:
        """Remove the plugin's note, then reload; what a reload refuses waits for a restart, and the note is gone."""
        directory = Path(self._running.config.daemon.state_directory)
        try:
            released = await self._running.world.offload(release, directory, name)
        except OSError as error:
            raise Refused(f"plugin {name} cannot be released: {error}") from error
        if not released:
            kept = ", ".join(one.name for one in self._running.catalog.plugins if one.kept_out) or "none"
            raise Refused(f"plugin {name} is not kept out; those that are: {kept}")
        try:
            return ReleaseView(name, changed=await self._reload(actor))
        except Refused as error:
            return ReleaseView(name, needs_restart=str(error))

    async def create_token(self, name: str, scopes: tuple[str, ...], actor: Actor) -> TokenMade:
        if name in self._running.judge.state.tokens or name in self._running.config.tokens:
            raise Refused(f'there is a token "{name}" already; revoke it first, or take another name')
        unknown = sorted(set(scopes) - set(tokens.SCOPES))
        if unknown or not scopes:
            raise Refused(f"the scopes are {', '.join(tokens.SCOPES)}; not {', '.join(unknown) or 'none'}")
        secret = tokens.new_token()
        register_secret(secret)
        now = self._running.world.clock.now()
        made = TokenChanged(now, name, tokens.digest(secret), tuple(sorted(set(scopes))), actor.name)
        _done(await self._running.judge.note([made]))
        return TokenMade(name, secret, made.scopes)

    async def tokens(self) -> Sequence[TokenView]:
        await trio.lowlevel.checkpoint()
        fixed = [
            TokenView(name=name, scopes=token.scopes, fixed=True) for name, token in self._running.config.tokens.items()
        ]
        made = [
            TokenView(name=one.name, scopes=one.scopes, made_at=one.at, by=one.by)
            for one in self._running.judge.state.tokens.values()
        ]
        return sorted([*fixed, *made], key=lambda token: token.name)

    async def revoke_token(self, name: str, actor: Actor) -> str:
        if name in self._running.config.tokens:
            raise Refused(f'token "{name}" is fixed in the configuration; take it out there and reload')
        held = self._running.judge.state.tokens.get(name)
        if held is None:
            raise Refused(f'there is no token "{name}"; sixfbctl token list shows them')
        now = self._running.world.clock.now()
        gone = msgspec.structs.replace(held, at=now, by=actor.name, revoked=True)
        _done(await self._running.judge.note([gone]))
        return f'token "{name}" is revoked'

    # ---- life ------------------------------------------------------------------------------------------------------------------

    async def reload(self, actor: Actor) -> ReloadView:
        return ReloadView(await self._reload(actor), self._running.config.text_hash)

    async def preview_reload(self) -> PreviewView:
        return await self._preview()

    async def stop(self, actor: Actor) -> StopView:
        await trio.lowlevel.checkpoint()
        self._running.stop.set()
        return StopView(os.getpid(), float(self._running.config.daemon.stop_timeout))

    async def journal_status(self) -> JournalView:
        running = self._running
        facts = msgspec.to_builtins(await running.journal.status())
        store = running.store
        size = await running.world.offload(lambda: store.path.stat().st_size)
        samples = {
            "path": str(store.path),
            "size_bytes": size,
            "queued": store.queued,
            "dropped": store.dropped,
            "problem": store.problem or "",
        }
        return JournalView(
            {f"journal.{key}": value for key, value in facts.items()}
            | {f"samples.{key}": value for key, value in samples.items()}
        )

    async def journal_verify(self) -> VerifyView:
        status = await self._running.journal.status()
        problems = await self._running.journal.verify()
        problems += await self._running.world.offload(self._running.store.verify)
        checked = {"records": status.records, "events": status.events, "step_series": status.step_series}
        return VerifyView(checked, tuple(problems))

    async def journal_backup(self, path: str, actor: Actor) -> BackupView:
        target = Path(path)
        if not target.is_absolute():
            raise Refused(f"{path}: give an absolute path; the daemon writes it as its own user")
        try:
            await self._running.journal.backup(target)
        except JournalError as error:
            raise Refused(str(error)) from error
        except OSError as error:  # such as a name that is too long
            raise Refused(f"{path}: {error.strerror or error}; give another path") from error
        size = await self._running.world.offload(lambda: target.stat().st_size)
        return BackupView(path, size)

    async def journal_erase(self, customer: str, dry_run: bool, actor: Actor) -> ErasedView:
        privacy, journal = self._running.intake.privacy, self._running.journal
        assert privacy is not None, "a daemon has one"
        try:
            events = await journal.forget({customer, privacy.pseudonym(customer)}, dry_run=dry_run)
        except JournalError as error:
            raise Refused(str(error)) from error
        beside = await self._running.world.offload(journal.copies)
        return ErasedView(events, not dry_run, tuple(beside))

    async def journal_export(self) -> AsyncIterator[Json]:
        async with aclosing(self._running.journal.export()) as lines:
            async for line in lines:
                record: Json = msgspec.json.decode(line)
                yield self._addresses().everywhere(record) if b'"address"' in line else record

    def _addresses(self) -> Addresses:
        return Addresses(self._running.config, self._running.catalog)

    async def audit(self, actor: Actor, command: str, outcome: str) -> None:
        now = self._running.world.clock.now()
        await self._running.judge.note([Audited(now, actor.name, command, outcome)])


def series_text(series: Any) -> str:
    """Return a series as PromQL writes it: metric{a="b"}."""
    inside = ", ".join(f'{name}="{_escape(value)}"' for name, value in series.labels)
    return f"{series.metric}{{{inside}}}" if inside else str(series.metric)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _failing_rules(running: Running) -> list[str]:
    return [f"rule {name} failed {count} times" for name, count in sorted(running.evaluator.failures.items()) if count]


def _done(outcome: Outcome) -> str:
    if not outcome.ok:
        raise Refused(outcome.error)
    return outcome.detail


def _query_view(value: Value, *, instant: bool) -> QueryView:
    times = [at / 1000 for at in value.steps_ms.tolist()]
    if value.kind == "string":
        return QueryView("string", (QuerySeries({"text": value.text}, ()),))
    series = tuple(
        QuerySeries(labels, tuple((at, number(v)) for at, v, there in zip(times, row, present, strict=True) if there))
        for labels, row, present in zip(value.label_dicts(), value.values.tolist(), value.present.tolist(), strict=True)
    )
    return QueryView(value.kind if instant else "matrix", series)
