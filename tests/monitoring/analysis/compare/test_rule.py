"""A written rule, held against comparisons of known outcome."""

import math
from dataclasses import replace

import numpy as np
import pytest

from monitoring.analysis.compare.judge import Comparison
from monitoring.analysis.compare.report import Judged, Report
from monitoring.analysis.compare.rule import Decision, Rule, decide
from monitoring.analysis.compare.sequences import EVERYTHING, Interval, Mixture
from monitoring.analysis.compare.split import SplitCheck

RULE = Rule(version="2", margins={"accuracy": 0.01, "latency_ms": 5.0}, min_units=500)


def comparison(metric: str, low: float, high: float, units: int = 1_000) -> Comparison:
    return Comparison(
        metric=metric,
        control="1",
        treatment="2",
        paired=False,
        control_mean=0.5,
        treatment_mean=0.5,
        control_units=units,
        treatment_units=units,
        difference=(low + high) / 2,
        interval=Interval(low=low, high=high),
        p_value=1.0,
        alpha=0.05,
        progress=0.5,
        verdict="undecided",
        reason="",
    )


def found(*comparisons: Comparison, split: SplitCheck | None = None) -> Report:
    return Report(
        control="1",
        comparisons=tuple(Judged(comparison=each, looks=()) for each in comparisons),
        split=split,
        split_reason=None,
        feedback={},
    )


def outcome(*comparisons: Comparison, rule: Rule = RULE) -> Decision:
    return decide(rule, found(*comparisons))


FAST = comparison("latency_ms", -3.0, 2.0)


def test_no_worse_than_the_margins_on_all_metrics_is_promoted() -> None:
    assert outcome(comparison("accuracy", -0.009, 0.02), FAST).action == "promote"


def test_harm_is_a_loss_of_accuracy_and_a_gain_of_latency() -> None:
    lost = outcome(comparison("accuracy", -0.05, -0.02), FAST)
    assert lost == Decision(
        action="rollback", reason="accuracy is worse by 0.02 or more; allowed: 0.01"
    )
    slow = outcome(comparison("accuracy", 0.01, 0.02), comparison("latency_ms", 6.0, 9.0))
    assert slow.action == "rollback"
    assert "latency_ms" in slow.reason


def test_what_neither_shows_is_left_alone() -> None:
    decision = outcome(comparison("accuracy", -0.02, 0.02), FAST)
    assert decision.action == "wait"
    assert "worse by -0.02 to +0.02; at most 0.01" in decision.reason


def test_few_units_promote_nothing_but_roll_back() -> None:
    assert outcome(comparison("accuracy", 0.0, 0.1, 499), FAST).action == "wait"
    assert outcome(comparison("accuracy", -0.3, -0.1, 150), FAST).action == "rollback"


def test_a_margin_of_zero_asks_for_better_and_below_zero_for_so_much_better() -> None:
    for margin, action in ((0.0, "promote"), (-0.005, "promote"), (-0.03, "wait")):
        rule = Rule(version="2", margins={"accuracy": margin}, min_units=500)
        assert outcome(comparison("accuracy", 0.01, 0.04), rule=rule).action == action
    rule = Rule(version="2", margins={"accuracy": 0.0}, min_units=500)
    assert outcome(comparison("accuracy", -0.001, 0.04), rule=rule).action == "wait"


def test_a_missing_comparison_and_a_broken_split_wait() -> None:
    missing = outcome(comparison("accuracy", 0.0, 0.1))
    assert (missing.action, missing.reason) == ("wait", "latency_ms: no comparison of 2")
    split = SplitCheck(expected={}, counts={}, p_value=1e-9, ok=False)
    broken = decide(RULE, found(comparison("accuracy", -0.9, -0.5), FAST, split=split))
    assert broken.action == "wait"
    assert "traffic did not arrive" in broken.reason


def test_no_error_at_all_is_shown_by_the_rule_of_three() -> None:
    rule = Rule(version="2", margins={"error_rate": 0.01}, min_units=100)
    none = replace(
        comparison("error_rate", 0, 0, units=1_000),
        interval=EVERYTHING,
        control_mean=0.0,
        treatment_mean=0.0,
        verdict="not_enough_data",
        reason="all values are the same",
    )
    assert -math.log(0.05) / 1_000 < 0.01
    assert outcome(none, rule=rule).action == "promote"
    assert outcome(replace(none, treatment_units=200), rule=rule).action == "wait"
    some = replace(none, control_mean=0.01)  # there were errors: the version's rate is not known
    assert outcome(some, rule=rule).action == "wait"


def test_a_metric_without_a_better_cannot_decide() -> None:
    with pytest.raises(ValueError, match="'score' cannot decide"):
        Rule(version="2", margins={"score": 0.0}, min_units=100)


def test_looking_often_decides_about_harm_of_just_the_margin_no_more_than_promised() -> None:
    """Neither verdict is right there, so at most alpha of paths may end in one at any look."""
    rng = np.random.default_rng(20)
    margin, runs, looks = 0.02, 300, 40
    rule = Rule(version="2", margins={"latency_ms": margin}, min_units=100)
    decided = 0
    for _ in range(runs):
        values = rng.normal(margin, 1.0, looks * 100)
        for n in range(100, len(values) + 1, 100):
            error = values[:n].std() / math.sqrt(n)
            now = Mixture(alpha=0.05).interval(float(values[:n].mean()), error, n / 2_000)
            if outcome(comparison("latency_ms", now.low, now.high), rule=rule).action != "wait":
                decided += 1
                break
    assert decided <= 0.05 * runs
