"""Modules that a library imports and that its runtime leaves out."""

from __future__ import annotations

import importlib
import sys

import pytest

from audioworker.absent import standing_in


def test_what_is_absent_can_be_imported_while_a_library_is_and_not_after() -> None:
    with standing_in("nowhere", "nowhere.inner"):
        inner = importlib.import_module("nowhere.inner")
        whole = importlib.import_module("nowhere")
        assert inner.anything is not None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("nowhere")
    with pytest.raises(RuntimeError, match=r"nowhere\.inner\.anything: .*leaves it out"):
        inner.anything()
    with pytest.raises(AttributeError, match=r"nowhere\.tool\.more"):
        _ = whole.tool.more


def test_what_is_installed_is_itself() -> None:
    with standing_in("json", "json.decoder"):
        assert sys.modules["json"].loads("1") == 1
    assert importlib.import_module("json.decoder").JSONDecoder().decode("2") == 2


def test_it_is_gone_even_where_the_import_fails() -> None:
    with pytest.raises(ZeroDivisionError), standing_in("nowhere"):
        raise ZeroDivisionError
    assert "nowhere" not in sys.modules
