"""What our plugins say of their options: every fault at once, each under the option's own key."""

from pathlib import Path

import msgspec
import pytest

from sixfbd.config import check_config, plugin_sources
from sixfbd.host import load_plugins
from sixfbd.plugin import InvalidOptions, OptionFaults
from sixfbd.rules.problems import rule_problems


def complaints_of(path: Path, text: str) -> list[str]:
    file = path / "sixfbd.toml"
    file.write_text(text)
    _, problems = check_config(file, load_plugins(plugin_sources(file)), rule_problems)
    return [f"{problem.key}: {problem.message}" for problem in problems if problem.level == "error"]


def test_every_fault_of_a_plugins_options_is_named_under_its_key(tmp_path: Path) -> None:
    text = """
[receivers]
[checks.a]
plugin = "webhook"
url = "ftp://y"
expected_status = ["2xz", "900"]
body_must_match = ["("]
[checks.b]
plugin = "scrape"
targets = ["nohost"]
labels = {check = "x"}
[notifiers.w]
plugin = "webhook"
url = "nohost"
"""
    keys = [complaint.split(": ")[0] for complaint in complaints_of(tmp_path, text)]
    assert keys == [
        "checks.a.url",
        "checks.a.expected_status",
        "checks.a.expected_status",
        "checks.a.body_must_match",
        "checks.b.targets",
        "checks.b.labels",
        "notifiers.w.url",
    ]


def test_files_of_options_are_looked_for_beside_the_configuration_and_named(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("this is no certificate\n")
    (tmp_path / "folder.pem").mkdir()
    check = '[checks.{}]\nplugin = "webhook"\nurl = "https://127.0.0.1/"\ntls = {{{}}}\n'
    text = "".join(
        (
            "[receivers]\n",
            check.format("a", 'ca_file = "/nope/ca.pem"'),
            check.format("b", 'ca_file = "text.pem"'),
            check.format("c", 'cert_file = "none.pem", key_file = "folder.pem"'),
            check.format("d", 'key_file = "text.pem"'),
            check.format("e", 'cert_file = "text.pem"'),
            check.format("f", "ca_file = 5"),
        )
    )
    (tmp_path / "sixfbd.toml").write_text(text)
    _, problems = check_config(tmp_path / "sixfbd.toml", load_plugins(plugin_sources(tmp_path / "sixfbd.toml")))
    assert [str(problem).removeprefix(f"{tmp_path}/sixfbd.toml: ") for problem in problems[:-1]] == [
        'checks.a.tls.ca_file: "/nope/ca.pem" does not exist; a file that sixfbd may read is needed, here /nope/ca.pem',
        f"checks.b.tls.ca_file: {tmp_path}/text.pem: no certificate or crl found; a PEM file of certificates is needed",
        'checks.c.tls.cert_file: "none.pem" does not exist; '
        f"a file that sixfbd may read is needed, here {tmp_path}/none.pem",
        'checks.c.tls.key_file: "folder.pem" cannot be read: Is a directory; '
        f"a file that sixfbd may read is needed, here {tmp_path}/folder.pem",
        "checks.d.tls.key_file: needs cert_file; add the certificate of this key",
        f"checks.e.tls.cert_file: {tmp_path}/text.pem: not pem; PEM files of a certificate and its key are needed",
        "checks.f.tls.ca_file: 5 is not the path of a file; write it in quotes",
    ]


def test_an_expression_is_compiled_though_its_rule_has_another_error(tmp_path: Path) -> None:
    text = '[receivers]\n[[rules]]\nname = "Bad"\nexpr = "sum("\nseverity = "high"\nlabels = {"1x" = "y"}\n'
    found = complaints_of(tmp_path, text)
    assert any('rules[0] "Bad".expr' in complaint and "line 1" in complaint for complaint in found), found
    assert any("1x" in complaint for complaint in found), found


def test_of_two_rules_with_one_name_each_gets_its_own_error(tmp_path: Path) -> None:
    rule = '[[rules]]\nname = "Twice"\nexpr = "{}"\nseverity = "high"\n'
    found = complaints_of(tmp_path, "[receivers]\n" + rule.format("up ===") + rule.format("up"))
    assert [complaint.split(": ")[0] for complaint in found] == ['rules[1] "Twice".name', 'rules[0] "Twice".expr']


def test_a_notifier_says_which_addresses_can_be_none_of_its_own(minimal, complaints):
    assert complaints(f'{minimal}[receivers.secondary]\nlog = {{via = "log", to = ["paula", "!1", "bomb"]}}\n') == [
        "sixfbd.toml: receivers.secondary.log.to[1]: is no pigeon at https://api.example.com; write its name",
        "sixfbd.toml: receivers.secondary.log.to[2]: no address: RuntimeError: bomb",
    ]


def test_a_plugin_fills_in_what_follows_from_the_rest_of_the_configuration(minimal, config_of):
    assert config_of(minimal).notifiers["log"].options.hook == ""
    hook = '[inbound.{}]\nkind = "hook"\nsecrets = [{{env = "S"}}]\n'
    public = '[http.public]\nurl = "https://hooks.example.com"\n'
    config = config_of(minimal + public + hook.format("a") + hook.format("b"), {"S": "s"})
    told = "https://hooks.example.com/webhooks/a, https://hooks.example.com/webhooks/b"
    assert config.notifiers["log"].options.hook == told


def test_options_that_do_not_fit_to_the_rest_are_refused_and_a_plugin_that_breaks_is_named(minimal, complaints):
    text = minimal + "".join(
        f'[notifiers.{name}]\nplugin = "plain"\nhook = "{name}"\n' for name in ("x", "bomb", "nothing")
    )
    assert complaints(text) == [
        "sixfbd.toml: notifiers.x.hook: nobody listens there; add an inbound",
        "sixfbd.toml: notifiers.bomb: is refused by the plugin: RuntimeError: bomb",
        "sixfbd.toml: notifiers.nothing: is refused by the plugin: complete() returned NoneType, no options",
    ]


def test_option_faults_lets_other_errors_pass() -> None:
    class Options(msgspec.Struct):
        def __post_init__(self) -> None:
            with OptionFaults() as faults, faults.at("a"):
                raise TypeError("not a fault of the options")

    with pytest.raises(TypeError):
        Options()
    with pytest.raises(InvalidOptions, match="a: bad"), OptionFaults() as faults, faults.at("a"):
        raise ValueError("bad")
