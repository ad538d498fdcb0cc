"""What both command lines share: quiet ends (Ctrl-C, a closed pipe), colours, JSON output, completion scripts.

Import-light: click and the standard library. What others wrote is printed without its control characters, so that no name
and no summary can steer a terminal.
"""

import errno
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable
from typing import Any, Final

import click
from click.shell_completion import get_completion_class

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
LOST: Final = 4
NOT_FINE: Final = 5  # a check that was run: not healthy, or not all of its report was taken
INTERRUPTED: Final = 130  # as a shell says of SIGINT
PIPE_CLOSED: Final = 141  # as a shell says of SIGPIPE
UNSEEN: Final = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""What JSON need not escape and a terminal may obey: DEL, C1 controls, marks that turn the direction of writing."""


class Failure(click.ClickException):
    """The end of a command with a line for people and an exit code."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self._exit_code = exit_code
        context = click.get_current_context(silent=True)
        root = context.find_root() if context is not None else None
        self._program = root.info_name if root is not None else None
        self._as_json = bool(getattr(root.obj if root is not None else None, "as_json", False))

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has it per class; here it is the reason's
        return self._exit_code

    def show(self, file: Any = None) -> None:
        lines = "\n".join(clean(line) for line in self.format_message().split("\n"))
        if self._as_json:
            click.echo(json_text({"error": {"message": lines, "exit_code": self.exit_code}}), err=True)
        else:
            click.echo(f"{self._program or 'sixfbd'}: {lines}", err=True)


class QuietGroup(click.Group):
    """A command line that ends without a traceback when its reader leaves or its user presses Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # else a terminal that has no such character ends the command
                stream.reconfigure(errors="backslashreplace")
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            ctx.exit(PIPE_CLOSED)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG):
                raise
            _forget_stdout()
            raise Failure(f"cannot write the answer: {error.strerror}") from None
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        return result


def _forget_stdout() -> None:
    """Let the interpreter flush what is left into nothing, for it would complain at its exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def terminal_width() -> int | None:
    """Return the columns of the terminal that stdout is, None for a pipe or a file: those take lines of any width."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def clean(text: str) -> str:
    """Return the text on one line and without control characters."""
    return "".join(" " if char in "\n\t" else char for char in text if char in "\n\t" or char.isprintable())


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON that any terminal shows and none obeys."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, indent=indent, ensure_ascii=plain, separators=separators)
    return UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_lines(lines: Iterable[str]) -> None:
    """Print lines; click leaves colours out where nobody sees them."""
    for line in lines:
        click.echo(line)


def print_json(value: Any) -> None:
    """Print a value for scripts, indented."""
    click.echo(json_text(value, indent=2))


def completion_script(command: click.Command, program: str, shell: str) -> str:
    """Return the script that a shell evaluates, or loads by itself from a file, to complete `program`'s commands."""
    completion = get_completion_class(shell)
    if completion is None:
        raise Failure(f"no completion for {shell}", USAGE)
    variable = f"_{program.upper()}_COMPLETE"
    script = completion(command, {}, program, variable).source()
    # Where zsh loads it by itself, the script is the function: click's answers the first time only.
    return script.replace("== loadautofunc ]]", "== (loadautofunc|shfunc) ]]")
