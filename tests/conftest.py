"""What tests share: where the embedded models are installed, and a real daemon to talk to.

`scripts/test` installs the models into .state before it runs the tests; nothing here downloads anything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import gpu_hosts
import made
from audiod.models import catalogue, install
from audiod.models.catalogue import ModelEntry
from audiod.runtimes import build
from daemons import TOP, Daemon, running
from gpu_hosts import GpuHost

# A shell that runs the tests in the background has them ignore Ctrl-C, and so all programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


_measured = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_measured] = {}


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes: another prints
        session.config.workeroutput["measured"] = session.config.stash[_measured]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[_measured] |= getattr(node, "workeroutput", {}).get("measured", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for what, value in config.stash[_measured].items():
        terminalreporter.write_line(f"measured: {what}: {value}")


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> dict[str, str]:
    """Printed at the end of the run: what was measured, and how much it was."""
    return request.config.stash[_measured]


BOXES, ENGINES = ("systemd", "image"), "engines"
"""Folders of tests: those that share what is costly to set up, and those that take longest by themselves."""


def _folder(nodeid: str) -> str:
    return nodeid.removeprefix("tests/").partition("/")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Where several processes run them, what takes longest must not be left for the end.
    order = [*BOXES, ENGINES]
    items.sort(key=lambda item: order.index(name) if (name := _folder(item.nodeid)) in order else len(order))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `-n`, a file's tests stay together, for their module's daemon, and all that boot something in one process.

    `--dist loadgroup` would be for this, but xdist 3.8.0 marks items in a way that pytest 9.2 does not see.
    """
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = lambda nodeid: "boxes" if _folder(nodeid) in BOXES else nodeid.partition("::")[0]
    return scheduler


@pytest.fixture(scope="session")
def state_dir() -> Path:
    """The checkout's own state directory, with the embedded models installed."""
    return Path(os.environ.get("AUDIOD_STATE_DIR", TOP / ".state"))


@pytest.fixture(scope="session")
def entries() -> dict[str, ModelEntry]:
    return catalogue.load(TOP / "etc" / "models.d")


@pytest.fixture(scope="session")
def places(state_dir: Path) -> install.Places:
    return install.Places(TOP / "packaging" / "locks", state_dir / "runtimes", state_dir / "models")


@pytest.fixture(scope="session")
def model_dir(entries: dict[str, ModelEntry], places: install.Places) -> Callable[[str], Path]:
    """Where an embedded model's files are, by its id."""

    def find(model: str) -> Path:
        assert install.missing(entries[model], places) == "", f"{model} is not installed: run scripts/test"
        return install.model_dir(entries[model], places)

    return find


@pytest.fixture(scope="session")
def runtime_python(entries: dict[str, ModelEntry], places: install.Places) -> Callable[[str], Path]:
    """The Python of an engine's runtime, by the engine's name. One that no model comes with has the engine's name."""

    def find(engine: str) -> Path:
        named = (entry.runtime for entry in entries.values() if entry.engine == engine)
        runtime = next(named, engine.replace("_", "-"))
        python = build.find(runtime, places.locks_dir, places.runtimes_dir)
        assert python is not None, f"the runtime {runtime} is not built: run scripts/test"
        return python

    return find


TINY: dict[str, dict[str, str]] = {
    "asr": {},
    "asr-hf": {"layout": "hf"},
    "chinese": {"text": "你好世界。", "language": "Chinese", "layout": "hf"},
    "chinese-released": {"text": "你好世界。", "language": "Chinese"},
    "noise": {"mode": "random"},
    "noise-hf": {"mode": "random", "layout": "hf"},
    "aligner": {"kind": "aligner"},
    "aligner-noise": {"kind": "aligner", "mode": "random"},
    "aligner-noise-hf": {"kind": "aligner", "mode": "random", "layout": "hf"},
}
"""What to make, for `make` in tests/tiny/qwen3_asr.py."""


@pytest.fixture(scope="session")
def tiny_qwen(runtime_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of tiny checkpoints of Qwen3-ASR, by the names in TINY."""
    directory = tmp_path_factory.mktemp("qwen")
    script = TOP / "tests/tiny/qwen3_asr.py"
    environment = {"PATH": os.environ["PATH"], "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        [str(runtime_python("qwen_asr")), str(script), str(directory), json.dumps(TINY)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert made.returncode == 0, made.stdout
    return directory


@pytest.fixture(scope="session")
def tiny_indextts(runtime_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of tiny checkpoints of IndexTTS2: `tiny` speaks half a second for each part, `endless` for ever."""
    wanted = {"tiny": {}, "endless": {"codes": -1}}
    return _made_indextts("indextts2", wanted, runtime_python("indextts2"), tmp_path_factory.mktemp("indextts"))


@pytest.fixture(scope="session")
def tiny_indextts25(runtime_python: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of IndexTTS-2.5, `tiny` alone."""
    return _made_indextts("indextts2_5", {"tiny": {}}, runtime_python("indextts25"), tmp_path_factory.mktemp("later"))


def _made_indextts(script: str, wanted: dict[str, Any], python: Path, directory: Path) -> Path:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(TOP / "daemon"), "HF_HUB_OFFLINE": "1"}
    made = subprocess.run(
        [str(python), str(TOP / f"tests/tiny/{script}.py"), str(directory), json.dumps(wanted)],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert made.returncode == 0, made.stdout
    return directory


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a libnvidia-ml.so.1 that is built for the tests."""
    directory = tmp_path_factory.mktemp("nvml")
    gpu_hosts.build(directory)
    return directory


@pytest.fixture(scope="session")
def engines_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of code in which workers find the engines made for tests too."""
    return made.code(tmp_path_factory.mktemp("made"))


@pytest.fixture
def gpu_host(nvml_library: Path, tmp_path: Path) -> GpuHost:
    return GpuHost(nvml_library, tmp_path)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, state_dir: Path) -> Iterator[Daemon]:
    """One daemon for a module's tests, which must not depend on what the others left loaded."""
    with running(tmp_path_factory.mktemp("daemon"), state_dir) as started:
        yield started
