"""All comparisons of one experiment under one promise, with the check of its split."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from monitoring.analysis.compare.arms import (
    Arm,
    Unit,
    arms_for,
    split_arms,
    unequal_weights,
    unit_counts,
)
from monitoring.analysis.compare.judge import Comparison, compare, shares
from monitoring.analysis.compare.metrics import Metric
from monitoring.analysis.compare.split import SplitCheck, check_split
from monitoring.analysis.feedback import JoinCounts, join_outcomes

READ_COLUMNS = (
    "request_id", "row", "ts", "version", "variant", "status", "latency_ms", "label", "score",
    "user_id", "session_id", "weight",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is fixed before the first look; see docs/compare.md."""

    metrics: tuple[Metric, ...]
    alpha: float = 0.05
    plan_units: int = 10_000
    unit: Unit = "session"
    control: str | None = None
    split: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The interval as it stood at a moment; its verdict would have been as valid."""

    until: datetime
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A comparison now, and as it stood at earlier moments."""

    comparison: Comparison
    looks: tuple[Look, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """``split`` is None when it could not be checked, ``split_reason`` then says why."""

    control: str
    comparisons: tuple[Judged, ...]
    split: SplitCheck | None
    split_reason: str | None
    feedback: dict[str, JoinCounts]


def report(answers: pa.Table, feedback: pa.Table, plan: Plan, *, looks: int = 10) -> Report:
    """Compare every version with the control on every metric.

    ``answers`` have ``READ_COLUMNS``. The risk ``alpha`` is split over all versions but one and all
    metrics of the plan, with data or not. Raises ValueError when there is nothing to compare.
    """
    joined: dict[str, JoinCounts] = {}
    tables: dict[str | None, pa.Table] = {None: answers}
    for metric in plan.metrics:
        if metric.outcome is not None and metric.outcome not in tables:
            found = join_outcomes(answers, feedback, metric.outcome)
            tables[metric.outcome], joined[metric.outcome] = found.rows, found.counts
    arms = _ordered(split_arms(answers), plan.control)
    alpha = shares(plan.alpha, len(plan.metrics) * (len(arms) - 1))
    split, split_reason = _split(arms, plan)
    return Report(
        control=arms[0].name,
        comparisons=tuple(
            judged
            for metric in plan.metrics
            for judged in _judged(metric, tables[metric.outcome], plan, alpha, looks)
        ),
        split=split,
        split_reason=split_reason,
        feedback=joined,
    )


def _ordered(arms: Sequence[Arm], control: str | None) -> list[Arm]:
    if len(arms) < 2:
        found = "1 version" if arms else "no version"
        raise ValueError(f"{found} in the log at this time; 2 are needed")
    if control is None:
        return list(arms)
    names = [arm.name for arm in arms]
    if control not in names:
        raise ValueError(f"control is {control!r}; allowed: {', '.join(names)}")
    return sorted(arms, key=lambda arm: arm.name != control)


def _judged(
    metric: Metric, rows: pa.Table, plan: Plan, alpha: float, looks: int
) -> Sequence[Judged]:
    arms = _ordered(split_arms(rows), plan.control)
    times = _times(rows, looks)
    found = []
    for arm in arms[1:]:
        now = _at(metric, arms[0], arm, plan, alpha)
        if now is not None:
            found.append(
                Judged(
                    comparison=now,
                    looks=tuple(_looks(metric, (arms[0], arm), plan, alpha, times)),
                )
            )
    return found


def _at(
    metric: Metric, control: Arm, treatment: Arm, plan: Plan, alpha: float
) -> Comparison | None:
    arms = arms_for(metric, control, treatment, plan.unit)
    if arms is None:
        return None
    names = (control.name, treatment.name)
    return compare(metric.name, metric.better, names, arms, alpha=alpha, plan_units=plan.plan_units)


def _looks(
    metric: Metric,
    arms: tuple[Arm, Arm],
    plan: Plan,
    alpha: float,
    times: Sequence[datetime],
) -> Sequence[Look]:
    found = []
    for until in times:
        then = [replace(arm, rows=_before(arm.rows, until)) for arm in arms]
        comparison = _at(metric, then[0], then[1], plan, alpha)
        if comparison is not None and math.isfinite(comparison.difference):
            found.append(
                Look(
                    until=until,
                    difference=comparison.difference,
                    low=comparison.interval.low,
                    high=comparison.interval.high,
                )
            )
    return found


def _before(rows: pa.Table, until: datetime) -> pa.Table:
    return rows.filter(pc.less_equal(rows["ts"], pa.scalar(until, rows["ts"].type)))


def _times(rows: pa.Table, looks: int) -> list[datetime]:
    """Moments at which equal shares of the rows had been answered."""
    if looks < 1:
        return []
    ts = np.sort(rows["ts"].cast(pa.int64()).to_numpy())
    places = (np.arange(1, looks + 1) * len(ts) // looks) - 1
    moments = pa.array(np.unique(ts[np.maximum(places, 0)])).cast(rows["ts"].type)
    found: list[datetime] = moments.to_pylist()
    return found


def _split(arms: Sequence[Arm], plan: Plan) -> tuple[SplitCheck | None, str | None]:
    if plan.split is None:
        return None, "the intended shares were not given (--split)"
    if unequal_weights([arm for arm in arms if not arm.shadow]):
        return None, "rows have different weights: sampling changed the counts"
    return check_split(unit_counts(arms, plan.unit), plan.split), None
