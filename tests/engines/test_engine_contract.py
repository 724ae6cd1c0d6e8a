"""What holds for every file in engines/, a new one included; none of their libraries is needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from audioproto.errors import BadRequest
from audioproto.types import EngineSpec, Hold
from audioworker import engine
from audioworker.engine import Aligner, Engine, Synthesizer, Transcriber
from daemons import TOP

NAMES = sorted(file.stem for file in (TOP / "daemon/audioworker/engines").glob("[a-z]*.py"))


def test_there_are_engines() -> None:
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_importing_it_needs_nothing_but_numpy_and_msgspec(name: str) -> None:
    """The daemon's tests, and a zygote that is to hold nothing, import it without paying for its library."""
    code = (
        "import sys, numpy, msgspec.structs, audioworker.engine; before = set(sys.modules); "
        f"import audioworker.engines.{name}; "
        "print(*{module.partition('.')[0] for module in set(sys.modules) - before})"
    )
    environment = {"PYTHONPATH": str(TOP / "daemon")}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert set(ran.stdout.split()) <= {"audioproto", "audioworker", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_an_engine_with_one_task_and_a_declared_hold(name: str) -> None:
    made = engine.find(name)
    assert issubclass(made, Engine)
    assert sum(issubclass(made, task) for task in (Transcriber, Aligner, Synthesizer)) == 1
    assert isinstance(made.__dict__["hold"], Hold)
    assert made.__doc__, "the docstring says which options there are and what threads may do"


@pytest.mark.parametrize("name", [name for name in NAMES if issubclass(engine.find(name), Synthesizer)])
def test_a_synthesizer_declares_its_rate_and_its_speeds(name: str) -> None:
    made = engine.find(name)
    assert issubclass(made, Synthesizer)
    assert 8_000 <= made.sample_rate <= 48_000
    slowest, fastest = made.speed_range
    assert 0 < slowest <= 1 <= fastest


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused_by_its_name(name: str) -> None:
    spec = EngineSpec(name, "some-model", "/nowhere", options={"flux_capacity": 3})
    with pytest.raises(BadRequest, match=r"some-model.*'flux_capacity'"):
        engine.find(name)(spec)


@pytest.mark.parametrize("name", ["no_such_engine", "../worker", "", "Hibari"])
def test_what_is_no_engine_is_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        engine.find(name)
