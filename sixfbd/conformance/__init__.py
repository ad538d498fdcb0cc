"""`sixfbd plugins check`: does a plugin keep to what the daemon asks of plugins?

What it declares is looked at, and what it brings is run, made and called by the daemon's own code. Owns no plugin and
writes nothing but in a directory of its own; what is found is told, never mended.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sixfbd.config import Config
from sixfbd.conformance.conduct import Examinee, examine
from sixfbd.conformance.declared import look_at
from sixfbd.conformance.finding import Finding, NotRun, Verdict
from sixfbd.conformance.guess import configured, made_up
from sixfbd.host import PluginCatalog, load_target
from sixfbd.plugin import PluginConfig

__all__ = ["CannotCheckError", "Finding", "NotRun", "Verdict", "check_plugin"]


class CannotCheckError(Exception):
    """There is nothing to check, or the configuration that is given cannot be used; the text says why."""


def check_plugin(target: str, config_path: Path | None = None) -> Verdict:
    """Check one plugin: a module's name, a file, a package or a project. Raises CannotCheckError.

    Its options are those of `config_path`, else made up. Blocks, for some seconds for each thing that it brings; what does
    not end is left behind in its thread.
    """
    try:
        catalog = load_target(target, PluginConfig(site="example"))
    except ValueError as error:
        raise CannotCheckError(str(error)) from None
    findings = list(look_at(catalog))
    with tempfile.TemporaryDirectory(prefix="sixfbd-") as directory:
        if config_path is None:
            tried = made_up(Path(directory), catalog)
        else:
            tried, wrong = configured(config_path, catalog)
            if wrong:
                raise CannotCheckError("\n".join(["the configuration cannot be used:", *wrong]))
        ran = []
        if tried.config is not None:
            for one in _examinees(tried.config, catalog):
                ran.append(one.of)
                findings += examine(one, tried.catalog, tried.config, _root_of(one.cls))
    return Verdict(target=target, findings=tuple(findings), not_run=tried.not_run, ran=tuple(ran))


def _examinees(config: Config, catalog: PluginCatalog) -> Iterator[Examinee]:
    """Yield what the configuration has of a catalog's plugins."""
    for check in config.checks.values():
        if check.plugin in catalog.checks and check.enabled:
            yield Examinee(f"check {check.plugin}", catalog.checks[check.plugin].cls, check)
    for notifier in config.notifiers.values():
        if notifier.plugin in catalog.notifiers:
            cls = catalog.notifiers[notifier.plugin].cls
            yield Examinee(f"notifier {notifier.plugin}", cls, notifier, _address(config, notifier.name))
    for inbound in config.inbound.values():
        if inbound.kind in catalog.inbound:
            yield Examinee(f"inbound {inbound.kind}", catalog.inbound[inbound.kind].cls, inbound)


def _address(config: Config, notifier: str) -> str:
    """Return an address to which the configuration sends through a notifier, "" if there is none."""
    for channels in config.receivers.values():
        for channel in channels.values():
            if channel.via == notifier and channel.to:
                return str(channel.to[0]) if isinstance(channel.to, list | tuple) else str(channel.to)
    return ""


def _root_of(cls: type) -> str:
    """Return what the files of a class's plugin begin with: those of its outermost package, or its one file."""
    outermost = sys.modules.get(cls.__module__.partition(".")[0])
    file = str(getattr(outermost, "__file__", None) or "")
    return file.removesuffix("__init__.py")
