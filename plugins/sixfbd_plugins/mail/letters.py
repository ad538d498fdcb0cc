"""A notification as an e-mail: subject, plain text, simple HTML, and the headers that keep threads together and auto-responders
quiet. Pure functions; how it leaves is nobody's business here."""

import html
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from sixfbd.plugin import Notification
from sixfbd_plugins.notifiers.fitting import blocks_of, color_of, fitted, headline, printable

MAX_SUBJECT: Final = 200  # characters: RFC 5322 has 998 in a line, people read the first 80
MAX_TEXT: Final = 100_000
MAX_BLOCK: Final = 10_000
MAX_BLOCKS: Final = 60
MOST_INCIDENTS: Final = 10  # that References names


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """An e-mail, not addressed yet. `headers` besides From, To, Subject, Date and Message-ID."""

    subject: str
    text: str
    html: str
    headers: Mapping[str, str]
    message_id: str


def letter_of(notification: Notification, domain: str) -> Letter:
    """Return the e-mail of a notification; ids are of our message and of its incidents, so that a repeat has the same ones."""
    subject = fitted(" ".join(printable(headline(notification)).split()), MAX_SUBJECT) or "sixfbd"
    incidents = " ".join(_id_of("incident", alert.id, domain) for alert in notification.alerts[:MOST_INCIDENTS])
    headers = {
        "Auto-Submitted": "auto-generated",  # RFC 3834
        "X-Auto-Response-Suppress": "All",  # Exchange
        "List-Id": f"sixfbd <sixfbd.{domain}>",  # RFC 2919
    }
    if incidents:
        headers |= {"References": incidents, "In-Reply-To": incidents.split(" ")[0]}
    return Letter(
        subject=subject,
        text=fitted(notification.text, MAX_TEXT) or subject,
        html=_html(notification, subject),
        headers=headers,
        message_id=_id_of("message", notification.id, domain),
    )


def _id_of(kind: str, name: str, domain: str) -> str:
    plain = re.sub("[^A-Za-z0-9._-]", "-", name)[:100]
    return f"<{kind}.{plain}.sixfbd@{domain}>"


def _html(notification: Notification, subject: str) -> str:
    blocks = blocks_of(notification)
    paragraphs = [
        f"<p>{fitted(block, MAX_BLOCK, html.escape).replace(chr(10), '<br>')}</p>" for block in blocks[:MAX_BLOCKS]
    ]
    if len(blocks) > MAX_BLOCKS:
        paragraphs.append(f"<p>{len(blocks) - MAX_BLOCKS} more; the plain text has them.</p>")
    if re.fullmatch(r"https?://[!-~]{1,500}", notification.external_url):
        url = html.escape(notification.external_url)
        paragraphs.append(f'<p><a href="{url}">{url}</a></p>')
    bar = f"border-left: 6px solid {color_of(notification)}; padding: 0 0 0 16px; font-family: sans-serif"
    body = "\n".join([f"<h3>{html.escape(subject)}</h3>", *paragraphs])
    return f'<!DOCTYPE html>\n<html><body>\n<div style="{bar}">\n{body}\n</div>\n</body></html>\n'
