"""Limits of control groups: how the host's memory and theirs are weighed against each other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from audiod.supervisor import memory
from audiod.supervisor.memory import Bound, control_group_bounds
from control_groups import memory_group
from daemons import TOP

MIB = 2**20
GIB = 2**30


def group(directory: Path, **files: str | int) -> None:
    """A group's files; `__` in a name stands for the dot."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(f"{text}\n")


def test_every_limit_on_the_way_up_counts_and_what_is_cached_is_free(tmp_path: Path) -> None:
    root, us = tmp_path / "cgroup", tmp_path / "us"
    us.write_text("0::/system.slice/audiod.service/daemon\n")
    group(root)
    stat = f"anon 1\ninactive_file {10 * MIB}\nactive_file {20 * MIB}\nshmem {40 * MIB}"
    group(root / "system.slice", memory__max="max", memory__current=9 * GIB, memory__stat=stat)
    service = root / "system.slice" / "audiod.service"
    group(service, memory__max=4 * GIB, memory__current=GIB, memory__stat=stat)
    group(service / "daemon", memory__max=3 * GIB, memory__current=50 * MIB, memory__stat=stat)
    group(service / "model-x", memory__max=GIB, memory__current=0, memory__stat=stat)
    assert sorted(control_group_bounds(us, root)) == [
        Bound(3 * GIB, 3 * GIB - 20 * MIB),
        Bound(4 * GIB, 3 * GIB + 30 * MIB),
    ]


def test_the_first_version_of_control_groups_counts_too(tmp_path: Path) -> None:
    root, us = tmp_path / "cgroup", tmp_path / "us"
    us.write_text("5:devices:/\n4:cpu,memory:/docker/x\n1:name=systemd:/docker/x\n0::/\n")
    stat = f"cache {GIB}\ntotal_inactive_file {10 * MIB}\ntotal_active_file {20 * MIB}\nactive_file 5"
    limits = {root / "memory": 2**63 - 4096, root / "memory" / "docker" / "x": 2 * GIB}
    for place, limit in limits.items():
        group(place, memory__limit_in_bytes=limit, memory__usage_in_bytes=GIB, memory__stat=stat)
    bounds = {bound.limit_bytes: bound.free_bytes for bound in control_group_bounds(us, root)}
    assert bounds[2 * GIB] == GIB + 30 * MIB


def test_a_group_that_is_over_its_limit_has_nothing_left_and_not_less(tmp_path: Path) -> None:
    us = tmp_path / "us"
    us.write_text("0::/x\n")
    group(tmp_path / "x", memory__max=GIB, memory__current=2 * GIB, memory__stat="inactive_file 0\nactive_file 0")
    assert list(control_group_bounds(us, tmp_path)) == [Bound(GIB, 0)]


def test_a_group_that_cannot_be_seen_from_a_container_is_left_out(tmp_path: Path) -> None:
    us = tmp_path / "us"
    us.write_text("0::/../outside\n")
    assert list(control_group_bounds(us, tmp_path / "cgroup")) == []


ASK = """
import json, sys
from audiod.supervisor import memory
sys.stdin.readline()
held = bytearray(b"x") * (100 << 20)
print(json.dumps([memory.host_memory_bytes(), memory.control_group_limit_bytes()]))
"""


def test_a_process_in_a_limited_group_sees_its_limit_as_the_host() -> None:
    """As in a container, with the kernel's own figures."""
    with (
        memory_group(512 * MIB) as there,
        subprocess.Popen(
            [sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=TOP / "daemon"
        ) as process,
    ):
        (there / "cgroup.procs").write_text(str(process.pid))
        said, _ = process.communicate(b"\n", timeout=60)
    (total_bytes, free_bytes), limit_bytes = json.loads(said)
    assert total_bytes == limit_bytes == 512 * MIB
    assert 300 * MIB < free_bytes <= 412 * MIB
    assert memory.host_memory_bytes()[0] > 512 * MIB
