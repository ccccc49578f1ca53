"""Errors of the monitoring side.

MonitoringError
├── DeliveryRejected      the agent will not take a delivery, now or ever
├── FrameCorrupt          a stored frame fails its checksum or is cut short
├── MaskingPolicyInvalid  a masking policy names what does not exist
└── SinkUnavailable       storage refused or did not answer
"""


class MonitoringError(Exception):
    """Root of everything this package raises."""


def in_words(error: Exception) -> str:
    """Say what went wrong with a file or folder that the sentence around it names already.

    >>> in_words(FileNotFoundError(2, "No such file or directory", "sink")), in_words(OSError("no"))
    ('it is not there', "OSError('no')")
    """
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    return (isinstance(error, OSError) and error.strerror) or repr(error)


class DeliveryRejected(MonitoringError):
    """The agent refuses a delivery for good; sending it again cannot help."""


class FrameCorrupt(MonitoringError):
    """A frame in a journal or spool fails its checksum or is cut short."""


class MaskingPolicyInvalid(MonitoringError, ValueError):
    """A masking policy names an unknown field or asks for an impossible action."""


class SinkUnavailable(MonitoringError):
    """Storage refused a write or did not answer; the write may be retried."""
