"""Regular expressions and matchers as Prometheus has them: RE2, anchored at both ends, a missing label being ""."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import re2

from sixfbd.model import Series
from sixfbd.window.snapshot import Matcher

_OPTIONS: Final = re2.Options()
_OPTIONS.log_errors = False  # RE2 would write to standard error what we raise
_OPTIONS.dot_nl = True  # as Prometheus 3

_SMALL: Final = re2.Options()
_SMALL.log_errors = False
_SMALL.max_mem = 2**20  # enough for an alternative of thousands of names


@lru_cache(maxsize=1024)
def is_too_large(pattern: str) -> bool:
    """Tell whether a pattern would compile to more than anybody means: `\\pL{1,1000}` held the interpreter for a second."""
    try:
        re2.compile(pattern, _SMALL)
    except re2.error as error:
        return b"too large" in error.args[0] if error.args and isinstance(error.args[0], bytes) else False
    return False


@lru_cache(maxsize=1024)
def anchored(pattern: str) -> Any:
    """Compile `pattern` so that `.match()` holds only for whole texts. Raises ValueError with RE2's reason."""
    try:
        re2.compile(pattern, _OPTIONS)  # on its own first: `a)(b` is valid only between our brackets
        return re2.compile(f"^(?:{pattern})$", _OPTIONS)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        raise ValueError(reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)) from None


def matches(matchers: Iterable[Matcher], series: Series) -> bool:
    """Tell whether a series fits all of `matchers`."""
    labels = dict(series.labels)
    for matcher in matchers:
        value = series.metric if matcher.name == "__name__" else labels.get(matcher.name, "")
        plain = matcher.op in ("=", "!=")
        fits = value == matcher.value if plain else anchored(matcher.value).match(value) is not None
        if fits != (matcher.op in ("=", "=~")):
            return False
    return True
