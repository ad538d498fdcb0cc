"""An SMTP server on loopback, in small: EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA; refuses, hangs and hangs up where it is told."""

import base64
import email
import email.policy
import ssl
from email.message import EmailMessage
from functools import partial

import trio


class SmtpServer:
    """`replies` answers a verb (CONNECT, EHLO, AUTH, MAIL, RCPT, DATA, END) otherwise; `hang` and `drop` name verbs too.

    END is the end of the message. `drip` sends the banner a byte each 0.05 s, for ever. `mails` are (sender, receiver, message).
    """

    def __init__(self, context: ssl.SSLContext | None = None, *, implicit: bool = False, login: str = "") -> None:
        self.context, self.implicit, self.login = context, implicit, login
        self.replies: dict[str, str] = {}
        self.hang = self.drop = ""
        self.drip = False
        self.verbs: list[str] = []
        self.mails: list[tuple[str, str, EmailMessage]] = []
        self.connected = trio.Event()
        self.port = 0

    async def start(self, nursery: trio.Nursery) -> None:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listener.socket.getsockname()[1]
        nursery.start_soon(partial(trio.serve_listeners, self._serve, [listener]))

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.connected.set()
        try:
            async with stream:
                await self._talk(self._tls(stream) if self.implicit else stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, StopAsyncIteration):
            await trio.lowlevel.checkpoint()  # one of the two hung up

    def _tls(self, stream: trio.SocketStream) -> trio.SSLStream:
        assert self.context is not None
        return trio.SSLStream(stream, self.context, server_side=True, https_compatible=True)

    async def _talk(self, stream) -> None:
        lines = _Lines(stream)
        if self.drip:
            await stream.send_all(b"220-")
            while True:
                await trio.sleep(0.05)
                await stream.send_all(b"x")
        await self._say(lines, "CONNECT", "220 double ESMTP")
        sender = receiver = ""
        while True:
            line = await lines.next()
            verb = line.split(" ")[0].upper()
            self.verbs.append(verb)
            if verb == "EHLO":
                offers = ["SIZE 1000000"]
                if self.context is not None and not isinstance(lines.stream, trio.SSLStream):
                    offers.append("STARTTLS")
                if self.login:
                    offers.append("AUTH PLAIN")
                await self._say(
                    lines,
                    "EHLO",
                    "\r\n".join(["250-double", *[f"250-{one}" for one in offers[:-1]], f"250 {offers[-1]}"]),
                )
            elif verb == "STARTTLS":
                await self._say(lines, "STARTTLS", "220 go ahead")
                lines = _Lines(self._tls(stream))
            elif verb == "AUTH":
                given = base64.b64decode(line.split(" ")[2]).decode()
                await self._say(lines, "AUTH", "235 welcome" if given == self.login else "535 5.7.8 no")
            elif verb == "DATA":
                await self._say(lines, "DATA", "354 go on")
                if self.replies.get("DATA", "354").startswith("354"):
                    body = await lines.until_dot()
                    message = email.message_from_bytes(body, policy=email.policy.default)
                    if self.replies.get("END", "250").startswith("250"):
                        self.mails.append((sender, receiver, message))
                    await self._say(lines, "END", "250 2.0.0 queued")
            else:
                if verb == "MAIL":
                    sender = line.split("<")[1].split(">")[0]
                if verb == "RCPT":
                    receiver = line.split("<")[1].split(">")[0]
                await self._say(lines, verb, "221 bye" if verb == "QUIT" else "250 ok")
                if verb == "QUIT":
                    return

    async def _say(self, lines: "_Lines", verb: str, usual: str) -> None:
        if self.hang == verb:
            await trio.sleep_forever()
        if self.drop == verb:
            raise StopAsyncIteration
        await lines.stream.send_all(f"{self.replies.get(verb, usual)}\r\n".encode())


class _Lines:
    """The lines of a connection."""

    def __init__(self, stream) -> None:
        self.stream = stream
        self._buffer = b""

    async def _more(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise StopAsyncIteration
        self._buffer += data

    async def next(self) -> str:
        while b"\r\n" not in self._buffer:
            await self._more()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line.decode("ascii")

    async def until_dot(self) -> bytes:
        while b"\r\n.\r\n" not in self._buffer:
            await self._more()
        body, _, self._buffer = self._buffer.partition(b"\r\n.\r\n")
        return body.replace(b"\r\n..", b"\r\n.")
