"""Data quality: how many missing, out-of-range and unseen values a feature may have. Pure.

Rules are learned from the bundle and can be edited there: under the optional key ``quality`` of
``manifest.json``, by feature, with the fields of ``Rule``; null turns one off. Types need no rule:
a request with a wrong one is refused before it is answered.
"""

import math
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from monitoring.live.figures import WindowFigures

Kind = Literal["missing", "outside", "unseen"]

KINDS: Final[tuple[Kind, ...]] = ("missing", "outside", "unseen")
ALLOWED: Final = 0.01  # of values that training did not have at all
MIN_EVENTS: Final = 30
Z: Final = 3.0  # a share at its limit is called above it in one window of 700


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Greatest shares of a feature's answered rows; None allows any."""

    missing: float | None = ALLOWED
    outside: float | None = ALLOWED
    unseen: float | None = ALLOWED

    def __post_init__(self) -> None:
        for kind in KINDS:
            limit = getattr(self, kind)
            if limit is not None and not 0.0 <= limit <= 1.0:
                raise ValueError(f"`quality` allows {kind} {limit}; allowed: 0 to 1, or null")


class Finding(msgspec.Struct, frozen=True):
    """``share`` of a window's answered rows, beside the ``limit`` of its rule."""

    feature: str
    kind: Kind
    share: float
    limit: float
    broken: bool


def learned(missing_share: float) -> Rule:
    """Return the rule of a feature from its share of missing values in training.

    >>> learned(0.25).missing
    0.51
    """
    return Rule(missing=min(1.0, 2.0 * missing_share + ALLOWED))


def findings(
    figures: WindowFigures, rules: Mapping[str, Rule], still_open: frozenset[tuple[str, str]]
) -> list[Finding]:
    """Hold a window against its rules; nothing below 30 events.

    A rule is broken where the share is above its limit beyond chance (Wilson's lower bound, the
    requests counted, not their rows), and stays so until the share is back within it.
    """
    if figures.events < MIN_EVENTS or not figures.rows:
        return []
    found = []
    for feature, counts in sorted(figures.features.items()):
        rule = rules.get(feature)
        for kind in KINDS if rule else ():
            limit = getattr(rule, kind)
            if limit is None:
                continue
            share = getattr(counts, kind) / figures.rows
            beyond = lower_bound(share, min(figures.events, figures.rows)) > limit
            known = (feature, kind) in still_open and share > limit
            found.append(Finding(feature, kind, share, limit, beyond or known))
    return found


def lower_bound(share: float, events: int) -> float:
    """Wilson's lower bound of a share.

    >>> round(lower_bound(0.1, 1_000), 3)
    0.075
    """
    centre = share + Z * Z / (2 * events)
    half = Z * math.sqrt(share * (1 - share) / events + (Z / (2 * events)) ** 2)
    return max(0.0, (centre - half) / (1 + Z * Z / events))
