"""What a judged window is reported as."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from monitoring.analysis.drift.columns import Kind, Role
from monitoring.analysis.drift.effects import Effect
from monitoring.analysis.drift.marginals import Cause

Outcome = Literal["drift", "no drift", "not enough data"]


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


def report_json(report: DriftReport) -> dict[str, Any]:
    """Give the report the shape that ``treeline drift --json`` prints."""
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
