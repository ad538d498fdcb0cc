"""The `apprise` notifier: any of the services that Apprise knows, more than a hundred, by an address of its own form.

https://appriseit.com/services/. Blocking, so it runs in a thread, one message at a time; its time limits are those of the
address (`cto`, `rto`). What a service answered stands in its log alone, and is taken from there without what is secret.
"""

import logging
import re
import threading
from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from msgspec.structs import force_setattr

from sixfbd.plugin import (
    SECOND,
    Context,
    Duration,
    Notification,
    Notifier,
    OptionFaults,
    PluginConfig,
    Receipt,
    Secret,
    Severity,
    TemporaryFailure,
    hookimpl,
    installed,
)
from sixfbd_plugins.checks.targets import hiding

LOGGER: Final = "apprise"
MOST_SAID: Final = 200  # characters
MIN_HIDDEN: Final = 4  # characters of a part of the address
_PARTS: Final = re.compile(r"[/:@?&=,\s]+")


class AppriseNotifier(Notifier["AppriseNotifier.Options"]):
    """Tells by any service that Apprise knows."""

    timeout = Duration(60 * SECOND)
    concurrency = 1

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        url: Annotated[
            Secret | str,
            Meta(description="Address of a service, as Apprise writes it; never shown, as it holds keys."),
        ]

        def __post_init__(self) -> None:
            given = self.url
            masked = given if isinstance(given, Secret) else Secret(given, "the configuration")
            force_setattr(self, "url", masked)  # from here on no repr and no traceback shows it
            with OptionFaults() as faults, faults.at("url"):
                installed("apprise", extra="apprise")
                if _service(masked.reveal()) is None:
                    raise ValueError(
                        "is not an address that Apprise knows; see https://appriseit.com/services/, such as "
                        '"ntfy://ntfy.example.com/shop"'
                    )

    def __init__(self, options: Options, ctx: Context) -> None:
        super().__init__(options, ctx)
        assert isinstance(options.url, Secret)
        url = options.url.reveal()
        self._service = _service(url)
        self._hide = hiding([url, *(part for part in _PARTS.split(url.partition("://")[2]) if len(part) >= MIN_HIDDEN)])

    async def deliver(self, notification: Notification) -> Receipt:
        said = await self.ctx.to_thread(_notify, self._service, notification)
        if said is None:
            return Receipt(state="accepted", message_id=notification.id, detail="the service took it")
        words = self._hide(" ".join(said.split()))[:MOST_SAID]
        raise TemporaryFailure(
            f"not taken: {words}" if words else "not taken, and Apprise does not say why", sent=False
        )


class _Heard(logging.Handler):
    """Keeps what Apprise logs, and shows it nowhere else: its lines may hold keys."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record.getMessage())


_heard = _Heard()
_turn = threading.Lock()  # Apprise logs from threads of its own: whose line it is can be told only of one at a time


def _service(url: str) -> Any:
    """Return what Apprise makes of an address, None if it knows none of that form."""
    import apprise  # a third of a second, for who configures it alone

    logger = logging.getLogger(LOGGER)
    if _heard not in logger.handlers:
        logger.handlers, logger.propagate = [_heard], False
    asset = apprise.AppriseAsset(app_id="sixfbd", app_desc="sixfbd", app_url="", async_mode=False, plugin_paths=[])
    service = apprise.Apprise(asset=asset)
    return service if service.add(url) and len(service) == 1 else None


def _notify(service: Any, notification: Notification) -> str | None:
    """Tell; return None if it was taken, else what Apprise said of it. Blocks."""
    with _turn:
        _heard.lines.clear()
        taken = service.notify(title=notification.title, body=notification.text, notify_type=_kind(notification))
        return None if taken else "; ".join(dict.fromkeys(_heard.lines))


def _kind(notification: Notification) -> str:
    """Return Apprise's word for a message, by which a service chooses colour and icon."""
    if notification.status != "firing":
        return "success" if notification.status == "resolved" else "info"
    return "failure" if notification.severity in (Severity.HIGH, Severity.CRITICAL) else "warning"


@hookimpl
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[Notifier[Any]]]:
    """The notifier `apprise`."""
    return {"apprise": AppriseNotifier}
