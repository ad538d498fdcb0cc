"""What a probe's answer must be, a certificate's dates and the words for what failed; options that make no sense."""

import ssl
import subprocess
from datetime import UTC, datetime

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sixfbd import promql
from sixfbd.plugin import DAY, Secret
from sixfbd.rules.templates import compile_template
from sixfbd_plugins.checks import scrape, system, webhook
from sixfbd_plugins.checks.probe.certificate import Validity, validity
from sixfbd_plugins.checks.probe.exchange import certificate_words
from sixfbd_plugins.checks.probe.expectations import BodyExpectations, parse_path, status_fault, validate_status
from sixfbd_plugins.checks.probe.trail import CertificateError, Trail
from sixfbd_plugins.checks.scrape import ScrapeOptions
from sixfbd_plugins.checks.targets import BasicAuth, authorization, each
from sixfbd_plugins.checks.webhook import WebhookOptions

NOW = 1_800_000_000.0


@pytest.mark.parametrize(("status", "expected", "text"), [
    (200, ("2xx",), None),
    (204, ("200", "204"), None),
    (404, ("2xx", "404"), None),
    (500, ("2xx",), "status 500, expected 2xx"),
    (301, ("200", "3xx0"), "status 301, expected 200 or 3xx0"),
])  # fmt: skip
def test_a_status_is_held_against_statuses_and_classes(status, expected, text):
    fault = status_fault(status, expected)
    assert (fault and fault.text) == text


@pytest.mark.parametrize(("given_status", "text"), [(200, "200"), ("2XX", "2xx"), ("404", "404")])
def test_a_status_is_configured_as_a_number_or_a_class(given_status, text):
    assert validate_status(given_status) == text


@pytest.mark.parametrize("wrong", ["ok", 99, 600, "2x", "-200", ""])
def test_what_is_no_status_is_refused_with_the_mend(wrong):
    with pytest.raises(ValueError, match='is not a status; write 200 or "2xx"'):
        validate_status(wrong)


def test_a_body_is_held_against_what_it_must_and_must_not_match():
    body = BodyExpectations(["(?i)welcome"], ["Fatal error"], {})
    assert body.fault("WELCOME – café".encode()) is None
    assert body.fault(b"hello").text == "body does not match '(?i)welcome'"
    fault = body.fault(b"Welcome. Fatal error: no database")
    assert fault.text == "body matches 'Fatal error', which it must not"
    assert fault.is_regex


@pytest.mark.parametrize(("document", "text"), [
    (b'{"data": {"items": [{"ok": true}]}, "n": 1}', None),
    (b'{"data": {"items": [{"ok": false}]}, "n": 1}', "JSON data.items[0].ok is false, expected true"),
    (b'{"data": {"items": []}, "n": 1}', "JSON has no data.items[0].ok"),
    (b'{"data": {"items": [{"ok": 1}]}, "n": 1}', "JSON data.items[0].ok is 1, expected true"),
    (b'[]', "JSON has no data.items[0].ok"),
    (b'<html>', "body is not JSON"),
    (b"[" * 100_000, "body is not JSON"),
    (b'{"data": {"items": [{"ok": true}]}, "n": "' + b"x" * 99 + b'"}', "JSON n is \"" + "x" * 56 + "..., expected 1"),
])  # fmt: skip
def test_json_is_held_against_values_by_path(document, text):
    fault = BodyExpectations([], [], {"data.items[0].ok": True, "n": 1}).fault(document)
    assert (fault and fault.text) == text


@pytest.mark.parametrize(
    ("path", "steps"), [("a", ["a"]), ("a.b[0][1].c", ["a", "b", 0, 1, "c"]), ("[2].x-y", [2, "x-y"])]
)
def test_a_path_is_names_and_indexes(path, steps):
    assert parse_path(path) == steps


@pytest.mark.parametrize("path", ["", ".a", "a.", "a..b", "a[x]", "a[", "a]"])
def test_what_is_no_path_is_refused_with_the_mend(path):
    with pytest.raises(ValueError, match=r"is not a path; write data.items\[0\].ok"):
        parse_path(path)


@given(st.binary(max_size=200))
def test_a_body_of_any_bytes_is_judged_without_an_error(body):
    BodyExpectations(["a+"], ["b"], {"a[0]": 1}).fault(body)


@pytest.mark.parametrize(("days", "key"), [(10, "rsa:2048"), (40_000, "ec")])
def test_a_certificates_dates_are_read_as_openssl_reads_them(tmp_path, days, key):
    algorithm = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] if key == "ec" else ["-newkey", key]
    command = ["openssl", "req", "-x509", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=x", "-days", str(days)]
    pem = subprocess.run([*command, *algorithm], capture_output=True, text=True, check=True, timeout=60).stdout
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-startdate", "-enddate"],
        input=pem,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    dates = [ssl.cert_time_to_seconds(line.partition("=")[2]) for line in shown.splitlines()]
    assert list(validity(ssl.PEM_cert_to_DER_cert(pem))) == dates


@given(st.binary(max_size=100))
def test_what_is_no_certificate_is_refused_with_a_value_error(der):
    with pytest.raises(ValueError, match="certificate"):
        validity(der)


def words(code: int, dates: Validity | None) -> str:
    trail = Trail()
    trail.certificate = dates
    return certificate_words(CertificateError(code, "certificate has expired", "shop.example.com"), trail, NOW)


@pytest.mark.parametrize(("code", "dates", "text"), [
    (10, Validity(0, NOW - 3.5 * DAY), "certificate expired 3 days ago, on 2027-01-11"),
    (10, Validity(0, NOW - 1.5 * DAY), "certificate expired 1 day ago, on 2027-01-13"),
    (10, Validity(0, NOW - 60), "certificate expired 1m ago, on 2027-01-15"),
    (9, Validity(NOW + 2 * DAY, NOW + 9 * DAY), "certificate is not valid before 2027-01-17, in 2 days"),
    (62, Validity(0, NOW + DAY), "certificate is for another host, not shop.example.com"),
    (18, Validity(0, NOW + DAY), "certificate is self-signed"),
    (18, Validity(0, NOW - 5 * DAY), "certificate expired 5 days ago, on 2027-01-10; certificate is self-signed"),
    (20, None, "certificate's issuer is not known"),
    (10, None, "certificate refused: certificate has expired"),
])  # fmt: skip
def test_what_is_wrong_with_a_certificate_is_said_in_words(code, dates, text):
    assert datetime.fromtimestamp(NOW, UTC).strftime("%Y-%m-%d") == "2027-01-15"
    assert words(code, dates) == text


@pytest.mark.parametrize(("options", "message"), [
    ({}, "either url or targets is needed"),
    ({"url": "http://a.example.com", "targets": ["http://b.example.com"]}, "either url or targets"),
    ({"url": "shop.example.com"}, "is not an HTTP address; write https://"),
    ({"url": "ftp://shop.example.com"}, "is not an HTTP address"),
    ({"url": "http://[::1"}, "is not a URL"),
    ({"url": "https://me:hunter2@shop.example.com/"}, "user and password do not belong in the address"),
    ({"targets": ["http://a.example.com", "http://a.example.com"]}, "stands there twice"),
    ({"url": "http://a.example.com", "expected_status": ["good"]}, "is not a status"),
    ({"url": "http://a.example.com", "body_must_match": ["("]}, "is not an RE2 expression"),
    ({"url": "http://a.example.com", "expect_json": {"a..b": 1}}, "is not a path"),
    ({"url": "http://a.example.com", "headers": {"X Y": "1"}}, "'X Y' is not the name of a header"),
    ({"url": "http://a.example.com", "headers": {"X": "a\nb"}}, "the value of header X has"),
    ({"url": "http://a.example.com", "proxy": "ftp://x"}, "proxy: is not an address"),
    ({"url": "http://a.example.com", "method": "get"}, "matching regex"),
    ({"url": "http://a.example.com", "ip_protocol": "5"}, "Invalid enum value"),
    ({"url": "http://a.example.com", "urll": "x"}, "unknown field"),
])  # fmt: skip
def test_options_of_a_probe_that_make_no_sense_are_refused(options, message):
    with pytest.raises(msgspec.ValidationError, match=message.replace("(", "[(]")) as caught:
        msgspec.convert(options, WebhookOptions)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [
    ({"targets": []}, "length >= 1"),
    ({"targets": ["nowhere"]}, "is not an HTTP address"),
    ({"targets": ["http://a.example.com"], "labels": {"check": "x"}}, "'check' is the engine's own"),
    ({"targets": ["http://a.example.com"], "sample_limit": 0}, ">= 1"),
])  # fmt: skip
def test_options_of_a_scrape_that_make_no_sense_are_refused(options, message):
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(options, ScrapeOptions)


def test_secrets_of_options_are_not_shown():
    secret = Secret("hunter2", "env X")
    options = WebhookOptions(
        url="http://a.example.com", bearer=secret, secret_headers={"X-Key": secret}, proxy_auth=BasicAuth("me", secret)
    )
    assert "hunter2" not in repr(options)
    with pytest.raises(ValueError, match="exclude each other") as caught:
        WebhookOptions(url="http://a.example.com", bearer=secret, basic_auth=BasicAuth("me", secret))
    assert "hunter2" not in str(caught.value)


def test_credentials_become_the_header():
    assert authorization(BasicAuth("me", Secret("pa:ss", "x")), None) == {"Authorization": "Basic bWU6cGE6c3M="}
    assert authorization(None, Secret("t0ken", "x")) == {"Authorization": "Bearer t0ken"}
    assert authorization(None, None) == {}


async def test_targets_are_asked_within_the_limit_and_answer_in_their_order(autojump_clock):
    running, most = 0, 0

    async def ask(seconds: float) -> float:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(seconds)
        running -= 1
        return seconds

    assert await each([5, 1, 4, 2, 3], ask, at_once=2) == [5, 1, 4, 2, 3]
    assert most == 2


RULES = [*system.RULES, *webhook.RULES, *scrape.RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_default_rule_is_whole(rule):
    promql.compile(rule.expr)
    assert rule.labels["service"] in ("system", "web")
    assert bool(rule.severity) is not bool(rule.levels)
    labels = {"mountpoint": "/srv", "process": "shop", "instance": "https://x", "job": "web"}
    text = compile_template(rule.annotations["summary"]).render(labels, 0.5, "what failed")
    assert not text.startswith("<the template")
    assert "{{" not in text


@pytest.mark.parametrize(("rule", "value", "text"), [
    ("HighMemoryUsage", 0.871, "🔥 High memory usage: 87.1%"),
    ("DiskSpaceLow", 0.96, "💽 /srv is 96% full"),
    ("CertificateExpiring", 6.93, "🔒 Certificate of https://x: 6.9 days left"),
    ("ProbeFailed", 0.0, "🚨 https://x fails: status 500"),
    ("ServiceDown", 0.0, "💀 web is down: https://x (status 500)"),
])  # fmt: skip
def test_the_text_of_a_default_rule_names_what_and_how_much(rule, value, text):
    [summary] = [found.annotations["summary"] for found in RULES if found.name == rule]
    labels = {"mountpoint": "/srv", "instance": "https://x", "job": "web"}
    assert compile_template(summary).render(labels, value, "status 500") == text


def test_default_rules_have_names_of_their_own():
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("module", [system, webhook], ids=lambda module: module.__name__)
def test_a_default_rule_reads_only_metrics_that_its_check_declares(module):
    [check] = module.sixfbd_checks(None).values()
    declared = {metric.name for metric in check.metrics}
    for rule in module.RULES:
        read = {word for word in declared if word in rule.expr}
        assert read, f"{rule.name} reads none of the declared metrics: {rule.expr}"
