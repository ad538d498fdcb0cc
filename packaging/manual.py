"""Writes the reference parts of the manual pages: `.venv/bin/python packaging/manual.py`.

Each page in `man/` is written by hand but for what stands between its lines `.\\" BEGIN NAME` and `.\\" END NAME`: commands,
keys, hooks and rules come from the code, so that they are said once. Plugins of others that are installed are left out.
"""

import inspect
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import msgspec
import tomli_w

import sixfbd.plugin
from sixfbd import cli, ctl, hookspecs
from sixfbd.config import PluginSources
from sixfbd.config.convert import Shape, fields_of
from sixfbd.config.tables import DEFAULT_SEVERITIES, TABLES, Channel, CheckKeys, InboundKeys, NotifierKeys
from sixfbd.host import PluginCatalog, load_plugins
from sixfbd.model import Rule
from sixfbd.plugin import EventType, Metric
from sixfbd.quantities import show_duration
from sixfbd.schema import describe_options, toml_value

ROOT = Path(__file__).resolve().parents[1]
MAN = ROOT / "man"
WIDTH = 78  # mandoc's lint wants at most 80
PROMQL_WIDTH = 68
BEGIN, END = '.\\" BEGIN {}', '.\\" END {}'
_PART = re.compile(r'^\.\\" BEGIN (\S+)\n(.*?)^\.\\" END \1\n', re.MULTILINE | re.DOTALL)
_ROFF = {"\\": "\\e", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq", "-": "\\-"}
_SENTENCE_END = re.compile(r"(?:(?<=\w[.!?])|(?<=[.!?][)'\"`])) +(?=\S)")
_SOURCE = re.compile(r"\s*\((?:DESIGN|SEED) [^)]*\)|\s*\bSEED S\d+\.?")
_HEADER = re.compile(r"`?\[{1,2}[\w.]+\]{1,2}`?: ")


class StaleInstallError(Exception):
    """What is installed is not what pyproject.toml says."""


# ---- roff ------------------------------------------------------------------------------------------------------------


def escaped(text: str, *, of: str = "\\") -> str:
    """Return text that roff takes as it is; `of` are the characters that are shown as typed on a keyboard."""
    made = "".join(_ROFF[c] if c in of and c in _ROFF else c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return made.replace("\\[uFE0F]", "")  # "shown as a picture", which a page cannot


def literal(text: str) -> str:
    """Return code, to be copied from a terminal."""
    return escaped(text, of="\\'`^~\"-")


def prose(text: str) -> list[str]:
    """Return lines of text: sentences begin lines, code in backquotes is bold."""
    lines: list[str] = []
    for sentence in _SENTENCE_END.split(" ".join(text.split())):
        parts = re.split(r"`+([^`]+)`+", sentence)
        made = "".join(
            f"\\fB{literal(part).replace(' ', chr(0))}\\fP" if odd % 2 else escaped(part)
            for odd, part in enumerate(parts)
        )
        wrapped = textwrap.wrap(made, WIDTH, break_long_words=False, break_on_hyphens=False) or []
        lines += [guarded(line.replace("\0", "\\ ")) for line in wrapped]
    return lines


def guarded(line: str) -> str:
    """Return a line that is no request, whatever it begins with."""
    return f"\\&{line}" if line[:1] in (".", "'") else line


def words(text: str) -> str:
    """Return text as arguments of a macro: none of its words is one."""
    return '"' + literal(text) + '"'


def display(lines: Iterable[str]) -> list[str]:
    """Return code that stands by itself."""
    return [".Bd -literal -offset indent", *(guarded(literal(line)) for line in lines), ".Ed"]


def tagged(items: Iterable[tuple[str, list[str]]], *, width: str = "Ds") -> list[str]:
    """Return a list of terms, each a macro line, and what is said of them."""
    made = [line for term, said in items for line in (f".It {term}", *(said or ["\\&"]))]
    return [f".Bl -tag -width {width}", *made, ".El"] if made else []


def first_paragraph(doc: str | None) -> str:
    """Return what a docstring says at first, without the header that stands above it already, or where it comes from."""
    text = _SOURCE.sub("", inspect.cleandoc(doc or "").partition("\n\n")[0].removesuffix("::"))
    said = _HEADER.sub("", text, count=1) if _HEADER.match(text) else text
    return said[:1].upper() + said[1:]


# ---- commands --------------------------------------------------------------------------------------------------------


def commands(program: click.Command, name: str) -> Iterator[tuple[click.Context, click.Command]]:
    """Yield every command that can be given, the program itself first, in the order of the alphabet."""
    yield from _commands(click.Context(program, info_name=name, **program.context_settings), program)


def _commands(context: click.Context, command: click.Command) -> Iterator[tuple[click.Context, click.Command]]:
    if not isinstance(command, click.Group) or command.invoke_without_command or context.parent is None:
        yield context, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(click.Context(found, info_name=name, parent=context), found)


def options_of(context: click.Context, command: click.Command) -> dict[str, tuple[str, str]]:
    """Return by an option's first long name how it is written, and what it does."""
    found = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            found[max(parameter.opts, key=len)] = record
    return found


def common_options(program: click.Command, name: str) -> dict[str, tuple[str, str]]:
    """Return the options that several commands have with the same meaning: they are described once."""
    seen: dict[str, list[tuple[str, str]]] = {}
    for context, command in commands(program, name):
        if context.parent is not None:
            for option, record in options_of(context, command).items():
                seen.setdefault(option, []).append(record)
    return {option: records[0] for option, records in seen.items() if len(records) > 2 and len(set(records)) == 1}


def option_list(options: Mapping[str, tuple[str, str]]) -> list[str]:
    return tagged((_option_term(how), prose(_as_sentence(doc))) for how, doc in options.values())


def _option_term(how: str) -> str:
    """`-f, --follow` or `--limit INTEGER RANGE` as mdoc has it."""
    made = []
    for form in re.split(r", | / ", how):
        flag, _, value = form.partition(" ")
        made.append(f"Fl {literal(flag.removeprefix('-'))}" + (f" Ar {words(value)}" if value else ""))
    return " , ".join(made)


def _as_sentence(text: str) -> str:
    """Return help with its defaults in words: `The last so many.  [default: 50; 1<=x<=100]`."""
    said, bracket, more = text.partition("  [")
    return f"{said} ({more.removesuffix(']')})" if bracket else said


def command_parts(program: click.Command, name: str) -> dict[str, list[str]]:
    """Return what a page says of a program's commands, of options that several have, and of the program's own options."""
    common = common_options(program, name)
    made: list[tuple[str, list[str]]] = []
    own: list[str] = []
    for context, command in commands(program, name):
        options = options_of(context, command)
        if context.parent is None:
            own = option_list(options)
            continue
        path = context.command_path.removeprefix(f"{name} ")
        pieces = [piece for one in command.params for piece in one.get_usage_pieces(context)]
        given = "".join(f" Oo {_option_term(how)} Oc" for option, (how, _) in options.items() if option != "--help")
        given += "".join(f" Ar {words(piece)}" for piece in pieces)
        said = [line for part in _paragraphs(command.help) for line in (*prose(part), ".Pp")][:-1]
        mine = option_list({option: record for option, record in options.items() if option not in common})
        made.append((f"Ic {literal(path)}{given}", [*said, *mine]))
    return {f"commands-{name}": tagged(made), f"common-{name}": option_list(common), f"options-{name}": own}


def _paragraphs(help_text: str | None) -> list[str]:
    return [part for part in inspect.cleandoc(help_text or "").split("\n\n") if part]


# ---- configuration ---------------------------------------------------------------------------------------------------


def key_list(table: type[msgspec.Struct], defaults: Mapping[str, Any] | None = None) -> list[str]:
    """Return the keys of a table with type, default and meaning, and below each what the tables in it hold."""
    return tagged(_keys(table, defaults or {}, ()))


def _keys(
    table: type[msgspec.Struct], defaults: Mapping[str, Any], above: tuple[type, ...]
) -> Iterator[tuple[str, list[str]]]:
    kinds = {option.key: option.type for option in describe_options(table)}
    for field in fields_of(table):
        default = toml_value(field.default)
        default = defaults.get(field.key) if default is None else default
        about = [kinds[field.key], *_bounds(field.shape)]
        if field.required:
            about.append("required")
        elif default not in (None, "", [], {}):
            about.append(f"default {_toml(default)}")
        said = prose(field.shape.description)
        inner = [one for one in _tables_in(field.shape) if one not in above and one is not table]
        for one in inner:
            said += [".Pp", *prose(first_paragraph(one.__doc__)), *tagged(_keys(one, {}, (*above, table)))]
        if not inner and list(_tables_in(field.shape)):
            said += prose("Its keys are those of this table.")
        yield f"Va {words(field.key)} Pq {words('; '.join(about))}", said


def _bounds(shape: Shape) -> list[str]:
    signs = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    return [
        f"{sign} {value:g}"
        for meta in shape.metas
        for key, sign in signs.items()
        if (value := getattr(meta, key)) is not None
    ]


def _tables_in(shape: Shape) -> Iterator[type[msgspec.Struct]]:
    if shape.kind == "table":
        yield shape.type
    for part in shape.inner:
        yield from _tables_in(part)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return tomli_w.dumps({"k": value}).removeprefix("k = ").rstrip("\n")


def header_of(name: str, repeats: str) -> str:
    return {"once": f"[{name}]", "named": f"[{name}.NAME]", "list": f"[[{name}]]"}[repeats]


def tables_part() -> list[str]:
    made: list[str] = []
    for table in TABLES:
        doc = first_paragraph(table.struct.__doc__)
        made += [f".Ss {literal(header_of(table.header, table.repeats))}\\&", *prose(doc), *key_list(table.struct)]
        if table.header == "severities":
            made += [".Pp", *prose("What they are without it:"), *_severity_defaults()]
    made += [f".Ss {literal('[receivers.NAME]')}\\&"]
    made += prose("Who is told: a key for each kind of channel, such as `email`, which holds a table with these keys.")
    return [*made, *key_list(Channel)]


def _severity_defaults() -> list[str]:
    return tagged(
        (
            f"Cm {words(str(severity))}",
            prose(f"{table.color}; {', '.join(table.channels)}"),
        )
        for severity, table in DEFAULT_SEVERITIES.items()
    )


def plugin_part(kind: str, keys: type[msgspec.Struct], classes: Mapping[str, Any]) -> list[str]:
    """Return what can be configured of each plugin of a kind; the engine's keys where it has defaults of its own."""
    made: list[str] = []
    for name, cls in sorted(classes.items()):
        made += [f".Ss {literal(f'{kind} = {_toml(name)}') if kind == 'kind' else literal(name)}"]
        made += prose(first_paragraph(cls.__doc__))
        own = {field.key: toml_value(getattr(cls, field.key, None)) for field in fields_of(keys)}
        defaults = [f"{key} {value}" for key, value in own.items() if value not in (None, "", [])]
        if defaults:
            made += [*prose(f"Its defaults: {', '.join(defaults)}.")]
        made += key_list(cls.Options) or prose("It has no options.")
    return made


# ---- plugins ---------------------------------------------------------------------------------------------------------


def hooks_part() -> list[str]:
    found = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("sixfbd_")}
    return tagged(
        (f"Fn {name} {words(', '.join(inspect.signature(hook).parameters))}", prose(first_paragraph(hook.__doc__)))
        for name, hook in found.items()
    )


def names_part() -> list[str]:
    made = []
    for name in sixfbd.plugin.__all__:
        value = getattr(sixfbd.plugin, name)
        if (isinstance(value, type) or inspect.isfunction(value)) and value.__doc__:
            made.append((f"Va {words(name)}", prose(first_paragraph(value.__doc__))))
        else:
            made.append((f"Va {words(name)}", prose(_OTHER_NAMES.get(name, ""))))
    return tagged(made)


_OTHER_NAMES = {
    "ANY": "As a check's `metrics`: it may report metrics that nobody can name beforehand.",
    "DAY": "Seconds of a day.",
    "HOUR": "Seconds of an hour.",
    "MINUTE": "Seconds of a minute.",
    "SECOND": "One second, the unit of all times.",
    "Json": "What JSON can hold.",
    "Labels": "Labels of a series: pairs of name and value, sorted.",
    "MessageId": "The id of a message in the outbox.",
    "Metrics": "What a check may declare: a sequence of metrics, or `ANY`.",
    "RuleName": "The name of a rule.",
    "hookimpl": "Marks a function of a plugin's module as a hook.",
}


def events_part(types: Mapping[str, EventType]) -> list[str]:
    return tagged((f"Cm {words(name)}", [*prose(one.doc), *_data_of(one)]) for name, one in sorted(types.items()))


def _data_of(one: EventType) -> list[str]:
    return tagged(
        (f"Va {words(key.key)} Pq {words(key.type + ('; required' if key.required else ''))}", prose(key.description))
        for key in describe_options(one.data)
    )


def reports_part(reports: Mapping[str, Any]) -> list[str]:
    return tagged((f"Cm {words(name)}", prose(entry.type.doc)) for name, entry in sorted(reports.items()))


# ---- rules -----------------------------------------------------------------------------------------------------------


def rules_part(rules: Iterable[Rule]) -> list[str]:
    made: list[str] = []
    origin = None
    for rule in rules:
        if rule.origin != origin:
            origin = rule.origin
            made += [f".Ss {'Of sixfbd itself' if origin == 'engine' else 'Of the ' + literal(origin)}"]
        made += rule_lines(rule)
    return made


def rule_lines(rule: Rule) -> list[str]:
    severity = str(rule.severity or "by the value" if rule.levels or rule.severity else "as its series say")
    about = [severity, f"for {show_duration(rule.for_s)}"]
    if rule.keep_firing_for_s:
        about.append(f"keeps firing for {show_duration(rule.keep_firing_for_s)}")
    if rule.evaluate == "interval":
        about.append(f"each {show_duration(rule.interval_s)}")
    texts = [rule.annotations.get(key, "") for key in ("summary", "description", "impact", "action")]
    levels = [f"`{level.severity}` when {level.when}" + (f", until {level.clear}" if level.clear else "")
              for level in rule.levels]  # fmt: skip
    said = [
        *[line for text in texts if text for line in prose(_plain(text))],
        *(prose("Severity: " + "; ".join(levels) + ".") if levels else []),
        *(prose("Labels: " + ", ".join(f'{k}="{v}"' for k, v in rule.labels.items()) + ".") if rule.labels else []),
        *display(promql_lines(rule.expr)),
    ]
    return tagged([(f"Sy {words(rule.name)} Pq {words('; '.join(about))}", said)])


def _plain(text: str) -> str:
    """Return an annotation as a sentence, its actions without what only formats them."""
    text = re.sub(r'\{\{\s*(?:printf "[^"]*" )?\$(?:labels\.)?(\w+)[^}]*\}\}', r"<\1>", text).strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def promql_lines(expr: str) -> list[str]:
    """Return an expression on lines that fit, broken at blanks."""
    return textwrap.wrap(
        " ".join(expr.split()), PROMQL_WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def metrics_part(metrics: Mapping[str, Metric]) -> list[str]:
    return tagged(
        (
            f"Va {words(name)}" + (f" Pq {words(', '.join(one.labels))}" if one.labels else ""),
            prose(one.doc),
        )
        for name, one in sorted(metrics.items())
    )


# ---- pages -----------------------------------------------------------------------------------------------------------


def catalog_of_this_project() -> PluginCatalog:
    """Return what our own plugins bring. Raises StaleInstallError if others than those of pyproject.toml are installed."""
    group = "sixfbd.plugins"
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][group]
    found = {one.name: one.value for one in entry_points(group=group)}
    if missing := sorted(name for name, value in written.items() if found.get(name) != value):
        raise StaleInstallError(
            f"not installed as pyproject.toml says: {', '.join(missing)}; bring .venv up to date first: ./run lint"
        )
    return load_plugins(PluginSources())


def parts() -> dict[str, list[str]]:
    """Return every generated part by its name."""
    catalog = catalog_of_this_project()
    checks, notifiers, inbound = (
        {name: entry.cls for name, entry in entries.items()}
        for entries in (catalog.checks, catalog.notifiers, catalog.inbound)
    )
    return {
        **command_parts(cli.cli, "sixfbd"),
        **command_parts(ctl.cli, "sixfbctl"),
        "tables": tables_part(),
        "checks": plugin_part("plugin", CheckKeys, checks),
        "notifiers": plugin_part("plugin", NotifierKeys, notifiers),
        "inbound": plugin_part("kind", InboundKeys, inbound),
        "hooks": hooks_part(),
        "names": names_part(),
        "events": events_part(catalog.event_types),
        "reports": reports_part(catalog.reports),
        "rules": rules_part(catalog.rules),
        "metrics": metrics_part(catalog.metrics),
    }


def filled(page: str, made: Mapping[str, list[str]]) -> str:
    """Return a page with its parts as they are now. Raises KeyError for a part that nobody makes."""

    def fill(found: re.Match[str]) -> str:
        name = found[1]
        return "\n".join([BEGIN.format(name), *made[name], END.format(name), ""])

    return _PART.sub(fill, page)


def outdated(made: Mapping[str, list[str]]) -> dict[Path, str]:
    """Return, for each page that is not as the code is now, how it should be."""
    found = {path: filled(path.read_text(), made) for path in sorted(MAN.glob("*.[1-9]"))}
    return {path: text for path, text in found.items() if text != path.read_text()}


def main() -> None:
    """Bring the pages up to date, and name those that were not."""
    try:
        stale = outdated(parts())
    except StaleInstallError as error:
        sys.exit(f"manual: {error}")
    for path, text in stale.items():
        path.write_text(text)
        print(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
