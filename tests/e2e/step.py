"""What a load test of a step in demand shows, in seconds after the step."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from autoscaling.loadtest.scaling import Decision
from autoscaling.loadtest.store import REQUESTS, load


@dataclass(frozen=True, kw_only=True)
class Step:
    """``ordered_s``: when the target was highest. ``serving_s``: when all of them served.

    ``p95_back_s``: from this second on, 95 of 100 requests that arrived in any second were answered
    in time. ``done_p95_back_s``: the same for those *answered* in any second, old ones among them.
    """

    ordered_s: float
    serving_s: float
    p95_back_s: float
    done_p95_back_s: float

    @classmethod
    def measure(cls, folder: Path, *, at_s: float, until_s: float, slo_ms: float) -> Self:
        """Look at a recorded run between the step, ``at_s`` on its own clock, and ``until_s``."""
        requests, decisions = read_run(folder)
        seen = [each for each in decisions if at_s <= each.ts < until_s]
        highest = max(each.target for each in seen)
        planned = requests["planned_s"]
        during = requests[(planned >= at_s) & (planned < until_s)]
        return cls(
            ordered_s=next(each.ts for each in seen if each.target == highest) - at_s,
            serving_s=next(each.ts for each in seen if each.running == highest) - at_s,
            p95_back_s=_back(during, during["planned_s"], slo_ms) - at_s,
            done_p95_back_s=_back(during, during["done_s"], slo_ms) - at_s,
        )


def read_run(folder: Path) -> tuple[pd.DataFrame, list[Decision]]:
    """Requests with ``planned_s`` and ``done_s``, and decisions, on the run's own clock."""
    result = load(folder)
    start_s = datetime.fromisoformat(result.started_at).timestamp()
    requests = pd.read_parquet(folder / REQUESTS)
    requests["planned_s"] = requests["planned_at"].astype("int64") / 1e6 - start_s
    requests["done_s"] = requests["planned_s"] + requests["latency_ms"] / 1e3
    decisions = [
        Decision(
            ts=d.ts - start_s,
            target=d.target,
            running=d.running,
            reason=d.reason,
            mean_service_ms=d.mean_service_ms,
        )
        for d in result.scaling.decisions
    ]
    return requests, decisions


def _back(requests: pd.DataFrame, by: "pd.Series[float]", slo_ms: float) -> float:
    """The second after the last one with a p95 above the objective; infinite if that is the end.

    The first second where none was above it.
    """
    late = requests["latency_ms"].where(requests["status"] == 200, np.inf)
    p95_ms = late.groupby(np.floor(by)).quantile(0.95, interpolation="lower")
    late_seconds = p95_ms.index[p95_ms > slo_ms]
    if late_seconds.empty:
        return float(p95_ms.index.min())
    return float(late_seconds.max()) + 1.0 if late_seconds.max() < p95_ms.index.max() else np.inf
