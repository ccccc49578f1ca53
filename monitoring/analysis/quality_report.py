"""A version's state of health over a window: labels, figures, concept, estimate, clicks. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from monitoring.analysis.concept import Change
from monitoring.analysis.degradation import Judged, against_training, reasons_to_retrain
from monitoring.analysis.estimate import Estimate
from monitoring.analysis.facts import Facts, PastEstimate, codes_of, floats
from monitoring.analysis.feedback import DELAY, NUMBER, OUTCOME, JoinCounts, join_outcomes
from monitoring.analysis.maturity import Maturity, label_maturity
from monitoring.analysis.quality import Measure, proportion

READ_COLUMNS: Final = (
    "request_id", "row", "ts", "version", "variant", "status", "label", "score", "probabilities",
    "weight",
)  # fmt: skip
ANSWERED: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a bundle says of its version; empty where there is no bundle at hand."""

    classes: tuple[str, ...] = ()
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionQuality:
    """One version in one window. Figures stand on the labels so far: see ``maturity``.

    ``concept`` compares the window's labels with those before it. ``error_alarms`` are moments at
    which ADWIN saw the errors' level change, None where river is not installed.
    """

    version: str
    rows: int
    start: datetime | None
    end: datetime | None
    feedback: JoinCounts
    maturity: Maturity
    measures: tuple[Judged, ...]
    concept: Change | None
    error_alarms: tuple[datetime, ...] | None
    estimate: Estimate
    past_estimates: tuple[PastEstimate, ...]
    click_rate: Measure | None
    needs_retraining: bool
    reasons: tuple[str, ...]


def version_quality(
    rows: pa.Table,
    feedback: pa.Table,
    trained: Trained,
    *,
    start: datetime | None,
    now: datetime,
    seed: int = 0,
) -> VersionQuality:
    """Describe a version from its answered rows: those from ``start`` on, and history before.

    ``rows`` have ``READ_COLUMNS``, one version. ``seed`` fixes the bootstraps.
    """
    rng = np.random.default_rng(seed)
    rows = rows.filter(pc.equal(rows["status"], ANSWERED)).sort_by("ts")
    joined = join_outcomes(rows, feedback, "label")
    facts = Facts.of(joined.rows, trained.classes)
    inside = _since(joined.rows, start)
    window = joined.rows.filter(pa.array(inside))
    labelled = facts.labelled & inside
    measures = against_training(facts.measures(labelled, rng), trained.metrics, int(labelled.sum()))
    concept = facts.concept(labelled, inside, rng) if start is not None else None
    estimated, past = facts.estimates(inside, rng)
    reasons = reasons_to_retrain(measures)
    if concept is not None and concept.changed:
        reasons.append(
            f"labels given scores changed: accuracy {concept.expected:.3f} was to be expected, "
            f"{concept.came_true:.3f} came true (p = {concept.p_value:.2g})"
        )
    return VersionQuality(
        version=rows["version"][0].as_py() if rows.num_rows else "",
        rows=window.num_rows,
        start=pc.min(window["ts"]).as_py(),
        end=pc.max(window["ts"]).as_py(),
        feedback=joined.counts,
        maturity=_maturity(window, now),
        measures=tuple(measures),
        concept=concept,
        error_alarms=facts.alarms(labelled),
        estimate=estimated,
        past_estimates=tuple(past),
        click_rate=_click_rate(window, feedback),
        needs_retraining=bool(reasons),
        reasons=tuple(reasons),
    )


def _since(rows: pa.Table, start: datetime | None) -> NDArray[np.bool_]:
    if start is None:
        return np.ones(rows.num_rows, dtype=bool)
    bound = pa.scalar(start, rows["ts"].type)
    inside: NDArray[np.bool_] = pc.greater_equal(rows["ts"], bound).to_numpy()
    return inside


def _maturity(window: pa.Table, now: datetime) -> Maturity:
    age_us = int(now.timestamp() * 1e6) - window["ts"].cast(pa.int64()).to_numpy()
    return label_maturity(age_us / 1e6, floats(window[DELAY]), window["weight"].to_numpy())


def _click_rate(window: pa.Table, feedback: pa.Table) -> Measure | None:
    """Return the share of shown answers that were clicked; None where nobody ever clicks."""
    shown = window.filter(pc.not_equal(window["variant"], "shadow"))
    joined = join_outcomes(shown.drop_columns([OUTCOME, NUMBER, DELAY]), feedback, "click")
    if joined.counts.used == 0:
        return None
    hits = (np.nan_to_num(floats(joined.rows[NUMBER])) > 0.0).astype(float)
    units = codes_of(joined.rows["request_id"])
    return proportion("click_rate", hits, joined.rows["weight"].to_numpy(), units)
