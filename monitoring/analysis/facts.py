"""Answers with their outcomes as arrays, and what follows from them: figures, tests, estimates."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.analysis.calibration import Calibration, Floats, ScoredRows, fit_calibration
from monitoring.analysis.concept import Change, conditional_change, error_alarms
from monitoring.analysis.estimate import Estimate, Estimated, estimate, estimate_accuracy
from monitoring.analysis.feedback import NUMBER, OUTCOME
from monitoring.analysis.quality import (
    LabelledRows,
    Measure,
    classification_measures,
    regression_measures,
)

CALIBRATE_ON: Final = 0.6  # share of the labelled rows, the older ones; the rest checks
PAST_WINDOWS: Final = 10
PAST_ROWS: Final = 50  # at least, in each of them


@dataclass(frozen=True, slots=True, kw_only=True)
class PastEstimate:
    """An estimate for labelled rows made as if their labels were not there, beside the truth."""

    start: datetime
    end: datetime
    estimated: Estimated
    came_true: float
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The joined rows as arrays, in time order. ``right`` means nothing where not labelled."""

    ts_us: NDArray[np.int64]
    labelled: NDArray[np.bool_]
    right: NDArray[np.bool_]
    truth: Floats  # the class's column, or the number of a regression; NaN where not labelled
    scored: ScoredRows
    probabilities: Floats | None
    is_regression: bool

    @classmethod
    def of(cls, rows: pa.Table, classes: tuple[str, ...]) -> "Facts":
        is_regression = rows["label"].null_count == rows.num_rows
        labelled: NDArray[np.bool_] = pc.is_valid(
            rows[NUMBER] if is_regression else rows[OUTCOME]
        ).to_numpy()
        positions = pc.index_in(rows[OUTCOME], pa.array(classes, pa.string()))
        truth = rows[NUMBER] if is_regression else pc.fill_null(positions, -1)
        right = pc.fill_null(pc.equal(rows["label"], rows[OUTCOME]), False)
        return cls(
            ts_us=rows["ts"].cast(pa.int64()).to_numpy(),
            labelled=labelled,
            right=right.to_numpy(),
            truth=floats(truth),
            scored=ScoredRows(
                scores=floats(rows["score"]),
                labels=np.asarray(pc.fill_null(rows["label"], "").to_pylist(), dtype=object),
                weights=rows["weight"].to_numpy(),
                units=codes_of(rows["request_id"]),
            ),
            probabilities=_matrix(rows["probabilities"], len(classes)),
            is_regression=is_regression,
        )

    def measures(self, here: NDArray[np.bool_], rng: np.random.Generator) -> list[Measure]:
        rows = LabelledRows(weights=self.scored.weights[here], units=self.scored.units[here])
        if self.is_regression:
            return regression_measures(rows, self.scored.scores[here], self.truth[here])
        probabilities = None if self.probabilities is None else self.probabilities[here]
        truth = np.nan_to_num(self.truth[here], nan=-1).astype(np.int64)
        return classification_measures(rows, self.right[here], probabilities, truth, rng)

    def concept(
        self, labelled: NDArray[np.bool_], inside: NDArray[np.bool_], rng: np.random.Generator
    ) -> Change | None:
        """Test the window's labels against those before it."""
        before = self.labelled & ~inside
        calibration = self._calibration(before, rng)
        if calibration is None:
            return None
        return conditional_change(calibration, self.scored.where(labelled), self.right[labelled])

    def estimates(
        self, inside: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[Estimate, list[PastEstimate]]:
        """Calibrate on the older labelled rows, check on the newer ones, estimate the window."""
        if self.is_regression:
            reason = "there is no such estimate for a regression"
            return Estimate(estimated=None, applies="no", reason=reason), []
        places = np.flatnonzero(self.labelled)
        cut = int(CALIBRATE_ON * len(places))
        older, newer = np.zeros((2, len(self.labelled)), dtype=bool)
        older[places[:cut]], newer[places[cut:]] = True, True
        calibration = self._calibration(older, rng)
        found = estimate(
            calibration, self.scored.where(inside), self.scored.where(newer), self.right[newer]
        )
        return found, [] if calibration is None else self._past(calibration, places[cut:])

    def _past(self, calibration: Calibration, places: NDArray[np.intp]) -> list[PastEstimate]:
        """Estimate what has been labelled since, in stretches of equal size."""
        found = []
        windows = min(PAST_WINDOWS, len(places) // PAST_ROWS)
        for part in np.array_split(places, windows) if windows else []:
            here = np.zeros(len(self.labelled), dtype=bool)
            here[part] = True
            estimated = estimate_accuracy(calibration, self.scored.where(here))
            if estimated is None:
                continue
            came_true = float(np.average(self.right[here], weights=self.scored.weights[here]))
            found.append(
                PastEstimate(
                    start=_moment(self.ts_us[part[0]]),
                    end=_moment(self.ts_us[part[-1]]),
                    estimated=estimated,
                    came_true=came_true,
                    held=estimated.holds(came_true),
                )
            )
        return found

    def _calibration(self, here: NDArray[np.bool_], rng: np.random.Generator) -> Calibration | None:
        if self.is_regression:
            return None
        return fit_calibration(self.scored.where(here), self.right[here], rng)

    def alarms(self, labelled: NDArray[np.bool_]) -> tuple[datetime, ...] | None:
        if self.is_regression:
            return None
        found = error_alarms((~self.right[labelled]).astype(float).tolist())
        times = self.ts_us[labelled]
        return None if found is None else tuple(_moment(times[at]) for at in found)


def floats(column: pa.ChunkedArray) -> Floats:
    values: Floats = pc.fill_null(pc.cast(column, pa.float64()), np.nan).to_numpy()
    return values


def codes_of(column: pa.ChunkedArray) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = column.combine_chunks().dictionary_encode().indices.to_numpy()
    return codes


def _moment(ts_us: Any) -> datetime:
    moment: datetime = pa.scalar(int(ts_us), pa.timestamp("us", tz="UTC")).as_py()
    return moment


def _matrix(column: pa.ChunkedArray, classes: int) -> Floats | None:
    """Return probabilities as (rows, classes); None where classes or any row's are unknown."""
    values = column.combine_chunks()
    if not classes or values.null_count or len(values) == 0:
        return None
    flat = values.flatten().to_numpy()
    if len(flat) != len(values) * classes:
        return None
    return np.asarray(flat.reshape(len(values), classes), dtype=np.float64)
