"""A catalog of plugins made for these tests, and a configuration file to write into."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar

import msgspec
import pytest
from msgspec import Meta, Struct
from msgspec.structs import replace

from sixfbd.config import Config, Problem, check_config
from sixfbd.host import CheckEntry, InboundEntry, NotifierEntry, PluginCatalog
from sixfbd.model import Rule, RuleName, Severity
from sixfbd.plugin import Check, Configured, Duration, Inbound, Notifier, OptionFaults, Secret, Size, installed
from sixfbd.rules.defaults import ENGINE_RULES


class Login(Struct, frozen=True):
    user: str
    password: Secret


class SmsOptions(Struct, frozen=True, kw_only=True):
    account: Annotated[str, Meta(description="The account.", min_length=2)]
    token: Annotated[Secret | None, Meta(description="Its token.")] = None
    threshold: Annotated[float, Meta(ge=0, le=1)] = 0.1
    numbers: tuple[str, ...] = ()
    login: Login | None = None
    page: Annotated[Size, Meta(description="Page size.")] = Size(1024)
    patience: Duration | None = None
    headers: dict[str, str | Secret] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if "+" in self.account:
            raise ValueError("account has a plus in it; write it without")


class SmsCheck(Check[SmsOptions]):
    """Health of an account."""

    Options = SmsOptions
    interval = Duration(300)
    timeout = Duration(20)

    async def run(self, cursor: Any) -> Any:
        raise AssertionError("configuration starts nothing")


class PlainOptions(Struct, frozen=True, kw_only=True):
    url: str = "https://api.example.com"
    hook: str = ""
    doors: dict[str, Secret] = msgspec.field(default_factory=dict)


class PlainNotifier(Notifier[Any]):
    """Tells nobody."""

    Options = PlainOptions
    provider_urls: ClassVar = {
        "url": "https://api.example.com",
        "doors": ("https://a.example.com/", "https://b.example.com/"),
    }
    concurrency = 3
    timeout = Duration(7)

    @classmethod
    def complete(cls, options: Any, configured: Configured) -> Any:
        if options.hook == "bomb":
            raise RuntimeError(options.hook)
        if options.hook == "nothing":
            return None
        with OptionFaults() as faults, faults.at("hook"):
            if options.hook and options.hook not in configured.webhooks.get("hook", ()):
                raise ValueError("nobody listens there; add an inbound")
        return replace(options, hook=", ".join(configured.webhooks.get("hook", ())))

    @classmethod
    def check_address(cls, options: Any, address: str) -> None:
        if address == "bomb":
            raise RuntimeError(address)
        if address.startswith("!"):
            raise ValueError(f"is no pigeon at {options.url}; write its name")


class HookOptions(Struct, frozen=True, kw_only=True):
    secrets: Annotated[tuple[Secret, ...], Meta(min_length=1)]
    package: str = "json"

    def __post_init__(self) -> None:
        with OptionFaults() as faults, faults.at("package"):
            installed(self.package, extra="pigeons")


class HookInbound(Inbound[HookOptions]):
    """Takes nothing in."""

    Options = HookOptions


DISK_RULE = Rule(
    name=RuleName("DiskFull"),
    expr="disk_used_ratio > 0.9",
    for_s=300,
    severity=Severity.HIGH,
    labels={"service": "system"},
    annotations={"summary": "{{ $labels.mount }} is full"},
    origin="plugin system",
)

MINIMAL = """
[checks.sms]
plugin = "sms"
account = "AC1"

[notifiers.log]
plugin = "plain"

[receivers.primary]
log = {via = "log"}
"""


@pytest.fixture
def catalog() -> PluginCatalog:
    return PluginCatalog(
        checks={"sms": CheckEntry("sms", SmsCheck, "fixture")},
        notifiers={"plain": NotifierEntry("plain", PlainNotifier, "fixture")},
        inbound={"hook": InboundEntry("hook", HookInbound, "fixture")},
        rules=(*ENGINE_RULES, DISK_RULE),
    )


Checked = Callable[..., tuple[Config | None, list[Problem]]]


@pytest.fixture
def minimal() -> str:
    return MINIMAL


@pytest.fixture
def checked(tmp_path: Path, catalog: PluginCatalog) -> Checked:
    """Write `text` (and conf.d files by name) into tmp_path and check it."""

    def check(
        text: str, environ: dict[str, str] | None = None, compile_rules: Any = None, **conf_d: str
    ) -> tuple[Config | None, list[Problem]]:
        path = tmp_path / "sixfbd.toml"
        path.write_text(text, encoding="utf-8")
        for name, extra in conf_d.items():
            (tmp_path / "conf.d").mkdir(exist_ok=True)
            (tmp_path / "conf.d" / f"{name}.toml").write_text(extra, encoding="utf-8")
        return check_config(path, catalog, compile_rules, environ or {})

    return check


@pytest.fixture
def complaints(checked: Checked, tmp_path: Path) -> Callable[..., list[str]]:
    """Return the problems of a text as people see them, the directory cut off."""

    def complain(text: str, environ: dict[str, str] | None = None, **conf_d: str) -> list[str]:
        _, problems = checked(text, environ, **conf_d)
        return [str(problem).replace(f"{tmp_path}/", "") for problem in problems]

    return complain


@pytest.fixture
def config_of(checked: Checked) -> Callable[..., Config]:
    """Return the configuration of a text that has no error."""

    def load(text: str, environ: dict[str, str] | None = None, **conf_d: str) -> Config:
        config, problems = checked(text, environ, **conf_d)
        assert config is not None, [str(problem) for problem in problems]
        return config

    return load
