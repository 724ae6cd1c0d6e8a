"""GPUs by NVML: the arithmetic, and the calls to a library in C that stands in for the driver's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiod.gpu import Gpu, figures, tells_our_pids, visible
from gpu_hosts import GIB, GpuHost

HOST = "pid:[4026531836]"
CONTAINER = "pid:[4026532417]"

T4 = f"gpu GPU-11111111-0000-0000-0000-000000000000 {16 * GIB} {15 * GIB} Tesla T4"
LAPTOP = f"gpu GPU-22222222-0000-0000-0000-000000000000 {4 * GIB} {3 * GIB} NVIDIA GeForce RTX 3050 Laptop GPU"
ONE, TWO = T4.split()[1], LAPTOP.split()[1]


def cards(*names: str) -> list[Gpu]:
    """`0a` is a slice of GPU 0."""
    return [Gpu(int(name[0]), f"{'MIG' if name[1:] else 'GPU'}-{name}", name, "8.6", "550") for name in names]


# --- which GPUs there are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (None, ["0", "1a", "1b", "2"]),
        ("", []),
        ("0", ["0"]),
        ("2,0", ["2", "0"]),
        (" 2 , 0 ", ["2", "0"]),
        ("1", ["1a"]),
        ("GPU-2", ["2"]),
        ("MIG-1b", ["1b"]),
        ("0,7,2", ["0"]),
        ("-1", []),
        ("0,,2", ["0"]),
        ("NoDevFiles", []),
    ],
)
def test_the_gpus_are_those_that_cuda_would_find(wanted: str | None, seen: list[str]) -> None:
    assert [gpu.name for gpu in visible(cards("0", "1a", "1b", "2"), wanted)] == seen


def test_gpus_are_listed_with_what_one_wants_to_know(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, LAPTOP, driver="535.183.01")
    first, second = gpu_host.run("tell([asdict(one) for one in gpu.gpus()])")
    assert first == {"card": 0, "uuid": ONE, "name": "Tesla T4", "capability": "8.6", "driver": "535.183.01"}
    assert (second["card"], second["name"]) == (1, "NVIDIA GeForce RTX 3050 Laptop GPU")


def test_the_daemon_s_own_variable_counts(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, LAPTOP)
    code = "tell([asdict(devices.resolve(name)) for name in ('cuda', 'auto')])"
    assert gpu_host.run(code, CUDA_VISIBLE_DEVICES="1") == 2 * [{"name": "cuda:0", "visible": TWO}]
    assert gpu_host.run("tell(devices.resolve('auto').name)", CUDA_VISIBLE_DEVICES="") == "cpu"


def test_a_gpu_that_is_cut_into_slices_is_not_used_as_a_whole(gpu_host: GpuHost) -> None:
    slices = [f"slice 0 MIG-{letter} {20 * GIB} {19 * GIB} A100 MIG 3g.20gb" for letter in "ab"]
    gpu_host.show(f"gpu GPU-0 {40 * GIB} {38 * GIB} A100", *slices, f"process MIG-b Compute 7 {GIB}")
    found = gpu_host.run(
        """
        readings = [await devices.meter(f"cuda:{number}").read() for number in (0, 1)]
        tell([[one.uuid for one in gpu.gpus()], [asdict(reading) for reading in readings]])
        """
    )
    assert found[0] == ["MIG-a", "MIG-b"]
    assert [reading["total_bytes"] for reading in found[1]] == [20 * GIB, 20 * GIB]
    assert [reading["processes"] for reading in found[1]] == [{}, {"7": GIB}]


@pytest.mark.parametrize("code", [9, 12])  # the driver's module is not loaded; its library is not there
def test_without_a_driver_there_are_no_gpus(gpu_host: GpuHost, code: int) -> None:
    gpu_host.show(T4, f"refuse nvmlInitWithFlags {code}")
    assert gpu_host.run("tell([gpu.gpus(), devices.resolve('auto').name])") == [[], "cpu"]


def test_without_the_library_there_are_no_gpus(gpu_host: GpuHost) -> None:
    found = gpu_host.run("tell(len(gpu.gpus()))", LD_LIBRARY_PATH="")
    assert (found > 0) is Path("/proc/driver/nvidia/version").exists()


# --- what to load models to -------------------------------------------------------------------------------------------


def test_a_device_is_resolved_by_its_name(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, LAPTOP)
    found = gpu_host.run(
        """
        found = [devices.resolve(name) for name in ("auto", "cpu", "cuda", "cuda:1")]
        tell([[device.name, device.visible, device.seen_as] for device in found])
        """
    )
    assert found == [
        ["cuda:0", ONE, "cuda:0"],
        ["cpu", "", "cpu"],
        ["cuda:0", ONE, "cuda:0"],
        ["cuda:1", TWO, "cuda:0"],
    ]


def test_a_device_that_is_not_there_is_an_error_that_names_those_that_are(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, LAPTOP)
    found = gpu_host.run(
        """
        try:
            devices.resolve("cuda:2")
        except AudiodError as error:
            tell([error.code, error.message, error.hint])
        """
    )
    assert found[0] == "device_not_found"
    assert found[1].endswith("only: cpu, cuda:0 (Tesla T4), cuda:1 (NVIDIA GeForce RTX 3050 Laptop GPU)")
    assert "residency.device" in found[2]


BROKEN = """
found = []
for name in ("cpu", "auto", "cuda:0"):
    try:
        found.append(devices.resolve(name).name)
    except AudiodError as error:
        found.append([error.code, error.message])
tell(found)
"""


def test_a_driver_that_does_not_work_leaves_the_cpu_unless_the_gpu_was_asked_for(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, "refuse nvmlInitWithFlags 18")
    cpu, auto, (code, message) = gpu_host.run(BROKEN)
    assert (cpu, auto, code) == ("cpu", "cpu", "device_unreadable")
    assert "version mismatch" in message


def test_a_driver_that_hangs_holds_nobody_up_and_lets_the_program_end(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, "hang nvmlInitWithFlags")
    cpu, auto, (code, message) = gpu_host.run("devices.READ_LIMIT_S = 0.2\n" + BROKEN)
    assert (cpu, auto, code) == ("cpu", "cpu", "device_unreadable")
    assert "not answered for 0.2 s" in message


# --- who holds what ---------------------------------------------------------------------------------------------------


def test_a_reading_has_the_memory_and_every_process_once(gpu_host: GpuHost) -> None:
    gpu_host.show(
        T4,
        LAPTOP,
        f"process {ONE} Compute 100 {GIB}",
        f"process {ONE} Graphics 100 {GIB}",
        f"process {ONE} Graphics 101 {5}",
        f"process {ONE} MPS 102 {7}",
        f"process {TWO} Compute 103 {9}",
    )
    found = gpu_host.run("tell(asdict(await devices.meter('cuda:0').read([100, 999])))")
    assert found == {
        "total_bytes": 16 * GIB,
        "free_bytes": 15 * GIB,
        "processes": {"100": GIB, "101": 5, "102": 7},
    }


def test_a_worker_s_use_is_its_own_figure(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, f"process {ONE} Compute 100 {GIB}")
    found = gpu_host.run(
        """
        meter = devices.meter("cuda:0")
        await meter.reset_peak(100)
        tell([await meter.measure_worker(pid) for pid in (100, 101)])
        """
    )
    assert found == [[GIB, GIB], None]


@pytest.mark.parametrize(
    "lines",
    [
        ["refuse nvmlDeviceGetComputeRunningProcesses_v3 4"],  # not permitted
        [f"process {ONE} Compute 100 {GIB}", "refuse nvmlDeviceGetComputeRunningProcesses_v3 13"],  # an old driver
        ["refuse nvmlDeviceGetGraphicsRunningProcesses_v3 3"],  # not for this kind of device
        [f"process {ONE} Compute 100 {GIB}", f"process {ONE} Compute 101 unknown"],
    ],
)
def test_figures_that_are_not_told_are_not_known(gpu_host: GpuHost, lines: list[str]) -> None:
    gpu_host.show(T4, *lines)
    found = gpu_host.run(
        """
        meter = devices.meter("cuda:0")
        tell([asdict(await meter.read([100])), await meter.measure_worker(100)])
        """
    )
    assert found == [{"total_bytes": 16 * GIB, "free_bytes": 15 * GIB, "processes": None}, None]


def test_a_driver_without_the_list_of_mps_still_tells_the_rest(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, "refuse nvmlDeviceGetMPSComputeRunningProcesses_v3 13", f"process {ONE} Compute 100 {GIB}")
    assert gpu_host.run("tell((await devices.meter('cuda:0').read()).processes)") == {"100": GIB}


@pytest.mark.parametrize(
    ("driver", "namespace", "ours"),
    [
        ("515.43.04", HOST, True),
        ("515.43.04", CONTAINER, False),
        ("535.183.01", CONTAINER, False),
        ("550.40.07", CONTAINER, True),
        ("610.12", CONTAINER, True),
        ("", CONTAINER, False),
        ("unknown", HOST, True),
    ],
)
def test_process_ids_of_the_host_are_not_taken_for_ours(driver: str, namespace: str, ours: bool) -> None:
    assert tells_our_pids(driver, namespace) is ours


def test_in_a_container_an_old_driver_s_process_ids_are_left_out(gpu_host: GpuHost) -> None:
    """Its number 1 is the host's init, and not the one that asks."""
    code = "from audiod import devices; print(devices.meter('cuda:0').read_now([1]).processes)"
    apart = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code]
    said = {}
    for driver in ("535.183.01", "550.54.15"):
        gpu_host.show(T4, f"process {ONE} Compute 1 {GIB}", driver=driver)
        ran = subprocess.run(apart, capture_output=True, text=True, env=gpu_host.environment())
        if "unshare" in ran.stderr:
            pytest.skip("no pid namespace may be made here")
        said[driver] = ran.stdout.strip()
    assert said == {"535.183.01": "None", "550.54.15": f"{{1: {GIB}}}"}


lists = st.lists(st.tuples(st.integers(1, 9), st.one_of(st.none(), st.integers(0, 100))), max_size=8)


@given(lists, lists)
def test_a_process_in_two_lists_counts_once_and_one_without_a_figure_spoils_them_all(
    compute: list[tuple[int, int | None]], graphics: list[tuple[int, int | None]]
) -> None:
    found = figures(compute, graphics)
    pairs = [*compute, *graphics]
    if any(held is None for _, held in pairs):
        assert found is None
    else:
        assert found == {pid: max(held or 0 for other, held in pairs if other == pid) for pid, _ in pairs}


# --- a driver that fails ----------------------------------------------------------------------------------------------


def test_a_gpu_that_fell_off_the_bus_is_a_typed_error_and_can_come_back(gpu_host: GpuHost) -> None:
    gpu_host.show(T4)
    found = gpu_host.run(
        """
        meter, good, found = devices.meter("cuda:0"), state.read_text(), []
        for text in (good, good + "refuse nvmlDeviceGetMemoryInfo 15\\n", good):
            state.write_text(text)
            try:
                found.append((await meter.read()).free_bytes)
            except AudiodError as error:
                found.append([error.code, error.message])
        tell(found)
        """
    )
    assert found[0] == found[2] == 15 * GIB
    assert found[1] == ["device_unreadable", "cuda:0 (Tesla T4) cannot be measured: GPU is lost"]


def test_a_gpu_that_hangs_is_asked_once_and_the_others_go_on(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, "hang nvmlDeviceGetMemoryInfo")
    found = gpu_host.run(
        """
        meter = gpu.GpuMeter("cuda:0")
        meter._limit_s, took, codes = 0.2, [], []
        for _ in range(3):
            began = time.monotonic()
            try:
                await meter.read()
            except AudiodError as error:
                codes.append(error.code)
            took.append(time.monotonic() - began)
        host = await devices.meter("cpu").read([os.getpid()])
        import threading
        asking = [thread for thread in threading.enumerate() if thread.name == "meter cuda:0"]
        tell([codes, took, len(asking), host.processes[os.getpid()] > 0])
        """
    )
    assert found[0] == 3 * ["device_unreadable"]
    assert found[1][0] >= 0.2 > max(found[1][1:])
    assert found[2:] == [1, True]


def test_memory_that_an_ended_worker_left_on_the_gpu_is_waited_for(gpu_host: GpuHost) -> None:
    """Another program takes more than the worker gives back, which is nobody's residue."""
    gpu_host.show(T4, f"process {ONE} Compute 100 {2 * GIB}")
    found = gpu_host.run(
        f"""
        meter = devices.meter("cuda:0")
        before = await meter.read()
        text = state.read_text()
        waiting = asyncio.get_running_loop().create_task(meters.reclaimed(meter, before, [100], {2 * GIB}, 30.0))
        while not meter._asked:
            await asyncio.sleep(0)
        gone = text.replace("process {ONE} Compute 100 {2 * GIB}", "process {ONE} Compute 555 {9 * GIB}")
        fresh = state.with_suffix(".new")
        fresh.write_text(gone.replace("{15 * GIB}", "{7 * GIB}"))
        fresh.replace(state)
        back = await waiting
        fresh.write_text(text)
        fresh.replace(state)
        tell([back, await meters.reclaimed(meter, before, [100], {2 * GIB}, 0.01)])
        """
    )
    assert found == [0, 2 * GIB]


# --- what status shows ------------------------------------------------------------------------------------------------


def test_status_has_a_line_for_each_device_in_use(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, f"process {ONE} Compute 100 {GIB // 2}")
    host, card = gpu_host.run(
        f"""
        lines = await devices.lines({{"cpu": 100, "cuda:0": {14 * GIB}}}, {{"cuda:0": {GIB // 4}}})
        import msgspec
        tell(msgspec.to_builtins(lines))
        """
    )
    assert (host["device"], host["name"], host["reserved_bytes"]) == ("cpu", "host memory", 0)
    assert 0 < host["others_bytes"] <= host["total_bytes"] - host["available_bytes"]
    assert card == {
        "device": "cuda:0",
        "name": "Tesla T4",
        "total_bytes": 16 * GIB,
        "available_bytes": 15 * GIB,
        "budget_bytes": 14 * GIB,
        "reserved_bytes": GIB // 4,
        "others_bytes": GIB,  # process 100 is none of ours, and the rest is the driver's own
    }


def test_what_is_promised_counts_as_ours_where_the_gpu_does_not_tell(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, "refuse nvmlDeviceGetComputeRunningProcesses_v3 4")
    line = gpu_host.run(f"tell((await devices.lines({{'cuda:0': 1}}, {{'cuda:0': {GIB // 4}}}))[0].others_bytes)")
    assert line == GIB - GIB // 4


def test_status_answers_while_the_driver_hangs(gpu_host: GpuHost) -> None:
    gpu_host.show(T4, "hang nvmlDeviceGetMemoryInfo")
    found = gpu_host.run(
        """
        devices._LINE_LIMIT_S = 0.2
        lines = await devices.lines({"cpu": 1, "cuda:0": 2}, {})
        tell([[line.device, line.name, line.budget_bytes] for line in lines])
        """
    )
    assert found == [["cpu", "host memory", 1], ["cuda:0", "does not answer", 2]]
