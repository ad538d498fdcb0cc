"""What is known of one probe while it runs and after: phases, address, certificate, answer. Values only, no I/O."""

import time
from typing import Final

from msgspec import Struct, field

from sixfbd_plugins.checks.probe.certificate import Validity

PHASES: Final = ("resolve", "connect", "tls", "processing", "transfer")
_DOING: Final = {
    "waiting": "waiting for its turn",
    "resolve": "resolving the name",
    "connect": "connecting",
    "tls": "agreeing on TLS",
    "processing": "waiting for the answer",
    "transfer": "reading the body",
    "judging": "looking at the body",
}


class ProbeError(Exception):
    """The probe's target failed; the text says what, in plain words."""


class CertificateError(ProbeError):
    """The handshake failed because of the certificate: OpenSSL's code and text, and the socket address that showed it."""

    def __init__(self, code: int, message: str, server_name: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.server_name = server_name


class Trail(Struct):
    """The trail of one probe. Phases add up over redirects, as blackbox_exporter's do; exactly one is entered at a time."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    phase: str = "waiting"
    ip_protocol: int = 0
    certificate: Validity | None = None
    redirects: int = 0
    is_tls: bool = False
    status: int = 0
    http_version: float = 0.0
    content_length: float = 0.0
    body_bytes: int = 0
    body_pieces: int = 0
    _since: float = field(default_factory=time.perf_counter)

    def enter(self, phase: str) -> None:
        """End the current phase and begin another; "done" ends the last one."""
        now = time.perf_counter()
        if self.phase in self.seconds:
            self.seconds[self.phase] += now - self._since
        self.phase, self._since = phase, now

    def doing(self) -> str:
        """Return what the probe is at, in words."""
        doing = _DOING.get(self.phase, self.phase)
        return f"{doing}, {self.body_bytes} bytes so far" if self.phase == "transfer" else doing
