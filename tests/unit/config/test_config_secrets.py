"""Secrets are found where the configuration says, and shown nowhere."""

import pytest

from sixfbd.config import secret_sources

TEXT = '[checks.a]\nplugin = "sms"\naccount = "AC1"\ntoken = {form}\n'


def with_token(form: str) -> str:
    return TEXT.replace("{form}", form)


def test_a_secret_comes_from_the_environment(config_of):
    token = config_of(with_token('{env = "T"}'), {"T": "hunter2"}).checks["a"].options.token
    assert token.reveal() == "hunter2"
    assert "hunter2" not in repr(token) and "env T" in repr(token)


def test_a_secret_comes_from_a_file_relative_to_the_configuration_without_its_newline(config_of, tmp_path):
    (tmp_path / "t").write_text("hunter2\n")
    (tmp_path / "t").chmod(0o600)
    assert config_of(with_token('{file = "t"}')).checks["a"].options.token.reveal() == "hunter2"


def test_a_file_that_everybody_can_read_is_a_warning(checked, tmp_path):
    (tmp_path / "t").write_text("hunter2")
    (tmp_path / "t").chmod(0o644)
    config, problems = checked(with_token('{file = "t"}'))
    assert config is not None
    (problem,) = [problem for problem in problems if problem.key == "checks.a.token"]
    assert (problem.level, problem.message) == ("warning", "can be read by everybody")
    assert problem.hint == f"chmod 600 {tmp_path / 't'}"


def test_a_credential_is_a_file_that_systemd_passes(config_of, tmp_path):
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds" / "twilio").write_text("hunter2\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "creds")}
    assert config_of(with_token('{credential = "twilio"}'), environ).checks["a"].options.token.reveal() == "hunter2"


def test_a_credential_may_be_a_key_of_the_credential_secrets(config_of, tmp_path):
    (tmp_path / "secrets").write_text('twilio = "hunter2"\n')
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert config_of(with_token('{credential = "twilio"}'), environ).checks["a"].options.token.reveal() == "hunter2"


def test_who_asks_beside_the_running_service_has_its_credentials(config_of, tmp_path, monkeypatch):
    monkeypatch.setattr(secret_sources, "OF_THE_SERVICE", tmp_path / "of-the-service")
    (tmp_path / "of-the-service").mkdir()
    (tmp_path / "of-the-service" / "c").write_text("hunter2\n")
    assert config_of(with_token('{credential = "c"}'), {}).checks["a"].options.token.reveal() == "hunter2"


def test_root_has_them_also_while_the_service_does_not_run_from_the_files_that_its_unit_names(
    config_of, complaints, tmp_path, monkeypatch
):
    (tmp_path / "bin").mkdir()
    (tmp_path / "twilio").write_text("hunter2\n")
    (tmp_path / "collection").write_text('stripe = "hunter3"\n')
    lines = (
        "secrets:/nowhere",
        "",
        f"secrets:{tmp_path}/collection",
        f"twilio:{tmp_path}/twilio",
        f"gone:{tmp_path}/gone",
        "odd",
    )
    unit = "".join(f"LoadCredential={line}\n" for line in lines)
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.write_text(
        f"#!/bin/sh\n[ \"$*\" = 'cat sixfbd.service' ] && cat <<'END'\n# /etc/x\n[Service]\n{unit}END\n"
    )
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    monkeypatch.setattr(secret_sources, "OF_THE_SERVICE", tmp_path / "sixfbd.service")
    monkeypatch.setattr(secret_sources.os, "geteuid", lambda: 0)
    for name, value in (("twilio", "hunter2"), ("stripe", "hunter3")):
        form = with_token(f'{{credential = "{name}"}}')
        assert config_of(form, {}).checks["a"].options.token.reveal() == value
    [line] = [one for one in complaints(with_token('{credential = "gone"}'), {}) if "checks.a.token" in one]
    assert "the secret's file gone does not exist" in line  # complaints() writes paths below its own as relative
    monkeypatch.setattr(secret_sources.os, "geteuid", lambda: 1000)
    [line] = [one for one in complaints(with_token('{credential = "twilio"}'), {}) if "checks.a.token" in one]
    assert "no credentials were passed" in line, "others may not read them anyway"


def test_a_text_or_a_secret_may_be_either(config_of):
    text = with_token('{env = "T"}') + 'headers = {plain = "x", hidden = {env = "T"}}\n'
    headers = config_of(text, {"T": "hunter2"}).checks["a"].options.headers
    assert headers["plain"] == "x"
    assert headers["hidden"].reveal() == "hunter2"


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ('"hunter2"', "a secret is not written into the configuration itself; "
         'write {file = "PATH"}, {env = "NAME"} or {credential = "NAME"}'),
        ("5", "a secret is not written into the configuration itself; "
         'write {file = "PATH"}, {env = "NAME"} or {credential = "NAME"}'),
        ('{evn = "hunter2"}', 'evn is not a source of secrets; did you mean "env"?'),
        ('{env = "A", file = "hunter2"}', 'a secret has exactly one source; '
         'write {file = "PATH"}, {env = "NAME"} or {credential = "NAME"}'),
        ("{}", 'a secret has exactly one source; write {file = "PATH"}, {env = "NAME"} or {credential = "NAME"}'),
        ("{env = 5}", 'env is not a name; write {file = "PATH"}, {env = "NAME"} or {credential = "NAME"}'),
        ('{env = "NONE"}', "the environment has no NONE; set it, or name another source"),
        ('{env = "EMPTY"}', "the secret of env EMPTY is empty"),
        ('{file = "none"}', "the secret's file {tmp}/none does not exist; write the secret into it, mode 0600"),
        ('{file = "."}', "the secret's file {tmp} cannot be read: Is a directory"),
        ('{file = "binary"}', "the secret's file {tmp}/binary is not UTF-8"),
        ('{file = "big"}', "the secret's file {tmp}/big is larger than 64 KiB"),
        ('{credential = "c"}', "credential c: no credentials were passed, $CREDENTIALS_DIRECTORY is not set; "
         "start under systemd with LoadCredential=, or use file or env; root is told what the unit names"),
    ],
)  # fmt: skip
def test_a_secret_that_cannot_be_had_is_named_with_its_mend_and_never_shown(complaints, tmp_path, form, said):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "big").write_bytes(b"a" * 70_000)
    lines = complaints(with_token(form), {"EMPTY": "\n"})
    said = said.replace("{tmp}/", "").replace("{tmp}", str(tmp_path))
    assert f"sixfbd.toml: checks.a.token: {said}" in lines
    assert not any("hunter2" in line for line in lines)


def test_a_credential_that_was_not_passed_is_named_with_its_mend(complaints, tmp_path):
    (tmp_path / "creds").mkdir()
    lines = complaints(with_token('{credential = "x"}'), {"CREDENTIALS_DIRECTORY": str(tmp_path / "creds")})
    assert any("credential x was not passed; add LoadCredential=x:PATH to the unit" in line for line in lines)


def test_a_credential_collection_that_is_not_toml_is_named_without_its_content(complaints, tmp_path):
    (tmp_path / "secrets").write_text("hunter2 hunter2")
    lines = complaints(with_token('{credential = "x"}'), {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert any('secrets is not TOML; write lines of the form name = "value"' in line for line in lines)
    assert not any("hunter2" in line for line in lines)


def test_the_value_of_a_misspelt_key_is_not_shown(complaints):
    lines = complaints('[checks.a]\nplugin = "sms"\naccount = "AC1"\ntokn = "hunter2"\n')
    assert 'sixfbd.toml: checks.a.tokn: unknown key; did you mean "token"?' in lines
    assert not any("hunter2" in line for line in lines)


def test_the_text_around_a_syntax_error_is_not_shown(complaints):
    assert not any("hunter2" in line for line in complaints("token = hunter2\n"))
