"""The image at work, confined as compose.yaml says: healthy, given a model, speaking, stopped, started again."""

from __future__ import annotations

import base64
import io
import json
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from audioproto import __version__
from containers import Container, Engine
from daemons import TOP
from package_mirror import Mirror

DOCKER = TOP / "packaging" / "docker"
SERVICE = "audiod-cpu"
STARTUP_S = 60.0
"""Far more than it takes; less than a person would wait."""

pytestmark = pytest.mark.image

SPEAK = """
import base64, json, urllib.error, urllib.request
body = {"model": "tts-1", "voice": "alloy", "input": "The quick brown fox jumps over the lazy dog.",
        "response_format": "wav"}
headers = {"Content-Type": "application/json"}
request = urllib.request.Request("http://127.0.0.1:8000/v1/audio/speech", json.dumps(body).encode(), headers)
try:
    with urllib.request.urlopen(request, timeout=60) as answer:
        print(answer.status, base64.b64encode(answer.read()).decode())
except urllib.error.HTTPError as error:
    print(error.code, base64.b64encode(error.read()).decode())
"""


def confinement(name: str, environment: Path, volume: str) -> list[str]:
    """podman's options for a service of compose.yaml, with `volume` for its state.

    A key that this does not know is an error: it would go untried.
    """
    service: dict[str, Any] = dict(YAML(typ="safe").load(DOCKER / "compose.yaml")["services"][name])
    options = []
    for key, value in service.items():
        match key:
            case "read_only":
                options += ["--read-only", "--read-only-tmpfs=false"]
            case "tmpfs":
                options += [f"--tmpfs={place}" for place in value]
            case "cap_drop":
                options += [f"--cap-drop={capability}" for capability in value]
            case "security_opt":
                assert value == ["no-new-privileges:true"]
                options.append("--security-opt=no-new-privileges")
            case "volumes":
                assert value == ["state:/var/lib/audiod"]
                options.append(f"--volume={volume}:/var/lib/audiod")
            case "env_file":
                assert value == [{"path": environment.name, "required": False}]
                options.append(f"--env-file={environment}")
            case "environment":
                options += [f"--env={variable}={text}" for variable, text in value.items()]
            case "restart":
                options.append(f"--restart={value}")
            case "stop_grace_period":
                options.append(f"--stop-timeout={value.removesuffix('s')}")
            case "image" | "build" | "profiles":
                pass  # how it is made and who asks for it
            case "healthcheck":
                assert "test" not in value, "the question is the image's"
            case "ports" | "pids_limit" | "ulimits":
                pass  # no network here, and no control groups
            case _:
                raise AssertionError(f"compose.yaml says {key}, and nothing here tries it")
    return options


Start = Callable[..., Container]


@pytest.fixture
def start(engine: Engine, image: str, tmp_path: Path) -> Iterator[Start]:
    """Starts containers as compose.yaml would, on a new state volume of the test's own unless it names one."""
    started: list[Container] = []
    own = engine.podman("volume", "create").stdout.strip()

    def start(*options: str, volume: str = own, **settings: str) -> Container:
        environment = tmp_path / "audiod.env"
        text = (DOCKER / "audiod.env.example").read_text()
        environment.write_text(text + "".join(f"{name}={value}\n" for name, value in settings.items()))
        started.append(Container(engine, image, [*confinement(SERVICE, environment, volume), *options]))
        return started[-1]

    yield start
    for container in started:
        container.remove()
    engine.podman("volume", "rm", own)


@pytest.fixture(scope="module")
def installed(engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A state volume with hibari in it, put there by `audiod install` in a container that reaches the mirror.

    Its /tmp has no room for what is downloaded: it is memory, and torch with CUDA takes gigabytes.
    """
    volume = engine.podman("volume", "create").stdout.strip()
    environment = tmp_path_factory.mktemp("installing") / "audiod.env"
    environment.touch()
    confined = ["--tmpfs=/tmp:size=1m" if o == "--tmpfs=/tmp" else o for o in confinement(SERVICE, environment, volume)]
    installing = Container(engine, image, [*confined, "--network=host", "--restart=no"], ["install", "hibari"])
    assert installing.wait() == 0, installing.log()
    installing.remove()
    return volume


def until_healthy(container: Container) -> float:
    """Seconds until the image's health check agrees."""
    began = time.monotonic()
    while not container.is_healthy():
        assert time.monotonic() - began < STARTUP_S, container.log()
    return time.monotonic() - began


def spoken(container: Container) -> tuple[int, bytes]:
    """One sentence by HTTP, asked for inside the container: the status and the body."""
    status, body = container.python(SPEAK).split()
    return int(status), base64.b64decode(body)


def check_speech(sound: bytes) -> None:
    """Two to six seconds, neither silent nor noise: a sentence has pauses and peaks."""
    with wave.open(io.BytesIO(sound)) as file:
        rate = file.getframerate()
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64) / 32768
    assert 2 < samples.size / rate < 6
    loudness = np.sqrt(np.mean(np.square(samples[: samples.size // 480 * 480].reshape(-1, 480)), axis=1))
    assert np.max(loudness) > 0.05
    assert np.min(loudness) < np.max(loudness) / 20


# --- what was built -------------------------------------------------------------------------------------------------


def test_the_image_says_what_it_is_and_how_to_treat_it(engine: Engine, image: str) -> None:
    told = engine.inspect("image", image)
    config = told["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert set(config["Volumes"]) == {"/var/lib/audiod"}
    assert set(config["ExposedPorts"]) == {"8000/tcp"}
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert told["HealthCheck" if "HealthCheck" in told else "Healthcheck"]["Test"] == [
        *("CMD", "audioctl", "status", "--ready")
    ]
    print(f"{told['Size'] / 1e6:.0f} MB")
    assert told["Size"] < 450e6


def test_what_was_asked_for_came_from_the_mirrors_that_were_named(engine: Engine, image: str, mirror: Mirror) -> None:
    assert any(path.startswith("/debian/dists/") for path in mirror.asked)
    assert any(path.endswith(".deb") for path in mirror.asked)
    assert "/simple/aiohttp/" in mirror.asked
    assert "/simple/hatchling/" in mirror.asked
    kept = engine.podman("run", "--rm", "--entrypoint=cat", image, "/etc/pip.conf").stdout
    assert kept == f"[global]\nindex-url = {mirror.url}/simple\n"


def test_the_image_holds_the_program_and_nothing_of_the_checkout(engine: Engine, image: str) -> None:
    listing = "cd /opt/audiod/lib/python3*/site-packages && find audiod audioctl audioproto audioworker -name '*.py'"
    inside = engine.podman("run", "--rm", "--entrypoint=sh", image, "-c", f"{listing}; ls -A / /etc/audiod").stdout
    for package in ("daemon/audiod", "daemon/audioproto", "daemon/audioworker", "ctl/audioctl"):
        for file in (TOP / package).rglob("*.py"):
            assert str(file.relative_to((TOP / package).parent)) in inside
    for name in (".git", ".state", ".venv", ".cache", "tests", "pyproject.toml", "source", "locks", "wheels"):
        assert name not in inside.split()


# --- how it runs ----------------------------------------------------------------------------------------------------


def test_engines_come_from_the_mirror_that_was_named_for_the_build(installed: str, mirror: Mirror) -> None:
    assert any(path.startswith("/wheels/onnxruntime-") for path in mirror.asked)


def test_it_speaks_stops_cleanly_and_keeps_what_is_installed(start: Start, installed: str) -> None:
    for _ in range(2):
        container = start(volume=installed)
        print(f"healthy after {until_healthy(container):.2f} s")
        status, sound = spoken(container)
        assert status == 200
        check_speech(sound)
        assert container.stop() == 0
        assert "Traceback" not in container.log()
        container.remove()


def test_it_runs_as_nobody_in_particular_and_can_write_only_its_state(start: Start) -> None:
    container = start()
    until_healthy(container)
    facts = container.run("cat", "/proc/1/status").stdout
    told = {name: value.split() for name, _, value in (line.partition(":") for line in facts.splitlines())}
    assert told["Uid"] == ["10001"] * 4
    assert told["CapEff"] == told["CapBnd"] == ["0" * 16]
    assert told["NoNewPrivs"] == ["1"]
    for place, writable in {"/opt/audiod": False, "/etc/audiod": False, "/var/lib/audiod": True, "/tmp": True}.items():
        written = container.run("sh", "-c", f"echo > {place}/written", check=False)
        assert (written.returncode == 0) is writable, place


def test_a_daemon_that_is_killed_is_started_again(start: Start) -> None:
    container = start()
    until_healthy(container)
    daemon = json.loads(container.run("audioctl", "--json", "status").stdout)["pid"]
    container.run("python", "-c", f"import os; os.kill({daemon}, 9)", check=False)
    until_healthy(container)
    assert container.restarts() == 1


def test_while_it_drains_it_is_not_healthy(start: Start) -> None:
    container = start()
    until_healthy(container)
    container.run("audioctl", "drain")
    assert not container.is_healthy()
    container.run("audioctl", "undrain")
    assert container.is_healthy()


def test_an_engine_that_is_killed_leaves_no_zombies_and_its_memory_is_free_at_once(
    start: Start, installed: str
) -> None:
    """As process 1 the daemon would inherit the killed zygote's worker, and wait ten seconds for it to vanish."""
    container = start(volume=installed)
    until_healthy(container)
    container.run("audioctl", "load", "hibari")
    status = json.loads(container.run("audioctl", "--json", "status").stdout)
    zygote = next(model["zygote_pid"] for model in status["models"] if model["model"] == "hibari")
    began = time.monotonic()
    container.run("python", "-c", f"import os; os.kill({zygote}, 9)")
    container.run("audioctl", "load", "hibari")
    assert time.monotonic() - began < 8
    states = container.run("sh", "-c", "cat /proc/[0-9]*/stat").stdout
    assert " Z " not in states


def test_with_a_secret_called_api_keys_nobody_is_served_without_one(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "api-keys"
    keys.write_text("sk-container\n")
    container = start(f"--volume={keys}:/run/secrets/api-keys:ro")
    until_healthy(container)
    assert spoken(container)[0] == 401


def test_without_keys_it_does_not_start_unless_told_that_it_may(start: Start) -> None:
    container = start("--restart=no", "--env=AUDIOD_SERVER_OPEN=false")
    assert container.wait() == 7
    assert "there are no API keys" in container.log()


def test_a_variable_that_audiod_does_not_know_ends_it_with_a_word_on_which(start: Start) -> None:
    container = start("--restart=no", AUDIOD_RESIDENCY_KEEPALIVE="10m")
    assert container.wait() == 7
    assert "AUDIOD_RESIDENCY_KEEPALIVE in the environment is no setting of audiod" in container.log()


def test_a_state_directory_of_somebody_else_ends_it_with_a_word_on_whose_it_must_be(
    start: Start, tmp_path: Path
) -> None:
    theirs = tmp_path / "state"
    theirs.mkdir()
    container = start("--restart=no", volume=str(theirs))
    assert container.wait() == 7
    assert "cannot make /var/lib/audiod/cache as user 10001: Permission denied" in container.log()
    assert "chown 10001 /var/lib/audiod" in container.log()
