"""Promote, roll back or wait: a written rule held against a comparison. Pure.

The rule is one of non-inferiority. *Harm* is by how much the version is worse than the control; its
interval is the comparison's own, so it holds at every look, and the rule may be asked as often as
one likes. A version is

- rolled back as soon as the harm on any metric is shown to be above that metric's margin,
- promoted when it is shown to be below the margin on every metric, with enough units,
- else left alone, and so it is while traffic does not arrive as it was split.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from monitoring.analysis.compare.judge import Comparison
from monitoring.analysis.compare.metrics import metric_named
from monitoring.analysis.compare.report import Report
from monitoring.analysis.compare.sequences import Interval

Action = Literal["promote", "rollback", "wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``margins`` by metric: harm up to this is accepted, in the metric's own unit.

    A margin of 0 asks for a version that is better, one below 0 for one that is better by so much.
    Raises ValueError for a metric of which neither direction is better.
    """

    version: str
    margins: Mapping[str, float]
    min_units: int

    def __post_init__(self) -> None:
        for name in self.margins:
            if metric_named(name).better == "neither":
                raise ValueError(f"metric {name!r} cannot decide: neither direction is better")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    action: Action
    reason: str


def decide(rule: Rule, found: Report) -> Decision:
    """Hold the rule against a report, whose risk is already split over its comparisons."""
    if found.split is not None and not found.split.ok:
        return _wait(f"traffic did not arrive as it was split (p = {found.split.p_value:.2g})")
    comparisons = {
        judged.comparison.metric: judged.comparison
        for judged in found.comparisons
        if judged.comparison.treatment == rule.version
    }
    open_questions = []
    for metric, margin in rule.margins.items():
        if metric not in comparisons:
            open_questions.append(f"{metric}: no comparison of {rule.version}")
            continue
        comparison = comparisons[metric]
        harm = harm_of(comparison)
        if harm.low > margin:
            return Decision(
                action="rollback",
                reason=f"{metric} is worse by {harm.low:.4g} or more; allowed: {margin:g}",
            )
        units = min(comparison.control_units, comparison.treatment_units)
        if units < rule.min_units:
            open_questions.append(f"{metric}: {units} units; {rule.min_units} are needed")
        elif not harm.high < margin:
            open_questions.append(f"{metric}: {_doubt(comparison, harm, margin)}")
    if open_questions:
        return _wait("; ".join(open_questions))
    within = ", ".join(f"{metric} within {margin:g}" for metric, margin in rule.margins.items())
    return Decision(action="promote", reason=f"no worse than allowed: {within}")


def harm_of(comparison: Comparison) -> Interval:
    """Return the interval of "worse by".

    Where neither arm has seen a single bad event there is no variance to make an interval of: then
    the version's rate is at most ``-ln(alpha) / units`` (the rule of three), and so is the harm.
    """
    interval = comparison.interval
    if metric_named(comparison.metric).better == "higher":
        return Interval(low=-interval.high, high=-interval.low)
    if comparison.control_mean == comparison.treatment_mean == 0.0:
        bound = -math.log(comparison.alpha) / max(1, comparison.treatment_units)
        return Interval(low=0.0, high=bound)
    return interval


def _doubt(comparison: Comparison, harm: Interval, margin: float) -> str:
    if comparison.verdict == "not_enough_data" and math.isinf(harm.high):
        return comparison.reason
    return f"worse by {harm.low:+.4g} to {harm.high:+.4g}; at most {margin:g} must be shown"


def _wait(reason: str) -> Decision:
    return Decision(action="wait", reason=reason)
