"""What stands between two texts."""

from __future__ import annotations

import pytest

from audioproto.spacing import glue


@pytest.mark.parametrize(
    ("before", "after", "between"),
    [
        ("brave new", "world", " "),
        ("Ende.", "Neu", " "),
        ("", "Hello", ""),
        ("Hello", "", ""),
        ("one ", "two", ""),
        ("你好", "世界", ""),
        ("你好。", "世界", ""),
        ("ありがとう", "ございます", ""),
        ("안녕", "하세요", " "),
        ("สวัสดี", "ครับ", ""),
        ("привет", "мир", " "),
        ("你好。", "Hello", ""),
        ("مرحبا", "بكم", " "),
        ("नमस्ते", "दुनिया", " "),
    ],
)
def test_texts_are_joined_as_their_script_is_written(before: str, after: str, between: str) -> None:
    assert glue(before, after) == between
