"""What a configuration comes to: which models are staged, and what an engine is told of its memory and its voices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod import config as configuration
from audiod import durable, plan
from audiod.api.auth import Keys
from audiod.footprints import FootprintBook
from audiod.models import catalogue
from audiod.models.catalogue import ModelEntry
from audiod.plan import Plan
from audiod.residency.footprint import Footprint
from audiod.runtimes import build
from audioproto.errors import ConfigInvalid
from gpu_hosts import GpuHost

GIB = 2**30


def entry(name: str, ready_gib: float, staged_gib: float = 0, *, pinned: bool = False, more: str = "") -> ModelEntry:
    text = f'id = "{name}"\nengine = "e"\nruntime = "tiny"\ntask = "speak"\n'
    text += f'ready_bytes = "{ready_gib}GiB"\nstaged_bytes = "{staged_gib}GiB"\npinned = {str(pinned).lower()}\n{more}'
    return catalogue.parse(text, name)


def staging(budget_gib: float, *entries: ModelEntry) -> dict[str, float]:
    """GiB that each model is staged in, on one device."""
    found = plan.staging(entries, dict.fromkeys([it.id for it in entries], "cuda:0"), {"cuda:0": int(budget_gib * GIB)})
    return {model: staged / GIB for model, staged in found.items()}


TTS, ASR = entry("tts", 6.5, 3.5), entry("asr", 2.5)


@pytest.mark.parametrize(
    ("budget_gib", "staged_gib"),
    [(8, 0), (6.5, 0), (6.25, 3.5), (3.75, 3.5), (3.5, 3.5), (2, 3.5)],
    ids=["8 GB", "just", "6 GB", "4 GB", "least", "too small, and refused by its least"],
)
def test_a_model_is_staged_where_it_has_no_room_as_a_whole(budget_gib: float, staged_gib: float) -> None:
    assert staging(budget_gib, TTS, ASR) == {"tts": staged_gib, "asr": 0}


def test_beside_a_model_that_is_pinned_it_is_staged_and_both_fit() -> None:
    pinned = entry("asr", 2.5, pinned=True)
    assert staging(7.75, TTS, pinned) == {"tts": 3.5, "asr": 0}
    assert staging(7.75, entry("tts", 6.5, 3.5, pinned=True), pinned) == {"tts": 3.5, "asr": 0}
    apart = plan.staging([TTS, pinned], {"tts": "cuda:0", "asr": "cpu"}, {"cuda:0": 7 * GIB, "cpu": 4 * GIB})
    assert apart == {"tts": 0, "asr": 0}


def test_pinned_models_that_can_be_staged_leave_room_for_each_other() -> None:
    first, second = entry("a", 6.25, 3.5, pinned=True), entry("b", 5, 2, pinned=True)
    assert staging(9, first, second) == {"a": 0, "b": 2}, "the first may be whole beside the other's least"
    assert staging(9, second, first) == {"a": 3.5, "b": 0}
    assert staging(6, first, second) == {"a": 3.5, "b": 2}
    assert staging(9, first, entry("b", 5, 2)) == {"a": 0, "b": 2}, "who is whole is counted whole"


def test_an_entry_may_decide_whether_it_is_staged() -> None:
    assert staging(8, entry("tts", 6.5, 3.5, more='staging = "full"\n')) == {"tts": 3.5}
    assert staging(4, entry("tts", 6.5, 3.5, more='staging = "off"\n')) == {"tts": 0}
    with pytest.raises(ConfigInvalid, match="staging: needs staged_bytes"):
        entry("asr", 2.5, more='staging = "full"\n')


MODELS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 11), st.booleans(), st.booleans()), max_size=5)


@given(MODELS, st.integers(1, 16))
def test_no_model_is_promised_more_than_it_needs_and_none_is_staged_without_need(
    drawn: list[tuple[int, int, bool, bool]], budget_gib: int
) -> None:
    entries = [
        entry(f"m{number}", ready, staged if staged < ready else 0, pinned=pinned)
        for number, (ready, staged, pinned, _) in enumerate(drawn)
    ]
    on = {f"m{number}": "cuda:0" if on_gpu else "cpu" for number, (_, _, _, on_gpu) in enumerate(drawn)}
    budgets = {"cuda:0": budget_gib * GIB, "cpu": 8 * GIB}
    found = plan.staging(entries, on, budgets)
    for it in entries:
        assert found[it.id] in (0, it.staged_bytes)
        beside = [other for other in entries if other is not it and other.pinned and on[other.id] == on[it.id]]
        if it.ready_bytes + sum(other.ready_bytes for other in beside) <= budgets[on[it.id]]:
            assert found[it.id] == 0
        if it.ready_bytes > budgets[on[it.id]]:
            assert found[it.id] == it.staged_bytes
    for device, budget_bytes in budgets.items():
        pinned = [it for it in entries if it.pinned and on[it.id] == device]
        if sum(it.staged_bytes or it.ready_bytes for it in pinned) <= budget_bytes:
            assert sum(found[it.id] or it.ready_bytes for it in pinned) <= budget_bytes


@pytest.mark.parametrize(("card", "staged_mib"), [("4040", 3481), ("5926", 3481), ("8188", 0), ("24564", 0)])
def test_indextts_is_staged_on_a_card_of_4_or_6_gb(gpu_host: GpuHost, card: str, staged_mib: int) -> None:
    """What NVIDIA's driver shows of a GTX 1050 Ti, an RTX 2060, an RTX 4060 and an RTX 4090, in MiB."""
    size_bytes = int(card) * 2**20
    gpu_host.show(f"gpu GPU-0 {size_bytes} {size_bytes} A card")
    code = """
    from audiod import config as configuration, plan
    from audiod.api.auth import Keys
    from audiod.footprints import FootprintBook
    made = plan.make(configuration.load(None, {}), Keys(), lambda voice: None, FootprintBook(Path("none"), []))
    profile = next(it for it in made.profiles if it.model == "indextts-2")
    fits = profile.footprint.ready_bytes <= made.limits.devices["cuda:0"]
    tell([profile.device, profile.staged_bytes // 2**20, fits])
    """
    assert gpu_host.run(code) == ["cuda:0", staged_mib, True]


# --- the whole plan ---------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(tmp_path: Path) -> Callable[[str], Plan]:
    """The plan of a host with a model that clones voices, under a budget of host memory for those on the CPU."""
    (tmp_path / "models.d").mkdir()
    (tmp_path / "weights").mkdir()
    text = 'id = "acme/tts"\nengine = "e"\nruntime = "hibari"\ntask = "speak"\ndevice = "cpu"\nclones = true\n'
    text += f'ready_bytes = "6GiB"\nstaged_bytes = "3GiB"\nparked_bytes = "1GiB"\npath = "{tmp_path / "weights"}"\n'
    (tmp_path / "models.d/tts.toml").write_text(text)
    (tmp_path / "models.d/plain.toml").write_text(text.replace("acme/tts", "plain").replace("clones = true\n", ""))

    def make(budget: str) -> Plan:
        file = tmp_path / "audiod.toml"
        file.write_text(f'[storage]\nstate_dir = "{tmp_path}"\n[residency]\nbudget = "{budget}"\n')
        config = configuration.load(file, {})
        locks = config.places.locks_dir
        directory = build._directory("hibari", [build.require_lock("hibari", locks)], config.places.runtimes_dir)
        (directory / "bin").mkdir(parents=True, exist_ok=True)
        (directory / "bin/python").touch()
        (directory / durable.STAMP).touch()
        return plan.make(config, Keys(()), lambda voice: None, FootprintBook.read(tmp_path))

    return make


def test_the_engine_of_a_staged_model_is_told_how_much_it_may_have(planned: Callable[[str], Plan]) -> None:
    for budget, staged_bytes, ready_bytes in (("8GiB", 0, 6 * GIB), ("4GiB", 3 * GIB, 3 * GIB)):
        made = planned(budget)
        profile = next(profile for profile in made.profiles if profile.model == "acme/tts")
        assert (profile.staged_bytes, profile.footprint.ready_bytes) == (staged_bytes, ready_bytes)
        assert made.launch("acme/tts", Path(), None).spec.memory_bytes == staged_bytes


async def test_what_was_learnt_of_the_whole_model_does_not_count_for_the_staged_one(
    planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    book = FootprintBook.read(tmp_path)
    book.put("acme/tts", "cpu", planned("8GiB").fingerprints["acme/tts"], Footprint(5 * GIB, GIB))
    await book.save()
    for budget, ready_bytes in (("8GiB", 5 * GIB), ("4GiB", 3 * GIB)):
        profile = next(profile for profile in planned(budget).profiles if profile.model == "acme/tts")
        assert profile.footprint.ready_bytes == ready_bytes


def test_a_model_that_clones_has_a_place_of_its_own_for_what_it_makes_of_voices(
    planned: Callable[[str], Plan], tmp_path: Path
) -> None:
    made = planned("8GiB")
    assert made.launch("acme/tts", Path(), None).spec.voices_dir == str(tmp_path / "voices/made/acme--tts")
    assert made.launch("plain", Path(), None).spec.voices_dir == ""
