"""From two arms, or from pairs, to an estimate of their difference and how far it goes. Pure."""

import math
from dataclasses import dataclass
from typing import Final

from monitoring.analysis.compare.moments import PRIOR_UNITS, Moments
from monitoring.analysis.compare.sequences import MIN_UNITS

# Skewness of the estimate's own distribution up to which its tails pass for normal ones. Measured:
# a 1% rate split 90:10 falsely excludes zero in 16% of runs without this bound, in 2.4% with it.
MAX_SKEW: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A difference. ``progress`` is the information gathered over that of the plan.

    ``obstacle`` says why it is no basis for a verdict yet, or is None.
    """

    difference: float
    standard_error: float
    progress: float
    obstacle: str | None = None


def difference_of_arms(control: Moments, treatment: Moments, plan_units: int) -> Estimate:
    """Estimate treatment minus control; ``plan_units`` is the planned size of each arm.

    Either arm's variance is shrunk towards the common one, by the weight of ``PRIOR_UNITS``.
    """
    arms = (control, treatment)
    smallest = min(arm.units for arm in arms)
    if smallest < MIN_UNITS:
        return _nothing(f"{smallest} units in the smaller arm; {MIN_UNITS} are needed")
    total = control.units + treatment.units
    common = sum(arm.squares for arm in arms) / (total - len(arms))
    if common <= 0.0:
        return _nothing("all values are the same")
    variances = [
        (arm.squares + PRIOR_UNITS * common) / (arm.units - 1 + PRIOR_UNITS) for arm in arms
    ]
    squared_error = sum(v / arm.units for v, arm in zip(variances, arms, strict=True))
    third = sum(arm.cubes for arm in arms) / total
    lopsided = 1 / treatment.units**2 - 1 / control.units**2
    plain_error = common * (1 / treatment.units + 1 / control.units)
    return Estimate(
        difference=treatment.mean - control.mean,
        standard_error=math.sqrt(squared_error),
        progress=sum(variances) / (squared_error * plan_units),
        obstacle=_skewed(third * lopsided / plain_error**1.5),
    )


def difference_of_pairs(pairs: Moments, plan_units: int) -> Estimate:
    """Estimate the mean of paired differences (shadow minus control, the same requests)."""
    if pairs.units < MIN_UNITS:
        return _nothing(f"{pairs.units} paired units; {MIN_UNITS} are needed")
    if pairs.squares <= 0.0:
        return _nothing("all differences are the same")
    variance = pairs.squares / (pairs.units - 1)
    skew = pairs.cubes / pairs.units / variance**1.5 / math.sqrt(pairs.units)
    return Estimate(
        difference=pairs.mean,
        standard_error=math.sqrt(variance / pairs.units),
        progress=pairs.units / plan_units,
        obstacle=_skewed(skew),
    )


def _nothing(obstacle: str) -> Estimate:
    return Estimate(difference=math.nan, standard_error=math.nan, progress=0.0, obstacle=obstacle)


def _skewed(skew: float) -> str | None:
    if abs(skew) <= MAX_SKEW:
        return None
    return f"too skewed for its size: the estimate's skewness is {skew:.2f}, at most {MAX_SKEW}"
