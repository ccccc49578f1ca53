"""What changes in one column of twenty, how often that should be seen, and how often it can be."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.drift import optimum
from benchmarks.drift.worlds import Columns, World, mixed_world, numbers_world, with_missing

Apply = Callable[[np.random.Generator, Columns], None]
Best = Callable[[int, int], float]

# Standard deviations of the mixed world's numbers.
SIGMA = {
    "lognormal": float(np.sqrt((np.e - 1) * np.e)),
    "student3": float(np.sqrt(3)),
    "poisson2": float(np.sqrt(2)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """``asked`` is the least share of windows found, ``best`` gives that of the optimal test.

    ``best`` takes the window's and the baseline's rows; None where no closed form is at hand.
    """

    name: str
    world: World
    rows: int
    apply: Apply
    asked: float | None = None
    best: Best | None = None


def shift(name: str, sigmas: float) -> Apply:
    def change(rng: np.random.Generator, columns: Columns) -> None:
        columns[name] = columns[name] + sigmas * SIGMA.get(name, 1.0)

    return change


def scale(name: str, factor: float) -> Apply:
    def change(rng: np.random.Generator, columns: Columns) -> None:
        columns[name] = columns[name] * factor

    return change


def decorrelate(first: str) -> Apply:
    def change(rng: np.random.Generator, columns: Columns) -> None:
        columns[first] = rng.permutation(columns[first])

    return change


def missing(name: str, share: float) -> Apply:
    """Raise the share of missing values from 2% to ``share``."""

    def change(rng: np.random.Generator, columns: Columns) -> None:
        columns[name] = with_missing(rng, columns[name], (share - 0.02) / 0.98)

    return change


def more_of(name: str, label: str, base: float, points: float) -> Apply:
    """Raise one category's share from ``base`` by ``points`` at the cost of all others."""

    def change(rng: np.random.Generator, columns: Columns) -> None:
        taken = rng.random(len(columns[name])) < points / (1 - base)
        columns[name] = np.where(taken & (columns[name] != label), label, columns[name])

    return change


def _share(
    name: str,
    rows: int,
    label: tuple[str, str],
    share: float,
    points: float,
    asked: float | None = None,
) -> Change:
    return Change(
        name=name,
        world=mixed_world,
        rows=rows,
        apply=more_of(*label, share, points),
        asked=asked,
        best=lambda n, m: optimum.rate(share, share + points, n, m),
    )


def _normal(name: str, rows: int, apply: Apply, asked: float | None, best: Best) -> Change:
    return Change(name=name, world=numbers_world, rows=rows, apply=apply, asked=asked, best=best)


def _other(name: str, rows: int, apply: Apply) -> Change:
    return Change(name=name, world=mixed_world, rows=rows, apply=apply)


def _location(sigmas: float) -> Best:
    return lambda n, m: optimum.location(sigmas, n, m)


def _variance(ratio: float) -> Best:
    return lambda n, m: optimum.variance(ratio, n, m)


def _gaps(n: int, m: int) -> float:
    return optimum.rate(0.02, 0.04, n, m)


def _apart(n: int, m: int) -> float:
    return optimum.correlation(0.3, 0.0, n, m)


TENTH, MOST = ("cat10", "c3"), ("cat3", "c0")

CHANGES = (
    _normal("mean +0.05 sigma", 10_000, shift("n5", 0.05), 0.88, _location(0.05)),
    _normal("mean +0.1 sigma", 10_000, shift("n5", 0.1), 0.99, _location(0.1)),
    _normal("variance x1.1", 10_000, scale("n5", 1.1**0.5), 0.99, _variance(1.1)),
    _normal("deviation x1.1", 10_000, scale("n5", 1.1), None, _variance(1.1**2)),
    _normal("correlation 0.3 to 0", 10_000, decorrelate("n1"), 0.99, _apart),
    _normal("missing 2% to 4%", 10_000, missing("n2", 0.04), 0.99, _gaps),
    _share("category of 10% +2 points", 10_000, TENTH, 0.1, 0.02, 0.92),
    _share("category of 60% +2 points", 10_000, MOST, 0.6, 0.02),
    _other("lognormal +0.05 sigma", 10_000, shift("lognormal", 0.05)),
    _other("exponential +0.05 sigma", 10_000, shift("exponential", 0.05)),
    _other("Student (3) +0.05 sigma", 10_000, shift("student3", 0.05)),
    _other("rounded normal +0.1 sigma", 10_000, shift("rounded", 0.1)),
    _other("Poisson (2) +0.1 sigma", 10_000, shift("poisson2", 0.1)),
    _normal("mean +0.25 sigma", 1_000, shift("n5", 0.25), 0.99, _location(0.25)),
    _normal("mean +0.1 sigma", 1_000, shift("n5", 0.1), None, _location(0.1)),
    _normal("deviation x1.2", 1_000, scale("n5", 1.2), 0.99, _variance(1.2**2)),
    _normal("variance x1.2", 1_000, scale("n5", 1.2**0.5), None, _variance(1.2)),
    _normal("deviation x1.1", 1_000, scale("n5", 1.1), None, _variance(1.1**2)),
    _normal("correlation 0.3 to 0", 1_000, decorrelate("n1"), 0.99, _apart),
    _normal("missing 2% to 4%", 1_000, missing("n2", 0.04), None, _gaps),
    _share("category of 10% +5 points", 1_000, TENTH, 0.1, 0.05, 0.80),
    _share("category of 60% +5 points", 1_000, MOST, 0.6, 0.05),
    _other("lognormal +0.25 sigma", 1_000, shift("lognormal", 0.25)),
    _other("Student (3) deviation x1.2", 1_000, scale("student3", 1.2)),
)
