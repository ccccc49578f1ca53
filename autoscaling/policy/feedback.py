"""Correct the model by measured latency, but only when the model cannot explain it.

Requests that are late because capacity was short say nothing about the model: the shortage is being
dealt with, and old slow requests keep percentiles high long after. So only seconds count in which
the model expected few late requests and nothing was waiting. If then more are late than the
error budget allows by 3 standard deviations, the rate is corrected upwards by 5 %; without such
evidence the correction fades. The deviation is measured from second to second, since late requests
come in clusters. One direction only: a two-sided correction runs in circles.
"""

import math
from dataclasses import dataclass
from typing import Final

Z: Final = 3.0
STEP: Final = 1.05
HIGHEST: Final = 2.0
LEAST_REQUESTS: Final = 100.0
EVIDENCE_HALFLIFE_S: Final = 20.0
FADE_HALFLIFE_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackState:
    """The correction factor and decayed sums over honest seconds.

    ``done`` requests; ``excess`` of late ones over the error budget, and of its squares.
    """

    correction: float = 1.0
    done: float = 0.0
    excess: float = 0.0
    excess_sq: float = 0.0


def update(
    state: FeedbackState,
    done: float,
    late: float,
    error_budget: float,
    elapsed_s: float,
    *,
    honest: bool,
) -> FeedbackState:
    """Take in what was completed since the last look; ``honest``: the model saw enough capacity."""
    keep = 0.5 ** (elapsed_s / EVIDENCE_HALFLIFE_S)
    fade = 0.5 ** (elapsed_s / FADE_HALFLIFE_S)
    weight = 1.0 if honest else 0.0
    excess = late - error_budget * done
    seen = FeedbackState(
        correction=1.0 + (state.correction - 1.0) * fade,
        done=keep * state.done + weight * done,
        excess=keep * state.excess + weight * excess,
        excess_sq=keep * state.excess_sq + weight * excess * excess,
    )
    if seen.done < LEAST_REQUESTS or seen.excess <= Z * math.sqrt(seen.excess_sq):
        return seen
    return FeedbackState(correction=min(state.correction * STEP, HIGHEST))
