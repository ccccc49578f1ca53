"""One report of a window: every column, their associations, one alarm level for all of it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from monitoring.analysis.drift.association import PairDifferences, compare_association
from monitoring.analysis.drift.baseline import BaselineProfile
from monitoring.analysis.drift.columns import Kind, Role
from monitoring.analysis.drift.effects import Effect, EffectFloor, effect_of
from monitoring.analysis.drift.errors import SummaryMismatch
from monitoring.analysis.drift.marginals import Cause, ColumnTest, new_slots, test_columns
from monitoring.analysis.drift.summary import WEIGHT_UNIT, WindowSummary

Outcome = Literal["drift", "no drift", "not enough data"]

DEFAULT_ALPHA = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnReport:
    """Verdict on one column.

    ``p_value`` covers all its causes, ``q_value`` the whole report (Benjamini-Hochberg); both None
    without enough data. ``new_examples`` samples unseen categories with their rows.
    """

    name: str
    role: Role
    kind: Kind
    outcome: Outcome
    p_value: float | None
    q_value: float | None
    cause: Cause | None
    effect: Effect | None
    inflation: float
    new_examples: dict[str, int]

    @property
    def alarm(self) -> bool:
        return self.outcome == "drift"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReport:
    """The pair of columns whose correlation changed most, by p-value over all pairs."""

    first: str
    second: str
    baseline_correlation: float
    window_correlation: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MultivariateReport:
    outcome: Outcome
    p_value: float | None
    q_value: float | None
    pair: PairReport | None

    @property
    def alarm(self) -> bool:
        return self.outcome == "drift"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftReport:
    """Verdict on one window: at most ``alpha`` of the windows without drift raise an alarm.

    ``p_value`` is that of the whole report (Simes), None where nothing could be judged.
    """

    alpha: float
    rows: int
    effective_rows: float
    p_value: float | None
    columns: tuple[ColumnReport, ...]
    multivariate: MultivariateReport

    @property
    def alarm(self) -> bool:
        return self.multivariate.alarm or any(column.alarm for column in self.columns)

    @property
    def outcome(self) -> Outcome:
        if self.alarm:
            return "drift"
        return "not enough data" if self.p_value is None else "no drift"


def judge(
    profile: BaselineProfile,
    window: WindowSummary,
    *,
    alpha: float = DEFAULT_ALPHA,
    floor: EffectFloor | None = None,
) -> DriftReport:
    """Judge a window against its baseline.

    ``floor`` silences alarms whose effect is too small to care about. Raises SummaryMismatch for a
    window of another baseline.
    """
    if window.layout.identity != profile.layout.identity:
        raise SummaryMismatch(
            f"window is of baseline {window.layout.identity}, not {profile.layout.identity}"
        )
    tests = test_columns(profile, window)
    pairs = compare_association(profile.association, window) if profile.association else None
    together = _together(pairs)
    p_values = [*(test.p for test in tests), together]
    q_values = discovery_adjusted(p_values)
    columns = [
        _column_report(profile, window, index, test, q, alpha, floor or EffectFloor())
        for index, (test, q) in enumerate(zip(tests, q_values, strict=False))
    ]
    known = [(p, q) for p, q in zip(p_values, q_values, strict=True) if q is not None]
    first = window.layout.part(window.counts, 0).sum() / WEIGHT_UNIT
    squares = window.layout.part(window.squares, 0).sum() / WEIGHT_UNIT
    return DriftReport(
        alpha=alpha,
        rows=window.rows,
        effective_rows=float(first**2 / squares) if squares else 0.0,
        p_value=min(q for _, q in known) if known else None,
        columns=tuple(columns),
        multivariate=_multivariate_report(profile, pairs, together, q_values[-1], alpha),
    )


def discovery_adjusted(p_values: list[float | None]) -> list[float | None]:
    """Benjamini-Hochberg adjusted p-values; None stays None and costs nothing.

    The smallest of them is Simes' p-value of the whole report.

    >>> discovery_adjusted([0.01, None, 0.5])
    [0.02, None, 0.5]
    """
    known = [p for p in p_values if p is not None]
    adjusted = iter(stats.false_discovery_control(known) if known else [])
    return [None if p is None else float(next(adjusted)) for p in p_values]


def _together(pairs: PairDifferences | None) -> float | None:
    """Smallest p-value over pairs of columns, Bonferroni-adjusted."""
    if pairs is None or np.isnan(pairs.p).all():
        return None
    return min(1.0, float(np.nanmin(pairs.p)) * int((~np.isnan(pairs.p)).sum()))


def _column_report(
    profile: BaselineProfile,
    window: WindowSummary,
    index: int,
    test: ColumnTest,
    q: float | None,
    alpha: float,
    floor: EffectFloor,
) -> ColumnReport:
    layout, baseline = profile.layout, profile.columns[index]
    counts = layout.part(window.counts, index) / WEIGHT_UNIT
    effect = effect_of(baseline, counts, new_slots(layout.bins[index], baseline))
    outcome: Outcome = "no drift"
    if q is None:
        outcome = "not enough data"
    elif q <= alpha and effect is not None and floor.reached(effect):
        outcome = "drift"
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


def report_json(report: DriftReport) -> dict[str, Any]:
    """Give the report the shape that ``treeline drift --json`` prints."""
    from dataclasses import asdict

    return {
        "alarm": report.alarm,
        "alpha": report.alpha,
        "outcome": report.outcome,
        "rows": report.rows,
        "effective_rows": report.effective_rows,
        "p_value": report.p_value,
        "features": [
            {"name": column.name, "alarm": column.alarm} | asdict(column)
            for column in report.columns
        ],
        "multivariate": {"alarm": report.multivariate.alarm} | asdict(report.multivariate),
    }
