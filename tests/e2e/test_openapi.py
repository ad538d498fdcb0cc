"""schemathesis asks a real daemon whatever /openapi.json lets one ask, and much that it does not."""

import re
import subprocess
import sys
from pathlib import Path

STREAMS = "stream$"  # they end with their listener only
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method,allow_header_conformance,ignored_auth"
)


def test_no_answer_is_undocumented_and_none_is_a_fault_of_the_servers(daemon, tmp_path):
    daemon.start()
    daemon.ctl(
        "events",
        "emit",
        "ticket_sale",
        "orderId=o-1",
        "cityId=dallas",
        "tier=ga",
        "quantity=2",
        "amount=50",
        "currency=USD",
    )
    scopes = [word for scope in ("events", "alerts", "read") for word in ("--scope", scope)]
    token = daemon.ctl("token", "create", "fuzz", *scopes)["token"]
    done = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "run", f"{daemon.url}/openapi.json"),
            *("-H", f"Authorization: Bearer {token}", "--checks", CHECKS, "--exclude-path-regex", STREAMS),
            *("--phases", "coverage,fuzzing,stateful", "--max-examples", "25", "--seed", "1", "--request-timeout", "10"),
            *("--suppress-health-check", "all", "--continue-on-failure", "--warnings", "off", "--no-color"),
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
    tested = re.search(r"Selected: (\d+)/\d+\s+Tested: (\d+)", done.stdout)
    assert tested is not None and int(tested[1]) == int(tested[2]) > 30, done.stdout[-2000:]
    passed = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert passed is not None and int(passed[1]) == int(passed[2]) > 1000, done.stdout[-2000:]
