"""The latency policy where nobody tuned it: other loads, other work, other objectives.

    .venv/bin/python -m benchmarks.held_out [--seeds N...] [--duration-s N] [--workers N]

Made-up loads (``autoscaling.simulator.synthetic``) with seeds that no choice in the policy was
made on, each in the reference scenario and in scenarios that differ from it in one thing.
Everything runs with defaults; beside the policy stands InferLine's tuner, the best of today's rules
at its defaults, which is told the mean work and not the objective. Prints a table for
docs/autoscaling.md.
"""

import argparse
import os
from dataclasses import replace
from typing import Final

from autoscaling.simulator.scenario import Scenario, WorkClass
from autoscaling.simulator.study import Record, plan, run_all
from autoscaling.simulator.synthetic import SHAPES, make_trace

POLICIES: Final = ("latency", "inferline")

REFERENCE: Final = Scenario()
SCENARIOS: Final[dict[str, Scenario]] = {
    "reference": REFERENCE,
    "all work alike: 20 ms, cv 0.1": replace(
        REFERENCE, work=(WorkClass(weight=1.0, mean_s=0.02, cv=0.1),)
    ),
    "one broad kind of work: 15 ms, cv 1.5": replace(
        REFERENCE, work=(WorkClass(weight=1.0, mean_s=0.015, cv=1.5),)
    ),
    "light work with 3 % of 150 ms": replace(
        REFERENCE,
        work=(WorkClass(weight=0.97, mean_s=0.008), WorkClass(weight=0.03, mean_s=0.15)),
    ),
    "99 % within 300 ms": replace(REFERENCE, quantile=0.99, slo_ms=300.0),
    "95 % within 1 s": replace(REFERENCE, slo_ms=1000.0),
    "90 % within 100 ms": replace(REFERENCE, quantile=0.9, slo_ms=100.0),
    "starts of 3 s": replace(REFERENCE, cold_start_s=3.0),
    "starts of 25 s, spread 40 %": replace(REFERENCE, cold_start_s=25.0, cold_start_cv=0.4),
    "telemetry 4 s old": replace(REFERENCE, staleness_s=4),
    "two crashes per replica and hour": replace(REFERENCE, failures_per_replica_hour=2.0),
    "work grows by half": replace(REFERENCE, drift=((300.0, 1.0), (3600.0, 1.5))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[101])
    parser.add_argument("--duration-s", type=int, default=3600)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print(
        f"{len(SHAPES)} made-up loads of {options.duration_s} s, seeds "
        f"{', '.join(map(str, options.seeds))}; in time, cost over the optimum.\n"
    )
    loads = [(shape, seed) for shape in SHAPES for seed in options.seeds]
    print("| scenario | `latency` | worst load | InferLine | worst load |")
    print("|---|---|---|---|---|")
    by_shape: dict[str, list[Record]] = {shape: [] for shape in SHAPES}
    for name, scenario in SCENARIOS.items():
        records: dict[str, list[Record]] = {policy: [] for policy in POLICIES}
        jobs = [
            job
            for shape, seed in loads
            for job in plan(
                POLICIES,
                [make_trace(shape, seed, options.duration_s)],
                [seed],
                scenario,
                grid=False,
            )
        ]
        for job, record in zip(jobs, run_all(jobs, options.workers), strict=True):
            records[job.policy].append(record)
        if scenario == REFERENCE:
            for (shape, _), record in zip(loads, records["latency"], strict=True):
                by_shape[shape].append(record)
        cells = [cell for policy in POLICIES for cell in _cells(records[policy])]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print("\n| load, reference scenario | `latency` |\n|---|---|")
    for shape, of in by_shape.items():
        print(f"| {shape} | {_cells(of)[0]} |")


def _cells(records: list[Record]) -> tuple[str, str]:
    """Mean attainment at mean cost, and the load with the least attainment."""
    costs = [record.cost_ratio for record in records if record.cost_ratio is not None]
    attained = sum(record.attainment for record in records) / len(records)
    worst = min(records, key=lambda record: record.attainment)
    return (
        f"{attained:.2%} at {sum(costs) / len(costs):.2f}",
        f"{worst.attainment:.1%} ({worst.trace.split('-')[1]})",
    )


if __name__ == "__main__":
    main()
