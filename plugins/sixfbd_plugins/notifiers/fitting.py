"""Texts that fit: cut to a provider's limit after its markup was escaped, no character and no escape torn. Pure functions."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Final

from sixfbd.plugin import Notification, NotifiedAlert
from sixfbd_plugins.notifiers.webhook import rfc3339

CUT: Final = "…"
LEEWAY: Final = 1000  # characters that may turn out to be none
RESOLVED_COLOR: Final = "#1CC88A"
RESOLVED_ICON: Final = "✅"
_SIGN_PARTS: Final = frozenset("\ufe0f\u200d\u20e3\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
"""What emoji are composed with: a selector, a joiner, a frame, tones of skin."""
UNKNOWN_COLOR: Final = "#858796"


def units(text: str) -> int:
    """Return the length in UTF-16 units: providers count characters in one of two ways, and this is the larger number."""
    return len(text) + sum(char > "\uffff" for char in text)


def printable(text: str) -> str:
    """Return a text without control characters and halves of characters, which no JSON and no screen takes."""
    return "".join(char for char in text if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs"))


def fitted(text: str, limit: int, escape: Callable[[str], str] = str) -> str:
    """Return a text, escaped character by character, in at most `limit` units; of a longer one the beginning."""
    pieces: list[str] = []
    left, room = limit, 0  # `room`: pieces that leave room for the sign that it was cut
    for char in printable(text[: 4 * limit + LEEWAY]).strip():
        piece = escape(char)
        left -= units(piece)
        if left < 0:
            return "".join(pieces[:room]).rstrip() + CUT
        pieces.append(piece)
        if left >= len(CUT):
            room = len(pieces)
    return "".join(pieces)


def blocks_of(notification: Notification) -> list[str]:
    """Return what a notification's text says below its title, paragraph by paragraph: remarks, alerts, where it comes from.

    The address of the dashboard, which is its last, is left to the channel to show.
    """
    blocks = notification.text.split("\n\n")
    if blocks and blocks[0][:100] == notification.title[:100]:
        del blocks[0]
    if blocks and notification.external_url and blocks[-1] == notification.external_url:
        del blocks[-1]
    return [block for block in blocks if printable(block).strip()]


def headline(notification: Notification) -> str:
    """Return the title behind its sign, which does not stand in the text once more; what is over has that sign alone."""
    if notification.status == "resolved":
        return f"{RESOLVED_ICON} {_without_signs(notification.title)}"
    icon = notification.icon
    title = _joined(notification.title.replace(icon, " ")) if icon else notification.title
    return f"{icon} {title}".strip()


def color_of(notification: Notification) -> str:
    """Return the colour, such as "#E74A3B"."""
    return RESOLVED_COLOR if notification.status == "resolved" else notification.color or UNKNOWN_COLOR


def resolved_parts(alerts: Sequence[NotifiedAlert]) -> tuple[str, list[str], str]:
    """Return title, paragraphs and colour of what becomes of an earlier message about alerts that are resolved now."""
    blocks = []
    for alert in alerts:
        ended = "" if alert.ends_at is None else f" until {rfc3339(alert.ends_at)}"
        blocks.append(f"Resolved: {alert.sentence}\nFrom {rfc3339(alert.starts_at)}{ended}")
    more = f", and {len(alerts) - 1} more" if len(alerts) > 1 else ""
    return f"{RESOLVED_ICON} [RESOLVED] {_without_signs(alerts[0].sentence)}{more}", blocks, RESOLVED_COLOR


def _without_signs(text: str) -> str:
    """Return a text without emoji: of symbols those of Latin-1, such as the degree sign, stay."""
    return _joined("".join(" " if _is_sign(char) else char for char in text))


def _is_sign(char: str) -> bool:
    return char in _SIGN_PARTS or (char > "\u00ff" and unicodedata.category(char) == "So")


def _joined(text: str) -> str:
    return " ".join(text.split())
