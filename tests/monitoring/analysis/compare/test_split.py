import numpy as np
import pytest

from monitoring.analysis.compare.split import check_split, log_evidence


def test_traffic_as_intended_passes_and_a_mismatch_does_not() -> None:
    assert check_split({"a": 9_010, "b": 990}, {"a": 9, "b": 1}).ok
    assert not check_split({"a": 9_400, "b": 600}, {"a": 9, "b": 1}).ok


def test_an_arm_without_any_traffic_is_found() -> None:
    assert not check_split({"a": 200}, {"a": 0.5, "b": 0.5}).ok


def test_no_traffic_is_no_finding() -> None:
    assert check_split({}, {"a": 0.5, "b": 0.5}).p_value == 1.0


@pytest.mark.parametrize("shares", [{"a": 1.0}, {"a": 1.0, "b": 0.0}, {"a": 1.0, "b": -1.0}])
def test_every_arm_needs_a_share(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="split"):
        check_split({"a": 5, "b": 5}, shares)


def test_looking_at_every_hundred_units_keeps_the_promise() -> None:
    rng = np.random.default_rng(5)
    shares = np.array([0.5, 0.5])
    alarms = 0
    for _ in range(500):
        counts = np.cumsum(rng.multinomial(100, shares, 100), axis=0).astype(float)
        alarms += any(log_evidence(c, shares) > np.log(100) for c in counts)
    assert alarms <= 5  # 1% of 500
