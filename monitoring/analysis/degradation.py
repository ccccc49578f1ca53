"""Is a version worse than it was when it was trained? Figures against the manifest's. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from monitoring.analysis.quality import Measure, Z

Standing = Literal["as_trained", "worse", "better", "no_figure"]

# Held-out figures first; those on the training rows themselves flatter every forest.
SOURCES: Final = ("test", "oob")
OUT_OF_BAG: Final = "oob_score"  # accuracy of a classifier, R2 of a regressor
_OF_BAG: Final = ("accuracy", "r2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A measure beside the figure at training. ``trained_on`` counts that figure's rows, if known.

    ``standing`` allows for the chance in both figures at 95%.
    """

    measure: Measure
    trained: float | None
    trained_on: int | None
    standing: Standing


def against_training(
    measures: Sequence[Measure], training: Mapping[str, float], rows: int
) -> list[Judged]:
    """Hold measures of ``rows`` rows against the manifest's ``training_metrics``."""
    return [_judged(measure, training, rows) for measure in measures]


def _judged(measure: Measure, training: Mapping[str, float], rows: int) -> Judged:
    trained, trained_on = trained_figure(measure.name, training)
    if trained is None:
        return Judged(measure=measure, trained=None, trained_on=None, standing="no_figure")
    # The same figure varies alike over as many rows; unknown rows are taken for many.
    ratio = rows / trained_on if trained_on else 0.0
    margin = Z * measure.standard_error * math.sqrt(1.0 + ratio)
    gain = measure.value - trained if measure.higher_is_better else trained - measure.value
    standing: Standing = "as_trained"
    if abs(gain) > margin:
        standing = "better" if gain > 0.0 else "worse"
    return Judged(measure=measure, trained=trained, trained_on=trained_on, standing=standing)


def trained_figure(name: str, training: Mapping[str, float]) -> tuple[float | None, int | None]:
    """Find a held-out figure of training, and on how many rows it stands, where that is known."""
    for source in SOURCES:
        if f"{source}_{name}" in training:
            return training[f"{source}_{name}"], int(training.get(f"{source}_rows", 0)) or None
    if name in _OF_BAG and OUT_OF_BAG in training:
        return training[OUT_OF_BAG], int(training.get("train_rows", 0)) or None
    return None, None


def reasons_to_retrain(
    judged: Sequence[Judged], main: Sequence[str] = ("accuracy", "rmse")
) -> list[str]:
    """Say in words what speaks for retraining: the main figures only, one test each."""
    return [
        f"{j.measure.name} is {j.measure.value:.4g} ({j.measure.low:.4g} to {j.measure.high:.4g}), "
        f"{j.trained:.4g} at training"
        for j in judged
        if j.standing == "worse" and j.measure.name in main
    ]
