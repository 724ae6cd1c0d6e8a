"""The API's description and its page, as a running daemon serves them."""

from __future__ import annotations

import json
import re
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
