"""How good answers were, from labels, with intervals. Pure: arrays in, measures out.

Rows count with their weight and are grouped into units (a request's rows share a fate). Means and
their functions get intervals by linearisation (the delta method over units), ROC AUC by DeLong's
influence values, weighted; average precision and calibration error by a bootstrap over units. Each
interval is for one look at one figure; ``compare`` is for looking again and again.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]

Z: Final = float(ndtri(0.975))
MIN_ROWS: Final = 30
RESAMPLES: Final = 200
BINS: Final = 10
EPSILON: Final = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One figure with its 95% interval; ``higher_is_better`` gives its direction."""

    name: str
    value: float
    low: float
    high: float
    standard_error: float
    higher_is_better: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledRows:
    """Rows with a label: ``weights`` as in the log, ``units`` the requests they came in."""

    weights: Floats
    units: NDArray[Any]

    @property
    def codes(self) -> NDArray[np.intp]:
        return np.unique(self.units, return_inverse=True)[1]


def classification_measures(
    rows: LabelledRows,
    right: NDArray[np.bool_],
    probabilities: Floats | None,
    truth: NDArray[np.int64],
    rng: np.random.Generator,
) -> list[Measure]:
    """Measure a classifier; nothing below ``MIN_ROWS`` rows.

    ``truth`` is the true class's column in ``probabilities`` (rows, classes), -1 where the label is
    no class of the model: it counts as wrong, and only accuracy can say so.
    """
    if len(right) < MIN_ROWS:
        return []
    measures = [_proportion("accuracy", right, rows)]
    known = truth >= 0
    if probabilities is None or known.sum() < MIN_ROWS:
        return measures
    rows = LabelledRows(weights=rows.weights[known], units=rows.units[known])
    p, y, right = probabilities[known], truth[known], right[known]
    of_truth = np.clip(p[np.arange(len(y)), y], EPSILON, 1.0)
    measures.append(_mean("log_loss", -np.log(of_truth), rows, higher_is_better=False))
    hits = np.eye(p.shape[1])[y]
    measures.append(_mean("brier", ((p - hits) ** 2).sum(axis=1), rows, higher_is_better=False))
    measures.append(_resampled("calibration_error", rows, _calibration_error(p, right), rng))
    if p.shape[1] == 2 and 0 < y.sum() < len(y):
        measures.append(_roc_auc(p[:, 1], y == 1, rows))
        measures.append(_resampled("pr_auc", rows, _average_precision(p[:, 1], y == 1), rng))
    return measures


def regression_measures(rows: LabelledRows, predicted: Floats, truth: Floats) -> list[Measure]:
    """Measure a regressor; R2 only where the labels vary."""
    if len(truth) < MIN_ROWS:
        return []
    errors = predicted - truth
    squared = _mean("", errors**2, rows, higher_is_better=False)
    rmse = math.sqrt(squared.value)
    measures = [
        _measure("rmse", rmse, _half(squared.standard_error, rmse), higher_is_better=False),
        _mean("mae", np.abs(errors), rows, higher_is_better=False),
    ]
    total = rows.weights.sum()
    spread = (truth - np.average(truth, weights=rows.weights)) ** 2
    variance = float(rows.weights @ spread) / total
    if variance > 0.0:
        r2 = 1.0 - squared.value / variance
        influence = rows.weights * ((1.0 - r2) * spread - errors**2) / (variance * total)
        measures.append(_measure("r2", r2, _error(influence, rows), higher_is_better=True))
    return measures


def _half(standard_error: float, root: float) -> float:
    """Standard error of a root, from that of its square."""
    return standard_error / (2 * root) if root > 0.0 else 0.0


def _measure(name: str, value: float, error: float, *, higher_is_better: bool) -> Measure:
    return Measure(
        name=name,
        value=value,
        low=value - Z * error,
        high=value + Z * error,
        standard_error=error,
        higher_is_better=higher_is_better,
    )


def _error(influence: Floats, rows: LabelledRows) -> float:
    """Standard error of a figure from each row's influence on it."""
    by_unit = np.bincount(rows.codes, weights=influence)
    return float(math.sqrt(by_unit @ by_unit * len(by_unit) / max(1, len(by_unit) - 1)))


def _mean(name: str, values: Floats, rows: LabelledRows, *, higher_is_better: bool) -> Measure:
    total = rows.weights.sum()
    mean = float(rows.weights @ values / total)
    error = _error(rows.weights * (values - mean) / total, rows)
    return _measure(name, mean, error, higher_is_better=higher_is_better)


def _proportion(name: str, hits: NDArray[np.bool_], rows: LabelledRows) -> Measure:
    return proportion(name, hits.astype(float), rows.weights, rows.units)


def proportion(name: str, hits: Floats, weights: Floats, units: NDArray[Any]) -> Measure:
    """Measure a share, with Wilson's interval at the effective number of rows."""
    rows = LabelledRows(weights=weights, units=units)
    plain = _mean(name, hits, rows, higher_is_better=True)
    p, error = plain.value, plain.standard_error
    # At 0 and 1 no variance is seen; the weights alone then say how many rows there are.
    by_unit = np.bincount(rows.codes, weights=weights)
    size = by_unit.sum() ** 2 / (by_unit @ by_unit)
    if error > 0.0:
        size = p * (1 - p) / error**2
    centre = (p + Z * Z / (2 * size)) / (1 + Z * Z / size)
    half = Z * math.sqrt(p * (1 - p) / size + (Z / (2 * size)) ** 2) / (1 + Z * Z / size)
    return Measure(
        name=name,
        value=p,
        low=max(0.0, centre - half),
        high=min(1.0, centre + half),
        standard_error=error,
        higher_is_better=True,
    )


def _roc_auc(scores: Floats, positive: NDArray[np.bool_], rows: LabelledRows) -> Measure:
    """ROC AUC with DeLong's variance; the interval is made on the logit, so it stays in 0 to 1."""
    w_pos, w_neg = rows.weights * positive, rows.weights * ~positive
    levels = np.unique(scores, return_inverse=True)[1]
    pos, neg = (np.bincount(levels, weights=w) for w in (w_pos, w_neg))
    below_neg = (np.cumsum(neg) - neg / 2)[levels] / neg.sum()  # ties count half
    above_pos = (pos.sum() - np.cumsum(pos) + pos / 2)[levels] / pos.sum()
    auc = float(w_pos @ below_neg / pos.sum())
    influence = w_pos * (below_neg - auc) / pos.sum() + w_neg * (above_pos - auc) / neg.sum()
    error = _error(influence, rows)
    if not 0.0 < auc < 1.0:
        return _measure("roc_auc", auc, error, higher_is_better=True)
    logit, spread = math.log(auc / (1 - auc)), Z * error / (auc * (1 - auc))
    return Measure(
        name="roc_auc",
        value=auc,
        low=1 / (1 + math.exp(spread - logit)),
        high=1 / (1 + math.exp(-spread - logit)),
        standard_error=error,
        higher_is_better=True,
    )


def _average_precision(
    scores: Floats, positive: NDArray[np.bool_]
) -> tuple[Callable[[Floats], float], bool]:
    """Average precision as scikit-learn defines it, as a function of the rows' weights."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))

    def of(weights: Floats) -> float:
        ranked = weights[order]
        hits = np.cumsum(ranked * positive[order])[ends]
        precision = hits / np.maximum(np.cumsum(ranked)[ends], EPSILON)
        return float(np.diff(hits, prepend=0.0) @ precision / hits[-1]) if hits[-1] else math.nan

    return of, True


def _calibration_error(
    probabilities: Floats, right: NDArray[np.bool_]
) -> tuple[Callable[[Floats], float], bool]:
    """Expected calibration error of the top label: mean |accuracy - confidence| in equal bins.

    The mean absolute deviation that chance alone would give is not taken off: a well calibrated
    model has a small positive error on few rows.
    """
    confidence = probabilities.max(axis=1)
    edges = np.quantile(confidence, np.linspace(0, 1, BINS + 1)[1:-1])
    bins = np.searchsorted(edges, confidence, side="right")
    gap = right - confidence

    def of(weights: Floats) -> float:
        return float(np.abs(np.bincount(bins, weights=weights * gap)).sum() / weights.sum())

    return of, False


def _resampled(
    name: str,
    rows: LabelledRows,
    figure: tuple[Callable[[Floats], float], bool],
    rng: np.random.Generator,
) -> Measure:
    """Bootstrap over units with Poisson weights; a normal interval around the figure itself."""
    of, higher_is_better = figure
    codes = rows.codes
    drawn = [of(rows.weights * rng.poisson(1.0, codes.max() + 1)[codes]) for _ in range(RESAMPLES)]
    error = float(np.nanstd(drawn, ddof=1))
    measure = _measure(name, of(rows.weights), error, higher_is_better=higher_is_better)
    return Measure(
        name=name,
        value=measure.value,
        low=max(0.0, measure.low),
        high=min(1.0, measure.high),
        standard_error=error,
        higher_is_better=higher_is_better,
    )
