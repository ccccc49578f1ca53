"""Dividing a CPU budget: within it, at most what is wanted, where it avoids most."""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.policy.budget import Claim, claim_of, divide
from autoscaling.policy.decide import decide
from autoscaling.policy.state import State
from autoscaling.policy.types import Config, Observation
from autoscaling.signals import ReplicaSignals, read_reports
from tests.autoscaling.test_signals import series


@st.composite
def claims(draw: st.DrawFn) -> Claim:
    falls = draw(st.lists(st.floats(0, 100), min_size=0, max_size=5))
    burden = tuple(np.cumsum(np.array([0.0, *falls]))[::-1].tolist())
    return Claim(
        least=draw(st.integers(0, 3)),
        burden=burden,
        cpus=draw(st.sampled_from([0.5, 1.0, 2.0])),
        serving=draw(st.integers(0, 6)),
    )


def cpus(claims: Mapping[str, Claim], granted: Mapping[str, int]) -> float:
    return sum(claims[name].cpus * replicas for name, replicas in granted.items())


@given(st.dictionaries(st.sampled_from("abcd"), claims(), max_size=4), st.floats(0, 40))
def test_grants_stay_between_minimum_and_wish_and_within_the_budget(
    wanted: dict[str, Claim], budget_cpus: float
) -> None:
    granted = divide(wanted, budget_cpus)
    assert granted.keys() == wanted.keys()
    for name, claim in wanted.items():
        assert claim.least <= granted[name] <= claim.wanted
    least = cpus(wanted, {name: claim.least for name, claim in wanted.items()})
    assert cpus(wanted, granted) <= max(least, budget_cpus) + 1e-6
    # Nothing that would fit is left undone.
    left = budget_cpus - cpus(wanted, granted)
    assert all(c.wanted == granted[n] or c.cpus > left for n, c in wanted.items())


@given(st.dictionaries(st.sampled_from("abcd"), claims(), max_size=4))
def test_what_fits_is_granted(wanted: dict[str, Claim]) -> None:
    whole = cpus(wanted, {name: claim.wanted for name, claim in wanted.items()})
    assert divide(wanted, whole) == {name: claim.wanted for name, claim in wanted.items()}


@given(st.lists(claims(), min_size=2, max_size=3), st.floats(1, 12))
def test_it_comes_close_to_the_best_division(of: list[Claim], budget_cpus: float) -> None:
    """Without the surcharge: worse than trying them all by the largest single grant at most."""
    wanted = {
        str(i): Claim(least=claim.least, burden=claim.burden, cpus=claim.cpus, serving=99)
        for i, claim in enumerate(of)
    }

    def burden(granted: Mapping[str, int]) -> float:
        return sum(c.burden[granted[name] - c.least] for name, c in wanted.items())

    ranges = [range(c.least, c.wanted + 1) for c in wanted.values()]
    divisions = (dict(zip(wanted, counts, strict=True)) for counts in itertools.product(*ranges))
    allowed = [each for each in divisions if cpus(wanted, each) <= budget_cpus + 1e-9]
    granted = divide(wanted, budget_cpus)
    if allowed:
        best = min(map(burden, allowed))
        largest = max(c.burden[0] - c.burden[-1] for c in wanted.values())
        assert burden(granted) <= best + largest + 1e-6


def test_what_needs_three_more_to_recover_beats_a_small_relief_at_once() -> None:
    overloaded = Claim(least=1, burden=(102.0, 101.0, 100.0, 1.0))
    nearly_well = Claim(least=1, burden=(10.0, 4.0, 1.0, 0.0))
    assert divide({"a": overloaded, "b": nearly_well}, 5) == {"a": 4, "b": 1}


def test_equal_needs_do_not_take_replicas_from_each_other() -> None:
    one = Claim(least=1, burden=(10.0, 5.0, 0.0), serving=3)
    other = Claim(least=1, burden=(10.5, 5.25, 0.0), serving=1)
    assert divide({"a": one, "b": other}, 4) == {"a": 3, "b": 1}


def test_minimums_are_kept_above_the_budget() -> None:
    assert divide(
        {"a": Claim(least=2, burden=(5.0, 0.0)), "b": Claim(least=3, burden=(0.0,))}, 4
    ) == {
        "a": 2,
        "b": 3,
    }


def overloaded_decision(config: Config) -> tuple:
    """Forty seconds at 200 a second, 20 ms each: two replicas are half of what is needed."""
    now = [100.0]
    signals = ReplicaSignals(lambda: now[0], cpu_clock=lambda: 0.0)
    state, decision = State(), None
    for _ in range(40):
        now[0] += 1.0
        for _ in range(200):
            signals.accept()
            signals.complete(model_s=0.02, latency_s=0.1)
        reports = read_reports(series(signals.stats()), slo_s=config.slo_s)
        decision = decide(
            Observation(now_s=now[0], target=2, running=2, reports=reports), state, config
        )
        state = decision.state
    return decision


def test_a_claim_falls_from_the_minimum_to_what_is_wanted() -> None:
    config = Config(min_replicas=1, max_replicas=10)
    decision = overloaded_decision(config)
    claim = claim_of(decision, config, cpus=2.0, serving=2)
    assert claim.least == 1
    assert claim.wanted == decision.target >= 5
    assert all(more <= less for less, more in itertools.pairwise(claim.burden))
    assert claim.burden[0] > 10 * claim.burden[-1]
    # A late request is worth more where fewer may be late.
    strict = Config(min_replicas=1, max_replicas=10, quantile=0.99)
    assert claim_of(decision, strict, cpus=2.0, serving=2).burden[0] > 2 * claim.burden[0]


@pytest.mark.parametrize("target", [0, 3])
def test_a_deployment_that_holds_claims_what_it_has(target: int) -> None:
    config = Config(min_replicas=0)
    decision = decide(Observation(now_s=1.0, target=target, running=target), State(), config)
    claim = claim_of(decision, config, cpus=1.0, serving=target)
    assert (claim.least, claim.wanted) == (decision.target, decision.target)
