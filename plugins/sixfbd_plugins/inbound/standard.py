"""Inbound kind `standard`: events that anybody sends, signed by Standard Webhooks (https://www.standardwebhooks.com).

Owns how such a request is verified and read. The library makes the signature; its own check is not used because it asks the
machine's clock instead of the request's time, and fails on headers that are malformed.
"""

import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from sixfbd.plugin import (
    MINUTE,
    Context,
    Duration,
    Event,
    Inbound,
    InboundRefused,
    InboundRequest,
    OptionFaults,
    PluginConfig,
    Secret,
    hookimpl,
)
from sixfbd_plugins.inbound.signed import Tolerance, recent_time, single_header, text_of
from sixfbd_plugins.standard_webhooks import signer


class Payload(Struct, frozen=True):
    """What the specification recommends as a body."""

    type: str
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    timestamp: datetime | None = None


class StandardInbound(Inbound["StandardInbound.Options"]):
    """Events as {"type", "timestamp", "data"}, signed by Standard Webhooks."""

    class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        secrets: Annotated[
            tuple[Secret, ...],
            Meta(description='What requests are signed with, the newest first: "whsec_" and base64.', min_length=1),
        ]
        tolerance: Tolerance = Duration(5 * MINUTE)

        def __post_init__(self) -> None:
            with OptionFaults() as faults:
                for secret in self.secrets:
                    with faults.at("secrets"):
                        signer(secret)

    def __init__(self, options: Options, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._signers = [signer(secret) for secret in options.secrets]

    def receive(self, request: InboundRequest) -> Sequence[Event]:
        identity, sent_at = self._verified(request)
        try:
            payload = msgspec.json.decode(request.body, type=Payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InboundRefused('the body is not {"type", "timestamp", "data"} in JSON') from None
        at = sent_at if payload.timestamp is None else _unix(payload.timestamp)
        return [Event(identity, payload.type, at, payload.data)]

    def _verified(self, request: InboundRequest) -> tuple[str, float]:
        """Return the message's id and when it was sent."""
        identity, sent, signatures = (
            single_header(request, name) for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
        )
        sent_at = recent_time(request, sent, "webhook-timestamp", self.options.tolerance)
        body = text_of(request)
        given = [one.encode() for one in signatures.split()]
        at = datetime.fromtimestamp(sent_at, UTC)
        expected = [one.sign(identity, at, body).encode() for one in self._signers]
        if not any(hmac.compare_digest(one, other) for one in expected for other in given):
            raise InboundRefused("webhook-signature fits none of the secrets")
        return identity, float(sent_at)


def _unix(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


@hookimpl
def sixfbd_inbound(config: PluginConfig) -> Mapping[str, type[StandardInbound]]:
    return {"standard": StandardInbound}
