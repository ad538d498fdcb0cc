"""How messages read if the configuration has templates for them: which one applies, what it is given, and what is told if it
fails, which is the plain message of `sixfbd.outbox.render`.

A template file is called STATUS[.NOTICE][@CHANNEL].PART.j2: `firing.text.j2`, `resolved@sms.title.j2`, `notice.sale.text.j2`.
STATUS is firing, resolved or notice, PART is title or text, CHANNEL the kind of channel of a receiver, NOTICE a notice's name.
The one that names most applies: of two the one with the notice before the one with the channel.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import structlog
from msgspec import Struct
from msgspec.structs import replace

from sixfbd.config.tables import Channel
from sixfbd.model import Obligation, Target
from sixfbd.outbox.render import MAX_TITLE, Place, urgent_first
from sixfbd.outbox.templates import MessageTemplate, TemplateFailedError, Texts
from sixfbd.plugin import Notification, NotifiedAlert

Part: TypeAlias = Literal["title", "text"]
PARTS: Final[tuple[Part, ...]] = ("title", "text")
STATUSES: Final = ("firing", "resolved", "notice")
MAX_VALUE: Final = 4000  # characters of one text that a template is given
MAX_GIVEN: Final = 100  # alerts or notices that a template is given, labels or annotations of one
_NAME: Final = re.compile(
    r"(?P<status>firing|resolved|notice)(\.(?P<notice>[A-Za-z0-9_-]+))?(@(?P<channel>[A-Za-z0-9_-]+))?"
    r"\.(?P<part>title|text)"
)

log = structlog.get_logger("sixfbd.outbox")


class TemplateName(Struct, frozen=True):
    """What the name of a template says: for which messages it is. Empty: for all."""

    status: str
    part: Part
    notice: str = ""
    channel: str = ""

    @classmethod
    def parse(cls, name: str) -> "TemplateName":
        """Return what a name without its `.j2` says. Raises ValueError: what; the mend."""
        found = _NAME.fullmatch(name)
        mend = 'names are such as "firing.text.j2", "resolved@email.title.j2" or "notice.sale.text.j2"'
        if found is None:
            raise ValueError(f"is not the name of a template; {mend}")
        if found["notice"] and found["status"] != "notice":
            raise ValueError(f"names a notice, and {found['status']} messages are about alerts; {mend}")
        part: Part = "title" if found["part"] == "title" else "text"
        return cls(found["status"], part, found["notice"] or "", found["channel"] or "")


class Templates:
    """The templates of one configuration, by their names. `failures` counts what could not be used, by template."""

    def __init__(
        self, texts: Mapping[str, str] | None = None, receivers: Mapping[str, Mapping[str, Channel]] | None = None
    ) -> None:
        """Raises TemplateRefusedError and ValueError for what `check-config` refuses."""
        self._channels = channels_of(receivers or {})
        self._templates = {
            TemplateName.parse(name): MessageTemplate(name, text) for name, text in (texts or {}).items()
        }
        self.failures = Counter(dict.fromkeys(texts or {}, 0))
        self._logged: set[str] = set()

    def find(self, part: Part, status: str, notice: str, channel: str) -> MessageTemplate | None:
        """Return the template of a part of a message, None if the plain message has it."""
        for name, kind in ((notice, channel), (notice, ""), ("", channel), ("", "")):
            found = self._templates.get(TemplateName(status, part, name, kind))
            if found is not None:
                return found
        return None

    def channel_of(self, target: Target) -> str:
        """Return by which kind of channel a target is told, "" if it is configured no more."""
        return self._channels.get(target, "")

    def apply(self, to: Notification, obligations: Sequence[Obligation], place: Place, channel: str) -> Notification:
        """Return a notification with its parts as the templates have them. Never raises; takes a moment: not for the loop.

        A text that leaves out the remarks of the daemon about itself is given them.
        """
        notice = _notice_of(obligations)
        found = {part: self.find(part, to.status, notice, channel) for part in PARTS}
        if not any(found.values()):
            return to
        given = context_of(to, obligations, place, channel)
        title = self._rendered(found["title"], given, to, obligations)
        if title:
            given["title"] = title = _titled(title)
        own = self._rendered(found["text"], given, to, obligations).strip()
        if own:
            text = "\n\n".join([*(remark for remark in to.remarks if remark not in own), own])
        else:
            text = to.text.replace(to.title, title, 1) if title and to.text.startswith(to.title) else to.text
        return replace(to, title=title or to.title, text=text, own_text=bool(own))

    def applies(self, status: str, obligations: Sequence[Obligation], channel: str) -> bool:
        """Tell whether there is a template for such a message."""
        notice = _notice_of(obligations)
        return any(self.find(part, status, notice, channel) for part in PARTS)

    def _rendered(
        self,
        template: MessageTemplate | None,
        given: Mapping[str, Any],
        to: Notification,
        obligations: Sequence[Obligation],
    ) -> str:
        """Return what comes of a template, "" if there is none or the plain message has to do."""
        if template is None:
            return ""
        try:
            made = template.render(given)
            if not made.strip():
                raise TemplateFailedError("makes an empty text")
        except TemplateFailedError as error:
            self._failed(template.name, str(error), to, obligations)
            return ""
        return made

    def _failed(self, name: str, error: str, to: Notification, obligations: Sequence[Obligation]) -> None:
        self.failures[name] += 1
        if name not in self._logged:
            self._logged.add(name)
            about = to.alerts[0].labels.get("alertname", "") if to.alerts else _notice_of(obligations)
            log.error("template.failed", template=f"{name}.j2", error=error, about=about or to.status, message=to.id)


def channels_of(receivers: Mapping[str, Mapping[str, Channel]]) -> dict[Target, str]:
    """Return by which kind of channel each target is told."""
    return {
        Target(receiver, channel.via, address): kind
        for receiver, channels in receivers.items()
        for kind, channel in channels.items()
        for address in channel.to
    }


def context_of(to: Notification, obligations: Sequence[Obligation], place: Place, channel: str) -> dict[str, Any]:
    """Return what a template is given of a message: texts, numbers, and tables and lists of them, all of bounded size.

    Times are unix seconds. The names are documented in etc/examples/templates/README.md.
    """
    shown = {one.id: alert for one, alert in zip((one for one in obligations if one.about), to.alerts, strict=True)}
    alerts = [_alert(shown[one.id], one, place) for one in urgent_first(obligations)[:MAX_GIVEN] if one.id in shown]
    notices = [_notice(one) for one in obligations[:MAX_GIVEN] if one.about is None]
    return {
        "status": to.status,
        "severity": str(to.severity),
        "receiver": to.receiver,
        "channel": channel,
        "site": place.site,
        "environment": place.environment,
        "url": place.url,
        "icon": to.icon,
        "now": to.sent_at,
        "possibly_repeated": to.possibly_repeated,
        "remarks": list(to.remarks),
        "title": to.title,
        "text": to.text[:MAX_VALUE],
        "alerts": alerts,
        "alert": alerts[0] if alerts else None,
        "notices": notices,
        "notice": notices[0] if notices else None,
    }


def _alert(alert: NotifiedAlert, owed: Obligation, place: Place) -> dict[str, Any]:
    rule = alert.labels.get("alertname", "")
    return {
        "id": alert.id,
        "name": rule,
        "status": alert.status,
        "kind": owed.kind,
        "severity": str(alert.severity),
        "labels": _texts(alert.labels),
        "annotations": _texts(alert.annotations),
        "summary": alert.annotations.get("summary", rule)[:MAX_VALUE],
        "value": alert.value,
        "value_at_end": alert.value_at_end,
        "threshold": place.threshold(rule, alert.severity),
        "starts_at": alert.starts_at,
        "ends_at": alert.ends_at,
        "reason": alert.reason[:MAX_VALUE],
        "ack": alert.ack_url or (f"sixfbctl ack {alert.id}" if alert.status == "firing" else ""),
        "why": f"sixfbctl why {alert.id}",
    }


def _notice(owed: Obligation) -> dict[str, Any]:
    notice = owed.notice
    return {
        "name": "" if notice is None else notice.name,
        "type": "" if notice is None else notice.type,
        "source": "" if notice is None else notice.source,
        "at": owed.at if notice is None else notice.at,
        "text": owed.text,
        "severity": str(owed.severity),
        "labels": _texts({} if notice is None else notice.labels),
        "data": _texts({} if notice is None else notice.data),
    }


def _texts(values: Mapping[str, Any]) -> Texts:
    return Texts(_some(values))


def _some(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in list(values.items())[:MAX_GIVEN]:
        yield name, value[:MAX_VALUE] if isinstance(value, str) else value


def _notice_of(obligations: Sequence[Obligation]) -> str:
    """Return the name of the notices that a message tells, "" if they have no common one."""
    names = {"" if one.notice is None else one.notice.name for one in obligations}
    return names.pop() if len(names) == 1 else ""


def _titled(text: str) -> str:
    title = " ".join(text.split())
    return title if len(title) <= MAX_TITLE else title[: MAX_TITLE - 1] + "…"
