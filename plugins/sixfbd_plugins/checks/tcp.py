"""The checks `tcp` and `tls`: does a port take connections, does it agree on TLS, and how long is its certificate good.

How a connection is had is `probe.network`'s business. Certificates are those that are shown at once: nothing is said in the
clear first, as mail servers want it for STARTTLS. The default rules are those of probes.
"""

import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

import httpx
import trio
from msgspec import Meta, Struct

from sixfbd.plugin import (
    DAY,
    SECOND,
    Check,
    Context,
    Duration,
    Json,
    OptionFaults,
    PluginConfig,
    Report,
    Sample,
    Status,
    hookimpl,
)
from sixfbd_plugins.checks.probe.exchange import certificate_words, timeout_words
from sixfbd_plugins.checks.probe.metrics import (
    CERTIFICATE_EXPIRY,
    DURATION,
    IP_PROTOCOL,
    LOOKUP,
    MOST_SUMMARY,
    SUCCESS,
    status_of,
    summary_of,
)
from sixfbd_plugins.checks.probe.network import ProbeNetwork, look_again
from sixfbd_plugins.checks.probe.tls import TlsOptions, tls_context
from sixfbd_plugins.checks.probe.trail import CertificateError, ProbeError, Trail
from sixfbd_plugins.checks.targets import each, run_deadline, validate_port

HTTPS: Final = 443


class Place(NamedTuple):
    """Where to connect: a name or an address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_place(text: str, port: int | None = None) -> Place:
    """Return what "host:port" says; `port` is what it may leave out. Raises ValueError that says how to mend it."""
    try:
        url = httpx.URL(f"tcp://{text}")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"{text!r} is not an address: {error}") from None
    validate_port(url)
    port = url.port or port
    if not url.host or port is None or str(url.raw_path, "ascii") not in ("", "/") or "/" in text or url.userinfo:
        raise ValueError(f"{text!r} is not an address; write db.example.com:5432 or [2001:db8::1]:5432")
    return Place(url.raw_host.decode("ascii"), port)


class TcpOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `tcp` check."""

    usual_port: ClassVar[int | None] = None

    targets: Annotated[
        tuple[str, ...], Meta(description='Where to connect, such as "db.example.com:5432".', min_length=1)
    ]
    tls: Annotated[TlsOptions | None, Meta(description="TLS, once connected; none without this table.")] = None
    ip_protocol: Annotated[Literal["any", "4", "6"], Meta(description="IP version to use.")] = "any"
    deadline: Annotated[Duration, Meta(description="Time for each target.", gt=0)] = Duration(5 * SECOND)

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("targets"):
                if len(set(self.places())) < len(self.targets):
                    raise ValueError("an address stands there twice; drop one")

    def places(self) -> list[Place]:
        """Return the targets, parsed. Raises ValueError."""
        return [parse_place(target, self.usual_port) for target in self.targets]


class TlsCheckOptions(TcpOptions, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `tls` check."""

    usual_port: ClassVar[int | None] = HTTPS

    targets: Annotated[
        tuple[str, ...],
        Meta(description='Whose certificates: "shop.example.com", or with its port if not 443.', min_length=1),
    ]
    tls: Annotated[TlsOptions, Meta(description="TLS.")] = TlsOptions()


class _Outcome(Struct, frozen=True):
    """One target's probe: what it left, how long it took, and what failed (empty: nothing)."""

    place: Place
    trail: Trail
    seconds: float
    failure: str = ""


class TcpCheck(Check[TcpOptions]):
    """Connections: does a port take them, and agree on TLS."""

    Options: ClassVar[type[TcpOptions]] = TcpOptions
    metrics = (SUCCESS, DURATION, LOOKUP, IP_PROTOCOL, CERTIFICATE_EXPIRY)
    interval = Duration(30 * SECOND)
    scheme: ClassVar[str] = "tcp"  # of `instance`: probes of one place by several plugins are several series

    def __init__(self, options: TcpOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._places = options.places()
        self._context: ssl.SSLContext | None = None

    async def run(self, cursor: Json | None) -> Report:
        """Connect to every target once: healthy if all are good, degraded if some are, unhealthy if none is."""
        if self.options.tls is not None and self._context is None:
            try:
                self._context = await self.ctx.to_thread(tls_context, self.options.tls, self.ctx.http)
            except ValueError as error:  # a file that was there when the configuration was loaded
                return Report(Status.UNKNOWN, f"tls: {error}"[:MOST_SUMMARY])
        deadline = run_deadline(self.options.deadline)
        outcomes = await each(self._places, lambda place: self._probe(place, deadline))
        failures = [(str(one.place), one.failure) for one in outcomes if one.failure]
        return Report(
            status_of(len(failures), len(outcomes)),
            summary_of(failures, len(outcomes), _good(outcomes, self.ctx.clock.now())),
            tuple(sample for outcome in outcomes for sample in _samples(outcome, self.scheme)),
            reachable=all(outcome.trail.ip_protocol for outcome in outcomes),
        )

    async def _probe(self, place: Place, deadline: float) -> _Outcome:
        trail, started, failure = Trail(), time.perf_counter(), ""
        try:
            with trio.fail_at(deadline):
                await self._connect(place, trail)
        except ProbeError as error:
            failure = str(error)
        except trio.TooSlowError:
            failure = timeout_words(trail, time.perf_counter() - started)
        return _Outcome(place, trail, time.perf_counter() - started, failure)

    async def _connect(self, place: Place, trail: Trail) -> None:
        """Connect, agree on TLS if asked for, and hang up. Raises ProbeError."""
        name = self.options.tls.server_name if self.options.tls is not None else None
        network = ProbeNetwork(
            trail, host=place.host, server_name=name, ip_protocol=self.options.ip_protocol, ip_fallback=False
        )
        try:
            stream = await network.connect_tcp(place.host, place.port)
            if self._context is not None:
                stream = await stream.start_tls(self._context, place.host)
            trail.enter("done")
            await stream.aclose()
        except CertificateError as refused:
            if network.address is not None:
                trail.certificate = await look_again(network.address, refused.server_name)
            raise ProbeError(certificate_words(refused, trail, self.ctx.clock.now())) from refused
        finally:
            network.close()


class TlsCheck(TcpCheck):
    """Certificates of any server that speaks TLS at once: days left, chain, name."""

    Options = TlsCheckOptions
    interval = Duration(300 * SECOND)
    scheme: ClassVar[str] = "tls"


def _samples(outcome: _Outcome, scheme: str) -> list[Sample]:
    instance, trail = f"{scheme}://{outcome.place}", outcome.trail
    samples = [
        SUCCESS(float(not outcome.failure), instance=instance),
        DURATION(outcome.seconds, instance=instance),
        LOOKUP(trail.seconds["resolve"], instance=instance),
        IP_PROTOCOL(trail.ip_protocol, instance=instance),
    ]
    if trail.certificate is not None:
        samples.append(CERTIFICATE_EXPIRY(trail.certificate.not_after, instance=instance))
    return samples


def _good(outcomes: Sequence[_Outcome], now: float) -> str:
    """Return what there is to say if none failed: how long it took, and whose certificate ends first."""
    slowest = max(outcome.seconds for outcome in outcomes)
    said = f"connected in {slowest:.3f} s" if len(outcomes) == 1 else f"all {len(outcomes)} connect in {slowest:.3f} s"
    ends = min((outcome.trail.certificate.not_after for outcome in outcomes if outcome.trail.certificate), default=None)
    return said if ends is None else f"{said}, certificate good for {(ends - now) / DAY:.1f} days"


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The checks `tcp` and `tls`."""
    return {"tcp": TcpCheck, "tls": TlsCheck}
