"""What an answer must be: its status, its body's text, its JSON. Pure; a fault is named in plain words."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sixfbd_plugins.checks.regex import compile_regex

_STATUS: Final = re.compile(r"[1-5](?:xx|[0-9][0-9])")
_STEP: Final = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")
_SHOWN: Final = 60  # characters of a value or a pattern in a summary


class Fault(NamedTuple):
    """What is wrong with an answer."""

    text: str
    is_regex: bool = False


def validate_status(expected: str | int) -> str:
    """Return a status or a class of statuses as text; raises ValueError with the mend."""
    text = str(expected).lower()
    if not _STATUS.fullmatch(text):
        raise ValueError(f'{expected!r} is not a status; write 200 or "2xx"')
    return text


def status_fault(status: int, expected: Sequence[str]) -> Fault | None:
    """Return the fault of a status that is none of the expected ("200", "2xx")."""
    if str(status) in expected or f"{status // 100}xx" in expected:
        return None
    return Fault(f"status {status}, expected {' or '.join(expected)}")


def parse_path(path: str) -> list[str | int]:
    """Return the steps of a path such as `data.items[0].ok`; raises ValueError with the mend."""
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None or (at == 0 and path.startswith(".")):
            raise ValueError(f"{path!r} is not a path; write data.items[0].ok")
        steps.append(match[1] if match[2] is None else int(match[2]))
        at = match.end()
    if not steps:
        raise ValueError('"" is not a path; write data.items[0].ok')
    return steps


class BodyExpectations:
    """What a body must (not) match and what its JSON must hold; made once, held against each answer.

    `hide` is applied to what a fault shows of the body. Raises ValueError where a pattern or a path is not one. `fault`
    takes time in proportion to the body: call it in a thread.
    """

    def __init__(
        self,
        must_match: Sequence[str],
        must_not_match: Sequence[str],
        values: Mapping[str, Any],
        hide: Callable[[str], str] = str,
    ) -> None:
        self._hide = hide
        self._must_match = [(pattern, compile_regex(pattern)) for pattern in must_match]
        self._must_not_match = [(pattern, compile_regex(pattern)) for pattern in must_not_match]
        self._values = [(path, parse_path(path), value) for path, value in values.items()]

    def __bool__(self) -> bool:
        return bool(self._must_match or self._must_not_match or self._values)

    def fault(self, body: bytes) -> Fault | None:
        """Return the first fault of a body, or None."""
        text = body.decode("utf-8", errors="replace")
        for pattern, regex in self._must_match:
            if not regex.search(text):
                return Fault(f"body does not match {pattern[:_SHOWN]!r}", is_regex=True)
        for pattern, regex in self._must_not_match:
            if regex.search(text):
                return Fault(f"body matches {pattern[:_SHOWN]!r}, which it must not", is_regex=True)
        return self._json_fault(text) if self._values else None

    def _json_fault(self, text: str) -> Fault | None:
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return Fault("body is not JSON")
        for path, steps, wanted in self._values:
            try:
                found = _walk(document, steps)
            except LookupError:
                return Fault(f"JSON has no {path[:_SHOWN]}")
            if found != wanted or isinstance(found, bool) is not isinstance(wanted, bool):
                return Fault(f"JSON {path[:_SHOWN]} is {self._shown(found)}, expected {self._shown(wanted)}")
        return None

    def _shown(self, value: object) -> str:
        text = self._hide(json.dumps(value, default=str))
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _walk(document: object, steps: Sequence[str | int]) -> Any:
    found: Any = document
    for step in steps:
        is_fit = isinstance(found, dict) if isinstance(step, str) else isinstance(found, list)
        if not is_fit:
            raise LookupError(step)
        found = found[step]
    return found
