"""Count reports that raise something: without drift, and with one changed column."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.drift.changes import CHANGES, Change
from benchmarks.drift.worlds import (
    Columns,
    World,
    autocorrelated_world,
    cyclic_world,
    mixed_world,
    numbers_world,
    sessions_world,
    table,
)
from monitoring.analysis.drift import BaselineProfile, WindowSummary, fit_baseline, judge
from monitoring.analysis.drift.dependence import Cycles

ALPHA = 0.01
WINDOWS_PER_BASELINE = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class NoDrift:
    """A world, sizes of its baselines and of the windows drawn from it."""

    name: str
    world: World
    baselines: Sequence[int]
    sizes: Sequence[int]
    cycles: Cycles = "drift"


SIZES = (100, 300, 1_000, 3_000, 10_000, 100_000)
INDEPENDENT = (
    NoDrift(name="mixed", world=mixed_world, baselines=(20_000, 50_000, 100_000), sizes=SIZES),
    NoDrift(name="normal", world=numbers_world, baselines=(20_000, 50_000, 100_000), sizes=SIZES),
)
DEPENDENT = (
    NoDrift(
        name="AR(1) 0.5", world=autocorrelated_world(0.5), baselines=(20_000, 50_000), sizes=SIZES
    ),
    NoDrift(
        name="AR(1) 0.9", world=autocorrelated_world(0.9), baselines=(20_000, 50_000), sizes=SIZES
    ),
    NoDrift(
        name="days of 500 rows over AR(1) 0.8, whole days",
        world=cyclic_world(500, 0.8),
        baselines=(50_000,),
        sizes=(500, 1_000, 3_500, 10_000),
    ),
    NoDrift(
        name="the same, parts of a day, cycles expected",
        world=cyclic_world(500, 0.8),
        baselines=(50_000,),
        sizes=(60, 125, 250),
        cycles="expected",
    ),
    NoDrift(
        name="years of 365 days over AR(1) 0.7, whole years, baseline of 20 years",
        world=cyclic_world(365, 0.7),
        baselines=(7_300,),
        sizes=(365, 730, 1_095),
    ),
    NoDrift(
        name="sessions of 8 rows a user",
        world=sessions_world(8),
        baselines=(50_000,),
        sizes=(100, 1_000, 10_000, 100_000),
    ),
)


def summarise(profile: BaselineProfile, columns: Columns) -> WindowSummary:
    window = WindowSummary(profile.layout)
    window.update(table(columns))
    return window


def share_text(count: int, runs: int) -> str:
    """A share with Wilson's 95% interval."""
    interval = stats.binomtest(count, runs).proportion_ci(method="wilson")
    return f"{count / runs:.2%} of {runs:,} ({interval.low:.2%} to {interval.high:.2%})"


def false_alarms(case: NoDrift, runs: int, seed: int) -> Iterator[str]:
    """Judge windows without drift; a new baseline every 40 of them, of the next size."""
    rng = np.random.default_rng(seed)
    seen: Counter[int] = Counter()
    alarms: Counter[int] = Counter()
    for run in range(runs):
        if run % WINDOWS_PER_BASELINE == 0:
            rows = case.baselines[run // WINDOWS_PER_BASELINE % len(case.baselines)]
            profile = fit_baseline(table(case.world(rng, rows)))
        size = case.sizes[run % len(case.sizes)]
        window = summarise(profile, case.world(rng, size))
        seen[size] += 1
        alarms[size] += judge(profile, window, alpha=ALPHA, cycles=case.cycles).alarm
    yield f"no drift, {case.name}: {share_text(alarms.total(), runs)} reports raise anything"
    yield "  " + ", ".join(f"{size:,} rows {alarms[size]}/{seen[size]}" for size in seen)


def power(runs: int, baseline_rows: int, seed: int, match: str = "") -> Iterator[str]:
    """Judge windows with one changed column, over twenty baselines shared by all changes."""
    rng = np.random.default_rng(seed)
    chosen = [change for change in CHANGES if match in change.name]
    found: Counter[tuple[str, int]] = Counter()
    for world in dict.fromkeys(change.world for change in chosen):
        mine = [change for change in chosen if change.world is world]
        for part in np.array_split(np.arange(runs), min(20, runs)):
            profile = fit_baseline(table(world(rng, baseline_rows)))
            for change in mine:
                found[change.name, change.rows] += sum(_found(change, profile, rng) for _ in part)
    yield f"{'one column of 20 changes':28} {'rows':>6} {'found':>7} {'asked':>6} {'best':>7}"
    for change in chosen:
        share = found[change.name, change.rows] / runs
        asked = f"{change.asked:.0%}" if change.asked else ""
        best = f"{change.best(change.rows, baseline_rows):.1%}" if change.best else ""
        yield f"{change.name:28} {change.rows:>6,} {share:>7.1%} {asked:>6} {best:>7}"


def _found(change: Change, profile: BaselineProfile, rng: np.random.Generator) -> bool:
    window = change.world(rng, change.rows)
    change.apply(rng, window)
    return judge(profile, summarise(profile, window), alpha=ALPHA).alarm
