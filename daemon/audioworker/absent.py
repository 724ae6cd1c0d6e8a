"""What stands in for modules that a library imports and that its runtime leaves out, because nobody calls them.

Knows none of them. What a runtime leaves out is said in packaging/locks/runtime-*.in.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Absent(ModuleType):
    """Has everything, as far as an import asks; any use of it is an error."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.__spec__ = ModuleSpec(name, None, is_package=True)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Unusable(f"{self.__name__}.{name}")


class _Unusable:
    """A class, a function or a module that is not there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *_: object, **__: object) -> Any:
        raise RuntimeError(f"{self._name}: audiod's runtime of this engine leaves it out")

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{self._name}.{name}: audiod's runtime of this engine leaves it out")


@contextmanager
def standing_in(*names: str) -> Iterator[None]:
    """Inside, those of the modules can be imported that are not installed; `a.b` needs an `a` before it.

    For the time of a library's import only: nobody else is to take them for the real ones.
    """
    missing: list[str] = []
    for name in names:
        parent = name.rpartition(".")[0]
        if parent in missing or (parent not in names and importlib.util.find_spec(name) is None):
            missing.append(name)
    sys.modules.update({name: _Absent(name) for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]
