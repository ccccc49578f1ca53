"""Errors of this package.

AutoscalingError
├── ConfigError      a setting is out of range; names the key, the value and what is allowed
├── TraceError       a trace cannot be read; names the file and the line
└── MissingExtra     an optional dependency is needed; names the extra to install
"""


def in_words(error: Exception) -> str:
    """Say what went wrong with a file that the sentence around it names already.

    >>> in_words(FileNotFoundError(2, "No such file or directory", "trace.csv"))
    'No such file or directory'
    """
    return (isinstance(error, OSError) and error.strerror) or str(error)


class AutoscalingError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(AutoscalingError, ValueError):
    """A setting is out of range."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key} = {value!r} is not allowed: {allowed}")
        self.key = key


class TraceError(AutoscalingError, ValueError):
    """A trace file cannot be used."""


class MissingExtra(AutoscalingError, ImportError):
    """An optional dependency is not installed."""
