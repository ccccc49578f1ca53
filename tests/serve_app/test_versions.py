"""What a replica wires for one version, and for several."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoscaling.signals import ReplicaSignals
from monitoring.events import Stream
from serve_app.admission import Admission
from serve_app.errors import BundleUnfit
from serve_app.model.loading import ServedBundle
from serve_app.model.manifest import FeatureSpec, Manifest
from serve_app.prediction import Predictor
from serve_app.schema import NO_CONTEXT, PredictRequest
from serve_app.settings import Serving
from serve_app.traffic_settings import Traffic, TrafficUnfit
from serve_app.versions import Versions
from tests.serve_app.conftest import HalvesScorer

AGE = FeatureSpec(name="age", dtype="float64", nullable=False)
CITY = FeatureSpec(name="city", dtype="string", nullable=True)


class WatchedScorer(HalvesScorer):
    """Takes ``cpu_s`` of processor time for anything; remembers whether on the event loop."""

    def __init__(self, cpu_s: float) -> None:
        self.cpu_s = cpu_s
        self.at_once: list[bool] = []

    def score_at_once(self, rows: Sequence[Sequence[Any]]) -> NDArray[np.float64]:
        until_s = time.thread_time() + self.cpu_s
        while time.thread_time() < until_s:
            pass
        self.at_once.append(threading.current_thread() is threading.main_thread())
        return self.score(rows)


def bundle(
    version: str, *features: FeatureSpec, scorer: HalvesScorer | None = None
) -> ServedBundle:
    manifest = Manifest(
        name="credit",
        version=version,
        feature_set_version="1",
        task="classification",
        features=features or (CITY, AGE),
        classes=("bad", "good"),
        sklearn_version="1.9.1",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        training_metrics={},
        sha256={"model.joblib": "0" * 64, "baseline.parquet": "0" * 64},
    )
    served: Any = scorer or HalvesScorer()
    return ServedBundle(manifest=manifest, scorer=served)


def versions(*bundles: ServedBundle) -> tuple[Versions, list[tuple[str, str]]]:
    streams = []

    def nowhere(stream: Stream) -> None:
        streams.append((stream.version, stream.variant))

    wired = Versions(
        {each.manifest.version: each for each in bundles},
        Serving(),
        Admission(max_requests=10, max_pending_rows=10),
        ReplicaSignals(),
        capture=nowhere,
        clock=lambda: 0.0,
    )
    return wired, streams


async def test_one_version_is_answered_without_a_detour() -> None:
    wired, streams = versions(bundle("1"))
    assert isinstance(wired.answerer, Predictor)
    assert streams == [("1", "champion")]
    assert (wired.traffic.shares, wired.traffic.versions) == ({"1": 1.0}, ("1",))
    wired.apply(Traffic(salt="x"))
    with pytest.raises(TrafficUnfit, match=r"`args\.variants` is empty"):
        wired.apply(Traffic(shares={"2": 0.1}))


async def test_a_further_version_has_a_stream_for_each_role_and_its_own_features() -> None:
    wired, streams = versions(bundle("1"), bundle("2", AGE))
    assert sorted(streams) == [("1", "champion"), ("2", "challenger"), ("2", "shadow")]
    wired.apply(Traffic(shares={"2": 1.0}))
    request = PredictRequest([("Rome", 30.0)], None, NO_CONTEXT)
    answer = await wired.answerer.answer(request, "r", started_s=0.0)
    assert (answer.version, answer.predictions[0].probabilities) == ("2", [0.7, 0.3])
    assert list(wired.by_version) == ["1", "2"]
    by_role = {(c.version, c.variant): c.rows for c in wired.counts()}
    assert by_role == {("1", "champion"): 0, ("2", "challenger"): 1, ("2", "shadow"): 0}
    for shadow in wired.shadows():
        await shadow.stop(1.0)


async def test_a_version_that_cannot_answer_is_refused() -> None:
    with pytest.raises(BundleUnfit, match="'city' is none of the champion's"):
        versions(bundle("1", AGE), bundle("2"))


async def test_a_slow_shadow_stays_off_the_event_loop() -> None:
    request = PredictRequest([("Rome", 30.0)], None, NO_CONTEXT)
    seen = {}
    for cpu_s in (0.0, 2e-3):
        scorer = WatchedScorer(cpu_s)
        wired, _ = versions(bundle("1"), bundle("2", scorer=scorer))
        (shadow,) = wired.shadows()
        for n in range(30):
            shadow.offer(request, f"r{n}")
        await shadow.stop(5.0)
        assert len(scorer.at_once) == 30
        seen[cpu_s] = any(scorer.at_once)
    assert seen == {0.0: True, 2e-3: False}
