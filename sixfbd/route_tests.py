"""Tests of the tree of routes in files: labels, and the receivers that must be told; run without a daemon.

A file is TOML: `[[tests]]` with `labels`, `receivers` (in any order; none: nobody) and, if it matters, `at`.
"""

import random
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from sixfbd.alerting.intervals import parse_moment
from sixfbd.alerting.policy import Policy, build_policy
from sixfbd.config import Config, effective_rules
from sixfbd.host import PluginCatalog
from sixfbd.journal.state import State
from sixfbd.readers.addresses import Addresses
from sixfbd.readers.routing import route_of


class RouteTest(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One test; `at` is a time of the site (now if left out), `name` is shown with what comes of it."""

    labels: dict[str, str]
    receivers: tuple[str, ...]
    at: str = ""
    name: str = ""


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    tests: list[RouteTest]


class RouteTestResult(Struct, frozen=True):
    """What came of one test: `failure` says what was expected and what would be, "" if it passed."""

    file: str
    name: str
    failure: str = ""


class RouteTestError(Exception):
    """A file is no file of tests; the text says what, where and how to mend it."""


def run_files(paths: Sequence[Path], config: Config, catalog: PluginCatalog) -> Iterator[RouteTestResult]:
    """Run the tests of files, one result for each, in order. Raises RouteTestError for a file that is none."""
    rules, _ = effective_rules(config, catalog.rules)
    policy = build_policy(
        config,
        rules,
        [],
        [],
        level_of=lambda rule, value, current: None,
        annotate=lambda rule, found: {},
        rng=lambda *key: random.Random("/".join(key)),
    )
    addresses = Addresses(config, catalog)
    for path in paths:
        for place, test in enumerate(_read(path)):
            name = f"tests[{place}]" + (f' "{test.name}"' if test.name else "")
            yield RouteTestResult(str(path), name, _failure(test, policy, addresses, config, f"{path}: {name}"))


def _read(path: Path) -> list[RouteTest]:
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File).tests
    except OSError as error:
        raise RouteTestError(f"{path}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RouteTestError(f"{path}: is no TOML: {error}") from None
    except msgspec.ValidationError as error:
        example = '[[tests]] with labels = {severity = "critical"} and receivers = ["primary"]'
        raise RouteTestError(f"{path}: {error}; a test is {example}") from None


def _failure(test: RouteTest, policy: Policy, addresses: Addresses, config: Config, where: str) -> str:
    try:
        at = parse_moment(test.at, config.site.timezone) if test.at else time.time()
        view = route_of(policy, State(), test.labels, at, addresses)
    except ValueError as error:
        raise RouteTestError(f"{where}: {error}") from None
    told = {route.receiver: route.path for route in view.routes if route.targets and not route.muted}
    if set(told) == set(test.receivers):
        return ""
    silent = [f"{route.receiver}: {route.muted}" for route in view.routes if route.muted]
    would = ", ".join(f"{receiver} by {path}" for receiver, path in told.items()) or view.nobody or "nobody"
    wanted = ", ".join(test.receivers) or "nobody"
    return "; ".join([f"{wanted} must be told, and it is {would}", *silent])
