"""Log lines as the journal, people and machines get them."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from daemons import TOP

CODE = """
import logging, sys
from pathlib import Path
from logging_journald import JournaldTransport
from audiod import logs

JournaldTransport.SOCKET_PATH = Path(sys.argv[1])
logs.configure("info", sys.argv[2])
logs.request_id.set("req_1")
logging.getLogger("third.party").warning("two\\nlines", extra={"model": "hibari", "status": 200})
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("audiod").exception("it broke")
logging.getLogger("audiod").debug("not asked for")
"""


def run(style: str, path: Path) -> str:
    command = [sys.executable, "-c", CODE, str(path), style]
    ran = subprocess.run(command, env={"PYTHONPATH": str(TOP / "daemon")}, capture_output=True, text=True, check=True)
    return ran.stderr


def fields(entry: bytes) -> dict[str, str]:
    """An entry of the journal's native protocol (systemd, docs/JOURNAL_NATIVE_PROTOCOL.md)."""
    found: dict[str, str] = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, separator, value = line.partition(b"=")
        if not separator:
            size = int.from_bytes(entry[:8], "little")
            value, entry = entry[8 : 8 + size], entry[8 + size + 1 :]
        found[name.decode()] = value.decode()
    return found


def test_the_journal_gets_priority_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        assert run("journal", path) == ""
        warning, error = (fields(journal.recv(65536)) for _ in range(2))
        journal.setblocking(False)
        with pytest.raises(BlockingIOError):
            journal.recv(1)
    assert warning["MESSAGE"] == "two\nlines"
    assert (warning["PRIORITY"], error["PRIORITY"]) == ("4", "3")
    assert warning["AUDIOD_MODEL"] == "hibari"
    assert warning["AUDIOD_STATUS"] == "200"
    assert warning["AUDIOD_REQUEST_ID"] == "req_1"
    assert warning["AUDIOD_LOGGER"] == "third.party"
    assert error["MESSAGE"].startswith("it broke\nTraceback")
    assert "ZeroDivisionError" in error["MESSAGE"]


def test_without_a_journal_nothing_is_lost(tmp_path: Path) -> None:
    assert "it broke" in run("journal", tmp_path / "nobody")


def test_json_is_one_object_a_line(tmp_path: Path) -> None:
    first, second = map(json.loads, run("json", tmp_path).splitlines())
    assert (first["level"], first["message"], first["model"], first["request_id"]) == (
        *("warning", "two\nlines"),
        *("hibari", "req_1"),
    )
    assert "ZeroDivisionError" in second["exception"]


def test_text_is_for_people_and_is_what_a_terminal_gets(tmp_path: Path) -> None:
    for style in ("text", "auto"):
        assert "WARNING third.party: two\nlines [req_1]" in run(style, tmp_path)
        assert "not asked for" not in run(style, tmp_path)


def test_levels_have_names_that_logging_knows() -> None:
    assert all(logging.getLevelName(name.upper()) for name in ("debug", "info", "warning", "error"))
