"""Links in messages by which whoever got one takes an alert on, without an account: signed, for one alert and one receiver.

Owns the key, which stays in the state directory and outlives restarts. A link says who was told, not who follows it: whoever
has the message can acknowledge in that receiver's name, and nothing else.
"""

import base64
import hmac
import os
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

KEY_FILE: Final = "ack.key"
KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 15  # 120 bits: 24 characters that need no padding
PATH: Final = "/ack/"


def read_or_make_key(state_directory: Path, name: str = KEY_FILE) -> bytes:
    """Return the key, made at the first start. Blocks. Raises OSError."""
    path = state_directory / name
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    if len(key) >= KEY_BYTES:
        return key
    key = secrets.token_bytes(KEY_BYTES)
    new = path.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    return key


class AckLinks:
    """Links below the public address `url`; "" makes none."""

    def __init__(self, key: bytes, url: str = "") -> None:
        self._key = key
        self._url = url.rstrip("/")

    def at(self, url: str) -> "AckLinks":
        """Return links signed by the same key below another address."""
        return AckLinks(self._key, url)

    def url(self, alert: str, receiver: str) -> str:
        """Return the link of an alert for a receiver, "" if there is no public address."""
        if not self._url:
            return ""
        asked = urlencode({"by": receiver, "s": self._signature(alert, receiver)})
        return f"{self._url}{PATH}{quote(alert, safe='')}?{asked}"

    def is_genuine(self, alert: str, receiver: str, signature: str) -> bool:
        """Tell whether a link's signature is ours; takes as long whatever it is."""
        return hmac.compare_digest(self._signature(alert, receiver).encode(), signature.encode("utf-8", "replace"))

    def _signature(self, alert: str, receiver: str) -> str:
        digest = hmac.digest(self._key, f"ack\0{alert}\0{receiver}".encode("utf-8", "replace"), "sha256")
        return base64.b32encode(digest[:SIGNATURE_BYTES]).decode().lower()
