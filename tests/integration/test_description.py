"""The API's description and its page, as a running daemon serves them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request

from daemons import Daemon


def test_the_page_names_no_other_host(daemon: Daemon) -> None:
    with urllib.request.urlopen(f"{daemon.url}/docs", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/html")
        policy = answer.headers["Content-Security-Policy"]
        page = answer.read().decode()
    assert policy.startswith("default-src 'none'; script-src 'self'; ")
    assert not re.search(r"https?:|//", page.replace("<!doctype", ""))
    for file in re.findall(r'(?:src|href)="(docs/[^"]+)"', page):
        status, content = daemon.get(f"/{file}")
        assert status == 200, file
        assert content


def test_the_description_is_served_without_a_key_and_is_json(daemon: Daemon) -> None:
    status, body = daemon.get("/openapi.json")
    assert status == 200
    assert json.loads(body)["openapi"] == "3.1.0"


def test_the_page_has_no_other_files_than_its_own(daemon: Daemon) -> None:
    for name in ("redoc.js", "__init__.py", "..%2f__init__.py", "%2e%2e/x"):
        status, body = daemon.get(f"/docs/{name}")
        assert status == 404
        assert json.loads(body)["error"]["code"] == "not_found"


# Not asked: whether whatever fits the schema is accepted. Recordings that are none, models and voices that are not
# there and texts that nobody can say fit it, and are refused.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method,missing_required_header,"
    "use_after_free,ensure_resource_availability"
)


def test_the_daemon_does_what_the_description_says(daemon: Daemon) -> None:
    """By schemathesis, with requests that fit the description and requests that do not."""
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run", f"{daemon.url}/openapi.json"),
        *("--url", daemon.url, "--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "5"),
        *("--seed", "1", "--generation-deterministic", "--request-timeout", "60"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=daemon.directory, timeout=280)
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr
