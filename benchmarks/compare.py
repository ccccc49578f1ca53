"""Confidence sequences, the check of the split and the estimate without labels, at full size.

    .venv/bin/python benchmarks/compare.py [--runs 2000] [--windows 1000] [--json]

Prints, beside what is promised: how often A/A runs looked at every 100 events ever exclude zero,
how many units a true difference takes beside a fixed-horizon test, how often the split's check
alarms, and how often the estimate's interval held the accuracy that came true.
"""

import argparse
import json
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from scipy.stats import norm

from monitoring.analysis.calibration import ScoredRows, fit_calibration
from monitoring.analysis.compare.effects import difference_of_arms, difference_of_pairs
from monitoring.analysis.compare.moments import PRIOR_UNITS, Moments
from monitoring.analysis.compare.sequences import Mixture
from monitoring.analysis.compare.split import log_evidence
from monitoring.analysis.estimate import estimate

LOOK = 100
EVENTS = 20_000
PLAN = 5_000
ALPHA = 0.05
Draw = Callable[[np.random.Generator, int], np.ndarray]


def rate(p: float) -> Draw:
    return lambda rng, n: (rng.random(n) < p).astype(float)


METRICS: dict[str, Draw] = {
    "rate 50%": rate(0.5),
    "rate 10%": rate(0.1),
    "rate 1%": rate(0.01),
    "rate 0.3%": rate(0.003),
    "normal": lambda rng, n: rng.normal(size=n),
    "log-normal, sigma 1": lambda rng, n: rng.lognormal(0, 1, n),
    "log-normal, sigma 2": lambda rng, n: rng.lognormal(0, 2, n),
}


def looks(x: np.ndarray) -> np.ndarray:
    """Running sums of powers 0 to 3 at each look."""
    powers = np.stack([np.ones(len(x)), x, x * x, x**3])
    return np.cumsum(powers, axis=1)[:, LOOK - 1 :: LOOK].T


def moments(sums: np.ndarray) -> Moments:
    """Moments of units of one row and weight 1, from sums of powers."""
    n, x, xx, xxx = sums
    return Moments(
        units=int(n), rows=int(n), x=x, n=n, xx=xx, xn=x, nn=n, xxx=xxx, xxn=xx, xnn=x, nnn=n
    )


def decided_at(values: np.ndarray, treated: np.ndarray, plan: float) -> float:
    """Events until the interval first excludes zero; infinite if it never does."""
    mixture = Mixture(alpha=ALPHA)
    total = np.stack([np.ones(len(values)), values, values**2, values**3])
    every = np.cumsum(total, axis=1)[:, LOOK - 1 :: LOOK].T
    second = np.cumsum(total * treated, axis=1)[:, LOOK - 1 :: LOOK].T
    for at in worth_a_look(every - second, second):
        found = difference_of_arms(
            moments(every[at] - second[at]), moments(second[at]), math.ceil(plan)
        )
        if found.obstacle is None and mixture.interval(
            found.difference, found.standard_error, found.progress
        ).excludes(0.0):
            return float((at + 1) * LOOK)
    return math.inf


def worth_a_look(first: np.ndarray, second: np.ndarray) -> list[int]:
    """Looks at which zero can be excluded at all: its distance is 2.5 standard errors or more.

    Only saves time: the boundary never comes below 2.7, and the code under test decides.
    """
    with np.errstate(all="ignore"):
        arms = [
            (a[:, 0], a[:, 1] / a[:, 0], a[:, 2] - a[:, 1] ** 2 / a[:, 0]) for a in (first, second)
        ]
        common = sum(squares for _, _, squares in arms) / (sum(n for n, _, _ in arms) - 2)
        variance = sum(
            (squares + PRIOR_UNITS * common) / (n - 1 + PRIOR_UNITS) / n for n, _, squares in arms
        )
        far = np.abs(arms[1][1] - arms[0][1]) >= 2.5 * np.sqrt(variance)
    return np.flatnonzero(far & (arms[0][0] > 1) & (arms[1][0] > 1)).tolist()


def aa_runs(job: tuple[str, float, int, int]) -> tuple[str, float, float]:
    name, share, runs, seed = job
    rng = np.random.default_rng(seed)
    ends = [
        decided_at(METRICS[name](rng, EVENTS), rng.random(EVENTS) < share, PLAN)
        for _ in range(runs)
    ]
    return name, share, float(np.isfinite(ends).mean())


def paired_aa(runs: int, rng: np.random.Generator) -> float:
    """Shadows that differ from the champion by noise alone."""
    mixture = Mixture(alpha=ALPHA)
    wrong = 0
    for _ in range(runs):
        noise = rng.normal(0, 0.1, EVENTS // 2) * (rng.random(EVENTS // 2) < 0.3)
        sums = looks(noise)
        far = np.abs(sums[:, 1]) >= 2.5 * np.sqrt(sums[:, 2])
        for at in np.flatnonzero(far):
            found = difference_of_pairs(moments(sums[at]), PLAN)
            if found.obstacle is None and mixture.interval(
                found.difference, found.standard_error, found.progress
            ).excludes(0.0):
                wrong += 1
                break
    return wrong / runs


def decision_sizes(job: tuple[float, float, float, int, int]) -> dict[str, float]:
    """Units per arm until decided, over those of a fixed-horizon z-test of power 80% and 90%."""
    old, new, misplanned, runs, seed = job
    rng = np.random.default_rng(seed)
    mean = (old + new) / 2
    size = {
        power: 2 * mean * (1 - mean) * ((norm.ppf(0.975) + norm.ppf(power)) / (new - old)) ** 2
        for power in (0.8, 0.9)
    }
    ends = []
    for _ in range(runs):
        treated = rng.random(int(size[0.8] * 10)) < 0.5
        values = (rng.random(len(treated)) < np.where(treated, new, old)).astype(float)
        ends.append(decided_at(values, treated, size[0.8] * misplanned) / 2)
    ratio = np.minimum(ends, size[0.8] * 5) / size[0.8]
    return {
        "from": old,
        "to": new,
        "plan_over_needed": misplanned,
        "fixed_per_arm": round(size[0.8]),
        "median_per_arm": float(np.median(ends)),
        "median_ratio": float(np.median(ratio)),
        "mean_ratio": float(ratio.mean()),
        "ratio_at_power_80": float(np.quantile(ratio, 0.8)),
        "ratio_at_power_90": float(np.quantile(ratio, 0.9) * size[0.8] / size[0.9]),
    }


def split_alarms(runs: int, rng: np.random.Generator) -> dict[str, float]:
    """Share of runs in which traffic as intended is called a mismatch at 1%, ever."""
    found = {}
    for shares in ((0.5, 0.5), (0.9, 0.1), (0.98, 0.01, 0.01)):
        expected = np.array(shares)
        wrong = 0
        for _ in range(runs):
            counts = np.cumsum(rng.multinomial(LOOK, expected, EVENTS // LOOK), axis=0)
            wrong += any(log_evidence(c.astype(float), expected) > math.log(100) for c in counts)
        found["/".join(f"{s:g}" for s in shares)] = wrong / runs
    return found


def answers(
    rng: np.random.Generator, z: np.ndarray, distortion: tuple[float, float], change: float = 0.0
) -> tuple[ScoredRows, np.ndarray]:
    """A model whose confidence is a distorted view of the true log-odds ``z``."""
    truth = rng.random(len(z)) < 1 / (1 + np.exp(-(z + change)))
    raw = 1 / (1 + np.exp(-(distortion[0] * z + distortion[1])))
    predicted = raw >= 0.5
    rows = ScoredRows(
        scores=np.where(predicted, raw, 1 - raw),
        labels=np.where(predicted, "good", "bad"),
        weights=np.ones(len(z)),
        units=np.arange(len(z)),
    )
    return rows, predicted == truth


def estimates(job: tuple[int, int]) -> list[tuple[bool, str, str, int]]:
    """Per window: did the interval hold, does it apply, does it after calibration broke, rows."""
    windows, seed = job
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(windows):
        distortion = (rng.choice([0.7, 1.0, 1.5]), rng.choice([-0.5, 0.0, 0.5]))
        reference = rng.normal(0.5, 1.5, rng.choice([1_000, 2_000, 5_000, 20_000]))
        calibration = fit_calibration(*answers(rng, reference, distortion), rng)
        rows = int(rng.choice([200, 500, 2_000, 10_000]))
        shifted = rng.normal(0.5 + rng.uniform(-1, 1), 1.5 * rng.uniform(0.6, 1.3), rows)
        window, right = answers(rng, shifted, distortion)
        checks = [
            answers(rng, rng.normal(0.5, 1.5, 1_000), distortion, change) for change in (0.0, 1.0)
        ]
        kept, broken = (estimate(calibration, window, *check) for check in checks)
        assert kept.estimated is not None
        found.append((kept.estimated.holds(right.mean()), kept.applies, broken.applies, rows))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--windows", type=int, default=1_000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    jobs = [
        (name, share, given.runs, seed)
        for seed, (name, share) in enumerate((n, s) for n in METRICS for s in (0.5, 0.1))
    ]
    sizes = [
        (old, new, misplanned, max(50, given.runs // 4), 7)
        for old, new in ((0.10, 0.12), (0.50, 0.55), (0.02, 0.03))
        for misplanned in (0.25, 1.0, 4.0)
    ]
    parts = [(given.windows // 4, seed) for seed in range(4)]
    with ProcessPoolExecutor(given.processes) as pool:
        aa = [{"metric": m, "share": s, "excluded": f} for m, s, f in pool.map(aa_runs, jobs)]
        taken = list(pool.map(decision_sizes, sizes))
        windows = [line for part in pool.map(estimates, parts) for line in part]
    held = np.array([line[0] for line in windows])
    by_rows = np.array([line[3] for line in windows])
    report = {
        "aa_excluded_zero_promised": ALPHA,
        "aa": aa,
        "paired_aa_excluded_zero": paired_aa(given.runs // 4, np.random.default_rng(1)),
        "sizes": taken,
        "split_alarms_promised": 0.01,
        "split_alarms": split_alarms(given.runs // 4, np.random.default_rng(2)),
        "estimate": {
            "windows": len(windows),
            "held": float(held.mean()),
            "held_by_rows": {int(r): float(held[by_rows == r].mean()) for r in np.unique(by_rows)},
            "said_yes_rightly": float(np.mean([line[1] == "yes" for line in windows])),
            "said_no_rightly": float(np.mean([line[2] == "no" for line in windows])),
        },
    }
    print(json.dumps(report, indent=2) if given.json else _text(report))


def _text(report: dict[str, object]) -> str:
    return json.dumps(report, indent=1).replace('"', "")


if __name__ == "__main__":
    main()
