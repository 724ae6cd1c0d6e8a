"""The machinery of doctor: limits, order, broken checks, and what is said of a driver and its GPUs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from audiod.config import Config
from audiod.control import doctor
from audiod.control.checks import Patient
from audiod.control.doctor import Check, examine
from audiod.media.pool import MediaPool
from audiod.residency.events import Limits
from audiod.voices import VoiceStore
from audioproto.diagnosis import EXHAUSTED_BYTES, SCARCE_BYTES, Finding, Verdict, judge_space
from gpu_hosts import GIB, GpuHost

DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: 12.3\n"
OPEN_DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder@U16)\n"


@pytest.fixture
async def patient() -> Patient:
    voices = VoiceStore(Path("nowhere"), 0, 0)
    return Patient(Config(), {}, Limits({"cpu": 2**30}, 2**30), {}, 0, Config, MediaPool(), voices)


async def told(*planned: Check) -> list[Finding]:
    found: list[Finding] = []

    async def tell(findings: list[Finding]) -> None:
        found.extend(findings)

    await examine(planned, tell)
    return found


def saying(name: str, after: asyncio.Event | None = None, then: asyncio.Event | None = None) -> Check:
    async def look() -> list[Finding]:
        if after is not None:
            await after.wait()
        if then is not None:
            then.set()
        return [Finding(name, Verdict.OK, "well")]

    return Check(name, look)


async def test_findings_come_in_order_whichever_check_is_first_to_end() -> None:
    first_done = asyncio.Event()
    found = await told(saying("slow", after=first_done), saying("quick", then=first_done))
    assert [finding.check for finding in found] == ["slow", "quick"]


async def test_a_check_that_hangs_in_a_thread_is_a_failure_and_holds_nobody_up(patient: Patient) -> None:
    free = threading.Event()

    def hang(_: Patient) -> list[Finding]:
        free.wait()
        return []

    hanging = doctor._in_thread(cast("Callable[..., object]", hang), patient)  # type: ignore[arg-type]
    found = await told(Check("disk", hanging, limit_s=0.05), saying("after"))
    free.set()
    assert [(finding.check, finding.verdict) for finding in found] == [("disk", "fail"), ("after", "ok")]
    assert "hangs" in found[0].found


async def test_a_check_that_raises_is_a_failure_of_its_own() -> None:
    async def refuse() -> list[Finding]:
        raise PermissionError(13, "Permission denied", "/var/lib/audiod")

    found = await told(Check("state", refuse), saying("after"))
    assert (found[0].verdict, found[1].verdict) == ("fail", "ok")
    assert "Permission denied" in found[0].found


async def test_media_says_what_is_wrong_with_the_pool(patient: Patient) -> None:
    await patient.media.close()
    found = await doctor.media(patient)
    assert (found[0].verdict, found[0].found) == ("fail", "audiod is stopping")


@pytest.mark.parametrize(
    ("free_bytes", "inodes", "verdict"),
    [
        (SCARCE_BYTES, None, "ok"),
        (SCARCE_BYTES - 1, 5, "warn"),
        (EXHAUSTED_BYTES - 1, None, "fail"),
        (SCARCE_BYTES, 0, "fail"),
    ],
)
def test_space_is_judged_by_bytes_and_inodes(free_bytes: int, inodes: int | None, verdict: str) -> None:
    assert judge_space(free_bytes, inodes) == verdict


GPU_CHECK = """
from types import SimpleNamespace
from audiod.config import Config, Residency
from audiod.control import checks
checks._DRIVER = state.with_name("version")
patient = SimpleNamespace(config=Config(residency=Residency(device=os.environ["DEVICE"])))
tell([[finding.verdict, finding.found, finding.fix] for finding in checks.gpu(patient)])
"""
LAPTOP = f"gpu GPU-1 {6 * GIB} {5 * GIB} NVIDIA GeForce RTX 3060 Laptop GPU"


def gpu_findings(host: GpuHost, driver: str = DRIVER, device: str = "auto") -> list[list[str]]:
    if driver:
        host.state.with_name("version").write_text(driver)
    found: list[list[str]] = host.run(GPU_CHECK, DEVICE=device)
    return found


@pytest.mark.parametrize(("driver", "version"), [(DRIVER, "535.183.01"), (OPEN_DRIVER, "550.54.15")])
def test_a_gpu_is_named_with_its_generation_memory_and_driver(gpu_host: GpuHost, driver: str, version: str) -> None:
    gpu_host.show(LAPTOP)
    shown = "cuda:0, NVIDIA GeForce RTX 3060 Laptop GPU, compute capability 8.6, 5 GiB of 6 GiB free"
    assert gpu_findings(gpu_host, driver) == [["ok", f"{shown}, NVIDIA driver {version}", ""]]


def test_a_driver_that_was_upgraded_under_the_loaded_module_fails(gpu_host: GpuHost) -> None:
    gpu_host.show(LAPTOP, "refuse nvmlInitWithFlags 18")
    ((verdict, found, fix),) = gpu_findings(gpu_host)
    assert (verdict, fix) == ("fail", "sudo reboot")
    assert "version mismatch" in found


def test_a_driver_that_shows_no_gpu_is_a_warning(gpu_host: GpuHost) -> None:
    assert [verdict for verdict, _, _ in gpu_findings(gpu_host)] == ["warn"]


def test_a_gpu_that_does_not_work_fails_and_the_others_are_shown(gpu_host: GpuHost) -> None:
    gpu_host.show(LAPTOP, "refuse nvmlDeviceGetMemoryInfo 15")
    ((verdict, found, _),) = gpu_findings(gpu_host)
    assert verdict == "fail"
    assert "GPU is lost" in found


@pytest.mark.parametrize(("driver", "verdicts"), [("", ["fail"]), (DRIVER, ["ok", "fail"])])
def test_a_configured_gpu_that_is_not_there_fails(gpu_host: GpuHost, driver: str, verdicts: list[str]) -> None:
    gpu_host.show(LAPTOP)
    assert [verdict for verdict, _, _ in gpu_findings(gpu_host, driver, "cuda:1")] == verdicts


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_no_driver_is_well_where_no_gpu_is_asked_for(gpu_host: GpuHost, device: str) -> None:
    ((verdict, found, _),) = gpu_findings(gpu_host, "", device)
    assert verdict == "ok"
    assert "no NVIDIA driver" in found
