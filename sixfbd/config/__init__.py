"""The configuration: TOML → typed, frozen Config. Every error carries file, key, value and the mend.

`tables` has the forms and defaults, `text` reads and merges files, `convert` makes typed values, `secret_sources` finds
secrets, `fit` and `rules` check what must fit together, `load` puts the steps in order. Reads files and secrets, and
nothing else of the machine.
"""

from sixfbd.config.convert import fields_of
from sixfbd.config.fit import is_loopback, parse_listen, tls_context
from sixfbd.config.load import ConfigError, check_config, load_config, plugin_sources, state_directory
from sixfbd.config.rules import CompileRules, RuleProblem, effective_rules
from sixfbd.config.tables import (
    DEFAULT_SEVERITIES,
    Channel,
    CheckTable,
    Config,
    Control,
    Daemon,
    Http,
    HttpPublic,
    InboundTable,
    JournalTable,
    Log,
    NotifierTable,
    PluginSources,
    RouteTable,
    RuleTable,
    SeverityTable,
    Site,
    Token,
    WindowTable,
    default_route,
)
from sixfbd.config.text import Problem

__all__ = [
    "DEFAULT_SEVERITIES",
    "Channel",
    "CheckTable",
    "CompileRules",
    "Config",
    "ConfigError",
    "Control",
    "Daemon",
    "Http",
    "HttpPublic",
    "InboundTable",
    "JournalTable",
    "Log",
    "NotifierTable",
    "PluginSources",
    "Problem",
    "RouteTable",
    "RuleProblem",
    "RuleTable",
    "SeverityTable",
    "Site",
    "Token",
    "WindowTable",
    "check_config",
    "default_route",
    "effective_rules",
    "fields_of",
    "is_loopback",
    "load_config",
    "parse_listen",
    "plugin_sources",
    "state_directory",
    "tls_context",
]
