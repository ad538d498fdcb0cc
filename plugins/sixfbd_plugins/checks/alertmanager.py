"""The `alertmanager` check: hands what fires to Alertmanager, each alert to each of its peers, as Prometheus does.

Alertmanager takes an alert that it is told of no more for ended, so that it is told again and again: this is no notifier,
which tells once. Two daemons that see the same send the same labels, and its cluster makes one message of them.
https://prometheus.io/docs/alerting/latest/clients/ and its API v2, POST /api/v2/alerts. Its routes, silences and
inhibition apply, not ours: alerts are sent though we hold them.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec
import trio
from msgspec import Meta, Struct

from sixfbd.plugin import (
    MINUTE,
    SECOND,
    Alert,
    Check,
    Context,
    Duration,
    Gauge,
    Json,
    OptionFaults,
    PluginConfig,
    Report,
    Rule,
    Secret,
    Severity,
    Status,
    TemporaryFailure,
    hookimpl,
)
from sixfbd_plugins.checks.default_rules import default_rule
from sixfbd_plugins.checks.targets import (
    BasicAuth,
    authorization,
    hiding,
    merged_headers,
    parse_http_url,
    passwords,
    validate_credentials,
    validate_headers,
)
from sixfbd_plugins.notifiers.webhook import rfc3339

RESEND_S: Final = 60.0  # Prometheus' --rules.alert.resend-delay
HOLDS_S: Final = 4 * RESEND_S  # how long an alert lasts that is not sent again: four times, as Prometheus has it
ENDED_S: Final = 15 * MINUTE  # how long the end of an alert is told again, for a peer that was away
A_REQUEST: Final = 256  # alerts
ANSWER_S: Final = 4.0
SAID: Final = 200  # characters of an answer that are shown

REACHED = Gauge("alertmanager_peer_up", "1 if the peer took the alerts at last.", ("peer",))
SENT = Gauge("alertmanager_alerts", "Alerts that are sent: those that fire.")


class AlertmanagerOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Options of an `alertmanager` check."""

    peers: Annotated[
        tuple[str, ...],
        Meta(
            description="Addresses of all peers of the cluster, such as http://127.0.0.1:9093.",
            min_length=1,
            max_length=20,
        ),
    ]
    labels: Annotated[
        dict[str, str], Meta(description="Labels added to each alert; the same on all daemons that see the same.")
    ] = msgspec.field(default_factory=dict)
    url: Annotated[str, Meta(description="Where the alert's source is shown: generatorURL.")] = ""
    headers: Annotated[dict[str, str], Meta(description="Headers to send.")] = msgspec.field(default_factory=dict)
    basic_auth: Annotated[BasicAuth | None, Meta(description="User name and password.")] = None
    bearer: Annotated[Secret | None, Meta(description="Bearer token.")] = None

    def __post_init__(self) -> None:
        with OptionFaults() as faults:
            for peer in self.peers:
                with faults.at("peers"):
                    parse_http_url(peer)
            with faults.at("peers"):
                if len({peer.rstrip("/") for peer in self.peers}) < len(self.peers):
                    raise ValueError("a peer stands there twice; drop one")
            with faults.at("labels"):
                for name in self.labels:
                    if not name.isascii() or not name.isidentifier():
                        raise ValueError(f"{name!r} is not a label's name; write letters, digits and _")
            with faults.at("url"):
                if self.url:
                    parse_http_url(self.url)
            with faults.at("headers"):
                validate_headers(self.headers)
            with faults.at("bearer"):
                validate_credentials(self.basic_auth, self.bearer)


class AlertmanagerCheck(Check[AlertmanagerOptions]):
    """Hands what fires to the peers of an Alertmanager."""

    Options = AlertmanagerOptions
    metrics = (REACHED, SENT)
    interval = Duration(5 * SECOND)
    timeout = Duration(5 * SECOND)

    def __init__(self, options: AlertmanagerOptions, ctx: Context) -> None:
        super().__init__(options, ctx)
        credentials = authorization(options.basic_auth, options.bearer)
        usual = {"User-Agent": f"sixfbd/{ctx.version}", "Content-Type": "application/json"}
        self._headers = merged_headers(usual, options.headers) | credentials
        self._hide = hiding([*options.headers.values(), *credentials.values(), *passwords(options.basic_auth)])
        self._firing: dict[str, Alert] = {}
        self._ended: dict[str, tuple[Alert, float]] = {}
        self._fault: dict[str, str] = {}  # of the peers that did not take them
        self._said: list[Json] = []
        self._told_at = 0.0

    async def run(self, cursor: Json | None) -> Report:
        """Tell of what is new at once, of all each minute. Unhealthy if no peer takes it, degraded if some do not."""
        now = self.ctx.clock.now()
        await self._look(now)
        saying = [_told(one, self.options, None) for one in self._firing.values()]
        saying += [_told(one, self.options, ended_at) for one, ended_at in self._ended.values()]
        if saying != self._said or self._fault or now - self._told_at >= RESEND_S:
            await self._tell(saying, now)
        up = len(self.options.peers) - len(self._fault)
        status = Status.HEALTHY if not self._fault else Status.DEGRADED if up else Status.UNHEALTHY
        samples = [REACHED(float(peer not in self._fault), peer=peer) for peer in self.options.peers]
        faults = "; ".join(f"{peer}: {said}" for peer, said in sorted(self._fault.items()))
        fire = f"{len(self._firing)} alert{'s' if len(self._firing) != 1 else ''} sent"
        return Report(status, faults or fire, (*samples, SENT(len(self._firing))), reachable=up > 0)

    async def _look(self, now: float) -> None:
        """Note what fires, and what fires no more since when."""
        firing = {one.id: one for one in await self.ctx.read.alerts({}) if one.state == "firing"}
        for identity, one in self._firing.items():
            if identity not in firing:
                self._ended[identity] = (one, now)
        labels = [one.labels for one in firing.values()]
        self._ended = {
            identity: (one, at)
            for identity, (one, at) in self._ended.items()
            if now - at < ENDED_S and one.labels not in labels  # Alertmanager knows an alert by its labels
        }
        self._firing = firing

    async def _tell(self, saying: Sequence[dict[str, Any]], now: float) -> None:
        lasts = rfc3339(now + HOLDS_S)
        alerts = [one if "endsAt" in one else {**one, "endsAt": lasts} for one in saying]
        bodies = [msgspec.json.encode(alerts[at : at + A_REQUEST]) for at in range(0, len(alerts), A_REQUEST)] or [
            b"[]"
        ]
        async with trio.open_nursery() as nursery:
            for peer in self.options.peers:
                nursery.start_soon(self._tell_peer, peer, bodies)
        self._said, self._told_at = list(saying), now

    async def _tell_peer(self, peer: str, bodies: Sequence[bytes]) -> None:
        try:
            with trio.fail_after(ANSWER_S):
                for body in bodies:
                    answer = await self.ctx.http.request(
                        "POST",
                        f"{peer.rstrip('/')}/api/v2/alerts",
                        headers=self._headers,
                        content=body,
                        timeout_s=ANSWER_S,
                        max_bytes=64 * 1024,
                    )
                    if answer.status_code != 200:
                        said = " ".join(answer.text.split())
                        raise TemporaryFailure(f"answered {answer.status_code}: {said}"[:SAID].rstrip(": "))
        except TemporaryFailure as failure:
            self._fault[peer] = self._hide(str(failure))[:SAID]
        except trio.TooSlowError:
            self._fault[peer] = f"no answer within {ANSWER_S:g} s"
        else:
            self._fault.pop(peer, None)


def _told(alert: Alert, options: AlertmanagerOptions, ended_at: float | None) -> dict[str, Any]:
    """Return an alert as the API takes it; while it fires, without the time until when it lasts."""
    told: dict[str, Any] = {
        "labels": {name: value for name, value in {**options.labels, **alert.labels}.items() if value},
        "annotations": dict(alert.annotations),
        "startsAt": rfc3339(alert.fired_at or alert.since),
    }
    if options.url:
        told["generatorURL"] = options.url
    if ended_at is not None:
        told["endsAt"] = rfc3339(ended_at)
    return told


RULES: Final = (
    default_rule(
        "system",
        "AlertmanagerUnreachable",
        "alertmanager_peer_up == 0",
        "Alertmanager {{ $labels.peer }} takes no alerts: {{ $summary }}",
        Severity.MEDIUM,
        for_s=2 * MINUTE,
        impact="Once no peer takes them, nobody is told by it.",
        action="See whether it runs; what fires is sent as soon as it does.",
    ),
)


@hookimpl
def sixfbd_checks(config: PluginConfig) -> Mapping[str, type[Check[Any]]]:
    """The check `alertmanager`."""
    return {"alertmanager": AlertmanagerCheck}


@hookimpl
def sixfbd_rules(config: PluginConfig) -> Sequence[Rule]:
    """The default rule of Alertmanager's peers."""
    return RULES
