"""What will be sent and when, decided before the first request goes out.

A plan depends on its profile, mix and seed alone, so the same seed sends the same requests at the
same times whatever the server does: the loop stays open, and a slow answer delays no later request.
"""

import math
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from autoscaling.loadtest.errors import PlanInvalid
from autoscaling.loadtest.profile import Arrivals, FloatArray, RateProfile

# Every request keeps about 100 bytes until the report is written.
MAX_REQUESTS: Final = 5_000_000
MAX_ROWS: Final = 100_000
MAX_KINDS: Final = 8


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One size of request and its share of all requests; the shares of a mix add up to 1."""

    name: str
    rows: int
    weight: float


LIGHT_MEDIUM_HEAVY: Final = (
    Kind(name="light", rows=1, weight=0.70),
    Kind(name="medium", rows=100, weight=0.25),
    Kind(name="heavy", rows=2_000, weight=0.05),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Request ``i`` is of kind ``kinds[kind[i]]`` and goes out ``at_s[i]`` after the start.

    ``at_s`` ascends. Requests planned before ``warmup_s`` are sent and recorded, but not judged.
    """

    at_s: FloatArray
    kind: NDArray[np.uint8]
    kinds: tuple[Kind, ...]
    duration_s: float
    warmup_s: float

    def __len__(self) -> int:
        return len(self.at_s)


def make_plan(
    profile: RateProfile,
    kinds: tuple[Kind, ...] = LIGHT_MEDIUM_HEAVY,
    *,
    arrivals: Arrivals = "poisson",
    seed: int = 0,
    warmup_s: float = 0.0,
) -> Plan:
    """Draw times and kinds. Each has its own stream of chance, so a new mix keeps the times.

    Raises PlanInvalid when nothing would be sent, nothing would be judged, or too much.
    """
    if profile.expected_requests > MAX_REQUESTS:
        raise PlanInvalid(
            f"{profile.expected_requests:,.0f} requests are planned; at most {MAX_REQUESTS:,} are "
            "kept in one run: lower --rate, --scale or --duration"
        )
    if not 0 <= warmup_s < profile.duration_s:
        raise PlanInvalid(
            f"--warmup {warmup_s:g}: at least 0 and less than the run's "
            f"{profile.duration_s:g} seconds is needed"
        )
    for_times, for_kinds = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(2))
    at_s = profile.draw(arrivals, for_times)
    if not np.any(at_s >= warmup_s):
        raise PlanInvalid(
            f"no request falls into the {profile.duration_s - warmup_s:g} judged seconds "
            f"({profile.expected_requests:.3g} are expected in all): raise --rate or --duration"
        )
    kind = for_kinds.choice(len(kinds), size=len(at_s), p=[kind.weight for kind in kinds])
    return Plan(
        at_s=at_s,
        kind=kind.astype(np.uint8),
        kinds=kinds,
        duration_s=profile.duration_s,
        warmup_s=warmup_s,
    )


def parse_mix(weights: str, rows: str) -> tuple[Kind, ...]:
    """Read two comma-separated lists of the same length; weights count relative to their sum.

    >>> [(kind.name, kind.rows, kind.weight) for kind in parse_mix("3, 1", "1, 50")]
    [('1-row', 1, 0.75), ('50-row', 50, 0.25)]
    >>> [kind.name for kind in parse_mix("7,2,1", "1,100,2000")]
    ['light', 'medium', 'heavy']
    """
    shares = [_weight(part, weights) for part in weights.split(",")]
    sizes = [_size(part, rows) for part in rows.split(",")]
    if len(shares) != len(sizes) or len(sizes) > MAX_KINDS:
        raise PlanInvalid(
            f"--mix {weights!r} has {len(shares)} weights and --rows {rows!r} {len(sizes)} sizes: "
            f"equally many are needed, at most {MAX_KINDS}"
        )
    if len(set(sizes)) != len(sizes):
        raise PlanInvalid(f"--rows {rows!r}: each size only once")
    total = math.fsum(shares)
    if not (math.isfinite(total) and total > 0):
        raise PlanInvalid(f"--mix {weights!r}: at least one weight must be above 0")
    names = ("light", "medium", "heavy") if len(sizes) == 3 else tuple(f"{n}-row" for n in sizes)
    return tuple(
        Kind(name=name, rows=size, weight=share / total)
        for name, size, share in zip(names, sizes, shares, strict=True)
    )


def _weight(part: str, given: str) -> float:
    try:
        weight = float(part)
    except ValueError:
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise PlanInvalid(f"--mix {given!r}: {part.strip()!r} is no number of at least 0")
    return weight


def _size(part: str, given: str) -> int:
    size = int(part) if part.strip().isdecimal() else 0
    if not 1 <= size <= MAX_ROWS:
        raise PlanInvalid(f"--rows {given!r}: {part.strip()!r} is no number from 1 to {MAX_ROWS:,}")
    return size
