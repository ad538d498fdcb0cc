"""An SMTP server as far as e-mail leaves by it: one connection for each message.

Connects on the loop, where every wait has its end; smtplib talks in a thread, and what takes too long has its connection cut.
Owns what the server's answers mean. No error holds the password or an address.
"""

import contextlib
import email.policy
import smtplib
import socket
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import format_datetime, formataddr
from typing import Any, Final, TypeVar

import trio

from sixfbd.plugin import SECOND, Context, PermanentFailure, TemporaryFailure
from sixfbd_plugins.checks.probe.tls import trusting_context
from sixfbd_plugins.checks.targets import hiding, run_deadline
from sixfbd_plugins.mail.letters import Letter
from sixfbd_plugins.mail.options import PORTS, MailOptions, parse_mailbox
from sixfbd_plugins.provider import without_people

T = TypeVar("T")

TALK_S: Final = 12 * SECOND  # from the first packet to the last answer
MAX_SAID: Final = 160  # characters of what the server says that are shown
POLICY: Final = email.policy.SMTP.clone(cte_type="7bit")  # whatever the server can take
WORDS: Final = {
    421: "the server is not available now",
    450: "the mailbox is busy, or the server wants us to come again",
    451: "the server failed",
    452: "the server has no room now",
    454: "the login cannot be checked now",
    530: "the server wants a login",
    534: "the server wants another way to log in",
    535: "user name or password is wrong",
    550: "the mailbox does not exist, or the server refuses us",
    551: "the server does not relay for this address",
    552: "the mailbox is full, or the message too large",
    553: "the address is not allowed",
    554: "the server refuses",
}
"""RFC 5321, section 4.2.3; RFC 4954, section 6."""


class _NotOffered(Exception):  # noqa: N818 - the server's answer, no fault of the program
    """The server lacks what the options ask for."""


class _Client(smtplib.SMTP):
    """smtplib's client on a connection that is there already. `handed_over`: the message itself began to leave."""

    def __init__(
        self, given: socket.socket, host: str, port: int, timeout_s: float, tls: ssl.SSLContext | None
    ) -> None:
        self.handed_over = False
        self._given = given
        self._tls = tls
        super().__init__(host, port, local_hostname=_our_name(given), timeout=timeout_s)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        self._given.settimeout(timeout)
        return self._given if self._tls is None else self._tls.wrap_socket(self._given, server_hostname=host)

    def data(self, msg: Any) -> tuple[int, bytes]:
        self.handed_over = True
        return super().data(msg)


class Smtp:
    """One server. `send` hands one e-mail over, `try_login` only says hello and logs in."""

    def __init__(self, options: MailOptions, ctx: Context, talk_s: float = TALK_S) -> None:
        assert options.smtp is not None
        self._server = options.smtp
        self._port = options.smtp.port or PORTS[options.smtp.tls]
        self._ctx = ctx
        self._talk_s = talk_s
        self._from = parse_mailbox(options.sender)
        password = "" if options.smtp.password is None else options.smtp.password.reveal()
        self._password = password
        self._hide = hiding([password, options.smtp.username])
        self._context: ssl.SSLContext | None = None

    async def send(self, letter: Letter, to: str) -> str:
        """Return the Message-ID under which it went. Raises TemporaryFailure or PermanentFailure."""
        whole = self._whole(letter, to).as_bytes(policy=POLICY)
        await self._talk(lambda client: client.sendmail(self._from[1], [to], whole))
        return letter.message_id

    async def try_login(self) -> None:
        """Say EHLO, encrypt, log in and leave. Raises TemporaryFailure or PermanentFailure."""
        await self._talk(lambda client: client.noop())

    def _whole(self, letter: Letter, to: str) -> EmailMessage:
        made = EmailMessage(policy=POLICY)
        made["From"] = formataddr(self._from)
        made["To"] = to
        made["Subject"] = letter.subject
        made["Date"] = format_datetime(self._ctx.clock.wall())
        made["Message-ID"] = letter.message_id
        for header, value in letter.headers.items():
            made[header] = value
        made.set_content(letter.text)
        made.add_alternative(letter.html, subtype="html")
        return made

    async def _talk(self, act: Callable[[_Client], object]) -> None:
        limit_s = max(0.0, run_deadline(self._talk_s) - trio.current_time())
        talk = _Talk()
        with trio.move_on_after(limit_s) as scope:
            try:
                stream = await trio.open_tcp_stream(self._server.host, self._port)
            except OSError as error:
                raise TemporaryFailure(f"cannot connect: {error.strerror or error}", sent=False) from None
            talk.begin(socket.socket(fileno=stream.socket.detach()))
            try:
                trouble = await self._ctx.to_thread(lambda: self._run(talk, act, limit_s))
            finally:
                talk.cut()
        if scope.cancelled_caught:
            raise TemporaryFailure(f"no answer within {limit_s:.3g} s", sent=talk.handed_over)
        if trouble is not None:
            raise self._meaning(trouble, talk.handed_over) from None

    def _run(self, talk: "_Talk", act: Callable[[_Client], object], timeout_s: float) -> Exception | None:
        """Hold the whole conversation, in a thread; return what went wrong."""
        talk.is_held = True
        try:
            implicit = self._tls() if self._server.tls == "implicit" else None
            client = talk.client = _Client(talk.given, self._server.host, self._port, timeout_s, implicit)
            with contextlib.closing(client):
                client.ehlo_or_helo_if_needed()
                if self._server.tls == "starttls":
                    if not client.has_extn("starttls"):
                        raise _NotOffered('the server offers no STARTTLS; ask for tls = "implicit" or another port')
                    client.starttls(context=self._tls())
                if self._server.username:
                    client.ehlo_or_helo_if_needed()
                    if not client.has_extn("auth"):
                        raise _NotOffered("the server offers no login")
                    client.login(self._server.username, self._password)
                act(client)
                with contextlib.suppress(
                    OSError, smtplib.SMTPException
                ):  # it has been taken, whatever comes of the goodbye
                    client.quit()
        except (OSError, smtplib.SMTPException, ValueError, _NotOffered) as error:
            return error
        finally:
            talk.given.close()
        return None

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = trusting_context(self._server.ca_file)
        return self._context

    def _meaning(self, error: Exception, handed_over: bool) -> TemporaryFailure | PermanentFailure:
        match error:
            case smtplib.SMTPRecipientsRefused():
                return self._refusal("the receiver is refused", *next(iter(error.recipients.values()), (554, b"")))
            case smtplib.SMTPSenderRefused():
                return self._refusal("the sender is refused", error.smtp_code, error.smtp_error)
            case smtplib.SMTPAuthenticationError():
                return self._refusal("the login is refused", error.smtp_code, error.smtp_error)
            case smtplib.SMTPResponseException() if 400 <= error.smtp_code < 600:
                return self._refusal("refused", error.smtp_code, error.smtp_error)
            case _NotOffered():
                return PermanentFailure(str(error))
            case smtplib.SMTPServerDisconnected() | smtplib.SMTPResponseException():
                return TemporaryFailure("the server hung up", sent=handed_over)
            case smtplib.SMTPException():
                return PermanentFailure(f"the server takes none of our ways to log in ({type(error).__name__})")
            case ssl.SSLCertVerificationError():
                return TemporaryFailure(f"the server's certificate is not good: {error.verify_message}", sent=False)
            case ssl.SSLError():
                return TemporaryFailure(f"no TLS: {self._shown(error.reason or 'it failed')}", sent=handed_over)
            case TimeoutError():
                return TemporaryFailure("no answer in time", sent=handed_over)
            case _:
                said = self._shown(str(getattr(error, "strerror", "") or type(error).__name__))
                return TemporaryFailure(f"the connection failed: {said}", sent=handed_over)

    def _refusal(self, what: str, code: int, said: bytes | str) -> TemporaryFailure | PermanentFailure:
        words = WORDS.get(code) or ("the server cannot now" if code < 500 else "the server refuses")
        shown = self._shown(said.decode("utf-8", "replace") if isinstance(said, bytes) else said)
        whole = f"{what}: {words} (answered {code} {shown}".rstrip() + ")"
        return TemporaryFailure(whole) if code < 500 else PermanentFailure(whole)

    def _shown(self, text: str) -> str:
        return without_people(self._hide(" ".join(text[: 8 * MAX_SAID].split())))[:MAX_SAID]


class _Talk:
    """What the loop and the thread share of one conversation."""

    given: socket.socket
    _handle: socket.socket

    def __init__(self) -> None:
        self.client: _Client | None = None
        self.is_held = False  # a thread has it, and closes it

    def begin(self, given: socket.socket) -> None:
        given.setblocking(True)
        self.given, self._handle = given, given.dup()

    @property
    def handed_over(self) -> bool:
        return self.client is not None and self.client.handed_over

    def cut(self) -> None:
        """End the conversation, whatever the thread waits for; the handle of our own lasts through a change to TLS."""
        with contextlib.suppress(OSError):  # the other side was faster
            self._handle.shutdown(socket.SHUT_RDWR)
        self._handle.close()
        if not self.is_held:
            self.given.close()


def _our_name(connection: socket.socket) -> str:
    """Return what we call ourselves: smtplib would ask a name server, and wait for it."""
    name = socket.gethostname()
    if "." in name and name.isascii():
        return name
    address = str(connection.getsockname()[0])
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
