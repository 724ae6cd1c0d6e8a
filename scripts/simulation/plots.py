"""Pictures of a simulation, as PNG files. Needs matplotlib, which `scripts/setup --dev` installs.

Draws what it is given; simulates nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from audioproto.errors import BadRequest
from simulation.figures import Figures, Sum
from simulation.policies import AFFINITY, FIFO, OURS
from simulation.report import Document

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise BadRequest("pictures need matplotlib", hint="scripts/setup --dev") from error

_SIZE_INCHES = (8, 4.5)
_DPI = 110

_LINES: dict[str, dict[str, Any]] = {
    OURS: {"linewidth": 3.5, "alpha": 0.7},
    FIFO: {"linewidth": 1.5, "linestyle": "--"},
    AFFINITY: {"linewidth": 1.5, "linestyle": "-."},
}
"""By policy; two of them often do the same, and are to be seen both."""


def draw(
    directory: Path,
    document: Document,
    totals: Mapping[str, Sum],
    by_load: Sequence[tuple[float, Mapping[str, Figures]]],
) -> list[Path]:
    """Write all pictures that there are figures for, and return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, figure in _pictures(document, totals, by_load):
        path = directory / f"{name}.png"
        figure.savefig(path, dpi=_DPI)
        drawn.append(path)
    return drawn


def _pictures(
    document: Document, totals: Mapping[str, Sum], by_load: Sequence[tuple[float, Mapping[str, Figures]]]
) -> Iterator[tuple[str, Figure]]:
    yield "waits", _waits(document, totals)
    if by_load:
        offered = [found[OURS].requests / document.measured_s for _, found in by_load]
        figure, axes = _axes(
            "Throughput against load", "load: seconds of work asked for in a second", "requests a second"
        )
        loads = [load for load, _ in by_load]
        axes.plot(loads, offered, "k:", label="asked for")
        for policy in totals:
            axes.plot(loads, [found[policy].throughput_per_s for _, found in by_load], label=policy, **_LINES[policy])
        _finish(figure, axes)
        yield "throughput", figure
        figure, axes = _axes("Switches against load", "load", "loads for 100 requests")
        for policy in totals:
            axes.plot(loads, [found[policy].switches_per_100 for _, found in by_load], label=policy, **_LINES[policy])
        _finish(figure, axes)
        yield "switches", figure
    if document.by_max_switch_wait:
        yield "max_switch_wait", _max_switch_wait(document)


def _waits(document: Document, totals: Mapping[str, Sum]) -> Figure:
    """The distribution of waits, requests that were refused counting as waiting for ever."""
    figure, axes = _axes("How long requests wait", "seconds", "share of requests that wait no longer")
    for policy, found in totals.items():
        waits = found.all_waits_s
        shares = [(number + 1) / found.requests for number in range(len(waits))]
        axes.step(waits, shares, where="post", label=policy, **_LINES[policy])
    axes.axvline(
        document.bound_s, color="gray", linestyle="--", label=f"max_switch_wait + service, {document.bound_s:g} s"
    )
    if document.best is not None and (best_s := document.best.wait_max_s) is not None:
        axes.axvline(best_s, color="black", linestyle=":", label=f"longest wait of the best schedule, {best_s:g} s")
    axes.set_xscale("symlog", linthresh=10)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_ylim(0, 1.02)
    _finish(figure, axes)
    return figure


def _max_switch_wait(document: Document) -> Figure:
    figure, axes = _axes("Waits against max_switch_wait", "max_switch_wait, seconds", "wait, seconds")
    rows = document.by_max_switch_wait
    limits = [row.max_switch_wait_s for row in rows]
    for label, waits in (
        ("p50", [row.wait_p50_s for row in rows]),
        ("p95", [row.wait_p95_s for row in rows]),
        ("max", [row.wait_max_s for row in rows]),
    ):
        axes.plot(limits, waits, "o-", label=label)
    axes.plot(limits, [row.bound_s for row in rows], "--", color="gray", label="max_switch_wait + service")
    if document.best is not None and document.best.wait_max_s is not None:
        axes.axhline(document.best.wait_max_s, color="black", linestyle=":", label="longest wait of the best schedule")
    axes.set_ylim(0, 1.5 * max(row.bound_s for row in rows))
    _finish(figure, axes)
    return figure


def _axes(title: str, across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    return figure, axes


def _finish(figure: Figure, axes: Axes) -> None:
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    axes.set_xlim(left=0)
