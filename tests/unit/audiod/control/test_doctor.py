"""The machinery of doctor: limits, order, broken checks, and what a driver and nvidia-smi are understood to say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from audiod.config import Config
from audiod.control import checks, doctor
from audiod.control.checks import Patient
from audiod.control.doctor import Check, examine
from audiod.media.pool import MediaPool
from audiod.residency.events import Limits
from audioproto.diagnosis import EXHAUSTED_BYTES, SCARCE_BYTES, Finding, Verdict, judge_space

DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: 12.3\n"
OPEN_DRIVER = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  (dvs-builder@U16)\n"


@pytest.fixture
async def patient() -> Patient:
    return Patient(Config(), {}, Limits({"cpu": 2**30}, 2**30), {}, 0, Config, MediaPool())


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


def program(directory: Path, text: str) -> None:
    file = directory / "nvidia-smi"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


@pytest.mark.parametrize(("driver", "version"), [(DRIVER, "535.183.01"), (OPEN_DRIVER, "550.54.15")])
def test_a_gpu_is_named_with_its_generation_memory_and_driver(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str, version: str
) -> None:
    """A stand-in for hosts with one: what the driver's file and nvidia-smi's CSV look like there."""
    (tmp_path / "version").write_text(driver)
    monkeypatch.setattr(checks, "_DRIVER", tmp_path / "version")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "echo 'NVIDIA GeForce RTX 3060 Laptop GPU, 8.6, 6144, 5921'")
    found = list(checks.gpu(patient))
    assert [finding.verdict for finding in found] == ["ok"]
    shown = "NVIDIA GeForce RTX 3060 Laptop GPU, compute capability 8.6, 5921 of 6144 MiB free"
    assert found[0].found == f"{shown}, NVIDIA driver {version}"


def test_a_driver_that_was_upgraded_under_the_loaded_module_fails(
    patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "version").write_text(DRIVER)
    monkeypatch.setattr(checks, "_DRIVER", tmp_path / "version")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program(tmp_path, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    found = list(checks.gpu(patient))
    assert (found[0].verdict, found[0].fix) == ("fail", "sudo reboot")
    assert "version mismatch" in found[0].found
    (tmp_path / "nvidia-smi").unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert next(checks.gpu(patient)).verdict == "warn"
