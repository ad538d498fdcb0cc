"""Standard Webhooks (https://www.standardwebhooks.com): the key that both sides share. What is signed, who sends or takes says."""

import base64
from typing import Final

from standardwebhooks import Webhook

from sixfbd.plugin import Secret

MIN_KEY_BYTES: Final = 24  # Standard Webhooks, "Signature scheme"
MAX_KEY_BYTES: Final = 64


def signer(secret: Secret) -> Webhook:
    """Return what signs with a secret. Raises ValueError, without the secret, if it is none of Standard Webhooks."""
    try:
        key = base64.b64decode(secret.reveal().removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError('is not one of Standard Webhooks; write "whsec_" and base64 of 24 to 64 bytes')
    return Webhook(key)
