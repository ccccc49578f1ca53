"""Two deployments that always want more replicas than their application's CPU budget allows."""

import time
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from autoscaling.signals import ReplicaSignals
from serve_app.scaling import read_scaling

RATE_RPS, WORK_S = 100, 0.020  # twice what a replica can do, in each of them


class Busy:
    """Reports a load that nobody sends; the policy believes it."""

    def __init__(self) -> None:
        self._signals = ReplicaSignals(cpu_clock=lambda: 0.0)
        self._counted_s = time.time()

    def record_autoscaling_stats(self) -> dict[str, float]:
        now_s = time.time()
        for _ in range(int((now_s - self._counted_s) * RATE_RPS)):
            self._signals.accept()
            self._signals.complete(model_s=WORK_S, latency_s=0.1)
        self._counted_s = now_s
        return self._signals.stats()


@serve.deployment
class Fraud(Busy):
    pass


@serve.deployment
class Ranking(Busy):
    def __init__(self, fraud: DeploymentHandle) -> None:
        super().__init__()
        self._fraud = fraud

    async def __call__(self, _: Any) -> dict[str, Any]:
        """Return each deployment's newest decision."""
        records = {name: read_scaling("shop", name) for name in ("Ranking", "Fraud")}
        return {name: record and record.decisions[-1] for name, record in records.items()}


def build(_: dict[str, Any]) -> Application:
    return Ranking.bind(Fraud.bind())
