"""Effect sizes that people know, beside every verdict: how much, where a p-value says how sure.

PSI and Jensen-Shannon compare at most ten groups: each value of a column of few, else the training
deciles, open at both ends, as is usual; more groups would add noise that grows with their number.
Missing values are a group, and new ones where values are told apart by name. A group that is empty
on one side counts as half a row there.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitoring.analysis.drift.baseline import ColumnBaseline
from monitoring.analysis.drift.bins import MAX_ATOMS

Floats = NDArray[np.float64]

GROUPS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Size of a change.

    ``psi`` population stability index; ``js`` Jensen-Shannon distance (0 to 1, base 2);
    ``wasserstein`` and ``mean_shift`` in training standard deviations, None for categories;
    ``missing`` and ``new`` differences of the shares of missing and never-seen values.
    """

    psi: float
    js: float
    wasserstein: float | None
    mean_shift: float | None
    missing: float
    new: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectFloor:
    """An alarm needs at least one effect at its floor; None asks nothing."""

    psi: float | None = None
    js: float | None = None
    wasserstein: float | None = None

    def reached(self, effect: Effect) -> bool:
        floors = ((self.psi, effect.psi), (self.js, effect.js))
        asked = [found >= floor for floor, found in floors if floor is not None]
        if self.wasserstein is not None and effect.wasserstein is not None:
            asked.append(effect.wasserstein >= self.wasserstein)
        return not asked or any(asked)


def effect_of(baseline: ColumnBaseline, window: Floats, new: NDArray[np.bool_]) -> Effect | None:
    """Measure the change of one column; ``window`` are its counts per slot, missing last.

    ``new`` marks the slots of values never seen in training. None for an empty window.
    """
    if window.sum() <= 0:
        return None
    first = decile_groups(baseline, baseline.counts, new)
    second = decile_groups(baseline, window, new)
    before, after = baseline.counts / baseline.counts.sum(), window / window.sum()
    number = len(baseline.components) > 0 and window[:-1].sum() > 0 and baseline.sigma > 0
    return Effect(
        psi=_psi(first, second),
        js=_jensen_shannon(first, second),
        wasserstein=_wasserstein(baseline, window) if number else None,
        mean_shift=_mean_shift(baseline, window) if number else None,
        missing=float(after[-1] - before[-1]),
        new=float(after[:-1][new].sum()),
    )


APART: Final = -1


def slot_groups(baseline: ColumnBaseline, new: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return each slot's group (missing left out): one per value or training decile.

    New values are ``APART``; those of a number of many lie in the decile that they fall into.
    """
    shares = baseline.counts[:-1] / max(baseline.present, 1)
    filled = shares > 0
    continuous = len(baseline.components) > 0 and filled.sum() > MAX_ATOMS
    if filled.sum() <= GROUPS:
        group = np.maximum(np.cumsum(filled) - 1, 0)
    else:
        middle = np.cumsum(shares) - shares / 2
        group = np.minimum((middle * GROUPS).astype(np.int64), GROUPS - 1)
    apart = np.zeros_like(new) if continuous else new
    return np.where(apart, APART, group)


def decile_groups(baseline: ColumnBaseline, counts: Floats, new: NDArray[np.bool_]) -> Floats:
    """Counts per group that training rows are in, then of new values, then of missing ones."""
    group = slot_groups(baseline, new)
    apart = group == APART
    shares = baseline.counts[:-1] / max(baseline.present, 1)
    values = np.bincount(group[~apart], counts[:-1][~apart], GROUPS)
    used = np.bincount(group[~apart], shares[~apart], GROUPS) > 0
    return np.concatenate([values[used], [counts[:-1][apart].sum(), counts[-1]]])


def _shares(first: Floats, second: Floats) -> tuple[Floats, Floats]:
    kept = (first > 0) | (second > 0)
    a, b = (np.where(counts > 0, counts, 0.5)[kept] for counts in (first, second))
    return a / a.sum(), b / b.sum()


def _psi(first: Floats, second: Floats) -> float:
    p, q = _shares(first, second)
    return float(((q - p) * np.log(q / p)).sum())


def _jensen_shannon(first: Floats, second: Floats) -> float:
    p, q = first / first.sum(), second / second.sum()
    middle = (p + q) / 2

    def divergence(share: Floats) -> float:
        seen = share > 0
        return float((share[seen] * np.log2(share[seen] / middle[seen])).sum())

    return float(np.sqrt(max((divergence(p) + divergence(q)) / 2, 0.0)))


def _wasserstein(baseline: ColumnBaseline, window: Floats) -> float:
    """Area between the distribution functions, values standing at their bin's training mean."""
    order = np.argsort(baseline.centers, kind="stable")
    p = baseline.counts[:-1][order] / baseline.present
    q = window[:-1][order] / window[:-1].sum()
    gap = np.abs(np.cumsum(p - q))[:-1]
    return float((gap * np.diff(baseline.centers[order])).sum() / baseline.sigma)


def _mean_shift(baseline: ColumnBaseline, window: Floats) -> float:
    p = baseline.counts[:-1] / baseline.present
    q = window[:-1] / window[:-1].sum()
    return float(((q - p) * baseline.centers).sum() / baseline.sigma)
