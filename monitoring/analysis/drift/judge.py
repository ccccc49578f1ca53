"""One report of a window: every column, their associations, one alarm level for all of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import scipy

from monitoring.analysis.drift.association import PairDifferences, compare_association
from monitoring.analysis.drift.baseline import BaselineProfile
from monitoring.analysis.drift.dependence import Cycles
from monitoring.analysis.drift.effects import EffectFloor, effect_of
from monitoring.analysis.drift.errors import SummaryMismatch
from monitoring.analysis.drift.marginals import ColumnTest, compare_columns, new_slots
from monitoring.analysis.drift.report import (
    ColumnReport,
    DriftReport,
    MultivariateReport,
    Outcome,
    PairReport,
)
from monitoring.analysis.drift.summary import WEIGHT_UNIT, WindowSummary

DEFAULT_ALPHA: Final = 0.01
# The correlations' share of the level beside a column's: a change of a correlation that matters is
# many standard errors, and hardly notices.
ASSOCIATION_WEIGHT: Final = 0.25


def judge(
    profile: BaselineProfile,
    window: WindowSummary,
    *,
    alpha: float = DEFAULT_ALPHA,
    floor: EffectFloor | None = None,
    cycles: Cycles = "drift",
) -> DriftReport:
    """Judge a window against its baseline.

    ``floor`` silences alarms whose effect is too small to care about. ``cycles`` says what a window
    is that shows part of a cycle of the baseline (a season of a year): drift, since it differs from
    the baseline as a whole, or expected, since the baseline has blocks like it. Raises
    SummaryMismatch for a window of another baseline.
    """
    if window.layout.identity != profile.layout.identity:
        raise SummaryMismatch(
            f"window is of baseline {window.layout.identity}, not {profile.layout.identity}"
        )
    tests = compare_columns(profile, window, cycles)
    association = profile.association
    pairs = compare_association(association, window, cycles) if association else None
    together = _together(pairs)
    p_values = [*(test.p for test in tests), together]
    q_values = discovery_adjusted(p_values, [*(1.0 for _ in tests), ASSOCIATION_WEIGHT])
    columns = []
    for index, (test, q) in enumerate(zip(tests, q_values, strict=False)):
        column = _column_report(profile, window, index, test, q)
        moved = column.effect is not None and (floor or EffectFloor()).reached(column.effect)
        drift = q is not None and q <= alpha and moved
        columns.append(replace(column, outcome="drift") if drift else column)
    known = [q for q in q_values if q is not None]
    first = window.layout.part(window.counts, 0).sum() / WEIGHT_UNIT
    squares = window.layout.part(window.squares, 0).sum() / WEIGHT_UNIT
    return DriftReport(
        alpha=alpha,
        rows=window.rows,
        effective_rows=float(first**2 / squares) if squares else 0.0,
        p_value=min(known) if known else None,
        columns=tuple(columns),
        multivariate=_multivariate_report(profile, pairs, together, q_values[-1], alpha),
    )


def discovery_adjusted(
    p_values: Sequence[float | None], weights: Sequence[float]
) -> list[float | None]:
    """Benjamini-Hochberg adjusted p-values; None stays None and costs nothing.

    ``weights`` share the level out, only their ratios count (Genovese, Roeder and Wasserman,
    Biometrika 2006). The smallest of them is Simes' p-value of the whole report.

    >>> discovery_adjusted([0.01, None, 0.5], [1, 1, 1])
    [0.02, None, 0.5]
    >>> discovery_adjusted([0.03, 0.25], [3, 1])
    [0.04, 0.5]
    """
    tested = [index for index, p in enumerate(p_values) if p is not None]
    found: list[float | None] = [None] * len(p_values)
    if not tested:
        return found
    weight = np.array([weights[index] for index in tested])
    p = np.array([p_values[index] for index in tested], np.float64)
    adjusted = scipy.stats.false_discovery_control(np.minimum(p * weight.mean() / weight, 1.0))
    for index, q in zip(tested, adjusted, strict=True):
        found[index] = float(q)
    return found


def _together(pairs: PairDifferences | None) -> float | None:
    """Smallest p-value over pairs of columns, Bonferroni-adjusted."""
    if pairs is None or np.isnan(pairs.p).all():
        return None
    return min(1.0, float(np.nanmin(pairs.p)) * int((~np.isnan(pairs.p)).sum()))


def _column_report(
    profile: BaselineProfile, window: WindowSummary, index: int, test: ColumnTest, q: float | None
) -> ColumnReport:
    """Report a column without an alarm."""
    layout, baseline = profile.layout, profile.columns[index]
    counts = layout.part(window.counts, index) / WEIGHT_UNIT
    effect = effect_of(baseline, counts, new_slots(layout.bins[index], baseline))
    outcome: Outcome = "not enough data" if q is None else "no drift"
    column = layout.columns[index]
    return ColumnReport(
        name=column.name,
        role=column.role,
        kind=column.kind,
        outcome=outcome,
        p_value=test.p,
        q_value=q,
        cause=test.cause,
        effect=effect,
        inflation=test.inflation,
        new_examples=dict(window.unseen.get(index, {})),
    )


def _multivariate_report(
    profile: BaselineProfile,
    pairs: PairDifferences | None,
    p: float | None,
    q: float | None,
    alpha: float,
) -> MultivariateReport:
    if pairs is None or p is None or q is None:
        return MultivariateReport(outcome="not enough data", p_value=None, q_value=None, pair=None)
    most = int(np.nanargmin(pairs.p))
    names = [column.name for column in profile.layout.columns]
    return MultivariateReport(
        outcome="drift" if q <= alpha else "no drift",
        p_value=p,
        q_value=q,
        pair=PairReport(
            first=names[pairs.first[most]],
            second=names[pairs.second[most]],
            baseline_correlation=float(pairs.baseline_r[most]),
            window_correlation=float(pairs.window_r[most]),
        ),
    )
