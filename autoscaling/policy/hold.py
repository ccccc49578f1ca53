"""How long to wait before going down: the hold whose past would have cost least.

The target is the highest need of the last W seconds. For each of a few W, the target it would have
given is kept, the replicas that would have served (a start takes a cold start, a stop nothing), and
how many requests would have been late with them. The W with the least mean fleet plus price times
late share, decayed over 15 minutes, is used.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Candidate holds in cold-start horizons; the longest covers load that comes back regularly.
HORIZONS: Final = (1.5, 4.0, 12.0, 40.0)
NEEDS_KEPT: Final = 600
KEPT: Final = 0.5 ** (1.0 / 900.0)
USUAL: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldState:
    """Needs of the last seconds, and per candidate: recent targets, decayed fleet and late rate."""

    needs: NDArray[np.int64] = field(default_factory=lambda: np.zeros(NEEDS_KEPT, np.int64))
    targets: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((len(HORIZONS), 128), np.int64)
    )
    fleet: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(HORIZONS)))
    late_rps: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(HORIZONS)))
    rps: float = 0.0


def windows_s(horizon_s: int) -> list[int]:
    """Candidate holds in seconds."""
    return [min(max(round(h * horizon_s), 1), NEEDS_KEPT) for h in HORIZONS]


def served(state: HoldState, horizon_s: int) -> NDArray[np.int64]:
    """Replicas that would have served just now under each candidate; at least 1."""
    return np.asarray(np.maximum(state.targets[:, -min(horizon_s, 128) :].min(axis=1), 1))


def judge(
    state: HoldState, need: int, rps: float, late_shares: NDArray[np.float64], horizon_s: int
) -> HoldState:
    """Take in this second's need, rate and the late share of each candidate's replicas."""
    needs = np.append(state.needs[1:], need)
    wanted = np.array([[needs[-w:].max()] for w in windows_s(horizon_s)])
    targets = np.concatenate([state.targets[:, 1:], wanted], axis=1)
    new = 1.0 - KEPT
    return HoldState(
        needs=needs,
        targets=targets,
        fleet=KEPT * state.fleet + new * targets[:, -1],
        late_rps=KEPT * state.late_rps + new * rps * np.minimum(late_shares, 1.0),
        rps=KEPT * state.rps + new * rps,
    )


def best_window_s(state: HoldState, price: float, horizon_s: int) -> int:
    """Return the hold in seconds that would have cost least."""
    if state.rps <= 0 or state.fleet.min() <= 0:
        return windows_s(horizon_s)[USUAL]
    cost = state.fleet / state.fleet.min() + price * state.late_rps / state.rps
    return windows_s(horizon_s)[int(np.argmin(cost))]
