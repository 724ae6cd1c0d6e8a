"""The command line: what to simulate, and what to print of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec

from audiod.units import Duration
from audioproto.errors import AudiodError, BadRequest, ConfigInvalid
from simulation import bound, report, run, scenario, traces
from simulation.bound import Problem
from simulation.figures import Sum
from simulation.policies import FIFO, OURS, POLICIES
from simulation.report import Document
from simulation.scenario import Scenario
from simulation.traces import Arrival

SWEEP_S = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 60.0)
"""Values of max_switch_wait that are compared."""

LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""That throughput is drawn for."""

KINDS = ("alternating", "poisson", "bursts", "day")

EPILOG = """\
examples:
  scripts/simulate                                      the goal's trace: two models in turn at 70 % load
  scripts/simulate --set max_switch_wait=30s            with another limit; any value of the scenario can be set
  scripts/simulate --trace poisson --load 0.5 --seed 7  other traffic for the same models
  scripts/simulate home --hosts 1000                    a thousand homes, for a day each
  scripts/simulate my.toml --trace recorded.jsonl       one's own models and traffic
  journalctl -u audiod -o json | scripts/simulate my.toml --trace - --write-trace recorded.jsonl
"""


def main() -> int:
    given = _parser().parse_args()
    try:
        document, totals, simulated = _simulate(given)
        if given.json:
            print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
        else:
            print("\n".join(report.page(document)))
        if given.plots:
            _draw(given, document, totals, simulated)
    except AudiodError as error:
        print(f"scripts/simulate: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  try: {error.hint}", file=sys.stderr)
        return error.exit_status
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/simulate",
        description="Simulate hosts whose models displace each other, with the daemon's own scheduler, and compare it "
        "with switching in order of arrival (fifo), with serving first whoever is resident (affinity), and with the "
        "best that is possible.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ", ".join(sorted(path.stem for path in scenario.SCENARIOS.glob("*.toml")))
    parser.add_argument("scenario", nargs="?", default=scenario.GOAL, help=f"{names}, or a TOML file")
    parser.add_argument(
        "--trace",
        metavar="KIND|FILE",
        help=f"{', '.join(KINDS)}, or a record of requests; - reads it from standard input",
    )
    parser.add_argument("--load", metavar="LOAD", help="seconds of work asked for in a second")
    parser.add_argument("--duration", metavar="TIME", help="how long requests come: 30m, 1h")
    parser.add_argument(
        *("--set", "-s"),
        metavar="KEY=VALUE",
        action="append",
        default=[],
        dest="changes",
        help="another value for the scenario: max_switch_wait=30s, models.speaker.load=2s; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=1, help="of all chance (1)")
    parser.add_argument(
        "--hosts", type=int, default=1, metavar="N", help="so many hosts, each with its own traffic (1)"
    )
    parser.add_argument("--no-sweep", action="store_true", help="do not compare values of max_switch_wait")
    parser.add_argument("--check", action="store_true", help="assert the scheduler's promises at every event")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.add_argument("--plots", type=Path, metavar="DIRECTORY", help="draw pictures there")
    parser.add_argument("--write-trace", type=Path, metavar="FILE", help="keep the trace as JSON lines")
    return parser


def _simulate(given: argparse.Namespace) -> tuple[Document, dict[str, Sum], Scenario]:
    if given.hosts < 1:
        raise BadRequest("there must be a host", hint="scripts/simulate --help")
    simulated = scenario.load(given.scenario, _changes(given))
    if given.trace in (None, *KINDS):
        kind: str = simulated.traffic.kind
        arrivals = traces.generate(simulated, given.seed)
    elif given.hosts > 1:
        raise BadRequest("a record is of one host")
    else:
        kind = "standard input" if given.trace == "-" else given.trace
        arrivals = _read(given.trace, simulated)
        simulated = simulated.with_traffic(duration=Duration(arrivals[-1].at + 1), warm_up=Duration(0))
    if simulated.traffic.warm_up >= simulated.traffic.duration:
        raise ConfigInvalid("nothing is left to measure after the warm-up", hint="--set traffic.warm_up=0s")
    if given.write_trace:
        with given.write_trace.open("w", encoding="utf-8") as file:
            traces.write(arrivals, file)
    if given.hosts == 1:
        totals = {name: run.total(simulated, arrivals, name, check=given.check) for name in POLICIES}
    else:
        totals = run.hosts(simulated, given.seed, given.hosts, check=given.check)
    return _document(given, simulated, kind, arrivals, totals), totals, simulated


def _document(
    given: argparse.Namespace, simulated: Scenario, kind: str, arrivals: Sequence[Arrival], totals: dict[str, Sum]
) -> Document:
    figures = {name: found.figures() for name, found in totals.items()}
    ours, fifo = figures[OURS], figures[FIFO]
    service_s = totals[OURS].piece_s
    bound_s = simulated.limits.max_switch_wait + service_s
    sweep, problem, best = [], None, None
    if given.hosts == 1:
        problem = bound.problem(simulated, [one for one in arrivals if one.at >= simulated.traffic.warm_up])
        best = report.best(problem, bound_s)
        if not given.no_sweep:
            sweep = _sweep(simulated, arrivals, totals[FIFO], problem)
    return Document(
        scenario=given.scenario,
        traffic=kind,
        seed=given.seed,
        hosts=given.hosts,
        measured_s=totals[OURS].measured_s,
        load=ours.load,
        load_means=report.LOAD,
        max_switch_wait_s=float(simulated.limits.max_switch_wait),
        service_s=service_s,
        throughput_ratio_to_fifo=report.ratio(ours, fifo),
        fifo_saturated=fifo.throughput_per_s < 0.99 * ours.requests / totals[OURS].measured_s,
        p95_wait_s=ours.wait.p95_s,
        max_wait_s=ours.wait.max_s,
        bound_s=round(bound_s, 3),
        p95_within_bound=ours.wait.p95_s <= bound_s,
        max_within_bound=ours.wait.max_s <= bound_s,
        nobody_starved=ours.served == ours.requests,
        policies=figures,
        best=best,
        by_max_switch_wait=sweep,
        notes=list(report.notes(simulated, ours.load, bound_s, best)),
    )


def _sweep(simulated: Scenario, arrivals: Sequence[Arrival], fifo: Sum, problem: Problem | None) -> list[report.AtWait]:
    others = [simulated.with_limits(max_switch_wait=Duration(wait_s)) for wait_s in SWEEP_S]
    found = run.variants(others, arrivals)
    return [report.at_wait(other, ours, fifo, problem) for other, ours in zip(others, found, strict=True)]


def _draw(given: argparse.Namespace, document: Document, totals: dict[str, Sum], simulated: Scenario) -> None:
    from simulation import plots

    by_load = []
    if given.trace in (None, *KINDS):
        for load in LOADS:
            other = simulated.with_traffic(load=load)
            arrivals = traces.generate(other, given.seed)
            by_load.append((load, {name: run.total(other, arrivals, name).figures() for name in POLICIES}))
    for path in plots.draw(given.plots, document, totals, by_load):
        print(path, file=sys.stderr)


def _changes(given: argparse.Namespace) -> dict[str, str]:
    changes = {}
    for change in given.changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise BadRequest(f"--set {change}: it needs a value", hint=f"scripts/simulate --set {key}=30s")
        changes[key] = value
    for name in ("load", "duration"):
        if (value := getattr(given, name)) is not None:
            changes[f"traffic.{name}"] = value
    if given.trace in KINDS:
        changes["traffic.kind"] = given.trace
    return changes


def _read(trace: str, simulated: Scenario) -> list[Arrival]:
    try:
        with nullcontext(sys.stdin) if trace == "-" else Path(trace).open(encoding="utf-8") as lines:
            return traces.read(lines, simulated)
    except OSError as error:
        raise ConfigInvalid(f"cannot read {trace}: {error.strerror}; kinds: {', '.join(KINDS)}") from error


if __name__ == "__main__":
    sys.exit(main())
