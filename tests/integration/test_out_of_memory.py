"""The kernel kills a worker for want of memory: what is told of it. Real processes in a control group with a limit."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from audiod.supervisor.cgroup import Group
from audiod.supervisor.worker import Ending, Worker
from audiod.supervisor.zygote import Launch, Zygote
from audiod.tasks import Tasks
from audioproto.errors import OutOfMemory, WorkerDied
from audioproto.types import Death, EngineSpec
from audioproto.worker import Synthesize
from control_groups import limit, memory_group
from daemons import TOP

MIB = 2**20
LIMIT_BYTES = 300 * MIB
HOLDS_MIB = 100
"""What the engine's zygote holds, and its workers share."""

OUT_OF_MEMORY = Ending("was killed by the kernel because memory had run out", Death.OUT_OF_MEMORY)

ENGINE = f"""
import numpy as np
from audioproto.types import Hold
from audioworker import engine

class Engine(engine.Engine, engine.Synthesizer):
    hold = Hold.WEIGHTS
    sample_rate = 24_000

    def prepare(self):
        self.weights = bytearray(b"x") * ({HOLDS_MIB} << 20)

    def load(self):
        self.loaded = bytearray(b"x") * (self.spec.options.get("load_mib", 1) << 20)

    def synthesize(self, request, recordings, cancelled):
        taken = bytearray(b"x") * (len(request.text) << 20)
        yield np.zeros(len(taken) >> 20, np.float32)
"""
"""An engine that takes a MiB of memory for each character."""


class Model:
    """A model of that engine, whose processes are in a group that may hold LIMIT_BYTES."""

    def __init__(self, code: Path, group: Path, **options: int) -> None:
        (code / "cache").mkdir()
        spec = EngineSpec("hungry", "hungry", str(code), options=options)
        self.group = group
        self.launch = Launch(Path(sys.executable), code, code / "cache", spec, Group(group))
        self.deaths: list[Ending] = []
        self._watchers = Tasks()

    async def __aenter__(self) -> Model:
        await self._watchers.__aenter__()
        self.zygote = await Zygote.start(self.launch, self._watch, 60.0)
        self.zygote.on_death = self.deaths.append
        return self

    def _watch(self, zygote: Zygote) -> None:
        self._watchers.start(zygote.watch(), "watch")

    async def __aexit__(self, *exc_info: object) -> None:
        await self.zygote.stop()
        await self._watchers.__aexit__(None, None, None)
        self.group.mkdir()  # gone with the zygote, but whoever made it for the test removes it

    async def load(self) -> Worker:
        return await self.zygote.fork(self.deaths.append, 60.0)

    async def speak(self, worker: Worker, mib: int) -> None:
        async with worker.run(Synthesize(0, "x" * mib, "")) as job:
            async for _ in job:
                pass


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """Our code, with one engine more."""
    (tmp_path / "audioproto").symlink_to(TOP / "daemon" / "audioproto")
    for file in (TOP / "daemon" / "audioworker").rglob("*.py"):
        link = tmp_path / file.relative_to(TOP / "daemon")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    (tmp_path / "audioworker" / "engines" / "hungry.py").write_text(ENGINE)
    return tmp_path


async def test_a_worker_that_the_kernel_killed_for_memory_is_told_from_one_that_somebody_killed(code: Path) -> None:
    with memory_group(LIMIT_BYTES) as group:
        async with Model(code, group) as model:
            worker = await model.load()
            await model.speak(worker, 50)
            os.kill(worker.pid, signal.SIGKILL)
            assert (await worker.dead).death is Death.KILLED

            worker = await model.load()
            with pytest.raises(WorkerDied):
                await model.speak(worker, 500)
            assert await worker.dead == OUT_OF_MEMORY

            worker = await model.load()
            await model.speak(worker, 50)
            os.kill(worker.pid, signal.SIGKILL)
            assert (await worker.dead).death is Death.KILLED, "an old kill is not counted twice"
        assert [ending.death for ending in model.deaths] == [Death.KILLED, Death.OUT_OF_MEMORY, Death.KILLED]


async def test_a_load_for_which_there_is_no_memory_is_an_error_of_its_own(code: Path) -> None:
    with memory_group(LIMIT_BYTES) as group:
        async with Model(code, group, load_mib=500) as model:
            with pytest.raises(OutOfMemory, match="while loading: it was killed by the kernel because memory"):
                await model.load()
        assert model.deaths == [], "a load that fails is told by its error"


async def test_a_zygote_that_is_killed_for_memory_says_so_while_it_starts_and_later(code: Path) -> None:
    with memory_group(LIMIT_BYTES) as group:
        async with Model(code, group) as model:
            (Path("/proc") / str(model.zygote.pid) / "oom_score_adj").write_text("1000")
            worker = await model.load()
            with pytest.raises(WorkerDied):
                await model.speak(worker, 500)
            assert await worker.dead == OUT_OF_MEMORY
            assert model.deaths == [OUT_OF_MEMORY], "the worker's end is the zygote's consequence"
        limit(group, HOLDS_MIB // 2 * MIB)
        (code / "cache").rmdir()
        with pytest.raises(OutOfMemory, match="its zygote was killed by the kernel because memory had run out"):
            await Model(code, group).__aenter__()
        group.mkdir()
