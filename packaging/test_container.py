"""Builds the container's image and lives through what a container lives through; prints a line for each step.

    python packaging/test_container.py [--base IMAGE]

Needs podman: without it everything is skipped, with the reason. The network is the host's; the daemon listens on a free port.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
LIMIT_S: Final = 60.0
BUILD_LIMIT_S: Final = 1200.0
CONFIG: Final = """
[http]
listen = "127.0.0.1:0"

[checks.closed]
plugin = "webhook"
url = "http://127.0.0.1:1/"
interval = "1s"

[notifiers.pager]
plugin = "webhook"
url = "http://127.0.0.1:1/"
headers = {Authorization = {file = "/run/secrets/pager"}}

[[rules]]
name = "Closed"
expr = 'probe_success{instance="http://127.0.0.1:1/"} == 0'
severity = "high"
"""


class Step(Exception):  # noqa: N818 - the way out of a step that failed, named as what it is
    """A step did not go as it should."""


class Podman:
    """Runs podman; what it makes is named after this process, and removed at the end."""

    def __init__(self, base: str | None, folder: Path) -> None:
        self.base = base
        self.folder = folder
        self.name = f"sixfbd-test-{os.getpid()}"

    def run(self, *command: str, limit_s: float = LIMIT_S, fails: bool = False) -> str:
        """Return what it prints. Raises Step if it fails, or if it does not and should."""
        done = subprocess.run(
            ["podman", *command], capture_output=True, text=True, timeout=limit_s, check=False, cwd=PROJECT
        )
        if bool(done.returncode) is not fails:
            said = f"{done.stdout[-2000:]}{done.stderr[-2000:]}"
            raise Step(f"podman {' '.join(command)}: exit {done.returncode}: {said}")
        return (done.stdout + done.stderr if fails else done.stdout).strip()

    def start(self, *more: str) -> None:
        """Start the container as README.md says, with its volumes."""
        volumes = (
            f"{self.name}-state:/var/lib/sixfbd",
            f"{self.name}-run:/run/sixfbd",
            f"{self.folder}:/etc/sixfbd:ro",
        )
        self.run(
            *("run", "--detach", "--name", self.name, "--read-only", "--cap-drop", "all", "--network", "host"),
            *("--security-opt", "no-new-privileges", *(word for one in volumes for word in ("--volume", one))),
            *("--secret", f"{self.name},target=pager,uid=65532,mode=0400", *more, self.name),
        )

    def until(self, what: str, holds: Callable[[str], bool], *command: str) -> str:
        """Run a command inside until what it prints is right."""
        deadline, said = time.monotonic() + LIMIT_S, ""
        while time.monotonic() < deadline:
            try:
                said = self.run("exec", self.name, *command)
                if holds(said):
                    return said
            except Step as error:
                said = str(error)
            time.sleep(0.2)
        raise Step(f"{what}: not within {LIMIT_S:g} s; last: {said}")

    @contextmanager
    def tidy(self) -> Iterator[None]:
        """Remove what was made, however it ends."""
        try:
            yield
        finally:
            for gone in (
                ("rm", "--force", "--time", "5", self.name),
                ("volume", "rm", "--force", f"{self.name}-state", f"{self.name}-run"),
                ("secret", "rm", self.name),
                ("rmi", "--force", self.name),
            ):
                subprocess.run(["podman", *gone], capture_output=True, timeout=LIMIT_S, check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description="Test the container file with podman.")
    parser.add_argument("--base", help="build upon this image")
    asked = parser.parse_args()
    if shutil.which("podman") is None:
        print("1..0 # SKIP apt install podman")
        return
    with tempfile.TemporaryDirectory(prefix="sixfbd-container-") as folder:
        Path(folder).chmod(0o755)  # for the user inside
        podman = Podman(asked.base, Path(folder))
        with podman.tidy():
            failed = _live(podman)
    print(f"# {len(STEPS)} steps, {failed} failed")
    sys.exit(1 if failed else 0)


def _live(podman: Podman) -> int:
    print(f"1..{len(STEPS)}", flush=True)
    failed = 0
    for number, step in enumerate(STEPS, 1):
        name, began = (step.__doc__ or "").rstrip("."), time.monotonic()
        try:
            said = step(podman)
        except (Step, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"not ok {number} - {name}\n# " + str(error).replace("\n", "\n# "), flush=True)
            if step is builds:
                print("Bail out! there is no image", flush=True)
                break
        else:
            print(f"ok {number} - {name}: {said} ({time.monotonic() - began:.1f} s)", flush=True)
    return failed


# ---- the steps, in order ---------------------------------------------------------------------------------------------------


def builds(podman: Podman) -> str:
    """Is built from a clone."""
    base = ("--build-arg", f"BASE={podman.base}") if podman.base else ()
    network = ("--network", "host")
    file = "packaging/container/Containerfile"
    form = ("--format", "docker")  # the other one has no health checks
    podman.run("build", *form, "--tag", podman.name, *base, *network, "--file", file, ".", limit_s=BUILD_LIMIT_S)
    size = int(podman.run("image", "inspect", "--format", "{{.Size}}", podman.name))
    return f"{size / 1e6:.0f} MB"


def starts(podman: Podman) -> str:
    """Starts without root, without capabilities, on a file system that it cannot write to."""
    (podman.folder / "sixfbd.toml").write_text(CONFIG)
    (podman.folder / "secret").write_text("hunter2\n")
    podman.run("secret", "create", podman.name, str(podman.folder / "secret"))
    (podman.folder / "secret").unlink()
    podman.start()
    podman.until("it answers", lambda said: "sixfbd" in said, "sixfbctl", "status")
    for place in ("/etc/sixfbd/x", "/opt/sixfbd/x", "/x"):
        podman.run("exec", podman.name, "touch", place, fails=True)
    caps = podman.run("exec", podman.name, "sh", "-c", "grep CapEff /proc/1/status; id -u").split()
    if caps[1:] != ["0000000000000000", "65532"]:
        raise Step(f"capabilities and user are {caps}")
    return "user 65532, no capability"


def alerts(podman: Podman) -> str:
    """Measures, alerts, and is healthy."""
    podman.until("the alert", lambda said: "Closed" in said, "sixfbctl", "alerts")
    podman.run("healthcheck", "run", podman.name)
    return "Closed fires"


def is_reloaded(podman: Podman) -> str:
    """Takes another configuration over, and refuses a wrong one."""
    config = podman.folder / "sixfbd.toml"
    config.write_text(CONFIG + "\n[checks.odd")
    said = podman.run("exec", podman.name, "sixfbctl", "reload", fails=True)
    config.write_text(CONFIG.replace('name = "Closed"', 'name = "ShutDown"'))
    podman.run("exec", podman.name, "sixfbctl", "reload")
    podman.until("the alert of the new rule", lambda said: "ShutDown" in said, "sixfbctl", "alerts")
    return next(line for line in said.splitlines() if "sixfbd.toml" in line)[:120]


def goes_on(podman: Podman) -> str:
    """Stops in order, and another container goes on with its state."""
    podman.run(
        "exec", podman.name, "sixfbctl", "silence", "add", "alertname=ShutDown", "--for", "1h", "--comment", "kept"
    )
    began = time.monotonic()
    podman.run("stop", "--time", "30", podman.name)
    took = time.monotonic() - began
    code = podman.run("inspect", "--format", "{{.State.ExitCode}}", podman.name)
    if code != "0":
        raise Step(f"it ended with {code}: {podman.run('logs', podman.name)[-1000:]}")
    podman.run("rm", podman.name)
    podman.start()
    podman.until("the silence", lambda said: "kept" in said, "sixfbctl", "silence", "list")
    return f"stopped in {took:.1f} s, the silence is kept"


def ends_for_a_wrong_configuration(podman: Podman) -> str:
    """Ends with 78, and says why, if its configuration is wrong from the start."""
    podman.run("rm", "--force", "--time", "10", podman.name)
    (podman.folder / "sixfbd.toml").write_text("[checks.odd")
    podman.start()
    code = podman.run("wait", podman.name)
    said = podman.run("logs", podman.name, fails=False)
    if code != "78":
        raise Step(f"it ended with {code}: {said}")
    return "78"


STEPS: Final = (builds, starts, alerts, is_reloaded, goes_on, ends_for_a_wrong_configuration)

if __name__ == "__main__":
    main()
