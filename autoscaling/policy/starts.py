"""How long replicas take to start, and which ones are on their way."""

import math
from dataclasses import dataclass
from typing import Final

KEPT: Final = 64
#: Starts take longer than most: plan for all but one in ten.
LATE_START: Final = 0.9
#: A start that takes this many times the usual counts as stuck.
STUCK_FACTOR: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartsState:
    """Measured durations, newest last, and open orders as (ordered at, replicas), oldest first."""

    measured_s: tuple[float, ...] = ()
    orders: tuple[tuple[float, int], ...] = ()


def observe(
    state: StartsState,
    measured_s: tuple[float, ...],
    *,
    starting: int,
    ordered: int,
    ordered_s: float,
) -> StartsState:
    """Take in durations of starts that ended and what was ordered since the last observation.

    The newest orders are those still open, as many as ``starting``.
    """
    good = tuple(s for s in measured_s if math.isfinite(s) and 0 <= s < 3600)
    orders = (*state.orders, (ordered_s, ordered))[-KEPT:] if ordered > 0 else state.orders
    open_orders: list[tuple[float, int]] = []
    left = starting
    for at_s, count in reversed(orders):
        if left <= 0:
            break
        open_orders.append((at_s, min(count, left)))
        left -= count
    return StartsState(
        measured_s=(*state.measured_s, *good)[-KEPT:], orders=tuple(reversed(open_orders))
    )


def cold_start_s(state: StartsState, prior_s: float) -> float:
    """Time by which nine of ten starts are over; the prior until one was measured."""
    if not state.measured_s:
        return prior_s
    ranked = sorted(state.measured_s)
    return ranked[min(math.ceil(LATE_START * len(ranked)), len(ranked)) - 1]


def stuck(state: StartsState, usual_s: float, now_s: float) -> tuple[int, float]:
    """Replicas whose start takes too long to be believed in, and the age of the oldest order."""
    limit_s = STUCK_FACTOR * max(usual_s, 5.0)
    late = [(now_s - at_s, count) for at_s, count in state.orders if now_s - at_s > limit_s]
    return sum(count for _, count in late), max((age for age, _ in late), default=0.0)
