"""How often answers of a given confidence are right: learned from labelled rows, with its doubt.

Isotonic regression of "was right" on the score, one curve per predicted label: confident "good"
and confident "bad" need not be right equally often, and a shift of traffic changes their mix. The
curve's own uncertainty comes from refits on bootstrap samples of units (Poisson weights).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

Floats = NDArray[np.float64]

REFITS: Final = 100
MAX_BINS: Final = 200
BIN_ROWS: Final = 25
MIN_GROUP_ROWS: Final = 100  # labelled rows of one predicted label, for a curve of its own
MIN_ROWS: Final = 200
POOLED: Final = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRows:
    """Answers: confidence, predicted label, weight and unit of each row, in one order."""

    scores: Floats
    labels: NDArray[Any]
    weights: Floats
    units: NDArray[Any]

    def __len__(self) -> int:
        return len(self.scores)

    def where(self, mask: NDArray[np.bool_]) -> "ScoredRows":
        return ScoredRows(
            scores=self.scores[mask],
            labels=self.labels[mask],
            weights=self.weights[mask],
            units=self.units[mask],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curve:
    """Knots of one label's curve, ``refits`` being the bootstrap's, and the scores it has seen."""

    low: float
    high: float
    knots: tuple[Floats, Floats]
    refits: tuple[tuple[Floats, Floats], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Chance of being right by score and predicted label; see ``fit_calibration``."""

    rows: int
    accuracy: float
    curves: dict[str, _Curve]

    def chances(self, rows: ScoredRows) -> Floats:
        """Return each row's calibrated chance of being right."""
        return self._evaluated(rows, self._groups(rows), None)

    def refitted(self, rows: ScoredRows) -> Iterator[Floats]:
        """Yield the chances under each refit; all at once they would fill the memory."""
        groups = self._groups(rows)
        for at in range(REFITS):
            yield self._evaluated(rows, groups, at)

    def unseen(self, rows: ScoredRows) -> NDArray[np.bool_]:
        """Tell which rows lie where no label has come from: a new label, a score out of range."""
        found = np.ones(len(rows), dtype=bool)
        for name, here in self._groups(rows):
            curve = self.curves[name]
            scores = rows.scores[here]
            found[here] = (scores < curve.low) | (scores > curve.high)
        return found

    def _groups(self, rows: ScoredRows) -> list[tuple[str, NDArray[np.bool_]]]:
        own = [name for name in self.curves if name != POOLED]
        groups = [(name, np.asarray(rows.labels == name)) for name in own]
        if POOLED in self.curves:
            groups.append((POOLED, ~np.isin(rows.labels, own)))
        return groups

    def _evaluated(
        self, rows: ScoredRows, groups: list[tuple[str, NDArray[np.bool_]]], refit: int | None
    ) -> Floats:
        chances = np.full(len(rows), self.accuracy)
        for name, here in groups:
            curve = self.curves[name]
            knots = curve.knots if refit is None else curve.refits[refit]
            chances[here] = np.interp(rows.scores[here], *knots)
        return chances


def fit_calibration(
    rows: ScoredRows, right: NDArray[np.bool_], rng: np.random.Generator
) -> Calibration | None:
    """Learn from labelled rows; None when there are fewer than ``MIN_ROWS``.

    Labels with fewer than ``MIN_GROUP_ROWS`` rows share one curve.
    """
    if len(rows) < MIN_ROWS:
        return None
    names, counts = np.unique(rows.labels, return_counts=True)
    own = names[counts >= MIN_GROUP_ROWS]
    groups = [(str(name), rows.labels == name) for name in own]
    rest = ~np.isin(rows.labels, own)
    if rest.any():
        groups.append((POOLED, rest))
    _, codes = np.unique(rows.units, return_inverse=True)
    copies = rng.poisson(1.0, size=(REFITS, codes.max() + 1)).astype(float)
    return Calibration(
        rows=len(rows),
        accuracy=float(np.average(right, weights=rows.weights)),
        curves={
            name: _curve(rows.scores[here], right[here], rows.weights[here], copies[:, codes[here]])
            for name, here in groups
        },
    )


def _curve(scores: Floats, right: NDArray[np.bool_], weights: Floats, copies: Floats) -> _Curve:
    # An isotonic fit ends too high and begins too low by what chance gave its outermost rows.
    bins_wanted = min(MAX_BINS, max(1, len(scores) // BIN_ROWS))
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, bins_wanted + 1)))
    bins = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, max(len(edges) - 2, 0))
    return _Curve(
        low=float(scores.min()),
        high=float(scores.max()),
        knots=_isotonic(bins, scores, right, weights),
        refits=tuple(_isotonic(bins, scores, right, weights * row) for row in copies),
    )


def _isotonic(
    bins: NDArray[np.int64], scores: Floats, right: NDArray[np.bool_], weights: Floats
) -> tuple[Floats, Floats]:
    """Fit on bin means; knots stand at the centres of the level stretches, joined by lines."""
    weight = np.bincount(bins, weights=weights)
    filled = weight > 0
    if not filled.any():  # a refit that drew none of these rows
        return np.zeros(1), np.full(1, float(right.mean()))
    weight = weight[filled]
    hits = np.bincount(bins, weights=weights * right)[filled] / weight
    centres = np.bincount(bins, weights=weights * scores)[filled] / weight
    fitted = isotonic_regression(hits, weights=weight)
    starts = np.asarray(fitted.blocks[:-1])
    mass = np.add.reduceat(weight, starts)
    return np.add.reduceat(centres * weight, starts) / mass, np.asarray(fitted.x)[starts]
