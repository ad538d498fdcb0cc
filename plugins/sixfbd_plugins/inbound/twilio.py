"""Inbound kind `twilio`: status callbacks of messages, signed with the account's auth token or a shared key.

Owns how such a request is verified and read; what a status means is `twilio.messages`' business. Twilio's SDK computes the
signatures; what it does not do is done here: several tokens, headers that are missing, bodies that are no form.
"""

import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from sixfbd.plugin import (
    Context,
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
from sixfbd_plugins.inbound.signed import text_of
from sixfbd_plugins.twilio.account import validate_secret
from sixfbd_plugins.twilio.messages import OURS, status_events

SIGNATURE: Final = "x-twilio-signature"
SETTINGS: Final = "x-twilio-webhooks-signature-settings"
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
_SID: Final = re.compile("(?:SM|MM)[0-9a-fA-F]{32}")
_MESSAGE: Final = re.compile("[A-Za-z0-9_.:-]{1,64}")


class _Form(dict[str, list[str]]):
    """A form whose names may come more than once, as the SDK's validator asks for it."""

    def getlist(self, name: str) -> list[str]:
        return self[name]

    def first(self, name: str) -> str:
        return self.get(name, [""])[0]


class TwilioInbound(Inbound["TwilioInbound.Options"]):
    """Status callbacks of messages sent through Twilio."""

    class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
        secrets: Annotated[
            tuple[Secret, ...],
            Meta(
                description="Auth tokens or secrets of shared keys that sign requests, the newest first.", min_length=1
            ),
        ]

        def __post_init__(self) -> None:
            with OptionFaults() as faults:
                for secret in self.secrets:
                    with faults.at("secrets"):
                        validate_secret(secret)
                with faults.at("secrets"):
                    installed("twilio", extra="twilio")

    def __init__(self, options: Options, ctx: Context) -> None:
        super().__init__(options, ctx)
        from twilio.request_validator import RequestValidator  # only who is configured pays for it

        self._validators = [RequestValidator(secret.reveal()) for secret in options.secrets]

    def receive(self, request: InboundRequest) -> Sequence[Event]:
        form = self._verified(request)
        sid = form.first("MessageSid") or form.first("SmsSid")
        status = form.first("MessageStatus") or form.first("SmsStatus")
        if not sid or not status:
            return ()  # another of Twilio's webhooks
        if not _SID.fullmatch(sid):
            raise InboundRefused("MessageSid is no sid of a message")
        message = urllib.parse.parse_qs(request.query).get("message", [""])[0]
        if not _MESSAGE.fullmatch(message):
            message = ""
        return status_events(
            sid,
            status,
            request.received_at,
            code=form.first("ErrorCode"),
            origin=OURS if message else "",
            message=message,
        )

    def _verified(self, request: InboundRequest) -> _Form:
        """Return the form of a request that Twilio signed."""
        signature = _single(request, SIGNATURE)
        if not signature:
            raise InboundRefused(f"{SIGNATURE} is missing")
        signed = _signed_part(request)
        algorithm = _algorithm(_single(request, SETTINGS))
        if not any(one.validate(request.url, signed, signature, algorithm) for one in self._validators):
            raise InboundRefused(f"{SIGNATURE} fits none of the secrets")
        return signed if isinstance(signed, _Form) else _Form()


def _single(request: InboundRequest, name: str) -> str:
    """Return a header, "" without it."""
    values = request.headers.get_list(name)
    if len(values) > 1:
        raise InboundRefused(f"{name} is there more than once")
    value = values[0] if values else ""
    if not value.isascii():
        raise InboundRefused(f"{name} is not ASCII")
    return value


def _algorithm(settings: str) -> str:
    """Return how a request says that it is signed: with the auth token unless its header names another way."""
    for part in settings.split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            algorithm = value.strip().upper()
            if algorithm not in ("HMAC_SHA1", "HMAC_SHA256"):
                raise InboundRefused(f"{SETTINGS} names an algorithm that is not known")
            return algorithm
    return "HMAC_SHA1"


def _signed_part(request: InboundRequest) -> _Form | str:
    """Return what was signed besides the URL: the form, or of other bodies the text, whose hash is in the URL."""
    body = text_of(request)
    media = request.headers.get("content-type", FORM).partition(";")[0].strip().lower()
    if media == JSON:
        if "bodySHA256" not in urllib.parse.parse_qs(request.query):
            raise InboundRefused("the body is JSON, and its hash is not in the address")
        return body
    if media != FORM:
        raise InboundRefused("the body is neither a form nor JSON")
    try:
        return _Form(urllib.parse.parse_qs(body, keep_blank_values=True, errors="strict", max_num_fields=200))
    except ValueError:
        raise InboundRefused("the body is not a form") from None


@hookimpl
def sixfbd_inbound(config: PluginConfig) -> Mapping[str, type[Inbound[Any]]]:
    """The kind `twilio`."""
    return {"twilio": TwilioInbound}
