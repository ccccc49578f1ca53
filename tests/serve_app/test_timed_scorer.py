"""A slow scorer leaves the event loop, whatever the number of rows; a quick one comes back."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serve_app.model.preprocessing import Unforeseen
from serve_app.timed_scorer import TimedScorer
from tests.serve_app.conftest import HalvesScorer

ROW = (50.0, None)


class Clock:
    """Each time it is asked, ``step_s`` later."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def timed(step_s: float, scorer: HalvesScorer | None = None) -> tuple[TimedScorer, Clock]:
    clock = Clock(step_s)
    return TimedScorer(scorer or HalvesScorer(), max_rows=8, clock=clock), clock


def at_once(scorer: TimedScorer, rows: int = 1) -> bool:
    """Score as a predictor does; tell whether it was done on the event loop."""
    try:
        scores = scorer.score_at_once([ROW] * rows)
    except Unforeseen:
        scores = scorer.score([ROW] * rows)
        assert scores.shape == (rows, 2)
        return False
    assert scores.shape == (rows, 2)
    return True


def test_the_first_of_a_size_is_measured_in_the_thread() -> None:
    scorer, _ = timed(20e-6)
    assert [at_once(scorer) for _ in range(3)] == [False, True, True]
    assert [at_once(scorer, rows=8) for _ in range(3)] == [False, True, True]


def test_a_slow_one_stays_in_the_thread() -> None:
    scorer, _ = timed(110e-6)
    assert not any(at_once(scorer) for _ in range(50))


def test_one_interruption_turns_nothing() -> None:
    scorer, clock = timed(20e-6)
    at_once(scorer)
    for _ in range(3):
        clock.step_s = 10e-3
        assert at_once(scorer)
        clock.step_s = 20e-6
        assert all(at_once(scorer) for _ in range(20))


def test_it_leaves_the_event_loop_after_two_slow_ones_and_comes_back() -> None:
    scorer, clock = timed(20e-6)
    at_once(scorer)
    clock.step_s = 1.3e-3
    assert [at_once(scorer) for _ in range(4)] == [True, True, False, False]
    for _ in range(100):
        at_once(scorer)
    clock.step_s = 20e-6
    assert [at_once(scorer) for _ in range(20)].index(True) in range(8, 16)


def test_a_size_that_is_slow_leaves_the_others_alone() -> None:
    scorer, clock = timed(20e-6)
    at_once(scorer)
    clock.step_s = 150e-6
    assert not any(at_once(scorer, rows=8) for _ in range(5))
    clock.step_s = 20e-6
    assert at_once(scorer)


def test_slow_failures_count() -> None:
    scorer, clock = timed(20e-6)
    at_once(scorer)
    clock.step_s = 5e-3
    for _ in range(2):
        with pytest.raises(RuntimeError, match="secret"):
            scorer.score_at_once([(-1.0, None)])
    assert not at_once(scorer)


def test_what_takes_scikit_learn_says_nothing_about_the_rest() -> None:
    class Halfway(HalvesScorer):
        def score_at_once(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
            if rows[0][1] == "new":
                raise Unforeseen
            return self.score(rows)

    for step_s, quick in ((20e-6, True), (150e-6, False)):
        scorer, _ = timed(step_s, Halfway())
        at_once(scorer)
        for _ in range(20):
            with pytest.raises(Unforeseen):
                scorer.score_at_once([(50.0, "new")])
            assert scorer.score([(50.0, "new")]).tolist() == [[0.5, 0.5]]
        assert at_once(scorer) == quick


def test_large_copies_are_not_measured() -> None:
    scorer, _ = timed(20e-6)
    assert scorer.score([ROW] * 9).shape == (9, 2)
    with pytest.raises(Unforeseen):
        scorer.score_at_once([ROW] * 9)
