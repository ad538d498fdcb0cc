"""What both command lines share: quiet ends (Ctrl-C, a closed pipe), colours, JSON output, completion scripts.

Import-light: click and the standard library.
"""

import json
import os
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


class Failure(click.ClickException):
    """The end of a command with a line for people and an exit code."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self._exit_code = exit_code
        context = click.get_current_context(silent=True)
        self._program = context.find_root().info_name if context is not None else None

    @property
    def exit_code(self) -> int:  # type: ignore[override]  # click has it per class; here it is the reason's
        return self._exit_code

    def show(self, file: Any = None) -> None:
        click.echo(f"{self._program or 'sixfbd'}: {self.format_message()}", err=True)


class QuietGroup(click.Group):
    """A command line that ends without a traceback when its reader leaves or its user presses Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            ctx.exit(PIPE_CLOSED)
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


def print_lines(lines: Iterable[str]) -> None:
    """Print lines; click leaves colours out where nobody sees them."""
    for line in lines:
        click.echo(line)


def print_json(value: Any) -> None:
    """Print a value for scripts, indented."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def completion_script(command: click.Command, program: str, shell: str) -> str:
    """Return the script that a shell evaluates to complete `program`'s commands."""
    completion = get_completion_class(shell)
    if completion is None:
        raise Failure(f"no completion for {shell}", USAGE)
    variable = f"_{program.upper()}_COMPLETE"
    return completion(command, {}, program, variable).source()
