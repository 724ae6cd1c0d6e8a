"""Models from a hub and its mirrors: what is fetched, verified, gone on with, and told."""

from __future__ import annotations

import json
import os
import random
import re
import struct
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import msgspec
import pytest

from audiod import durable
from audiod.models import catalogue, hubs, install
from audiod.models.catalogue import HubSource, ModelEntry, ModelScopeSource
from audiod.models.install import Places
from audiod.runtimes import build
from audiod.units import ByteSize
from audioproto.errors import BadRequest, InstallFailed, NotFound
from audioworker.indextts import checkpoint2, checkpoint25
from file_systems import file_system
from model_hub import COMMIT, Hub, sha256


def tensors(values: bytes) -> bytes:
    """A safetensors file with one tensor."""
    header = json.dumps({"t": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


WEIGHTS = tensors(random.Random(0).randbytes(300_000))  # one in 256 unseeded ones would end as the damaged copy does
FILES = {"config.json": b'{"model_type": "tiny"}', "model.safetensors": WEIGHTS}
CONFIG, MODEL = "config.json", "model.safetensors"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub({"owner/name": dict(FILES)}) as server:
        yield server


@pytest.fixture
def mirror() -> Iterator[Hub]:
    with Hub({"owner/name": dict(FILES)}) as server:
        yield server


class Host:
    """A host on which the runtime is there, and the model's files are wanted."""

    def __init__(self, root: Path, *bases: Hub, scopes: tuple[Hub, ...] = ()) -> None:
        for name in ("locks", "models"):
            (root / name).mkdir()
        (root / "locks/runtime-tiny.txt").write_text("")
        self.places = Places(
            root / "locks",
            root / "runtimes",
            root / "models",
            tuple(hub.url for hub in bases),
            tuple(hub.url for hub in scopes),
        )
        lock = build.require_lock("tiny", self.places.locks_dir)
        directory = build._directory("tiny", [lock], self.places.runtimes_dir)
        (directory / "bin").mkdir(parents=True)
        (directory / "bin/python").touch()
        (directory / durable.STAMP).touch()
        self.lines: list[str] = []

    def install(self, entry: ModelEntry) -> Path:
        install.install(entry, self.places, self.lines.append)
        assert install.missing(entry, self.places) == ""
        return install.model_dir(entry, self.places)

    def said(self, part: str) -> bool:
        return any(part in line for line in self.lines)


def source(kind: str = "hub", pinned: dict[str, str] | None = None, revision: str = COMMIT) -> str:
    hashes = {path: sha256(data) for path, data in FILES.items()} if pinned is None else pinned
    files = "".join(f'files."{path}" = "{digest}"\n' for path, digest in hashes.items())
    return f'[[weights.sources]]\nkind = "{kind}"\nrepo = "owner/name"\nrevision = "{revision}"\n{files}'


def model(*sources: str, more: str = "", disk: str = "1MB") -> ModelEntry:
    text = 'id = "m"\nengine = "e"\nruntime = "tiny"\ntask = "transcribe"\n' + more
    text += f'[[weights]]\nname = "weights"\ndisk_bytes = "{disk}"\n' + "".join(sources or [source()])
    return catalogue.parse(text, "m")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many attempts as ever, but with hardly a pause."""
    monkeypatch.setattr(hubs, "_PAUSES_S", (0.01,) * 4)
    monkeypatch.setattr(hubs, "_UNREACHED_PAUSES_S", (0.01,))


UNKNOWN = dict.fromkeys(FILES, "")


def test_files_come_by_the_hubs_own_protocol_and_are_what_was_pinned(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    directory = host.install(model())
    assert {path: (directory / path).read_bytes() for path in FILES} == FILES
    assert host.said("downloading model.safetensors (2 of 2, 293 KiB)")


def test_without_hashes_in_the_catalogue_the_hubs_own_are_what_counts(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    entry = model(source(pinned=UNKNOWN))
    hub.served[CONFIG] = b'{"model_type": "t1ny"}'  # small ones have only git's hash there
    with pytest.raises(InstallFailed, match=r"config\.json is not the file that is pinned: git's hash"):
        host.install(entry)
    hub.served = {MODEL: WEIGHTS[:-1] + b"?"}
    with pytest.raises(InstallFailed, match=r"model\.safetensors is not the file that is pinned: SHA-256"):
        host.install(entry)
    hub.served.clear()
    host.install(entry)


def test_a_hub_that_has_another_file_than_is_pinned_is_not_downloaded_from(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    hub.files["owner/name"][MODEL] = tensors(os.urandom(2000))
    with pytest.raises(InstallFailed, match=r"model\.safetensors is not the file that is pinned: its SHA-256 there"):
        host.install(model())
    assert hub.asked == []


def test_a_cut_download_goes_on_where_it_was_cut(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    hub.cut[MODEL] = 100_000
    host.install(model())
    assert hub.downloads(MODEL) == ["", "bytes=100000-"]


def test_the_next_mirror_goes_on_with_what_the_first_has_brought(tmp_path: Path, hub: Hub, mirror: Hub) -> None:
    host = Host(tmp_path, hub, mirror)
    hub.cut[MODEL] = 100_000
    hub.refusals = [(302, {"Location": f"{hub.url}/cdn/owner/name/{path}"}) for path in FILES] + [(503, {})] * 5
    directory = host.install(model())
    assert mirror.downloads(MODEL) == ["bytes=100000-"]
    assert mirror.downloads(CONFIG) == []
    assert (directory / MODEL).read_bytes() == WEIGHTS
    assert host.said(f"files came from {mirror.url}")


def test_where_nothing_answers_every_mirror_is_named_with_its_reason(tmp_path: Path, hub: Hub, mirror: Hub) -> None:
    host = Host(tmp_path, hub, mirror)
    hub.files.clear()
    del mirror.files["owner/name"][CONFIG]
    with pytest.raises(InstallFailed) as failed:
        host.install(model())
    assert f"{hub.url}: " in failed.value.message
    assert "HTTP 404" in failed.value.message
    assert f"{mirror.url}: owner/name has no config.json" in failed.value.message
    assert "models.d" in failed.value.hint


def test_a_mirror_that_only_copies_files_will_do_where_hashes_are_pinned(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    hub.lists = False
    host.install(model())
    install.remove(model(), host.places, host.lines.append)
    with pytest.raises(InstallFailed, match=r"does not list owner/name, so that .* could not be verified"):
        host.install(model(source(pinned=UNKNOWN)))


def test_a_hub_that_asks_for_patience_is_given_it(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    hub.refusals = [(429, {"Retry-After": "0"})] * 3
    host.install(model())
    assert host.said("the hub asks for a pause of 0 s (HTTP 429)")


def test_one_that_asks_for_patience_before_it_lists_is_given_it(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    hub.list_refusals = [(429, {"Retry-After": "0"})] * 3
    host.install(model())
    assert hub.downloads(MODEL) == [""]


@pytest.mark.parametrize("date", [False, True])
def test_one_that_asks_for_too_much_is_left(tmp_path: Path, hub: Hub, mirror: Hub, date: bool) -> None:
    host = Host(tmp_path, hub, mirror)
    hub.refusals = [(429, {"Retry-After": formatdate(time.time() + 3600, usegmt=True) if date else "3600"})]
    host.install(model())
    assert hub.asked == []
    assert host.said("HTTP 429, try again in 3")


def test_a_revision_that_is_not_there_is_told_with_where_it_is_named(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    with pytest.raises(InstallFailed, match="HTTP 404: there is no such repository, revision or file") as failed:
        host.install(model(source(revision="d" * 40)))
    assert "`revision`" in failed.value.hint


def test_a_mirror_that_has_another_revision_only_is_left(tmp_path: Path, hub: Hub, mirror: Hub) -> None:
    host = Host(tmp_path, hub, mirror)
    hub.commit = "d" * 40
    host.install(model(source(pinned=UNKNOWN)))
    assert host.said(f"it has owner/name at {hub.commit}, not at {COMMIT}")
    assert hub.asked == []


def test_what_a_bad_mirror_has_begun_does_not_spoil_a_good_one(tmp_path: Path, hub: Hub, mirror: Hub) -> None:
    host = Host(tmp_path, hub, mirror)
    hub.served[MODEL] = os.urandom(len(WEIGHTS))
    hub.cut[MODEL] = 100_000
    hub.refusals = [(302, {"Location": f"{hub.url}/cdn/owner/name/{path}"}) for path in FILES] + [(503, {})] * 5
    directory = host.install(model())
    assert mirror.downloads(MODEL) == ["bytes=100000-", ""]
    assert (directory / MODEL).read_bytes() == WEIGHTS


def test_a_slow_mirror_is_left_for_another_and_kept_where_it_is_the_last(
    tmp_path: Path, hub: Hub, mirror: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "WINDOW_S", 0.2)
    monkeypatch.setattr(hubs, "SLOW_BYTES_S", 1_000_000)
    hub.pause_s = 0.01  # 100 kB a second
    host = Host(tmp_path, hub, mirror)
    host.install(model())
    assert host.said(f"not from {hub.url}: only ")
    (resumed,) = mirror.downloads(MODEL)
    assert resumed.startswith("bytes=")
    install.remove(model(), host.places, host.lines.append)
    mirror.refusals = [(404, {})]
    places = Places(host.places.locks_dir, host.places.runtimes_dir, host.places.models_dir, (mirror.url, hub.url))
    install.install(model(), places, host.lines.append)
    assert host.said(f"files came from {hub.url}")


def test_a_slow_mirror_is_gone_back_to_where_the_others_give_nothing(
    tmp_path: Path, hub: Hub, mirror: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "WINDOW_S", 0.2)
    monkeypatch.setattr(hubs, "SLOW_BYTES_S", 1_000_000)
    hub.pause_s = 0.01
    mirror.files.clear()
    host = Host(tmp_path, hub, mirror)
    host.install(model())
    assert host.said(f"not from {hub.url}: only ")
    assert host.said(f"not from {mirror.url}: ")
    assert len(hub.downloads(MODEL)) == 2


def test_a_private_repository_tells_how_to_get_in_and_the_token_stays_with_the_hub(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, hub)
    hub.refusals = [(401, {})]
    with pytest.raises(InstallFailed, match="HTTP 401") as failed:
        host.install(model())
    assert "HF_TOKEN" in failed.value.hint
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.asked.clear()
    host.install(model())
    assert hub.tokens == ["Bearer secret", "Bearer secret", ""]  # the last is whoever has the large files


def test_an_interrupted_install_fetches_no_whole_file_again(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, hub)
    hub.refusals = [(302, {"Location": f"{hub.url}/cdn/owner/name/{CONFIG}"}), (404, {})]
    with pytest.raises(InstallFailed):
        host.install(model())
    host.install(model())
    assert hub.downloads(CONFIG) == [""]


def test_safetensors_that_contradict_their_header_are_refused(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    hub.files["owner/name"][MODEL] = WEIGHTS[:-1000]  # the hub itself has half a file, with the right hash
    with pytest.raises(InstallFailed, match=r"model\.safetensors.* is no whole safetensors file|is no whole"):
        host.install(model(source(pinned=UNKNOWN)))


def test_modelscope_gives_the_same_files_where_the_hub_does_not(tmp_path: Path, hub: Hub, mirror: Hub) -> None:
    hub.files.clear()
    host = Host(tmp_path, hub, scopes=(mirror,))
    entry = model(source(), source("modelscope", revision="master"))
    directory = host.install(entry)
    assert (directory / MODEL).read_bytes() == WEIGHTS
    assert install.installed_from(entry, host.places) == {"weights": "modelscope owner/name@master"}


def test_modelscope_goes_on_with_what_the_hub_has_brought_and_gets_no_token_of_the_hubs(
    tmp_path: Path, hub: Hub, mirror: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    hub.cut[MODEL] = 100_000
    hub.refusals = [(302, {"Location": f"{hub.url}/cdn/owner/name/{path}"}) for path in FILES] + [(503, {})] * 5
    host = Host(tmp_path, hub, scopes=(mirror,))
    host.install(model(source(), source("modelscope", pinned={}, revision="master")))
    assert mirror.downloads(MODEL) == ["bytes=100000-"]
    assert set(mirror.tokens) == {""}


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(tmp_path, hub)
    real = durable.require_space
    monkeypatch.setattr(durable, "require_space", lambda where, needed, what: real(where, needed * 2**50, what))
    with pytest.raises(InstallFailed, match=r"needs .* TiB"):
        host.install(model())
    assert hub.asked == []


def test_a_disk_that_fills_up_is_not_left_full(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    hub.lists = False  # else there were too little room from the first
    with file_system(host.places.models_dir, "128k"):
        with pytest.raises(InstallFailed, match="No space left") as failed:
            host.install(model(disk="1kB"))
        assert [path.name for path in host.places.models_dir.iterdir()] == [".m.lock"]
    assert failed.value.hint.startswith("df -h")


# --- a model of several repositories ---------------------------------------------------------------------------------

CODEC, VOICES = tensors(os.urandom(50_000)), os.urandom(4000)
PARTS = """
[[weights]]
name = "language"
disk_bytes = "1MB"
[[weights.sources]]
kind = "hub"
repo = "owner/name"
revision = "{commit}"
files."model.safetensors" = "{weights}"
files."config.json" = ""

[[weights]]
name = "codec"
disk_bytes = "1MB"
[[weights.sources]]
kind = "hub"
repo = "other/codecs"
revision = "{commit}"
files."hf_cache/codec.safetensors" = "{codec}"
files."hf_cache/codec/config.json" = ""
paths."hf_cache/codec.safetensors" = "semantic/model.safetensors"
paths."hf_cache/codec/config.json" = "config.json"
[[weights.sources]]
kind = "modelscope"
repo = "other/codecs"
revision = "master"
[[weights.sources]]
kind = "modelscope"
repo = "third/codec"
revision = "master"
paths."hf_cache/codec.safetensors" = "codec.safetensors"
paths."hf_cache/codec/config.json" = "c.json"
"""
LAYOUT = {
    CONFIG: FILES[CONFIG],
    MODEL: WEIGHTS,
    "hf_cache/codec.safetensors": CODEC,
    "hf_cache/codec/config.json": b"{}",
}


def composed(more: str = "") -> ModelEntry:
    text = 'id = "m"\nengine = "e"\nruntime = "tiny"\ntask = "speak"\n' + more
    return catalogue.parse(text + PARTS.format(commit=COMMIT, weights=sha256(WEIGHTS), codec=sha256(CODEC)), "m")


@pytest.fixture
def codecs(hub: Hub) -> dict[str, bytes]:
    """The second repository, whose files have other names than in the model's directory."""
    hub.files["other/codecs"] = {"semantic/model.safetensors": CODEC, "config.json": b"{}", "huge.bin": VOICES}
    return hub.files["other/codecs"]


def test_a_models_parts_come_from_several_repositories_to_where_they_belong(
    tmp_path: Path, hub: Hub, codecs: dict[str, bytes]
) -> None:
    host = Host(tmp_path, hub)
    directory = host.install(composed())
    there = {str(file.relative_to(directory)): file for file in directory.rglob("*") if file.is_file()}
    assert {path: file.read_bytes() for path, file in there.items() if path != durable.STAMP} == LAYOUT
    assert hub.downloads("huge.bin") == []
    install.verify(composed(), host.places, host.lines.append)
    assert host.said("hf_cache/codec.safetensors: as it was pinned")
    (directory / "hf_cache/codec.safetensors").write_bytes(CODEC[:-1] + b"?")
    with pytest.raises(InstallFailed, match=r"1 files of m in .*\n  hf_cache/codec\.safetensors: SHA-256 is"):
        install.verify(composed(), host.places, host.lines.append)


def test_a_renamed_file_goes_on_where_it_was_cut(tmp_path: Path, hub: Hub, codecs: dict[str, bytes]) -> None:
    hub.cut["semantic/model.safetensors"] = 20_000
    Host(tmp_path, hub).install(composed())
    assert hub.downloads("semantic/model.safetensors") == ["", "bytes=20000-"]


def test_another_hub_may_have_them_by_the_same_names_or_by_names_of_its_own(
    tmp_path: Path, hub: Hub, mirror: Hub, codecs: dict[str, bytes]
) -> None:
    same = hub.files.pop("other/codecs")
    host = Host(tmp_path, hub, scopes=(mirror,))
    for repository, files in (("other/codecs", same), ("third/codec", {"codec.safetensors": CODEC, "c.json": b"{}"})):
        mirror.files = {repository: files}
        directory = host.install(composed())
        assert {path: (directory / path).read_bytes() for path in LAYOUT} == LAYOUT
        assert install.installed_from(composed(), host.places)["codec"] == f"modelscope {repository}@master"
        install.remove(composed(), host.places, host.lines.append)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"semantic/model.safetensors": CODEC[:-1] + b"?"},
            "semantic/model.safetensors is not the file that is pinned",
        ),
        ({"semantic/model.safetensors": None}, "other/codecs has no semantic/model.safetensors at"),
    ],
)
def test_the_part_that_is_missing_is_named_and_the_others_stay(
    tmp_path: Path, hub: Hub, codecs: dict[str, bytes], change: dict[str, bytes | None], reason: str
) -> None:
    for path, data in change.items():
        del codecs[path]
        codecs |= {path: data} if data else {}
    host = Host(tmp_path, hub)
    with pytest.raises(InstallFailed, match="no source gave codec:") as failed:
        host.install(composed())
    assert reason in failed.value.message
    assert "language" not in failed.value.message
    assert install.missing(composed(), host.places) == "codec"
    codecs["semantic/model.safetensors"] = CODEC
    host.install(composed())
    assert hub.downloads(MODEL) == [""], "what was whole is not fetched again"


def test_an_operators_directory_of_the_same_layout_will_do(tmp_path: Path) -> None:
    host = Host(tmp_path)
    offline = tmp_path / "offline"
    for path, data in LAYOUT.items():
        (offline / path).parent.mkdir(parents=True, exist_ok=True)
        (offline / path).write_bytes(data)
    entry = composed(f'path = "{offline}"\n')
    assert host.install(entry) == offline
    install.verify(entry, host.places, host.lines.append)
    for name, lacking in (("hf_cache/codec.safetensors", "the rest of"), (CONFIG, "the rest of")):
        whole = (offline / name).read_bytes()
        (offline / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        assert install.missing(entry, host.places) == f"{lacking} {offline / name}"
        (offline / name).write_bytes(whole)
    (offline / "hf_cache/codec.safetensors").unlink()
    assert install.missing(entry, host.places) == f"hf_cache/codec.safetensors in {offline}"
    for name in LAYOUT:
        (offline / name).unlink(missing_ok=True)
    lacking = install.missing(entry, host.places)
    assert lacking.startswith(f"{MODEL}, {CONFIG} in {offline}, hf_cache/codec.safetensors, ")


SHIPPED = Path(__file__).parents[2] / "etc/models.d"


@pytest.mark.parametrize(
    ("model", "needed"), [("indextts-2", checkpoint2.NEEDED), ("indextts-2.5", checkpoint25.NEEDED)]
)
def test_every_file_that_indextts_reads_is_pulled_from_one_hub_or_the_other(
    tmp_path: Path, hub: Hub, model: str, needed: tuple[str, ...]
) -> None:
    """The entry as it is shipped, but for hashes and commits, with files of a few bytes at hubs of our own."""
    text = re.sub(r'"[0-9a-f]{64}"', '""', (SHIPPED / f"{model}.toml").read_text())
    text = re.sub(r'^revision = "[0-9a-f]{40}"', f'revision = "{COMMIT}"', text, flags=re.M)
    entry = catalogue.parse(text.replace('runtime = "indextts"', 'runtime = "tiny"'), f"{model}.toml")
    entry = msgspec.structs.replace(
        entry, weights=[msgspec.structs.replace(part, disk_bytes=ByteSize(1000)) for part in entry.weights]
    )
    for kind, bases, scopes in ((HubSource, (hub,), ()), (ModelScopeSource, (), (hub,))):
        hub.files = {
            source.repo: {
                source.origin(path): tensors(b"1234") if path.endswith(".safetensors") else path.encode()
                for path in source.files
            }
            for part in entry.weights
            for source in part.sources
            if isinstance(source, kind)
        }
        (tmp_path / kind.__name__).mkdir()
        host = Host(tmp_path / kind.__name__, *bases, scopes=scopes)
        directory = host.install(entry)
        assert [file for file in needed if not (directory / file).is_file()] == []
        assert (directory / "hf_cache/bigvgan/config.json").read_bytes() == b"hf_cache/bigvgan/config.json"
        assert host.lines[0].startswith("licence: bilibili Model Use License Agreement")


# --- verify, remove ------------------------------------------------------------------------------------------------


def test_verify_finds_what_was_changed_on_the_disk(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    directory = host.install(model())
    install.verify(model(), host.places, host.lines.append)
    assert host.said("model.safetensors: as it was pinned, 293 KiB")
    (directory / MODEL).write_bytes(WEIGHTS[:-1] + b"?")
    with pytest.raises(InstallFailed, match=r"1 files of m in .* are wrong:\n  model\.safetensors: SHA-256 is") as bad:
        install.verify(model(), host.places, host.lines.append)
    assert bad.value.hint == "audioctl models remove m && audioctl models pull m"


def test_verify_reads_a_directory_of_the_operators_too(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path)
    offline = tmp_path / "offline"
    offline.mkdir()
    for path, data in FILES.items():
        (offline / path).write_bytes(data)
    entry = model(source(), source("modelscope", pinned=UNKNOWN, revision="master"), more=f'path = "{offline}"\n')
    install.verify(entry, host.places, host.lines.append)
    (offline / MODEL).write_bytes(WEIGHTS[:-1] + b"?")
    with pytest.raises(InstallFailed, match=r"model\.safetensors"):
        install.verify(entry, host.places, host.lines.append)
    with pytest.raises(BadRequest, match="are yours"):
        install.remove(entry, host.places, host.lines.append)
    assert (offline / CONFIG).exists()


@pytest.mark.parametrize("content", [WEIGHTS[:1000], b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
def test_half_a_directory_of_the_operators_is_not_taken_for_a_model(tmp_path: Path, content: bytes) -> None:
    host = Host(tmp_path)
    offline = tmp_path / "offline"
    offline.mkdir()
    entry = model(more=f'path = "{offline}"\n')
    (offline / CONFIG).write_bytes(FILES[CONFIG])
    assert install.missing(entry, host.places) == f"{MODEL} in {offline}"
    (offline / MODEL).write_bytes(content)
    assert install.missing(entry, host.places) == f"the rest of {offline / MODEL}"
    with pytest.raises(InstallFailed, match="m lacks the rest of") as failed:
        host.install(entry)
    assert f"put the files into {offline}" in failed.value.hint
    (offline / MODEL).write_bytes(WEIGHTS)
    assert host.install(entry) == offline


def test_removed_files_are_gone_finished_or_not(tmp_path: Path, hub: Hub) -> None:
    host = Host(tmp_path, hub)
    hub.refusals = [(302, {"Location": f"{hub.url}/cdn/owner/name/{CONFIG}"}), (404, {})]
    with pytest.raises(InstallFailed):
        host.install(model())
    assert install.remove(model(), host.places, host.lines.append) > 0
    host.install(model())
    assert install.remove(model(), host.places, host.lines.append) >= len(WEIGHTS)
    assert [path.name for path in host.places.models_dir.iterdir()] == [".m.lock"]
    with pytest.raises(NotFound, match="there are no files of m"):
        install.remove(model(), host.places, host.lines.append)
