"""Errors of drift detection.

MonitoringError
└── DriftError
    ├── BaselineUnusable    the training rows hold nothing a window could be compared with
    ├── SummaryMismatch     summaries of different baselines, or bytes that hold no summary
    └── WindowUnusable      the window lacks a column, or a column or weight cannot be read
"""

from monitoring.errors import MonitoringError


class DriftError(MonitoringError, ValueError):
    """Root of everything drift detection raises."""


class BaselineUnusable(DriftError):
    """The training rows hold nothing a window could be compared with."""


class SummaryMismatch(DriftError):
    """Summaries of two different baselines cannot be merged, or bytes hold no summary."""


class WindowUnusable(DriftError):
    """The window lacks a column of the baseline, or a column or weight cannot be read."""
