"""Did traffic arrive in the shares it was split by? Checked so that looking often stays honest.

A sample-ratio mismatch (a broken split, a version that loses requests or their log) makes every
comparison void, however small its p-value. The test is the Dirichlet-multinomial mixture of Lindon
and Malek 2022, "Anytime-valid inference for multinomial count data": an e-value, exact at any size.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import gammaln

CONCENTRATION: Final = 100.0  # of the mixture around the intended shares: a few points off
ALPHA: Final = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCheck:
    """``p_value`` is anytime-valid at this look; ``ok`` is False below ``ALPHA``."""

    expected: dict[str, float]
    counts: dict[str, int]
    p_value: float
    ok: bool


def check_split(counts: Mapping[str, int], shares: Mapping[str, float]) -> SplitCheck:
    """Hold units per arm against intended shares, which are scaled to a sum of one.

    Raises ValueError when a share is not above 0 or an arm has no share.
    """
    unknown = sorted(counts.keys() - shares.keys())
    if unknown:
        raise ValueError(f"split: no share given for {', '.join(unknown)}")
    if not all(share > 0.0 and math.isfinite(share) for share in shares.values()):
        raise ValueError(f"split: shares are {dict(shares)}; allowed: above 0")
    names = sorted(shares)
    total = sum(shares.values())
    expected = np.array([shares[name] / total for name in names])
    observed = np.array([counts.get(name, 0) for name in names], dtype=float)
    p_value = math.exp(-max(0.0, log_evidence(observed, expected)))
    return SplitCheck(
        expected=dict(zip(names, expected.tolist(), strict=True)),
        counts={name: counts.get(name, 0) for name in names},
        p_value=p_value,
        ok=p_value >= ALPHA,
    )


def log_evidence(
    counts: np.ndarray[tuple[int], np.dtype[np.float64]],
    expected: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> float:
    """Log of the mixture's likelihood over that of the intended shares."""
    prior = CONCENTRATION * expected
    after = prior + counts
    mixture = gammaln(after).sum() - gammaln(after.sum())
    mixture -= gammaln(prior).sum() - gammaln(prior.sum())
    return float(mixture - counts @ np.log(expected))
