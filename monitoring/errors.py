"""Errors of the monitoring side.

MonitoringError
├── DeliveryRejected      the agent will not take a delivery, now or ever
├── FrameCorrupt          a stored frame fails its checksum or is cut short
├── MaskingPolicyInvalid  a masking policy names what does not exist
└── SinkUnavailable       storage refused or did not answer
"""


class MonitoringError(Exception):
    """Root of everything this package raises."""


class DeliveryRejected(MonitoringError):
    """The agent refuses a delivery for good; sending it again cannot help."""


class FrameCorrupt(MonitoringError):
    """A frame in a journal or spool fails its checksum or is cut short."""


class MaskingPolicyInvalid(MonitoringError, ValueError):
    """A masking policy names an unknown field or asks for an impossible action."""


class SinkUnavailable(MonitoringError):
    """Storage refused a write or did not answer; the write may be retried."""
