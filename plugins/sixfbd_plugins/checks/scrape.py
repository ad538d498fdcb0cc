"""The `scrape` check: any Prometheus endpoint, text format or OpenMetrics, with relabelling and limits as in Prometheus.

Owns, for each target, what the texts of its series meant in the last scrape, so that a series seen again costs next to
nothing. Times that a target claims are ignored: a sample's time is its report's (DESIGN section 3).
"""

import ssl
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import httpx
import msgspec
import trio

from sixfbd.plugin import (
    ANY,
    MINUTE,
    SECOND,
    Check,
    Context,
    Duration,
    Gauge,
    Json,
    Labels,
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
    labels_of,
)
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.checks.probe.exchange import Answer, ProbeRequest, exchange, timeout_words
from sixfbd_plugins.checks.probe.tls import TlsOptions, tls_context
from sixfbd_plugins.checks.probe.trail import ProbeError, Trail
from sixfbd_plugins.checks.scraping.exposition import Line, read_labels, read_lines
from sixfbd_plugins.checks.scraping.relabel import LabelMap, RelabelRule, compile_rules
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

_DOCS: Final = {
    "up": "1 if the target was scraped.",
    "scrape_duration_seconds": "How long the scrape took.",
    "scrape_samples_scraped": "Samples that the target exposed.",
    "scrape_samples_post_metric_relabeling": "Samples that relabelling left.",
}
ACCEPT: Final = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
RESERVED: Final = "check"  # the engine's own label
_SUMMARY_CHARACTERS: Final = 500
_MOST_REMEMBERED: Final = 100_000  # series of a target, those that relabelling drops included
_OPEN_METRICS: Final = "application/openmetrics-text"
_TEXT: Final = "text/plain"


class ScrapeOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of a `scrape` check."""

    targets: Annotated[tuple[str, ...], msgspec.Meta(description="Addresses of metrics pages.", min_length=1)]
    headers: Annotated[dict[str, str], msgspec.Meta(description="Headers to send.")] = msgspec.field(
        default_factory=dict
    )
    basic_auth: Annotated[BasicAuth | None, msgspec.Meta(description="User name and password.")] = None
    bearer: Annotated[Secret | None, msgspec.Meta(description="Bearer token.")] = None
    follow_redirects: Annotated[bool, msgspec.Meta(description="Follow up to 10 redirects.")] = True
    tls: Annotated[TlsOptions, msgspec.Meta(description="TLS.")] = TlsOptions()
    labels: Annotated[dict[str, str], msgspec.Meta(description="Labels added to every series.")] = msgspec.field(
        default_factory=dict
    )
    honor_labels: Annotated[
        bool, msgspec.Meta(description="Keep a target's label where it clashes with ours; else it becomes exported_X.")
    ] = False
    relabel: Annotated[tuple[RelabelRule, ...], msgspec.Meta(description="Prometheus' metric_relabel_configs.")] = ()
    sample_limit: Annotated[int, msgspec.Meta(description="More samples fail the scrape.", ge=1)] = 10_000
    label_limit: Annotated[int, msgspec.Meta(description="More labels on one series fail the scrape.", ge=1)] = 60
    max_body: Annotated[Size, msgspec.Meta(description="A larger page fails the scrape.")] = Size(16 * 1024 * 1024)
    deadline: Annotated[Duration, msgspec.Meta(description="Time for a whole scrape.")] = Duration(10 * SECOND)

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            for target in self.targets:
                with faults.at("targets"):
                    parse_http_url(target)
            with faults.at("targets"):
                if len(set(self.targets)) < len(self.targets):
                    raise ValueError("an address stands there twice; drop one")
            with faults.at("bearer"):
                validate_credentials(self.basic_auth, self.bearer)
            with faults.at("headers"):
                validate_headers(self.headers)
            with faults.at("labels"):
                if RESERVED in self.labels:
                    raise ValueError(f"{RESERVED!r} is the engine's own; choose another name")


class _Meaning(NamedTuple):
    """What the text of a series came to: None as `metric` if relabelling dropped it."""

    metric: str | None
    labels: Labels


class _Target(msgspec.Struct):
    """One target: its address, its labels, and what its series' texts meant in the last scrape."""

    url: httpx.URL
    instance: str
    own: Mapping[str, str]
    known: dict[str, _Meaning]


class _Scraped(msgspec.Struct, frozen=True):
    """One scrape: its samples (none if it failed), what failed, how many samples there were before relabelling."""

    target: _Target
    seconds: float
    samples: list[Sample]
    scraped: int = 0
    failure: str = ""


class ScrapeCheck(Check[ScrapeOptions]):
    """Metrics of any Prometheus endpoint."""

    Options = ScrapeOptions
    metrics = ANY
    interval = Duration(15 * SECOND)
    timeout = Duration(14 * SECOND)

    def __init__(self, options: ScrapeOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        self._relabel = compile_rules(options.relabel)
        credentials = authorization(options.basic_auth, options.bearer)
        self._secret_headers = frozenset(name.lower() for name in credentials)
        self._hide = hiding([*credentials.values(), *passwords(options.basic_auth)])
        # A connection of its own for each scrape: a server that closes idle ones must not look as if it were down.
        usual = {"Accept": ACCEPT, "Accept-Encoding": "gzip", "User-Agent": f"sixfbd/{ctx.version}"}
        self._headers = merged_headers(usual, {**options.headers, **credentials, "Connection": "close"})
        self._targets = _targets(options, ctx.name)
        self._ssl_context: ssl.SSLContext | None = None

    async def run(self, cursor: Json | None) -> Report:
        """Scrape every target once: healthy if all answered, degraded if some did, unhealthy if none did."""
        if self._ssl_context is None:
            try:
                self._ssl_context = await self.ctx.to_thread(tls_context, self.options.tls, self.ctx.http)
            except ValueError as error:  # a file that was there when the configuration was loaded
                return Report(Status.UNKNOWN, f"tls: {error}"[:_SUMMARY_CHARACTERS])
        tls, deadline = self._ssl_context, run_deadline(self.options.deadline)
        scrapes = await each(self._targets, lambda target: self._scrape(target, tls, deadline))
        failed = [scrape for scrape in scrapes if scrape.failure]
        status = Status.HEALTHY if not failed else Status.DEGRADED if len(failed) < len(scrapes) else Status.UNHEALTHY
        samples = [sample for scrape in scrapes for sample in (*_about(scrape), *scrape.samples)]
        return Report(status, _summary(scrapes, failed), tuple(samples), reachable=not failed)

    async def _scrape(self, target: _Target, tls: ssl.SSLContext, deadline: float) -> _Scraped:
        trail, started = Trail(), time.perf_counter()
        samples: list[Sample] = []
        scraped, failure = 0, ""
        try:
            async with self.ctx.http.slot(max(0.0, deadline - trio.current_time())):
                page = await exchange(self._request(target, tls), trail, deadline, self.ctx.clock.now())
            trail.enter("judging")
            with trio.fail_at(deadline):
                samples, scraped = await self.ctx.to_thread(self._read, target, page)
        except (ProbeError, ValueError) as error:
            failure = self._hide(str(error))
        except trio.TooSlowError:
            failure = timeout_words(trail, time.perf_counter() - started)
        return _Scraped(target, time.perf_counter() - started, samples, scraped, failure)

    def _request(self, target: _Target, tls: ssl.SSLContext) -> ProbeRequest:
        return ProbeRequest(
            method="GET",
            url=target.url,
            ssl_context=tls,
            headers=self._headers,
            secret_headers=self._secret_headers,
            follow_redirects=self.options.follow_redirects,
            server_name=self.options.tls.server_name,
            max_body=self.options.max_body,
        )

    def _read(self, target: _Target, page: Answer) -> tuple[list[Sample], int]:
        """Return a page's samples after relabelling and their number before. Runs in a thread; raises ValueError."""
        if page.status != 200:
            raise ValueError(f"status {page.status}, expected 200")
        text = self._hide(_decode(_unpacked(page, self.options.max_body)))  # no label shows what the target echoes
        form = page.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            return self._samples(target, read_lines(text, form == _OPEN_METRICS))
        except ValueError as error:
            if form in ("", _OPEN_METRICS, _TEXT):
                raise
            raise ValueError(f"{error} (the page says that it is {form[:40]})") from None

    def _samples(self, target: _Target, lines: Iterable[Line]) -> tuple[list[Sample], int]:
        samples: dict[tuple[str, Labels], Sample] = {}
        seen: dict[str, _Meaning] = {}
        scraped = 0
        for line in lines:
            scraped += 1
            meaning = target.known.get(line.series) or self._meaning(target, line)
            if len(seen) < _MOST_REMEMBERED:
                seen[line.series] = meaning
            if meaning.metric is not None:
                sample = Sample(meaning.metric, line.value, meaning.labels, line.kind)
                samples.setdefault((meaning.metric, meaning.labels), sample)  # of two of one name, the first counts
                if len(samples) > self.options.sample_limit:
                    raise ValueError(f"the page has more than {self.options.sample_limit} samples (sample_limit)")
        target.known = seen
        return list(samples.values()), scraped

    def _meaning(self, target: _Target, line: Line) -> _Meaning:
        """Work out what a series' text comes to: our labels added, clashes renamed, relabelled."""
        theirs = read_labels(line.labels) if line.labels else {}
        labels = _merged(theirs, target.own, self.options.honor_labels)
        if len(labels) > self.options.label_limit:
            raise ValueError(f"{line.name} has more than {self.options.label_limit} labels (label_limit)")
        relabelled = self._relabel({"__name__": line.name, **labels})
        if relabelled is None:
            return _Meaning(None, ())
        metric = relabelled.pop("__name__", "")
        if not metric:
            raise ValueError(f"relabelling leaves {line.name} without a name")
        kept = {name: value for name, value in relabelled.items() if not name.startswith("__")}
        if RESERVED in kept:
            _export(kept, RESERVED)
        return _Meaning(metric, labels_of(kept))


def _targets(options: ScrapeOptions, job: str) -> list[_Target]:
    """Return the targets; `instance` is host:port as in Prometheus, or the whole address where two share a port."""
    urls = [parse_http_url(target) for target in options.targets]
    places = [
        f"{url.netloc.decode('ascii')}" if url.port else f"{url.netloc.decode('ascii')}:{_port(url)}" for url in urls
    ]
    targets = []
    for url, place in zip(urls, places, strict=True):
        instance = place if places.count(place) == 1 else str(url)
        targets.append(_Target(url, instance, {"instance": instance, "job": job, **options.labels}, {}))
    return targets


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _merged(theirs: Mapping[str, str], ours: Mapping[str, str], honor: bool) -> LabelMap:
    """Join a target's labels and ours; on a clash theirs stay (honor) or become exported_X."""
    if honor:
        return {**ours, **theirs}
    labels = dict(theirs)
    for name in ours:
        if name in labels:
            _export(labels, name)
    return {**labels, **ours}


def _export(labels: LabelMap, name: str) -> None:
    exported = f"exported_{name}"
    while exported in labels:
        exported = f"exported_{exported}"
    labels[exported] = labels.pop(name)


def _unpacked(page: Answer, limit: int) -> bytes:
    encoding = page.headers.get("content-encoding", "identity").lower()
    if encoding == "identity":
        return page.body
    if encoding != "gzip":
        raise ValueError(f"the page is packed as {encoding[:20]!r}, which was not asked for")
    unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        text = unpack.decompress(page.body, limit + 1)
    except zlib.error as error:
        raise ValueError(f"the page is not gzip as it says: {error}") from None
    if len(text) > limit:
        raise ValueError(f"the page is larger than {Size(limit)} unpacked")
    if not unpack.eof or unpack.unused_data:
        raise ValueError("the page is not one whole gzip stream")
    return text


def _decode(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the page is not UTF-8 at byte {error.start}") from None


def _about(scrape: _Scraped) -> list[Sample]:
    values = (
        float(not scrape.failure),
        scrape.seconds,
        float(scrape.scraped),
        float(len(scrape.samples)),
    )
    own = scrape.target.own
    return [
        Gauge(name, doc, tuple(own))(value, **own) for (name, doc), value in zip(_DOCS.items(), values, strict=True)
    ]


def _summary(scrapes: Sequence[_Scraped], failed: Sequence[_Scraped]) -> str:
    if not failed:
        return f"{sum(len(scrape.samples) for scrape in scrapes)} samples of {len(scrapes)} target(s)"
    named = "; ".join(f"{scrape.target.instance}: {scrape.failure}" for scrape in failed)
    head = "" if len(scrapes) == 1 else f"{len(failed)} of {len(scrapes)} targets fail: "
    return f"{head}{named}"[:_SUMMARY_CHARACTERS]


RULES: Final = (
    default_rule(
        "web",
        "ServiceDown",
        "up == 0",
        "💀 {{ $labels.job }} is down: {{ $labels.instance }} ({{ $summary }})",
        Severity.CRITICAL,
        for_s=1 * MINUTE,
        action="See whether it runs and answers at its address.",
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `scrape`."""
    return {"scrape": ScrapeCheck}


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rule of scraped and probed targets (SEED S22)."""
    return RULES
