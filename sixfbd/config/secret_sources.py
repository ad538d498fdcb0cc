"""Where the configuration's secrets come from: systemd credentials, files, the environment.

Reads them when the configuration is loaded; a value leaves this module only inside a `Secret`, never in a message.
"""

import os
import stat
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sixfbd.config.text import UnreadableError, did_you_mean, read_regular
from sixfbd.logs import register_secret
from sixfbd.quantities import Secret

OF_THE_SERVICE: Final = Path("/run/credentials/sixfbd.service")  # for root, who asks what the running service is given
ASK_S: Final = 5.0
SOURCES: Final = ("credential", "file", "env")
MAX_SECRET_BYTES: Final = 64 * 1024
FORM: Final = 'write {file = "PATH"}, {env = "NAME"} or {credential = "NAME"}'


class SecretError(Exception):
    """A secret cannot be had. `hint` says how to mend it; neither shows a value."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SecretSources:
    """The places to look: `directory` is the configuration file's, which paths are relative to."""

    def __init__(self, directory: Path, environ: Mapping[str, str]) -> None:
        self._directory = directory
        self._environ = environ

    def resolve(self, form: object) -> tuple[Secret, str]:
        """Return the secret that `{file|env|credential = NAME}` names, and a warning or "". Raises SecretError."""
        source, name = _parse_form(form)
        warning = ""
        if source == "env":
            value = self._from_environment(name)
        elif source == "credential":
            value = self._from_credential(name)
        else:
            value, warning = _read(self._directory / name)
        value = value.removesuffix("\n").removesuffix("\r")
        if not value:
            raise SecretError(f"the secret of {source} {name} is empty")
        register_secret(value)
        return Secret(value, f"{source} {name}"), warning

    def _from_environment(self, name: str) -> str:
        value = self._environ.get(name)
        if value is None:
            raise SecretError(f"the environment has no {name}", "set it, or name another source")
        if not _encodable(value):
            raise SecretError(f"the environment's {name} is not UTF-8")
        return value

    def _from_credential(self, name: str) -> str:
        """One credential a file, or a key of the credential `secrets`, a TOML file of `name = "value"` lines."""
        passed = _passed(self._environ.get("CREDENTIALS_DIRECTORY", ""))
        if passed is None:
            raise SecretError(
                f"credential {name}: no credentials were passed, $CREDENTIALS_DIRECTORY is not set",
                "start under systemd with LoadCredential=, or use file or env; root is told what the unit names",
            )
        if name in passed:
            return _read(passed[name])[0]
        value = _collection(passed["secrets"]).get(name) if "secrets" in passed else None
        if not isinstance(value, str):
            mend = f'add LoadCredential={name}:PATH to the unit, or {name} = "..." to the credential file `secrets`'
            raise SecretError(f"credential {name} was not passed", mend)
        return value


def _passed(folder: str) -> dict[str, Path] | None:
    """Return the files of credentials by name: the daemon's own, or, for root, those of the service, though it may not run.

    None: nobody passed any. What systemd decrypts is known while the service runs only.
    """
    if not folder and os.access(OF_THE_SERVICE, os.R_OK | os.X_OK):
        folder = str(OF_THE_SERVICE)
    if folder:
        try:
            return {path.name: path for path in Path(folder).iterdir()}
        except OSError as error:
            raise SecretError(f"$CREDENTIALS_DIRECTORY cannot be read: {error.strerror}") from None
    return (_named_by_the_unit() or None) if os.geteuid() == 0 else None


def _named_by_the_unit() -> dict[str, Path]:
    """Return the files that the unit and its drop-ins name (LoadCredential=NAME:/PATH); none if there is no systemd.

    `systemctl show` would be asked, but systemd 252 calls them unprintable.
    """
    try:
        done = subprocess.run(
            ["systemctl", "cat", OF_THE_SERVICE.name], capture_output=True, text=True, timeout=ASK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found: dict[str, Path] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.strip().partition("=")
        name, _, path = value.partition(":")
        if key == "LoadCredential" and not value:
            found.clear()  # as systemd does: what comes before does not count
        elif key == "LoadCredential" and path.startswith("/"):
            found[name] = Path(path)
    return found


def _parse_form(form: object) -> tuple[str, str]:
    if not isinstance(form, dict):
        raise SecretError("a secret is not written into the configuration itself", FORM)
    for key in form:
        if key not in SOURCES:
            raise SecretError(f"{str(key)[:40]} is not a source of secrets", did_you_mean(key, SOURCES))
    if len(form) != 1:
        raise SecretError("a secret has exactly one source", FORM)
    ((source, name),) = form.items()
    if not isinstance(name, str) or not name or "\0" in name:
        raise SecretError(f"{source} is not a name", FORM)
    return source, name


def _read(path: Path) -> tuple[str, str]:
    """Return the text of a file and a warning if everybody can read it."""
    try:
        data, mode = read_regular(path, MAX_SECRET_BYTES)
        text = data.decode()
    except UnreadableError as error:
        mend = "write the secret into it, mode 0600" if error.missing else ""
        raise SecretError(f"the secret's file {path} {error}", mend) from None
    except UnicodeDecodeError:
        raise SecretError(f"the secret's file {path} is not UTF-8") from None
    return text, f"can be read by everybody; chmod 600 {path}" if mode & stat.S_IROTH else ""


def _collection(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path)[0])
    except (ValueError, RecursionError):
        raise SecretError(f"{path} is not TOML", 'write lines of the form name = "value"') from None


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
