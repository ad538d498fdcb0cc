"""The `exec` notifier: runs a program for each message, for what no other notifier can do.

The program gets the message on stdin as JSON, in the form of the `webhook` notifier, and its essentials as variables. It says
by its exit code what became of it, as sendmail's programs do (sysexits.h): 0 it was taken; 64, 65, 67 or 68 it never will be;
any other, it is to be tried again. One that is too slow or is killed may have told: it is told once more.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from sixfbd.plugin import (
    SECOND,
    Duration,
    Notification,
    Notifier,
    OptionFaults,
    PermanentFailure,
    PluginConfig,
    Receipt,
    Secret,
    TemporaryFailure,
    hookimpl,
)
from sixfbd_plugins import programs
from sixfbd_plugins.checks.targets import hiding
from sixfbd_plugins.notifiers.webhook import payload

NEVER: Final[Mapping[int, str]] = {64: "usage", 65: "data", 67: "no such user", 68: "no such host"}
MOST_SAID: Final = 200  # characters
MOST_TITLE: Final = 1000


class ExecNotifier(Notifier["ExecNotifier.Options"]):
    """Runs a program for each message, which is on its stdin as JSON."""

    timeout = Duration(30 * SECOND)

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        command: Annotated[
            tuple[str, ...], Meta(description="Program, by its whole path, and its arguments; no shell is involved.")
        ]
        environment: Annotated[dict[str, str], Meta(description="Variables beside PATH, HOME and LC_ALL.")] = (
            msgspec.field(default_factory=dict)
        )
        secret_environment: Annotated[dict[str, Secret], Meta(description="Variables whose values are secrets.")] = (
            msgspec.field(default_factory=dict)
        )

        def __post_init__(self) -> None:
            with OptionFaults() as faults:
                with faults.at("command"):
                    programs.validate_command(self.command)
                with faults.at("environment"):
                    programs.validate_environment(self.environment, {})
                with faults.at("secret_environment"):
                    programs.validate_environment(self.secret_environment, self.environment)

    def __init__(self, options: Options, ctx: Any) -> None:
        super().__init__(options, ctx)
        secrets = {name: one.reveal() for name, one in options.secret_environment.items()}
        self._environment = {**options.environment, **secrets}
        self._hide = hiding(secrets.values())

    async def deliver(self, notification: Notification) -> Receipt:
        told = payload(notification) | {"id": notification.id, "address": notification.address}
        try:
            ended = await programs.run(
                self.options.command,
                within_s=float(self.timeout),
                environment={**self._environment, **_essentials(notification)},
                stdin=json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode(),
            )
        except programs.CannotStartError as error:
            raise TemporaryFailure(str(error), sent=False) from None
        except programs.TooSlowError as error:
            raise TemporaryFailure(str(error), sent=True) from None
        if ended.code == 0:
            return Receipt(
                state="accepted", message_id=notification.id, detail=self._said(ended.output) or "exit code 0"
            )
        said = self._said(ended.errors) or self._said(ended.output)
        reason = f"exit code {ended.code}" if ended.code > 0 else f"killed by signal {-ended.code}"
        words = f"{reason}: {said}" if said else reason
        if ended.code in NEVER:
            raise PermanentFailure(f"{words} ({NEVER[ended.code]})")
        raise TemporaryFailure(words, sent=ended.code < 0)

    def _said(self, written: bytes) -> str:
        lines = self._hide(written.decode("utf-8", "replace")).strip().splitlines()
        return lines[0].strip()[:MOST_SAID] if lines else ""


def _essentials(notification: Notification) -> dict[str, str]:
    """Return what a program of a few lines needs, as variables."""
    found = {
        "ID": str(notification.id),
        "STATUS": notification.status,
        "SEVERITY": str(notification.severity),
        "RECEIVER": notification.receiver,
        "ADDRESS": notification.address,
        "TITLE": notification.title[:MOST_TITLE],
        "POSSIBLY_REPEATED": "1" if notification.possibly_repeated else "",
    }
    return {f"SIXFBD_{name}": value.replace("\0", "") for name, value in found.items()}


@hookimpl
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[Notifier[Any]]]:
    """The notifier `exec`."""
    return {"exec": ExecNotifier}
