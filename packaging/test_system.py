"""Installs the Debian package in a booted systemd and lives through what a service lives through; prints a line for each step.

    python packaging/test_system.py PACKAGE.deb [--suite NAME] [--keep DIRECTORY]

The machine is a minimal Debian (12, or another by --suite trixie) that systemd-nspawn boots, without a network; it is made once
(minutes), kept in DIRECTORY, and never changed. Needs root, debootstrap and systemd-nspawn: without them all is skipped,
with the reason.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
INSIDE: Final = "systemd,systemd-sysv,dbus,python3,curl"
LIMIT_S: Final = 30.0
PORT: Final = 9632
CONFIG: Final = """
[checks.closed]
plugin = "webhook"
url = "http://127.0.0.1:1/"
interval = "1s"

[[rules]]
name = "Closed"
expr = 'probe_success{instance="http://127.0.0.1:1/"} == 0'
severity = "high"
annotations = {summary = "{{ $labels.instance }} is closed"}
"""


EXAMPLES: Final = "/usr/share/doc/sixfbd/examples"
DROP_INS: Final = "/etc/systemd/system/sixfbd.service.d"
PAGER: Final = """
[notifiers.pager]
plugin = "webhook"
url = "http://127.0.0.1:1/"
headers = {Authorization = {credential = "pager"}}
"""
PROGRAMS: Final = """
[checks.who]
plugin = "exec"
command = ["/usr/bin/setpriv", "--reuid=games", "--regid=games", "--clear-groups", "/usr/bin/id", "-un"]
interval = "1s"

[checks.echo]
plugin = "exec"
command = ["/usr/bin/python3", "-c", "import socket; socket.socket(type=socket.SOCK_RAW, proto=1); print('may')"]
interval = "1s"
"""
WANTED: Final = {"who": "OK: games", "echo": "OK: may"}
CHECK_SAYS: Final = (
    'sixfbctl checks --json | python3 -c "import json, sys; '
    "print([one['summary'] for one in json.load(sys.stdin) if one['name'] == '{}'][0])\""
)


class Step(Exception):  # noqa: N818 - the way out of a step that failed, named as what it is
    """A step did not go as it should."""


class Machine:
    """A booted machine; commands run inside it."""

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def run(self, command: str, *, fails: bool = False, limit_s: float = 120.0) -> str:
        """Run a shell's command; return what it prints. Raises Step if it fails, or if it does not and should."""
        start = [
            "nsenter",
            "-t",
            str(self._leader),
            "-m",
            "-p",
            "-n",
            "-u",
            "-i",
            "-C",
            "-r",
            "-w",
            "sh",
            "-c",
            command,
        ]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            start,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        if bool(done.returncode) is not fails:
            raise Step(f"{command}: exit {done.returncode}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
        return (done.stdout + done.stderr if fails else done.stdout).strip()

    def until(self, what: str, command: str, holds: Callable[[str], bool], limit_s: float = LIMIT_S) -> str:
        """Run a command until what it prints is right."""
        deadline, said = time.monotonic() + limit_s, ""
        while time.monotonic() < deadline:
            try:
                said = self.run(command)
                if holds(said):
                    return said
            except Step as error:
                said = str(error)
            time.sleep(0.1)
        raise Step(f"{what}: not within {limit_s:g} s; last: {said}")

    def show(self, name: str) -> str:
        return self.run(f"systemctl show --property {name} --value sixfbd")


def main() -> None:
    parser = argparse.ArgumentParser(description="Test the Debian package in a booted systemd.")
    parser.add_argument("package", type=Path)
    parser.add_argument("--suite", default="bookworm", help="Debian's release")
    parser.add_argument("--keep", type=Path, default=PROJECT / ".system", help="where the machine is kept")
    asked = parser.parse_args()
    if reason := _cannot():
        print(f"1..0 # SKIP {reason}")
        return
    with tempfile.TemporaryDirectory(prefix="sixfbd-system-") as folder:
        older = _older(asked.package.resolve(), Path(folder))
        tree = _tree(asked.keep, asked.suite)
        began = time.monotonic()
        with _booted(tree, {"/older.deb": older, "/sixfbd.deb": asked.package.resolve()}) as machine:
            failed = _live(machine)
    print(f"# {len(STEPS)} steps, {failed} failed, {time.monotonic() - began:.0f} s")
    sys.exit(1 if failed else 0)


def _cannot() -> str:
    if os.geteuid() != 0:
        return "systemd-nspawn needs root"
    tools = {
        "debootstrap": "debootstrap",
        "systemd-nspawn": "systemd-container",
        "nsenter": "util-linux",
        "dpkg-deb": "dpkg",
    }
    missing = sorted(package for tool, package in tools.items() if shutil.which(tool) is None)
    return f"apt install {' '.join(missing)}" if missing else ""


def _tree(keep: Path, suite: str) -> Path:
    """Return the root of a minimal Debian, made if it is not there."""
    tree = keep / suite
    if (tree / ".whole").exists():
        return tree
    shutil.rmtree(tree, ignore_errors=True)
    keep.mkdir(parents=True, exist_ok=True)
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    [mirror, *_] = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    print(f"# making a minimal Debian in {tree}", flush=True)
    make = ["debootstrap", "--variant=minbase", f"--include={INSIDE}", suite, str(tree), mirror]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout[-2000:]}\nsixfbd: debootstrap failed; see above")
    (tree / ".whole").touch()
    return tree


def _older(package: Path, folder: Path) -> Path:
    """Return the same package with a version below any, to be upgraded from."""
    tree, older = folder / "older", folder / "older.deb"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    control = tree / "DEBIAN/control"
    lines = control.read_text().splitlines()
    control.write_text("\n".join("Version: 0.0.1" if line.startswith("Version:") else line for line in lines) + "\n")
    subprocess.run(
        ["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "-b", tree, older], check=True, stdout=subprocess.DEVNULL
    )
    shutil.rmtree(tree)
    return older


@contextmanager
def _booted(tree: Path, files: dict[str, Path]) -> Iterator[Machine]:
    """Boot the tree with files in it; nothing that happens inside changes it."""
    binds = [f"--bind-ro={path}:{name}" for name, path in files.items()]
    start = [
        "systemd-nspawn",
        "-q",
        "-D",
        str(tree),
        "-M",
        f"sixfbd-{os.getpid()}",
        "-b",
        "--register=no",
        "--keep-unit",
    ]
    more = ["--console=pipe", "--private-network", "--kill-signal=SIGRTMIN+4", "--volatile=overlay", *binds]
    environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}  # systemd 256 and newer boot with no other
    process = subprocess.Popen(
        [*start, *more], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        machine = Machine(_leader(process))
        machine.until(
            "the machine is up", "systemctl is-system-running || true", lambda said: said in ("running", "degraded")
        )
        yield machine
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _leader(process: "subprocess.Popen[bytes]") -> int:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
            if children := task.read_text().split():
                return int(children[0])
        time.sleep(0.05)
    said = b"" if process.stderr is None or process.poll() is None else process.stderr.read()
    raise Step(f"systemd-nspawn did not boot: {said.decode(errors='replace')}")


def _live(machine: Machine) -> int:
    print(f"1..{len(STEPS)}", flush=True)
    failed = 0
    for number, step in enumerate(STEPS, 1):
        name, began = (step.__doc__ or "").rstrip("."), time.monotonic()
        try:
            said = step(machine)
        except (Step, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"not ok {number} - {name}\n# " + str(error).replace("\n", "\n# "), flush=True)
        else:
            print(f"ok {number} - {name}: {said} ({time.monotonic() - began:.1f} s)", flush=True)
    return failed


# ---- the steps, in order ---------------------------------------------------------------------------------------------------


def installs(machine: Machine) -> str:
    """Installs without a network and starts."""
    machine.run("dpkg -i /older.deb")
    if machine.run("systemctl is-active sixfbd") != "active":
        raise Step("it is not active")
    return machine.run("dpkg-query -W sixfbd && systemctl is-enabled sixfbd").replace("\n", ", ").replace("\t", " ")


def tells_systemd(machine: Machine) -> str:
    """Tells systemd what it does."""
    return machine.until("a status", "systemctl show --property StatusText --value sixfbd", bool)


def belongs_to_its_group(machine: Machine) -> str:
    """Lets its group alone read its configuration and come to its socket."""
    said = machine.run("stat -c '%U:%G %a %n' /etc/sixfbd /etc/sixfbd/sixfbd.toml /var/lib/sixfbd /run/sixfbd")
    for wanted in (
        "root:sixfbd 750 /etc/sixfbd",
        "root:sixfbd 640 /etc/sixfbd/sixfbd.toml",
        "sixfbd:sixfbd 750 /run/sixfbd",
    ):
        if wanted not in said.splitlines():
            raise Step(f"{wanted} is not among\n{said}")
    return "as it should"


def is_scraped(machine: Machine) -> str:
    """Is scraped, and has the machine's figures."""
    said = machine.until(
        "figures of the machine",
        f"curl -sf http://127.0.0.1:{PORT}/metrics",
        lambda said: "system_memory_usage_ratio" in said and "\nsixfbd_" in said,
    )
    return f"{len(said.splitlines())} lines"


def is_exposed_little(machine: Machine) -> str:
    """Is exposed to little."""
    said = machine.run("systemd-analyze security --no-pager sixfbd | tail -1")
    if float(said.split("sixfbd.service:")[1].split()[0]) > 1.7:
        raise Step(said)
    return said.split("sixfbd.service:")[1].strip()


def alerts(machine: Machine) -> str:
    """Takes another configuration over by a reload, and alerts."""
    machine.run(f"cat > /etc/sixfbd/conf.d/10-closed.toml <<'END'\n{CONFIG}\nEND\nchgrp sixfbd /etc/sixfbd/conf.d/*")
    before = machine.show("MainPID")
    machine.run("systemctl reload sixfbd")
    if machine.show("MainPID") != before:
        raise Step("the reload started another process")
    said = machine.until("an alert", "sixfbctl alerts", lambda said: "Closed" in said and "firing" in said)
    return said.splitlines()[-1].strip()


def refuses_what_is_wrong(machine: Machine) -> str:
    """Refuses a wrong configuration at a reload, says why, and goes on."""
    machine.run("echo '[checks.odd' > /etc/sixfbd/conf.d/20-odd.toml; chgrp sixfbd /etc/sixfbd/conf.d/*")
    machine.run("systemctl reload sixfbd", fails=True)
    said = machine.run("journalctl --unit sixfbd --no-pager --lines 40 --output cat | grep 20-odd.toml | tail -1")
    machine.run("rm /etc/sixfbd/conf.d/20-odd.toml && systemctl is-active sixfbd")
    return said[:160]


def refuses_no_scrape(machine: Machine) -> str:
    """Refuses no scrape while it is started again."""
    ask = f"curl -s -o /dev/null --max-time 20 http://127.0.0.1:{PORT}/healthz || echo refused"
    said = machine.run(
        f"systemctl restart sixfbd & n=0; while [ $n -lt 60 ]; do {ask}; n=$((n+1)); sleep 0.05; done; wait; echo done"
    )
    if said != "done":
        raise Step(f"{said.count('refused')} of 60 were refused")
    return "60 of 60 answered"


def comes_back_when_killed(machine: Machine) -> str:
    """Comes back when it is killed, with its alert."""
    before = machine.show("MainPID")
    machine.run("systemctl kill --signal=KILL --kill-who=main sixfbd")
    after = _another(machine, before)
    machine.until("the alert after the restart", "sixfbctl alerts", lambda said: "Closed" in said)
    return f"pid {before}, then {after}, restarts {machine.show('NRestarts')}"


def is_restarted_when_it_stands_still(machine: Machine) -> str:
    """Is killed by the watchdog and comes back when it stands still."""
    machine.run("mkdir -p /etc/systemd/system/sixfbd.service.d")
    machine.run("printf '[Service]\\nWatchdogSec=3\\n' > /etc/systemd/system/sixfbd.service.d/test.conf")
    machine.run("systemctl daemon-reload && systemctl restart sixfbd")
    before = machine.show("MainPID")
    machine.run(f"kill -STOP {before}")
    after = _another(machine, before)
    said = machine.run("journalctl --unit sixfbd --no-pager --output cat | grep -i watchdog | tail -1")
    machine.run("rm -r /etc/systemd/system/sixfbd.service.d && systemctl daemon-reload")
    return f"pid {before}, then {after}: {said}"


def is_upgraded(machine: Machine) -> str:
    """Is upgraded, keeps its configuration and what it knew."""
    before = machine.show("MainPID")
    machine.run("echo '# edited' >> /etc/sixfbd/sixfbd.toml")
    machine.run("dpkg -i /sixfbd.deb")
    after = _another(machine, before)
    machine.run("grep -q '# edited' /etc/sixfbd/sixfbd.toml && test -s /etc/sixfbd/conf.d/10-closed.toml")
    machine.until("the alert after the upgrade", "sixfbctl alerts", lambda said: "Closed" in said)
    return machine.run("dpkg-query -W sixfbd").replace("\t", " ") + f", pid {before}, then {after}"


def doctor_looks(machine: Machine) -> str:
    """Is looked at by its doctor."""
    said = machine.run("sixfbd doctor --offline || true")
    if "Traceback" in said or not said:
        raise Step(said)
    return said.splitlines()[-1].strip()


def sees_its_secrets(machine: Machine) -> str:
    """Shows root what its secrets are called, also while the service is stopped."""
    machine.run(
        "install -d -m 700 /root/secrets && echo 'pager = \"hunter2\"' > /root/secrets/all && mkdir -p " + DROP_INS
    )
    machine.run(
        f"sed 's#/etc/sixfbd/credentials#/root/secrets/all#' {EXAMPLES}/credentials.conf.example > {DROP_INS}/c.conf"
    )
    machine.run(f"cat > /etc/sixfbd/conf.d/30-pager.toml <<'END'\n{PAGER}\nEND\nchgrp sixfbd /etc/sixfbd/conf.d/*")
    machine.run("systemctl daemon-reload && systemctl restart sixfbd")
    for state in ("start", "stop"):
        machine.run(f"systemctl {state} sixfbd")
        said = machine.run("sixfbd check-config && sixfbd doctor --offline || true")
        if "hunter2" in said or "credential" in said:
            raise Step(said)
    machine.run(
        f"rm {DROP_INS}/c.conf /etc/sixfbd/conf.d/30-pager.toml && systemctl daemon-reload && systemctl start sixfbd"
    )
    return "started and stopped"


def runs_programs_as_the_drop_ins_let_it(machine: Machine) -> str:
    """Runs a program as another user, and one that sends echo requests, where drop-ins let it, and not without."""
    machine.run(f"cat > /etc/sixfbd/conf.d/40-exec.toml <<'END'\n{PROGRAMS}\nEND\nchgrp sixfbd /etc/sixfbd/conf.d/*")
    machine.run("systemctl restart sixfbd")
    said = [
        machine.until(name, CHECK_SAYS.format(name), lambda line: "OK:" not in line and ":" in line) for name in WANTED
    ]
    for drop_in in ("exec-user", "icmp"):
        machine.run(f"mkdir -p {DROP_INS} && cp {EXAMPLES}/{drop_in}.conf.example {DROP_INS}/{drop_in}.conf")
    machine.run("systemctl daemon-reload && systemctl restart sixfbd")
    said += [machine.until(name, CHECK_SAYS.format(name), wanted.__eq__) for name, wanted in WANTED.items()]
    machine.run(
        f"rm -r {DROP_INS} /etc/sixfbd/conf.d/40-exec.toml && systemctl daemon-reload && systemctl restart sixfbd"
    )
    return "; ".join(line[:60] for line in said)


def stays_down_for_a_wrong_configuration(machine: Machine) -> str:
    """Stays down, and is not started again and again, while its configuration is wrong."""
    machine.run("echo '[checks.odd' > /etc/sixfbd/conf.d/20-odd.toml; chgrp sixfbd /etc/sixfbd/conf.d/*")
    machine.run("systemctl restart sixfbd", fails=True)
    if machine.show("ExecMainStatus") != "78" or machine.show("ActiveState") != "failed":
        raise Step(machine.run("systemctl status sixfbd --no-pager || true"))
    machine.run("rm /etc/sixfbd/conf.d/20-odd.toml && systemctl reset-failed sixfbd && systemctl start sixfbd")
    return "exit code 78, then mended and started"


def is_purged(machine: Machine) -> str:
    """Leaves nothing behind when it is purged, but its user."""
    machine.run("dpkg --purge sixfbd")
    left = machine.run(
        "ls -d /etc/sixfbd /var/lib/sixfbd /usr/lib/sixfbd /run/sixfbd /usr/bin/sixfb* /usr/sbin/sixfb* 2>/dev/null || true"
    )
    if left:
        raise Step(f"left behind: {left}")
    return machine.run("getent passwd sixfbd").split(":")[0] + " stays"


def _another(machine: Machine, before: str) -> str:
    return machine.until(
        "another process",
        "systemctl is-active sixfbd >/dev/null && systemctl show --property MainPID --value sixfbd",
        lambda said: said not in ("", "0", before),
    )


STEPS: Final = (
    installs,
    tells_systemd,
    belongs_to_its_group,
    is_scraped,
    is_exposed_little,
    alerts,
    refuses_what_is_wrong,
    refuses_no_scrape,
    comes_back_when_killed,
    is_restarted_when_it_stands_still,
    is_upgraded,
    doctor_looks,
    sees_its_secrets,
    runs_programs_as_the_drop_ins_let_it,
    stays_down_for_a_wrong_configuration,
    is_purged,
)

if __name__ == "__main__":
    main()
