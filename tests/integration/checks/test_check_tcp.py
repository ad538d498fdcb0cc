"""The `tcp` and `tls` checks against real servers on loopback: good ones, and what each bad one is called."""

import socket
from functools import partial

import pytest
import trio

from sixfbd.plugin import DAY, Duration, InvalidOptions, Status
from sixfbd_plugins.checks.probe.tls import TlsOptions
from sixfbd_plugins.checks.tcp import Place, TcpCheck, TcpOptions, TlsCheck, TlsCheckOptions, parse_place


async def listen(stream):
    """A server that waits for its client to leave."""
    await stream.receive_some(1)


@pytest.fixture
def probe(context):
    """Run a check once; return its report, and the values by metric of its only target."""

    async def run(*targets, kind=TcpCheck, **options):
        made = kind(kind.Options(targets=tuple(str(target) for target in targets), **options), context)
        with trio.fail_after(10):
            report = await made.run(None)
        return report, {one.metric.removeprefix("probe_"): one.value for one in report.samples}

    return run


@pytest.fixture
def closed():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield Place("127.0.0.1", taken.getsockname()[1])  # bound and not listening: refused, and nobody else gets it


@pytest.fixture
async def tls_of(serve):
    """Start a server with a certificate; return its place."""

    async def start(context):
        return Place("127.0.0.1", await serve(listen, context))

    return start


async def test_a_port_that_takes_connections_is_healthy_and_measured(serve, probe):
    report, values = await probe(Place("127.0.0.1", await serve(listen)))
    assert report.status is Status.HEALTHY and report.reachable
    assert report.summary.startswith("connected in 0.")
    assert 0 < values.pop("dns_lookup_time_seconds") < values.pop("duration_seconds")
    assert values == {"success": 1, "ip_protocol": 4}


async def test_a_port_that_refuses_is_unhealthy_and_said_so(closed, probe):
    report, values = await probe(closed)
    assert (report.status, report.reachable) == (Status.UNHEALTHY, False)
    assert report.summary == f"connection refused by 127.0.0.1 port {closed.port}"
    assert (values["success"], values["ip_protocol"]) == (0, 0)


async def test_of_several_targets_those_that_fail_are_named(serve, closed, probe):
    good = Place("127.0.0.1", await serve(listen))
    report, _ = await probe(good, closed)
    assert report.status is Status.DEGRADED
    assert report.summary == f"1 of 2 targets fail: {closed}: connection refused by 127.0.0.1 port {closed.port}"
    by_instance = {dict(one.labels)["instance"]: one.value for one in report.samples if one.metric == "probe_success"}
    assert by_instance == {f"tcp://{good}": 1, f"tcp://{closed}": 0}


async def test_a_name_without_an_address_of_the_ip_version_asked_for_fails(serve, probe):
    report, _ = await probe(Place("127.0.0.1", await serve(listen)), ip_protocol="6")
    assert (report.status, report.summary) == (Status.UNHEALTHY, "DNS: 127.0.0.1 has no IPv6 address")


async def test_a_server_that_does_not_agree_on_tls_in_time_is_named_by_its_phase(serve, probe, certificates):
    place = Place("127.0.0.1", await serve(listen_without_a_word))
    report, _ = await probe(place, tls=TlsOptions(ca_file=certificates.ca_file), deadline=Duration(0.3))
    assert report.status is Status.UNHEALTHY
    assert report.summary == "timed out after 300ms in phase tls (agreeing on TLS)"


async def listen_without_a_word(stream):
    while await stream.receive_some(4096):
        pass


async def test_a_good_certificate_is_healthy_and_its_end_is_measured(tls_of, probe, certificates, context):
    place = await tls_of(certificates.signed("good", ends=30))
    trusted = TlsOptions(ca_file=certificates.ca_file)
    for kind in (TlsCheck, TcpCheck):
        report, values = await probe(place, kind=kind, tls=trusted)
        assert report.status is Status.HEALTHY, report.summary
        assert report.summary.endswith("s, certificate good for 30.0 days")
        assert values["ssl_earliest_cert_expiry"] == pytest.approx(context.clock.now() + 30 * DAY, abs=60)


async def test_without_tls_a_tcp_check_does_not_look_at_certificates(tls_of, probe, certificates):
    _, values = await probe(await tls_of(certificates.self_signed("unseen")))
    assert values["success"] == 1 and "ssl_earliest_cert_expiry" not in values


@pytest.mark.parametrize(
    ("name", "signed", "said", "days"),
    [
        ("expired", {"begins": -9, "ends": -3}, "certificate expired 3 days ago, on ", -3),
        ("early", {"begins": 2, "ends": 9}, "certificate is not valid before ", 9),
        ("other", {"names": "DNS:elsewhere.example.com"}, "certificate is for another host, not 127.0.0.1", 30),
        ("alone", None, "certificate is self-signed", 5),
    ],
)
async def test_a_certificate_that_is_refused_is_named_and_its_end_measured_all_the_same(
    tls_of, probe, certificates, context, name, signed, said, days
):
    server = certificates.self_signed(name) if signed is None else certificates.signed(name, **signed)
    report, values = await probe(await tls_of(server), kind=TlsCheck, tls=TlsOptions(ca_file=certificates.ca_file))
    assert (report.status, report.reachable) == (Status.UNHEALTHY, True)
    assert report.summary.startswith(said)
    assert values["success"] == 0
    assert values["ssl_earliest_cert_expiry"] == pytest.approx(context.clock.now() + days * DAY, abs=120)


async def test_a_certificate_of_an_authority_that_is_not_trusted_is_named(tls_of, probe, certificates):
    report, _ = await probe(await tls_of(certificates.signed("unknown")), kind=TlsCheck)
    assert report.summary == "certificate's issuer is not known"


async def test_a_server_that_does_not_speak_tls_is_named(serve, probe):
    async def greet(stream):
        await stream.send_all(b"220 mail.example.com ESMTP\r\n")
        await stream.receive_some(1)

    report, values = await probe(Place("127.0.0.1", await serve(greet)), kind=TlsCheck)
    assert report.summary == "TLS: the server does not answer in TLS"
    assert values["success"] == 0 and "ssl_earliest_cert_expiry" not in values


async def test_a_server_hears_that_we_leave(nursery, probe):
    left = trio.Event()

    async def handle(stream):
        assert await stream.receive_some(1) == b""
        left.set()

    [listener] = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
    await probe(Place("127.0.0.1", listener.socket.getsockname()[1]))
    with trio.fail_after(5):
        await left.wait()


@pytest.mark.parametrize(
    ("text", "port", "place"),
    [
        ("db.example.com:5432", None, "db.example.com:5432"),
        ("[2001:db8::1]:5432", None, "[2001:db8::1]:5432"),
        ("shop.example.com", 443, "shop.example.com:443"),
        ("Shop.Example.com:8443", 443, "shop.example.com:8443"),
        ("bücher.example:25", None, "xn--bcher-kva.example:25"),
    ],
)
def test_a_target_is_a_host_and_a_port(text, port, place):
    assert str(parse_place(text, port)) == place


@pytest.mark.parametrize("text", ["", "db", ":5432", "db:0", "db:70000", "db:x", "tcp://db:1", "db:1/x", "me:pw@db:1"])
def test_what_is_no_host_and_port_is_refused(text):
    with pytest.raises(InvalidOptions, match=r"targets: .*(is not an address|is not a port)"):
        TcpOptions(targets=(text,))


def test_a_target_twice_is_refused():
    with pytest.raises(InvalidOptions, match="targets: an address stands there twice; drop one"):
        TlsCheckOptions(targets=("shop.example.com", "SHOP.example.com:443"))
