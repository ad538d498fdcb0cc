"""`[http.public]`, `[inbound.NAME]` and `[daemon] sandbox`: what they take, and what is refused of them."""

from pathlib import Path

import pytest

from sixfbd.config import plugin_sources
from sixfbd.host import InboundEntry
from sixfbd.kept_out import Note, inbound_stand_ins

PUBLIC = '[http.public]\nurl = "https://hooks.example.com"\n'
INBOUND = '[inbound.shop]\nkind = "hook"\nsecrets = [{env = "NEW"}, {env = "OLD"}]\n'
SECRETS = {"NEW": "n", "OLD": "o"}


def test_an_inbound_has_its_kind_and_several_secrets_the_newest_first(config_of, minimal):
    config = config_of(minimal + PUBLIC + INBOUND, SECRETS)
    shop = config.inbound["shop"]
    assert (shop.kind, shop.enabled) == ("hook", True)
    assert [secret.reveal() for secret in shop.options.secrets] == ["n", "o"]


def test_the_public_port_has_defaults_of_its_own(config_of, minimal):
    public = config_of(minimal + PUBLIC).http.public
    assert (public.listen, public.max_body, public.max_rate) == ("127.0.0.1:9633", 1024 * 1024, 100)
    assert (public.body_timeout, public.request_timeout) == (5, 8)
    assert config_of(minimal).http.public is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (INBOUND, "inbound.shop: cannot be reached; add [http.public] with its url"),
        (PUBLIC + '[inbound.shop]\nkind = "hok"\n',
         'inbound.shop.kind: "hok" is not a kind of inbound webhooks; did you mean "hook"?'),
        (PUBLIC + '[inbound.shop]\nkind = "hook"\n', "inbound.shop.secrets: is missing"),
        (PUBLIC + '[inbound.shop]\nkind = "hook"\nsecrets = []\n',
         "inbound.shop.secrets: is empty; at least 1 must be there"),
        (PUBLIC + '[inbound."a/b"]\nkind = "hook"\nsecrets = [{env = "NEW"}]\n', 'inbound."a/b": is not a name'),
        (PUBLIC + INBOUND + 'package = "no_such_package"\n',
         "inbound.shop.package: needs the package no_such_package, which is not installed; "
         "pip install 'sixfbd[pigeons]'"),
        ("[http.public]\n", "http.public.url: is missing"),
        ('[http.public]\nurl = "hooks.example.com"\n',
         'http.public.url: "hooks.example.com" is not an address without a query; write "https://hooks.example.com"'),
        ('[http.public]\nurl = "https://a.example/?b=c"\n', "http.public.url: "),
        ('[http.public]\nurl = "https://u:p@a.example"\n', "http.public.url: "),
        ('[http.public]\nurl = "https://a.example:x"\n', "http.public.url: "),
        (PUBLIC + 'listen = "0.0.0.0:443"\n',
         'http.public.listen: "0.0.0.0:443" can be reached from outside, without TLS; set cert_file and key_file, '),
        (PUBLIC + 'listen = "127.0.0.1:9632"\n',
         'http.public.listen: "127.0.0.1:9632" is where [http] listens; choose another port'),
        (PUBLIC + 'listen = "9633"\n', 'http.public.listen: "9633" is not an address and a port'),
        (PUBLIC + 'cert_file = "sixfbd.toml"\n', "http.public.key_file: is missing; cert_file is set; TLS needs both"),
        (PUBLIC + 'cert_file = "sixfbd.toml"\nkey_file = "sixfbd.toml"\n',
         "http.public.cert_file: "),
        (PUBLIC + "max_rate = 0\n", "http.public.max_rate: 0 must be at least 1"),
        (PUBLIC + 'max_body = "0B"\n', 'http.public.max_body: "0B" must be more than 0'),
    ],
)  # fmt: skip
def test_each_wrong_key_is_named_with_its_mend(complaints, minimal, text, said):
    found = complaints(minimal + text, SECRETS)
    assert any(line.startswith(f"sixfbd.toml: {said}") for line in found), found


@pytest.mark.parametrize("url", ["http://127.0.0.1:9633", "http://[::1]:9633/", "https://a.example/shop/"])
def test_a_public_url_may_have_a_port_and_a_path_and_be_an_address(config_of, minimal, url):
    assert config_of(minimal + PUBLIC.replace("https://hooks.example.com", url)).http.public.url == url


def test_a_port_open_to_the_outside_may_be_meant_so(config_of, minimal):
    public = config_of(minimal + PUBLIC + 'listen = "0.0.0.0:8080"\ninsecure_bind = true\n').http.public
    assert public.listen == "0.0.0.0:8080"


DOUBLE = '[notifiers.log]\nplugin = "plain"\nurl = "http://127.0.0.1:9700"'


def test_an_address_that_is_not_the_providers_is_refused_outside_the_sandbox(complaints, config_of, minimal):
    text = minimal.replace('[notifiers.log]\nplugin = "plain"', DOUBLE)
    assert text != minimal
    [said] = complaints(text)
    assert said == (
        'sixfbd.toml: notifiers.log.url: "http://127.0.0.1:9700" is not the provider\'s address; leave it out (it is '
        '"https://api.example.com"), or set sandbox = true in [daemon] if no real provider is meant'
    )
    config = config_of(text + "[daemon]\nsandbox = true\n")
    assert config.notifiers["log"].options.url == "http://127.0.0.1:9700"


def test_secret_addresses_that_are_not_the_providers_are_refused_by_name_and_not_shown(complaints, config_of, minimal):
    doors = {"DOOR_A": "https://b.example.com/key1", "DOOR_B": "https://b.example.com.evil.test/key2"}
    text = minimal.replace('plugin = "plain"', 'plugin = "plain"\ndoors = {a = {env = "DOOR_A"}, b = {env = "DOOR_B"}}')
    assert complaints(text, doors) == [
        'sixfbd.toml: notifiers.log.doors.b: is not the provider\'s address; it begins with "https://a.example.com/"; '
        "or set sandbox = true in [daemon] if no real provider is meant"
    ]
    assert len(config_of(text + "[daemon]\nsandbox = true\n", doors).notifiers["log"].options.doors) == 2


def test_the_providers_own_address_may_be_written_out(config_of, minimal):
    own = minimal.replace(
        '[notifiers.log]\nplugin = "plain"', DOUBLE.replace("http://127.0.0.1:9700", "https://api.example.com/")
    )
    assert config_of(own).notifiers["log"].options.url == "https://api.example.com/"


def test_hooks_are_told_the_names_of_inbounds_and_whether_it_is_a_sandbox(tmp_path: Path):
    path = tmp_path / "sixfbd.toml"
    path.write_text("[daemon]\nsandbox = true\n" + PUBLIC + INBOUND)
    sources = plugin_sources(path)
    assert (sources.config.inbound, sources.config.sandbox, sources.inbound) == (("shop",), True, ("hook",))


def test_a_plugin_that_is_kept_out_leaves_its_inbounds_valid(config_of, catalog, minimal):
    note = Note(plugin="fixture", at=0.0, blocked_s=20.0)
    [(kind, stand_in)] = inbound_stand_ins(note, {"hook": None})
    catalog.inbound[kind] = InboundEntry(kind, stand_in, "fixture", kept_out=True)
    assert config_of(minimal + PUBLIC + INBOUND).inbound["shop"].kind == "hook"
