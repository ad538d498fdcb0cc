"""The `dns` check: what name servers answer to a question, whether it is what it must be, and how long it takes.

dnspython makes the question and reads the answer; only who configures such a check needs it. Each server is asked itself and
by its own connection: nothing is cached. The default rule is that of probes.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import trio
from msgspec import Meta, Struct

from sixfbd.plugin import (
    SECOND,
    Check,
    Context,
    Duration,
    Gauge,
    Json,
    OptionFaults,
    PluginConfig,
    Report,
    Sample,
    Status,
    hookimpl,
    installed,
)
from sixfbd_plugins.checks.probe.metrics import DURATION, MOST_SUMMARY, SUCCESS, status_of, summary_of
from sixfbd_plugins.checks.probe.network import resolve
from sixfbd_plugins.checks.probe.trail import ProbeError
from sixfbd_plugins.checks.targets import each, run_deadline
from sixfbd_plugins.checks.tcp import Place, parse_place

if TYPE_CHECKING:
    from dns.message import Message
    from dns.rdata import Rdata
    from dns.rdatatype import RdataType

DNS: Final = 53
AGAIN_S: Final = 1.5  # after which a question is asked again: UDP may lose one
SHOWN: Final = 200  # characters of an answer

ANSWERS = Gauge("probe_dns_answer_rrs", "Records of the type asked for in the answer.", ("instance",))


class DnsOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `dns` check."""

    name: Annotated[str, Meta(description='Name to ask for, such as "shop.example.com".', min_length=1)]
    record: Annotated[str, Meta(description="Type of record: A, AAAA, CNAME, MX, NS, TXT and so on.")] = "A"
    expect: Annotated[
        tuple[str, ...],
        Meta(description='Records that must be the answer, as in a zone file: ["10 mail.example.com."]; none: any.'),
    ] = ()
    servers: Annotated[
        tuple[str, ...], Meta(description="Name servers to ask, with their port if not 53; none: /etc/resolv.conf's.")
    ] = ()
    deadline: Annotated[Duration, Meta(description="Time for each server.", gt=0)] = Duration(5 * SECOND)

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("servers"):
                if len({parse_place(server, DNS) for server in self.servers}) < len(self.servers):
                    raise ValueError("a server stands there twice; drop one")
            with faults.at("record"):
                installed("dns", extra="dns")
                record_type(self.record)
            with faults.at("name"):
                validate_name(self.name)
            with faults.at("expect"):
                for text in self.expect:
                    record_of(self.record, text)


def record_type(text: str) -> "RdataType":
    """Return a type of record. Raises ValueError."""
    from dns.exception import DNSException
    from dns.rdatatype import ANY, RdataType, from_text, is_metatype

    try:
        kind: RdataType = from_text(text)
    except (DNSException, ValueError):
        raise ValueError(f"{text!r} is no type of record; write A, AAAA, CNAME, MX, NS or TXT") from None
    if kind == ANY or is_metatype(kind):
        raise ValueError(f"{text} is no type that records have; write A, AAAA, CNAME, MX, NS or TXT")
    return kind


def validate_name(text: str) -> None:
    """Raise ValueError for what is no name that can be asked for."""
    from dns.exception import DNSException
    from dns.name import from_text

    try:
        from_text(text)
    except (DNSException, UnicodeError) as error:
        raise ValueError(f"{text!r} is no name: {error}; write shop.example.com") from None


def record_of(kind: str, text: str) -> "Rdata":
    """Return a record as a zone file writes it, names complete. Raises ValueError."""
    from dns import name, rdata, rdataclass
    from dns.exception import DNSException

    try:
        return rdata.from_text(rdataclass.IN, record_type(kind), text, origin=name.root, relativize=False)
    except DNSException as error:
        raise ValueError(f"{text!r} is no record of the type {kind}: {error}") from None


class _Outcome(Struct, frozen=True):
    """What became of one server: the records of its answer as text, how long it took, what failed (empty: nothing)."""

    place: Place
    seconds: float
    found: tuple[str, ...] = ()
    failure: str = ""
    is_answered: bool = False


class DnsCheck(Check[DnsOptions]):
    """Answers of name servers: is there a record, is it the right one, how long does it take."""

    Options = DnsOptions
    metrics = (SUCCESS, DURATION, ANSWERS)
    interval = Duration(30 * SECOND)

    def __init__(self, options: DnsOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        from dns import asyncbackend, asyncquery, message  # here, since loading takes the loop

        self._message, self._query = message, asyncquery
        self._backend = asyncbackend.get_backend("trio")
        self._kind = record_type(options.record)
        self._expected = {record_of(options.record, text) for text in options.expect}

    async def run(self, cursor: Json | None) -> Report:
        """Ask every server once: healthy if all answer as they must, degraded if some do, unhealthy if none does."""
        deadline = run_deadline(self.options.deadline)
        try:
            servers = self.options.servers or tuple(await self.ctx.to_thread(system_servers))
        except ValueError as error:
            return Report(Status.UNKNOWN, str(error)[:MOST_SUMMARY])
        places = [parse_place(server, DNS) for server in servers]
        outcomes = await each(places, lambda place: self._ask(place, deadline))
        asked = f"{self.options.name} {self.options.record}"
        failures = [(str(one.place), f"{asked}: {one.failure}") for one in outcomes if one.failure]
        return Report(
            status_of(len(failures), len(outcomes)),
            summary_of(failures, len(outcomes), f"{asked}: {_shown(outcomes[0].found)}"),
            tuple(sample for outcome in outcomes for sample in _samples(outcome)),
            reachable=all(outcome.is_answered for outcome in outcomes),
        )

    async def _ask(self, place: Place, deadline: float) -> _Outcome:
        from dns.exception import DNSException

        started, found, failure, is_answered = time.perf_counter(), set[Any](), "", False
        try:
            with trio.fail_at(deadline):
                answer = await self._answer(place)
            is_answered = True
            found = records_in(answer)
            failure = self._fault(found)
        except ProbeError as error:
            failure = str(error)
        except DNSException as error:
            failure = f"the answer cannot be read: {error or type(error).__name__}"
        except (OSError, EOFError) as error:
            failure = f"cannot be asked: {error or type(error).__name__}"
        except trio.TooSlowError:
            failure = f"no answer within {time.perf_counter() - started:.1f} s"
        texts = tuple(sorted(record.to_text() for record in found))
        return _Outcome(place, time.perf_counter() - started, texts, failure, is_answered)

    async def _answer(self, place: Place) -> "Message":
        """Return a server's answer, by TCP if it is too large for UDP; asks again until the caller's time is over."""
        from dns.exception import Timeout

        [address, *_] = await resolve(place.host, place.port, "any", True)
        where = str(address.sockaddr[0])
        while True:
            query = self._message.make_query(self.options.name, self._kind)
            try:
                answer, _ = await self._query.udp_with_fallback(
                    query, where, AGAIN_S, place.port, ignore_unexpected=True, backend=self._backend
                )
            except Timeout:
                await trio.lowlevel.checkpoint()
                continue
            return answer

    def _fault(self, found: "set[Rdata]") -> str:
        """Return what is wrong with the records of an answer."""
        if not found:
            return f"there is no {self.options.record} record"
        if self._expected and found != self._expected:
            texts = (sorted(record.to_text() for record in records) for records in (found, self._expected))
            return "answered {}, expected {}".format(*(_shown(one) for one in texts))
        return ""


def records_in(answer: "Message") -> "set[Rdata]":
    """Return the records that answer the question, at the end of its chain of CNAMEs. Raises ProbeError, DNSException."""
    from dns.message import QueryMessage
    from dns.rcode import NOERROR, NXDOMAIN
    from dns.rcode import to_text as word_of

    code = answer.rcode()
    if code == NXDOMAIN:
        raise ProbeError("NXDOMAIN: there is no such name")
    if code != NOERROR:
        raise ProbeError(f"{word_of(code)}: the server did not answer the question")
    if not isinstance(answer, QueryMessage):
        raise ProbeError("the answer is none to a question")
    return set(answer.resolve_chaining().answer or ())


def system_servers(path: str = "/etc/resolv.conf") -> list[str]:
    """Return the name servers of this machine, as places. Blocks: it reads a file. Raises ValueError."""
    from dns.resolver import NoResolverConfiguration, Resolver

    try:
        found = [str(server) for server in Resolver(path).nameservers]
    except NoResolverConfiguration as error:
        raise ValueError(f"{error}; name some in servers") from None
    return [f"[{server}]" if ":" in server else server for server in found]


def _samples(outcome: _Outcome) -> list[Sample]:
    instance = f"dns://{outcome.place}"
    return [
        SUCCESS(float(not outcome.failure), instance=instance),
        DURATION(outcome.seconds, instance=instance),
        ANSWERS(len(outcome.found), instance=instance),
    ]


def _shown(texts: Sequence[str]) -> str:
    return ", ".join(texts)[:SHOWN]


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `dns`."""
    return {"dns": DnsCheck}
