"""What `sixfbd-sandbox init` writes into a run directory, and what the sandbox reads there: addresses, keys, configuration.

The daemon reads conf.d/50-sandbox.toml, which is written last: it is there only if everything is. Both sides read the keys
below sandbox/, each a file of mode 0600. Overwrites nothing unless it is told to.
"""

import base64
import os
import random
import secrets
import socket
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import tomli_w

from sixfbd_plugins.sandbox.sendgrid import SendGridDouble
from sixfbd_plugins.sandbox.town import DAEMON_NUMBER, Keys

CONFIG: Final = "conf.d/50-sandbox.toml"
FOLDER: Final = "sandbox"
SOCKET: Final = "sandbox.sock"
FIRST_PORT: Final = 9640
HOUSES: Final = ("shop", "twilio", "stripe", "sendgrid", "slack", "discord", "hook")
DISCORD: Final = {"#alerts": "discord-alerts", "#critical-alerts": "discord-critical"}
PUBLIC_PORT: Final = 9633
PEOPLE: Final = {"primary": "+13525550101", "secondary": "+13525550102"}
CHANNELS: Final = {"primary": "#alerts", "secondary": "#critical-alerts"}


class SetupError(Exception):
    """A run directory cannot be made or read; the text says what, where, and the mend."""


class Addresses(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """sandbox/sandbox.toml. `speed`: so many times the usual visitors of the shop, all day."""

    speed: float = 1.0
    twilio_sid: str
    listen: dict[str, str]

    def __post_init__(self) -> None:
        if not 0 < self.speed <= 1000:
            raise ValueError("speed is above 0, and at most 1000")
        if missing := [name for name in HOUSES if name not in self.listen]:
            raise ValueError(f"listen.{missing[0]} is missing; `sixfbd-sandbox init --force` writes it")


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A run directory as the sandbox sees it. `daemon` is the address of the daemon's local port, `public` that of
    its port for the outside."""

    directory: Path
    addresses: Addresses
    keys: Keys
    daemon: str
    public: str
    token: str

    @property
    def socket(self) -> Path:
        return self.directory / SOCKET

    @property
    def state(self) -> Path:
        return self.directory / FOLDER / "shop.json"


# ---- reading ---------------------------------------------------------------------------------------------------------------


def read_place(directory: Path) -> Place:
    """Raises SetupError."""
    path = directory / FOLDER / "sandbox.toml"
    try:
        addresses = msgspec.toml.decode(path.read_bytes(), type=Addresses)
    except FileNotFoundError:
        raise SetupError(f"{directory} has no sandbox; make it: sixfbd-sandbox --run-dir {directory} init") from None
    except (OSError, msgspec.DecodeError) as error:
        raise SetupError(f"{path}: {error}") from None
    keys = Keys(
        twilio_sid=addresses.twilio_sid,
        twilio_token=_key(directory, f"{FOLDER}/twilio-token"),
        stripe_key=_key(directory, f"{FOLDER}/stripe-key"),
        stripe_signing=_key(directory, f"{FOLDER}/stripe-signing"),
        sendgrid_key=_key(directory, f"{FOLDER}/sendgrid-key"),
        sendgrid_signing=_key(directory, f"{FOLDER}/sendgrid-signing"),
        slack_token=_key(directory, f"{FOLDER}/slack-token"),
        discord_webhooks={
            urlsplit(_key(directory, f"{FOLDER}/{name}")).path: channel for channel, name in DISCORD.items()
        },
        hook_secret=_key(directory, f"{FOLDER}/hook-secret"),
    )
    http = _merged(directory).get("http", {})
    return Place(
        directory=directory,
        addresses=addresses,
        keys=keys,
        daemon=f"http://{http.get('listen', '127.0.0.1:9632')}",
        public=http.get("public", {}).get("url", "").rstrip("/"),
        token=_key(directory, "tokens/events"),
    )


def _key(directory: Path, name: str) -> str:
    try:
        return (directory / name).read_text("utf-8").strip()
    except OSError as error:
        raise SetupError(f"{directory / name}: cannot be read: {error.strerror}") from None


def _merged(directory: Path) -> dict[str, Any]:
    """Return the daemon's configuration; files of conf.d over the first, table by table."""
    merged: dict[str, Any] = {}
    for path in (directory / "sixfbd.toml", *sorted((directory / "conf.d").glob("*.toml"))):
        try:
            _merge(merged, tomllib.loads(path.read_text("utf-8")))
        except (OSError, ValueError) as error:
            raise SetupError(f"{path}: {error}") from None
    return merged


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


# ---- writing ---------------------------------------------------------------------------------------------------------------


def write_sandbox(directory: Path, *, force: bool = False, first_port: int = FIRST_PORT) -> list[Path]:
    """Make a run directory of sixfbd one of the sandbox as well. Return the files written. Raises SetupError.

    Ports are those from `first_port` on, and others that are free where these are in use; 0: any that are free. Keys that
    exist are kept, and with `force` the configuration is written again.
    """
    if not (directory / "sixfbd.toml").exists():
        raise SetupError(f"{directory} is no run directory of sixfbd; make it: sixfbd init {directory}")
    config = directory / CONFIG
    if config.exists() and not force:
        raise SetupError(f"{config} exists and is left as it is; `init --force` overwrites it")
    folder = directory / FOLDER
    ports = _ports(first_port)
    listen = {name: f"127.0.0.1:{next(ports)}" for name in HOUSES}
    public = f"127.0.0.1:{next(_ports(PUBLIC_PORT if first_port else 0))}"
    sid = f"AC{secrets.token_hex(16)}"
    signing = secrets.token_hex(32)
    addresses = {"speed": 1.0, "twilio_sid": sid, "listen": listen}
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        config.parent.mkdir(mode=0o700, exist_ok=True)
        files = {
            folder / "twilio-token": (f"{secrets.token_hex(16)}\n", False),
            folder / "stripe-key": (f"rk_test_{secrets.token_hex(16)}\n", False),
            folder / "stripe-signing": (f"whsec_{secrets.token_hex(16)}\n", False),
            folder / "sendgrid-key": (f"SG.{secrets.token_hex(16)}\n", False),
            folder / "sendgrid-signing": (f"{signing}\n", True),
            folder / "sendgrid-public": (f"{public_key(signing)}\n", True),
            folder / "slack-token": (f"xoxb-{secrets.token_hex(16)}\n", False),
            **{
                folder / name: (f"http://{listen['discord']}/api/webhooks/{place}/{secrets.token_hex(16)}\n", True)
                for place, name in enumerate(DISCORD.values(), 1)
            },
            folder / "hook-secret": (f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}\n", False),
            folder / "sandbox.toml": (_ADDRESSES_HEAD + tomli_w.dumps(addresses), True),
            config: (config_text(listen, public, sid), True),
        }
        return [path for path, (text, overwrite) in files.items() if _write(path, text, overwrite=overwrite)]
    except OSError as error:
        raise SetupError(f"{error.filename or directory}: cannot be written: {error.strerror}") from None


def public_key(signing: str) -> str:
    """Return what SendGrid's settings would show of the key that signs its event webhooks."""
    chance = random.Random(signing)
    return SendGridDouble("", time.time, chance, signing=chance).public_key


def _ports(first: int) -> Iterator[int]:
    """Give ports of loopback that nobody listens on: `first` and those behind it, else what the kernel chooses."""
    held: list[socket.socket] = []  # until the end, so that no port is given twice
    try:
        port = first
        while True:
            held.append(socket.socket())
            try:
                held[-1].bind(("127.0.0.1", port))
            except OSError:
                held[-1].bind(("127.0.0.1", 0))
            yield int(held[-1].getsockname()[1])
            port = port + 1 if port else 0
    finally:
        for one in held:
            one.close()


def _write(path: Path, text: str, *, overwrite: bool) -> bool:
    """Write a whole file with mode 0600, or none of it; return whether it was written."""
    if path.exists() and not overwrite:
        return False
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return True


_ADDRESSES_HEAD: Final = """\
# Where the sandbox listens. The daemon is told in conf.d/50-sandbox.toml: change both, or make both anew with
# `sixfbd-sandbox init --force`. speed: so many times the usual visitors of the shop.
"""


def config_text(listen: Mapping[str, str], public: str, twilio_sid: str) -> str:
    """Return conf.d/50-sandbox.toml: checks, notifiers, inbounds and receivers, all of them at the sandbox."""
    url = {name: f"http://{address}" for name, address in listen.items()}
    account = {
        "account_sid": twilio_sid,
        "auth_token": {"file": f"{FOLDER}/twilio-token"},
        "from_number": DAEMON_NUMBER,
        "base_url": url["twilio"],
    }
    mail = {
        "api_key": {"file": f"{FOLDER}/sendgrid-key"},
        "sender": "Workshop (sandbox) <alerts@example.com>",
        "base_url": url["sendgrid"],
    }
    values = {
        "site": {"url": url["shop"], "environment": "sandbox"},
        "daemon": {"sandbox": True},
        "http": {"public": {"listen": public, "url": f"http://{public}"}},
        "checks": {
            "storefront": {
                "plugin": "webhook",
                "interval": "10s",
                "targets": [f"{url['shop']}/", f"{url['shop']}/checkout", f"{url['shop']}/health"],
            },
            "inventory": {
                "plugin": "inventory",
                "interval": "15s",
                "http": {"url": f"{url['shop']}/internal/inventory"},
            },
            "email": {"plugin": "email", "interval": "15s", **mail},
            "ledger": {
                "plugin": "ledger",
                "interval": "15s",
                "ticket_within": "30s",  # shorter than the defaults, so that faults show soon
                "payment_within": "1m",
                "confirmation_within": "30s",
            },
            "payments": {
                "plugin": "payments",
                "interval": "15s",
                "api_key": {"file": f"{FOLDER}/stripe-key"},
                "base_url": url["stripe"],
                "window": "10m",  # shorter than the defaults, so that faults show soon
                "final_after": "30s",
                "undelivered_after": "2m",
            },
            "sms": {"plugin": "sms", "interval": "15s", "min_balance": "20.00", **account},
        },
        "notifiers": {
            "twilio": {"plugin": "sms", **account},
            "sendgrid": {"plugin": "email", **mail},
            "slack": {"plugin": "slack", "token": {"file": f"{FOLDER}/slack-token"}, "base_url": url["slack"]},
            "discord": {
                "plugin": "discord",
                "webhooks": {channel: {"file": f"{FOLDER}/{name}"} for channel, name in DISCORD.items()},
            },
            "hook": {
                "plugin": "webhook",
                "url": f"{url['hook']}/hook",
                "secret": {"file": f"{FOLDER}/hook-secret"},
            },
        },
        "inbound": {
            "twilio": {"kind": "twilio", "secrets": [{"file": f"{FOLDER}/twilio-token"}]},
            "stripe": {"kind": "stripe", "secrets": [{"file": f"{FOLDER}/stripe-signing"}]},
            "sendgrid": {"kind": "sendgrid", "secrets": [{"file": f"{FOLDER}/sendgrid-public"}]},
        },
        "flapping": {"window": "0s"},  # faults are switched on and off by hand: each end is told at once
        "receivers": {
            **{name: _person(name, number, CHANNELS[name]) for name, number in PEOPLE.items()},
            "inventory": {"slack": {"via": "slack", "to": ["#inventory-alerts"]}},
            "payments": {"slack": {"via": "slack", "to": ["#payment-alerts"]}},
        },
        "route": {
            "receiver": "primary",
            "routes": [
                {"receiver": "secondary", "matchers": ['severity="critical"'], "continue": True},
                {"receiver": "inventory", "matchers": ['service="inventory"'], "continue": True},
                {"receiver": "payments", "matchers": ['service="payments"'], "continue": True},
                {"receiver": "primary"},
            ],
        },
    }
    return _CONFIG_HEAD + tomli_w.dumps(values)


def _person(name: str, number: str, channel: str) -> dict[str, Any]:
    return {
        "sms": {"via": "twilio", "to": [number], "per_hour": 0, "per_day": 0},  # nobody pays for them here
        "email": {"via": "sendgrid", "to": [f"{name}@example.com"]},
        "slack": {"via": "slack", "to": [channel]},
        "discord": {"via": "discord", "to": [channel]},
        "webhook": {"via": "hook"},
    }


_CONFIG_HEAD: Final = """\
# The sandbox: a shop and providers that are doubles on this machine (./run sandbox --help). Written by `sixfbd-sandbox init`.
# Remove this file to go on without: ./run then starts the daemon alone.

"""
