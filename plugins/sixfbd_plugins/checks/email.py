"""The `email` check: whether e-mail would leave, through SendGrid or through an SMTP server (SEED S19). Nothing is sent.

SendGrid validates a message in sandbox mode; an SMTP server is greeted and logged in to. Owns the rules of e-mail.
"""

import time
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
    PermanentFailure,
    PluginConfig,
    Report,
    Rule,
    Severity,
    Status,
    TemporaryFailure,
    hookimpl,
)
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.mail.letters import Letter
from sixfbd_plugins.mail.options import PUBLIC_URL, MailOptions, parse_mailbox, validate_address
from sixfbd_plugins.mail.sendgrid import SendGrid
from sixfbd_plugins.mail.smtp import Smtp

MAX_SUMMARY: Final = 400
PROBE: Final = Letter(
    subject="sixfbd",
    text="Validated in sandbox mode.",
    html="<p>Validated in sandbox mode.</p>",
    headers={},
    message_id="",
)

FAILURES = Gauge("email_service_failures", "Checks in a row that found that e-mail would not leave.")
ERROR = Gauge("email_service_error", "1 if the last check had no usable answer.")
LATENCY = Gauge("email_service_latency_seconds", "How long the provider took to validate a message, or to log us in.")


class EmailOptions(MailOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of an `email` check."""

    to: Annotated[str, Meta(description="Whom the message that SendGrid validates is to; by default its sender.")] = ""

    def check(self, faults: OptionFaults) -> None:
        super().check(faults)
        with faults.at("to"):
            if self.to:
                validate_address(self.to)


class Memory(Struct, frozen=True):
    """The cursor: failures in a row."""

    failures: int = 0


class EmailCheck(Check[EmailOptions]):
    """E-mail: whether SendGrid would take a message, or an SMTP server logs us in."""

    Options = EmailOptions
    metrics = (FAILURES, ERROR, LATENCY)
    provider_urls = {"base_url": PUBLIC_URL}  # noqa: RUF012 - a ClassVar of the contract
    service = "email"
    external = "sendgrid"
    interval = Duration(5 * MINUTE)
    timeout = Duration(30 * SECOND)

    def __init__(self, options: EmailOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._to = options.to or parse_mailbox(options.sender)[1]
        self._sendgrid = None if options.api_key is None else SendGrid(options, ctx)
        self._smtp = None if options.smtp is None else Smtp(options, ctx)

    async def run(self, cursor: Json | None) -> Report:
        """Try once. `reachable` is SendGrid's alone: of an SMTP server nothing is said there."""
        began = time.perf_counter()
        failure: TemporaryFailure | PermanentFailure | None = None
        try:
            await self._try()
        except (TemporaryFailure, PermanentFailure) as error:
            failure = error
        latency_s = time.perf_counter() - began
        is_error = isinstance(failure, TemporaryFailure)
        failures = 0 if failure is None else _remembered(cursor).failures + 1
        samples = [FAILURES(failures), ERROR(float(is_error))] + ([LATENCY(latency_s)] if failure is None else [])
        if failure is None:
            status, summary = Status.HEALTHY, f"{self._what()} in {latency_s * 1000:.0f} ms"
        else:
            status, summary = Status.UNHEALTHY if is_error else Status.DEGRADED, str(failure)[:MAX_SUMMARY]
        reachable = None if self._sendgrid is None else not is_error
        after: Json = msgspec.to_builtins(Memory(failures))
        return Report(status, summary, tuple(samples), cursor=after, reachable=reachable)

    async def _try(self) -> None:
        if self._sendgrid is not None:
            await self._sendgrid.send(PROBE, self._to, sandbox=True)
        elif self._smtp is not None:
            await self._smtp.try_login()

    def _what(self) -> str:
        return "a message was validated" if self._sendgrid is not None else "the server let us in"


def _remembered(cursor: Json | None) -> Memory:
    try:
        return Memory() if cursor is None else msgspec.convert(cursor, Memory)
    except msgspec.ValidationError:
        return Memory()


RULES: Final = (
    default_rule(
        "email",
        "EmailServiceFailing",
        "email_service_failures",
        "Email service health check failed: {{ $summary }}",
        levels=(Level(Severity.MEDIUM, ">= 1"), Level(Severity.HIGH, ">= 3")),
        impact="Buyers may get no e-mail, and alerts may not either.",
        action="See the provider's status page, and whether the credentials are still valid.",
    ),
    default_rule(
        "email",
        "SlowEmailService",
        "email_service_latency_seconds * 1000 > 5000",
        'Slow email service: {{ printf "%.0f" $value }}ms',
        Severity.LOW,
        for_s=10 * MINUTE,
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `email`."""
    return {"email": EmailCheck}


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rules of e-mail."""
    return RULES
