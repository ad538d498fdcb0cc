"""The `dns` check against name servers on loopback, over real sockets: answers, and what each bad one is called."""

import socket
import struct
from contextlib import suppress

import pytest
import trio
from dns import flags, message, rcode, rrset

from sixfbd.plugin import Duration, InvalidOptions, Status
from sixfbd_plugins.checks.dns import DnsCheck, DnsOptions, system_servers

ZONE = {
    ("shop.example.com.", "A"): [("shop.example.com.", "A", "192.0.2.10"), ("shop.example.com.", "A", "192.0.2.11")],
    ("www.example.com.", "A"): [
        ("www.example.com.", "CNAME", "shop.example.com."),
        ("shop.example.com.", "A", "192.0.2.10"),
    ],
    ("www.example.com.", "CNAME"): [("www.example.com.", "CNAME", "shop.example.com.")],
    ("example.com.", "MX"): [("example.com.", "MX", "10 Mail.example.com.")],
    ("large.example.com.", "TXT"): [("large.example.com.", "TXT", f'"{n:03}{"x" * 200}"') for n in range(20)],
    ("shop.example.com.", "AAAA"): [],
}


def answer_of(wire, over_udp):
    """What a name server of ZONE answers; nothing that is too large goes by UDP."""
    question = message.from_wire(wire)
    [asked] = question.question
    answer = message.make_response(question)
    records = ZONE.get((str(asked.name).lower(), asked.rdtype.name))
    if records is None:
        answer.set_rcode(rcode.SERVFAIL if "broken" in str(asked.name) else rcode.NXDOMAIN)
    for name, kind, text in records or ():
        answer.answer.append(rrset.from_text(name, 60, "IN", kind, text))
    if over_udp and len(answer.to_wire()) > 512:
        answer.answer.clear()
        answer.flags |= flags.TC
    return answer.to_wire()


async def bound_to_one_port():
    """Return a socket for UDP and listeners for TCP, on one port: one that is free for both."""
    for _ in range(50):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        udp = trio.socket.socket(type=socket.SOCK_DGRAM)
        try:
            await udp.bind(("127.0.0.1", port))
        except OSError:  # somebody else has it for UDP
            udp.close()
            await listeners[0].aclose()
        else:
            return udp, listeners, port
    raise AssertionError("no port is free for both UDP and TCP")


@pytest.fixture
async def name_server(nursery):
    """Start a name server by UDP and TCP on one port; return it as a place. `reply` makes an answer by UDP, None: none."""

    async def start(reply=lambda wire: answer_of(wire, True)):
        udp, listeners, port = await bound_to_one_port()

        async def by_udp():
            with udp:
                while True:
                    wire, client = await udp.recvfrom(65535)
                    answer = reply(wire)
                    if answer is not None:
                        await udp.sendto(answer, client)

        async def by_tcp(stream):
            head = await stream.receive_some(2)
            wire = await stream.receive_some(struct.unpack("!H", head)[0])
            answer = answer_of(wire, False)
            with suppress(trio.BrokenResourceError):
                await stream.send_all(struct.pack("!H", len(answer)) + answer)

        nursery.start_soon(by_udp)
        nursery.start_soon(trio.serve_listeners, by_tcp, listeners)
        return f"127.0.0.1:{port}"

    return start


@pytest.fixture
def ask(context):
    """Run a check once; return its report, and the values by metric of its only server."""

    async def run(*servers, name="shop.example.com", **options):
        check = DnsCheck(DnsOptions(name=name, servers=servers, **options), context)
        with trio.fail_after(10):
            report = await check.run(None)
        return report, {one.metric.removeprefix("probe_"): one.value for one in report.samples}

    return run


async def test_an_answer_is_healthy_and_measured(name_server, ask):
    report, values = await ask(await name_server())
    assert (report.status, report.summary) == (Status.HEALTHY, "shop.example.com A: 192.0.2.10, 192.0.2.11")
    assert report.reachable and 0 < values.pop("duration_seconds") < 5
    assert values == {"success": 1, "dns_answer_rrs": 2}


@pytest.mark.parametrize(
    ("name", "record", "expect"),
    [
        ("shop.example.com", "A", ("192.0.2.11", "192.0.2.10")),
        ("www.example.com", "A", ("192.0.2.10",)),  # at the end of its chain
        ("www.example.com", "CNAME", ("shop.example.com",)),
        ("example.com", "MX", ("10 mail.EXAMPLE.com",)),
    ],
)
async def test_the_answer_that_is_expected_is_healthy_in_any_order_and_spelling(name_server, ask, name, record, expect):
    report, _ = await ask(await name_server(), name=name, record=record, expect=expect)
    assert report.status is Status.HEALTHY, report.summary


@pytest.mark.parametrize(
    ("name", "record", "expect", "said"),
    [
        ("shop.example.com", "A", ("192.0.2.10",), "answered 192.0.2.10, 192.0.2.11, expected 192.0.2.10"),
        ("shop.example.com", "AAAA", (), "there is no AAAA record"),
        ("lost.example.com", "A", (), "NXDOMAIN: there is no such name"),
        ("broken.example.com", "A", (), "SERVFAIL: the server did not answer the question"),
    ],
)
async def test_another_answer_is_unhealthy_and_said_in_words(name_server, ask, name, record, expect, said):
    report, values = await ask(await name_server(), name=name, record=record, expect=expect)
    assert (report.status, report.reachable) == (Status.UNHEALTHY, True)
    assert report.summary == f"{name} {record}: {said}"
    assert values["success"] == 0


async def test_an_answer_too_large_for_udp_is_had_by_tcp(name_server, ask):
    _, values = await ask(await name_server(), name="large.example.com", record="TXT")
    assert values["dns_answer_rrs"] == 20


async def test_a_question_that_is_lost_is_asked_again(name_server, ask):
    seen = []

    def forgetful(wire):
        seen.append(wire)
        return answer_of(wire, True) if len(seen) > 1 else None

    report, values = await ask(await name_server(forgetful))
    assert report.status is Status.HEALTHY and len(seen) == 2
    assert values["duration_seconds"] >= 1.5


async def test_a_server_that_does_not_answer_is_named(name_server, ask):
    report, values = await ask(await name_server(lambda wire: None), deadline=Duration(0.3))
    assert (report.status, report.reachable) == (Status.UNHEALTHY, False)
    assert report.summary == "shop.example.com A: no answer within 0.3 s"
    assert values["success"] == values["dns_answer_rrs"] == 0


@pytest.mark.parametrize(
    ("rubbish", "said"),
    [
        (lambda wire: b"", "the answer cannot be read: "),
        (lambda wire: b"HTTP/1.1 400", "the answer cannot be read: "),
        (lambda wire: b"\0" * 40, "the answer cannot be read: "),
        (lambda wire: answer_of(wire, True)[:-3], "the answer cannot be read: "),
        (lambda wire: wire, "the answer cannot be read: "),
    ],
)
async def test_rubbish_for_an_answer_is_unhealthy_and_named(name_server, ask, rubbish, said):
    report, _ = await ask(await name_server(rubbish), deadline=Duration(0.5))
    assert report.status is Status.UNHEALTHY
    assert report.summary.startswith(f"shop.example.com A: {said}"), report.summary


async def test_of_several_servers_those_that_fail_are_named(name_server, ask):
    good, silent = await name_server(), await name_server(lambda wire: None)
    report, _ = await ask(good, silent, deadline=Duration(0.3))
    assert report.status is Status.DEGRADED
    assert report.summary == f"1 of 2 targets fail: {silent}: shop.example.com A: no answer within 0.3 s"


def test_without_servers_those_of_the_machine_are_asked(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text("search example.com\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n")
    assert system_servers(str(path)) == ["192.0.2.53", "[2001:db8::53]"]
    with pytest.raises(ValueError, match="name some in servers"):
        system_servers(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"record": "ADDRESS"}, "record: 'ADDRESS' is no type of record; write A"),
        ({"record": "ANY"}, "record: ANY is no type that records have"),
        ({"name": "a..b"}, r"name: 'a\.\.b' is no name"),
        ({"expect": ("shop.example.com",)}, "expect: 'shop.example.com' is no record of the type A"),
        ({"servers": ("me@ns1",)}, "servers: .* is not an address"),
        ({"servers": ("ns1", "NS1:53")}, "servers: a server stands there twice; drop one"),
    ],
)
def test_options_that_do_not_fit_are_named(options, said):
    with pytest.raises(InvalidOptions, match=said):
        DnsOptions(**{"name": "shop.example.com", **options})
