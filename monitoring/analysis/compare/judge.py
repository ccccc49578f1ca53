"""Verdicts on versions: one confidence sequence per metric and challenger, one promise for all."""

import math
from dataclasses import dataclass
from typing import Literal

from monitoring.analysis.compare.effects import (
    Estimate,
    difference_of_arms,
    difference_of_pairs,
)
from monitoring.analysis.compare.moments import Moments
from monitoring.analysis.compare.sequences import EVERYTHING, Interval, Mixture

Better = Literal["higher", "lower", "neither"]
Verdict = Literal["better", "worse", "different", "undecided", "not_enough_data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """What one comparison needs: two arms, and for a shadow the pairs on the same requests."""

    control: Moments
    treatment: Moments
    pairs: Moments | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Treatment minus control. ``interval`` holds at all looks at once with 1 - ``alpha``.

    ``p_value`` is anytime-valid; ``reason`` says in words what stands behind the verdict.
    """

    metric: str
    control: str
    treatment: str
    paired: bool
    control_mean: float
    treatment_mean: float
    control_units: int
    treatment_units: int
    difference: float
    interval: Interval
    p_value: float
    alpha: float
    progress: float
    verdict: Verdict
    reason: str


def compare(
    metric: str,
    better: Better,
    names: tuple[str, str],
    arms: Arms,
    *,
    alpha: float,
    plan_units: int,
) -> Comparison:
    """Judge ``names[1]`` against ``names[0]``; ``alpha`` is this comparison's share of the risk."""
    paired = arms.pairs is not None
    estimate = (
        difference_of_arms(arms.control, arms.treatment, plan_units)
        if arms.pairs is None
        else difference_of_pairs(arms.pairs, plan_units)
    )
    interval, p_value = _sequence(estimate, alpha)
    verdict = _verdict(estimate, interval, better)
    return Comparison(
        metric=metric,
        control=names[0],
        treatment=names[1],
        paired=paired,
        control_mean=arms.control.mean,
        treatment_mean=arms.treatment.mean,
        control_units=arms.control.units,
        treatment_units=arms.treatment.units,
        difference=estimate.difference,
        interval=interval,
        p_value=p_value,
        alpha=alpha,
        progress=estimate.progress,
        verdict=verdict,
        reason=estimate.obstacle or _in_words(interval, better, verdict),
    )


def _sequence(estimate: Estimate, alpha: float) -> tuple[Interval, float]:
    if estimate.obstacle is not None:
        return EVERYTHING, 1.0
    mixture = Mixture(alpha=alpha)
    moment = (estimate.difference, estimate.standard_error, estimate.progress)
    return mixture.interval(*moment), mixture.p_value(*moment)


def _verdict(estimate: Estimate, interval: Interval, better: Better) -> Verdict:
    if estimate.obstacle is not None:
        return "not_enough_data"
    if not interval.excludes(0.0):
        return "undecided"
    match better:
        case "higher":
            return "better" if interval.low > 0.0 else "worse"
        case "lower":
            return "better" if interval.high < 0.0 else "worse"
        case "neither":
            return "different"


def _in_words(interval: Interval, better: Better, verdict: Verdict) -> str:
    span = f"{interval.low:+.4g} and {interval.high:+.4g}"
    if verdict == "undecided":
        return f"the difference lies between {span}, which includes no difference"
    wanted = "" if better == "neither" else f"; {better} is better"
    return f"the difference lies between {span}{wanted}"


def shares(alpha: float, comparisons: int) -> float:
    """Split the risk over all comparisons of a report (Bonferroni), so that one promise holds.

    >>> shares(0.05, 4)
    0.0125
    """
    return alpha / max(1, comparisons)


def is_finding(comparison: Comparison) -> bool:
    return comparison.verdict == "worse" and not math.isnan(comparison.difference)
