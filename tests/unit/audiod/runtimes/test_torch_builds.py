"""Which build of torch is taken on which host, and what is said about it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.runtimes import lockfile
from audiod.runtimes.torch_builds import BUILDS, CPU, TAGS, Host, choose
from audioproto.errors import InstallFailed
from daemons import TOP

PYTHON = "cpython-311-x86_64"
EVERY: dict[str, list[str]] = {tag: [] for tag in TAGS}


def host(*gpus: str, driver: str = "580.95.05", python: str = PYTHON) -> Host:
    """A host with GPUs of these compute capabilities."""
    return Host(tuple((f"GPU{number}", capability) for number, capability in enumerate(gpus)), driver, python)


@pytest.mark.parametrize(
    ("capability", "driver", "tag"),
    [
        ("6.1", "580.95.05", "cu126"),  # GTX 1080, Tesla P40
        ("6.0", "535.183.01", "cu126"),  # Tesla P100
        ("5.2", "535.183.01", "cu126"),  # GTX 980
        ("7.0", "580.95.05", "cu126"),  # Tesla V100
        ("7.5", "580.95.05", "cu130"),  # Tesla T4
        ("7.5", "550.54.14", "cu128"),
        ("8.6", "580.65.06", "cu130"),  # RTX 3090, with the oldest driver that will do
        ("8.6", "580.65.05", "cu128"),
        ("8.9", "535.183.01", "cu128"),  # RTX 4090
        ("9.0", "575.57.08", "cu128"),  # H100
        ("12.0", "575.57.08", "cu128"),  # RTX 5090
        ("12.1", "580.95.05", "cu130"),
        ("13.0", "600.10", "cu130"),  # one that is not built yet: from PTX
        ("3.7", "470.256.02", CPU),  # Tesla K80
        ("8.6", "470.256.02", CPU),
    ],
)
def test_each_generation_gets_the_newest_build_that_runs_on_it(capability: str, driver: str, tag: str) -> None:
    assert choose(host(capability, driver=driver), EVERY).tag == tag


def test_pascal_is_told_why_it_gets_an_older_build() -> None:
    assert choose(host("6.1"), EVERY).reasons == (
        "cu130 has no code for GPU0 (6.1)",
        "cu128 has no code for GPU0 (6.1)",
        "cu126 runs GPU0 (6.1)",
    )


def test_an_old_driver_is_named_as_the_reason() -> None:
    assert "cu130 needs driver 580.65.06, and this is 550.54" in choose(host("8.6", driver="550.54"), EVERY).reasons


def test_a_build_that_runs_every_gpu_goes_before_a_newer_one_that_does_not() -> None:
    assert choose(host("8.9", "6.1"), EVERY).tag == "cu126"
    left_out = choose(host("12.0", "6.1"), EVERY)  # no build runs both
    assert left_out.tag == "cu130"
    assert left_out.reasons == ("cu130 has no code for GPU1 (6.1)", "cu130 runs GPU0 (12.0)")


def test_without_a_gpu_the_build_for_the_cpu_is_taken_or_else_any() -> None:
    assert choose(host(), EVERY) == (CPU, ("there is no NVIDIA GPU for models",))
    elsewhere = choose(host(python="cpython-313-x86_64"), EVERY | {CPU: [PYTHON]})
    assert elsewhere.tag == "cu130"
    assert f"cpu is locked for {PYTHON} only, and this is cpython-313-x86_64" in elsewhere.reasons


def test_only_what_is_offered_is_taken() -> None:
    offered: dict[str, list[str]] = {"cu126": [], CPU: []}
    found = choose(host("8.9"), offered)
    assert found.tag == "cu126"
    assert "cu130 is not locked for this runtime" in found.reasons
    assert choose(host("12.0"), offered).tag == CPU


def test_the_operator_decides_where_that_is_possible() -> None:
    assert choose(host("8.9"), EVERY, "cu126") == ("cu126", ("runtimes.torch is cu126",))
    with pytest.raises(InstallFailed, match=r"cu118 cannot be had: there is no such build") as refused:
        choose(host("8.9"), EVERY, "cu118")
    assert "runtimes.torch" in refused.value.hint
    with pytest.raises(InstallFailed, match="cu126 is not locked for this runtime"):
        choose(host("8.9"), {CPU: []}, "cu126")


def test_a_machine_without_any_build_is_refused_with_every_reason() -> None:
    with pytest.raises(InstallFailed, match=r"cu130 is for x86_64 only.*cpu is locked for"):
        choose(host(python="cpython-311-riscv64"), EVERY | {CPU: [PYTHON]})


CAPABILITIES = st.sampled_from(["3.5", "5.0", "5.2", "6.0", "6.1", "7.0", "7.5", "8.0", "8.6", "8.9", "9.0", "12.0"])


@given(
    st.lists(CAPABILITIES, max_size=4),
    st.sampled_from(["470.82", "525.60.13", "535.183.01", "580.65.06", "590.44.01"]),
    st.sets(st.sampled_from(TAGS)).map(lambda tags: {tag: [] for tag in sorted(tags)}),
)
def test_what_is_chosen_is_offered_and_runs_on_one_gpu_at_least(
    capabilities: list[str], driver: str, offered: dict[str, list[str]]
) -> None:
    here = host(*capabilities, driver=driver)
    try:
        tag = choose(here, offered).tag
    except InstallFailed:
        assert CPU not in offered
        return
    assert tag in offered
    if capabilities and tag != CPU:
        build = next(build for build in BUILDS if build.tag == tag)
        parsed = [tuple(map(int, capability.split("."))) for capability in capabilities]
        assert any(build.runs_on((major, minor)) for major, minor in parsed)
        assert tuple(map(int, driver.split("."))) >= tuple(map(int, build.driver.split(".")))


def test_every_build_is_locked_with_hashes_and_the_table_tells_its_version() -> None:
    import audiod.runtimes.torch_builds as module

    for tag in TAGS:
        lock = lockfile.read(TOP / "packaging" / "locks", f"torch-{tag}")
        assert lock is not None
        assert lock.download_bytes
        assert lock.disk_bytes
        pinned = next(line for line in lock.path.read_text().splitlines() if line.startswith("torch=="))
        version = pinned.removeprefix("torch==").split()[0].removesuffix("+cpu")
        assert f"| {tag} | {version} |" in (module.__doc__ or "")
        assert "--hash=sha256:" in lock.path.read_text()
