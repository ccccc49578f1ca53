"""Tell whether a window of traffic still looks like the training rows, and how sure that is.

``fit_baseline`` measures the training rows once, ``WindowSummary`` counts a window in constant
memory, ``judge`` compares the two. See docs/drift.md for what is tested and what is promised.
"""

from monitoring.analysis.drift.baseline import BaselineProfile, fit_baseline
from monitoring.analysis.drift.effects import Effect, EffectFloor
from monitoring.analysis.drift.judge import judge
from monitoring.analysis.drift.report import DriftReport, report_json
from monitoring.analysis.drift.summary import WindowSummary, merged

__all__ = [
    "BaselineProfile",
    "DriftReport",
    "Effect",
    "EffectFloor",
    "WindowSummary",
    "fit_baseline",
    "judge",
    "merged",
    "report_json",
]
