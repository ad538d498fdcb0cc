"""SendGrid's API as far as e-mail leaves by it: one request for each message, whose body SendGrid's own SDK builds.

Owns what SendGrid's answers mean. No error holds the key or an address. The SDK is imported when an account is made; its
client is not used, as it blocks and has no time limit.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import httpx
import msgspec

from sixfbd.plugin import SECOND, Context, PermanentFailure, TemporaryFailure
from sixfbd_plugins.checks.targets import hiding
from sixfbd_plugins.mail.letters import Letter
from sixfbd_plugins.mail.options import MailOptions, parse_mailbox
from sixfbd_plugins.notifiers.webhook import retry_after_s
from sixfbd_plugins.provider import exchange, without_people

CALL_S: Final = 10 * SECOND
MAX_ANSWER_BYTES: Final = 256 * 1024
MAX_SAID: Final = 160  # characters of what SendGrid says that are shown
CUSTOM_ARG: Final = "sixfbd_message"  # our message's id: events of it bring it back
MOST_PAUSE_S: Final = 3600.0
WORDS: Final = {
    401: "the API key is not valid",
    403: "the key may not send mail, or the sender is not verified",
    413: "the message is too large",
    429: "too many requests",
}
"""https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/responses"""


class SendGrid:
    """One account. `send` hands one e-mail over; with `sandbox` it is validated and never sent."""

    def __init__(self, options: MailOptions, ctx: Context) -> None:
        from sendgrid.helpers import mail  # only who is configured pays for it

        assert options.api_key is not None
        self._mail: Any = mail
        self._ctx = ctx
        self._call_s: float = CALL_S
        self._from = parse_mailbox(options.sender)
        self._url = f"{options.base_url.rstrip('/')}/v3/mail/send"
        self._key = options.api_key.reveal()
        self._hide = hiding([self._key])

    async def send(self, letter: Letter, to: str, message: str = "", *, sandbox: bool = False) -> str:
        """Return what SendGrid calls the message. Raises TemporaryFailure or PermanentFailure."""
        body = msgspec.json.encode(self._body(letter, to, message, sandbox))
        answer = await exchange(
            self._ctx.http,
            "POST",
            self._url,
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
            content=body,
            call_s=self._call_s,
            max_bytes=MAX_ANSWER_BYTES,
            hide=self._shown,
        )
        if answer.status_code != (200 if sandbox else 202):
            raise self._failure(answer)
        return str(answer.headers.get("x-message-id") or "")[:100]

    def _body(self, letter: Letter, to: str, message: str, sandbox: bool) -> Mapping[str, Any]:
        mail = self._mail
        name, address = self._from
        made = mail.Mail(
            from_email=mail.From(address, name or None),
            to_emails=mail.To(to),
            subject=mail.Subject(letter.subject),
            plain_text_content=mail.PlainTextContent(letter.text),
            html_content=mail.HtmlContent(letter.html),
        )
        for header, value in letter.headers.items():
            made.add_header(mail.Header(header, value))
        if message:
            made.add_custom_arg(mail.CustomArg(CUSTOM_ARG, message))
        made.tracking_settings = mail.TrackingSettings(
            click_tracking=mail.ClickTracking(enable=False, enable_text=False),
            open_tracking=mail.OpenTracking(enable=False),
        )
        if sandbox:
            made.mail_settings = mail.MailSettings(sandbox_mode=mail.SandBoxMode(enable=True))
        body: Mapping[str, Any] = made.get()
        return body

    def _failure(self, answer: httpx.Response) -> TemporaryFailure | PermanentFailure:
        status = answer.status_code
        said = self._said(answer)
        words = WORDS.get(status, "")
        text = f"answered {status}: " + (
            f"{words} ({said})" if words and said else words or said or "no reason was given"
        )
        if 200 <= status < 300:
            return PermanentFailure(
                f"answered {status}: " + ("validated, and not sent" if status == 200 else "not what was asked for")
            )
        if status >= 500 or status in (408, 425, 429):
            return TemporaryFailure(text, retry_after_s=self._wait_s(answer))
        return PermanentFailure(text)

    def _said(self, answer: httpx.Response) -> str:
        """Return SendGrid's own words, without key and addresses."""
        try:
            said = answer.json()["errors"][0]["message"]
        except (ValueError, LookupError, TypeError, RecursionError):
            return ""
        return self._shown(said) if isinstance(said, str) else ""

    def _shown(self, text: str) -> str:
        return without_people(self._hide(" ".join(text[: 8 * MAX_SAID].split())))[:MAX_SAID]

    def _wait_s(self, answer: httpx.Response) -> float | None:
        wall = self._ctx.clock.wall()
        if (wish := retry_after_s(answer.headers.get("retry-after"), wall)) is not None:
            return wish
        reset = answer.headers.get("x-ratelimit-reset", "")  # unix seconds
        if not re.fullmatch("[0-9]{1,12}", reset):
            return None
        return min(max(0.0, int(reset) - wall.timestamp()), MOST_PAUSE_S)
