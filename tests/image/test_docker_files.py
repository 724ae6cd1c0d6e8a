"""The files that images and containers are made from: linted, checked against their schema, and true to the code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from audiod import config as configuration
from audiod.config import Config
from daemons import TOP

DOCKER = TOP / "packaging" / "docker"
PROGRAMS = Path(sys.executable).parent

pytestmark = pytest.mark.image


def lint(program: str, *arguments: str | Path) -> None:
    ended = subprocess.run([PROGRAMS / program, *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    lint("hadolint", DOCKER / "Dockerfile")


def test_shellcheck_finds_nothing_in_the_scripts() -> None:
    lint("shellcheck", DOCKER / "use-mirrors", TOP / "scripts" / "build-image")


def test_the_compose_file_says_only_what_compose_knows(tmp_path: Path) -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml")
    misspelt = tmp_path / "compose.yaml"
    misspelt.write_text((DOCKER / "compose.yaml").read_text().replace("read_only:", "readonly:"))
    with pytest.raises(AssertionError, match="readonly"):
        lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", misspelt)


def test_only_the_service_for_a_gpu_asks_for_one_and_both_are_confined() -> None:
    services = YAML(typ="safe").load(DOCKER / "compose.yaml")["services"]
    devices = services["audiod"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    assert "profiles" not in services["audiod"]
    assert "deploy" not in services["audiod-cpu"]
    assert services["audiod-cpu"]["profiles"] == ["cpu"]
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert all(str(port).startswith("127.0.0.1:") for port in service["ports"])


def test_a_stopped_container_is_not_killed_before_the_daemon_gives_up() -> None:
    services = YAML(typ="safe").load(DOCKER / "compose.yaml")["services"]
    for service in services.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > Config().server.stop_timeout


# --- audiod.env.example ---------------------------------------------------------------------------------------------


def variables() -> dict[str, str]:
    """Every variable of the example with its value, as a person would write it without the # before it."""
    text = (DOCKER / "audiod.env.example").read_text()
    return dict(re.findall(r"^# (AUDIOD_\w+)=(.*)$", text, re.MULTILINE))


def test_the_environment_file_has_a_variable_for_every_key() -> None:
    names = set(variables())
    for section in Config.__struct_fields__:
        value = getattr(Config(), section)
        if not isinstance(value, configuration.Section):
            continue
        for key in value.__struct_fields__:
            long = f"AUDIOD_{section}_{key}".upper()
            short = {name for name, place in configuration.SHORT_NAMES.items() if place == (section, key)}
            assert len(({long} | short) & names) == 1, long


def test_every_variable_of_the_environment_file_is_known_and_set_to_its_default() -> None:
    given = variables()
    in_image = dict(re.findall(r"(AUDIOD_\w+)=(\S+)", (DOCKER / "Dockerfile").read_text()))
    assert in_image.items() <= given.items()
    config = configuration.load(None, {name: value for name, value in given.items() if name not in in_image})
    assert config == Config()


def test_the_environment_file_sets_nothing_until_it_is_edited() -> None:
    lines = (DOCKER / "audiod.env.example").read_text().splitlines()
    assert all(line.startswith("#") or not line for line in lines)


# --- mirrors --------------------------------------------------------------------------------------------------------

DEBIAN = """\
Types: deb
# http://snapshot.example/archive/debian/20260101T000000Z
URIs: http://deb.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://deb.example/debian-security
Suites: bookworm-security
Components: main
"""
UBUNTU = """\
Types: deb
URIs: http://archive.example/ubuntu/
Suites: noble noble-updates
Components: main universe

Types: deb
URIs: https://ports.example/ubuntu-ports/
Suites: noble-security
Components: main universe
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The /etc of a base image, with the sources of both distributions and of CUDA."""
    sources = tmp_path / "etc" / "apt" / "sources.list.d"
    sources.mkdir(parents=True)
    (sources / "debian.sources").write_text(DEBIAN)
    (sources / "ubuntu.sources").write_text(UBUNTU)
    (sources / "cuda-ubuntu2404-x86_64.list").write_text("deb https://cuda.example/compute/cuda/repos/ubuntu2404 /\n")
    (sources.parent / "sources.list").write_text("deb http://deb.example/debian bookworm main\n")
    return tmp_path


def use_mirrors(tree: Path, **arguments: str) -> tuple[str, str]:
    """What apt and pip then ask: the addresses in all source files, and pip.conf."""
    ended = subprocess.run(
        ["sh", DOCKER / "use-mirrors"],
        env={"PATH": "/usr/bin:/bin", "ROOT": str(tree)} | arguments,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    apt = tree / "etc" / "apt"
    text = "\n".join(file.read_text() for file in [apt / "sources.list", *sorted((apt / "sources.list.d").iterdir())])
    pip = tree / "etc" / "pip.conf"
    return " ".join(re.findall(r"^(?:URIs:|deb) (\S+)", text, re.MULTILINE)), pip.read_text() if pip.exists() else ""


def test_without_a_mirror_the_base_image_keeps_its_own(tree: Path) -> None:
    apt, pip = use_mirrors(tree)
    assert "cuda.example" not in apt
    assert apt.count(".example/") == 5
    assert pip == ""


def test_one_word_chooses_tsinghua_for_debian_ubuntu_and_python(tree: Path) -> None:
    apt, pip = use_mirrors(tree, MIRROR="tsinghua")
    host = "http://mirrors.tuna.tsinghua.edu.cn"
    wanted = ["debian", "debian", "debian-security", "ubuntu/", "ubuntu-ports/"]
    assert apt.split() == [f"{host}/{path}" for path in wanted]
    assert pip == "[global]\nindex-url = https://mirrors.tuna.tsinghua.edu.cn/pypi/web/simple\n"


def test_each_mirror_can_be_named_by_itself_and_wins_over_the_word(tree: Path) -> None:
    apt, pip = use_mirrors(
        tree,
        MIRROR="tsinghua",
        APT_MIRROR="http://near.example/mirror/",
        PIP_INDEX_URL="https://near.example/simple",
        TORCH_INDEX_URL="https://near.example/torch",
    )
    assert set(re.findall(r"http://[^/]+/\w+", apt)) == {"http://near.example/mirror"}
    assert pip == "[global]\nindex-url = https://near.example/simple\nextra-index-url = https://near.example/torch\n"


def test_a_mirror_that_nobody_knows_is_refused_with_those_that_there_are(tree: Path) -> None:
    ended = subprocess.run(
        ["sh", DOCKER / "use-mirrors"],
        env={"PATH": "/usr/bin:/bin", "ROOT": str(tree), "MIRROR": "mars"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "no mirror 'mars'; there is tsinghua" in ended.stderr


def test_no_host_but_that_one_is_named_in_what_images_are_made_from() -> None:
    """A mirror is the choice of whoever builds; a container started elsewhere must not phone a place nobody chose."""
    for file in (*DOCKER.iterdir(), TOP / "scripts" / "build-image"):
        for host in re.findall(r"https?://([\w.-]+)", file.read_text()):
            # The model hubs are the configuration's own default.
            allowed = {"mirrors.tuna.tsinghua.edu.cn", "127.0.0.1", "localhost"} | {
                re.sub(r"^https://", "", hub) for hub in (*Config().mirrors.hub, *Config().mirrors.modelscope)
            }
            assert host in allowed, f"{file.name} names {host}"
