"""The `email` notifier: a notification becomes one e-mail to one address, through SendGrid or through an SMTP server.

Owns its pace. What became of a message that SendGrid took is told by the event type `email_status` (inbound kind `sendgrid`).
Neither way can be asked for a message whose answer was lost: it is sent once more, marked; through SMTP under the same
Message-ID, by which mail programs know it again.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta

from sixfbd.plugin import (
    Context,
    FromEnvironment,
    Notification,
    Notifier,
    PermanentFailure,
    PluginConfig,
    Receipt,
    TemporaryFailure,
    hookimpl,
)
from sixfbd_plugins.mail.letters import letter_of
from sixfbd_plugins.mail.options import PUBLIC_URL, MailOptions, domain_of, parse_mailbox, validate_address
from sixfbd_plugins.mail.sendgrid import SendGrid
from sixfbd_plugins.mail.smtp import Smtp
from sixfbd_plugins.notifiers.pace import Pace


class EmailNotifierOptions(MailOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of an `email` notifier."""

    rate: Annotated[float, Meta(gt=0, le=1000, description="E-mails a second.")] = 5.0


class EmailNotifier(Notifier[EmailNotifierOptions]):
    """E-mail, through SendGrid or an SMTP server."""

    Options = EmailNotifierOptions
    provider_urls = {"base_url": PUBLIC_URL}  # noqa: RUF012 - a ClassVar of the contract
    receipts = True

    def __init__(self, options: EmailNotifierOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._domain = domain_of(parse_mailbox(options.sender)[1])
        self._pace = Pace(options.rate, ctx.clock)
        self._sendgrid = None if options.api_key is None else SendGrid(options, ctx)
        self._smtp = None if options.smtp is None else Smtp(options, ctx)

    @classmethod
    def gets_receipts(cls, options: Any) -> bool:
        """A mail server says no more than that it took a message."""
        return options.smtp is None

    @classmethod
    def check_address(cls, options: Any, address: str) -> None:
        validate_address(address)

    @classmethod
    def show_address(cls, address: str) -> str:
        return f"{address[:1]}***@{domain_of(address)}"

    async def deliver(self, notification: Notification) -> Receipt:
        try:
            validate_address(notification.address)
        except ValueError as error:
            raise PermanentFailure(f"the receiver's address {error}") from None
        letter = letter_of(notification, self._domain)
        await self._pace.turn(notification)
        if self._smtp is not None:
            name = await self._smtp.send(letter, notification.address)
            return Receipt(state="accepted", message_id=notification.id, provider_id=name, detail="taken by the server")
        assert self._sendgrid is not None
        try:
            name = await self._sendgrid.send(letter, notification.address, notification.id)
        except TemporaryFailure as failure:
            if failure.retry_after_s:
                self._pace.hold(failure.retry_after_s)
            raise
        return Receipt(
            state="accepted", message_id=notification.id, provider_id=name or None, detail="taken by SendGrid"
        )


@hookimpl
def sixfbd_notifiers(config: PluginConfig) -> Mapping[str, type[Notifier[Any]]]:
    """The notifier `email`."""
    return {"email": EmailNotifier}


@hookimpl
def sixfbd_environment(config: PluginConfig) -> Sequence[FromEnvironment]:
    """An account by the name that SendGrid's own examples use; who sends, and who gets it, nobody can know."""
    by_hand = """\
[notifiers.email]
plugin = "email"
api_key = { env = "SENDGRID_API_KEY" }
sender = "Alerts <alerts@example.com>"
[receivers.primary.email]
via = "email"
to = ["ops@example.com"]"""
    return (FromEnvironment(names=("SENDGRID_API_KEY",), by_hand=by_hand, missed="nobody is told by e-mail"),)
