"""Who may import whom, as DESIGN.md draws it; a new arrow is a decision, and this is where it is made."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons import TOP

OURS = {"audioproto", "audiod", "audioworker", "audioctl"}
LIGHT = {"msgspec", "typing_extensions"}
PURE_RESIDENCY = {path.stem for path in (TOP / "daemon/audiod/residency").glob("*.py")} - {
    "__init__",
    "manager",
    "measuring",
}
ENGINE_LIBRARIES = {"torch", "transformers", "faster_whisper", "ctranslate2", "onnxruntime", "hibari", "misaki"}


def modules() -> Iterator[tuple[str, Path]]:
    for root in (TOP / "daemon", TOP / "ctl"):
        for file in sorted(root.rglob("*.py")):
            parts = file.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), file


def imports(file: Path, *, at_top: bool = False) -> set[str]:
    """Full names imported by the file; with `at_top`, only those that importing the file runs."""
    tree = ast.parse(file.read_text())
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(function, ast.If) and ast.unparse(function.test) == "TYPE_CHECKING")
        for node in ast.walk(function)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if at_top and id(node) in inner:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def tops(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


ALL = list(modules())


@pytest.mark.parametrize(("name", "file"), ALL, ids=[name for name, _ in ALL])
def test_arrows_point_where_the_design_says(name: str, file: Path) -> None:
    top, used = name.split(".")[0], imports(file)
    ours = tops(used) & OURS - {top}
    third_party = tops(used) - OURS - set(sys.stdlib_module_names)
    if top == "audioproto":
        assert not ours, "audioproto imports nothing of ours"
        assert third_party <= LIGHT, "audioproto runs in every runtime: msgspec and the standard library only"
    elif top == "audioctl":
        assert ours <= {"audioproto"}, "audioctl knows the wire types and nothing else"
        assert third_party <= LIGHT, "audioctl starts in a tenth of a second: msgspec and the standard library only"
    elif top == "audioworker":
        assert ours <= {"audioproto"}, "a worker runs where the daemon is not installed"
        assert not tops(imports(file, at_top=True)) & ENGINE_LIBRARIES, "engine libraries are imported inside methods"
    else:
        assert ours <= {"audioproto"}, "the daemon spawns audioworker; it never imports it"
        assert not tops(used) & ENGINE_LIBRARIES, "the daemon never imports an engine's library"


@pytest.mark.parametrize("name", sorted(PURE_RESIDENCY))
def test_the_pure_part_of_residency_is_pure(name: str) -> None:
    used = imports(TOP / "daemon" / "audiod" / "residency" / f"{name}.py")
    assert not tops(used) & {"asyncio", "logging", "time", "os", "socket", "random"}
    ours = {module for module in used if module.split(".")[0] in OURS}
    assert all(module.startswith(("audiod.residency", "audioproto.")) for module in ours)
    assert not any(module.startswith("audiod.residency.manager") for module in ours)


@pytest.mark.parametrize("name", [name for name, _ in ALL if name.startswith(("audiod.subtitles", "audiod.live"))])
def test_what_makes_text_of_words_is_pure(name: str) -> None:
    used = imports(dict(ALL)[name])
    assert not tops(used) & {"asyncio", "logging", "time", "os", "socket", "random"}
    ours = {module for module in used if module.split(".")[0] in OURS}
    assert all(module.startswith(("audiod.subtitles.", "audioproto.")) for module in ours)


@pytest.mark.parametrize("package", ["api", "control"])
def test_api_and_control_reach_models_through_the_manager_only(package: str) -> None:
    other = {"api": "audiod.control", "control": "audiod.api"}[package]
    for file in (TOP / "daemon" / "audiod" / package).glob("*.py"):
        for module in imports(file):
            assert not module.startswith(("audiod.supervisor.zygote", "audiod.supervisor.worker")), f"{file}: {module}"
            if module.startswith(other):
                # The services that a handler may use are one object for both.
                assert module.startswith("audiod.api.services"), f"{file}: {module}"


def test_what_is_installed_imports_nothing_of_scripts() -> None:
    tools = {path.stem for path in (TOP / "scripts").iterdir()}
    assert "simulation" in tools
    for name, file in ALL:
        assert not tops(imports(file)) & tools, name


def test_the_daemon_runs_without_numpy_av_and_pynvml() -> None:
    """The first two belong to the media processes and would cost 30 MB for nothing; the last is for GPUs only."""
    code = "import sys, audiod.app; print(*sorted({'numpy', 'av', 'torch', 'pynvml'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=TOP / "daemon")
    assert ran.stdout.strip() == ""


def test_one_file_speaks_to_the_gpu_s_driver() -> None:
    assert [name for name, file in ALL if "pynvml" in tops(imports(file))] == ["audiod.gpu"]


def test_every_module_says_what_it_owns() -> None:
    silent = [name for name, file in ALL if not ast.get_docstring(ast.parse(file.read_text()))]
    assert silent == []
