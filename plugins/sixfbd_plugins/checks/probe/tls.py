"""TLS as a check configures it: which authorities are trusted, which name is asked for, with which certificate we come."""

import ssl
from typing import Annotated

import msgspec

from sixfbd.plugin import FilePath, OptionFaults, Outbound


class TlsOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TLS of a probe. Its files are read when the options are made, so that a bad one is told before anything runs."""

    insecure_skip_verify: Annotated[bool, msgspec.Meta(description="Take any certificate.")] = False
    ca_file: Annotated[FilePath | None, msgspec.Meta(description="PEM file of the authorities to trust.")] = None
    server_name: Annotated[str | None, msgspec.Meta(description="Name to ask for in place of the address's.")] = None
    cert_file: Annotated[FilePath | None, msgspec.Meta(description="PEM file of our certificate.")] = None
    key_file: Annotated[FilePath | None, msgspec.Meta(description="PEM file of its key.")] = None

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("ca_file"):
                if self.ca_file:
                    trusting_context(self.ca_file)
            with faults.at("key_file"):
                if self.key_file and not self.cert_file:
                    raise ValueError("needs cert_file; add the certificate of this key")
            with faults.at("cert_file"):
                load_certificate(unverified_context(), self.cert_file, self.key_file)


def tls_context(options: TlsOptions, http: Outbound) -> ssl.SSLContext:
    """Return the TLS context of a check: the shared one unless something is its own.

    Blocks: it reads files. Raises ValueError that names the file which is no good any more.
    """
    if not (options.insecure_skip_verify or options.ca_file or options.cert_file):
        return http.ssl_context
    context = unverified_context() if options.insecure_skip_verify else trusting_context(options.ca_file)
    load_certificate(context, options.cert_file, options.key_file)
    return context


def trusting_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a TLS context that trusts the authorities of a file, the system's if there is none. Raises ValueError."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # SSLError is one
        raise ValueError(f"{ca_file}: {_reason(error)}; a PEM file of certificates is needed") from error


def load_certificate(context: ssl.SSLContext, cert_file: str | None, key_file: str | None) -> None:
    """Give a context our certificate, if there is one. Raises ValueError."""
    if cert_file is None:
        return
    try:
        context.load_cert_chain(cert_file, key_file, password="")
    except OSError as error:
        files = ", ".join(file for file in (cert_file, key_file) if file)
        raise ValueError(f"{files}: {_reason(error)}; PEM files of a certificate and its key are needed") from error


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not PEM").replace("_", " ").lower()
    return (error.strerror or str(error)).lower()


def unverified_context() -> ssl.SSLContext:
    """Return a TLS context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
