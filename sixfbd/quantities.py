"""The quantities of the configuration: durations ("90s", "5m"), sizes ("64MiB"), files and secrets; parsing and showing
them.

Durations are seconds as a float, sizes bytes as an int; both are subclasses so that a type annotation says which text is
expected. A `Secret` is resolved when the configuration is loaded and never shows its value but through `reveal()`.
"""

import re
from collections.abc import Mapping
from typing import Final, final

SECOND: Final = 1.0
MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0

_DURATION_UNITS: Final[Mapping[str, float]] = {
    "ms": 0.001, "s": SECOND, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY, "y": 365 * DAY,
}  # fmt: skip
DURATION_PATTERN: Final = "(?:[0-9]{1,12}(?:ms|[smhdwy]))+"
SIZE_PATTERN: Final = r"([0-9]{1,15}(?:\.[0-9]{1,15})?) ?(B|[KMGT]iB|[kMG]B)"
_DURATION = re.compile(DURATION_PATTERN)
_DURATION_PART = re.compile(r"([0-9]+)(ms|[smhdwy])")
_SIZE_UNITS: Final[Mapping[str, int]] = {
    "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4, "kB": 1000, "MB": 1000**2, "GB": 1000**3,
}  # fmt: skip
_SIZE = re.compile(SIZE_PATTERN)


class Duration(float):
    """Seconds. Written as Prometheus writes durations: "90s", "5m", "1h30m", "250ms"."""

    @classmethod
    def parse(cls, text: object) -> "Duration":
        """Raise ValueError with the mend in its text if `text` is not a duration."""
        if isinstance(text, str) and _DURATION.fullmatch(text):
            return cls(sum(int(count) * _DURATION_UNITS[unit] for count, unit in _DURATION_PART.findall(text)))
        if isinstance(text, int) and not isinstance(text, bool) and 0 <= text < 10**12:
            raise ValueError(f'has no unit; write "{text}s" or "5m"')
        raise ValueError('is not a duration; write "5m" or "300s"')

    def __str__(self) -> str:
        return show_duration(self)


class Size(int):
    """Bytes. Written "64MiB", "1GiB", "500kB"."""

    @classmethod
    def parse(cls, text: object) -> "Size":
        """Raise ValueError with the mend in its text if `text` is not a size."""
        if isinstance(text, str) and (match := _SIZE.fullmatch(text)):
            return cls(round(float(match[1]) * _SIZE_UNITS[match[2]]))
        raise ValueError('is not a size; write "64MiB" or "500kB"')

    def __str__(self) -> str:
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if self and self % _SIZE_UNITS[unit] == 0:
                return f"{self // _SIZE_UNITS[unit]}{unit}"
        return f"{int(self)}B"


class FilePath(str):
    """The absolute path of a file that is read. Written relative to the configuration's directory; it must be there, and
    readable, when the configuration is loaded."""

    __slots__ = ()


@final
class Secret:
    """A value that must not be shown. `source` is what the configuration says of it, such as `env TOKEN`."""

    __slots__ = ("_value", "source")

    def __init__(self, value: str, source: str) -> None:
        self._value = value
        self.source = source

    def reveal(self) -> str:
        """Return the value. Only where it goes out on the wire."""
        return self._value

    def __repr__(self) -> str:
        return f"<secret from {self.source}>"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self._value, self.source) == (other._value, other.source)

    def __hash__(self) -> int:
        return hash((self._value, self.source))

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled")


def show_duration(seconds: float) -> str:
    """Return the shortest Prometheus form of a duration: 90 -> "1m30s", 0.25 -> "250ms", 0 -> "0s"."""
    rest = round(seconds * 1000)
    parts = []
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def show_value(value: float | str) -> str:
    """A measured value as people read it: six digits are enough. What is text already, such as "NaN", stays."""
    return value if isinstance(value, str) else f"{value:g}"
