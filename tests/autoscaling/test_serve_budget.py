"""Several deployments under one CPU budget, as Ray Serve's controller calls the policy."""

from typing import Any

import pytest

from autoscaling.errors import ConfigError
from autoscaling.serve_budget import LatencyBudgetPolicy
from autoscaling.signals import ReplicaSignals
from tests.autoscaling.test_serve_policy import Clock, Context, Memory
from tests.autoscaling.test_signals import series

NAMES = ("Ranking", "Fraud")


class Service:
    """Deployments under steady load; the policy's targets become their replicas at once."""

    def __init__(self, rates_rps: dict[str, int], **options: Any) -> None:
        self.clock = Clock()
        self.store = Memory()
        self.policy = LatencyBudgetPolicy(
            clock=self.clock,
            wall_clock=lambda: 1.7e9,
            store=self.store,
            **options,
        )
        self.targets = dict.fromkeys(rates_rps, 1)
        self._rates = rates_rps
        self._signals = {n: ReplicaSignals(self.clock, cpu_clock=lambda: 0.0) for n in rates_rps}

    def contexts(self) -> dict[str, Context]:
        return {
            name: Context(
                target_num_replicas=target,
                running_replicas=[f"{name}{i}" for i in range(target)],
                raw_metrics=series(self._signals[name].stats()),
                deployment_name=name,
            )
            for name, target in self.targets.items()
        }

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.now_s += 1.0
            for name, rate in self._rates.items():
                for _ in range(rate):  # all counted by one replica, whoever did it
                    self._signals[name].accept()
                    self._signals[name].complete(model_s=0.02, latency_s=0.1)
            targets, states = self.policy(self.contexts())
            assert states == {name: {"ray": "own"} for name in self._rates}
            self.targets = dict(targets)


def test_while_all_fits_each_gets_what_it_would_get_alone() -> None:
    service = Service({"Ranking": 200, "Fraud": 40}, budget_cpus=20)
    service.run(40)
    assert 5 <= service.targets["Ranking"] <= 10
    assert 1 <= service.targets["Fraud"] <= 3
    assert service.store.decisions("Ranking")[-1]["target"] == service.targets["Ranking"]


def test_a_budget_that_does_not_suffice_is_kept_and_named() -> None:
    service = Service(
        {"Ranking": 200, "Fraud": 40},
        budget_cpus=8,
        deployments={"Ranking": {"cpus": 2}, "Fraud": {"quantile": 0.99}},
    )
    service.run(40)
    assert 2 * service.targets["Ranking"] + service.targets["Fraud"] <= 8
    newest = service.store.decisions("Ranking")[-1]
    assert newest["term"] == "budget"
    assert "8 CPUs allow" in newest["reason"]


def test_the_dearer_late_requests_get_the_replicas() -> None:
    rates = {"Ranking": 120, "Fraud": 120}
    dear = {"Fraud": {"caution": 4.0}}
    service = Service(rates, budget_cpus=5, deployments=dear)
    service.run(40)
    assert service.targets["Fraud"] > service.targets["Ranking"] >= 1


def test_whatever_ray_hands_over_it_holds() -> None:
    broken = {"a": Context(running_replicas=None), "b": Context(target_num_replicas=3)}  # type: ignore[arg-type]
    targets, states = LatencyBudgetPolicy(budget_cpus=4, clock=Clock(), store=Memory())(broken)
    assert targets == {"a": 2, "b": 3}
    assert states.keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"budget_cpus": 0}, "budget_cpus"),
        ({"budget_cpus": "all"}, "budget_cpus"),
        ({"budget_cpus": 4, "deployments": {"A": {"cpus": -1}}}, r"deployments\.A\.cpus"),
        ({"budget_cpus": 4, "deployments": {"A": {"slo": 1}}}, "slo"),
    ],
)
def test_settings_that_cannot_be_meant_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        LatencyBudgetPolicy(**options)
