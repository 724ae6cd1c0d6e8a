"""What a simulation shows, put together: the document for `--json`, and the same as a page for people.

Judges by the figures alone; runs nothing but the bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap

import msgspec

from audiod.units import Duration
from simulation import bound
from simulation.bound import Problem, TooHard
from simulation.figures import Figures, Sum
from simulation.policies import FIFO, OURS
from simulation.scenario import Scenario

LOAD = (
    "seconds of work that requests ask for in a second of time, at the times that the scenario gives for serving them; "
    "loading and parking are not counted"
)


_WIDTH = 100
"""Of what is said below the tables."""

_FEW_KINDS = 2
"""So many kinds of request need no table of their own."""


class Best(msgspec.Struct, frozen=True):
    """What no schedule could beat, even with the trace known beforehand (bound.py says for which hosts that is known).

    Waits are of all requests that were measured: a policy that refuses some is not bound by them.
    """

    wait_max_s: float | None
    """Some request waits at least so long, where all are served. None here and below: too hard to find out."""
    wait_p95_s: float | None
    """One request in twenty waits at least so long."""
    within_bound_share: float | None
    """No more than this share of the requests could begin within `bound_s`."""


class AtWait(msgspec.Struct, frozen=True):
    """The policy with another `max_switch_wait`."""

    max_switch_wait_s: float
    bound_s: float
    throughput_ratio_to_fifo: float
    wait_p50_s: float
    wait_p95_s: float
    wait_max_s: float
    switches_per_100: float
    p95_within_bound: bool
    max_within_bound: bool
    nobody_starved: bool
    within_bound_share: float
    """Of the requests: how many began within `bound_s`."""
    best_within_bound_share: float | None


class Document(msgspec.Struct, frozen=True):
    """All of it. Single figures are of the daemon's policy."""

    scenario: str
    traffic: str
    seed: int
    hosts: int
    measured_s: float
    load: float
    load_means: str
    max_switch_wait_s: float
    service_s: float
    """The longest piece of work that nothing interrupts: a request, or a segment."""
    throughput_ratio_to_fifo: float
    fifo_saturated: bool
    """Requests came faster than FIFO ended them: the ratio is one of capacities, as far as the load asks for it."""
    p95_wait_s: float
    max_wait_s: float
    bound_s: float
    """max_switch_wait_s + service_s."""
    p95_within_bound: bool
    max_within_bound: bool
    nobody_starved: bool
    """Every request was served."""
    policies: dict[str, Figures]
    best: Best | None
    by_max_switch_wait: list[AtWait]
    notes: list[str]


def best(given: Problem | None, bound_s: float) -> Best | None:
    if given is None:
        return None
    return Best(_least_wait_s(given, 1.0), _least_wait_s(given, 0.95), _share_within(given, bound_s))


def _least_wait_s(given: Problem, share: float) -> float | None:
    try:
        return round(bound.least_wait_s(given, share), 2)
    except TooHard:
        return None


def _share_within(given: Problem | None, wait_s: float) -> float | None:
    try:
        return round(bound.most_served(given, wait_s) / given.requests, 4) if given else None
    except TooHard:
        return None


def ratio(ours: Figures, fifo: Figures) -> float:
    return round(ours.throughput_per_s / fifo.throughput_per_s, 3) if fifo.throughput_per_s else 0.0


def at_wait(scenario: Scenario, ours: Sum, fifo: Sum, given: Problem | None) -> AtWait:
    """One row of `by_max_switch_wait`: what the policy makes of the scenario, which differs in that limit."""
    bound_s = scenario.limits.max_switch_wait + ours.piece_s
    figures, wait = ours.figures(), ours.figures().wait
    return AtWait(
        max_switch_wait_s=float(scenario.limits.max_switch_wait),
        bound_s=round(bound_s, 3),
        throughput_ratio_to_fifo=ratio(figures, fifo.figures()),
        wait_p50_s=wait.p50_s,
        wait_p95_s=wait.p95_s,
        wait_max_s=wait.max_s,
        switches_per_100=figures.switches_per_100,
        p95_within_bound=wait.p95_s <= bound_s,
        max_within_bound=wait.max_s <= bound_s,
        nobody_starved=figures.served == figures.requests,
        within_bound_share=round(sum(taken <= bound_s for taken in ours.all_waits_s) / max(1, ours.requests), 4),
        best_within_bound_share=_share_within(given, bound_s),
    )


def notes(scenario: Scenario, load: float, bound_s: float, found: Best | None) -> Iterator[str]:
    """What is possible at all, so that the policy can be judged fairly."""
    yield f"Load is {LOAD}."
    yield "fifo and affinity never park an idle model, and no zygote of theirs is ever stopped for want of host memory."
    if found is None:
        return
    models = scenario.models.values()
    switches_s = sum(model.park + model.load for model in models)
    if load < 1:
        cycle_s = switches_s / (1 - load)
        yield (
            f"At load {load:.2f} the {1 - load:.0%} of the time that work leaves must hold two switches a cycle, "
            f"{switches_s:g} s: a cycle that keeps up lasts at least {cycle_s:.0f} s on average, and a model is away "
            f"for {(cycle_s + switches_s) / 2:.0f} s of it. Who asks just as it leaves waits so long."
        )
    if found.wait_max_s is not None:
        yield f"With the trace known beforehand the longest wait would still be {found.wait_max_s:g} s."
    if found.wait_p95_s is not None:
        yield f"With it known, one request in twenty would still wait {found.wait_p95_s:g} s."
    if found.within_bound_share is not None:
        yield f"With it known, {found.within_bound_share:.1%} could be served within {bound_s:g} s, and no more."


# --- for people -------------------------------------------------------------------------------------------------------


def page(document: Document) -> Iterator[str]:
    """The lines of the table and what is said about it."""
    figures = document.policies[OURS]
    yield (
        f"{document.scenario}: {document.traffic}, load {document.load:.2f}, {figures.requests} requests in "
        f"{Duration(round(document.measured_s))} on {document.hosts} host{'s' if document.hosts > 1 else ''}, "
        f"max_switch_wait {Duration(document.max_switch_wait_s)}, seed {document.seed}"
    )
    yield ""
    titles = (
        "",
        "req/s",
        "of fifo",
        "wait p50",
        "p95",
        "max",
        "turn max",
        "switch/100",
        "switching",
        "working",
        "refused",
    )
    rows: list[tuple[str, ...]] = [titles]
    fifo = document.policies.get(FIFO)
    for name, found in document.policies.items():
        wait = found.wait
        of_fifo = f"{found.throughput_per_s / fifo.throughput_per_s:.2f}x" if fifo and fifo.throughput_per_s else "-"
        rows.append(
            (name, f"{found.throughput_per_s:.3f}", of_fifo, *map(_seconds, (wait.p50_s, wait.p95_s, wait.max_s)),
             _seconds(found.turn_max_s), f"{found.switches_per_100:.1f}", f"{found.switching_share:.0%}",
             f"{found.working_share:.0%}", str(found.requests - found.served))
        )  # fmt: skip
    if document.best is not None:
        rows.append(("at best", "", "", "", _possible(document.best.wait_p95_s), _possible(document.best.wait_max_s),
                     *[""] * 5))  # fmt: skip
    yield from _columns(rows)
    yield ""
    if document.by_max_switch_wait:
        yield from _columns(list(_sweep(document.by_max_switch_wait)))
        yield ""
    yield (
        f"bound {document.bound_s:g} s (max_switch_wait + {document.service_s:.3g} s): "
        f"p95 {_kept(document.p95_within_bound)}, max {_kept(document.max_within_bound)}; "
        + ("everybody was served" if document.nobody_starved else f"refused: {_refused(figures)}")
    )
    if len(figures.waits) > _FEW_KINDS:
        yield ""
        yield from _columns(list(_kinds(document.policies)))
    yield ""
    for note in document.notes:
        yield from wrap(note, _WIDTH)
    yield f"The scheduler handled {figures.events} events, {figures.events_per_s} in a second of processor time."


def _sweep(rows: Sequence[AtWait]) -> Iterator[tuple[str, ...]]:
    yield ("max_switch_wait", "of fifo", "wait p50", "p95", "max", "switch/100", "bound", "within it", "possible")
    for row in rows:
        possible = "" if row.best_within_bound_share is None else f"{row.best_within_bound_share:.1%}"
        yield (
            f"{row.max_switch_wait_s:g} s", f"{row.throughput_ratio_to_fifo:.2f}x",
            *map(_seconds, (row.wait_p50_s, row.wait_p95_s, row.wait_max_s)), f"{row.switches_per_100:.1f}",
            _seconds(row.bound_s), f"{row.within_bound_share:.1%}", possible,
        )  # fmt: skip


def _kinds(policies: Mapping[str, Figures]) -> Iterator[tuple[str, ...]]:
    """The waits of each kind of request, where there are several."""
    yield ("wait p50, p95, max", *policies)
    for kind in sorted({kind for found in policies.values() for kind in found.waits}):
        waits = (found.waits.get(kind) for found in policies.values())
        yield (
            kind,
            *("" if one is None else " ".join(map(_seconds, (one.p50_s, one.p95_s, one.max_s))) for one in waits),
        )


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *rest = (text.ljust(width) if not column else text.rjust(width)
                        for column, (text, width) in enumerate(zip(row, widths, strict=True)))  # fmt: skip
        yield "  ".join((first, *rest)).rstrip()


def _seconds(value: float) -> str:
    return f"{value:.1f}s" if value < 1000 else f"{value:.0f}s"


def _possible(value: float | None) -> str:
    return "?" if value is None else _seconds(value)


def _kept(kept: bool) -> str:
    return "kept" if kept else "not kept"


def _refused(figures: Figures) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(figures.refused.items()))
