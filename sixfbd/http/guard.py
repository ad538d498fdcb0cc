"""Who may come in: host names (against DNS rebinding), tokens and their scopes, requests that came through a proxy.

Decides from headers and addresses; the engine knows the tokens.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from sixfbd.config import Http, HttpPublic
from sixfbd.http.answers import Refusal
from sixfbd.http.asked import Asked
from sixfbd.http.engine import HttpEngine, TokenInfo
from sixfbd.http.routes import Scope
from sixfbd.http.sessions import Sessions, session_of

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
NOT_LISTENED_TO: Final = ("0.0.0.0", "[::]")  # nobody calls these: no Host header may have them
MAX_HEAD_BYTES: Final = 16 * 1024
PROXIES: Final = ("forwarded", "via", "x-real-ip")  # with x-forwarded-*, what proxies add (RFC 7239, RFC 9110 7.6.3)
CHALLENGE: Final = {"WWW-Authenticate": "Bearer"}


def split_host(host: str) -> tuple[str, str]:
    """Split a Host header into name (lower case, IPv6 in brackets) and port ("" if there is none)."""
    name, colon, port = host.strip().lower().rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or (name.startswith("[") and not name.endswith("]")):
        name, port = host.strip().lower(), ""
    return name.removesuffix("."), port


def allowed_hosts(config: Http | HttpPublic) -> frozenset[tuple[str, str]]:
    """Return the (name, port) pairs that a Host header may have; port "" stands for any."""
    if isinstance(config, HttpPublic):
        name, _ = split_host(urlsplit(config.url).netloc)
        return frozenset({(name, "")})
    listen = split_host(config.listen)[0]
    own = () if listen in NOT_LISTENED_TO else (listen,)
    return frozenset(split_host(host) for host in (*LOOPBACK_NAMES, *own, *config.hosts))


def check_head(path: bytes, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise Refusal if path, query and headers are larger than MAX_HEAD_BYTES together.

    hypercorn cuts off a head that comes slowly; one that comes at once passes it whatever its size.
    """
    size = len(path) + len(query) + sum(len(name) + len(value) for name, value in headers)
    if size > MAX_HEAD_BYTES:
        raise Refusal(431, "head_too_large", f"path and headers are {size} bytes; at most {MAX_HEAD_BYTES} are read")


def check_target(target: bytes) -> None:
    """Raise Refusal unless the request's target is a path; a whole URL was made one already."""
    if not target.startswith(b"/"):
        raise Refusal(400, "bad_target", "a request's target is a path such as /readyz, or a whole http:// URL")


def check_encoding(encoding: str) -> None:
    """Raise Refusal if a body is compressed: how large it is could be told only by unpacking it."""
    if encoding.strip().lower() not in ("", "identity"):
        raise Refusal(
            415,
            "unsupported_encoding",
            f"the body is encoded as {encoding!r:.60}; send it plain, without Content-Encoding",
        )


def kept_hosts(config: Http | HttpPublic) -> frozenset[tuple[str, str]]:
    """Return the pairs that still hold when another table takes this one's place: whoever is connected may ask once more."""
    return allowed_hosts(config if isinstance(config, HttpPublic) else Http(listen=config.listen))


def check_host(hosts: Iterable[str], allowed: frozenset[tuple[str, str]], mend: str = "") -> None:
    """Raise Refusal unless there is one Host header and it names us (RFC 9110 sections 7.2 and 15.5.20)."""
    given = [host for host in hosts if host.strip()]
    if len(given) != 1:
        raise Refusal(400, "bad_host", "a request needs one Host header")
    name, port = split_host(given[0])
    if (name, "") not in allowed and (name, port) not in allowed:
        raise Refusal(421, "unknown_host", f"{given[0]!r:.100} is not a name of this daemon{mend}")


def is_direct(client: str | None, header_names: Iterable[str]) -> bool:
    """Tell whether a request came from this machine itself: a loopback or Unix peer, and no proxy's headers."""
    if any(name in PROXIES or name.startswith("x-forwarded-") for name in map(str.lower, header_names)):
        return False
    if client is None:
        return True
    address = ipaddress.ip_address(client.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def check_scope(engine: HttpEngine, scope: Scope, asked: Asked, sessions: Sessions | None = None) -> None:
    """Raise Refusal unless a request may do what needs `scope`; notes whose token it came with. Who is logged in may read."""
    if scope == "read" and sessions is not None and session_of(sessions, engine, asked) is not None:
        return
    if scope == "open" or (
        scope == "read" and is_direct(asked.client, (name.decode("latin-1") for name, _ in asked.headers))
    ):
        return
    kind, _, secret = asked.header(b"authorization").partition(" ")
    if kind.lower() != "bearer" or not secret.strip():
        raise Refusal(
            401,
            "token_needed",
            f'this needs a token with the scope {scope!r}: send "Authorization: Bearer ..."; '
            f"`sixfbctl token create NAME --scope {scope}` makes one",
            headers=CHALLENGE,
        )
    token = engine.token(secret.strip())
    if token is None:
        raise Refusal(401, "token_unknown", "no token like this is known; it may have been revoked", headers=CHALLENGE)
    if scope not in token.scopes:
        raise Refusal(403, "token_scope", f"the token {token.name!r} does not have the scope {scope!r}")
    asked.token = token


def caller(asked: Asked) -> TokenInfo:
    """Return whose token let a request in; only in views whose scope always needs one."""
    assert asked.token is not None
    return asked.token
