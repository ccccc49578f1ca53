"""False alarms, power, time and memory of drift detection, beside KS + chi-square in the same run.

    python -m benchmarks.drift [--quick] [--rival] [--seed N] [--only PART,PART]

Parts: false-alarms, autocorrelated, power, weather, cost. Times are CPU times of one core.

Every share is of reports in which anything is raised, at a stated 1%. The rival tests every number
with SciPy's two-sample Kolmogorov-Smirnov and every category with chi-square, both Bonferroni-
adjusted to the same level: what a careful engineer writes in an afternoon.
"""

import argparse
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from monitoring.analysis.drift import (
    BaselineProfile,
    DriftReport,
    WindowSummary,
    fit_baseline,
    judge,
)

ALPHA = 0.01
Floats = NDArray[np.float64]
Columns = dict[str, Floats | NDArray[np.str_]]
World = Callable[[np.random.Generator, int], Columns]
Change = Callable[[np.random.Generator, Columns], None]


def category(rng: np.random.Generator, rows: int, shares: Floats) -> NDArray[np.str_]:
    names = np.array([f"c{i}" for i in range(len(shares))])
    return names[
        np.searchsorted(np.cumsum(shares) / shares.sum(), rng.random(rows)).clip(
            max=len(shares) - 1
        )
    ]


def with_missing(rng: np.random.Generator, values: Floats, share: float) -> Floats:
    return np.where(rng.random(len(values)) < share, np.nan, values)


def numbers_world(rng: np.random.Generator, rows: int) -> Columns:
    """Twenty normals; the first two correlate with 0.3; the third misses 2%."""
    z = rng.standard_normal((20, rows))
    z[1] = 0.3 * z[0] + np.sqrt(1 - 0.09) * z[1]
    columns: Columns = {f"n{i}": z[i] for i in range(20)}
    columns["n2"] = with_missing(rng, z[2], 0.02)
    return columns


def mixed_world(rng: np.random.Generator, rows: int) -> Columns:
    """Fourteen numbers (skewed, heavy-tailed, tied, rare, missing) and six categories."""
    z = rng.standard_normal((10, rows))
    z[1] = 0.3 * z[0] + np.sqrt(1 - 0.09) * z[1]
    tens = np.arange(10.0)
    return {
        "normal": z[0],
        "partner": z[1],
        "missing2": with_missing(rng, z[2], 0.02),
        "missing30": with_missing(rng, np.exp(1.5 * z[3]), 0.3),
        "lognormal": np.exp(z[4]),
        "exponential": rng.exponential(size=rows),
        "student3": rng.standard_t(3, rows),
        "cauchy": rng.standard_cauchy(rows),
        "uniform": rng.random(rows),
        "poisson2": rng.poisson(2, rows).astype(np.float64),
        "zero70": np.where(rng.random(rows) < 0.7, 0.0, np.exp(z[6])),
        "rounded": np.round(z[7], 1),
        "rare3": (rng.random(rows) < 0.03).astype(np.float64),
        "grades": np.floor(rng.beta(2, 5, rows) * 10),
        "cat3": category(rng, rows, np.array([0.6, 0.3, 0.1])),
        "cat10": category(rng, rows, np.full(10, 0.1)),
        "zipf8": category(rng, rows, 1 / (1 + tens[:8])),
        "zipf200": category(rng, rows, 1 / np.arange(1.0, 201.0)),
        "zipf3000": category(rng, rows, np.arange(1.0, 3001.0) ** -0.9),
        "rarecat": category(rng, rows, np.array([0.97, 0.02, 0.005, 0.005])),
    }


def autocorrelated_world(rho: float) -> World:
    """The mixed numbers and categories made of AR(1) processes with correlation ``rho``."""

    def draw(rng: np.random.Generator, rows: int) -> Columns:
        from scipy.signal import lfilter

        noise = rng.standard_normal((20, rows + 2000)) * np.sqrt(1 - rho**2)
        z = lfilter([1.0], [1.0, -rho], noise, axis=1)[:, 2000:]
        columns: Columns = {f"n{i}": z[i] for i in range(8)}
        columns["n8"] = np.exp(z[8])
        columns["n9"] = np.round(z[9], 1)
        columns["n10"] = np.where(z[10] < 0.5, 0.0, z[10])
        columns["n11"] = np.where(z[11] > 2.0, np.nan, z[11])
        columns["n12"] = stats.t.ppf(stats.norm.cdf(z[12]), 3)
        columns["n13"] = np.floor(np.exp(z[13]))
        for i in range(14, 20):
            cuts = np.linspace(-1.5, 1.5, i - 10)
            columns[f"c{i}"] = np.array([f"k{j}" for j in range(len(cuts) + 1)])[
                np.searchsorted(cuts, z[i])
            ]
        return columns

    return draw


def summarise(profile: BaselineProfile, columns: Columns) -> WindowSummary:
    window = WindowSummary(profile.layout)
    window.update(pa.table(dict(columns)))
    return window


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """KS and chi-square with Bonferroni's correction."""

    baseline: Columns

    def alarms(self, window: Columns) -> bool:
        level = ALPHA / len(window)
        return any(self._p(self.baseline[name], window[name]) <= level for name in window)

    @staticmethod
    def _p(before: NDArray, after: NDArray) -> float:
        if before.dtype.kind == "f":
            known = [values[~np.isnan(values)] for values in (before, after)]
            return float(stats.ks_2samp(*known, method="asymp").pvalue)
        names, codes = np.unique(np.concatenate([before, after]), return_inverse=True)
        split = len(before)
        counts = np.stack(
            [np.bincount(part, minlength=len(names)) for part in (codes[:split], codes[split:])]
        )
        return float(stats.chi2_contingency(counts).pvalue)


def false_alarms(
    world: World, sizes: list[int], runs: int, baselines: list[int], seed: int, rival: bool = False
) -> dict[int, tuple[int, int, int]]:
    """Count no-drift reports that raise anything: size to (ours, rival's, runs).

    A new baseline every 25 runs, of the next size in the list.
    """
    rng = np.random.default_rng(seed)
    found = {size: [0, 0, 0] for size in sizes}
    profile, other = None, None
    for run in range(runs):
        if run % 25 == 0:
            columns = world(rng, baselines[run // 25 % len(baselines)])
            profile, other = fit_baseline(pa.table(dict(columns))), Rival(baseline=columns)
        assert profile is not None and other is not None
        size = sizes[run % len(sizes)]
        window = world(rng, size)
        found[size][0] += judge(profile, summarise(profile, window), alpha=ALPHA).alarm
        found[size][1] += rival and other.alarms(window)
        found[size][2] += 1
    return {size: (counts[0], counts[1], counts[2]) for size, counts in found.items()}


def shift(name: str, sigmas: float) -> Change:
    def change(rng: np.random.Generator, columns: Columns) -> None:
        columns[name] = columns[name] + sigmas * SIGMA.get(name, 1.0)

    return change


def scale(name: str, factor: float) -> Change:
    def change(rng: np.random.Generator, columns: Columns) -> None:
        columns[name] = columns[name] * factor

    return change


def decorrelate(first: str) -> Change:
    def change(rng: np.random.Generator, columns: Columns) -> None:
        columns[first] = rng.permutation(columns[first])

    return change


def missing(name: str, share: float) -> Change:
    """Raise the share of missing values from 2% to ``share``."""

    def change(rng: np.random.Generator, columns: Columns) -> None:
        columns[name] = with_missing(rng, columns[name], (share - 0.02) / 0.98)

    return change


def more_of(name: str, label: str, base: float, points: float) -> Change:
    """Raise one category's share from ``base`` by ``points`` at the cost of all others."""

    def change(rng: np.random.Generator, columns: Columns) -> None:
        taken = rng.random(len(columns[name])) < points / (1 - base)
        columns[name] = np.where(taken & (columns[name] != label), label, columns[name])

    return change


# Standard deviations of the mixed world's numbers.
SIGMA = {
    "lognormal": float(np.sqrt((np.e - 1) * np.e)),
    "student3": float(np.sqrt(3)),
    "uniform": float(np.sqrt(1 / 12)),
    "poisson2": float(np.sqrt(2)),
    "rounded": 1.0,
    "exponential": 1.0,
}

POWER: dict[str, tuple[World, int, Change]] = {
    "normal +0.05 sigma": (numbers_world, 10_000, shift("n5", 0.05)),
    "normal +0.1 sigma": (numbers_world, 10_000, shift("n5", 0.1)),
    "normal deviation x1.1": (numbers_world, 10_000, scale("n5", 1.1)),
    "normal variance x1.1": (numbers_world, 10_000, scale("n5", 1.1**0.5)),
    "correlation 0.3 to 0": (numbers_world, 10_000, decorrelate("n1")),
    "missing 2% to 4%": (numbers_world, 10_000, missing("n2", 0.04)),
    "category 10% +2 points": (mixed_world, 10_000, more_of("cat10", "c3", 0.1, 0.02)),
    "category 60% +2 points": (mixed_world, 10_000, more_of("cat3", "c0", 0.6, 0.02)),
    "lognormal +0.05 sigma": (mixed_world, 10_000, shift("lognormal", 0.05)),
    "exponential +0.05 sigma": (mixed_world, 10_000, shift("exponential", 0.05)),
    "student3 +0.05 sigma": (mixed_world, 10_000, shift("student3", 0.05)),
    "rounded +0.1 sigma": (mixed_world, 10_000, shift("rounded", 0.1)),
    "normal +0.25 sigma": (numbers_world, 1_000, shift("n5", 0.25)),
    "normal +0.1 sigma (1k)": (numbers_world, 1_000, shift("n5", 0.1)),
    "normal deviation x1.2": (numbers_world, 1_000, scale("n5", 1.2)),
    "normal deviation x1.1 (1k)": (numbers_world, 1_000, scale("n5", 1.1)),
    "normal variance x1.2": (numbers_world, 1_000, scale("n5", 1.2**0.5)),
    "correlation 0.3 to 0 (1k)": (numbers_world, 1_000, decorrelate("n1")),
    "missing 2% to 4% (1k)": (numbers_world, 1_000, missing("n2", 0.04)),
    "category 10% +5 points": (mixed_world, 1_000, more_of("cat10", "c3", 0.1, 0.05)),
    "category 60% +5 points": (mixed_world, 1_000, more_of("cat3", "c0", 0.6, 0.05)),
    "student3 deviation x1.2": (mixed_world, 1_000, scale("student3", 1.2)),
    "lognormal +0.25 sigma": (mixed_world, 1_000, shift("lognormal", 0.25)),
}


def power(name: str, runs: int, baseline_rows: int, seed: int, rival: bool) -> tuple[float, float]:
    """Share of windows with one changed column that are flagged: (ours, rival's)."""
    world, rows, change = POWER[name]
    rng = np.random.default_rng(seed)
    ours = theirs = 0
    for run in range(runs):
        if run % 20 == 0:
            columns = world(rng, baseline_rows)
            profile, other = fit_baseline(pa.table(dict(columns))), Rival(baseline=columns)
        window = world(rng, rows)
        change(rng, window)
        ours += judge(profile, summarise(profile, window), alpha=ALPHA).alarm
        theirs += rival and other.alarms(window)
    return ours / runs, theirs / runs


def cost(rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    profile = fit_baseline(pa.table(dict(mixed_world(rng, 50_000))))
    for title, world in (("20 numbers", numbers_world), ("14 numbers, 6 categories", mixed_world)):
        profile = fit_baseline(pa.table(dict(world(rng, 50_000))))
        table = pa.table(dict(world(rng, rows)))
        judge(profile, WindowSummary(profile.layout))
        started = time.process_time()
        window = WindowSummary(profile.layout)
        window.update(table)
        summarised = time.process_time()
        judge(profile, window)
        judged = time.process_time()
        pool = pa.default_memory_pool()
        before = pool.bytes_allocated()
        tracemalloc.start()
        window = WindowSummary(profile.layout)
        window.update(table)
        judge(profile, window)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(
            f"{title}: {rows:,} rows summarised in {summarised - started:.2f} s, judged in "
            f"{judged - summarised:.3f} s; peak {peak / 1e6:.0f} MB (NumPy) "
            f"+ {max(pool.max_memory() - before, 0) / 1e6:.0f} MB (Arrow, whole run)"
        )
        for batch_rows in (100, 1_000, 10_000):
            batch = table.slice(0, batch_rows).combine_chunks().to_batches()[0]
            repeats = max(20_000 // batch_rows, 5)
            started = time.process_time()
            for _ in range(repeats):
                window.update(batch)
            each = (time.process_time() - started) / repeats / batch_rows
            print(f"  live update, batches of {batch_rows:,}: {each * 1e6:.2f} us a row")


def weather(source: Path, picture: Path | None) -> None:
    """Judge real seasons and years against ten years of daily weather."""
    import pyarrow.csv

    table, year = pyarrow.csv.read_csv(source), 365.25

    def judged(profile: BaselineProfile, start: float, rows: int) -> DriftReport:
        window = WindowSummary(profile.layout)
        window.update(table.slice(round(start), rows))
        return judge(profile, window, alpha=ALPHA)

    even = [table.slice(round(y * year), 365) for y in range(0, 20, 2)]
    for title, rows, others in (
        ("years 0-9", table.slice(0, round(10 * year)), range(10, 20)),
        ("even years", pa.concat_tables(even), range(1, 20, 2)),
    ):
        profile = fit_baseline(rows)
        years = sum(judged(profile, y * year, 365).alarm for y in others)
        print(f"weather, baseline {title}: {years}/{len(others)} whole years alarm")
        for season, name in enumerate(("Jan-Mar", "Apr-Jun", "Jul-Sep", "Oct-Dec")):
            found = sum(judged(profile, (y + season / 4) * year, 91).alarm for y in others)
            print(f"  {name}: {found}/{len(others)} found as drift")
    if picture is not None:
        profile = fit_baseline(table.slice(0, round(10 * year)))
        draw_weather(picture, profile, judged, table.num_rows, year)


def draw_weather(
    picture: Path,
    profile: BaselineProfile,
    judged: Callable[[BaselineProfile, float, int], DriftReport],
    rows: int,
    year: float,
) -> None:
    """Plot every year's and every quarter's p-value after the baseline, alarms marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    for axes, length, title in zip(
        figure.subplots(2, 1, sharex=True), (365, 91), ("whole years", "quarters"), strict=True
    ):
        starts = np.arange(10 * year, rows - length, year * (1 if length > 91 else 0.25))
        reports = [judged(profile, start, length) for start in starts]
        p = [max(report.p_value or 1.0, 1e-12) for report in reports]
        colours = ["#c2410c" if report.alarm else "#9aa5b1" for report in reports]
        axes.scatter(starts / year, p, c=colours)
        axes.axhline(ALPHA, linestyle="--", color="#c2410c")
        axes.axvline(20, color="#9aa5b1")
        axes.set(yscale="log", ylabel="p of the report", title=f"{title} (baseline: years 0-9)")
    axes.set_xlabel("year")
    figure.savefig(picture, dpi=110)


def print_false_alarms(title: str, found: dict[int, tuple[int, int, int]], rival: bool) -> None:
    runs = sum(counts[2] for counts in found.values())
    ours, theirs = (sum(counts[i] for counts in found.values()) for i in (0, 1))
    beside = f", KS + chi2 {theirs / runs:.2%}" if rival else ""
    print(f"{title}: {ours / runs:.2%} of {runs} reports{beside}")
    for size, (own, other, count) in found.items():
        print(
            f"  {size:>7,} rows: {own}/{count}" + (f", KS + chi2 {other}/{count}" if rival else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    parser.add_argument("--only", default="false-alarms,autocorrelated,power,weather,cost")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int)
    parser.add_argument("--rival", action="store_true", help="KS + chi-square too (slow)")
    parser.add_argument("--baseline", type=int, default=50_000)
    parser.add_argument("--match", default="", help="only changes whose name contains this")
    parser.add_argument("--weather", type=Path, default=Path("/work/shared/data/weather.csv"))
    parser.add_argument("--picture", type=Path, help="where to plot the weather's alarms")
    options = parser.parse_args()
    chosen = options.only.split(",")
    runs = options.runs or (200 if options.quick else 2_000)
    sizes = [100, 300, 1_000, 3_000, 10_000, 100_000]
    if "false-alarms" in chosen:
        for title, world in (("mixed", mixed_world), ("normal", numbers_world)):
            found = false_alarms(world, sizes, runs, [50_000, 20_000], options.seed, options.rival)
            print_false_alarms(f"no drift, {title}", found, options.rival)
    if "autocorrelated" in chosen:
        for rho in (0.5, 0.9):
            found = false_alarms(
                autocorrelated_world(rho),
                sizes,
                runs // 2,
                [50_000, 20_000],
                options.seed,
                options.rival,
            )
            print_false_alarms(f"no drift, AR(1) {rho}", found, options.rival)
    if "power" in chosen:
        for name in POWER:
            if options.match in name:
                ours, theirs = power(
                    name, runs // 10, options.baseline, options.seed, options.rival
                )
                print(
                    f"{name:30} n={POWER[name][1]:>6,}: {ours:6.1%}"
                    + (f"  KS + chi2 {theirs:6.1%}" if options.rival else ""),
                    flush=True,
                )
    if "weather" in chosen and options.weather.exists():
        weather(options.weather, options.picture)
    if "cost" in chosen:
        cost(1_000_000, options.seed)


if __name__ == "__main__":
    main()
