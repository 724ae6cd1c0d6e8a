"""The store of voices: whole records whatever happens, ids of its own, bounds, pages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.voices import Consent, StoredVoice, VoiceStore
from audioproto.errors import StoreFailed, StoreFull
from audioproto.types import VoiceKind
from daemons import TOP


def store(directory: Path, limit: int = 100, disk_bytes: int = 10**6) -> VoiceStore:
    return VoiceStore(directory / "voices", limit, disk_bytes)


def add_consent(there: VoiceStore, name: str = "Anna", audio: bytes = b"RIFF") -> Consent:
    return there.add(there.consents, lambda identity: Consent(identity, name, "en-US", len(audio)), audio)


def add_voice(there: VoiceStore, audio: bytes = b"RIFF", **more: Any) -> StoredVoice:
    def make(identity: str) -> StoredVoice:
        return StoredVoice(identity, "Anna", audio_bytes=len(audio), kind=VoiceKind.AUDIO_SAMPLE, **more)

    return there.add(there.voices, make, audio)


def files(directory: Path) -> set[str]:
    return {file.name for file in directory.rglob("*") if file.is_file()}


def test_what_was_stored_is_there_after_a_restart(tmp_path: Path) -> None:
    first = store(tmp_path)
    consent = add_consent(first)
    voice = add_voice(first, b"RIFF" * 10, consent=consent.id, transcript="Hello.")
    again = store(tmp_path)
    assert again.consents.records == {consent.id: consent}
    assert again.voices.records == {voice.id: voice}
    assert again.voices.audio_file(voice.id).read_bytes() == b"RIFF" * 10
    assert again.kind_of(voice.id) is VoiceKind.AUDIO_SAMPLE
    assert again.kind_of("voice_none") is None


def test_only_the_owner_may_read_recordings(tmp_path: Path) -> None:
    add_voice(store(tmp_path))
    assert (tmp_path / "voices" / "samples").stat().st_mode & 0o077 == 0


def test_what_was_deleted_stays_deleted_and_leaves_nothing(tmp_path: Path) -> None:
    there = store(tmp_path)
    consent, voice = add_consent(there), add_voice(there)
    assert there.remove(there.voices, voice.id)
    assert not there.remove(there.voices, voice.id)
    assert not there.remove(there.voices, consent.id)
    assert files(tmp_path) == {f"{consent.id}.json", f"{consent.id}.wav"}
    assert not store(tmp_path).voices.records


def test_another_name_keeps_the_rest(tmp_path: Path) -> None:
    there = store(tmp_path)
    consent = add_consent(there)
    renamed = there.rename(there.consents, consent.id, "Berta")
    assert renamed is not None
    assert (renamed.name, renamed.id, renamed.language) == ("Berta", consent.id, "en-US")
    assert store(tmp_path).consents.records == {consent.id: renamed}
    assert there.rename(there.consents, "cons_none", "x") is None


def test_ids_grow_whatever_the_clock_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = store(tmp_path)
    made = [add_consent(there).id]
    monkeypatch.setattr("audiod.voices.time.time_ns", lambda: 10**18)
    made += [add_consent(there).id for _ in range(3)]
    made.append(add_consent(store(tmp_path)).id)
    assert made == sorted(set(made))


@pytest.mark.parametrize("name", ["../../etc/passwd", "voice_", "", "voice_x/../y", "a" * 500])
def test_no_id_of_a_client_becomes_a_path(tmp_path: Path, name: str) -> None:
    there = store(tmp_path)
    add_voice(there)
    before = files(tmp_path)
    assert there.kind_of(name) is None
    assert not there.remove(there.voices, name)
    assert there.rename(there.voices, name, "x") is None
    assert files(tmp_path) == before


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_there_are_never_more_than_may_be(tmp_path: Path) -> None:
    there = store(tmp_path, limit=2)
    first = add_voice(there)
    add_voice(there)
    with pytest.raises(StoreFull, match="2 are stored"):
        add_voice(there)
    add_consent(there)
    there.remove(there.voices, first.id)
    add_voice(there)


def test_recordings_never_take_more_than_they_may(tmp_path: Path) -> None:
    there = store(tmp_path, disk_bytes=100)
    add_consent(there, audio=b"x" * 60)
    with pytest.raises(StoreFull):
        add_voice(there, b"x" * 41)
    add_voice(there, b"x" * 40)
    assert sum(file.stat().st_size for file in tmp_path.rglob("*.wav")) == 100


def test_a_disk_that_cannot_be_written_is_said_and_changes_nothing(tmp_path: Path) -> None:
    there = store(tmp_path)
    voice = add_voice(there)
    (tmp_path / "voices" / "consents").write_text("in the way")
    with pytest.raises(StoreFailed, match="cannot be changed"):
        add_consent(there)
    assert not there.consents.records
    assert there.voices.records == {voice.id: voice}


# --- what is broken ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"id": "voice_x", "name": "x", "kind": "prompt"}'])
def test_a_broken_record_is_reported_and_left_out(tmp_path: Path, content: bytes) -> None:
    there = store(tmp_path)
    good, bad = add_voice(there), add_voice(there)
    record = tmp_path / "voices" / "samples" / f"{bad.id}.json"
    record.write_bytes(content)
    again = store(tmp_path)
    assert list(again.voices.records) == [good.id]
    assert len(again.broken) == 1
    assert bad.id in again.broken[0]
    assert record.read_bytes() == content, "somebody may still mend it"


@pytest.mark.parametrize("recording", [None, b"RI"])
def test_a_record_without_its_whole_recording_is_left_out(tmp_path: Path, recording: bytes | None) -> None:
    voice = add_voice(store(tmp_path))
    file = tmp_path / "voices" / "samples" / f"{voice.id}.wav"
    file.unlink() if recording is None else file.write_bytes(recording)
    again = store(tmp_path)
    assert not again.voices.records
    assert len(again.broken) == 1


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    samples = tmp_path / "voices" / "samples"
    samples.mkdir(parents=True)
    for name in (".hidden", "README", "other.wav", "voice_short.json"):
        (samples / name).write_text("x")
    there = store(tmp_path)
    assert (there.broken, dict(there.voices.records)) == ([], {})
    assert len(files(tmp_path)) == 4


KILLED = """
import os, sys
from pathlib import Path
from audiod.voices import Consent, VoiceStore

there = VoiceStore(Path(sys.argv[1], "voices"), 100, 10**6)
left = int(sys.argv[2])

def step(real):
    def instead(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return real(*arguments, **named)
    return instead

os.fsync = step(os.fsync)
Path.replace = step(Path.replace)
Path.unlink = step(Path.unlink)
Path.open = step(Path.open)
first = next(iter(there.consents.records))
there.add(there.consents, lambda identity: Consent(identity, "Berta", "en-US", 4), b"RIFF")
there.rename(there.consents, first, "Clara")
there.remove(there.consents, first)
os._exit(0)
"""


def test_killed_at_any_step_only_whole_records_are_left(tmp_path: Path) -> None:
    """Every opening, syncing, renaming and removing of a file is the last thing that some process does."""
    outcomes = []
    for steps in range(100):
        directory = tmp_path / str(steps)
        first = add_consent(store(directory))
        command = [sys.executable, "-c", KILLED, str(directory), str(steps)]
        ended = subprocess.run(command, env={"PYTHONPATH": str(TOP / "daemon")}, capture_output=True, text=True)
        assert ended.returncode in (0, 9), ended.stderr
        after = store(directory)
        assert after.broken == []
        names = {record.name for record in after.consents.records.values()}
        outcomes.append(frozenset(names))
        for record in after.consents.records.values():
            assert after.consents.audio_file(record.id).read_bytes() == b"RIFF"
        expected = {f"{record}.{kind}" for record in after.consents.records for kind in ("json", "wav")}
        assert files(directory) == expected, "nothing half-made stays"
        assert first.id in after.consents.records or names == {"Berta"}
        if ended.returncode == 0:
            break
    assert outcomes[0] == {"Anna"}
    assert outcomes[-1] == {"Berta"}
    assert set(outcomes) == {
        *(frozenset({"Anna"}), frozenset({"Anna", "Berta"}), frozenset({"Clara", "Berta"}), frozenset({"Berta"}))
    }


# --- pages ------------------------------------------------------------------------------------------------------------


@given(count=st.integers(0, 30), limit=st.integers(1, 12), data=st.data())
def test_pages_give_every_record_once_whatever_is_added_or_deleted(
    tmp_path_factory: pytest.TempPathFactory, count: int, limit: int, data: st.DataObject
) -> None:
    there = store(tmp_path_factory.mktemp("pages"))
    shelf = there.consents
    shelf.records = {identity: Consent(identity, "x", "en") for identity in _ids(there, count)}
    present = set(shelf.records)
    deleted: set[str] = set()
    seen: list[str] = []
    after, more = "", True
    while more:
        page, more = shelf.page(after, limit)
        assert len(page) <= limit
        assert page or not more
        seen += [record.id for record in page]
        after = seen[-1] if seen else ""
        gone = data.draw(st.sets(st.sampled_from(sorted(shelf.records)), max_size=3)) if shelf.records else set()
        added = _ids(there, data.draw(st.integers(0, 2)))
        deleted |= gone
        kept = {identity: record for identity, record in shelf.records.items() if identity not in gone}
        shelf.records = kept | {identity: Consent(identity, "x", "en") for identity in added}
    assert seen == sorted(set(seen), reverse=True)
    assert set(seen) <= present
    assert present - deleted <= set(seen)


def _ids(there: VoiceStore, count: int) -> list[str]:
    return [there.consents.new_id() for _ in range(count)]


@pytest.mark.parametrize("after", ["x", "voice_" + "0" * 32, "cons_", "cons_../x"])
def test_a_cursor_that_is_no_id_is_refused(tmp_path: Path, after: str) -> None:
    with pytest.raises(ValueError, match="no id of this list"):
        store(tmp_path).consents.page(after, 10)


# --- names, and what engines make of voices ---------------------------------------------------------------------------


def named(there: VoiceStore, name: str) -> StoredVoice:
    return there.add(there.voices, lambda identity: StoredVoice(identity, name, kind=VoiceKind.AUDIO_SAMPLE))


def test_a_voice_is_found_by_its_id_and_the_newest_by_its_name(tmp_path: Path) -> None:
    there = store(tmp_path)
    first, second = named(there, "Änne"), named(there, "änne")
    assert there.find(first.id) == first
    assert there.find("ÄNNE") == second
    assert (there.find(""), there.find("Än")) == (None, None)
    there.remove(there.voices, second.id)
    assert there.find("ÄNNE") == first


def make(directory: Path, name: str) -> Path:
    file = directory / "voices" / "made" / "some-model" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"made")
    return file


def test_what_engines_made_of_a_voice_goes_with_it(tmp_path: Path) -> None:
    there = store(tmp_path)
    gone, kept = add_voice(there), add_voice(there)
    names = (f"{gone.id}.safetensors", f"{gone.id}.json", f".{gone.id}.safetensors.17")
    files = [make(tmp_path, name) for name in names]
    other = make(tmp_path, f"{kept.id}.safetensors")
    there.remove(there.voices, gone.id)
    assert [file.exists() for file in files] == [False, False, False]
    assert other.exists()


@pytest.mark.parametrize("what", ["recording", "made"])
def test_a_voice_that_cannot_be_removed_wholly_is_still_there(tmp_path: Path, what: str) -> None:
    there = store(tmp_path)
    voice = add_voice(there)
    file = there.voices.audio_file(voice.id) if what == "recording" else make(tmp_path, f"{voice.id}.safetensors")
    file.unlink()
    file.mkdir()  # which not even root can unlink
    with pytest.raises(StoreFailed, match="cannot be changed"):
        there.remove(there.voices, voice.id)
    assert there.find(voice.id) == voice
    file.rmdir()
    assert there.remove(there.voices, voice.id)
    assert files(tmp_path) == set()
    assert not store(tmp_path).voices.records


def test_what_was_made_of_voices_that_are_gone_is_removed_at_the_start(tmp_path: Path) -> None:
    there = store(tmp_path)
    kept = add_voice(there)
    left = [make(tmp_path, "voice_of_nobody.safetensors"), make(tmp_path, f".{kept.id}.safetensors.17")]
    made = make(tmp_path, f"{kept.id}.safetensors")
    store(tmp_path)
    assert [file.exists() for file in left] == [False, False]
    assert made.exists()
