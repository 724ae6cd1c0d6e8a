"""Which model answers to a name, and which one of an alias's models speaks a text."""

from __future__ import annotations

import msgspec
import pytest

from audiod.models.catalogue import ModelEntry
from audiod.models.library import Library
from audioproto.errors import (
    AudiodError,
    ModelNotFound,
    ModelNotInstalled,
    UnsupportedTask,
    VoiceNotFound,
    VoiceNotSpoken,
)
from audioproto.types import VoiceKind

ALIASES = {"tts-1": ["hibari", "kokoro-82m"], "whisper-1": ["whisper-base"], "nothing": ["unknown"]}


def library(entries: dict[str, ModelEntry], *missing: str) -> Library:
    return Library(entries, ALIASES, lambda entry: "weights" if entry.id in missing else "")


@pytest.mark.parametrize(
    ("name", "voice", "text", "spoken_by"),
    [
        ("tts-1", "alloy", "Hello.", ("hibari", "")),
        ("tts-1", "alloy", "你好。", ("kokoro-82m", "")),
        ("tts-1", "alloy", "说 Hello。", ("kokoro-82m", "")),
        ("tts-1", "zf_xiaobei", "Hello.", ("kokoro-82m", "zf_xiaobei")),
        ("tts-1", "", "123", ("hibari", "")),
        ("hibari", "", "你好。", ("hibari", "")),
        ("kokoro-82m", "", "Hello.", ("kokoro-82m", "")),
    ],
)
def test_the_text_s_script_and_the_voice_choose_the_model(
    entries: dict[str, ModelEntry], name: str, voice: str, text: str, spoken_by: tuple[str, str]
) -> None:
    entry, chosen = library(entries).speaker(name, voice, text)
    assert entry.id == spoken_by[0]
    assert chosen in (spoken_by[1], entry.voice_aliases.get(voice, ""))


def test_the_next_model_of_an_alias_stands_in_for_one_that_is_not_installed(entries: dict[str, ModelEntry]) -> None:
    assert library(entries, "hibari").speaker("tts-1", "alloy", "Hello.")[0].id == "kokoro-82m"


def test_a_script_that_no_installed_model_speaks_names_the_one_that_would(entries: dict[str, ModelEntry]) -> None:
    with pytest.raises(ModelNotInstalled) as refused:
        library(entries, "kokoro-82m").speaker("tts-1", "alloy", "你好。")
    assert refused.value.hint == "audioctl models pull kokoro-82m"


def test_a_model_that_lacks_its_runtime_alone_names_the_command_that_builds_it(entries: dict[str, ModelEntry]) -> None:
    without = Library(entries, ALIASES, lambda entry: "runtime" if entry.id == "kokoro-82m" else "")
    with pytest.raises(ModelNotInstalled) as refused:
        without.require_installed("kokoro-82m")
    assert refused.value.hint == "audioctl runtime install kokoro"


@pytest.mark.parametrize(
    ("name", "voice", "error"),
    [
        ("nonesuch", "", ModelNotFound),
        ("nothing", "", ModelNotFound),
        ("whisper-1", "", UnsupportedTask),
        ("tts-1", "nobody", VoiceNotFound),
        ("hibari", "zf_xiaobei", VoiceNotFound),
    ],
)
def test_what_cannot_speak_says_why(
    entries: dict[str, ModelEntry], name: str, voice: str, error: type[AudiodError]
) -> None:
    with pytest.raises(error):
        library(entries).speaker(name, voice, "Hello.")


def test_the_list_of_models_has_what_can_be_used_now(entries: dict[str, ModelEntry]) -> None:
    installed = ["whisper-base", "hibari"]
    names = library(entries, *(entries.keys() - set(installed))).usable_names()
    assert set(names) == {*installed, "whisper-1", "tts-1"}
    assert "tts-1" not in library(entries, "kokoro-82m", "hibari").usable_names()


def test_what_is_installed_later_is_seen_when_looked_for_again(entries: dict[str, ModelEntry]) -> None:
    missing = {"hibari"}
    found = Library(entries, ALIASES, lambda entry: "weights" if entry.id in missing else "")
    missing.clear()
    with pytest.raises(ModelNotInstalled):
        found.require_installed("hibari")
    found.look_again()
    assert found.require_installed("hibari").id == "hibari"


# --- stored voices ----------------------------------------------------------------------------------------------------

STORED = {"voice_a": VoiceKind.AUDIO_SAMPLE, "voice_p": VoiceKind.PROMPT}


def with_cloning(entries: dict[str, ModelEntry], *able: str) -> Library:
    changed = {name: msgspec.structs.replace(entry, clones=name in able) for name, entry in entries.items()}
    return Library(changed, ALIASES, lambda entry: "", STORED.get)


def test_a_stored_voice_is_spoken_by_the_model_of_an_alias_that_can(entries: dict[str, ModelEntry]) -> None:
    entry, voice = with_cloning(entries, "kokoro-82m").speaker("tts-1", "voice_a", "Hello.")
    assert (entry.id, voice) == ("kokoro-82m", "voice_a")


@pytest.mark.parametrize(
    ("able", "model", "said"), [((), "tts-1", "can: none"), (("kokoro-82m",), "hibari", "can: kokoro-82m")]
)
def test_a_model_that_cannot_says_which_can(
    entries: dict[str, ModelEntry], able: tuple[str, ...], model: str, said: str
) -> None:
    with pytest.raises(VoiceNotSpoken, match=said) as refused:
        with_cloning(entries, *able).speaker(model, "voice_a", "Hello.")
    assert refused.value.hint == ""


def test_where_none_that_is_installed_can_the_one_to_install_is_named(entries: dict[str, ModelEntry]) -> None:
    able = {name: msgspec.structs.replace(entry, clones=name == "kokoro-82m") for name, entry in entries.items()}
    lacking = Library(able, ALIASES, lambda entry: "weights" if entry.id == "kokoro-82m" else "", STORED.get)
    for refusal in (
        lambda: lacking.speaker("hibari", "voice_a", "Hello."),
        lambda: lacking.imitator("hibari", "Hello."),
    ):
        with pytest.raises(VoiceNotSpoken, match="can: none") as refused:
            refusal()
        assert refused.value.hint == "audioctl models pull kokoro-82m"


def test_nothing_speaks_with_a_prompt_and_unknown_ids_are_unknown_voices(entries: dict[str, ModelEntry]) -> None:
    library = with_cloning(entries, "kokoro-82m")
    with pytest.raises(VoiceNotSpoken, match="made of a prompt"):
        library.speaker("tts-1", "voice_p", "Hello.")
    with pytest.raises(VoiceNotFound):
        library.speaker("tts-1", "voice_gone", "Hello.")


def test_an_aligner_that_is_not_installed_is_named_with_what_installs_it(entries: dict[str, ModelEntry]) -> None:
    assert library(entries).aligner().id == "qwen3-forced-aligner-0.6b"
    with pytest.raises(ModelNotInstalled) as refused:
        library(entries, *entries).aligner()
    assert refused.value.hint == "audioctl models pull qwen3-forced-aligner-0.6b"
    with pytest.raises(UnsupportedTask):
        library(entries).transcriber("qwen3-forced-aligner-0.6b")


# --- models that only imitate -----------------------------------------------------------------------------------------

ALIAS = {"tts": ["imitator", "hibari"], "tts-2": ["hibari", "imitator"]}


def with_imitator(entries: dict[str, ModelEntry], *names: str, missing: str = "") -> Library:
    """A first model without a voice of its own; `names` are stored ones'."""
    hibari = entries["hibari"]
    imitator = msgspec.structs.replace(
        hibari, id="imitator", voices=[], voice_aliases={}, default_voice="", clones=True, emotions=True, embedded=False
    )
    stored = dict.fromkeys(names, VoiceKind.AUDIO_SAMPLE)
    return Library(
        {"imitator": imitator, "hibari": hibari}, ALIAS, lambda e: "weights" if e.id == missing else "", stored.get
    )


def test_a_name_that_anybody_has_is_spoken_by_whoever_has_a_voice_of_its_own(entries: dict[str, ModelEntry]) -> None:
    for voice in ("", "alloy"):
        assert with_imitator(entries).speaker("tts", voice, "Hello.")[0].id == "hibari"
    assert with_imitator(entries, "alloy").speaker("tts", "alloy", "Hello.")[0].id == "imitator"
    assert with_imitator(entries, "alloy").speaker("tts-2", "alloy", "Hello.")[0].id == "hibari"
    entry, voice = with_imitator(entries, "anna").speaker("tts-2", "anna", "Hello.")
    assert (entry.id, voice) == ("imitator", "anna")


def test_a_model_without_a_voice_says_how_to_give_it_one(entries: dict[str, ModelEntry]) -> None:
    for voice in ("", "alloy", "anna"):
        with pytest.raises(VoiceNotFound) as refused:
            with_imitator(entries).speaker("imitator", voice, "Hello.")
        assert refused.value.hint == "audioctl voices add NAME FILE --consent FILE --language TAG"


def test_a_recording_is_spoken_by_the_model_of_an_alias_that_can(entries: dict[str, ModelEntry]) -> None:
    assert with_imitator(entries).imitator("tts-2", "Hello.").id == "imitator"
    with pytest.raises(VoiceNotSpoken, match="can: imitator"):
        with_imitator(entries).imitator("hibari", "Hello.")


def test_a_model_of_an_alias_that_is_not_there_and_need_not_be_is_not_meant(entries: dict[str, ModelEntry]) -> None:
    with pytest.raises(VoiceNotSpoken, match="can: none"):
        with_imitator(entries, "anna", missing="imitator").speaker("tts-2", "anna", "Hello.")
    with pytest.raises(ModelNotInstalled):
        with_imitator(entries, "anna", missing="imitator").speaker("imitator", "anna", "Hello.")
    with pytest.raises(ModelNotInstalled):
        with_imitator(entries, missing="hibari").speaker("tts-2", "alloy", "Hello.")


def test_a_language_is_spoken_by_the_model_of_an_alias_that_can(entries: dict[str, ModelEntry]) -> None:
    there = with_imitator(entries, "alloy")
    there.entries["imitator"] = msgspec.structs.replace(there.entries["imitator"], languages=["es"])
    assert there.speaker("tts-2", "alloy", "2026", language="es")[0].id == "imitator"
    assert there.speaker("tts-2", "alloy", "2026", language="en")[0].id == "hibari"


def test_arabic_is_spoken_by_the_model_of_an_alias_that_can(entries: dict[str, ModelEntry]) -> None:
    there = with_imitator(entries, "alloy")
    there.entries["imitator"] = msgspec.structs.replace(there.entries["imitator"], scripts=["latin", "arabic"])
    assert there.speaker("tts-2", "alloy", "مرحبا")[0].id == "imitator"


def test_an_emotion_is_spoken_by_the_model_of_an_alias_that_can(entries: dict[str, ModelEntry]) -> None:
    there = with_imitator(entries, "alloy")
    assert there.speaker("tts-2", "alloy", "Hello.", emotion=True)[0].id == "imitator"
    assert there.speaker("tts-2", "alloy", "Hello.")[0].id == "hibari"
