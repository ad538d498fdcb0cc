"""RE2 expressions as a configuration gives them: linear in time whatever the text, quiet, and named when they are wrong."""

from typing import Any

import re2


def compile_regex(pattern: str | bytes) -> Any:
    """Compile an RE2 expression (https://github.com/google/re2/wiki/Syntax). Raises ValueError that names the fault.

    One of bytes matches bytes.
    """
    options = re2.Options()
    options.log_errors = False  # RE2 would write to stderr
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "not a regular expression"
        reason = reason.decode("utf-8", errors="replace") if isinstance(reason, bytes) else reason
        raise ValueError(f"{pattern!r} is not an RE2 expression: {reason}") from None
