"""Incoming webhooks as options, by channel: each is the address of a channel and the key to it at once, so a secret."""

from collections.abc import Iterator, Mapping

import httpx

from sixfbd.plugin import PermanentFailure, Secret


def validate_webhooks(webhooks: Mapping[str, Secret]) -> None:
    """Raise ValueError, which names the channel and never the address, if one cannot be posted to."""
    for channel, secret in webhooks.items():
        try:
            url = httpx.URL(secret.reveal())
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme not in ("http", "https") or not url.host or not secret.reveal().isascii():
            raise ValueError(f"{channel!r:.60} is not an address such as https://hooks.example.com/services/...")


def check_webhook_address(webhooks: Mapping[str, Secret], address: str) -> None:
    """Raise ValueError if a receiver's address names none of the webhooks; "" does if there is one."""
    if address not in webhooks and (address or len(webhooks) > 1):
        raise ValueError(f"names no webhook; write one of {', '.join(webhooks)}")


def webhook_of(webhooks: Mapping[str, Secret], address: str) -> str:
    """Return where messages to an address are posted. Raises PermanentFailure. Only for the wire."""
    try:
        check_webhook_address(webhooks, address)
    except ValueError as error:
        raise PermanentFailure(f"the receiver's address {error}") from None
    return (webhooks[address] if address in webhooks else next(iter(webhooks.values()))).reveal()


def hidden_parts(webhooks: Mapping[str, Secret]) -> Iterator[str]:
    """Yield what no error may hold: addresses, their paths, and the keys at their ends."""
    for secret in webhooks.values():
        url = httpx.URL(secret.reveal())
        yield from (secret.reveal(), url.raw_path.decode("ascii"), url.path, url.path.rpartition("/")[2])
