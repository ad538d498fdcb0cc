"""What a configuration becomes: merged in order, defaults filled in, paths absolute, plugin options typed."""

from pathlib import Path

import pytest

from sixfbd.config import (
    DEFAULT_SEVERITIES,
    Channel,
    RouteTable,
    is_loopback,
    parse_listen,
    plugin_sources,
)
from sixfbd.config.convert import fields_of
from sixfbd.config.tables import TABLES
from sixfbd.config.tables import Channel as ChannelTable
from sixfbd.model import Severity
from sixfbd.quantities import Duration, Size


def test_an_empty_file_gives_every_default(config_of):
    config = config_of("")
    assert config.http.listen == "127.0.0.1:9632"
    assert config.severities == dict(DEFAULT_SEVERITIES)
    assert config.route == RouteTable()


def test_files_of_conf_d_are_merged_in_the_order_of_their_names(config_of):
    config = config_of(
        '[site]\nname = "main"\ncurrency = "EUR"\n[site.external_labels]\na = "1"\n',
        b='[site]\nname = "b"\n[site.external_labels]\nb = "2"\n',
        a='[site]\nname = "a"\n',
    )
    assert (config.site.name, config.site.currency) == ("b", "EUR")
    assert config.site.external_labels == {"a": "1", "b": "2"}


def test_arrays_of_tables_append_and_other_arrays_are_replaced(config_of):
    first = '[[rules]]\nname = "A"\nexpr = "1"\nseverity = "low"\n[http]\nhosts = ["a.example.com"]\n'
    second = '[[rules]]\nname = "B"\nexpr = "2"\nseverity = "low"\n[http]\nhosts = ["b.example.com"]\n'
    config = config_of(first, x=second)
    assert [rule.name for rule in config.rules] == ["A", "B"]
    assert config.http.hosts == ("b.example.com",)
    assert [file.rpartition("/")[2] for file, _ in config.rule_places] == ["sixfbd.toml", "x.toml"]
    assert [key for _, key in config.rule_places] == ['rules[0] "A"', 'rules[0] "B"']


def test_the_hash_covers_every_file(config_of):
    hashes = [config_of("").text_hash, config_of("# a").text_hash, config_of("# a", x="").text_hash]
    assert len(set(hashes)) == 3
    assert config_of("# a", x="").text_hash == hashes[2]


def test_a_check_has_the_plugins_defaults_and_typed_options(config_of, minimal, tmp_path):
    check = config_of(minimal).checks["sms"]
    assert (check.plugin, check.interval, check.timeout, check.enabled) == ("sms", Duration(300), Duration(20), True)
    assert (check.options.account, check.options.page) == ("AC1", Size(1024))
    assert check.where == str(tmp_path / "sixfbd.toml")


def test_the_engines_keys_and_the_plugins_keys_are_told_apart(config_of, minimal):
    extra = (
        '[checks.other]\nplugin = "sms"\naccount = "AC2"\ninterval = "10m"\nservice = "sms"\nnumbers = ["555-0100"]\n'
    )
    check = config_of(minimal + extra).checks["other"]
    assert (check.interval, check.service, check.options.numbers) == (600, "sms", ("555-0100",))


def test_a_short_interval_needs_no_timeout_beside_it(config_of):
    check = config_of('[checks.a]\nplugin = "sms"\naccount = "AC1"\ninterval = "5s"\n').checks["a"]
    assert (check.interval, check.timeout) == (5, 5)


def test_a_notifier_has_the_plugins_defaults(config_of, minimal):
    notifier = config_of(minimal).notifiers["log"]
    assert (notifier.timeout, notifier.concurrency, notifier.expiry) == (7, 3, 86400)


def test_relative_paths_are_relative_to_the_file(config_of, tmp_path):
    text = '[daemon]\nstate_directory = "state"\nplugins_d = "../p"\nplugin_directories = ["x", "/y"]\n'
    config = config_of(text + '[control]\nsocket = "c.sock"\n')
    assert config.daemon.state_directory == str(tmp_path / "state")
    assert config.daemon.plugins_d == str(tmp_path.parent / "p")
    assert config.daemon.plugin_directories == (str(tmp_path / "x"), "/y")
    assert config.control.socket == str(tmp_path / "c.sock")


def test_without_a_route_critical_goes_to_secondary_as_well(config_of, minimal):
    config = config_of(minimal + '[receivers.secondary]\nlog = {via = "log"}\n')
    assert config.route.receiver == "primary"
    assert config.route.routes == (
        RouteTable(receiver="secondary", matchers=('severity="critical"',), continue_=True),
        RouteTable(),
    )


def test_without_a_secondary_everything_goes_to_primary(config_of, minimal):
    assert config_of(minimal).route == RouteTable(receiver="primary")


def test_a_route_of_ones_own_takes_primary_where_it_names_nobody(config_of, minimal):
    text = minimal + "[route]\nroutes = [{matchers = ['a=\"b\"'], continue = true}]\n"
    route = config_of(text).route
    assert (route.receiver, route.routes[0].continue_) == ("primary", True)


def test_receivers_without_a_primary_need_a_route(complaints):
    text = '[notifiers.log]\nplugin = "plain"\n[receivers.team]\nlog = {via = "log"}\n'
    assert 'sixfbd.toml: route.receiver: "primary" is not a receiver; known: team' in complaints(text)


def test_a_receivers_channels_have_addresses(config_of, minimal):
    config = config_of(minimal + 'sms = {via = "log", to = ["+1-555-0100", "+1-555-0101"]}\n')
    assert config.receivers["primary"] == {
        "log": Channel(via="log"),
        "sms": Channel(via="log", to=("+1-555-0100", "+1-555-0101")),
    }


def test_a_severity_keeps_what_its_table_does_not_say(config_of):
    config = config_of('[severities.high]\nicon = "!"\n')
    high = config.severities[Severity.HIGH]
    assert (high.icon, high.color, high.channels) == ("!", "#E74A3B", DEFAULT_SEVERITIES[Severity.HIGH].channels)


def test_only_loud_severities_use_sms():
    with_sms = {severity for severity, table in DEFAULT_SEVERITIES.items() if "sms" in table.channels}
    assert with_sms == {Severity.HIGH, Severity.CRITICAL}


def test_an_outside_address_can_be_had_on_purpose(config_of):
    assert config_of('[http]\nlisten = "0.0.0.0:80"\ninsecure_bind = true\n').http.insecure_bind


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("127.9.0.1:80", "127.9.0.1", 80, True),
        ("[::1]:9632", "::1", 9632, True),
        ("localhost:1", "localhost", 1, True),
        ("10.0.0.1:65535", "10.0.0.1", 65535, False),
        ("monitor.example.com:80", "monitor.example.com", 80, False),
        ("[::]:80", "::", 80, False),
    ],
)
def test_an_address_is_read_and_known_as_loopback_or_not(text, host, port, loopback):
    assert parse_listen(text) == (host, port)
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    "text", ["", ":80", "127.0.0.1", "127.0.0.1:", "[::g]:1", "::1:80", "a b:80", "-a:80", "127.0.0.1:99999"]
)
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"write \"127\.0\.0\.1:9632\""):
        parse_listen(text)


def test_plugin_sources_are_read_from_a_configuration_that_has_errors(tmp_path):
    path = tmp_path / "sixfbd.toml"
    path.write_text(
        '[site]\nname = "x"\nbad = 1\n[daemon]\nplugins_d = "mine"\nplugin_directories = ["a", 5]\n[checks.c]\n[notifiers]\n'
    )
    sources = plugin_sources(path)
    assert sources.files_in == tmp_path / "mine"
    assert sources.directories == (tmp_path / "a",)
    assert (sources.config.site, sources.config.checks, sources.config.notifiers) == ("x", ("c",), ())


def test_plugin_sources_of_no_file_are_the_defaults(tmp_path):
    sources = plugin_sources(tmp_path / "none.toml")
    assert sources.files_in == tmp_path / "plugins.d"
    assert sources.directories == (Path("/usr/local/lib/sixfbd/plugins"),)


def test_every_key_of_every_table_has_a_description():
    for struct in [*(table.struct for table in TABLES), ChannelTable]:
        for field in fields_of(struct):
            assert field.shape.description, f"{struct.__name__}.{field.key}"
