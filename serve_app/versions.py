"""All versions of a replica, wired: the champion, and beside it challengers and shadows."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from autoscaling.signals import ReplicaSignals
from monitoring.capture.stream_capture import StreamCapture
from monitoring.events import Stream, VariantCounts, VariantRole
from serve_app.admission import Admission
from serve_app.model.loading import ServedBundle
from serve_app.model.manifest import Manifest
from serve_app.model.variants import columns_for
from serve_app.prediction import Answerer, Predictor, Scorer, Variant
from serve_app.router import Further, Router, TrafficState, projection
from serve_app.schema import RequestDecoder
from serve_app.settings import Serving
from serve_app.shadow import INLINE_ROWS, Shadow
from serve_app.telemetry import VariantTelemetry
from serve_app.timed_scorer import TimedScorer
from serve_app.traffic_settings import Traffic
from serve_app.wiring import variant_stream

UNBOUNDED: Final = 2**31
Capture = Callable[[Stream], StreamCapture | None]


class Versions:
    """``answerer`` takes what names no version; ``by_version`` takes what does.

    A version beside the champion has two streams, one for what it answered and one for what it
    shadowed, each with counters and a ledger of its own. Versions that answer share the admission,
    the signals and the scoring thread: together they are one replica. A shadow shares none of them.
    """

    def __init__(
        self,
        bundles: Mapping[str, ServedBundle],
        serving: Serving,
        admission: Admission,
        signals: ReplicaSignals,
        *,
        capture: Capture,
        clock: Callable[[], float],
    ) -> None:
        """``bundles`` by version, the champion first; ``capture`` begins a stream's log, or not."""
        self._serving = serving
        self._admission = admission
        self._signals = signals
        self._capture = capture
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="score")
        self._variants: list[Variant] = []
        self.captures: list[StreamCapture] = []
        champion, *others = bundles.values()
        self._champion = self._answering(champion, "champion")
        self._further = {each.manifest.version: self._beside(champion, each) for each in others}
        self.router = Router(self._champion, self._further, clock) if self._further else None

    @property
    def answerer(self) -> Answerer:
        return self.router or self._champion

    @property
    def by_version(self) -> dict[str, Answerer]:
        champion = self._champion.variant.stream.version
        further = {version: each.challenger for version, each in self._further.items()}
        return {champion: self._champion, **further}

    def apply(self, traffic: Traffic) -> None:
        """Split traffic anew; raises TrafficUnfit when a version that it names is not loaded."""
        if self.router is not None:
            self.router.apply(traffic)
        else:
            traffic.require_loaded(())

    @property
    def traffic(self) -> TrafficState:
        """Who gets what now."""
        if self.router is not None:
            return self.router.state
        champion = self._champion.variant.stream.version
        return TrafficState(champion, (champion,), "session", {champion: 1.0}, {}, (), ())

    def counts(self) -> tuple[VariantCounts, ...]:
        return tuple(variant.telemetry.counts() for variant in self._variants)

    def shadows(self) -> Iterator[Shadow]:
        return (each.shadow for each in self._further.values())

    def _beside(self, champion: ServedBundle, other: ServedBundle) -> Further:
        project = projection(columns_for(champion.manifest, other.manifest))
        shadow = Shadow(
            self._shadowing(other),
            project=project,
            busy=self._admission,
            max_rows=self._serving.max_shadow_rows,
        )
        shadow.start()
        return Further(
            challenger=self._answering(other, "challenger"), shadow=shadow, project=project
        )

    def _answering(self, bundle: ServedBundle, role: VariantRole) -> Predictor:
        return Predictor(
            self._variant(bundle.manifest, bundle.scorer, role),
            self._admission,
            self._signals,
            inline_rows=self._serving.inline_rows,
            max_rows=self._serving.max_rows,
            worker=self._worker,
        )

    def _shadowing(self, bundle: ServedBundle) -> Predictor:
        inline_rows = min(INLINE_ROWS, self._serving.inline_rows)
        scorer = TimedScorer(bundle.scorer, max_rows=inline_rows)
        return Predictor(
            self._variant(bundle.manifest, scorer, "shadow"),
            Admission(max_requests=UNBOUNDED, max_pending_rows=UNBOUNDED),
            ReplicaSignals(),  # nobody waits for it, so it says nothing about latency
            inline_rows=inline_rows,
            max_rows=self._serving.max_rows,
            worker=ThreadPoolExecutor(1, thread_name_prefix="shadow"),
        )

    def _variant(self, manifest: Manifest, scorer: Scorer, role: VariantRole) -> Variant:
        stream = variant_stream(manifest, role)
        capture = self._capture(stream)
        if capture is not None:
            self.captures.append(capture)
        variant = Variant(
            stream=stream,
            decoder=RequestDecoder(manifest.features, classes=len(manifest.classes)),
            scorer=scorer,
            recorder=capture.recorder if capture else None,
            telemetry=VariantTelemetry(stream),
        )
        self._variants.append(variant)
        return variant
