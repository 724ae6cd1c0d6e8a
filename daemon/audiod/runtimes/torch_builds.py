"""Which build of torch fits a host: a pure choice by GPUs, driver, Python and machine, with its reasons.

Installs nothing, and asks no driver but in `look`. The builds are those that packaging/locks/torch-TAG.txt pins.

| tag | torch | runs on compute capabilities | driver from |
| --- | --- | --- | --- |
| cu130 | 2.13.0 | 7.5 to 12.x (Turing to Blackwell), later ones from PTX | 580.65.06 |
| cu128 | 2.10.0 | 7.5 to 12.x (Turing to Blackwell) | 525.60.13 |
| cu126 | 2.7.1 | 5.0 to 9.0 (Maxwell, Pascal, Volta to Hopper) | 525.60.13 |
| cpu | 2.13.0 | - | - |

Sources: TORCH_CUDA_ARCH_LIST in pytorch's .ci/manywheel/build_cuda.sh at those versions, and pytorch issues 157517,
172352 and 190385; drivers: CUDA Toolkit release notes, table of minor version compatibility.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from audiod import gpu, threads
from audiod.meters import READ_LIMIT_S
from audioproto.errors import DeviceUnreadable, InstallFailed

CPU = "cpu"


class Build(NamedTuple):
    """A build for GPUs. `capabilities` are those that it holds machine code for, `forward` whether also PTX."""

    tag: str
    capabilities: tuple[tuple[int, int], ...]
    forward: bool
    driver: str

    def runs_on(self, capability: tuple[int, int]) -> bool:
        """Machine code runs on later minors of its major; PTX is compiled by the driver for whatever comes later.

        Source: CUDA C++ Programming Guide, Application Compatibility.
        """
        major, minor = capability
        exact = any(had == major and least <= minor for had, least in self.capabilities)
        return exact or (self.forward and capability > self.capabilities[-1])


BUILDS = (
    Build("cu130", ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)), True, "580.65.06"),
    Build("cu128", ((7, 5), (8, 0), (8, 6), (9, 0), (10, 0), (12, 0)), False, "525.60.13"),
    Build("cu126", ((5, 0), (6, 0), (7, 0), (7, 5), (8, 0), (8, 6), (9, 0)), False, "525.60.13"),
)
"""Newest first: of several that fit, the first is taken."""

TAGS = (*(build.tag for build in BUILDS), CPU)


class Host(NamedTuple):
    """What the choice depends on. `gpus` are names with compute capabilities such as "8.9"; `python` as in locks."""

    gpus: tuple[tuple[str, str], ...] = ()
    driver: str = ""
    python: str = f"{sys.implementation.name}-{sys.version_info.major}{sys.version_info.minor}-{platform.machine()}"


class Choice(NamedTuple):
    """A build's tag, and in sentences why it and no newer one."""

    tag: str
    reasons: tuple[str, ...]


def look(device: str) -> Host:
    """This host, for models that are loaded to `device` as configured. Blocks while the driver is asked.

    Raises DeviceUnreadable where there is a driver and it does not work.
    """
    if device == "cpu":
        return Host()
    try:
        found = threads.limited(gpu.gpus, READ_LIMIT_S, "devices")
    except TimeoutError:
        said = f"NVIDIA's driver has not answered for {READ_LIMIT_S:g} s"
        raise DeviceUnreadable(said, hint='nvidia-smi; or name a build as runtimes.torch, such as "cpu"') from None
    return Host(tuple((one.name, one.capability) for one in found), found[0].driver if found else "")


def numbers(tag: str) -> list[int]:
    """Which of this host's GPUs, as `cuda:N`, that build runs on. Asks the driver. Raises DeviceUnreadable."""
    build = next((build for build in BUILDS if build.tag == tag), None)
    if build is None:
        return []
    gpus = enumerate(look("auto").gpus)
    return [number for number, (_, capability) in gpus if build.runs_on(_capability(capability))]


def choose(host: Host, offered: Mapping[str, Sequence[str]], wanted: str = "auto") -> Choice:
    """The build for `host` among those `offered`, by tag, with the Pythons that each is for (none: any).

    `wanted` other than `auto` is taken where it is offered. Raises InstallFailed where no build will do.
    """
    reasons: list[str] = []
    able = []
    for tag in TAGS:
        if tag not in offered:
            reasons.append(f"{tag} is not locked for this runtime")
        elif (pythons := offered[tag]) and host.python not in pythons:
            reasons.append(f"{tag} is locked for {', '.join(pythons)} only, and this is {host.python}")
        elif tag != CPU and not host.python.endswith("-x86_64"):
            reasons.append(f"{tag} is for x86_64 only, and this is {host.python}")
        else:
            able.append(tag)
    if wanted != "auto":
        if wanted in able:
            return Choice(wanted, (f"runtimes.torch is {wanted}",))
        why = "; ".join(reason for reason in reasons if reason.startswith(f"{wanted} ")) or "there is no such build"
        raise InstallFailed(f"torch for {wanted} cannot be had: {why}", hint='runtimes.torch = "auto" in audiod.toml')
    if not host.gpus:
        reasons.append("there is no NVIDIA GPU for models")
        # A build for GPUs computes on the CPU too; it only is ten times as large.
        order = [CPU, *(build.tag for build in BUILDS)]
        if fitting := [tag for tag in order if tag in able]:
            return Choice(fitting[0], _before(reasons, order, fitting[0]))
    else:
        reach: dict[str, int] = {}
        for build in (build for build in BUILDS if build.tag in able):
            if _version(host.driver) < _version(build.driver):
                reasons.append(f"{build.tag} needs driver {build.driver}, and this is {host.driver}")
                continue
            strange = [f"{name} ({of})" for name, of in host.gpus if not build.runs_on(_capability(of))]
            if strange:
                reasons.append(f"{build.tag} has no code for {', '.join(strange)}")
            reach[build.tag] = len(host.gpus) - len(strange)
        if any(reach.values()):
            # max takes the first of equals, which is the newest.
            tag = max(reach, key=reach.__getitem__)
            return Choice(tag, (*_before(reasons, TAGS, tag), f"{tag} runs {_listed(host, tag)}"))
        if CPU in able:
            return Choice(CPU, (*reasons, "no build runs these GPUs: models compute on the CPU"))
    raise InstallFailed(f"no build of torch fits this host: {'; '.join(reasons)}", hint="audioctl doctor")


def _before(reasons: Sequence[str], order: Sequence[str], chosen: str) -> tuple[str, ...]:
    """The reasons, less those about builds that would not have been preferred anyway."""
    later = order[order.index(chosen) + 1 :]
    return tuple(reason for reason in reasons if reason.split()[0] not in later)


def _listed(host: Host, tag: str) -> str:
    build = next(build for build in BUILDS if build.tag == tag)
    return ", ".join(f"{name} ({of})" for name, of in host.gpus if build.runs_on(_capability(of)))


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


def _version(text: str) -> tuple[int, ...]:
    """`535.129.03` as numbers; what is none, in a driver that NVIDIA built for somebody, counts as 0."""
    return tuple(int(part) if part.isdecimal() else 0 for part in text.split("."))
