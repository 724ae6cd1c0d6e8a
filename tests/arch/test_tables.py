"""What documents and tables state as fact about the code."""

from __future__ import annotations

import re
import tomllib
from http import HTTPStatus
from typing import Any

import msgspec

from audiod import config as configuration
from audiod import units
from audiod.config import Config
from audiod.residency.machine import TRANSITIONS
from audioproto.errors import all_errors
from audioproto.types import Residency
from daemons import TOP


def uncommented(text: str) -> dict[str, Any]:
    """The example configuration with its defaults switched on."""
    lines = [re.sub(r"^# ((?:[\w-]+ = |\[)\S?.*)$", r"\1", line) for line in text.splitlines()]
    return tomllib.loads("\n".join(lines))


def test_the_example_configuration_shows_every_key_with_its_default() -> None:
    shown = uncommented((TOP / "etc" / "audiod.toml").read_text())
    config = Config()
    for section in Config.__struct_fields__:
        if section == "file":
            continue
        value = getattr(config, section)
        if not isinstance(value, configuration.Section):
            assert shown[section] == value
            continue
        assert set(shown[section]) == set(value.__struct_fields__), section
        wanted = type(value)
        assert msgspec.convert(shown[section], wanted, dec_hook=units.decode) == value, section


def test_every_state_is_in_the_transition_table_and_can_be_reached_and_left() -> None:
    assert set(TRANSITIONS) == set(Residency)
    assert set().union(*TRANSITIONS.values()) == set(Residency)
    assert all(TRANSITIONS.values())


def test_every_error_has_a_code_of_its_own_and_valid_statuses() -> None:
    errors = all_errors()
    classes = list(errors.values())
    assert len({error.code for error in classes}) == len(classes)
    for error in classes:
        assert HTTPStatus(error.http_status) >= 400
        assert 1 <= error.exit_status <= 130
        assert error.code in errors


def test_the_folder_map_of_the_readme_is_true() -> None:
    readme = (TOP / "README.md").read_text()
    block = readme.split("## Where things are")[1].split("```")[1]
    folders = re.findall(r"^( *)([\w./-]+/)  ", block, re.MULTILINE)
    assert len(folders) > 10
    path: list[str] = []
    for indent, folder in folders:
        path = [*path[: len(indent) // 2], folder]
        assert (TOP / "".join(path)).is_dir(), "".join(path)
