"""Errors of the load tester, all below the package's AutoscalingError.

LoadTestError
├── PlanInvalid         a rate, trace, mix or duration no plan can be made from
├── TargetInvalid       an address, limit or objective nothing can be sent to or judged by
├── TargetUnreachable   nothing takes connections at the address
├── BodyInvalid         the sample body has no rows to make requests from
├── ResultInvalid       a saved result is missing, damaged or of another format
├── ResultUnwritable    the folder for the results cannot be made
└── ReportUnavailable   the extra that draws the pictures is not installed
"""

from autoscaling.errors import AutoscalingError, MissingExtra


class LoadTestError(AutoscalingError):
    """Root of everything the load tester raises."""


class PlanInvalid(LoadTestError, ValueError):
    """A rate, trace, mix or duration from which no plan can be made."""


class TargetInvalid(LoadTestError, ValueError):
    """An address, a limit or an objective is out of range."""


class TargetUnreachable(LoadTestError):
    """Nothing takes connections at the address: there is nothing to measure."""


class BodyInvalid(LoadTestError, ValueError):
    """The sample body is no JSON object with a list of rows under ``instances``."""


class ResultInvalid(LoadTestError):
    """A saved result cannot be read, or was written in another format."""


class ResultUnwritable(LoadTestError):
    """The folder for the results cannot be made."""


class ReportUnavailable(LoadTestError, MissingExtra):
    """matplotlib or jinja2 is missing: they come with the extra ``report``."""
