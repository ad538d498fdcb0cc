"""The `webhook` notifier: posts Alertmanager's webhook payload, version 4, so that whatever takes Alertmanager's takes ours.

Owns the payload's form and the meaning of the far side's answer. A notice, which Alertmanager does not know, has status
"notice", no alerts, and its wording in `title` and `text`, which every payload carries. Signed by Standard Webhooks
(https://www.standardwebhooks.com) when a secret is set. Address, headers and secret appear in no log and no error.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Final

import httpx
import msgspec
from msgspec import Meta, field
from msgspec.structs import force_setattr

from sixfbd.plugin import (
    Json,
    Notification,
    NotifiedAlert,
    Notifier,
    OptionFaults,
    PermanentFailure,
    PluginConfig,
    Receipt,
    Secret,
    TemporaryFailure,
    hookimpl,
)
from sixfbd_plugins.standard_webhooks import signer

ZERO_TIME: Final = "0001-01-01T00:00:00Z"  # Go's zero time: what Alertmanager sends as `endsAt` while an alert fires
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_EXCERPT: Final = 120  # characters of a refusal's body that are shown
TRY_AGAIN: Final = frozenset({408, 425, 429})  # RFC 9110, RFC 8470, RFC 6585; and every 5xx
MIN_HIDDEN: Final = 4  # characters; replacing shorter pieces would make errors unreadable and hide nothing
OURS: Final = frozenset(
    {"content-type", "content-length", "host", "webhook-id", "webhook-timestamp", "webhook-signature"}
)


class WebhookNotifier(Notifier["WebhookNotifier.Options"]):
    """Posts notifications as JSON to a URL, in the form of Alertmanager's webhook (version 4)."""

    idempotent = True  # `webhook-id` is the same for every try of a message; the receiver drops repeats by it

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        url: Annotated[Secret | str, Meta(description="Where to post; never shown, as such a URL often is a key.")]
        secret: Annotated[
            Secret | None, Meta(description='Signs by Standard Webhooks: "whsec_" and base64 of 24 to 64 bytes.')
        ] = None
        headers: Annotated[
            dict[str, Secret | str], Meta(description="Further headers, such as Authorization; values are never shown.")
        ] = field(default_factory=dict)
        max_alerts: Annotated[
            int, Meta(ge=0, description="Alerts in one post; the rest is counted in truncatedAlerts; 0: no limit.")
        ] = 0

        def __post_init__(self) -> None:
            masked = {name: _masked(value) for name, value in self.headers.items()}
            force_setattr(self, "url", _masked(self.url))  # from here on no repr and no traceback shows them
            force_setattr(self, "headers", masked)
            with OptionFaults() as faults:
                with faults.at("url"):
                    _validate_url(_plain(self.url))
                with faults.at("headers"):
                    _validate_headers({name: _plain(value) for name, value in masked.items()})
                with faults.at("secret"):
                    if self.secret is not None:
                        signer(self.secret)

    def __init__(self, options: Options, ctx: Any) -> None:
        super().__init__(options, ctx)
        self._signer = None if options.secret is None else signer(options.secret)

    async def deliver(self, notification: Notification) -> Receipt:
        body = json.dumps(payload(notification, self.options.max_alerts), ensure_ascii=False, separators=(",", ":"))
        try:
            answer = await self.ctx.http.request(
                "POST",
                _plain(self.options.url),
                headers=self._headers(notification, body),
                content=body,
                timeout_s=float(self.timeout),
                max_bytes=MAX_ANSWER_BYTES,
            )
        except TemporaryFailure as failure:
            text = self._without_secrets(str(failure))
            raise TemporaryFailure(text, retry_after_s=failure.retry_after_s, sent=failure.sent) from None
        self._judge(answer)
        return Receipt(state="accepted", message_id=notification.id, detail=f"answered {answer.status_code}")

    def _headers(self, notification: Notification, body: str) -> dict[str, str]:
        headers = {
            **{name.lower(): _plain(value) for name, value in self.options.headers.items()},
            "content-type": "application/json",
            "user-agent": f"sixfbd/{self.ctx.version}",
            "webhook-id": notification.id,
        }
        if self._signer is not None:
            now = self.ctx.clock.wall()
            headers["webhook-timestamp"] = str(int(now.timestamp()))
            headers["webhook-signature"] = self._signer.sign(notification.id, now, body)
        return headers

    def _judge(self, answer: httpx.Response) -> None:
        """Return if the message was taken; raise the failure that the answer's status means."""
        status = answer.status_code
        if 200 <= status < 300:
            return
        if status in TRY_AGAIN or status >= 500:
            wish = retry_after_s(answer.headers.get("retry-after"), self.ctx.clock.wall())
            raise TemporaryFailure(f"answered {self._excerpt(answer)}", retry_after_s=wish)
        if 300 <= status < 400:
            raise PermanentFailure(f"answered {status}, a redirect: write the address that it leads to into `url`")
        raise PermanentFailure(f"answered {self._excerpt(answer)}")

    def _excerpt(self, answer: httpx.Response) -> str:
        text = " ".join(answer.text[: 4 * MAX_EXCERPT].split())
        return f"{answer.status_code}: {self._without_secrets(text)[:MAX_EXCERPT]}".rstrip(": ")

    def _without_secrets(self, text: str) -> str:
        """Return a text that may be logged: a receiver may echo what it was sent, a client's error the URL."""
        url = _plain(self.options.url)
        hidden = [url, httpx.URL(url).raw_path.decode("ascii")]
        for value in map(_plain, self.options.headers.values()):
            hidden += [value, *value.split()]
        for value in sorted(hidden, key=len, reverse=True):
            if len(value) >= MIN_HIDDEN:
                text = text.replace(value, "***")
        return text


def payload(notification: Notification, max_alerts: int = 0) -> dict[str, Json]:
    """Return the body: Alertmanager's `template.Data` with version, groupKey and truncatedAlerts, and our title and text.

    https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
    """
    shown = notification.alerts[: max_alerts or None]
    return {
        "version": "4",
        "groupKey": notification.group_key,
        "truncatedAlerts": len(notification.alerts) - len(shown),
        "status": notification.status,
        "receiver": notification.receiver,
        "groupLabels": dict(notification.group_labels),
        "commonLabels": _common([alert.labels for alert in notification.alerts]),
        "commonAnnotations": _common([alert.annotations for alert in notification.alerts]),
        "externalURL": notification.external_url,
        "alerts": [_alert(alert) for alert in shown],
        "title": notification.title,
        "text": notification.text,
    }


def _alert(alert: NotifiedAlert) -> Json:
    return {
        "status": alert.status,
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": rfc3339(alert.starts_at),
        "endsAt": ZERO_TIME if alert.ends_at is None else rfc3339(alert.ends_at),
        "generatorURL": alert.generator_url,
        "fingerprint": alert.fingerprint,
        **({"ackURL": alert.ack_url} if alert.ack_url else {}),  # ours
    }


def _common(mappings: list[dict[str, str]]) -> Json:
    """Return the pairs that every mapping has."""
    if not mappings:
        return {}
    first, *others = mappings
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def rfc3339(at: float) -> str:
    """Return unix seconds as RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110 section 10.2.3), None if it says nothing usable."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds())


def _masked(value: Secret | str) -> Secret:
    return value if isinstance(value, Secret) else Secret(value, "the configuration")


def _plain(value: Secret | str) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _validate_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError('is not a URL; write "https://example.com/hook"') from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError('is not an http or https URL; write "https://example.com/hook"')


def _validate_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            raise ValueError(f"{name!r:.60} is not the name of a header")
        if name.lower() in OURS:
            raise ValueError(f"{name!r} is set by sixfbd; leave it out")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of {name!r} is not printable ASCII")


@hookimpl
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[WebhookNotifier]]:
    return {"webhook": WebhookNotifier}
