"""The book of footprints: what it keeps over a restart, and what a bad file or a bad disk does to it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod import footprints
from audiod.footprints import FootprintBook, fingerprint
from audiod.models import catalogue
from audiod.models.catalogue import ModelEntry
from audiod.residency.footprint import Footprint

MIB = 2**20
LEARNT = Footprint(300 * MIB, 190 * MIB, load_s=0.6, service_s=1.5, unit_s=0.1, peaks={0: MIB, 7: 40 * MIB})
ENTRY = """
id = "m"
engine = "e"
runtime = "r"
task = "speak"
[[weights]]
name = "weights"
disk_bytes = "1MiB"
[[weights.sources]]
kind = "hub"
repo = "o/n"
revision = "0123456789012345678901234567890123456789"
files."model.bin" = "0123456789012345678901234567890123456789012345678901234567890123"
"""


def entry(change: Callable[[str], str] = lambda text: text) -> ModelEntry:
    return catalogue.parse(change(ENTRY), "m.toml")


async def written(directory: Path) -> Path:
    """A good file with one footprint in it."""
    book = FootprintBook.read(directory)
    book.put("m", "cpu", "f", LEARNT)
    await book.save()
    return directory / footprints.FILE


async def test_what_was_learnt_is_there_after_a_restart(tmp_path: Path) -> None:
    await written(tmp_path)
    book = FootprintBook.read(tmp_path)
    assert book.get("m", "cpu", "f") == LEARNT
    assert book.get("m", "cuda:0", "f") is None
    assert [file.name for file in tmp_path.iterdir()] == [footprints.FILE]


async def test_what_was_learnt_since_is_written_as_it_is_at_the_save(tmp_path: Path) -> None:
    book = FootprintBook.read(tmp_path)
    growing = Footprint(10, 20)
    book.put("m", "cpu", "f", growing)
    growing.learn_work(100.0, 7 * MIB)
    await book.save()
    found = FootprintBook.read(tmp_path).get("m", "cpu", "f")
    assert found is not None
    assert found.work_bytes(100.0) == 7 * MIB


def test_what_was_learnt_of_a_staged_model_is_not_that_of_the_whole_one() -> None:
    told_apart = {fingerprint(entry(), "digest", 4, staged_bytes) for staged_bytes in (0, 2**30, 2**31)}
    assert len(told_apart) == 3


async def test_a_model_that_is_configured_otherwise_is_learnt_anew(tmp_path: Path) -> None:
    await written(tmp_path)
    book = FootprintBook.read(tmp_path)
    assert book.get("m", "cpu", "other") is None
    assert book.get("m", "cpu", "f") is None, "what belongs to nothing any more is not kept"
    await book.save()
    assert FootprintBook.read(tmp_path).get("m", "cpu", "f") is None


def test_a_first_start_is_nothing_to_warn_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert FootprintBook.read(tmp_path).get("m", "cpu", "f") is None
    assert not caplog.records


def of_another_version(text: str) -> str:
    return json.dumps(json.loads(text) | {"version": footprints.VERSION + 1})


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: text + "}",
        lambda text: "[]",
        lambda text: '{"other": ' + "[" * 100_000,
        lambda text: "null",
        lambda text: text.replace('"peaks"', '"peaks": 3, "other"'),
        lambda text: text.replace(f"{300 * MIB}", "1e400"),
        lambda text: text.replace('"m"', "17"),
        of_another_version,
        lambda text: json.dumps({"version": footprints.VERSION + 1, "models": {}}),
        lambda text: text + " " * 17 * MIB,
    ],
)
async def test_a_file_that_cannot_be_understood_costs_a_warning_and_what_was_learnt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[str], str]
) -> None:
    file = await written(tmp_path)
    file.write_text(damage(file.read_text()))
    book = FootprintBook.read(tmp_path)
    assert book.get("m", "cpu", "f") is None
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(file) in caplog.text
    book.put("m", "cpu", "f", LEARNT)
    await book.save()
    assert FootprintBook.read(tmp_path).get("m", "cpu", "f") == LEARNT, "and it is good again from now on"


async def test_bytes_that_are_no_text_are_a_damaged_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (await written(tmp_path)).write_bytes(b"\xff\xfe\x00")
    assert FootprintBook.read(tmp_path).get("m", "cpu", "f") is None
    assert len(caplog.records) == 1


def test_a_file_that_may_not_be_read_is_a_damaged_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / footprints.FILE).mkdir()
    assert FootprintBook.read(tmp_path).get("m", "cpu", "f") is None
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"ready_bytes": -1},
        {"parked_bytes": 2**40 + 1},
        {"load_s": -0.1},
        {"start_s": -0.1},
        {"service_s": math.inf},
        {"unit_s": math.nan},
        {"peaks": {3: -5}},
        {"peaks": {-1: 5}},
        {"peaks": {2: 2**63}},
    ],
)
async def test_a_value_that_cannot_be_is_dropped_and_the_others_stay(tmp_path: Path, change: dict[str, object]) -> None:
    file = await written(tmp_path)
    book = FootprintBook.read(tmp_path)
    mad = msgspec.structs.replace(LEARNT, **change)
    book.put("mad", "cpu", "f", mad)
    await book.save()
    if all(not isinstance(value, float) for value in change.values()):  # JSON has no infinity
        page = json.loads(file.read_text())
        record = msgspec.to_builtins(
            {"model": "mad", "device": "cpu", "fingerprint": "f", "footprint": mad}, str_keys=True
        )
        file.write_text(json.dumps(page | {"footprints": [*page["footprints"], record]}))
    found = FootprintBook.read(tmp_path)
    assert found.get("mad", "cpu", "f") is None
    assert found.get("m", "cpu", "f") == LEARNT


@given(start=st.integers(0, 300), content=st.binary(max_size=40))
def test_no_content_whatever_keeps_the_daemon_from_starting(
    tmp_path_factory: pytest.TempPathFactory, start: int, content: bytes
) -> None:
    directory = tmp_path_factory.getbasetemp()
    good = msgspec.json.encode(
        {"version": 1, "footprints": [{"model": "m", "device": "cpu", "fingerprint": "f", "footprint": LEARNT}]}
    )
    (directory / footprints.FILE).write_bytes(good[:start] + content + good[start + len(content) :])
    FootprintBook.read(directory).get("m", "cpu", "f")


# --- disks that take nothing ------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one page, which a directory fills."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("nothing may be mounted here")
    (tmp_path / "filling").write_bytes(b"x" * 4096)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


async def test_a_full_disk_costs_one_warning_and_loses_nothing(
    full_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    book = FootprintBook.read(full_disk)
    for _ in range(3):
        book.put("m", "cpu", "f", LEARNT)
        await book.save()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No space left" in caplog.text
    assert [file.name for file in full_disk.iterdir()] == ["filling"]
    assert book.get("m", "cpu", "f") == LEARNT
    (full_disk / "filling").unlink()
    await book.save()
    assert FootprintBook.read(full_disk).get("m", "cpu", "f") == LEARNT


async def test_a_directory_that_is_gone_costs_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = FootprintBook.read(tmp_path / "gone")
    for _ in range(2):
        book.put("m", "cpu", "f", LEARNT)
        await book.save()
    assert len(caplog.records) == 1


async def test_the_old_file_stays_where_the_new_one_cannot_be_written(full_disk: Path) -> None:
    (full_disk / "filling").unlink()
    file = await written(full_disk)
    before = file.read_text()
    book = FootprintBook.read(full_disk)
    for number in range(100):
        book.put(f"model-{number}", "cpu", "f", LEARNT)
    await book.save()
    assert file.read_text() == before


async def test_nothing_is_written_where_nothing_was_learnt(tmp_path: Path) -> None:
    file = await written(tmp_path)
    book = FootprintBook.read(tmp_path)
    file.unlink()
    assert book.get("m", "cpu", "f") == LEARNT
    await book.save()
    assert not file.exists()


# --- whose footprint it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('engine = "e"', 'engine = "f"'),
        lambda text: text.replace('runtime = "r"', 'runtime = "s"'),
        lambda text: text.replace('"o/n"', '"o/m"'),
        lambda text: text.replace('revision = "0', 'revision = "1'),
        lambda text: f"concurrency = 2\n{text}",
        lambda text: f'path = "/models/m"\n{text}',
        lambda text: f'options.compute_type = "float32"\n{text}',
    ],
)
def test_what_changes_the_appetite_is_another_model(change: Callable[[str], str]) -> None:
    assert fingerprint(entry(change), "lock", 2) != fingerprint(entry(), "lock", 2)


def test_the_runtime_s_lock_and_the_threads_count_too() -> None:
    kinds = {fingerprint(entry(), "lock", 2), fingerprint(entry(), "lock-2", 2), fingerprint(entry(), "lock", 3)}
    assert len(kinds) == 3


@pytest.mark.parametrize(
    "more",
    [
        'description = "better"',
        "pinned = true",
        'keep_alive = "1h"',
        'ready_bytes = "1GiB"',
        'device = "cuda:1"',
        "threads = 2",
    ],
)
def test_what_does_not_is_the_same_model(more: str) -> None:
    assert fingerprint(entry(lambda text: f"{more}\n{text}"), "lock", 2) == fingerprint(entry(), "lock", 2)


def test_a_fingerprint_is_the_same_in_another_process() -> None:
    code = (
        "import sys; from pathlib import Path; from audiod import footprints; from audiod.models import catalogue;"
        "print(footprints.fingerprint(catalogue.parse(sys.argv[1], 'm'), 'lock', 2))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, ENTRY],
        capture_output=True, text=True, check=True, cwd=Path(footprints.__file__).parents[1],
    )  # fmt: skip
    assert ran.stdout.strip() == fingerprint(entry(), "lock", 2)
