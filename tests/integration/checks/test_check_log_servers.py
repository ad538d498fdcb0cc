"""What nginx and Caddy really write, as etc/examples/logs.toml has it read."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sixfbd.config import check_config, plugin_sources
from sixfbd.host import load_plugins
from sixfbd.rules.problems import rule_problems
from sixfbd_plugins.business import requests
from sixfbd_plugins.logs.check import LOG_LINES, LogCheck
from tests.provider_kit import Engine, ManualClock, PluginContext

EXAMPLE = Path(__file__).parents[3] / "etc" / "examples" / "logs.toml"
LIMIT_S = 30.0
ASKED = (("GET", "/orders/1"), ("GET", "/orders/2?email=ann@example.com"), ("POST", "/fails"), ("GET", '/a"b\\c'))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def nginx(folder: Path, port: int) -> list[str]:
    """Write a configuration with the format of the example."""
    said = re.findall(r"^#   (.*)$", EXAMPLE.read_text(), re.MULTILINE)
    form = "\n".join(said).replace("/var/log/nginx/shop.log", str(folder / "access.log"))
    assert "log_format timed" in form and "access_log" in form
    places = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nuser root;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{places}\n{form}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 fine; }} location /fails {{ return 503; }} }}\n}}\n"
    )
    return ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy(folder: Path, port: int) -> list[str]:
    (folder / "Caddyfile").write_text(
        "{\n\tadmin off\n\tauto_https off\n}\n"
        f"http://127.0.0.1:{port} {{\n\tlog {{\n\t\toutput file {folder}/access.log\n\t}}\n"
        "\trespond /fails 503\n\trespond fine 200\n}\n"
    )
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def serving(command: list[str], folder: Path, port: int) -> Iterator[httpx.Client]:
    assert shutil.which(command[0]), f"{command[0]} is not installed; ./run test installs it"
    with (folder / "server.log").open("wb") as log:
        env = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
    try:
        deadline = time.monotonic() + LIMIT_S
        while not answers(port):
            assert time.monotonic() < deadline and process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.02)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LIMIT_S) as client:
            yield client
    finally:
        process.terminate()
        process.wait(LIMIT_S)


@pytest.mark.parametrize("server", [nginx, caddy])
async def test_the_log_of_a_real_server_is_read_as_the_example_says(server, tmp_path, monkeypatch):
    monkeypatch.setattr(requests.paths, "_groups", set())
    path = tmp_path / "sixfbd.toml"
    path.write_text(EXAMPLE.read_text())
    config, _ = check_config(path, load_plugins(plugin_sources(path)), rule_problems, {})
    options = config.checks[server.__name__].options
    port = free_port()
    with serving(server(tmp_path, port), tmp_path, port) as client:
        for method, target in ASKED:
            client.request(method, target)
    clock = ManualClock(time.time())
    context = PluginContext(None, clock)
    context.name = "access"
    files = (str(tmp_path / "access.log"),)
    check = LogCheck(type(options)(files=files, read_from="beginning", format=options.format, fields=options.fields,
                                   duration_unit=options.duration_unit), context)  # fmt: skip
    engine = Engine(tmp_path, clock, (requests.REQUEST, requests.LOGGED_REQUESTS, LOG_LINES), "access", LogCheck)
    async with engine.running():
        await engine.report(await check.run(None))
        counted = engine.counted()
    await check.close()
    assert counted["log_unparsed_lines_total", "access"] == 0
    assert counted["http_path_requests_total", "2xx", "/orders/:id"] == 2
    assert counted["http_path_requests_total", "5xx", "/fails"] == 1
    assert counted["http_requests_total", "POST", "503"] == 1
    assert counted["http_request_duration_seconds_count",] == len(ASKED)
    assert counted["http_request_duration_seconds_sum",] < LIMIT_S
