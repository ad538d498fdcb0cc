"""TLS as a check configures it: which authorities are trusted, which name is asked for, with which certificate we come."""

import ssl
from typing import Annotated

import msgspec


class TlsOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TLS of a probe."""

    insecure_skip_verify: Annotated[bool, msgspec.Meta(description="Take any certificate.")] = False
    ca_file: Annotated[str | None, msgspec.Meta(description="PEM file of the authorities to trust.")] = None
    server_name: Annotated[str | None, msgspec.Meta(description="Name to ask for in place of the address's.")] = None
    cert_file: Annotated[str | None, msgspec.Meta(description="PEM file of our certificate.")] = None
    key_file: Annotated[str | None, msgspec.Meta(description="PEM file of its key.")] = None

    def __post_init__(self) -> None:
        if self.key_file and not self.cert_file:
            raise ValueError("tls: key_file needs cert_file")


def tls_context(options: TlsOptions, shared: ssl.SSLContext) -> ssl.SSLContext:
    """Return the TLS context of a check: the shared one unless something is its own. Blocks: it reads files."""
    if not (options.insecure_skip_verify or options.ca_file or options.cert_file):
        return shared
    try:
        insecure = options.insecure_skip_verify
        context = unverified_context() if insecure else ssl.create_default_context(cafile=options.ca_file)
        if options.cert_file:
            context.load_cert_chain(options.cert_file, options.key_file, password="")
    except OSError as error:  # SSLError is one
        files = ", ".join(file for file in (options.ca_file, options.cert_file, options.key_file) if file)
        raise ValueError(
            f"tls: {files}: {error.strerror or error}; each must be a PEM file that sixfbd may read"
        ) from error
    return context


def unverified_context() -> ssl.SSLContext:
    """Return a TLS context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
