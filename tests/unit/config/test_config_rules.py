"""The rules in force: defaults, changed by name, dropped, added to."""

import pytest

from sixfbd.config import Config, RuleProblem, effective_rules
from sixfbd.model import Level, Rule, RuleName, Severity

DISK = Rule(
    name=RuleName("DiskFull"),
    expr="disk_used_ratio > 0.9",
    for_s=300,
    severity=Severity.HIGH,
    labels={"service": "system"},
    annotations={"summary": "full"},
    origin="plugin system",
)


def rules_of(config: Config, *defaults: Rule) -> dict[str, Rule]:
    rules, problems = effective_rules(config, defaults)
    assert not problems
    return {rule.name: rule for rule in rules}


def test_without_tables_the_defaults_are_in_force(config_of):
    assert rules_of(config_of(""), DISK) == {"DiskFull": DISK}


def test_a_table_of_a_defaults_name_changes_single_keys(config_of, tmp_path):
    text = '[[rules]]\nname = "DiskFull"\nfor = "0s"\nlabels = {team = "shop"}\nannotations = {summary = "no space"}\n'
    rule = rules_of(config_of(text), DISK)["DiskFull"]
    assert (rule.expr, rule.for_s, rule.severity) == (DISK.expr, 0.0, Severity.HIGH)
    assert rule.labels == {"service": "system", "team": "shop"}
    assert rule.annotations == {"summary": "no space"}
    assert rule.origin == str(tmp_path / "sixfbd.toml")


def test_levels_take_the_place_of_a_severity_and_the_other_way_round(config_of):
    text = '[[rules]]\nname = "DiskFull"\nlevels = [{severity = "low", when = "> 0.8", clear = "< 0.7"}]\n'
    levelled = rules_of(config_of(text), DISK)["DiskFull"]
    assert (levelled.severity, levelled.levels) == (None, (Level(Severity.LOW, "> 0.8", "< 0.7"),))
    back = rules_of(config_of('[[rules]]\nname = "DiskFull"\nseverity = "low"\n'), levelled)["DiskFull"]
    assert (back.severity, back.levels) == (Severity.LOW, ())


def test_a_default_can_be_dropped(config_of):
    assert rules_of(config_of('[[rules]]\nname = "DiskFull"\nenabled = false\n'), DISK) == {}


def test_a_rule_of_ones_own_is_added(config_of):
    text = """
    [daemon]
    evaluation_interval = "30s"
    [[rules]]
    name = "Mine"
    expr = "up == 0"
    severity = "critical"
    for = "1m"
    keep_firing_for = "5m"
    evaluate = "interval"
    """
    rule = rules_of(config_of(text))["Mine"]
    assert (rule.expr, rule.severity, rule.for_s, rule.keep_firing_for_s) == ("up == 0", Severity.CRITICAL, 60, 300)
    assert (rule.evaluate, rule.interval_s) == ("interval", 30)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('name = "DiskFul"',
         'rules[0] "DiskFul".expr: is missing, and no default rule is called "DiskFul"; did you mean "DiskFull"?'),
        ('name = "Mine"\nexpr = "1"', 'rules[0] "Mine".severity: is missing; write severity = "high", or levels'),
        ('name = "Mine"\nexpr = " "\nseverity = "low"', 'rules[0] "Mine".expr: is empty; write PromQL'),
        ('name = ""\nexpr = "1"\nseverity = "low"', 'rules[0].name: "" must be at least 1 character long; '
         "Name of the rule; a default rule's name changes that one"),
        ('expr = "1"', 'rules[0].name: is missing; write name = "..." (name of the rule; a default rule\'s name changes that one)'),
        ('name = "DiskFull"\nseverity = "hi"',
         'rules[0] "DiskFull".severity: "hi" is not one of "low", "medium", "high", "critical"; did you mean "high"?'),
        ('name = "DiskFull"\nseverity = "low"\nlevels = [{severity = "low", when = "> 1"}]',
         'rules[0] "DiskFull".levels: a rule has a severity or levels, not both; remove one of them'),
        ('name = "DiskFull"\nlevels = [{severity = "low", when = "5"}]',
         'rules[0] "DiskFull".levels[0].when: \'5\' is not a comparison with a number; write "<= 5"'),
        ('name = "DiskFull"\nlevels = [{severity = "low", when = "> 5", claer = "< 4"}]',
         'rules[0] "DiskFull".levels[0].claer: unknown key; did you mean "clear"?'),
        ('name = "DiskFull"\nlevels = []', 'rules[0] "DiskFull".levels: is empty; at least 1 must be there'),
        ('name = "DiskFull"\nlabels = {"a-b" = "c"}',
         'rules[0] "DiskFull".labels: "a-b" is not a name; letters, digits and _, no digit first'),
        ('name = "DiskFull"\nlabels = {severity = "c"}',
         'rules[0] "DiskFull".labels.severity: is set by the engine; for the severity, write severity = ...'),
        ('name = "DiskFull"\nevaluate = "always"', 'rules[0] "DiskFull".evaluate: "always" is not one of "change", "interval"'),
        ('name = "DiskFull"\nfro = "5m"', 'rules[0] "DiskFull".fro: unknown key; did you mean "for"?'),
        ('name = "DiskFull"\n[[rules]]\nname = "DiskFull"',
         'rules[1] "DiskFull".name: "DiskFull" is the name of an earlier rule; names are unique'),
    ],
)  # fmt: skip
def test_each_wrong_rule_is_named_with_its_mend(complaints, table, said):
    assert f"sixfbd.toml: {said}" in complaints(f"[[rules]]\n{table}\n")


def test_dropping_a_rule_that_does_not_exist_is_a_warning(checked):
    config, problems = checked('[[rules]]\nname = "DiskFul"\nenabled = false\n')
    assert config is not None
    assert [(problem.key, problem.level, problem.hint) for problem in problems if problem.key.startswith("rules")] == [
        ('rules[0] "DiskFul".name', "warning", 'did you mean "DiskFull"?')
    ]


def test_what_compiling_finds_in_a_rule_of_ones_own_is_an_error_with_its_key(checked, tmp_path):
    def compile_rules(rules):
        assert "CheckStale" in {rule.name for rule in rules}
        return [RuleProblem("Mine", "1:5: unexpected end\nup ==\n    ^")]

    text = '[[rules]]\nname = "Mine"\nexpr = "up =="\nseverity = "low"\n'
    config, problems = checked(text, compile_rules=compile_rules)
    assert config is None
    assert str(problems[-1]) == f'{tmp_path}/sixfbd.toml: rules[0] "Mine".expr: 1:5: unexpected end\nup ==\n    ^'


def test_what_compiling_finds_in_a_plugins_rule_is_a_warning(checked):
    config, problems = checked("", compile_rules=lambda rules: [RuleProblem("DiskFull", "1:1: no")])
    assert config is not None
    assert str(problems[-1]) == "plugin system: warning: rule DiskFull: 1:1: no"
