"""The `webhook` check, outgoing half: HTTP probes of one or more addresses, with blackbox_exporter's metric names.

Judges the answers and reports them; how one is had is `probe.exchange`'s business. Dates of certificates are those of the
server's own certificate, known with verification on or off and also where it failed.
"""

import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import httpcore
import httpx
import msgspec
import trio

from sixfbd.plugin import (
    MINUTE,
    SECOND,
    Check,
    Context,
    Duration,
    Gauge,
    Json,
    Level,
    OptionFaults,
    PluginConfig,
    Report,
    Rule,
    Sample,
    Secret,
    Severity,
    Size,
    Status,
    hookimpl,
)
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.checks.probe.exchange import Answer, ProbeRequest, exchange, timeout_words
from sixfbd_plugins.checks.probe.expectations import BodyExpectations, Fault, status_fault, validate_status
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
from sixfbd_plugins.checks.probe.tls import TlsOptions, tls_context
from sixfbd_plugins.checks.probe.trail import ProbeError, Trail
from sixfbd_plugins.checks.targets import (
    BasicAuth,
    authorization,
    each,
    hiding,
    merged_headers,
    parse_http_url,
    passwords,
    run_deadline,
    validate_credentials,
    validate_headers,
)

_I = ("instance",)
UP = Gauge("up", "1 if the probe of the target succeeded.", ("instance", "job"))
PHASE = Gauge("probe_http_duration_seconds", "How long each phase took, redirects added.", ("instance", "phase"))
STATUS_CODE = Gauge("probe_http_status_code", "Status of the last answer; 0 without one.", _I)
CONTENT_LENGTH = Gauge("probe_http_content_length", "Length of the body as announced; -1 if it was not.", _I)
BODY_LENGTH = Gauge("probe_http_uncompressed_body_length", "Bytes of body that were read.", _I)
REDIRECTS = Gauge("probe_http_redirects", "Redirects that were followed.", _I)
IS_TLS = Gauge("probe_http_ssl", "1 if the last hop used TLS.", _I)
HTTP_VERSION = Gauge("probe_http_version", "HTTP version of the last answer; 0 without one.", _I)
REGEX_FAILED = Gauge("probe_failed_due_to_regex", "1 if the body was not what it must match.", _I)


class WebhookOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `webhook` check; `url` or `targets` is needed."""

    url: Annotated[str, msgspec.Meta(description="Address to probe.")] = ""
    targets: Annotated[tuple[str, ...], msgspec.Meta(description="Addresses to probe, in place of url.")] = ()
    method: Annotated[str, msgspec.Meta(description="HTTP method.", pattern="^[A-Z]+$")] = "GET"
    headers: Annotated[dict[str, str], msgspec.Meta(description="Headers to send.")] = msgspec.field(
        default_factory=dict
    )
    secret_headers: Annotated[dict[str, Secret], msgspec.Meta(description="Headers whose values are secrets.")] = (
        msgspec.field(default_factory=dict)
    )
    body: Annotated[str, msgspec.Meta(description="Body to send.")] = ""
    basic_auth: Annotated[BasicAuth | None, msgspec.Meta(description="User name and password.")] = None
    bearer: Annotated[Secret | None, msgspec.Meta(description="Bearer token.")] = None
    expected_status: Annotated[
        tuple[str | int, ...], msgspec.Meta(description='Statuses or classes that are good, such as "2xx".')
    ] = ("2xx",)
    body_must_match: Annotated[tuple[str, ...], msgspec.Meta(description="RE2 that the body must match.")] = ()
    body_must_not_match: Annotated[tuple[str, ...], msgspec.Meta(description="RE2 that the body must not match.")] = ()
    expect_json: Annotated[
        dict[str, Any], msgspec.Meta(description='Values by path, such as {"data.items[0].ok" = true}.')
    ] = msgspec.field(default_factory=dict)
    follow_redirects: Annotated[bool, msgspec.Meta(description="Follow up to 10 redirects.")] = True
    proxy: Annotated[str, msgspec.Meta(description="Proxy: http, https or socks5 address.")] = ""
    proxy_auth: Annotated[BasicAuth | None, msgspec.Meta(description="User name and password of the proxy.")] = None
    ip_protocol: Annotated[Literal["any", "4", "6"], msgspec.Meta(description="IP version to prefer.")] = "any"
    ip_fallback: Annotated[bool, msgspec.Meta(description="Use the other IP version where there is no address.")] = True
    tls: Annotated[TlsOptions, msgspec.Meta(description="TLS.")] = TlsOptions()
    max_body: Annotated[Size, msgspec.Meta(description="A larger body is a failure.")] = Size(4 * 1024 * 1024)
    deadline: Annotated[Duration, msgspec.Meta(description="Time for a whole probe.")] = Duration(10 * SECOND)

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            with faults.at("url"):
                if bool(self.url) is bool(self.targets):
                    raise ValueError('either url or targets is needed; write url = "https://shop.example.com/"')
                if self.url:
                    parse_http_url(self.url)
            for target in self.targets:
                with faults.at("targets"):
                    parse_http_url(target)
            with faults.at("targets"):
                if len(set(self.targets)) < len(self.targets):
                    raise ValueError("an address stands there twice; drop one")
            with faults.at("bearer"):
                validate_credentials(self.basic_auth, self.bearer)
            with faults.at("headers"):
                validate_headers({**self.headers, **dict.fromkeys(self.secret_headers, "")})
            for expected in self.expected_status:
                with faults.at("expected_status"):
                    validate_status(expected)
            with faults.at("body_must_match"):
                BodyExpectations(self.body_must_match, (), {})
            with faults.at("body_must_not_match"):
                BodyExpectations((), self.body_must_not_match, {})
            with faults.at("expect_json"):
                BodyExpectations((), (), self.expect_json)
            with faults.at("proxy"):
                if self.proxy:
                    _proxy(self.proxy, self.proxy_auth)


class Outcome(msgspec.Struct, frozen=True):
    """One target's probe: what it left, how long it took, and what failed (empty: nothing)."""

    instance: str
    trail: Trail
    seconds: float
    failure: str = ""
    is_regex: bool = False


class WebhookCheck(Check[WebhookOptions]):
    """HTTP probes: status, body, JSON, redirects, certificate, time per phase."""

    Options = WebhookOptions
    metrics = (
        UP, SUCCESS, DURATION, PHASE, LOOKUP, STATUS_CODE, CONTENT_LENGTH, BODY_LENGTH, REDIRECTS, IS_TLS, HTTP_VERSION,
        IP_PROTOCOL, REGEX_FAILED, CERTIFICATE_EXPIRY,
    )  # fmt: skip
    interval = Duration(30 * SECOND)
    timeout = Duration(15 * SECOND)

    def __init__(self, options: WebhookOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._targets = options.targets or (options.url,)
        self._expected_status = tuple(validate_status(expected) for expected in options.expected_status)
        secrets = {name: value.reveal() for name, value in options.secret_headers.items()}
        secrets |= authorization(options.basic_auth, options.bearer)
        self._secret_headers = frozenset(name.lower() for name in secrets)
        self._hide = hiding([*secrets.values(), *passwords(options.basic_auth, options.proxy_auth)])
        self._body = BodyExpectations(
            options.body_must_match, options.body_must_not_match, options.expect_json, self._hide
        )
        usual = {"User-Agent": f"sixfbd/{ctx.version}", "Accept": "*/*", "Accept-Encoding": "identity"}
        self._headers = merged_headers(usual, {**options.headers, **secrets, "Connection": "close"})
        self._proxy = _proxy(options.proxy, options.proxy_auth) if options.proxy else None
        host = next((value for name, value in options.headers.items() if name.lower() == "host"), "")
        self._server_name = options.tls.server_name or httpx.URL(f"https://{host}").host or None
        self._ssl_context: ssl.SSLContext | None = None

    async def run(self, cursor: Json | None) -> Report:
        """Probe every target once: healthy if all are good, degraded if some are, unhealthy if none is."""
        if self._ssl_context is None:
            try:
                self._ssl_context = await self.ctx.to_thread(tls_context, self.options.tls, self.ctx.http)
            except ValueError as error:  # a file that was there when the configuration was loaded
                return Report(Status.UNKNOWN, f"tls: {error}"[:MOST_SUMMARY])
        deadline = run_deadline(self.options.deadline)
        outcomes = await each(self._targets, lambda target: self._probe(target, deadline))
        samples = [sample for outcome in outcomes for sample in _samples(outcome, self.ctx.name)]
        failed = sum(1 for outcome in outcomes if outcome.failure)
        status = status_of(failed, len(outcomes))
        answered = all(outcome.trail.status for outcome in outcomes)
        return Report(status, _summary(outcomes), tuple(samples), reachable=answered)

    async def _probe(self, target: str, deadline: float) -> Outcome:
        trail, started = Trail(), time.perf_counter()
        fault: Fault | None = None
        try:
            async with self.ctx.http.slot(max(0.0, deadline - trio.current_time())):
                answer = await exchange(self._request(target), trail, deadline, self.ctx.clock.now())
            trail.enter("judging")
            with trio.fail_at(deadline):
                fault = await self._fault(answer)
        except ProbeError as failure:
            fault = Fault(str(failure))
        except trio.TooSlowError:
            fault = Fault(timeout_words(trail, time.perf_counter() - started))
        except Exception as error:
            self.ctx.log.error("probe.crashed", target=target, exc_info=error)
            fault = Fault(f"the probe failed: {type(error).__name__}")
        seconds = time.perf_counter() - started
        trail.enter("done")
        if fault is None:
            return Outcome(target, trail, seconds)
        return Outcome(target, trail, seconds, self._hide(fault.text), fault.is_regex)

    def _request(self, target: str) -> ProbeRequest:
        assert self._ssl_context is not None, "run() makes the TLS context first"
        return ProbeRequest(
            method=self.options.method,
            url=parse_http_url(target),
            ssl_context=self._ssl_context,
            headers=self._headers,
            secret_headers=self._secret_headers,
            body=self.options.body.encode(),
            follow_redirects=self.options.follow_redirects,
            ip_protocol=self.options.ip_protocol,
            ip_fallback=self.options.ip_fallback,
            proxy=self._proxy,
            server_name=self._server_name,
            max_body=self.options.max_body,
        )

    async def _fault(self, answer: Answer) -> Fault | None:
        fault = status_fault(answer.status, self._expected_status)
        if fault is None and self._body:
            return await self.ctx.to_thread(self._body.fault, answer.body)
        return fault


def _proxy(address: str, auth: BasicAuth | None) -> httpcore.Proxy:
    url = httpx.URL(address)
    if url.scheme not in ("http", "https", "socks5") or not url.host or url.userinfo:
        raise ValueError(
            "proxy: is not an address such as http://proxy.example.com:3128 (user and password: proxy_auth)"
        )
    credentials = (auth.username, auth.password.reveal()) if auth else None
    port = url.port or {"http": 80, "https": 443, "socks5": 1080}[url.scheme]
    return httpcore.Proxy(httpcore.URL(scheme=url.scheme, host=url.raw_host, port=port, target=b"/"), auth=credentials)


def _samples(outcome: Outcome, job: str) -> list[Sample]:
    instance, trail = outcome.instance, outcome.trail
    success = float(not outcome.failure)
    samples = [
        UP(success, instance=instance, job=job),
        SUCCESS(success, instance=instance),
        DURATION(outcome.seconds, instance=instance),
        LOOKUP(trail.seconds["resolve"], instance=instance),
        STATUS_CODE(trail.status, instance=instance),
        CONTENT_LENGTH(trail.content_length, instance=instance),
        BODY_LENGTH(trail.body_bytes, instance=instance),
        REDIRECTS(trail.redirects, instance=instance),
        IS_TLS(float(trail.is_tls), instance=instance),
        HTTP_VERSION(trail.http_version, instance=instance),
        IP_PROTOCOL(trail.ip_protocol, instance=instance),
        REGEX_FAILED(float(outcome.is_regex), instance=instance),
        *(PHASE(seconds, instance=instance, phase=phase) for phase, seconds in trail.seconds.items()),
    ]
    if trail.certificate is not None:
        samples.append(CERTIFICATE_EXPIRY(trail.certificate.not_after, instance=instance))
    return samples


def _summary(outcomes: Sequence[Outcome]) -> str:
    if len(outcomes) == 1:
        good = f"status {outcomes[0].trail.status} in {outcomes[0].seconds:.3f} s"
    else:
        good = f"all {len(outcomes)} targets answer, the slowest in {max(o.seconds for o in outcomes):.3f} s"
    failures = [(outcome.instance, outcome.failure) for outcome in outcomes if outcome.failure]
    return summary_of(failures, len(outcomes), good)


RULES: Final = (
    default_rule(
        "web",
        "ProbeFailed",
        "probe_success == 0",
        "🚨 {{ $labels.instance }} fails: {{ $summary }}",
        Severity.HIGH,
        for_s=1 * MINUTE,
        impact="Who calls it meets the same.",
        action="Call it yourself; `sixfbctl why` shows what it answered.",
    ),
    default_rule(
        "web",
        "CertificateExpiring",
        "(probe_ssl_earliest_cert_expiry - time()) / 86400",
        '🔒 Certificate of {{ $labels.instance }}: {{ printf "%.1f" $value }} days left',
        levels=(
            Level(Severity.MEDIUM, "<= 21"),
            Level(Severity.HIGH, "<= 7"),
            Level(Severity.CRITICAL, "<= 1"),
        ),
        impact="Once it has expired, browsers and other clients refuse it.",
        action="Renew it, and see why its renewal did not run.",
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `webhook`."""
    return {"webhook": WebhookCheck}


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rules of probes."""
    return RULES
