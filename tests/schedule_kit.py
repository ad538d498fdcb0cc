"""What tests of the scheduler share: an instance of a check, made by hand."""

from dataclasses import dataclass
from typing import Any

from sixfbd.model import CheckName


@dataclass
class Made:
    name: CheckName
    check: Any
    plugin: str = "scripted"
    interval_s: float = 10.0
    timeout_s: float = 5.0
    jitter_s: float | None = 0.0
    service: str | None = None
    external: str | None = None
    problem: str = ""
    depends_on: tuple[CheckName, ...] = ()
