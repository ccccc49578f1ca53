"""The way of a request: score, build the answer, capture. HTTP and handle calls both take it."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from autoscaling.signals import ReplicaSignals
from monitoring.events import Stream
from serve_app.admission import Admission, OverloadedError
from serve_app.errors import TreelineError
from serve_app.logs import log_failure
from serve_app.model.preprocessing import Unforeseen
from serve_app.schema import (
    Context,
    Prediction,
    PredictRequest,
    PredictResponse,
    RankedLabel,
    RequestDecoder,
    RequestInvalidError,
    RequestTooLargeError,
    Row,
)
from serve_app.telemetry import VariantTelemetry

logger = logging.getLogger(__name__)


Score = Callable[[Sequence[Sequence[object]]], NDArray[np.float64]]


class Scorer(Protocol):
    """A model behind one call: probabilities (rows x classes), or predictions (rows)."""

    def score(self, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]: ...

    def score_at_once(self, rows: Sequence[Sequence[object]]) -> NDArray[np.float64]:
        """The same, or Unforeseen for rows that would hold up the event loop."""
        ...


class Recorder(Protocol):
    """Where events go; must neither block nor raise."""

    def record(
        self,
        *,
        ts_us: int,
        request_id: str,
        status: int,
        latency_ms: float,
        inputs: Sequence[Sequence[Any]],
        labels: list[str] | None = None,
        scores: list[float] | None = None,
        probabilities: bytes | None = None,
        top_k: list[list[str]] | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        context_tags: Mapping[str, object] | None = None,
    ) -> None: ...


class PredictionFailedError(TreelineError):
    """The model raised on valid input; the cause is in the log under the request id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A bundle as it is served: its scorer and where its events and counters go."""

    stream: Stream
    decoder: RequestDecoder
    scorer: Scorer
    recorder: Recorder | None
    telemetry: VariantTelemetry


class Scored(msgspec.Struct, kw_only=True):
    """Outputs of one request, once for the answer and once for the log.

    A msgspec struct: a frozen dataclass takes 0.9 microseconds longer to make.
    """

    predictions: list[Prediction]
    labels: list[str] | None
    scores: list[float]
    probabilities: bytes | None
    top_k: list[list[str]] | None
    model_s: float  # time the model took


class Answerer(Protocol):
    """A Predictor, or what chooses one of several for each request."""

    @property
    def variant(self) -> Variant:
        """What requests are decoded and described by."""
        ...

    async def answer(
        self, request: PredictRequest, request_id: str, *, started_s: float
    ) -> PredictResponse: ...


class Predictor:
    """Answers prediction requests with one variant, bounded by admission."""

    def __init__(
        self,
        variant: Variant,
        admission: Admission,
        signals: ReplicaSignals,
        *,
        inline_rows: int,
        max_rows: int,
        worker: ThreadPoolExecutor | None = None,
    ) -> None:
        """Score up to ``inline_rows`` rows on the event loop and more of them in a thread.

        Predictors that answer in one replica share their ``worker``.
        """
        self.variant = variant
        self.admission = admission
        self._signals = signals
        self._inline_rows = inline_rows
        self._max_rows = max_rows
        # One, so that a replica is one worker, as the latency policy models it: what waits for the
        # thread counts as latency and not as work.
        self._worker = worker or ThreadPoolExecutor(1, thread_name_prefix="score")

    async def answer(
        self, request: PredictRequest, request_id: str, *, started_s: float
    ) -> PredictResponse:
        """Score a checked request, count it and capture it.

        ``started_s`` is ``time.perf_counter()`` at the request's arrival. Raises
        RequestTooLargeError, RequestInvalidError for inputs that the model refuses, OverloadedError
        when too much is waiting, PredictionFailedError when the model itself fails.
        """
        rows = request.rows
        if len(rows) > self._max_rows:
            raise RequestTooLargeError(f"{len(rows)} rows; at most {self._max_rows} are taken")
        self._admit(len(rows))
        try:
            scored = await self._score(rows, request.top_k)
        except ValueError as exc:
            self._signals.give_up()
            log_failure(logger, "the model refused a request", exc, request_id)
            named = self.variant.decoder.explain_refusal(rows)
            # Not `from exc`: its words may repeat inputs, and Ray logs what handle calls raise.
            raise RequestInvalidError("the model refuses these inputs", named) from None
        except asyncio.CancelledError:
            self._signals.give_up()
            raise
        except Exception as exc:  # noqa: BLE001  a model may raise anything
            log_failure(logger, "the model failed on a request", exc, request_id)
            self._finish(request, request_id, status=500, started_s=started_s, scored=None)
            raise PredictionFailedError("the model failed on this request") from None
        finally:
            self.admission.release(len(rows))
        stream = self.variant.stream
        response = PredictResponse(
            request_id,
            stream.model,
            stream.version,
            stream.feature_set_version,
            list(stream.classes),
            scored.predictions,
        )
        self._finish(request, request_id, status=200, started_s=started_s, scored=scored)
        return response

    def _admit(self, rows: int) -> None:
        self._signals.accept()
        try:
            self.admission.admit(rows)
        except OverloadedError:
            self._signals.refuse()
            raise

    async def _score(self, rows: list[Row], top_k: int | None) -> Scored:
        """Score on the event loop what is quick, and in a thread what would hold others up."""
        scorer = self.variant.scorer
        if len(rows) <= self._inline_rows:
            try:
                return self._score_with(scorer.score_at_once, rows, top_k)
            except Unforeseen:
                logger.debug("a request takes too long for the event loop")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self._score_with, scorer.score, rows, top_k)

    def _score_with(self, score: Score, rows: list[Row], top_k: int | None) -> Scored:
        started_s = time.perf_counter()
        raw = score(rows)
        model_s = time.perf_counter() - started_s
        classes = self.variant.stream.classes
        if self.variant.stream.task == "regression":
            scores = raw.tolist()
            predictions = [Prediction(None, score, None) for score in scores]
            return Scored(
                predictions=predictions,
                labels=None,
                scores=scores,
                probabilities=None,
                top_k=None,
                model_s=model_s,
            )
        probabilities = raw.tolist()
        best = best_of_each(raw, probabilities)
        labels = [classes[index] for index in best]
        scores = [row[index] for row, index in zip(probabilities, best, strict=True)]
        ranked = None if top_k is None else rank(raw, classes, top_k)
        if ranked is None:
            predictions = list(map(Prediction, labels, scores, probabilities))
        else:
            predictions = list(map(Prediction, labels, scores, probabilities, ranked))
        return Scored(
            predictions=predictions,
            labels=labels,
            scores=scores,
            probabilities=raw.tobytes(),
            top_k=None if ranked is None else [[each.label for each in row] for row in ranked],
            model_s=model_s,
        )

    def _finish(
        self,
        request: PredictRequest,
        request_id: str,
        *,
        status: int,
        started_s: float,
        scored: Scored | None,
    ) -> None:
        latency_s = time.perf_counter() - started_s
        variant = self.variant
        variant.telemetry.observe(status=status, rows=len(request.rows), latency_s=latency_s)
        if scored is None:
            self._signals.give_up()
        else:
            self._signals.complete(model_s=scored.model_s, latency_s=latency_s)
        if variant.recorder is None:
            return
        context: Context = request.context
        variant.recorder.record(
            ts_us=time.time_ns() // 1_000 - int(latency_s * 1e6),
            request_id=request_id,
            status=status,
            latency_ms=latency_s * 1e3,
            inputs=request.rows,
            labels=scored.labels if scored else None,
            scores=scored.scores if scored else None,
            probabilities=scored.probabilities if scored else None,
            top_k=scored.top_k if scored else None,
            user_id=context.user_id,
            session_id=context.session_id,
            context_tags=context.fields,
        )


def best_of_each(raw: NDArray[np.float64], probabilities: list[list[float]]) -> list[int]:
    """Position of the likeliest class in each row, the first of equals.

    ``probabilities`` are ``raw`` as lists; for one row NumPy's call costs more than looking.

    >>> best_of_each(np.array([[0.5, 0.5]]), [[0.5, 0.5]])
    [0]
    """
    if len(probabilities) == 1:
        (row,) = probabilities
        return [row.index(max(row))]
    best: list[int] = raw.argmax(axis=1).tolist()
    return best


def rank(
    probabilities: NDArray[np.float64], classes: Sequence[str], top_k: int
) -> list[list[RankedLabel]]:
    """The ``top_k`` likeliest classes of each row, likeliest first; ties in class order.

    >>> rank(np.array([[0.2, 0.5, 0.3]]), ("a", "b", "c"), 2)
    [[RankedLabel(label='b', score=0.5), RankedLabel(label='c', score=0.3)]]
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    return [
        [RankedLabel(classes[index], float(row[index])) for index in indices]
        for row, indices in zip(probabilities, order.tolist(), strict=True)
    ]
