"""The options that say how e-mail leaves: by SendGrid's API or by an SMTP server, and from whom. Shows no secret."""

import re
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from sixfbd.plugin import FilePath, OptionFaults, Secret, installed
from sixfbd_plugins.checks.probe.tls import trusting_context
from sixfbd_plugins.provider import validate_base_url

PUBLIC_URL: Final = "https://api.sendgrid.com"
PORTS: Final = {"starttls": 587, "implicit": 465, "none": 25}
LOCAL: Final = ("localhost", "127.0.0.1", "::1")
MAX_ADDRESS: Final = 254  # RFC 5321, section 4.5.3.1.3
_ADDRESS: Final = re.compile(
    r"(?P<local>[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*)"
    r"@(?P<domain>(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)"
)
_NAMED: Final = re.compile(r'"?(?P<name>[^"<>\x00-\x1f]*?)"?\s*<(?P<address>[^<>]*)>')


class SmtpServer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An SMTP server that takes our messages."""

    host: Annotated[str, Meta(description="Name or address of the server.", min_length=1, max_length=253)]
    port: Annotated[
        int, Meta(ge=0, le=65535, description="Port; 0 is the usual one: 587, 465 if implicit, 25 if none.")
    ] = 0
    tls: Annotated[
        Literal["starttls", "implicit", "none"], Meta(description="How the connection becomes encrypted.")
    ] = "starttls"
    username: Annotated[str, Meta(description="User name, if the server asks for one.")] = ""
    password: Annotated[Secret | None, Meta(description="Password.")] = None
    ca_file: Annotated[FilePath | None, Meta(description="PEM file of the authorities to trust.")] = None

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("host"):
                if not self.host.isascii() or not self.host.isprintable() or " " in self.host:
                    raise ValueError('is not a host such as "smtp.example.com"')
            with faults.at("password"):
                if bool(self.username) is (self.password is None):
                    raise ValueError("username and password are given both or neither")
                if self.password is not None and not (self.password.reveal() and self.password.reveal().isascii()):
                    raise ValueError("is empty, or has a letter outside ASCII")
            with faults.at("tls"):
                if self.tls == "none" and self.password is not None and self.host not in LOCAL:
                    raise ValueError("would send the password in the clear; use starttls or implicit")
            with faults.at("ca_file"):
                if self.ca_file:
                    trusting_context(self.ca_file)


class MailOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How e-mail leaves; one of `api_key` and `smtp` is needed."""

    sender: Annotated[str, Meta(description='Who messages are from, such as "Workshop <alerts@example.com>".')]
    api_key: Annotated[Secret | None, Meta(description="API key of SendGrid with access to Mail Send.")] = None
    smtp: Annotated[
        SmtpServer | None,
        Meta(description='SMTP server in place of SendGrid, such as {host = "smtp.example.com", username = ...}.'),
    ] = None
    base_url: Annotated[str, Meta(description="Where SendGrid's API is, if it is a sandbox.")] = PUBLIC_URL

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            self.check(faults)

    def check(self, faults: OptionFaults) -> None:
        """Name what is wrong; never shows a secret."""
        with faults.at("sender"):
            parse_mailbox(self.sender)
        with faults.at("api_key"):
            if (self.api_key is None) is (self.smtp is None):
                raise ValueError("one of api_key and smtp is needed")
            if self.api_key is not None:
                installed("sendgrid", extra="sendgrid")
                key = self.api_key.reveal()
                if not key or not key.isascii() or not key.isprintable() or " " in key:
                    raise ValueError("is empty, or has a blank, a line break or a letter outside ASCII")
        with faults.at("base_url"):
            validate_base_url(self.base_url, PUBLIC_URL)


def validate_address(text: str) -> None:
    """Raise ValueError, which does not show it, if a text is no e-mail address (RFC 5321, without quoted local parts)."""
    if len(text) > MAX_ADDRESS or not (found := _ADDRESS.fullmatch(text)) or len(found["local"]) > 64:
        raise ValueError('is no e-mail address; write one such as "ops@example.com"')


def parse_mailbox(text: str) -> tuple[str, str]:
    """Return (name, address) of `Workshop <alerts@example.com>` or of an address alone. Raises ValueError."""
    named = _NAMED.fullmatch(text.strip())
    name, address = (named["name"].strip(), named["address"]) if named else ("", text.strip())
    validate_address(address)
    return name, address


def domain_of(address: str) -> str:
    return address.rpartition("@")[2]
