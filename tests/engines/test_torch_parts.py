"""What engines on torch share, in a real runtime: parts that come to a device and leave it, voices that are kept."""

from __future__ import annotations

import json
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemons import TOP

TELL = """
import json, sys
import torch
def tell(found): print(json.dumps(found))
"""


@pytest.fixture
def told(runtime_python: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Any]:
    """What a program `tell`s in the runtime of indextts; it works in a directory of its own."""

    def run(program: str) -> Any:
        command = [str(runtime_python("indextts2")), "-c", TELL + textwrap.dedent(program)]
        environment = {"PYTHONPATH": str(TOP / "daemon"), "HOME": str(tmp_path)}
        ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])

    return run


def test_parts_leave_for_those_that_are_needed_the_longest_unneeded_first(told: Callable[[str], Any]) -> None:
    program = """
    from audioworker.device import Copier, Staging
    staging = Staging(Copier(torch.device("cpu")), 2 * 4000)
    for name in "abc":
        staging.add(name, torch.nn.Linear(999, 1))
    staging.fill()
    seen = [staging.resident]
    for needed in ("a", "b", "c", "ab"):
        came = staging.need(*needed)
        seen.append([came, staging.resident])
    tell(seen)
    """
    assert told(program) == [["c", "b"], [4000, ["b", "a"]], [0, ["a", "b"]], [4000, ["b", "c"]], [4000, ["a", "b"]]]


def test_a_part_for_which_there_was_no_room_is_not_there_in_half(told: Callable[[str], Any]) -> None:
    program = """
    from audioworker.device import Copier, Staging
    class Full(Copier):
        room = 1
        def copy(self, tensor):
            self.room -= 1
            if self.room < 0:
                raise torch.OutOfMemoryError("no room")
            return super().copy(tensor)
    copier = Full(torch.device("cpu"))
    module = torch.nn.Linear(10, 10)
    before = [id(parameter) for parameter in module.parameters()]
    staging = Staging(copier, 0)
    staging.add("part", module)
    try:
        staging.need("part")
    except torch.OutOfMemoryError:
        half = [id(parameter) for parameter in module.parameters()] != before
    copier.room = 2
    tell([half, staging.resident_bytes, staging.need("part")])
    """
    assert told(program) == [False, 0, 440]


def test_a_voice_that_is_stored_after_it_was_spoken_with_is_kept(told: Callable[[str], Any]) -> None:
    program = """
    from audioworker.encodings import Encodings
    first = Encodings("made", "1")
    first.put("digest", "", {"style": torch.ones(3)})
    first.get("digest", "voice_a")
    later = Encodings("made", "1").get("digest", "voice_a")
    tell([later["style"].tolist(), Encodings("made", "2").get("digest", "voice_a")])
    """
    assert told(program) == [[1.0, 1.0, 1.0], None]


def test_a_disk_that_fills_up_while_a_voice_is_kept_leaves_no_half_of_it(told: Callable[[str], Any]) -> None:
    program = """
    import resource, signal
    from pathlib import Path
    from audioworker.encodings import Encodings
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    encodings = Encodings("made", "1")
    encodings.put("digest", "voice_a", {"mel": torch.ones(10_000)})
    tell([[file.name for file in Path("made").iterdir()], encodings.get("digest", "voice_a") is not None])
    """
    assert told(program) == [[], True]


def test_voices_may_be_asked_for_and_kept_by_several_threads(told: Callable[[str], Any]) -> None:
    program = """
    import threading
    from pathlib import Path
    from audioworker.encodings import Encodings
    sys.setswitchinterval(1e-6)
    encodings, failed = Encodings("made", "1"), []
    def work(seed):
        try:
            for number in range(300):
                recording = str((seed * 7 + number) % 12)
                if encodings.get(recording, "") is None:
                    encodings.put(recording, "voice" if number % 50 == 0 else "", {"style": torch.ones(3)})
        except BaseException as error:
            failed.append(repr(error))
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    tell([failed, [file.name for file in Path("made").iterdir()]])
    """
    assert told(program) == [[], ["voice.safetensors"]]


def test_numbers_and_quotes_are_read_in_the_language_around_them(
    tiny_indextts: Path, told: Callable[[str], Any]
) -> None:
    """An own sentence of digits has no letters to tell its language by, and wetext escapes what is quoted."""
    directory = tiny_indextts / "tiny"
    program = f"""
    from pathlib import Path
    from audioworker.indextts import checkpoint2
    checkpoint2.import_library()
    from audioworker.indextts.front2 import Front2
    front = Front2(Path({str(directory)!r}))
    def said(text):
        language = front.language("", text)
        return [ids for part, _ in front.parts(text, language, 300) for ids in part]
    def same(text, other):
        return said(text) == said(other)
    tell([
        same("How many are there? 42.", "How many are there? forty two."),
        same("有多少？42。", "有多少？四十二。"),
        same('"Hello," she said.', "'Hello,' she said."),
    ])
    """
    assert told(program) == [True, True, True]
