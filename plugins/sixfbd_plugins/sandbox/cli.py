"""sixfbd-sandbox: makes a run directory one of the sandbox, runs it, and asks the one that runs. Owns words and exit codes."""

import json
import os
import sys
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import urlencode

import click

from sixfbd_plugins.sandbox import control
from sixfbd_plugins.sandbox.setup import FIRST_PORT, SOCKET, SetupError, read_place, write_sandbox
from sixfbd_plugins.sandbox.switches import PROVIDERS, TARGETS, WORDS

FOLLOW_S: Final = 0.5


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--run-dir", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), default=Path(".run"), show_default=True,
    help="The run directory that the daemon and the sandbox share.",
)  # fmt: skip
@click.pass_context
def cli(ctx: click.Context, run_dir: Path) -> None:
    """A shop and its providers as doubles on this machine, to try sixfbd without accounts.

    Exit codes: 0 done, 1 refused or failed (the line on stderr says why), 2 the command line is wrong.
    """
    ctx.obj = run_dir


def _fail(error: Exception) -> NoReturn:
    raise click.ClickException(str(error)) from None


def _ask(run_dir: Path, method: str, target: str, body: Any = None) -> Any:
    try:
        return control.ask(run_dir / SOCKET, method, target, body=body)
    except control.ControlError as error:
        _fail(error)


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


# ---- the process -----------------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--force", is_flag=True, help="Write configuration and addresses again.")
@click.option("--port", default=FIRST_PORT, show_default=True, help="First port of the sandbox; 0: any that are free.")
@click.pass_obj
def init(run_dir: Path, force: bool, port: int) -> None:
    """Add the sandbox to a run directory.

    Writes conf.d/50-sandbox.toml for the daemon, and addresses and keys below sandbox/. The directory is one that
    `sixfbd init` has made.
    """
    try:
        written = write_sandbox(run_dir, force=force, first_port=port)
    except SetupError as error:
        _fail(error)
    for path in written:
        click.echo(f"wrote {path}")


@cli.command()
@click.option("--beside", metavar="PID", type=int, help="Stop when this process ends.")
@click.pass_obj
def run(run_dir: Path, beside: int | None) -> None:
    """Run it in the foreground until Ctrl-C.

    Prints where the shop is once it takes connections.
    """
    import trio

    from sixfbd_plugins.sandbox.server import run_sandbox

    def ready() -> None:
        click.echo(f"http://{place.addresses.listen['shop']}/")
        sys.stdout.flush()

    try:
        place = read_place(run_dir)
        trio.run(partial(run_sandbox, place, beside=beside, ready=ready))
    except SetupError as error:
        _fail(error)


# ---- asking it -------------------------------------------------------------------------------------------------------------


def _fault_help() -> str:
    """Return the words by who knows them; a line is no longer than a terminal is wide."""
    whose = {TARGETS: "every target", PROVIDERS: "every target but the shop"}
    parts = []
    for targets in dict.fromkeys(word.targets for word in WORDS.values()):
        known = [(name, word) for name, word in WORDS.items() if word.targets == targets]
        lines = [f"  {name + ('' if word.read is None else '='):12} {word.doc}" for name, word in known]
        parts.append(f"\b\nWords of {whose.get(targets) or ', '.join(targets)}:\n" + "\n".join(lines))
    return f"Targets: {', '.join(TARGETS)}.\n\n" + "\n\n".join(parts)


@cli.command(epilog=_fault_help())
@click.argument("target")
@click.argument("words", nargs=-1, required=True)
@json_option
@click.pass_obj
def fault(run_dir: Path, target: str, words: tuple[str, ...], as_json: bool) -> None:
    """Switch a fault of TARGET on.

    \b
    fault stripe endpoint=disabled
    fault twilio error=503 rate=30%
    """
    made = _ask(run_dir, "POST", "/faults", body={"target": target, "words": list(words)})
    _print_json(made) if as_json else click.echo(f"on: {_fault_line(made)}")


@cli.command()
@json_option
@click.pass_obj
def faults(run_dir: Path, as_json: bool) -> None:
    """The faults that are on."""
    found = _ask(run_dir, "GET", "/faults")
    _print_json(found) if as_json else click.echo("\n".join(map(_fault_line, found)) or "no fault is on")


@cli.command()
@click.argument("name", default="")
@json_option
@click.pass_obj
def clear(run_dir: Path, name: str, as_json: bool) -> None:
    """Switch faults off.

    NAME is a fault's number or a target; without it all are switched off.
    """
    gone = _ask(run_dir, "DELETE", f"/faults?{urlencode({'name': name})}")
    _print_json(gone) if as_json else click.echo("\n".join(f"off: {_fault_line(one)}" for one in gone) or "none was on")


@cli.command()
@click.option("--all", "everything", is_flag=True, help="What the shop sent to its customers as well.")
@click.option("--follow", is_flag=True, help="Wait for more until Ctrl-C.")
@json_option
@click.pass_obj
def inbox(run_dir: Path, everything: bool, follow: bool, as_json: bool) -> None:
    """What was sent to whom, newest last.

    With --json one object a line.
    """
    after = 0
    while True:
        found = _ask(run_dir, "GET", f"/inbox?after={after}")
        after = max([after, *(one["number"] for one in found)])
        for one in found:
            if everything or one["by"] == "sixfbd":
                click.echo(json.dumps(one, ensure_ascii=False) if as_json else _inbox_line(one))
        if not follow:
            if not after and not as_json:
                click.echo("nothing was sent yet")
            return
        sys.stdout.flush()
        time.sleep(FOLLOW_S)


@cli.command()
@json_option
@click.pass_obj
def status(run_dir: Path, as_json: bool) -> None:
    """Addresses, sales, webhooks, faults."""
    found = _ask(run_dir, "GET", "/status")
    if as_json:
        _print_json(found)
        return
    for name, address in found["listen"].items():
        click.echo(f"{name:9} http://{address}")
    shop = found["shop"]
    orders = ", ".join(f"{count} {state}" for state, count in shop["orders"].items())
    money = f"{shop['takenMinor'] / 100:.2f} taken, {shop['refundedMinor'] / 100:.2f} refunded"
    click.echo(f"visits    {shop['visits']}\norders    {orders}\nmoney     {money}")
    for city, left in shop["available"].items():
        click.echo(f"tickets   {city}: " + ", ".join(f"{count} {tier}" for tier, count in left.items()))
    for name in ("webhooks", "events"):
        click.echo(f"{name:9} " + ", ".join(f"{count} {what}" for what, count in found[name].items() if count != ""))
    click.echo("\n".join(f"fault     {_fault_line(one)}" for one in found["faults"]) or "faults    none")


def _fault_line(one: dict[str, Any]) -> str:
    return f"{one['number']}  {one['target']} {one['words']}"


def _inbox_line(one: dict[str, Any]) -> str:
    at = datetime.fromtimestamp(one["at"]).strftime("%H:%M:%S")
    text = " ".join(one["text"].split())
    return f"{at}  {one['channel']:8} {one['to']:14} {one['state']:12} {text}"


def main() -> None:
    """Run sixfbd-sandbox with this process's arguments; $SIXFBD_SANDBOX_NAME is what its help calls it, such as `./run sandbox`."""
    cli(prog_name=os.environ.get("SIXFBD_SANDBOX_NAME") or "sixfbd-sandbox")
