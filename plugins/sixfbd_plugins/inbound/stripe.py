"""Inbound kind `stripe`: events of Stripe's, signed with the secrets of their webhook endpoint.

Owns how such a request is verified; what an event means is `stripe.events`' business. Stripe's SDK verifies signatures; what
it leaves out is done here: several secrets, times in the future, bodies that are no event.
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
from sixfbd_plugins.stripe.events import Snapshot, delivery_of, events_of

SIGNATURE: Final = "stripe-signature"
MAX_HEADER: Final = 4096  # characters; each secret that is active adds 70


class _Kind(Struct, frozen=True):
    """By what an event is known to be a snapshot: those of API v2 bring no object ("thin")."""

    object: str


class StripeInbound(Inbound["StripeInbound.Options"]):
    """Events of a Stripe webhook endpoint (snapshot payloads)."""

    class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        secrets: Annotated[
            tuple[Secret, ...],
            Meta(description='Signing secrets of the endpoint, "whsec_...", the newest first.', min_length=1),
        ]
        tolerance: Tolerance = Duration(5 * MINUTE)

        def __post_init__(self) -> None:
            with OptionFaults() as faults:
                for secret in self.secrets:
                    with faults.at("secrets"):
                        validate_signing_secret(secret.reveal())
                with faults.at("secrets"):
                    installed("stripe", extra="stripe")

    def __init__(self, options: Options, ctx: Context) -> None:
        super().__init__(options, ctx)
        import stripe  # only who is configured pays for it

        self._verify = stripe.WebhookSignature.verify_header
        self._unfit = stripe.SignatureVerificationError

    def receive(self, request: InboundRequest) -> Sequence[Event]:
        body = self._verified(request)
        try:
            kind = msgspec.json.decode(body, type=_Kind).object
            if kind == "v2.core.event":
                raise InboundRefused("the event is of API v2, without its object; let the endpoint send snapshots")
            snapshot = msgspec.json.decode(body, type=Snapshot)
        except (msgspec.DecodeError, RecursionError):
            raise InboundRefused("the body is no event of Stripe's") from None
        if kind != "event":
            raise InboundRefused("the body is no event of Stripe's")
        return [*events_of(snapshot), delivery_of(snapshot, request.name)]

    def _verified(self, request: InboundRequest) -> str:
        """Return the body of a request that Stripe signed, not too long ago."""
        header = _signature(request)
        sent = dict(part.split("=", 1) for part in header.split(",") if "=" in part).get("t", "")
        recent_time(request, sent, f"the time in {SIGNATURE}", self.options.tolerance)
        body = text_of(request)
        if not any(self._fits(body, header, secret) for secret in self.options.secrets):
            raise InboundRefused(f"{SIGNATURE} fits none of the secrets")
        return body

    def _fits(self, body: str, header: str, secret: Secret) -> bool:
        try:
            self._verify(body, header, secret.reveal())
        except self._unfit:
            return False
        return True


def _signature(request: InboundRequest) -> str:
    header = single_header(request, SIGNATURE).replace(" ", "")
    if not header.isascii() or len(header) > MAX_HEADER:
        raise InboundRefused(f"{SIGNATURE} is not ASCII, or too long")
    if [part.partition("=")[0] for part in header.split(",")].count("t") > 1:
        raise InboundRefused(
            f"{SIGNATURE} has more than one time"
        )  # the SDK signs the first, and who knows which is meant
    return header


def validate_signing_secret(secret: str) -> None:
    """Raise ValueError, without the secret, if it is no signing secret."""
    if not secret.startswith("whsec_") or not secret.isascii() or not secret.isprintable() or " " in secret:
        raise ValueError('is no signing secret of a webhook endpoint, "whsec_..."')
    if len(secret) < len("whsec_") + 16:
        raise ValueError("is too short for a signing secret")


@hookimpl
def sixfbd_inbound(config: PluginConfig) -> Mapping[str, type[Inbound[Any]]]:
    """The kind `stripe`."""
    return {"stripe": StripeInbound}
