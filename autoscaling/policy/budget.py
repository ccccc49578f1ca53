"""Share a CPU budget among deployments that together want more than there is.

Each deployment's own decision says how many replicas it wants. When all fit, all get them. When
not, replicas go where a CPU avoids most: late requests per second, each weighed by what it is worth
there (``Config.price``). Late shares fall slowly while a deployment is hopelessly overloaded and
steeply just before it is not, so one replica more may look useless where three more help: what is
compared is the best number of further replicas, not the next one. This is the greedy rule for the
multiple-choice knapsack (Sinha & Zoltners 1979): optimal but for what the last grant leaves over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from autoscaling.policy import capacity
from autoscaling.policy.decide import Decision
from autoscaling.policy.types import Config

#: A replica that must be started first counts as so much dearer than one that serves already, so
#: that two deployments with the same need do not take replicas from each other back and forth.
START_SURCHARGE: Final = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one deployment wants, and what it suffers with less.

    ``burden[k]`` is the weighted number of late requests per second with ``least + k`` replicas,
    from its minimum up to what it wants; it never rises. ``serving`` replicas are there already,
    and each takes ``cpus``, above 0.
    """

    least: int
    burden: tuple[float, ...]
    cpus: float = 1.0
    serving: int = 0

    @property
    def wanted(self) -> int:
        return self.least + len(self.burden) - 1


def claim_of(decision: Decision, config: Config, *, cpus: float, serving: int) -> Claim:
    """Read a deployment's claim from its decision.

    Where the decision knows no rate it holds, and so does its claim: all of it is the minimum.
    """
    judged = decision.judgement
    least = min(config.min_replicas, decision.target)
    if not np.isfinite(judged.peak_rps) or not decision.state.service.known:
        return Claim(least=decision.target, burden=(0.0,), cpus=cpus, serving=serving)
    rps = judged.peak_rps * judged.correction
    counts = np.arange(max(least, 1), max(decision.target, 1) + 1)
    late = capacity.late_shares(
        decision.state.capacity, counts, np.array([rps]), judged.mean_service_ms / 1e3, config
    )[:, 0]
    burden = np.minimum.accumulate(config.price * rps * late).tolist()
    if least == 0:
        burden.insert(0, burden[0] + config.price * rps)
    burden = burden[: decision.target - least + 1]
    return Claim(least=least, burden=tuple(burden), cpus=cpus, serving=serving)


def divide(claims: Mapping[str, Claim], budget_cpus: float) -> dict[str, int]:
    """Return each deployment's replicas: at least its ``least``, at most what it wants.

    Within the budget, unless the minimums alone exceed it: they are granted in any case.
    """
    granted = {name: claim.least for name, claim in claims.items()}
    left = budget_cpus - sum(claim.least * claim.cpus for claim in claims.values())
    while True:
        offers = [
            (*offer, name)
            for name, claim in claims.items()
            if (offer := _best_offer(claim, granted[name], left)) is not None
        ]
        if not offers:
            return granted
        _, more, name = max(offers, key=lambda offer: offer[0])
        granted[name] += more
        left -= more * claims[name].cpus


def _best_offer(claim: Claim, granted: int, left_cpus: float) -> tuple[float, int] | None:
    """Return the most relief per CPU and the further replicas that give it; None if none fit."""
    affordable = int((left_cpus + 1e-9) // claim.cpus)
    burden: Sequence[float] = claim.burden[granted - claim.least :]
    best: tuple[float, int] | None = None
    for more in range(1, min(affordable, len(burden) - 1) + 1):
        new = max(granted + more - max(claim.serving, granted), 0)
        cost = claim.cpus * (more + (START_SURCHARGE - 1.0) * new)
        relief = (burden[0] - burden[more]) / cost
        if best is None or relief > best[0]:
            best = relief, more
    return best
