"""Whether a stream drifts, as state that windows move. Pure.

An alarm opens when the evidence of a stream reaches the budget's threshold (``budget``), and is
resolved when ``CALM_WINDOWS`` windows in a row look like training: a single one may by chance, and
drift that only adds up over windows hides from each of them.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from monitoring.analysis.drift.budget import AlarmBudget, Evidence, add_window

CALM_WINDOWS: Final = 2
CALM_P: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftState:
    """``judged_to_s`` is the end of the last window judged; ``calm`` counts calm windows since."""

    evidence: Evidence = field(default_factory=Evidence)
    open_since_s: float | None = None
    calm: int = 0
    judged_to_s: float = 0.0


def after_window(
    state: DriftState, p: float | None, end_s: float, budget: AlarmBudget
) -> DriftState:
    """Count a window in that ended at ``end_s``; without a p-value it only moves the time on.

    >>> budget = AlarmBudget(window_s=3600.0)
    >>> alarmed = after_window(DriftState(), 1e-9, 3600.0, budget)
    >>> alarmed.open_since_s, after_window(alarmed, 0.4, 7200.0, budget).open_since_s
    (3600.0, 3600.0)
    """
    evidence = add_window(state.evidence, p, budget)
    moved = replace(state, evidence=evidence, judged_to_s=end_s)
    if p is None:
        return moved
    if evidence.alarm:
        return replace(moved, open_since_s=state.open_since_s or end_s, calm=0)
    if state.open_since_s is None:
        return moved
    calm = state.calm + 1 if p > CALM_P else 0
    if calm >= CALM_WINDOWS:
        return replace(moved, open_since_s=None, calm=0)
    return replace(moved, calm=calm)
