"""Where a request is scored: on the event loop, or in a thread when it would hold others up."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoscaling.signals import ReplicaSignals
from serve_app.admission import Admission, OverloadedError
from serve_app.model.preprocessing import Unforeseen
from serve_app.prediction import Predictor, best_of_each
from serve_app.schema import NO_CONTEXT, PredictRequest
from tests.serve_app.conftest import HalvesScorer


class ThoughtfulScorer(HalvesScorer):
    """Takes rows above 50 only the slow way, and remembers in which thread it was asked."""

    def __init__(self) -> None:
        self.threads: list[bool] = []

    def score(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
        self.threads.append(threading.current_thread() is threading.main_thread())
        return super().score(rows)

    def score_at_once(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
        if any(row[0] > 50 for row in rows):
            raise Unforeseen
        return self.score(rows)


def predictor_with(predictor: Predictor, scorer: ThoughtfulScorer) -> Predictor:
    changes = {
        name: getattr(predictor.variant, name)
        for name in ("stream", "decoder", "recorder", "telemetry")
    }
    variant = type(predictor.variant)(scorer=scorer, **changes)
    admission = Admission(max_requests=10, max_pending_rows=10)
    return Predictor(variant, admission, ReplicaSignals(), inline_rows=8, max_rows=20)


def request(*firsts: float) -> PredictRequest:
    return PredictRequest([(first, None) for first in firsts], None, NO_CONTEXT)


async def test_only_quick_rows_are_scored_on_the_event_loop(predictor: Predictor) -> None:
    scorer = ThoughtfulScorer()
    ours = predictor_with(predictor, scorer)
    for asked in (request(1.0), request(60.0), request(*[1.0] * 9)):
        answer = await ours.answer(asked, "r", started_s=0.0)
        assert len(answer.predictions) == len(asked.rows)
    assert scorer.threads == [True, False, False]
    assert ours.admission.pending_rows == 0


async def test_who_fails_or_is_refused_takes_no_room(predictor: Predictor) -> None:
    ours = predictor_with(predictor, ThoughtfulScorer())
    ours.admission.admit(9)
    with pytest.raises(OverloadedError):
        await ours.answer(request(1.0, 2.0), "r", started_s=0.0)
    assert ours.admission.pending_rows == 9
    ours.admission.release(9)
    assert ours.admission.pending_rows == 0


@given(st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=3, max_size=3), min_size=1))
def test_the_best_class_is_the_first_of_equals(probabilities: list[list[float]]) -> None:
    raw = np.array(probabilities)
    assert best_of_each(raw, raw.tolist()) == raw.argmax(axis=1).tolist()
    assert best_of_each(raw[:1], raw[:1].tolist()) == raw[:1].argmax(axis=1).tolist()
