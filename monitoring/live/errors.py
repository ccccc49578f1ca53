"""Errors of the live figures.

MonitoringError
└── LiveError
    ├── CountedElsewhere  another process has counted a segment further meanwhile
    ├── LiveUnavailable   the process that counts is not there
    │   └── TimedOut      it is there, and did not answer in time
    └── WebhookFailed     an alert could not be handed to its webhook
"""

from monitoring.errors import MonitoringError


class LiveError(MonitoringError):
    """Root of what counting and judging live traffic raises."""


class CountedElsewhere(LiveError):
    """Another process has counted this segment further meanwhile: read again from there."""


class LiveUnavailable(LiveError):
    """The process that counts is not there, or did not answer in time; ask again."""


class TimedOut(LiveUnavailable):
    """The process that counts did not answer in time: it may hang."""


class WebhookFailed(LiveError):
    """An alert could not be handed to its webhook; it may be sent again. Shows no URL."""
