"""What can go wrong with a query: it cannot be read, it fails on the data, it is stopped; and the Stop that does so.

Exception
├── PromQLError    the expression is not valid or not supported; with line, column and a caret
├── QueryError     the expression is valid, its evaluation on this data is not (many-to-many, too many points)
└── QueryStopped   deadline passed or cancelled
"""

import time
from collections.abc import Callable


class PromQLError(Exception):
    """An expression that is refused. `line` and `column` count from 1 and point at what does not fit.

    `line` includes the offset that the caller gave (the line of the expression in its file); `str()` shows the
    expression's line with a caret under the column.
    """

    def __init__(self, message: str, line: int, column: int, expr: str, *, extra_line_offset: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.expr = expr
        self._own_line = line - extra_line_offset

    @property
    def snippet(self) -> str:
        """The line of the expression, and below it a caret under the column."""
        lines = self.expr.split("\n")
        text = lines[self._own_line - 1].expandtabs(1) if self._own_line <= len(lines) else ""
        return f"{text}\n{' ' * (self.column - 1)}^"

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}\n{self.snippet}"


class QueryError(Exception):
    """A valid expression that this data makes impossible. The text says what and, where there is one, the mend."""


class QueryStopped(Exception):  # noqa: N818 - not an error of the query, as trio.Cancelled is none
    """The evaluation was ended from outside; the text says why."""


class Stop:
    """Ends an evaluation from outside: a deadline on a monotonic clock, and a flag that any thread may set."""

    def __init__(self, deadline: float | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._deadline = deadline
        self._monotonic = monotonic
        self._reason = ""

    @classmethod
    def within(cls, seconds: float, monotonic: Callable[[], float] = time.monotonic) -> "Stop":
        """Return a Stop whose deadline is `seconds` from now."""
        return cls(monotonic() + seconds, monotonic)

    def cancel(self, reason: str = "cancelled") -> None:
        """Make the next check raise. Thread-safe."""
        self._reason = reason

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return bool(self._reason)

    def check(self) -> None:
        """Raise QueryStopped if the evaluation is to end."""
        if self._reason:
            raise QueryStopped(self._reason)
        if self._deadline is not None and self._monotonic() > self._deadline:
            raise QueryStopped("the evaluation took longer than it may")
