"""What may stand in audiod.toml and in the environment, and what is said of what may not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from audiod import config
from audioproto.errors import ConfigInvalid
from daemons import TOP


def written(directory: Path, text: str) -> Path:
    file = directory / "audiod.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[residency]\nkeep_alife = 3", "keep_alife"),
        ("[residence]\n", "residence"),
        ("[server]\nport = 'eighty'", "$.server.port"),
        ("[residency]\nbudget = '3 GBB'", "$.residency.budget"),
        ("[residency]\nkeep_alive = -5", "$.residency.keep_alive"),
        ("[residency]\ndevice = 'tpu'", "$.residency.device"),
        ("[logging]\nlevel = 'loud'", "$.logging.level"),
        ("file = 'x'", "unknown field `file`"),
        ("[server\n", "not TOML"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    file = written(tmp_path, text)
    with pytest.raises(ConfigInvalid) as refused:
        config.load(file, {})
    assert said in refused.value.message
    assert str(file) in refused.value.message


def test_a_file_that_is_not_there_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="No such file"):
        config.load(tmp_path / "none.toml", {})


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[server]\nport = 1\nhost = 'a'\nupload_limit = '1MB'")
    found = config.load(file, {"AUDIOD_PORT": "2", "AUDIOD_SERVER_HOST": "b"}, {"AUDIOD_PORT": "3"}).server
    assert (found.port, found.host, found.upload_limit) == (3, "b", 10**6)


def test_every_key_can_be_set_in_the_environment() -> None:
    values = {"int": "7", "bool": "true", "str": "x", "ByteSize": "7MB", "Duration": "7m"}
    for section in ("server", "control", "storage", "residency", "media", "translate", "mirrors"):
        kind = type(getattr(config.Config(), section))
        for key, annotation in kind.__annotations__.items():
            value = values.get(annotation, "cpu")
            found = config.load(None, {f"AUDIOD_{section.upper()}_{key.upper()}": value})
            assert getattr(getattr(found, section), key) is not None


@pytest.mark.parametrize("name", ["AUDIOD_PROT", "AUDIOD_SERVER_PROT", "AUDIOD_SERVER", "AUDIOD_FILE", "AUDIOD_"])
def test_a_misspelt_variable_is_an_error_and_not_ignored(name: str) -> None:
    with pytest.raises(ConfigInvalid, match=name):
        config.load(None, {name: "1"})


def test_what_belongs_to_others_in_the_environment_is_left_alone() -> None:
    assert config.load(None, {"AUDIOD_URL": "x", "AUDIOD_API_KEY": "x", "PORT": "1"}) == config.Config()


def test_relative_directories_are_those_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = config.load(None, {"AUDIOD_STATE_DIR": "state"})
    assert found.models_dir == tmp_path / "state" / "models"


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(TOP / "daemon")}
    command = [sys.executable, "-m", "audiod", "check-config", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_check_config_tells_what_is_in_force_or_what_is_wrong(tmp_path: Path) -> None:
    good = check("--json", str(written(tmp_path, "[residency]\nkeep_alive = '7m'")))
    assert json.loads(good.stdout)["residency"]["keep_alive"] == "7m"
    bad = check("--json", str(written(tmp_path, "[residency]\nkeep_alife = '7m'")))
    assert bad.returncode == 7
    assert json.loads(bad.stderr)["error"]["code"] == "config_invalid"
    assert "keep_alife" in check(str(tmp_path / "audiod.toml")).stderr
