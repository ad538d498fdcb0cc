"""The JSON Schema takes what the configuration takes and refuses what it refuses, as far as forms go."""

import json
import tomllib

import jsonschema
import pytest

from sixfbd.config.convert import fields_of
from sixfbd.config.tables import CheckKeys
from sixfbd.host import PluginCatalog
from sixfbd.quantities import Duration, Secret, Size
from sixfbd.schema import DIALECT, config_schema, describe_options, encode_schema, toml_value

GOOD = """
[site]
name = "x"
[tokens.t]
secret = {env = "T"}
[checks.a]
plugin = "sms"
account = "AC1"
interval = "1h30m"
page = "4KiB"
token = {file = "t"}
headers = {a = "b", c = {env = "T"}}
login = {user = "u", password = {credential = "p"}}
[notifiers.n]
plugin = "plain"
[receivers.primary]
log = {via = "n", to = ["a"]}
[route]
receiver = "primary"
routes = [{matchers = ["a=b"], continue = true, routes = [{receiver = "primary"}]}]
[severities.high]
icon = "!"
[[rules]]
name = "A"
expr = "1"
for = "5m"
levels = [{severity = "low", when = "> 1"}]
"""


@pytest.fixture
def validator(catalog: PluginCatalog) -> jsonschema.Draft202012Validator:
    schema = json.loads(encode_schema(config_schema(catalog)))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_a_good_configuration_is_valid_and_loads(validator, checked):
    validator.validate(tomllib.loads(GOOD))
    (config, problems) = checked(GOOD, {"T": "x", "CREDENTIALS_DIRECTORY": "/nowhere"})
    assert config is None  # only the file and the credential are not there, which no schema can know
    assert [problem.key for problem in problems] == ["checks.a.token", "checks.a.login.password"]


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('name = "x"', "name = 5", ["site", "name"]),
        ('name = "x"', "nmae = 5", ["site"]),
        ("[site]", "[siet]", []),
        ('secret = {env = "T"}', 'secret = "T"', ["tokens", "t", "secret"]),
        ('secret = {env = "T"}', 'secret = {env = "T", file = "T"}', ["tokens", "t", "secret"]),
        ('plugin = "sms"', 'plugin = "smss"', ["checks", "a", "plugin"]),
        ('account = "AC1"', 'acount = "AC1"', ["checks", "a"]),
        ('account = "AC1"', 'account = "A"', ["checks", "a", "account"]),
        ('"1h30m"', '"1h 30m"', ["checks", "a", "interval"]),
        ('"4KiB"', '"4 lots"', ["checks", "a", "page"]),
        ("[checks.a]", "[checks.sixfbd]", ["checks"]),
        ('to = ["a"]', "to = [1]", ["receivers", "primary", "log", "to", 0]),
        ("continue = true", "continue = 1", ["route", "routes", 0, "continue"]),
        ('{receiver = "primary"}', '{reciever = "primary"}', ["route", "routes", 0, "routes", 0]),
        ("[severities.high]", "[severities.hihg]", ["severities"]),
        ('severity = "low"', 'severity = "lo"', ["rules", 0, "levels", 0, "severity"]),
    ],
)
def test_what_has_the_wrong_form_is_invalid_at_its_place(validator, old, new, where):
    assert old in GOOD
    places = [list(error.absolute_path) for error in validator.iter_errors(tomllib.loads(GOOD.replace(old, new, 1)))]
    assert where in places


def test_options_are_described_per_plugin_with_their_defaults(catalog):
    schema = config_schema(catalog)
    assert schema["$schema"] == DIALECT
    (branch,) = schema["properties"]["checks"]["additionalProperties"]["allOf"]
    assert branch["if"]["properties"]["plugin"] == {"const": "sms"}
    assert branch["then"]["description"] == "Health of an account."
    assert branch["then"]["properties"]["page"] == {
        "$ref": "#/$defs/Size",
        "description": "Page size.",
        "default": "1KiB",
    }
    assert branch["then"]["required"] == ["account"]


def test_options_are_told_in_words(catalog):
    docs = {doc.key: doc for doc in describe_options(catalog.checks["sms"].cls.Options)}
    assert (docs["account"].type, docs["account"].required) == ("text", True)
    assert docs["numbers"].type == "list of text"
    assert docs["headers"].type == "table of text or secret"
    assert docs["threshold"].default == 0.1


def test_defaults_are_written_as_toml_has_them():
    assert toml_value(Duration(90)) == "1m30s"
    assert toml_value({"a": (Size(1024), None, frozenset({1}))}) == {"a": ["1KiB", None, [1]]}
    assert toml_value(Secret("x", "env X")) is None
    assert toml_value(CheckKeys(plugin="sms")) == {"plugin": "sms", "enabled": True, "depends_on": []}


def test_the_engines_keys_come_first(catalog):
    schema = config_schema(catalog)
    keys = schema["properties"]["checks"]["additionalProperties"]["properties"]
    assert list(keys) == [field.key for field in fields_of(CheckKeys)]
