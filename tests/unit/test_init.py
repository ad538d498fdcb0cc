"""What `sixfbd init` writes passes check-config, is explained key by key, and overwrites nothing."""

import os
import re
import stat
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import jsonschema
import pytest

from sixfbd.alerting.routes import Routing, compile_route
from sixfbd.config import PluginSources, check_config, effective_rules, load_config, plugin_sources
from sixfbd.host import PluginCatalog, load_plugins
from sixfbd.initial import InitError, environment_report, initial_config, write_initial
from sixfbd.model import Severity
from sixfbd.schema import config_schema
from sixfbd_plugins.checks.default_rules import SERVICES

PACKAGED = Path(__file__).parents[2] / "etc" / "sixfbd.toml"


@pytest.fixture(scope="module")
def catalog() -> PluginCatalog:
    return load_plugins(PluginSources())


def test_it_passes_check_config_without_a_warning(tmp_path, catalog):
    write_initial(tmp_path / "run", catalog)
    config, problems = check_config(tmp_path / "run" / "sixfbd.toml", catalog)
    assert problems == []
    assert config is not None
    assert {"system", "self"} == set(config.checks)
    assert config.checks["self"].options.url == "http://127.0.0.1:9632/healthz"
    assert set(config.receivers) == {"primary", "secondary", "escalation"}


def test_everything_is_inside_the_run_directory(tmp_path, catalog):
    run = tmp_path / "run"
    write_initial(run, catalog)
    config = load_config(run / "sixfbd.toml", catalog)
    for path in (config.daemon.state_directory, config.control.socket, config.daemon.plugins_d):
        assert Path(path).is_relative_to(run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_the_token_is_random_private_and_what_the_configuration_reads(tmp_path, catalog):
    tokens = []
    for name in ("a", "b"):
        write_initial(tmp_path / name, catalog)
        config = load_config(tmp_path / name / "sixfbd.toml", catalog)
        tokens.append(config.tokens["events"].secret.reveal())
        assert (tmp_path / name / "tokens" / "events").read_text() == tokens[-1] + "\n"
        assert config.tokens["events"].scopes == ("events",)
    assert tokens[0] != tokens[1]
    assert len(tokens[0]) >= 40


def test_nobody_else_can_read_what_it_writes(tmp_path, catalog):
    run = tmp_path / "run"
    written = write_initial(run, catalog)
    assert [path.name for path in written] == ["events", "sixfbd.toml"]
    for path in [run, *run.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_it_refuses_to_overwrite_and_says_so(tmp_path, catalog):
    write_initial(tmp_path, catalog)
    (tmp_path / "sixfbd.toml").write_text("# mine\n")
    with pytest.raises(
        InitError, match=r"sixfbd\.toml exists and is left as it is; `sixfbd init --force` overwrites it"
    ):
        write_initial(tmp_path, catalog)
    assert (tmp_path / "sixfbd.toml").read_text() == "# mine\n"


def test_with_keep_it_makes_only_what_is_missing(tmp_path, catalog):
    write_initial(tmp_path, catalog)
    (tmp_path / "sixfbd.toml").write_text("# mine\n")
    (tmp_path / "tokens" / "events").unlink()
    assert write_initial(tmp_path, catalog, keep=True) == [tmp_path / "tokens" / "events"]
    assert write_initial(tmp_path, catalog, keep=True) == []
    assert (tmp_path / "sixfbd.toml").read_text() == "# mine\n"


def test_with_force_the_configuration_is_new_and_the_token_kept(tmp_path, catalog):
    write_initial(tmp_path, catalog)
    token = (tmp_path / "tokens" / "events").read_text()
    (tmp_path / "sixfbd.toml").write_text("# mine\n")
    assert write_initial(tmp_path, catalog, force=True) == [tmp_path / "sixfbd.toml"]
    assert (tmp_path / "tokens" / "events").read_text() == token
    assert load_config(tmp_path / "sixfbd.toml", catalog).checks


def test_a_place_that_cannot_be_written_is_named(tmp_path, catalog):
    (tmp_path / "file").write_text("")
    with pytest.raises(InitError, match=r"file.*: cannot be written: "):
        write_initial(tmp_path / "file", catalog)


@pytest.mark.parametrize("place", ["run", "system"])
def test_every_key_has_a_line_of_explanation_before_it(catalog, place):
    lines = initial_config(place, catalog).split("\n")
    for before, line in pairwise(lines):
        if re.match(r"#?[A-Za-z_]+ = ", line) and not re.match(r"#?(log|webhook|slack|discord|email) = \{via", line):
            assert re.match(r"# .+\.$", before), line


def test_the_commented_defaults_are_the_defaults(tmp_path, catalog):
    """Every `#key = value` of a live table can be uncommented and changes nothing."""
    text = initial_config("run", catalog)
    write_initial(tmp_path, catalog)
    before = load_config(tmp_path / "sixfbd.toml", catalog)
    live = "\n\n".join(part for part in text.split("\n\n") if "# Example" not in part and "receivers" not in part)
    live = re.sub(r"(?m)^#(?=[a-z_]+ = )", "", live)
    (tmp_path / "sixfbd.toml").write_text(live + '\n[receivers.primary]\nlog = {via = "log"}\n')
    after, problems = check_config(tmp_path / "sixfbd.toml", catalog)
    assert after is not None, [str(problem) for problem in problems]
    for table in ("site", "http", "control", "window", "journal", "log", "notifiers", "daemon"):
        assert getattr(after, table) == getattr(before, table)
    assert after.checks == before.checks


def test_the_commented_examples_are_valid(tmp_path, catalog):
    write_initial(tmp_path, catalog)
    path = tmp_path / "sixfbd.toml"
    parts = path.read_text().split("\n\n")
    path.write_text("\n\n".join(re.sub(r"(?m)^#(?! )", "", part) if "# Example" in part else part for part in parts))
    hook = "https://example.com/hook\n"
    secrets = {
        "webhook-url": hook,
        "discord-alerts": "https://discord.com/api/webhooks/1/key\n",
        "slack": "xoxb-1-a\n",
        "payments-key": "rk_test_0123456789\n",
        "smtp": "password\n",
        "heartbeat-url": "https://switch.example.com/ping/1\n",
        "shop-webhooks": f"whsec_{'A' * 32}\n",
    }
    for name, secret in secrets.items():
        (tmp_path / "tokens" / name).write_text(secret)
        (tmp_path / "tokens" / name).chmod(0o600)
    config, problems = check_config(path, catalog)
    assert config is not None, [str(problem) for problem in problems]
    assert {"shop", "own-metrics", "payments"} < set(config.checks)
    assert {"log", "webhook", "email", "slack", "discord"} == set(config.notifiers)
    rules, _ = effective_rules(config, catalog.rules)
    assert next(rule for rule in rules if rule.name == "CheckStale").severity == "medium"


@pytest.mark.parametrize("place", ["run", "system"])
def test_it_is_valid_by_the_schema(catalog, place):
    schema = config_schema(catalog)
    jsonschema.Draft202012Validator(schema).validate(tomllib.loads(initial_config(place, catalog)))


def test_the_packaged_default_is_what_init_writes_for_the_system(catalog):
    assert PACKAGED.read_text() == initial_config("system", catalog), (
        "write it anew: python -m sixfbd.initial > etc/sixfbd.toml"
    )


def test_the_packaged_default_passes_check_config(catalog):
    config, problems = check_config(PACKAGED, catalog)
    assert problems == []
    assert config is not None
    assert config.daemon.state_directory == "/var/lib/sixfbd"
    assert config.control.socket == "/run/sixfbd/control.sock"


def test_the_plugins_that_it_looks_for_are_those_of_its_own_directory(tmp_path, catalog):
    write_initial(tmp_path, catalog)
    assert plugin_sources(tmp_path / "sixfbd.toml").files_in == tmp_path / "plugins.d"


# ---- accounts of the environment ---------------------------------------------------------------------------------------

ACCOUNTS = {
    "TWILIO_ACCOUNT_SID": "AC" + "0123456789abcdef" * 2,
    "TWILIO_AUTH_TOKEN": "twilio-token-that-nobody-may-see",
    "TWILIO_PHONE_NUMBER": "+1-352-555-0100",
    "STRIPE_SECRET_KEY": "rk_test_thatNobodyMaySee",
    "SENDGRID_API_KEY": "SG.that-nobody.may-see",
    "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T0/B0/secret1",
    "SLACK_INVENTORY_WEBHOOK": "https://hooks.slack.com/services/T0/B0/secret2",
    "DISCORD_WEBHOOK_URL": "https://discord.com/api/webhooks/1/secret3",
}


def accounts(tmp_path, catalog, environ):
    """Write a configuration; return it as loaded, its problems, its second file and what is said of it."""
    write_initial(tmp_path / "run", catalog, environ=environ)
    path = tmp_path / "run" / "sixfbd.toml"
    config, problems = check_config(path, catalog, environ=environ)
    text = (tmp_path / "run" / "conf.d" / "50-environment.toml").read_text()
    return config, problems, text, environment_report(catalog, environ)


def test_every_account_of_the_environment_is_used_by_reference(tmp_path, catalog):
    config, problems, text, said = accounts(tmp_path, catalog, ACCOUNTS)
    assert problems == []
    assert set(config.checks) == {"system", "self", "sms", "payments"}
    assert set(config.notifiers) == {"log", "twilio", "slack", "discord"}
    assert config.checks["sms"].options.notifier == "twilio"
    assert set(config.receivers["primary"]) == {"log", "slack", "discord"}
    assert set(config.notifiers["slack"].options.webhooks) == {"#alerts", "#inventory-alerts"}
    assert said[0] == f"found {', '.join(sorted(ACCOUNTS, key=said[0].index))}"
    assert [line for line in said if line.startswith("missing")] == []
    for value in ACCOUNTS.values():
        assert value not in text + "".join(said)


def test_alerts_of_the_stock_go_to_their_channel_too_and_others_as_without_a_route(tmp_path, catalog):
    config, *_ = accounts(tmp_path, catalog, ACCOUNTS)
    routing = Routing(compile_route(config.route), config.receivers, config.severities)

    def told(severity, **labels):
        return {
            (one.target.receiver, one.target.address)
            for one in routing.targets(labels, severity, 0.0)
            if one.target.notifier == "slack"
        }

    assert told(Severity.HIGH, service="inventory") == {("primary", "#alerts"), ("inventory", "#inventory-alerts")}
    assert told(Severity.HIGH, service="sms") == {("primary", "#alerts")}
    receivers = {one.target.receiver for one in routing.targets({"service": "sms"}, Severity.CRITICAL, 0.0)}
    assert receivers == {"primary"}  # no channel of secondary's is configured that a critical alert goes by


@pytest.mark.parametrize("service", [*SERVICES, "daemon"])
def test_any_service_may_have_a_channel_of_its_own(tmp_path, catalog, service):
    write_initial(tmp_path, catalog)
    path = tmp_path / "sixfbd.toml"
    channel = f"""
[notifiers.slack]
plugin = "slack"
token = {{ env = "SLACK" }}
[receivers.one]
slack = {{ via = "slack", to = ["#{service}-alerts"] }}
[[route.routes]]
receiver = "one"
matchers = ['service="{service}"']
"""
    (path.parent / "conf.d").mkdir(exist_ok=True)
    (path.parent / "conf.d" / "60-channel.toml").write_text(channel)
    config, problems = check_config(path, catalog, environ={"SLACK": "xoxb-1-a"})
    assert problems == []
    routing = Routing(compile_route(config.route), config.receivers, config.severities)
    told = {
        word: {one.target.address for one in routing.targets({"service": word}, Severity.HIGH, 0.0)}
        for word in (*SERVICES, "daemon")
    }
    assert [word for word, addresses in told.items() if f"#{service}-alerts" in addresses] == [service]


def test_without_any_account_it_is_the_usual_configuration_and_all_that_is_missed_is_said(tmp_path, catalog):
    config, problems, text, said = accounts(tmp_path, catalog, {"TWILIO_AUTH_TOKEN": ""})
    assert problems == []
    assert tomllib.loads(text) == {}
    assert set(config.checks) == {"system", "self"}
    assert "missing STRIPE_SECRET_KEY: payments are not watched" in said
    twilio = "missing TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN, TWILIO_PHONE_NUMBER: "
    assert [line for line in said if line.startswith(twilio)] == [f"{twilio}nobody is told by SMS, SMS are not watched"]


def test_half_an_account_is_not_used_and_the_missing_half_is_named(tmp_path, catalog):
    environ = {name: ACCOUNTS[name] for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN")}
    config, _, _, said = accounts(tmp_path, catalog, environ)
    assert "sms" not in config.checks
    assert "missing TWILIO_PHONE_NUMBER: nobody is told by SMS, SMS are not watched" in said


def test_what_nobody_can_know_is_there_to_be_completed(tmp_path, catalog):
    _, _, text, said = accounts(tmp_path, catalog, ACCOUNTS)
    assert "to be completed" in said[-1]
    head, _, rest = text.partition("# To be completed")
    whole = head + "\n".join(line.removeprefix("#") for line in rest.splitlines()[1:])
    (tmp_path / "run" / "conf.d" / "50-environment.toml").write_text(whole)
    config, problems = check_config(tmp_path / "run" / "sixfbd.toml", catalog, environ=ACCOUNTS)
    assert problems == []
    assert config.notifiers["email"].options.api_key.source == "env SENDGRID_API_KEY"
    assert set(config.receivers["primary"]) == {"log", "slack", "discord", "sms", "email"}


def test_the_command_says_what_it_found_and_what_is_missing_and_shows_no_value(tmp_path):
    environ = {"PATH": os.environ["PATH"], "STRIPE_SECRET_KEY": ACCOUNTS["STRIPE_SECRET_KEY"]}
    command = [Path(sys.executable).with_name("sixfbd"), "init", "--from-env", tmp_path / "run"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120, check=True)
    assert "found STRIPE_SECRET_KEY" in done.stdout
    assert "missing SENDGRID_API_KEY: nobody is told by e-mail" in done.stdout
    assert ACCOUNTS["STRIPE_SECRET_KEY"] not in done.stdout + done.stderr
    assert (tmp_path / "run" / "conf.d" / "50-environment.toml").exists()
