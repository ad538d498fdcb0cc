"""What `sixfbd plugins check` finds: one thing that a plugin does not keep to, where, and how to mend it."""

from typing import Literal, TypeAlias

from msgspec import Struct

Subject: TypeAlias = Literal[
    "load", "options", "names", "rules", "events", "time", "cancel", "blocking", "series", "report", "secret", "raises", "close",
]  # fmt: skip


class Finding(Struct, frozen=True, kw_only=True):
    """`subject` is what was looked at, `of` the check, notifier, inbound, rule or event type, `where` its file and line."""

    subject: Subject
    of: str
    says: str
    mend: str
    where: str = ""


class NotRun(Struct, frozen=True):
    """What could not be looked at by running it, and why."""

    of: str
    reason: str


class Verdict(Struct, frozen=True, kw_only=True):
    """All of it. `ran` names what was run."""

    target: str
    findings: tuple[Finding, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    ran: tuple[str, ...] = ()
