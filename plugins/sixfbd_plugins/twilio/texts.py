"""Texts of SMS: how many segments one takes, and how a longer one is cut to fit. Pure functions.

GSM 03.38 (3GPP TS 23.038) has 160 septets in a message alone, 153 in a part; one character outside it makes the whole text
UCS-2, with 70 and 67 units of 16 bits. https://www.twilio.com/docs/glossary/what-is-gsm-7-character-encoding
"""

import base64
import unicodedata
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

GSM: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_TWICE: Final = frozenset("\f^{}\\[~]|€")
"""Characters of the extension table: an escape goes before each."""

ALONE: Final = {"gsm": 160, "ucs2": 70}
PART: Final = {"gsm": 153, "ucs2": 67}
CUT: Final = "..."
_PLAIN: Final = str.maketrans({
    "—": "-", "–": "-", "−": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "…": "...", "×": "x", "·": "-", "•": "-",
    "≤": "<=", "≥": ">=", "→": "->", "\u00a0": " ", "\u2011": "-", "\t": " ", "`": "'",
})  # fmt: skip
_PICTURES: Final = ("So", "Sk", "Cf", "Mn", "Cs", "Co", "Cn")


def encoding_of(text: str) -> str:
    """Return "gsm" or "ucs2"."""
    return "gsm" if all(char in GSM or char in GSM_TWICE for char in text) else "ucs2"


def segments(text: str) -> int:
    """Return how many segments a text is billed as; no character is torn between two."""
    encoding = encoding_of(text)
    sizes = list(_sizes(text, encoding))
    if sum(sizes) <= ALONE[encoding]:
        return 1
    parts, left = 1, PART[encoding]
    for size in sizes:
        if size > left:
            parts, left = parts + 1, PART[encoding]
        left -= size
    return parts


def fitted(text: str, ending: str, most: int) -> str:
    """Return the text and its ending in at most `most` segments. The ending is short, of GSM 03.38, and always whole.

    Without pictures if nothing else keeps it from GSM 03.38, where a segment has more than twice the room, or if it fits only
    so; else as it is written; a longer one is cut.
    """
    plain = _printable(unicodedata.normalize("NFC", text)).translate(_PLAIN)
    body = _without_pictures(plain)
    for candidate in (body,) if encoding_of(body) == "gsm" else (plain, body):
        whole = f"{candidate} {ending}".strip()
        if segments(whole) <= most:
            return whole
    fits, too_long = 0, len(body)  # the longer a text is, the more segments it takes
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if segments(f"{body[:middle].rstrip()}{CUT} {ending}") <= most:
            fits = middle
        else:
            too_long = middle
    return f"{body[:fits].rstrip()}{CUT} {ending}"


def reference(message_id: str, attempt: int = 1) -> str:
    """Return what a message's text ends with: by it a message is found again whose answer was lost, and no two texts
    are the same, as Twilio drops those that are; nor are those of a message that has to be sent once more."""
    digest = blake2b(message_id.encode(), digest_size=5).digest()
    again = f".{attempt}" if attempt > 1 else ""
    return "#" + base64.b32encode(digest).decode("ascii").lower() + again


def last_reference(text: str) -> str:
    """Return the reference that a text ends with, without its attempt; "" if it has none."""
    last = "".join(text.split()[-1:])
    return last.partition(".")[0] if last.startswith("#") else ""


def _sizes(text: str, encoding: str) -> Iterator[int]:
    for char in text:
        yield 1 + (char in GSM_TWICE if encoding == "gsm" else char > "\uffff")


def _printable(text: str) -> str:
    """Leave out what no phone shows: control characters, and halves of characters."""
    return "".join(char for char in text if char == "\n" or unicodedata.category(char) not in ("Cc", "Cs"))


def _without_pictures(text: str) -> str:
    kept = (char for char in text if char in GSM_TWICE or unicodedata.category(char) not in _PICTURES)
    return "\n".join(" ".join(line.split()) for line in "".join(kept).split("\n")).strip()
