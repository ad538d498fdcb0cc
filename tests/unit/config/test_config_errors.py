"""What a person reads who got the configuration wrong: file, key, value, mend; all errors at once; no secret."""

import os
from pathlib import Path

import pytest

from sixfbd.config import ConfigError, PluginSources, Problem, check_config, load_config
from sixfbd.config.text import show_key, show_value
from sixfbd.host import PluginCatalog, PluginInfo, load_plugins
from sixfbd.rules.problems import rule_problems


def test_a_bad_duration_is_named_with_file_key_value_and_mend(complaints):
    text = '[checks.sms]\nplugin = "sms"\naccount = "AC1"\ninterval = "5x"\n[receivers]\n'
    assert complaints(text)[0] == 'sixfbd.toml: checks.sms.interval: "5x" is not a duration; write "5m" or "300s"'


def test_all_errors_are_told_at_once(complaints):
    text = """
    [site]
    currency = "dollars"
    timezone = "Mars/Olympus"
    [http]
    listen = "0.0.0.0:80"
    max_body = 5
    [log]
    levle = "info"
    [checks.sms]
    plugin = "sms"
    interval = 300
    threshold = 7
    [notifiers.log]
    plugin = "plian"
    [receivers.primary]
    log = {via = "lgo"}
    [route]
    receiver = "primry"
    """
    assert complaints(text) == [
        'sixfbd.toml: site.currency: "dollars" must be such as "USD"; ISO 4217 code that reports are in',
        'sixfbd.toml: http.max_body: 5 is not a size; write "64MiB" or "500kB"',
        'sixfbd.toml: log.levle: unknown key; did you mean "level"?',
        'sixfbd.toml: checks.sms.interval: 300 has no unit; write "300s" or "5m"',
        'sixfbd.toml: checks.sms.account: is missing; write account = "..." (the account)',
        "sixfbd.toml: checks.sms.threshold: 7 must be at least 0 and at most 1",
        'sixfbd.toml: notifiers.log.plugin: "plian" is not a notifier plugin; did you mean "plain"?',
        'sixfbd.toml: site.timezone: "Mars/Olympus" is not a time zone; write one such as "America/Chicago"',
        'sixfbd.toml: http.listen: "0.0.0.0:80" can be reached from outside, without TLS; '
        "listen on 127.0.0.1 behind a proxy that has TLS, or set insecure_bind = true",
        'sixfbd.toml: receivers.primary.log.via: "lgo" is not a notifier; did you mean "log"?',
        'sixfbd.toml: route.receiver: "primry" is not a receiver; did you mean "primary"?',
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('account = 5', "checks.sms.account: 5 is not text; write it in quotes"),
        ('account = {a = 1}', "checks.sms.account: a table is not text; write it in quotes"),
        ('account = "A"', 'checks.sms.account: "A" must be at least 2 characters long; The account'),
        ('account = "A+B"', "checks.sms: account has a plus in it; write it without"),
        ('account = "AC1"\nnumbers = "555-0100"',
         'checks.sms.numbers: "555-0100" is not a list; write it in brackets: ["..."]'),
        ('account = "AC1"\nnumbers = ["a", 2, 3]', "checks.sms.numbers[1]: 2 is not text; write it in quotes"),
        ('account = "AC1"\nthreshold = nan', "checks.sms.threshold: nan is not a finite number"),
        ('account = "AC1"\nthreshold = true', "checks.sms.threshold: true is not a number; write digits without quotes"),
        ('account = "AC1"\nthreshold = 07:32:00',
         "checks.sms.threshold: 07:32:00 is not a number; write digits without quotes"),
        ('account = "AC1"\nenabled = "yes"',
         'checks.sms.enabled: "yes" is not true or false; write true or false without quotes'),
        ('account = "AC1"\nlogin = 3', "checks.sms.login: 3 is not a table; write it as a table of keys"),
        ('account = "AC1"\nlogin = {user = "x", pasword = {env = "P"}}',
         'checks.sms.login.pasword: unknown key; did you mean "password"?'),
        ('account = "AC1"\npatience = "5 m"', 'checks.sms.patience: "5 m" is not a duration; write "5m" or "300s"'),
        ('account = "AC1"\nacount = "x"', 'checks.sms.acount: unknown key; did you mean "account"?'),
        ('account = "AC1"\nintervall = "x"', 'checks.sms.intervall: unknown key; did you mean "interval"?'),
        ('account = "AC1"\nheaders = {"a b" = 3}', 'checks.sms.headers."a b": is not text or a secret'),
        (
            'account = "AC1"\ntimeout = "6m"',
            "checks.sms.timeout: the timeout (6m) is longer than the interval (5m); a run must end before the next one starts",
        ),
        ('account = "AC1"\ninterval = "0s"', 'checks.sms.interval: "0s" must be more than 0'),
        ('account = "AC1"\njitter = "6m"', 'checks.sms.jitter: "6m" is longer than the interval'),
        ('account = "AC1"\npage = "3 lots"', 'checks.sms.page: "3 lots" is not a size; write "64MiB" or "500kB"'),
    ],
)  # fmt: skip
def test_each_wrong_option_is_named_with_its_mend(complaints, line, said):
    text = f'[checks.sms]\nplugin = "sms"\n{line}\n[notifiers.log]\nplugin="plain"\n[receivers.primary]\nlog = {{via="log"}}\n'
    assert f"sixfbd.toml: {said}" in complaints(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[chekcs.a]\n", 'chekcs: unknown key; did you mean "checks"?'),
        ("checks = 5\n", "checks: 5 is not a table of tables; write [checks.NAME]"),
        ("[checks]\nsms = 5\n", "checks.sms: 5 is not a table; write it as a table of keys"),
        ("[checks.a]\n", 'checks.a.plugin: is missing; write plugin = "..." (name of the check plugin)'),
        ('[checks."a b"]\nplugin = "sms"\n', 'checks."a b": is not a name; letters, digits, _ and -, at most 64'),
        ('[checks.sixfbd]\nplugin = "sms"\n', "checks.sixfbd: the name sixfbd is the engine's own; choose another name"),
        ('[checks.events]\nplugin = "sms"\n', "checks.events: the name events is the engine's own; choose another name"),
        ('[checks.a]\nplugin = "smss"\n', 'checks.a.plugin: "smss" is not a check plugin; did you mean "sms"?'),
        ('[checks.a]\nplugin = ["sms"]\n', "checks.a.plugin: a list is not text; write it in quotes"),
        ("site = []\n", "site: a list is not a table; write it as a table of keys"),
        ('[severities.hihg]\nicon = "!"\n', 'severities.hihg: is not a severity; did you mean "high"?'),
        ('[severities.high]\ncolor = "red"\n',
         'severities.high.color: "red" must be such as "#E74A3B"; Colour in messages and on pages'),
        ('[http]\nlisten = "9632"\n',
         'http.listen: "9632" is not an address and a port; write "127.0.0.1:9632" or "[::1]:9632"'),
        ('[http]\nlisten = "127.0.0.1:70000"\n',
         'http.listen: "127.0.0.1:70000" has a port above 65535; write "127.0.0.1:9632" or "[::1]:9632"'),
        ('[http]\nlisten = "300.1.1.1:80"\n',
         'http.listen: "300.1.1.1:80" is not an address and a port; write "127.0.0.1:9632" or "[::1]:9632"'),
        ('[http]\nhosts = ["a b"]\n', 'http.hosts[0]: "a b" is not a host name; write "monitor.example.com"'),
        ('[http]\nbody_timeout = "0s"\n', 'http.body_timeout: "0s" must be more than 0'),
        ('[site.external_labels]\n"a-b" = "c"\n',
         'site.external_labels.a-b: is not the name of a label; letters, digits and _, no digit first'),
        ('[daemon]\nstate_directory = "a\\u0000b"\n', "daemon.state_directory: "),
        ('[tokens.t]\nsecret = {env = "T"}\nscopes = ["event"]\n',
         'tokens.t.scopes[0]: "event" is not one of "events", "alerts", "read"; did you mean "events"?'),
        ('[tokens.t]\nsecret = {env = "T"}\nscopes = []\n', "tokens.t.scopes: is empty; at least 1 must be there"),
        ("[receivers]\nprimary = 5\n", 'receivers.primary: 5 is not a table of channels; write email = {via = "NOTIFIER"}'),
        ('[receivers.a]\nlog = {via = "x"}\n', 'receivers.a.log.via: "x" is not a notifier; there is no [notifiers.NAME]'),
        ('[notifiers.n]\nplugin = "plain"\nconcurrency = 0\n',
         "notifiers.n.concurrency: 0 must be at least 1 and at most 64; Messages sent at once"),
        ('[notifiers.n]\nplugin = "plain"\nretry_first = "10m"\n',
         'notifiers.n.retry_most: "5m" is shorter than retry_first'),
        ('[notifiers.n]\nplugin = "plain"\nexpiry = "0s"\n', 'notifiers.n.expiry: "0s" must be more than 0'),
        ("route = 3\n", "route: 3 is not a table; write it as a table of keys"),
        ("rules = 3\n", "rules: 3 is not a list of tables; write [[rules]]"),
        ("rules = [3]\n", "rules[0]: 3 is not a table; write it as a table of keys"),
    ],
)  # fmt: skip
def test_each_wrong_table_is_named_with_its_mend(complaints, text, said):
    assert any(line.startswith(f"sixfbd.toml: {said}") for line in complaints(text, {"T": "token"})), complaints(text)


def test_routes_are_checked_through_the_whole_tree(complaints):
    text = """
    [notifiers.log]
    plugin = "plain"
    [receivers.team]
    log = {via = "log", to = ["a", "b", "a"]}
    [route]
    matchers = ['a="b"']
    routes = [{matchers = ['a=~"("', "nonsense"], routes = [{receiver = "taem"}]}]
    """
    assert [line for line in complaints(text) if "warning" not in line] == [
        "sixfbd.toml: receivers.team.log.to[2]: is there twice; leave it out, it is to[0]",
        "sixfbd.toml: route.matchers: the first route takes everything; move the matchers into [[route.routes]]",
        "sixfbd.toml: route.receiver: is missing; known: team",
        """sixfbd.toml: route.routes[0].matchers[0]: 'a=~"("': '(' is not a regular expression of RE2: missing ): (""",
        "sixfbd.toml: route.routes[0].matchers[1]: 'nonsense' is not a matcher; "
        'write severity="critical" or team=~"web|shop"',
        'sixfbd.toml: route.routes[0].routes[0].receiver: "taem" is not a receiver; did you mean "team"?',
    ]


def test_a_syntax_error_has_line_and_column(checked):
    config, [problem] = checked('[site]\nname = "a"\nenvironment = production\n')
    assert config is None
    assert (problem.line, problem.column) == (3, 15)
    assert "sixfbd.toml: line 3, column 15: is not TOML: invalid value; text needs quotes" in str(problem)


def test_a_syntax_error_at_the_end_has_the_last_line(checked):
    _, [problem] = checked('[site]\nname = "a')
    assert (problem.line, "is not TOML" in problem.message) == (2, True)


def test_a_file_that_is_not_utf_8_is_told_with_its_line(tmp_path, catalog):
    path = tmp_path / "sixfbd.toml"
    path.write_bytes(b'[site]\nname = "caf\xe9"\n')
    _, [problem] = check_config(path, catalog)
    assert str(problem) == f"{path}: line 2: is not UTF-8; save the file as UTF-8"


def test_a_file_that_does_not_exist_is_told_with_the_command_that_writes_one(tmp_path, catalog):
    _, [problem] = check_config(tmp_path / "none.toml", catalog)
    assert str(problem) == f"{tmp_path / 'none.toml'}: does not exist; `sixfbd init` writes one"


def test_a_directory_in_place_of_the_file_is_told(tmp_path, catalog):
    _, [problem] = check_config(tmp_path, catalog)
    assert problem.message.startswith(("is not a regular file", "cannot be read"))


def test_a_fifo_in_conf_d_is_told_and_not_waited_for(tmp_path, catalog):
    (tmp_path / "sixfbd.toml").write_text("")
    (tmp_path / "conf.d").mkdir()
    os.mkfifo(tmp_path / "conf.d" / "10.toml")
    _, [problem] = check_config(tmp_path / "sixfbd.toml", catalog)
    assert str(problem) == f"{tmp_path}/conf.d/10.toml: is not a regular file"


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000 + "]" * 5000, ".".join("a" * 3000) + " = 1", "[" + ".".join("a" * 40) + "]"]
)
def test_tables_nested_without_end_are_told(checked, text):
    _, [problem] = checked(text)
    assert "nests tables or lists more than 32 deep" in problem.message


def test_a_huge_number_is_told(complaints):
    assert any(
        "window.max_series_per_check" in line for line in complaints(f"[window]\nmax_series_per_check = {10**60}")
    )
    assert complaints(f"[window]\nmax_series_per_check = {'9' * 5000}")[0].startswith("sixfbd.toml: line 2")


def test_the_file_of_conf_d_that_set_a_key_is_blamed(complaints):
    lines = complaints("[site]\nname = 'x'\n", a="[site]\nname = 5\n", b="[checks.new]\n")
    assert "conf.d/a.toml: site.name: 5 is not text; write it in quotes" in lines
    assert 'conf.d/b.toml: checks.new.plugin: is missing; write plugin = "..." (name of the check plugin)' in lines


def test_every_broken_file_is_told(complaints):
    lines = complaints("[site\n", a="b = \n")
    assert [line.split(":")[0] for line in lines] == ["sixfbd.toml", "conf.d/a.toml"]


def test_a_file_that_does_not_parse_hides_no_error_of_the_others(complaints):
    main = '[site]\nname = 5\n[checks.a]\nplugin = "smss"\n[[rules]]\nname = "Bad"\nexpr = " "\n'
    assert complaints(main, a="[notifiers.log\n", b='[log]\nlevel = "loud"\n') == [
        "conf.d/a.toml: line 1, column 15: is not TOML: expected ']' at the end of a table declaration; "
        "text needs quotes, a key needs = and a value",
        "sixfbd.toml: site.name: 5 is not text; write it in quotes",
        'conf.d/b.toml: log.level: "loud" is not one of "debug", "info", "warning", "error"',
        'sixfbd.toml: checks.a.plugin: "smss" is not a check plugin; did you mean "sms"?',
        'sixfbd.toml: rules[0] "Bad".expr: is empty; write PromQL',
        'sixfbd.toml: rules[0] "Bad".severity: is missing; write severity = "high", or levels',
    ]


def test_what_a_file_that_does_not_parse_may_bring_is_not_said_to_be_missing(complaints):
    main = """
    [checks.sms]
    account = "AC1"
    [checks.b]
    plugin = "from_another_directory"
    [receivers.primary]
    sms = {via = "chat"}
    [route]
    receiver = "team"
    """
    [broken] = complaints(main, a="[notifiers.chat\n")
    assert broken.startswith("conf.d/a.toml: line 1")


def test_a_broken_configuration_without_receivers_is_not_warned_of_them(complaints):
    assert len(complaints("[receivers\n")) == 1


def test_a_list_over_several_files_is_counted_in_each_file_by_itself(complaints):
    rule = '[[rules]]\nname = "{}"\nexpr = "up"\nseverity = "{}"\n'
    lines = complaints(
        rule.format("A", "low") + rule.format("B", "hgh"), a=rule.format("C", "low"), b=rule.format("D", "hgh")
    )
    severities = 'is not one of "low", "medium", "high", "critical"; did you mean "high"?'
    assert lines[:2] == [
        f'sixfbd.toml: rules[1] "B".severity: "hgh" {severities}',
        f'conf.d/b.toml: rules[0] "D".severity: "hgh" {severities}',
    ]


@pytest.mark.parametrize("line", ['severity = "hgh"', "severity = 5", 'severty = "high"', "levels = 3"])
def test_a_rule_with_a_wrong_severity_is_told_once(complaints, line):
    lines = complaints(f'[[rules]]\nname = "A"\nexpr = "up"\n{line}\n')
    assert len([text for text in lines if "rules[0]" in text]) == 1, lines


def test_a_required_key_that_is_misspelt_is_told_once(complaints):
    lines = complaints('[checks.sms]\nplugin = "sms"\nacount = "AC1"\n')
    assert [line for line in lines if "checks.sms" in line] == [
        'sixfbd.toml: checks.sms.acount: unknown key; did you mean "account"?'
    ]


def test_what_follows_from_a_wrong_value_is_not_told_as_well(tmp_path):
    path = tmp_path / "sixfbd.toml"
    path.write_text(
        '[checks.a]\nplugin = "webhook"\nurl = 5\n[checks.b]\nplugin = "webhook"\ntargets = "x"\nbody = 1\n'
    )
    _, problems = check_config(path, load_plugins(PluginSources()))
    assert [problem.key for problem in problems if problem.level == "error"] == [
        "checks.a.url",
        "checks.b.targets",
        "checks.b.body",
    ]


def test_a_wrong_template_over_a_default_rule_is_an_error_with_its_key(tmp_path, catalog):
    path = tmp_path / "sixfbd.toml"
    path.write_text('[[rules]]\nname = "DiskFull"\nannotations = {summary = "{{ $nothing }}"}\n')
    config, problems = check_config(path, catalog, rule_problems)
    assert config is None
    [error] = [problem for problem in problems if problem.level == "error"]
    assert error.key == 'rules[0] "DiskFull".annotations.summary'
    assert error.message.startswith("line 1, column ")


def test_many_keys_and_many_files_take_no_time_that_grows_with_their_square(tmp_path, catalog):
    (tmp_path / "conf.d").mkdir()
    path = tmp_path / "sixfbd.toml"
    text = "".join(f"k{number} = 1\n" for number in range(20_000))
    path.write_text(text)
    (tmp_path / "conf.d" / "a.toml").write_text(text)
    _, problems = check_config(path, catalog)
    assert len(problems) < 200
    assert any("and 19979 more" in problem.message for problem in problems)


def test_load_config_raises_all_problems_and_no_more(tmp_path, catalog):
    path = tmp_path / "sixfbd.toml"
    path.write_text("[site]\nname = 5\ncurrency = 6\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, catalog)
    assert [problem.key for problem in caught.value.problems if problem.level == "error"] == [
        "site.name",
        "site.currency",
    ]
    assert f"{path}: site.name: 5 is not text" in str(caught.value)


def test_no_receiver_is_a_warning_and_loads(checked):
    config, [problem] = checked("")
    assert config is not None
    assert problem.level == "warning"
    assert str(problem).endswith(
        "sixfbd.toml: warning: receivers: there is none: nobody is told of an alert; add [receivers.primary]"
    )


def test_an_address_of_the_daemon_that_its_port_has_left_is_a_warning(complaints):
    check = '[checks.{}]\nplugin = "sms"\naccount = "AC1"\nnumbers = ["http://127.0.0.1:{}/healthz"]\n'
    text = '[receivers]\n[http]\nlisten = "127.0.0.1:9700"\n' + check.format("a", 9632) + check.format("b", 9700)
    assert complaints(text)[:1] == [
        "sixfbd.toml: warning: checks.a.numbers[0]: reads 127.0.0.1:9632, where this daemon does not listen; "
        "[http] listen is 127.0.0.1:9700; change the address as well"
    ]
    assert not any("9632" in line for line in complaints(text.replace("listen = ", "#")))


def test_a_channel_that_no_severity_uses_is_a_warning(checked, minimal):
    config, problems = checked(minimal + 'smms = {via = "log"}\n')
    assert config is not None
    assert [(problem.key, problem.level, problem.hint) for problem in problems] == [
        ("receivers.primary.smms", "warning", 'did you mean "sms"?')
    ]


def test_a_plugin_that_was_left_out_is_a_warning(tmp_path, minimal, catalog):
    path = tmp_path / "sixfbd.toml"
    path.write_text(minimal)
    broken = PluginInfo(name="bad", module="m", origin="/p/bad.py", file="/p/bad.py", problem="import failed: OSError")
    with_broken = PluginCatalog(
        checks=catalog.checks, notifiers=catalog.notifiers, rules=catalog.rules, plugins=(broken,)
    )
    config, [problem] = check_config(path, with_broken)
    assert config is not None
    assert str(problem) == "/p/bad.py: warning: plugin bad: is left out: import failed: OSError"


def test_a_control_socket_with_too_long_a_path_is_refused(complaints, minimal):
    assert any(
        "control.socket: is" in line and "a Unix socket's path has at most 107 bytes" in line
        for line in complaints(minimal + f'[control]\nsocket = "{"a" * 100}"\n')
    )


def test_a_key_path_is_shown_as_one_writes_it():
    assert show_key(("rules", 0, "labels", "a.b", "c")) == 'rules[0].labels."a.b".c'


def test_a_long_value_is_shown_short():
    problem = Problem(file="f", key="k", message="is wrong", value="v")
    assert str(problem) == "f: k: v is wrong"
    assert len(show_value("x" * 1000)) < 70


def test_a_problem_of_an_unreadable_file_names_the_reason(tmp_path: Path, catalog: PluginCatalog) -> None:
    (tmp_path / "a").write_text("")
    _, problems = check_config(tmp_path / "a" / "sixfbd.toml", catalog)
    assert str(problems[-1]) == f"{tmp_path}/a/sixfbd.toml: cannot be read: Not a directory"
