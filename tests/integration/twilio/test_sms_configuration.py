"""What check and notifier of SMS take from the rest of the configuration, as the daemon reads it."""

import pytest

from sixfbd.config import check_config, plugin_sources
from sixfbd.host import load_plugins

PUBLIC = '[http.public]\nurl = "{}"\n'
INBOUND = '[inbound.{}]\nkind = "twilio"\nsecrets = [{{env = "TOKEN"}}]\n'
HOOKS = PUBLIC.format("https://hooks.example.com/") + INBOUND.format("hook")


@pytest.fixture
def read(tmp_path, kit):
    """Return (configuration or None, errors) of a text, in which ACCOUNT stands for an account's options."""

    def read_text(text):
        account = f'account_sid = "{kit.ACCOUNT}"\nauth_token = {{env = "TOKEN"}}\nfrom_number = "{kit.SENDER}"\n'
        path = tmp_path / "sixfbd.toml"
        path.write_text(f"[receivers.primary]\n{text.replace('ACCOUNT', account)}")
        config, problems = check_config(path, load_plugins(plugin_sources(path)), environ={"TOKEN": kit.TOKEN})
        errors = [one for one in problems if one.level == "error"]
        return config, [f"{one.key}: {one.message}; {one.hint}" for one in errors]

    return read_text


def callback_of(read, text):
    config, errors = read(text + '[notifiers.twilio]\nplugin = "sms"\nACCOUNT')
    assert errors == []
    return config.notifiers["twilio"].options.status_callback


def test_the_inbound_of_kind_twilio_is_told_what_became_of_messages(read):
    assert callback_of(read, HOOKS) == "https://hooks.example.com/webhooks/hook"


def test_a_callback_that_is_given_goes_before(read):
    config, _ = read(f'{HOOKS}[notifiers.t]\nplugin = "sms"\nstatus_callback = "https://other.example.com/x"\nACCOUNT')
    assert config.notifiers["t"].options.status_callback == "https://other.example.com/x"


@pytest.mark.parametrize(
    "text",
    [
        "",
        PUBLIC.format("https://hooks.example.com"),
        HOOKS.replace("kind =", "enabled = false\nkind ="),
        HOOKS + INBOUND.format("another"),
        *(
            PUBLIC.format(f"http://{host}") + INBOUND.format("hook")
            for host in ("127.0.0.1:9633", "[::1]:9633", "localhost:9633", "shop", "192.168.1.2", "shop.local")
        ),
    ],
)
def test_without_one_inbound_that_twilio_can_call_there_is_no_callback(read, text):
    assert callback_of(read, text) == ""


def test_in_a_sandbox_the_double_of_twilio_can_call_this_machine(read):
    text = "[daemon]\nsandbox = true\n" + PUBLIC.format("http://127.0.0.1:9633") + INBOUND.format("hook")
    assert callback_of(read, text) == "http://127.0.0.1:9633/webhooks/hook"


def test_another_public_address_or_inbound_makes_another_notifier(read):
    """A reload keeps what is configured as before: the callback is part of that."""
    notifier = '[notifiers.twilio]\nplugin = "sms"\nACCOUNT'
    before, _ = read(HOOKS + notifier)
    after, _ = read(HOOKS.replace("hooks.example", "calls.example") + notifier)
    assert before.notifiers != after.notifiers


def notifier_of(read, text):
    return read(f'[checks.sms]\nplugin = "sms"\nACCOUNT{text}')


NOTIFIER = '[notifiers.{}]\nplugin = "sms"\nACCOUNT'
LOG = '[notifiers.log]\nplugin = "log"\n'


def test_the_only_sms_notifier_is_the_checks(read):
    config, errors = notifier_of(read, LOG + NOTIFIER.format("phones"))
    assert (config.checks["sms"].options.notifier, errors) == ("phones", [])


@pytest.mark.parametrize("text", ["", LOG, NOTIFIER.format("one") + NOTIFIER.format("two")])
def test_of_none_or_several_none_is_chosen(read, text):
    config, errors = notifier_of(read, text)
    assert (config.checks["sms"].options.notifier, errors) == ("", [])


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("", "leave it out, or add [notifiers.NAME] with plugin = \"sms\""),
        (NOTIFIER.format("phones"), "write one of these: phones"),
        (LOG + NOTIFIER.format("a") + NOTIFIER.format("b"), "write one of these: a, b"),
    ],
)  # fmt: skip
def test_a_name_of_no_sms_notifier_is_refused_with_the_mend(read, text, mend):
    config, errors = notifier_of(read, 'notifier = "log"\n' + text)
    assert config is None
    assert errors == [f"checks.sms.notifier: names no notifier of plugin sms; {mend}"]


def test_a_check_is_not_blamed_for_what_is_wrong_with_its_notifier(read):
    _, errors = notifier_of(read, 'notifier = "t"\n[notifiers.t]\nplugin = "sms"\nmax_segments = 0\nACCOUNT')
    assert [error.split(":")[0] for error in errors] == ["notifiers.t.max_segments"]
