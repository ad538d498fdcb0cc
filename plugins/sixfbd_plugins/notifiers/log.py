"""The `log` notifier: a notification becomes one structured log line, for set-ups without an account and as a last resort."""

from collections.abc import Mapping

from sixfbd.plugin import NoOptions, Notification, Notifier, PluginConfig, Receipt, hookimpl


class LogNotifier(Notifier[NoOptions]):
    """Writes each notification as one log line, `notification`.

    The line is written at level warning, so that `[log] level = "error"` hides it and nothing else does. A repeat of a
    message is a second line with the same `id`.
    """

    reaches_people = False

    async def deliver(self, notification: Notification) -> Receipt:
        self.ctx.log.warning(
            "notification",
            id=notification.id,
            receiver=notification.receiver,
            status=notification.status,
            severity=str(notification.severity),
            title=notification.title,
            text=notification.text,
            alerts=[alert.id for alert in notification.alerts],
            attempt=notification.attempt,
            possibly_repeated=notification.possibly_repeated,
        )
        return Receipt(state="delivered", message_id=notification.id, detail="written to the log")


@hookimpl
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[LogNotifier]]:
    return {"log": LogNotifier}
