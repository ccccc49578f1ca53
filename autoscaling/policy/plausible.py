"""Read an observation with suspicion: what cannot be true becomes the safest thing it could be.

Reports of replicas are judged one by one in ``telemetry``; here are the numbers around them.
"""

import math
from dataclasses import replace
from typing import Any

from autoscaling.policy.types import Config, Observation


def plausible(observation: Observation, config: Config) -> Observation:
    """Return the observation with whole, bounded counts and a clock that is a number or NaN.

    An unknown target is taken from what runs; an unknown number of running replicas is none. More
    than twice the bound may not count as capacity.
    """
    highest = 2 * config.max_replicas
    running = _count(observation.running, 0, highest)
    return replace(
        observation,
        now_s=_number(observation.now_s),
        target=_count(observation.target, max(running, config.min_replicas), highest),
        running=running,
        router_queued=_number(observation.router_queued),
        startups_s=tuple(_number(s) for s in observation.startups_s),
    )


def _number(value: Any) -> float:
    """Return a float; NaN for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _count(value: Any, unknown: int, highest: int) -> int:
    number = _number(value)
    return unknown if math.isnan(number) else int(min(max(number, 0.0), highest))
