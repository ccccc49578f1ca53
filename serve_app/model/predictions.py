"""A model's answers to some rows, and how good they are against the true labels."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """Answers to some rows. ``scores``: probability of the predicted class, or predicted value.

    ``labels`` (rows) and ``probabilities`` (rows x classes) are None for regression.
    """

    scores: NDArray[np.float64]
    labels: list[str] | None = None
    probabilities: NDArray[np.float64] | None = None


def quality(
    predictions: Predictions, truth: pa.Array, classes: tuple[str, ...]
) -> dict[str, int | float]:
    """Measure predictions against the true labels (text, or float64 for regression).

    Classification: ``rows``, ``accuracy``, ``log_loss``, and ``roc_auc`` with two classes that
    both occur. Regression: ``rows``, ``rmse``, ``mae``, and ``r2`` where the labels vary.
    """
    if predictions.probabilities is None:
        return _regression_quality(predictions.scores, truth.to_numpy())
    positions = pc.index_in(truth, pa.array(classes, pa.string())).to_numpy()
    return _classification_quality(predictions.probabilities, positions)


def _classification_quality(
    probabilities: NDArray[np.float64], positions: NDArray[np.int64]
) -> dict[str, int | float]:
    """Positions are the true classes' columns."""
    of_truth = probabilities[np.arange(len(positions)), positions]
    # A forest says 0 for a class no leaf has seen; clipped as scikit-learn's log_loss does.
    clipped = np.clip(of_truth, np.finfo(np.float64).eps, 1.0)
    measured: dict[str, int | float] = {
        "rows": len(positions),
        "accuracy": float((probabilities.argmax(axis=1) == positions).mean()),
        "log_loss": float(-np.log(clipped).mean()),
    }
    if probabilities.shape[1] == 2 and 0 < positions.sum() < len(positions):
        from sklearn.metrics import roc_auc_score

        measured["roc_auc"] = float(roc_auc_score(positions, probabilities[:, 1]))
    return measured


def _regression_quality(
    predicted: NDArray[np.float64], truth: NDArray[np.float64]
) -> dict[str, int | float]:
    errors = predicted - truth
    measured: dict[str, int | float] = {
        "rows": len(truth),
        "rmse": float(np.sqrt(np.mean(errors**2))),
        "mae": float(np.abs(errors).mean()),
    }
    spread = float(np.sum((truth - truth.mean()) ** 2))
    if spread > 0:
        measured["r2"] = 1.0 - float(np.sum(errors**2)) / spread
    return measured
