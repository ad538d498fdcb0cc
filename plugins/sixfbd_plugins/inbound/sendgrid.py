"""Inbound kind `sendgrid`: signed event webhooks, which say what became of e-mails.

Owns how such a request is verified and read; what an event means is `mail.events`' business. SendGrid's SDK verifies the
signatures; what it does not do is done here: several keys, headers that are missing, requests that are sent once more later.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from sixfbd.plugin import (
    MINUTE,
    Context,
    Duration,
    Event,
    EventType,
    Inbound,
    InboundRefused,
    InboundRequest,
    OptionFaults,
    PluginConfig,
    Secret,
    hookimpl,
    installed,
)
from sixfbd_plugins.inbound.signed import Tolerance, recent_time, single_header, text_of
from sixfbd_plugins.mail.events import STATUS, status_event

SIGNATURE: Final = "x-twilio-email-event-webhook-signature"
TIMESTAMP: Final = "x-twilio-email-event-webhook-timestamp"


class SendGridInbound(Inbound["SendGridInbound.Options"]):
    """Events of e-mails sent through SendGrid."""

    class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        secrets: Annotated[
            tuple[Secret, ...],
            Meta(description="Verification keys of the signed event webhook, the newest first.", min_length=1),
        ]
        tolerance: Tolerance = Duration(10 * MINUTE)

        def __post_init__(self) -> None:
            with OptionFaults() as faults:
                with faults.at("secrets"):
                    installed("sendgrid", extra="sendgrid")
                    for place, secret in enumerate(self.secrets, 1):
                        _verifier(secret, place)
                with faults.at("tolerance"):
                    if self.tolerance <= 0:
                        raise ValueError("must be more than 0")

    def __init__(self, options: Options, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._verifiers = [_verifier(secret, place) for place, secret in enumerate(options.secrets, 1)]

    def receive(self, request: InboundRequest) -> Sequence[Event]:
        body = self._verified(request)
        try:
            items = msgspec.json.decode(body, type=list[dict[str, Any]])
        except (msgspec.DecodeError, RecursionError):
            raise InboundRefused("the body is no list of events in JSON") from None
        events = (status_event(item, request.received_at) for item in items)
        return [event for event in events if event is not None]

    def _verified(self, request: InboundRequest) -> str:
        """Return the body of a request that SendGrid signed."""
        signature, sent = single_header(request, SIGNATURE), single_header(request, TIMESTAMP)
        if not signature.isascii():
            raise InboundRefused(f"{SIGNATURE} is not ASCII")
        recent_time(request, sent, TIMESTAMP, self.options.tolerance)
        body = text_of(request)
        if not any(_fits(one, body, signature, sent) for one in self._verifiers):
            raise InboundRefused(f"{SIGNATURE} fits none of the keys")
        return body


def _verifier(secret: Secret, place: int) -> Any:
    """Return the SDK's verifier of a key. Raises ValueError, which does not show it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from sendgrid.helpers.eventwebhook import EventWebhook  # only who is configured pays for it

    try:
        made = EventWebhook(secret.reveal().strip())
    except (ValueError, UnsupportedAlgorithm):
        made = None
    if made is None or not isinstance(made.public_key, EllipticCurvePublicKey):
        raise ValueError(f"key {place} is no verification key, as the settings of the signed event webhook show it")
    return made


def _fits(verifier: Any, body: str, signature: str, sent: str) -> bool:
    try:
        return bool(verifier.verify_signature(body, signature, sent))
    except ValueError:  # no base64
        return False


@hookimpl
def sixfbd_inbound(config: PluginConfig) -> Mapping[str, type[Inbound[Any]]]:
    """The kind `sendgrid`."""
    return {"sendgrid": SendGridInbound}


@hookimpl
def sixfbd_events(config: PluginConfig) -> Sequence[EventType]:
    """What becomes of e-mails."""
    return (STATUS,)
