"""How soon could any sequence decide, were the plan wrong by up to four times either way?

    python -m benchmarks.compare_bound [--runs 20000] [--seed 1]

To decide within 1.6 fixed sizes whether the plan is four times too small or too large, a boundary
must lie low from a fifth of the plan to 6.4 plans. Here it lies equally low over just these looks,
at the height that A/A runs cross in 5%, and is infinite at all others: nothing is spent elsewhere,
which no sequence that may be looked at for ever can afford. Beside it Treeline's own mixture, and
the usual one, a normal about zero (narrowest at the plan). Paths are Brownian, looks 60 per fixed
size, sizes in units of a fixed-horizon test of 80% power.
"""

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from monitoring.analysis.compare.sequences import Mixture

Floats = NDArray[np.float64]

ALPHA = 0.05
POWER = 0.8
LOOKS = 60
DRIFT = float(norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER))  # at the fixed size
HORIZON = 3.0
FIRST, LAST = 0.8, 1.6  # looks that count, in fixed sizes
MISPLANNED = (0.25, 0.5, 1.0, 2.0, 4.0)  # plan over fixed size


def paths(rng: np.random.Generator, runs: int) -> tuple[Floats, Floats]:
    """Times and z-statistics (runs, looks) of an effect that is there."""
    times = np.arange(1, int(HORIZON * LOOKS) + 1) / LOOKS
    steps = rng.normal(DRIFT / LOOKS, np.sqrt(1 / LOOKS), (runs, len(times)))
    return times, np.cumsum(steps, axis=1) / np.sqrt(times)


def highest_without_effect(rng: np.random.Generator, runs: int) -> Floats:
    """Greatest |z| of each run over the looks that count for any plan between the two extremes."""
    walk, highest = np.zeros(runs), np.zeros(runs)
    span = max(MISPLANNED) / min(MISPLANNED)
    for look in range(1, int(LAST * span * LOOKS) + 1):  # in sizes of the largest effect
        walk += rng.normal(0.0, np.sqrt(1 / LOOKS), runs)
        if look >= FIRST * LOOKS:
            np.maximum(highest, np.abs(walk) / np.sqrt(look / LOOKS), out=highest)
    return highest


def usual(progress: Floats) -> Floats:
    """Height of the normal mixture about zero."""
    wanted = -2 * np.log(ALPHA)
    scaled = progress * (wanted + np.log(1 + wanted))
    height: Floats = np.sqrt((1 + scaled) / scaled * (wanted + np.log(1 + scaled)))
    return height


def decided(times: Floats, z: Floats, height: Floats) -> str:
    over = np.abs(z) >= height
    at = np.where(over.any(axis=1), times[over.argmax(axis=1)], np.inf)
    share = float((at <= LAST).mean())
    return f"80% by {np.quantile(at, POWER):.2f}, median {np.median(at):.2f}, {share:.1%} by {LAST}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    height = float(np.quantile(highest_without_effect(rng, arguments.runs), 1 - ALPHA))
    times, z = paths(rng, arguments.runs)
    flat = np.where(times >= FIRST, height, np.inf)
    print(f"equally low, height {height:.2f}: {decided(times, z, flat)}")
    mixture = Mixture(alpha=ALPHA)
    for plan in MISPLANNED:
        own = np.array([mixture.quantile(float(time / plan)) for time in times])
        print(f"plan {plan:g} of the size, Treeline's: {decided(times, z, own)}")
        print(f"plan {plan:g} of the size, the usual: {decided(times, z, usual(times / plan))}")


if __name__ == "__main__":
    main()
