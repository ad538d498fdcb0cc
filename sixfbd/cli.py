"""sixfbd: runs the daemon, and what needs none: first configuration, checks of it, plugins, rules, one check, a journal.

Owns words and exit codes. Every command imports what it needs when it runs, so that `--help` answers at once.
"""

import gc
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from sixfbd import __version__
from sixfbd.control.address import clone_root
from sixfbd.control.terminal import (
    FAILED,
    NOT_FINE,
    Failure,
    QuietGroup,
    completion_script,
    print_json,
    print_lines,
    terminal_width,
)

if TYPE_CHECKING:
    from sixfbd.config import Config, Problem
    from sixfbd.conformance import Verdict
    from sixfbd.host import PluginCatalog
    from sixfbd.model import Rule
    from sixfbd.outbox.previews import Shown

F = TypeVar("F", bound=Callable[..., Any])

SYSTEM_CONFIG: Final = Path("/etc/sixfbd/sixfbd.toml")
EPILOG: Final = """\b
Exit codes:
   0  done; run: stopped in order
   1  refused or failed; the line on stderr says why
   2  the command line is wrong
   5  check try: the check is not healthy, or not all of its report would be taken
  78  run: the configuration is wrong

The configuration is looked for at --config, $SIXFBD_CONFIG, .run/sixfbd.toml of the clone that sixfbd is installed
from, then /etc/sixfbd/sixfbd.toml. The running daemon is asked with sixfbctl."""


def find_config(environ: Mapping[str, str], given: Path | None = None) -> Path:
    """Return the configuration's path: the one given, the environment's, the clone's, the system's."""
    if given is not None:
        return given
    if named := environ.get("SIXFBD_CONFIG"):
        return Path(named)
    root = clone_root()
    places = [SYSTEM_CONFIG] if root is None else [root / ".run" / "sixfbd.toml", SYSTEM_CONFIG]
    return next((place for place in places if _is_there(place)), places[0])


def _is_there(place: Path) -> bool:
    """Tell whether a file exists that this user can see."""
    try:
        return place.exists()
    except OSError:
        return False


def config_option(command: F) -> F:
    """Let a command take --config."""
    path = click.Path(path_type=Path)
    return click.option("--config", "config_path", metavar="FILE", type=path, help="The configuration to use.")(command)


def json_option(command: F) -> F:
    """Let a command take --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


@click.group(cls=QuietGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sixfbd")
def cli() -> None:
    """Run sixfbd, and what needs no running daemon."""


# ---- the daemon ------------------------------------------------------------------------------------------------------


@cli.command()
@config_option
@click.pass_context
def run(ctx: click.Context, config_path: Path | None) -> None:
    """Run the daemon in the foreground until SIGTERM or Ctrl-C."""
    gc.disable()  # until it is ready: what a start makes stays, and to search it again and again for garbage takes 0.2 s
    try:
        from sixfbd.daemon import run_daemon

        ended = run_daemon(find_config(os.environ, config_path))
    finally:
        gc.enable()
    ctx.exit(ended)


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False), default=Path(".run"))
@click.option("--force", is_flag=True, help="Overwrite a configuration that is there.")
@click.option("--from-env", is_flag=True, help="Use the accounts that variables of the environment name.")
def init(directory: Path, force: bool, from_env: bool) -> None:
    """Write a first configuration.

    It is commented and ready to run, and goes to DIRECTORY with all that the daemon will keep; .run if left out.
    """
    from sixfbd.config import PluginSources
    from sixfbd.host import load_plugins
    from sixfbd.initial import CONFIG_NAME, InitError, environment_report, write_initial

    catalog = load_plugins(PluginSources())
    try:
        written = write_initial(directory, catalog, force=force, environ=os.environ if from_env else None)
    except InitError as error:
        raise Failure(str(error)) from None
    print_lines([f"wrote {path}" for path in written])
    if from_env:
        then = f"`sixfbd check-config {directory / CONFIG_NAME}` names what does not fit"
        print_lines([*environment_report(catalog, os.environ), then])


# ---- the configuration -----------------------------------------------------------------------------------------------


@cli.command("check-config")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@config_option
@json_option
@click.pass_context
def check_config(ctx: click.Context, file: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Name everything that is wrong in the configuration.

    FILE is the same as --config FILE. Exit code 1 if it cannot be used. Rules are compiled as well.
    """
    import msgspec

    if file is not None and config_path is not None:
        raise click.UsageError("name the configuration once: FILE or --config FILE")
    path = find_config(os.environ, file or config_path)
    config, problems, _ = _checked(path)
    if as_json:
        print_json({"ok": config is not None, "file": str(path), "problems": msgspec.to_builtins(problems)})
    else:
        print_lines([*map(str, problems), _verdict(path, config, problems)])
    ctx.exit(0 if config is not None else FAILED)


def _verdict(path: Path, config: "Config | None", problems: "Sequence[Problem]") -> str:
    counts = [
        f"{count} {level}{'s' if count > 1 else ''}"
        for level in ("error", "warning")
        if (count := sum(problem.level == level for problem in problems))
    ]
    return f"{path}: {', '.join(counts) or 'fine'}" + (", usable" if counts and config is not None else "")


@cli.group()
def config() -> None:
    """What may be configured, what is in force."""


@config.command("schema")
@config_option
def config_schema(config_path: Path | None) -> None:
    """Print the JSON Schema of all of it, plugins' options too."""
    from sixfbd.schema import config_schema, encode_schema

    click.echo(encode_schema(config_schema(_catalog(find_config(os.environ, config_path)))), nl=False)


@config.command("show")
@config_option
@json_option
def config_show(config_path: Path | None, as_json: bool) -> None:
    """Print the configuration in force as TOML.

    Files are merged, defaults filled in, secrets shown by their source.
    """
    from sixfbd.effective import as_toml, effective

    config, _ = _loaded(find_config(os.environ, config_path))
    if as_json:
        print_json(effective(config))
    else:
        click.echo(as_toml(config), nl=False)


@cli.command()
@config_option
@json_option
def rules(config_path: Path | None, as_json: bool) -> None:
    """The rules in force.

    They are the defaults of plugins, changed and added to by the configuration.
    """
    import msgspec

    from sixfbd.config import effective_rules
    from sixfbd.control.tables import table

    config, catalog = _loaded(find_config(os.environ, config_path))
    found, _ = effective_rules(config, catalog.rules)
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        heads = ("rule", "severity", "for", "origin", "expression")
        fold = ("expression", "severity")
        print_lines(
            table(heads, map(_rule_row, found), "no rules", width=terminal_width(), drop=("origin",), fold=fold)
        )


def _rule_row(rule: "Rule") -> tuple[str, ...]:
    from sixfbd.quantities import show_duration

    levels = ", ".join(f"{level.severity} {level.when}" for level in rule.levels)
    return (
        rule.name,
        str(rule.severity or levels or "as its label says"),
        show_duration(rule.for_s),
        rule.origin,
        rule.expr,
    )


@cli.command("test-routes")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@config_option
@json_option
@click.pass_context
def test_routes(ctx: click.Context, files: tuple[Path, ...], config_path: Path | None, as_json: bool) -> None:
    """Check who would be told against files of tests.

    A FILE holds [[tests]] with labels = {severity = "critical"} and receivers = ["primary"]; at = "2026-11-26T03:00:00"
    tests another time than now. Exit code 1 if one fails.
    """
    import msgspec

    from sixfbd.route_tests import RouteTestError, run_files

    config, catalog = _loaded(find_config(os.environ, config_path))
    try:
        results = list(run_files(files, config, catalog))
    except RouteTestError as error:
        raise Failure(str(error)) from None
    failed = [one for one in results if one.failure]
    if as_json:
        print_json(msgspec.to_builtins(results))
    else:
        print_lines(f"{one.file}: {one.name}: {one.failure}" for one in failed)
        print_lines([f"{len(results) - len(failed)} of {len(results)} tests passed"])
    ctx.exit(FAILED if failed else 0)


# ---- messages --------------------------------------------------------------------------------------------------------


@cli.group()
def template() -> None:
    """How messages read."""


@template.command("preview")
@click.argument("name", required=False)
@config_option
@click.option("--rule", "rule_name", metavar="RULE", help="Show alerts of this rule.")
@click.option("--channel", metavar="KIND", help="Show this kind of channel only, such as email.")
@json_option
def template_preview(
    name: str | None, config_path: Path | None, rule_name: str | None, channel: str | None, as_json: bool
) -> None:
    """Show how messages read, channel by channel.

    NAME is firing, resolved, notice or a notice's name such as sale; all if left out. Alerts and events are made up. Says
    which templates apply; those that fail are named, as by check-config.
    """
    import msgspec

    from sixfbd.config import effective_rules
    from sixfbd.config.text import did_you_mean
    from sixfbd.outbox.previews import shown
    from sixfbd.outbox.render import Place
    from sixfbd.rules import bind_rules
    from sixfbd.rules.thresholds import thresholds_of

    config, catalog = _loaded(find_config(os.environ, config_path))
    known = {rule.name: rule for rule in effective_rules(config, catalog.rules)[0]}
    if rule_name is not None and rule_name not in known:
        raise Failure(f"there is no rule {rule_name!r}; {did_you_mean(rule_name, known) or 'see `sixfbd rules`'}")
    place = Place(
        site=config.site.name,
        environment=config.site.environment,
        url=f"http://{config.http.listen}/",
        severities=config.severities,
        thresholds=thresholds_of(bind_rules(list(known.values())).rules.values()),
    )
    rules = [rule for rule in known.values() if rule.name == rule_name]
    notifiers = {plugin: entry.cls for plugin, entry in catalog.notifiers.items()}
    all_of = list(shown(config, catalog.event_types.values(), place, rules, notifiers))
    for given, there, what in (
        (name, {one.name for one in all_of}, "message"),
        (channel, {one.channel for one in all_of}, "channel"),
    ):
        if given is not None and given not in there:
            raise Failure(f"there is no {what} {given!r}; there are {', '.join(sorted(there))}")
    found = [one for one in all_of if name in (None, one.name) and channel in (None, one.channel)]
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        print_lines(line for one in found for line in _preview_lines(one))


def _preview_lines(one: "Shown") -> list[str]:
    by = [f"{part} by {name}.j2" for part, name in (("title", one.title_by), ("text", one.text_by)) if name]
    head = f"==== {one.name}, {one.channel or 'any channel'}: {', '.join(by) or 'as sixfbd has it'}"
    return [head, *one.shows.splitlines(), ""]


# ---- plugins, one check ----------------------------------------------------------------------------------------------


@cli.group(invoke_without_command=True)
@config_option
@json_option
@click.pass_context
def plugins(ctx: click.Context, config_path: Path | None, as_json: bool) -> None:
    """What plugins bring, and those that are left out."""
    if ctx.invoked_subcommand is not None:
        return
    import msgspec

    from sixfbd.control.plugin_list import plugin_views
    from sixfbd.control.show import show_plugins

    views = plugin_views(_catalog(find_config(os.environ, config_path)))
    if as_json:
        print_json(msgspec.to_builtins(views))
    else:
        print_lines(show_plugins(views, terminal_width()))


@plugins.command("new")
@click.argument("name")
@click.option(
    "--dir",
    "directory",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    help="Where to write it; sixfbd-NAME if left out.",
)
@json_option
def plugins_new(name: str, directory: Path | None, as_json: bool) -> None:
    """Write a plugin to begin with.

    A package with a check of about twenty lines, a rule, and tests that pass. Overwrites nothing.
    """
    from sixfbd.config import PluginSources
    from sixfbd.host import load_plugins
    from sixfbd.new_plugin import NewPluginError, module_of, write_plugin

    catalog = load_plugins(PluginSources())
    directory = directory or Path(f"sixfbd-{name}")
    try:
        written = write_plugin(name, directory, {*catalog.checks, *(one.name for one in catalog.plugins)})
    except NewPluginError as error:
        raise Failure(str(error)) from None
    if as_json:
        print_json({"plugin": name, "module": module_of(name), "files": list(map(str, written))})
        return
    print_lines(
        [
            *(f"wrote {path}" for path in written),
            f"to test it: cd {directory} && python -m pytest (needs sixfbd[testing])",
            f'to load it: plugin_directories = ["{directory.resolve()}"] under [daemon]',
        ]
    )


@plugins.command("check")
@click.argument("module")
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Run it with the options of this configuration; made up if left out.",
)
@json_option
@click.pass_context
def plugins_check(ctx: click.Context, module: str, config_path: Path | None, as_json: bool) -> None:
    """Check that a plugin keeps to what the daemon asks of plugins.

    MODULE is a module's name, a file, a package or a project's directory. Looks at what it declares, and runs it: its HTTP
    ends at a stand-in that answers, fails and hangs; what else it reaches is real. Exit code 1 if something is found.
    """
    import msgspec

    from sixfbd.conformance import CannotCheckError, check_plugin

    try:
        verdict = check_plugin(module, config_path)
    except CannotCheckError as error:
        raise Failure(str(error)) from None
    if as_json:
        print_json({"ok": not verdict.findings, **msgspec.to_builtins(verdict)})
    else:
        print_lines(_verdict_lines(verdict))
    ctx.exit(FAILED if verdict.findings else 0)


def _verdict_lines(verdict: "Verdict") -> list[str]:
    lines = []
    for one in verdict.findings:
        lines += [f"{one.subject}: {one.of}: {one.says}", *([f"    at {one.where}"] if one.where else [])]
        lines.append(f"    to mend it: {one.mend}")
    lines += [f"not run: {one.of}: {one.reason}" for one in verdict.not_run]
    found = f"{len(verdict.findings)} to mend" if verdict.findings else "nothing to mend"
    return [*lines, f"{verdict.target}: {found}; run: {', '.join(verdict.ran) or 'nothing'}"]


@cli.group()
def check() -> None:
    """Checks of the configuration."""


@check.command("try")
@click.argument("name")
@config_option
@json_option
@click.pass_context
def check_try(ctx: click.Context, name: str, config_path: Path | None, as_json: bool) -> None:
    """Run the check NAME once and show its report.

    With what of it the daemon would refuse. Nothing is written and nobody is told. Exit code 5 if the check is not healthy
    or something is refused.
    """
    import msgspec

    from sixfbd.config.text import did_you_mean
    from sixfbd.control.show import show_check_run
    from sixfbd.logs import configure_logging
    from sixfbd.trial import NotMadeError, try_check

    path = find_config(os.environ, config_path)
    config, catalog = _loaded(path)
    if name not in config.checks:
        raise Failure(f'{path}: there is no check "{name}"; {did_you_mean(name, config.checks) or "add [checks.NAME]"}')
    configure_logging("warning", "console")
    try:
        result = try_check(config.checks[name], catalog, config)
    except NotMadeError as error:
        raise Failure(f"check {name}: {error}") from None
    if as_json:
        print_json(msgspec.to_builtins(result))
    else:
        print_lines(show_check_run(result))
    ctx.exit(0 if result.is_fine else NOT_FINE)


@cli.command()
@config_option
@click.option("--socket", "socket_path", metavar="PATH", help="The daemon's control socket.")
@click.option("--offline", is_flag=True, help="Do not run the checks: ask nothing of other machines.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, config_path: Path | None, socket_path: str | None, offline: bool, as_json: bool) -> None:
    """Look at this machine, and say what to mend.

    Permissions, disk, journal, clock, port, systemd, whether anybody is ever told; each check is run once, and with it
    credentials and the way to its provider. Nothing is changed and nobody is told. Exit code 1 if something is at fault.
    """
    import msgspec

    from sixfbd.control.address import find_socket
    from sixfbd.doctor import examine, examine_around, worst
    from sixfbd.logs import configure_logging

    path = find_config(os.environ, config_path)
    config, problems, catalog = _checked(path)
    configure_logging("error", "console")
    own = socket_path or os.environ.get("SIXFBD_SOCKET") or (config and config.control.socket)
    socket = find_socket(os.environ, own or None)
    found = examine(config, catalog, socket, offline=offline) if config else examine_around(path, problems, socket)
    findings = []
    for one in found:
        findings.append(one)
        if not as_json:
            mend = f"\n{'':9}to mend it: {one.mend}" if one.mend else ""
            print_lines([f"{one.state:8} {one.what}: {one.says}{mend}"])
    if as_json:
        print_json({"state": worst(findings), "findings": msgspec.to_builtins(findings)})
    ctx.exit(FAILED if worst(findings) == "fault" else 0)


# ---- a journal's file ------------------------------------------------------------------------------------------------


@cli.group()
def journal() -> None:
    """A journal's file, such as a backup."""


@journal.command("verify")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
@click.pass_context
def journal_verify(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Check a journal against itself; exit code 1 if wrong."""
    from sixfbd.journal.errors import JournalError
    from sixfbd.journal.verify import verify_file

    try:
        problems = verify_file(file)
    except JournalError as error:
        raise Failure(str(error)) from None
    if as_json:
        print_json({"ok": not problems, "file": str(file), "problems": problems})
    else:
        print_lines(problems or [f"{file}: nothing is wrong"])
    ctx.exit(FAILED if problems else 0)


@journal.command("export")
@click.argument("file", type=click.Path(path_type=Path))
def journal_export(file: Path) -> None:
    """Print all of it as lines of JSON, oldest first."""
    from contextlib import closing

    from sixfbd.journal.errors import JournalBroken, JournalError, mapped_errors
    from sixfbd.journal.export import export_lines
    from sixfbd.journal.schema import FORM, connect

    try:
        if not file.is_file():
            raise JournalBroken(f"{file}: there is no such file")
        with mapped_errors(file), closing(connect(file)) as connection:
            FORM.check_identity(connection, file)
            for line in export_lines(connection):
                click.echo(line, nl=False)
    except JournalError as error:
        raise Failure(str(error)) from None


@journal.command("restore")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@config_option
@json_option
def journal_restore(file: Path, dry_run: bool, config_path: Path | None, as_json: bool) -> None:
    """Put a backup in the journal's place.

    The daemon must not run. The journal that is there is kept under another name. What happened since the backup was made
    is not known afterwards: who was told of it may be told again, and until its next start but one the daemon says how
    much is missing (alert StateDamaged).
    """
    from sixfbd.config import ConfigError, state_directory
    from sixfbd.journal.errors import JournalError
    from sixfbd.journal.restore import restore

    try:
        directory = state_directory(find_config(os.environ, config_path))
    except ConfigError as error:
        raise Failure(f"the configuration cannot be used:\n{error}") from None
    try:
        aside = restore(file, directory, dry_run=dry_run)
    except JournalError as error:
        raise Failure(str(error)) from None
    if as_json:
        print_json({"restored": not dry_run, "journal": str(directory / "journal.db"), "before": aside and str(aside)})
        return
    would = "would be " if dry_run else ""
    kept = f"; the one before {would or 'is '}kept as {aside}" if aside else ""
    print_lines([f"{directory / 'journal.db'} {would or 'is '}restored from {file}{kept}"])


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a shell's completion script.

    For bash: eval "$(sixfbd completion bash)".
    """
    click.echo(completion_script(cli, "sixfbd", shell))


# ---- loading ---------------------------------------------------------------------------------------------------------


def _catalog(path: Path) -> "PluginCatalog":
    from sixfbd.config import plugin_sources
    from sixfbd.host import load_plugins

    return load_plugins(plugin_sources(path))


def _checked(path: Path) -> "tuple[Config | None, list[Problem], PluginCatalog]":
    from sixfbd.config import check_config
    from sixfbd.rules.problems import rule_problems

    catalog = _catalog(path)
    return (*check_config(path, catalog, rule_problems), catalog)


def _loaded(path: Path) -> "tuple[Config, PluginCatalog]":
    config, problems, catalog = _checked(path)
    if config is None:
        raise Failure("\n".join(["the configuration cannot be used:", *map(str, problems)]))
    return config, catalog


def main() -> None:
    """Run sixfbd with this process's arguments."""
    cli(prog_name="sixfbd")
