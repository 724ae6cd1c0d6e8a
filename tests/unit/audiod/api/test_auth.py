"""Keys as they are written, and what of them is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from audiod.api.auth import Keys
from audioproto.errors import ConfigInvalid
from daemons import TOP


def test_keys_of_a_variable_have_the_names_they_are_given() -> None:
    keys = Keys.parse_variable("studio sk-one, sk-two\nphone sk-three,")
    assert [keys.name_of(key) for key in ("sk-one", "sk-two", "sk-three")] == ["studio", "environment-2", "phone"]
    assert keys.name_of("") == keys.name_of("studio") == keys.name_of("sk-four") == ""


@pytest.mark.parametrize("value", ["", " , ", "# none"])
def test_a_variable_may_have_none(value: str) -> None:
    assert not Keys.parse_variable(value)


@pytest.mark.parametrize("value", ["one two sk-three", "me sk-one,me sk-two"])
def test_what_is_wrong_is_named_and_not_repeated(value: str) -> None:
    with pytest.raises(ConfigInvalid, match="AUDIOD_API_KEYS, entry") as refused:
        Keys.parse_variable(value)
    assert "sk-" not in refused.value.message


def test_keys_of_file_and_variable_are_accepted_alike(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("me sk-one  # a comment\n\nsk-two\n")
    keys = Keys.read(file) + Keys.parse_variable("me sk-three")
    assert [keys.name_of(key) for key in ("sk-one", "sk-two", "sk-three")] == ["me", "key-3", "me"]


def test_a_variable_that_was_taken_is_seen_by_nobody() -> None:
    """Neither by children nor in what /proc shows of the process to others of the same user."""
    code = (
        "import os, subprocess; from audioproto import process; print(process.take_variable('AUDIOD_API_KEYS'));"
        "print(open('/proc/self/environ').read()); print(subprocess.check_output(['env'], text=True))"
    )
    environment = {"AUDIOD_API_KEYS": "sk-secret", "PYTHONPATH": str(TOP / "daemon"), "OTHER": "stays"}
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert shown.stdout.count("sk-secret") == 1
    assert shown.stdout.count("OTHER=stays") == 2
