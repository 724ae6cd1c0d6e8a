"""The scheduler's rules one by one, in a world where processes take a known time: what a user would notice of each."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from dataclasses import dataclass, field

import pytest

from audiod.residency.events import (
    Announce,
    Demand,
    DeviceMeasured,
    Event,
    Finish,
    ForkWorker,
    Grant,
    Instruction,
    Limits,
    LoadAsked,
    LoadFailed,
    MeasureDevice,
    ParkAsked,
    Pause,
    Profile,
    Reconfigured,
    Reject,
    Released,
    Report,
    Requested,
    Resume,
    StartZygote,
    StopWorker,
    StopZygote,
    TimePassed,
    WorkerLoaded,
    WorkerMeasured,
    WorkerStopped,
    Yielded,
    ZygoteStarted,
    ZygoteStopped,
)
from audiod.residency.footprint import Footprint
from audiod.residency.machine import ModelState
from audiod.residency.scheduler import Scheduler
from audioproto.errors import AudiodError, ModelTooLarge, OutOfMemory
from audioproto.types import Priority
from audioproto.types import Residency as S

MIB = 2**20
GIB = 2**30
START_S, LOAD_S, STOP_S, SEGMENT_S = 8.0, 6.0, 0.1, 5.0


@dataclass(order=True)
class Due:
    at: float
    number: int
    event: Event = field(compare=False)


@dataclass
class Job:
    """A request at work: how much of it is left, and since when it has run; its end is void when it was paused."""

    left_s: float
    resumed_at: float
    end: int = 0


class World:
    """Carries instructions out in no more than the time they take. Requests work for `size` seconds."""

    def __init__(self, *profiles: Profile, limits: Limits, total_bytes: int = 0) -> None:
        self.scheduler = Scheduler(profiles, limits)
        self.now = 0.0
        self.total_bytes, self.others_bytes = total_bytes, 0
        self.load_errors: list[AudiodError] = []
        self.loaded_bytes: dict[str, int] = {}
        self.due: list[Due] = []
        self.numbers = itertools.count(1)
        self.came: dict[int, float] = {}
        self.sizes: dict[int, float] = {}
        self.granted: dict[int, float] = {}
        self.order: list[int] = []
        self.jobs: dict[int, Job] = {}
        self.rejected: dict[int, AudiodError] = {}
        self.finished: dict[int, AudiodError | None] = {}
        self.done: dict[int, float] = {}
        self.said: list[Instruction] = []

    def model(self, name: str) -> ModelState:
        return self.scheduler.models[name]

    def later(self, delay_s: float, event: Event) -> int:
        number = next(self.numbers)
        heapq.heappush(self.due, Due(self.now + delay_s, number, event))
        return number

    def feed(self, event: Event) -> None:
        if isinstance(event, Released):
            job = self.jobs.pop(event.request, None)
            if job is not None:
                self.done[event.request] = self.now
        for instruction in self.scheduler.handle(event, self.now):
            self.said.append(instruction)
            self.execute(instruction)

    def execute(self, instruction: Instruction) -> None:
        match instruction:
            case StartZygote(model):
                self.later(START_S, ZygoteStarted(model, 0))
            case ForkWorker(model):
                failed = LoadFailed(model, self.load_errors.pop(0)) if self.load_errors else None
                self.later(LOAD_S, failed or WorkerLoaded(model, self.loaded_bytes.get(model, 0)))
            case StopWorker(model):
                self.later(STOP_S, WorkerStopped(model))
            case StopZygote(model):
                self.later(STOP_S, ZygoteStopped(model))
            case MeasureDevice(device):
                self.later(0.0, DeviceMeasured(device, self.total_bytes, self.others_bytes))
            case Grant(request, _):
                self.granted[request] = self.now
                self.order.append(request)
                self.begin(request, self.sizes[request])
            case Pause(request):
                job = self.jobs[request]
                to_segment_s = SEGMENT_S - (self.now - job.resumed_at) % SEGMENT_S
                if to_segment_s < job.left_s - (self.now - job.resumed_at):
                    self.later(to_segment_s, Yielded(request))
            case Resume(request):
                self.begin(request, self.jobs[request].left_s)
            case Reject(request, error):
                self.rejected[request] = error
            case Finish(operation, error):
                self.finished[operation] = error

    def begin(self, request: int, left_s: float) -> None:
        self.jobs[request] = Job(left_s, self.now, self.later(left_s, Released(request)))

    def ask(self, model: str, size: float = 2.0, timeout_s: float = 1e6, **demand: object) -> int:
        request = next(self.numbers)
        self.came[request], self.sizes[request] = self.now, size
        self.feed(Requested(request, model, self.now + timeout_s, Demand(size, **demand)))  # type: ignore[arg-type]
        return request

    def run(self, until: float = math.inf) -> None:
        """Let time pass until `until`, or until nothing is under way; timers of idle models are left alone then."""
        while True:
            at = self.due[0].at if self.due else math.inf
            if until < math.inf or self.scheduler.queue_length:
                at = min(at, self.scheduler.next_wakeup)
            if at > until or at == math.inf:
                self.now = max(self.now, until) if until < math.inf else self.now
                return
            self.now = max(self.now, at)
            if not self.due or self.due[0].at > self.now:
                self.feed(TimePassed())
                continue
            due = heapq.heappop(self.due)
            match due.event:
                case Released(request) if (job := self.jobs.get(request)) is None or job.end != due.number:
                    continue
                case Yielded(request):
                    job = self.jobs[request]
                    job.left_s -= self.now - job.resumed_at
                    job.end = 0
            self.feed(due.event)

    def wait_s(self, request: int) -> float:
        return self.granted[request] - self.came[request]

    def reasons(self, model: str) -> list[str]:
        return [i.reason for i in self.said if isinstance(i, Announce) and i.model == model]


def profile(name: str, ready_mib: int = 3000, **settings: object) -> Profile:
    footprint = Footprint(ready_mib * MIB, 100 * MIB)
    return Profile(name, footprint, "cuda:0", **settings)  # type: ignore[arg-type]


def limits(**settings: object) -> Limits:
    return Limits(devices={"cuda:0": 4 * GIB}, host_bytes=16 * GIB, **settings)  # type: ignore[arg-type]


def ready(world: World, *models: str) -> None:
    for model in models:
        world.feed(LoadAsked(next(world.numbers), model))
        world.run()
        assert world.model(model).state is S.READY


# --- order ------------------------------------------------------------------------------------------------------------


def test_batch_work_is_put_off_but_not_for_ever() -> None:
    world = World(profile("m"), limits=limits(batch_patience_s=30.0))
    ready(world, "m")
    world.ask("m", 10.0)
    batch = world.ask("m", 2.0, priority=Priority.BATCH)
    people = []
    while batch not in world.granted:
        people.append(world.ask("m", 1.0))
        world.run(until=world.now + 0.9)
    assert world.order.index(people[3]) < world.order.index(batch), "interactive requests that came later go first"
    assert 30.0 <= world.wait_s(batch) < 45.0, "but only for as long as its patience lasts, and what was before it"


def test_a_short_request_goes_before_longer_ones_that_came_a_little_earlier() -> None:
    world = World(profile("m"), limits=limits())
    ready(world, "m")
    world.run(until=world.now)
    for _ in range(2):  # so that it is known how long a second of audio takes
        world.ask("m", 4.0)
    world.run()
    world.ask("m", 4.0)
    long, short = world.ask("m", 12.0), world.ask("m", 3.5)
    world.run()
    assert world.order.index(short) < world.order.index(long)


@pytest.mark.parametrize("size", [1.0, 3.0])
def test_whisper_cpp_1803_a_short_clip_behind_a_long_file_waits_for_one_segment_at_most(size: float) -> None:
    world = World(profile("m"), limits=limits())
    ready(world, "m")
    file = world.ask("m", 600.0)
    world.run(until=world.now + 17.0)
    clip = world.ask("m", size)
    world.run()
    assert world.wait_s(clip) <= SEGMENT_S
    assert world.done[file] - world.came[file] == pytest.approx(600.0 + size), "and the file loses nothing"


def test_a_clip_is_not_stuck_behind_files_that_have_waited_long_enough_to_be_first() -> None:
    world = World(profile("m"), limits=limits())
    ready(world, "m")
    world.ask("m", 900.0)
    second = world.ask("m", 900.0)
    world.run(until=world.now + 120.0)
    clip = world.ask("m", 3.0)
    world.run(until=world.now + 10.0)
    assert world.wait_s(clip) <= SEGMENT_S
    assert second not in world.granted


def test_a_long_file_gets_half_of_the_time_however_many_short_clips_come() -> None:
    world = World(profile("m"), limits=limits())
    ready(world, "m")
    file = world.ask("m", 300.0)
    world.run(until=world.now + 1.0)
    while file not in world.done:
        world.ask("m", 3.0)
        world.ask("m", 3.0)
        world.run(until=world.now + 3.0)
    assert world.done[file] - world.came[file] < 2 * 300.0 + 2 * SEGMENT_S + 20.0


def test_a_paused_file_does_not_keep_its_model_from_making_room() -> None:
    world = World(profile("a"), profile("b"), limits=limits(max_switch_wait_s=20.0))
    ready(world, "a")
    file = world.ask("a", 60.0)
    world.run(until=world.now + 1.0)
    world.ask("a", 3.0)
    other = world.ask("b")
    world.run()
    assert file in world.done
    assert other in world.done


# --- staged models ----------------------------------------------------------------------------------------------------


def staged(name: str, mib: int) -> Profile:
    return profile(name, mib, staged_bytes=mib * MIB)


def test_what_a_staged_model_brings_later_is_not_given_to_others() -> None:
    """When it has loaded it holds little; a request brings what was set aside for it."""
    world = World(staged("a", 3000), profile("b", 2000), limits=limits())
    world.loaded_bytes["a"] = 1200 * MIB
    ready(world, "a")
    assert world.model("a").footprint.ready_bytes == 3000 * MIB
    request = world.ask("a", 5.0)
    world.run(until=world.now + 1.0)
    world.ask("b")
    world.run(until=world.now + 1.0)
    assert world.model("b").state is not S.READY
    world.feed(WorkerMeasured("a", 1500 * MIB, 2900 * MIB, 5.0))
    world.run()
    assert request in world.done
    assert world.model("a").footprint.work_bytes(5.0) == 0, "which is no work beyond it"


def test_parts_that_come_and_go_are_no_growth() -> None:
    world = World(staged("a", 3000), limits=limits(recycle=True))
    ready(world, "a")
    for number in range(60):
        world.ask("a", 1.0)
        world.run(until=world.now + 5.0)
        world.feed(WorkerMeasured("a", (1200 if number < 30 else 2900) * MIB, 2950 * MIB, 1.0))
    assert world.model("a").loads == 1
    for _ in range(30):
        world.ask("a", 1.0)
        world.run(until=world.now + 5.0)
        world.feed(WorkerMeasured("a", 3900 * MIB, 3950 * MIB, 1.0))
    assert world.model("a").loads > 1, "but a leak is"


def test_a_smaller_budget_stages_a_model_that_was_there_as_a_whole() -> None:
    world = World(profile("a", 3900), limits=limits())
    ready(world, "a")
    running = world.ask("a", 10.0)
    world.run(until=world.now + 1.0)
    small = Limits(devices={"cuda:0": 3 * GIB}, host_bytes=16 * GIB)
    world.feed(Reconfigured((staged("a", 2500),), small))
    request = world.ask("a", 1.0)
    world.run()
    assert world.done[running] < world.granted[request], "who is served is served to the end"
    assert "zygote started" in world.reasons("a")[-3:], (
        "its processes are made anew, for they know how much they may have"
    )
    assert world.model("a").footprint.ready_bytes == 2500 * MIB


def test_a_reload_does_not_promise_the_memory_that_the_processes_before_it_hold() -> None:
    world = World(profile("a", 3900), profile("b", 1400), limits=limits())
    ready(world, "a")
    running = world.ask("a", 100.0)
    world.run(until=world.now + 1.0)
    world.feed(Reconfigured((staged("a", 2500), profile("b", 1400)), limits()))
    other = world.ask("b")
    world.run()
    assert world.granted[other] >= world.done[running]


def test_a_staged_model_that_runs_out_of_memory_takes_none_from_others_and_is_not_refused_for_it() -> None:
    """It has what is set aside for it, and ran out of that."""
    world = World(staged("a", 2000), profile("idle", 500), limits=limits())
    ready(world, "idle", "a")
    for _ in range(3):
        request = world.ask("a", 5.0)
        world.run(until=world.now + 1.0)
        world.feed(Released(request, out_of_memory=True))
    assert world.model("idle").state is S.READY
    assert world.model("a").footprint.work_bytes(5.0) == 0
    assert world.ask("a", 5.0) in world.granted


def test_a_park_that_was_asked_for_is_done_before_the_model_begins_anew() -> None:
    world = World(profile("a", 3000), limits=limits())
    ready(world, "a")
    world.ask("a", 10.0)
    world.run(until=world.now + 1.0)
    world.feed(ParkAsked(operation := next(world.numbers), "a"))
    world.feed(Reconfigured((staged("a", 2000),), limits()))
    world.run()
    assert world.finished[operation] is None
    assert world.model("a").state is S.UNLOADED
    world.feed(LoadAsked(operation := next(world.numbers), "a"))
    world.run()
    assert world.finished[operation] is None
    assert world.model("a").state is S.READY


def test_a_load_that_is_asked_for_meanwhile_ends_with_the_new_processes() -> None:
    world = World(profile("a", 3000), limits=limits())
    ready(world, "a")
    world.ask("a", 10.0)
    world.run(until=world.now + 1.0)
    world.feed(Reconfigured((staged("a", 2000),), limits()))
    world.feed(LoadAsked(operation := next(world.numbers), "a"))
    world.run()
    assert world.finished[operation] is None
    assert world.model("a").loads == 2


# --- turns ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_a_model_that_is_waited_for_gets_its_turn_within_the_bound(seed: int) -> None:
    """Two models, room for one, requests without end: the first waits for a switch that had begun, for the other's
    turn, which lasts twice as long where its requests came before, for its last service, and for its own switch."""
    rng = random.Random(seed)
    wait_s = rng.choice([5.0, 20.0])
    world = World(profile("a"), profile("b"), limits=limits(max_switch_wait_s=wait_s))
    longest_s = 4.0
    came: dict[str, float] = {}
    worst_s = 0.0
    while world.now < 600.0:
        world.run(until=world.now + rng.expovariate(1.5))
        name = rng.choice("ab")
        if world.model(name).state is not S.READY and not world.model(name).queue:
            came[name] = world.now
        world.ask(name, rng.uniform(0.5, longest_s))
        for model in "ab":
            if model in came and world.model(model).state is S.READY:
                worst_s = max(worst_s, world.model(model).since - came.pop(model))
    patience_s = longest_s
    assert worst_s <= START_S + 2 * (STOP_S + LOAD_S) + 2 * wait_s + patience_s + longest_s
    assert worst_s > 0


def test_a_turn_is_not_ended_for_one_that_came_after_all_who_still_wait() -> None:
    """Switching for it would only be to switch back for them."""
    world = World(profile("a"), profile("b"), limits=limits(max_switch_wait_s=5.0))
    ready(world, "b")
    ready(world, "a")
    before = [world.ask("a", 3.0) for _ in range(4)]
    world.run(until=world.now + 1.0)
    after = world.ask("b", 1.0)
    world.run()
    assert max(world.done[request] for request in before) < world.done[after]
    assert world.model("a").loads == 1


def test_a_turn_ends_at_twice_the_limit_whoever_came_before() -> None:
    world = World(profile("a"), profile("b"), limits=limits(max_switch_wait_s=5.0))
    ready(world, "b")
    ready(world, "a")
    before = [world.ask("a", 3.0) for _ in range(20)]
    world.run(until=world.now + 1.0)
    after = world.ask("b", 1.0)
    world.run()
    assert world.done[after] - world.came[after] < 2 * 5.0 + 3.0 + 3.0 + STOP_S + LOAD_S + 1.0
    assert max(world.done[request] for request in before) > world.done[after]


def test_what_loads_slowly_is_evicted_after_what_loads_quickly() -> None:
    slow, quick = profile("slow", 1900), profile("quick", 1900)
    slow.footprint.load_s, quick.footprint.load_s = 60.0, 0.5
    world = World(slow, quick, profile("new", 1900), limits=limits())
    ready(world, "slow", "quick")
    world.model("slow").footprint.load_s, world.model("quick").footprint.load_s = 60.0, 0.5
    world.ask("new")
    world.run()
    assert world.model("slow").state is S.READY
    assert world.model("quick").state is S.PARKED


# --- memory -----------------------------------------------------------------------------------------------------------


def test_a_model_larger_than_the_device_is_refused_at_once_with_numbers_and_nobody_is_evicted() -> None:
    world = World(profile("small", 1000), profile("huge", 9000), limits=limits())
    ready(world, "small")
    request = world.ask("huge")
    assert isinstance(world.rejected[request], ModelTooLarge)
    assert "9000 MiB" in world.rejected[request].message
    assert "4096 MiB" in world.rejected[request].message
    assert world.model("small").state is S.READY


def test_a_long_recording_sends_an_idle_neighbour_away_and_a_short_one_does_not() -> None:
    speaker, listener = profile("speaker", 1500), profile("listener", 1500)
    listener.footprint.learn_work(10.0, 100 * MIB)
    listener.footprint.learn_work(600.0, 1500 * MIB)
    world = World(speaker, listener, limits=limits())
    ready(world, "speaker", "listener")
    world.ask("listener", 10.0)
    world.run()
    assert world.model("speaker").state is S.READY
    long = world.ask("listener", 600.0)
    world.run()
    assert long in world.done
    assert world.model("speaker").state is S.PARKED


def test_when_memory_runs_out_in_a_load_idle_models_go_and_it_is_tried_once_more() -> None:
    world = World(profile("idle", 500), profile("new", 500), limits=limits())
    ready(world, "idle")
    world.load_errors = [OutOfMemory("CUDA out of memory")]
    request = world.ask("new")
    world.run()
    assert request in world.done
    assert world.model("idle").state is S.PARKED
    assert world.reasons("idle")[-1] == "new ran out of memory"


def test_when_memory_runs_out_in_the_second_load_too_the_model_fails_with_the_reason() -> None:
    world = World(profile("new", 500), limits=limits())
    world.load_errors = [OutOfMemory("CUDA out of memory"), OutOfMemory("CUDA out of memory")]
    request = world.ask("new")
    world.run()
    assert "CUDA out of memory" in world.rejected[request].message
    assert world.model("new").state is S.FAILED


def test_when_memory_runs_out_at_work_the_next_try_finds_the_device_cleared() -> None:
    world = World(profile("idle", 500), profile("m", 500), limits=limits())
    ready(world, "idle", "m")
    first = world.ask("m", 60.0)
    del world.jobs[first]
    world.feed(Released(first, out_of_memory=True))
    second = world.ask("m", 60.0)
    assert second not in world.granted, "not before the room is there"
    world.run()
    assert second in world.done
    assert world.model("idle").state is S.PARKED


def test_what_other_programs_hold_is_respected_told_and_forgotten_when_they_are_gone() -> None:
    world = World(profile("m", 3000), limits=limits(), total_bytes=4 * GIB)
    world.others_bytes = 2 * GIB
    world.feed(DeviceMeasured("cuda:0", 4 * GIB, 2 * GIB))
    refused = world.ask("m")
    world.run()
    assert isinstance(world.rejected[refused], OutOfMemory)
    assert "other programs hold 2048 of 4096 MiB" in world.rejected[refused].message
    world.others_bytes = 0
    world.run(until=world.now + 60.0)
    served = world.ask("m")
    world.run()
    assert served in world.done, "the device is measured anew before anybody is refused"


def test_when_other_programs_grow_idle_models_leave_the_device() -> None:
    world = World(profile("m", 3000), limits=limits(), total_bytes=4 * GIB)
    ready(world, "m")
    world.feed(DeviceMeasured("cuda:0", 4 * GIB, 2 * GIB))
    world.run()
    assert world.model("m").state is S.PARKED


def test_memory_may_shrink_while_a_load_is_under_way_and_the_model_still_comes_up() -> None:
    """llama-swap and Ollama wait for memory that is already free, or take a smaller number for a huge one."""
    world = World(profile("a", 3000), profile("b", 3000), limits=limits(), total_bytes=4 * GIB)
    ready(world, "a")
    request = world.ask("b")
    world.feed(DeviceMeasured("cuda:0", 4 * GIB, 900 * MIB))
    world.others_bytes = 900 * MIB
    world.run()
    assert request in world.done


def test_a_device_that_is_nearly_full_is_reported_once_until_there_is_room_again() -> None:
    world = World(profile("large", 3900, keep_alive_s=10.0), profile("small", 500), limits=limits())
    for _ in range(2):
        ready(world, "small")
        assert not [said for said in world.said if isinstance(said, Report)]
        for _ in range(3):
            world.ask("large")
            world.run()
        (said,) = [said for said in world.said if isinstance(said, Report)]
        assert (said.kind, said.message) == ("memory", "models hold 3900 of the 4096 MiB that they may on cuda:0")
        world.said.clear()
        world.run(until=world.now + 60.0)


def use(world: World, rest_mib: int, times: int) -> list[str]:
    said = len(world.said)
    for _ in range(times):
        world.ask("m", 1.0)
        world.run()
        if world.model("m").state is S.READY:
            world.feed(WorkerMeasured("m", rest_mib * MIB, rest_mib * MIB, 1.0))
    return [i.message for i in world.said[said:] if isinstance(i, Report)]


def test_a_model_that_grows_at_rest_is_reported_once_for_each_growth() -> None:
    world = World(profile("m", 1000, keep_alive_s=-1.0), limits=limits())
    ready(world, "m")
    assert use(world, 1000, 40) == []
    assert use(world, 1100, 40) == [], "as much as allocators keep back at will"
    (said,) = use(world, 1500, 40)
    assert "grew from 1000 to 1500 MiB" in said
    assert world.model("m").state is S.READY, "it is not recycled where that is not configured"


def test_a_model_that_grows_begins_anew_when_idle_where_that_is_configured() -> None:
    world = World(profile("m", 1000, keep_alive_s=-1.0), limits=limits(recycle=True))
    ready(world, "m")
    use(world, 1000, 30)
    use(world, 1500, 2)
    world.run()
    assert world.model("m").state is S.PARKED
    assert "grew from 1000 to 1500 MiB" in world.model("m").reason
    request = world.ask("m")
    world.run()
    assert request in world.done


# --- keeping ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked_s", "parked_after_s"), [(None, 300.0), (0.0, 0.0), (10.0, 10.0), (-1.0, math.inf)])
def test_a_request_may_say_how_long_its_model_is_kept(asked_s: float | None, parked_after_s: float) -> None:
    world = World(profile("m"), limits=limits())
    ready(world, "m")
    request = world.ask("m", keep_alive_s=asked_s)
    world.run(until=world.now + 2000.0)
    parked_at = [chapter.at for chapter in world.model("m").story if chapter.state is S.PARKING]
    left_after_s = parked_at[0] - world.done[request] if parked_at else math.inf
    assert left_after_s == pytest.approx(parked_after_s)


def test_the_next_request_without_a_word_on_it_brings_the_model_s_own_keep_alive_back() -> None:
    world = World(profile("m"), limits=limits())
    ready(world, "m")
    world.ask("m", keep_alive_s=-1.0)
    world.run()
    world.ask("m")
    world.run(until=world.now + 400.0)
    assert world.model("m").state is S.PARKED


# --- answers ----------------------------------------------------------------------------------------------------------


def test_who_waits_too_long_learns_the_place_in_the_queue_and_how_long_it_would_have_taken() -> None:
    world = World(profile("m"), limits=limits())
    ready(world, "m")
    for _ in range(6):
        world.ask("m", 30.0)
    late = world.ask("m", 30.0, timeout_s=60.0)
    world.run(until=world.now + 61.0)
    error = world.rejected[late]
    assert error.code == "queue_timeout"
    assert error.position == 5
    assert error.retry_after_s == pytest.approx(4 * 30, abs=3)
    assert "number 5 in the queue" in error.message


def test_a_full_queue_says_how_long_it_is() -> None:
    world = World(profile("m"), limits=limits(queue_requests=3))
    ready(world, "m")
    world.ask("m", 20.0)
    world.run()
    for _ in range(4):
        world.ask("m", 20.0)
    refused = world.rejected[world.ask("m", 20.0)]
    assert refused.code == "queue_full"
    assert refused.position == 4
    assert refused.retry_after_s == pytest.approx(80, abs=3)
