"""A language however it is written."""

from __future__ import annotations

import pytest

from audioproto.languages import NAMES, code_of


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("en-US", "en"),
        ("zh_Hans", "zh"),
        ("English", "en"),
        (" mandarin ", "zh"),
        ("Castilian", "es"),
        ("klingon", "klingon"),
        ("", ""),
    ],
)
def test_codes_tags_and_names_lead_to_one_code(written: str, code: str) -> None:
    assert code_of(written) == code


def test_every_name_leads_to_its_own_code() -> None:
    for code, name in NAMES.items():
        assert code_of(name) == code
