"""The `exec` check: any Monitoring plugin (Nagios, Icinga) as a check, by its exit code, its line and its performance data.

https://www.monitoring-plugins.org/doc/guidelines.html. No shell is involved. What it is given is what the configuration
says; it runs as the daemon's user, under the unit's limits.
"""

import signal
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from sixfbd.plugin import (
    MINUTE,
    SECOND,
    Check,
    Context,
    Duration,
    Gauge,
    Json,
    Level,
    OptionFaults,
    PluginConfig,
    Report,
    Rule,
    Sample,
    Secret,
    Severity,
    Size,
    Status,
    hookimpl,
)
from sixfbd_plugins import programs
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.checks.monitoring_output import Measured, parse_output
from sixfbd_plugins.checks.targets import hiding

STATES: Final = (Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY, Status.UNKNOWN)  # by exit code
WORDS: Final = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
MOST_TEXT: Final = 500  # characters
SHOWN: Final = 3  # of what could not be read

STATE = Gauge("exec_state", "Exit code: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN; 3 for any other, and a signal.")
DURATION = Gauge("exec_duration_seconds", "How long the program ran.")
MEASURED = Gauge("exec_perfdata", "Performance data, in base units.", ("label", "unit"))
LIMIT = Gauge(
    "exec_perfdata_limit", "Limits of performance data: warning, critical, min, max.", ("label", "limit", "unit")
)


class ExecOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of an `exec` check."""

    command: Annotated[
        tuple[str, ...],
        Meta(description='Program, by its whole path, and its arguments: ["/usr/lib/nagios/plugins/check_users"].'),
    ]
    environment: Annotated[dict[str, str], Meta(description="Variables beside PATH, HOME and LC_ALL.")] = msgspec.field(
        default_factory=dict
    )
    secret_environment: Annotated[dict[str, Secret], Meta(description="Variables whose values are secrets.")] = (
        msgspec.field(default_factory=dict)
    )
    deadline: Annotated[Duration, Meta(description="Time it may take; then it is killed.", gt=0)] = Duration(
        30 * SECOND
    )
    max_output: Annotated[Size, Meta(description="What it writes beyond that is dropped.", ge=256)] = Size(64 * 1024)

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("command"):
                programs.validate_command(self.command)
            with faults.at("environment"):
                programs.validate_environment(self.environment, {})
            with faults.at("secret_environment"):
                programs.validate_environment(self.secret_environment, self.environment)


class ExecCheck(Check[ExecOptions]):
    """A Monitoring plugin (Nagios, Icinga): exit code, text and performance data."""

    Options = ExecOptions
    metrics = (STATE, DURATION, MEASURED, LIMIT)
    timeout = Duration(45 * SECOND)

    def __init__(self, options: ExecOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        secrets = {name: one.reveal() for name, one in options.secret_environment.items()}
        self._environment = {**options.environment, **secrets}
        self._hide = hiding(secrets.values())
        self._unread: tuple[str, ...] = ()

    async def run(self, cursor: Json | None) -> Report:
        """Run the program once. UNKNOWN, as is what it says by no known exit code: then nothing is known."""
        began = self.ctx.clock.now()
        try:
            ended = await programs.run(
                self.options.command,
                within_s=float(self.options.deadline),
                environment=self._environment,
                most_bytes=int(self.options.max_output),
            )
        except (programs.CannotStartError, programs.TooSlowError) as error:
            return Report(Status.UNKNOWN, f"UNKNOWN: {error}"[:MOST_TEXT], (STATE(3),))
        took = DURATION(max(0.0, self.ctx.clock.now() - began))
        code = ended.code if 0 <= ended.code < len(STATES) else 3
        output = parse_output(self._hide(ended.output.decode("utf-8", "replace")))
        errors = self._hide(ended.errors.decode("utf-8", "replace")).strip().split("\n")[0]
        text = output.text or errors or "it said nothing"
        if code != ended.code:
            text = f"{_ended(ended.code)}: {text}"
        elif WORDS[code] not in text:
            text = f"{WORDS[code]}: {text}"
        self._name_unread(output.unread)
        measured = [sample for one in output.measured for sample in _samples(one)]
        return Report(STATES[code], text[:MOST_TEXT], (STATE(code), took, *measured))

    def _name_unread(self, unread: tuple[str, ...]) -> None:
        """Say what of the performance data could not be read, when it is another than before."""
        if unread != self._unread and unread:
            self.ctx.log.warning("exec.perfdata_unread", items=len(unread), first=list(unread[:SHOWN]))
        self._unread = unread


def _ended(code: int) -> str:
    if code >= 0:
        return f"UNKNOWN: exit code {code}"
    try:
        return f"UNKNOWN: killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"UNKNOWN: killed by signal {-code}"


def _samples(one: Measured) -> list[Sample]:
    at = {"label": one.label, "unit": one.unit}
    return [MEASURED(one.value, **at), *(LIMIT(value, limit=name, **at) for name, value in one.limits)]


RULES: Final = (
    default_rule(
        "system",
        "ExecFailed",
        "exec_state < 3",
        "{{ $labels.check }}: {{ $summary }}",
        levels=(Level(Severity.MEDIUM, ">= 1"), Level(Severity.CRITICAL, ">= 2")),
        for_s=1 * MINUTE,
        action="Run its command by hand; `sixfbctl checks` and etc/sixfbd.toml name it.",
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `exec`."""
    return {"exec": ExecCheck}


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rule of programs."""
    return RULES
