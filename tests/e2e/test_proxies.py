"""The proxies of etc/examples in front of a real daemon: signed webhooks arrive as they were signed, and nothing else passes."""

import json
import re
import shutil
import ssl
import subprocess
import time
from pathlib import Path

import httpx
import pytest
from stripe import WebhookSignature
from twilio.request_validator import RequestValidator

EXAMPLES = Path(__file__).parents[2] / "etc" / "examples"
HOST = "hooks.example.com"
STRIPE, TWILIO = "whsec_" + "k" * 32, "t" * 32
EVENT = {
    "object": "event", "id": "evt_1", "type": "payment_intent.succeeded", "created": int(time.time()),
    "data": {"object": {"id": "pi_1", "amount_received": 1999, "currency": "usd", "note": "Zürich ✓"}},
}  # fmt: skip


@pytest.fixture
def certificate(tmp_path):
    """Paths of a certificate for HOST and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += [
        "-keyout",
        key,
        "-out",
        cert,
        "-subj",
        f"/CN={HOST}",
        "-addext",
        f"subjectAltName=DNS:{HOST}",
        "-days",
        "2",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return cert, key


@pytest.fixture
def behind(daemon):
    """A daemon that takes webhooks of Stripe and Twilio; returns the address of its port for the outside."""
    for name, value in (("stripe", STRIPE), ("twilio", TWILIO)):
        (daemon.directory / name).write_text(value)
        (daemon.directory / name).chmod(0o600)
    daemon.add(
        "50-test.toml",
        f"""
[http.public]
listen = "127.0.0.1:0"
url = "https://{HOST}"
[inbound.stripe]
kind = "stripe"
secrets = [{{ file = "stripe" }}]
[inbound.twilio]
kind = "twilio"
secrets = [{{ file = "twilio" }}]
""",
    )
    daemon.start()
    return daemon.ctl("status")["public"].removeprefix("http://")


def nginx(folder, upstream, port, certificate):
    """Write a whole configuration around the example, and return what checks it and what runs it."""
    text = (EXAMPLES / "nginx.conf").read_text()
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("127.0.0.1:9633", upstream),
        ("/etc/letsencrypt/live/hooks.example.com/fullchain.pem", str(certificate[0])),
        ("/etc/letsencrypt/live/hooks.example.com/privkey.pem", str(certificate[1])),
        ("/var/log/nginx/sixfbd.log", str(folder / "access.log")),
    ):
        assert old in text
        text = text.replace(old, new)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = folder / "nginx.conf"
    path.write_text(
        f"daemon off;\nuser root;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{temporary}\n{text}\n}}\n"
    )
    command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(path)]
    return [*command, "-t"], command


def caddy(folder, upstream, port, certificate):
    text = (EXAMPLES / "Caddyfile").read_text()
    site = f"https://{HOST}:{port} {{\n\ttls {certificate[0]} {certificate[1]}\n"
    for old, new in ((f"{HOST} {{\n", site), ("127.0.0.1:9633", upstream)):
        assert old in text
        text = text.replace(old, new)
    path = folder / "Caddyfile"
    path.write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}")
    command = ["--adapter", "caddyfile", "--config", str(path)]
    return ["caddy", "validate", *command], ["caddy", "run", *command]


@pytest.fixture
def proxied(request, tmp_path, behind, certificate, free_port, wait):
    """A client of the proxy that the test names."""
    assert shutil.which(request.param.__name__), f"{request.param.__name__} is not installed; ./run test installs it"
    port = free_port()
    check, run = request.param(tmp_path, behind, port, certificate)
    checked = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    log = (tmp_path / "proxy.log").open("wb")
    env = {"HOME": str(tmp_path), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    process = subprocess.Popen(run, stdout=log, stderr=log, env=env)
    context = ssl.create_default_context(cafile=str(certificate[0]))
    context.check_hostname = True
    try:
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}", headers={"Host": HOST}, verify=context, timeout=20
        ) as client:

            def ask(method, path, **options):
                return client.request(method, path, extensions={"sni_hostname": HOST}, **options)

            wait("the proxy", lambda: ask("GET", "/healthz").status_code == 200)
            yield ask
    finally:
        process.terminate()
        process.wait(20)
        log.close()


@pytest.mark.parametrize("proxied", [nginx, caddy], indirect=True)
def test_behind_the_proxy_signed_webhooks_are_taken_and_nothing_else_passes(proxied, daemon, wait, tmp_path):
    body = json.dumps(EVENT, ensure_ascii=False).encode()
    signature = WebhookSignature.generate_signature_header(body.decode(), STRIPE, int(time.time()))
    taken = proxied("POST", "/webhooks/stripe", content=body, headers={"Stripe-Signature": signature})
    assert (taken.status_code, taken.json()["data"]["events"]) == (200, 2)
    form = {
        "MessageSid": "SM" + "0" * 32,
        "MessageStatus": "delivered",
        "AccountSid": "AC" + "0" * 32,
        "To": "+13525550101",
    }
    signed = RequestValidator(TWILIO).compute_signature(f"https://{HOST}/webhooks/twilio", form)
    called = proxied("POST", "/webhooks/twilio", data=form, headers={"X-Twilio-Signature": signed})
    assert called.status_code == 200, called.text
    tampered = body.replace(b"1999", b"9991")
    assert (
        proxied("POST", "/webhooks/stripe", content=tampered, headers={"Stripe-Signature": signature}).status_code
        == 400
    )
    for path in ("/", "/metrics", "/api/health", "/webhook/stripe", "/webhooks/../metrics", "/webhooks/%2e%2e/metrics"):
        assert proxied("GET", path).status_code in (400, 404, 405), path
    too_large = proxied("POST", "/webhooks/stripe", content=b"x" * 3_000_000)
    assert too_large.status_code in (413, 502)  # Caddy: it stops passing the body on
    assert 'stripe_events_total{type="payment_intent.succeeded"} 1' in httpx.get(f"{daemon.url}/metrics").text
    access = tmp_path / "access.log"
    if access.exists():
        proxied("POST", "/webhooks/stripe?token=hidden", content=b"{}")
        wait("the line", lambda: len(re.findall("/webhooks/stripe", access.read_text())) >= 3)
        assert "hidden" not in access.read_text()
