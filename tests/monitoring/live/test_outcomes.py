"""Errors of regressions as exact sums: whatever is said meanwhile, the last word alone counts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.analysis.compare.moments import Moments, unit_moments
from monitoring.live.answers import Answer, AnswerIndex, Chunk
from monitoring.live.outcomes import ERRORS, Word, change, in_units, metrics_of, part_of
from monitoring.live.window import StreamKey

KEY = StreamKey("rent", "1.0.0", "champion")
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def answer(*outputs: float | str | None) -> Answer:
    return Answer(chunk=1, key=KEY, start_s=0, outputs=outputs)


def said(*numbers: float | None) -> dict[int, Word]:
    return {row: Word(1, 1, str(number), number) for row, number in enumerate(numbers)}


def test_the_sums_are_those_of_squared_absolute_and_signed_errors():
    rng = np.random.default_rng(1)
    predicted, truth = rng.normal(50.0, 9.0, (2, 300))
    units = np.arange(300) // 3
    for metric, values in (
        ("rmse", (predicted - truth) ** 2),
        ("mae", np.abs(predicted - truth)),
        ("bias", predicted - truth),
    ):
        total = Moments()
        for first in range(0, 300, 3):
            rows = slice(first, first + 3)
            total += part_of(answer(*predicted[rows].tolist()), metric, said(*truth[rows].tolist()))
        expected = unit_moments(values, np.ones(300), units)
        found = in_units(metric, total)
        assert (found.units, found.rows, found.n) == (100, 300, 300)
        assert found.mean == pytest.approx(expected.mean, rel=1e-12)
        assert found.squares == pytest.approx(expected.squares, rel=1e-9)
        assert found.cubes == pytest.approx(expected.cubes, rel=1e-6, abs=1e-6)


@given(st.lists(NUMBERS, min_size=1, max_size=6), NUMBERS)
def test_a_word_taken_back_leaves_nothing_however_wrong_it_was(words, last):
    """With floats one label of 1e300 would stay in a day's sums for ever."""
    for metric in ERRORS:
        one = answer(1.5)
        total = before = part_of(one, metric, {})
        for number in (*words, last):
            after = part_of(one, metric, said(number))
            total += change(before, after) or Moments()
            before = after
        assert total == part_of(one, metric, said(last))
        assert np.isfinite(in_units(metric, total).mean)


def test_what_cannot_be_compared_is_left_out():
    assert metrics_of("label", answer("good", None)) == ("accuracy",)
    assert metrics_of("label", answer(1.0, float("nan"))) == ERRORS
    assert metrics_of("click", answer(1.0)) == ("click",)
    assert metrics_of("stars", answer(1.0)) == ()
    labels = {**said(2.0, 2.0), 2: Word(1, 1, "many", None), 9: Word(1, 1, "2", 2.0)}
    total = in_units("mae", part_of(answer(1.0, float("nan"), 3.0), "mae", labels))
    assert (total.rows, total.x) == (1, 1.0)


def test_regressors_answers_of_an_older_release_are_known_without_their_numbers():
    old = Chunk(
        classes=(),
        requests=np.array([5], np.int64).tobytes(),
        starts_s=np.array([0], np.int64).tobytes(),
        rows=np.array([1], np.int32).tobytes(),
        labels=np.array([-1], np.int16).tobytes(),
    )
    index = AnswerIndex()
    index.add(1, KEY, old)
    (found,) = index.find("rent", 5)
    assert np.isnan(found.outputs[0])
    assert part_of(found, "rmse", said(1.0)) == Moments()
