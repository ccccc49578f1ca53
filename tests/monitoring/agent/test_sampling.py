import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.agent.ingest import read_delivery
from monitoring.agent.sampling import (
    SAMPLED_BY,
    BudgetState,
    at_second,
    budget_factors,
    decide,
    uniform,
)
from monitoring.agent.settings import InputLimits, RuleSettings, SamplingSettings
from tests.monitoring.agent.conftest import STREAM, delivery, rows_of


def decided(settings, *, first=1, last=2000, state=None, events=None):
    _, batch, table = read_delivery(delivery(first, last, events=events))
    return decide(batch, table, STREAM, settings, state or at_second(BudgetState(), 0))


def test_everything_is_kept_by_default():
    decision, _ = decided(SamplingSettings(), last=50)
    assert decision.keep.all()
    assert set(decision.weight) == {1.0}


def test_the_hash_is_uniform_also_over_counting_ids():
    numbers = np.array([uniform(f"request-{i}") for i in range(20_000)])
    assert np.histogram(numbers, bins=10, range=(0, 1))[0] == pytest.approx(2000, abs=200)


def test_a_rate_keeps_its_share_and_weighs_it():
    decision, _ = decided(SamplingSettings(rates={"champion": 0.1}))
    assert decision.keep.mean() == pytest.approx(0.1, abs=0.02)
    assert decision.weight[decision.keep] == pytest.approx(10.0)


def test_rate_zero_keeps_nothing_but_what_rules_keep():
    def events(seq):
        return rows_of(seq, status=503 if seq == 7 else 200)

    decision, _ = decided(SamplingSettings(rates={"champion": 0.0}), last=20, events=events)
    assert np.flatnonzero(decision.keep).tolist() == [6]
    assert decision.weight[6] == 1.0


def test_rules_name_themselves_and_errors_come_first():
    def events(seq):
        match seq:
            case 1:
                return rows_of(seq, status=500, score=0.2)
            case 2:
                return [*rows_of(seq, score=0.9), {**rows_of(seq)[0], "row": 1, "score": 0.2}]
            case 3:
                return [{**rows_of(seq)[0], "latency_ms": 900.0}]
            case _:
                return [{**rows_of(seq)[0], "score": None}]

    rules = RuleSettings(low_confidence_below=0.5, slow_above_ms=100.0)
    decision, _ = decided(
        SamplingSettings(rates={"champion": 0.0}, rules=rules), last=4, events=events
    )
    assert [SAMPLED_BY[code] for code in decision.rule] == [
        "rule:error",
        "rule:low_confidence",
        "rule:slow",
        "rate",
    ]
    assert decision.keep.tolist() == [True, True, True, False]


def test_a_regressors_score_is_no_confidence():
    stream = msgspec.structs.replace(STREAM, task="regression", classes=())
    rules = RuleSettings(low_confidence_below=0.5)
    settings = SamplingSettings(rates={"champion": 0.0}, rules=rules)
    payload = delivery(1, 3, stream=stream, events=lambda seq: rows_of(seq, score=-40.0))
    _, batch, table = read_delivery(payload)
    decision, _ = decide(batch, table, stream, settings, at_second(BudgetState(), 0))
    assert not decision.keep.any()


@given(
    burst=st.integers(1, 200_000),
    before=st.floats(0, 1e6),
    rules=st.floats(0, 1e6),
    budget=st.floats(1, 1e5),
)
def test_the_budget_bounds_any_burst_and_never_excludes(burst, before, rules, budget):
    state = BudgetState(second=1, rows_before=before, rule_rows_before=rules)
    factors = budget_factors(np.arange(1.0, burst + 1.0), state, budget)
    assert factors.sum() <= 2 * budget + 1
    assert factors.min() > 0
    assert factors.max() <= 1


def test_a_second_that_fits_the_budget_is_kept_whole():
    decision, state = decided(SamplingSettings(rows_per_s=100.0), last=60)
    assert decision.keep.all()
    decision, _ = decided(SamplingSettings(rows_per_s=100.0), first=61, last=200, state=state)
    assert not decision.keep.all()
    assert SAMPLED_BY[decision.rule[-1]] == "budget"


def test_weighted_counts_are_unbiased_under_rate_rules_and_budget():
    """Expected and found differ by chance only: the sum of p(1-p)/p^2 is the variance."""

    def events(seq):
        return rows_of(seq, rows=1 + seq % 3, status=500 if seq % 97 == 0 else 200)

    settings = SamplingSettings(rates={"champion": 0.5}, rows_per_s=300.0)
    state, truth, estimate, variance = at_second(BudgetState(), 10), 0.0, 0.0, 0.0
    for second in range(20):
        state = at_second(state, 10 + second)
        count = 1500 if second % 5 == 0 else 300
        first = second * 10_000 + 1
        decision, state = decided(
            settings, first=first, last=first + count - 1, state=state, events=events
        )
        truth += count
        estimate += decision.weight[decision.keep].sum()
        variance += (decision.weight - 1.0).sum()
    assert abs(estimate - truth) <= 3 * variance**0.5


def test_seconds_follow_the_clock_back_too():
    state = BudgetState(second=5, rows=10.0)
    assert at_second(state, 4) is state  # deliveries that cross
    assert at_second(state, 3) == BudgetState(second=3)
    assert at_second(state, 6).rows_before == 10.0
    assert at_second(state, 8).rows_before == 0.0


def test_a_clock_two_hours_back_does_not_starve_the_log():
    """Staying in the second of before, the budget would leave next to nothing for two hours."""
    settings = SamplingSettings(rows_per_s=100.0)
    _, state = decided(settings, last=1000, state=at_second(BudgetState(), 7200))
    stored = 0
    for second in range(10):
        decision, state = decided(settings, last=100, state=at_second(state, second))
        stored += int(decision.keep.sum())
    assert stored == 1000


def test_settings_refuse_what_makes_no_sense():
    with pytest.raises(ValueError, match="rates"):
        SamplingSettings(rates={"champion": 1.5})
    with pytest.raises(ValueError, match="rows_per_s"):
        SamplingSettings(rows_per_s=0.0)


def test_an_empty_batch_is_no_special_case():
    payload = delivery(1, 2, dropped={1: "journal_full", 2: "journal_full"})
    _, batch, table = read_delivery(payload)
    rules = RuleSettings(low_confidence_below=0.5, slow_above_ms=1.0)
    decision, _ = decide(
        batch, table, STREAM, SamplingSettings(rules=rules, rows_per_s=1.0), BudgetState()
    )
    assert len(decision.keep) == 0
    assert isinstance(batch, pa.RecordBatch)


def test_inputs_that_training_never_saw_are_kept():
    def events(seq):
        line = rows_of(seq)[0]
        match seq:
            case 1:
                return [line, {**line, "row": 1, "x_age": 200.0}]
            case 2:
                return [{**line, "x_job": "astronaut"}]
            case 3:
                return [{**line, "x_age": None, "x_job": None}]
            case _:
                return [{**line, "x_age": -1.0}]

    limits = {
        "age": InputLimits(min=0.0, max=120.0),
        "job": InputLimits(categories=("clerk",)),
        "gone": InputLimits(min=0.0),
    }
    for version, kept in (("1.0.0", [True, True, False, True]), ("9", [False] * 4)):
        rules = RuleSettings(out_of_range={version: limits})
        decision, _ = decided(
            SamplingSettings(rates={"champion": 0.0}, rules=rules), last=4, events=events
        )
        assert decision.keep.tolist() == kept
    assert SAMPLED_BY[5] == "rule:out_of_range"
