"""Fakes for the request path: a scorer that needs no forest, and a recorder that remembers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoscaling.signals import ReplicaSignals
from monitoring.events import Feature, Stream, VariantRole
from serve_app.admission import Admission
from serve_app.prediction import Predictor, Scorer, Variant
from serve_app.schema import RequestDecoder
from serve_app.telemetry import VariantTelemetry


@dataclass(frozen=True)
class Spec:
    name: str
    dtype: str
    nullable: bool = False
    categories: tuple[str, ...] | None = None


class HalvesScorer:
    """P(good) is the first value over 100; refuses values above 1e30, breaks at -1."""

    def score(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
        first = np.array([row[0] for row in rows], dtype=np.float64)
        if (first > 1e30).any():
            raise ValueError("Input X contains infinity")
        if (first == -1).any():
            raise RuntimeError(f"secret internal detail: {rows}")
        return np.column_stack([1 - first / 100, first / 100])

    score_at_once = score


class RememberingRecorder:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def record(self, **event: Any) -> None:
        self.events.append(event)


@pytest.fixture
def recorder() -> RememberingRecorder:
    return RememberingRecorder()


def predictor_of(
    recorder: RememberingRecorder,
    *,
    version: str = "1.0.0",
    role: VariantRole = "champion",
    scorer: Scorer | None = None,
    admission: Admission | None = None,
    inline_rows: int = 8,
) -> Predictor:
    features = [Spec("age", "float64"), Spec("housing", "string", nullable=True)]
    stream = Stream(
        model="credit",
        version=version,
        feature_set_version="1",
        variant=role,
        task="classification",
        features=(Feature("age", "float64"), Feature("housing", "string")),
        classes=("bad", "good"),
    )
    variant = Variant(
        stream=stream,
        decoder=RequestDecoder(features, classes=2),
        scorer=scorer or HalvesScorer(),
        recorder=recorder,
        telemetry=VariantTelemetry(stream),
    )
    return Predictor(
        variant,
        admission or Admission(max_requests=100, max_pending_rows=1_000),
        ReplicaSignals(),
        inline_rows=inline_rows,
        max_rows=50,
    )


@pytest.fixture
def predictor(recorder: RememberingRecorder) -> Predictor:
    return predictor_of(recorder)
