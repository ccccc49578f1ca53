"""The deployment that answers requests: one replica's parts, started and stopped in order."""

import asyncio
import gc
import logging
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import ray
from pydantic import ValidationError
from ray import serve

from autoscaling.signals import ReplicaSignals
from monitoring.capture.feedback import FeedbackCapture
from monitoring.capture.stream_capture import StreamCapture
from monitoring.disk import disk_id
from monitoring.events import ReplicaReport, Stream, feedback_stream
from serve_app.admission import Admission
from serve_app.agents import Agents, AgentsUnavailableError, shard_of
from serve_app.background import repeat
from serve_app.capture import ORPHAN_INTERVAL_S, capture_stream, drain_orphans_here
from serve_app.errors import TreelineError
from serve_app.grpc.binding import listen_on_chosen_host
from serve_app.grpc.inference import Inference
from serve_app.grpc.service import InferenceMethods
from serve_app.http.asgi import REFUSALS, Application, predict_route, refusal
from serve_app.http.feedback import feedback_route
from serve_app.http.monitor import monitor_routes
from serve_app.http.openinference import inference_routes
from serve_app.logs import share_handlers
from serve_app.model.loading import load_served
from serve_app.other_nodes import POLL_INTERVAL_S, look_at_nodes
from serve_app.scaling import ScalingRecord, read_scaling
from serve_app.schema import check_request_id, encode_request
from serve_app.section import complaint
from serve_app.settings import Settings, UserConfig
from serve_app.startup import StageClock, process_started_s
from serve_app.versions import Versions
from serve_app.wiring import bundle_folder, masking_policy, sampling_options

logger = logging.getLogger(__name__)

REPORT_INTERVAL_S = 1.0
SHADOW_TIMEOUT_S = 2.0
FLUSH_TIMEOUT_S = 10.0
STORE_TIMEOUT_S = 4.0  # below the time-out of a call to an agent


class ModelServer(InferenceMethods):
    """Serves one model's versions over HTTP, gRPC and handles; every event goes to its agent."""

    def __init__(self, arguments: dict[str, Any], key: bytes) -> None:
        """``arguments`` are checked settings; ``key`` is the masking key."""
        share_handlers()
        stages = StageClock(process_started_s())
        stages.mark("imported")
        settings = Settings.model_validate(arguments)
        self._settings = settings
        replica = serve.get_replica_context().replica_id
        self._replica: str = replica.unique_id
        self._node: str = ray.get_runtime_context().get_node_id()
        self._disk = disk_id(Path(settings.state_dir))
        self._deployment = replica.deployment_id
        self._agents = Agents(settings.agent.shards)
        self._admission = Admission(
            max_requests=settings.serving.max_waiting_requests,
            max_pending_rows=settings.serving.max_pending_rows,
        )
        self._rejected: Counter[int] = Counter()
        self._configured = False
        self._refused_config: str | None = None
        self._bundles = {
            version: load_served(bundle_folder(settings, version), Path(settings.state_dir))
            for version in (settings.model.version, *settings.variants)
        }
        stages.mark("model")
        champion = self._bundles[settings.model.version].manifest
        self._policy = masking_policy(settings.masking, key)
        self._policy.require_known([feature.name for feature in champion.features])
        self._signals = ReplicaSignals()
        self._versions = Versions(
            self._bundles,
            settings.serving,
            self._admission,
            self._signals,
            capture=self._start_capture,
            clock=time.time,
        )
        self._predictor = self._versions.answerer
        listen_on_chosen_host()
        self.inference = Inference(
            self._predictor,
            self._versions.by_version,
            admission=self._admission,
            on_rejected=self._reject,
            max_body_bytes=settings.serving.max_body_bytes,
            max_rows=settings.serving.max_rows,
            retry_after_s=settings.serving.retry_after_s,
        )
        self._feedback = self._start_capture(feedback_stream(champion.name))
        self._tasks = self._background()
        # What is loaded stays: a full collection would walk 240,000 objects, for 0.2 s and more.
        gc.freeze()
        stages.mark("ready")
        logger.info("replica built, in seconds since its process began: %s", stages)

    def _start_capture(self, stream: Stream) -> StreamCapture | None:
        """Begin a stream's log; None where nothing is logged."""
        if not self._settings.capture.enabled:
            return None
        is_feedback = stream.kind == "feedback"
        capture = capture_stream(
            self._settings,
            stream,
            self._policy.for_feedback() if is_feedback else self._policy,
            self._agents,
            producer=f"{self._replica}-{uuid.uuid4().hex[:8]}-0",
            node=self._node,
        )
        capture.start()
        return capture

    def _background(self) -> list[asyncio.Task[NoReturn]]:
        """Begin the chores of this replica's life."""
        settings, agents = self._settings, self._agents
        chores = [repeat(self._keep_up, "reporting", interval_s=REPORT_INTERVAL_S)]
        if settings.capture.enabled:
            chores += [
                repeat(
                    lambda: drain_orphans_here(settings, agents),
                    "the drain of dead replicas' journals",
                    interval_s=ORPHAN_INTERVAL_S,
                ),
                repeat(
                    lambda: look_at_nodes(settings, agents),
                    "the look at other nodes",
                    interval_s=POLL_INTERVAL_S,
                ),
            ]
        return [asyncio.create_task(chore) for chore in chores]

    def __serve_build_asgi_app__(self) -> Application:
        """Called by Ray Serve once the constructor is through."""
        serving = self._settings.serving
        limits = {"retry_after_s": serving.retry_after_s}
        routes = {
            "/predict": {"POST": predict_route(self._predictor, **limits)},
            **inference_routes(self._predictor, self._versions.by_version, **limits),
            **monitor_routes(
                self._agents, self._read_scaling, self._warnings, lambda: self._versions.traffic
            ),
        }
        if self._feedback is not None:
            recorder = FeedbackCapture(self._feedback)
            route = feedback_route(recorder, retry_after_s=serving.retry_after_s)
            routes["/feedback"] = {"POST": route}
        return Application(
            routes,
            max_body_bytes=serving.max_body_bytes,
            on_shutdown=self._stop,
            on_rejected=self._reject,
            admission=self._admission,
        )

    async def predict(
        self,
        rows: list[Any],
        *,
        context: Mapping[str, Any] | None = None,
        top_k: int | None = None,
        request_id: str | None = None,
    ) -> dict[str, Any]:
        """Answer a handle call as ``POST /predict`` would, as plain Python values.

        ``rows`` are dictionaries or lists in feature order; NaN counts as missing. Raises
        RequestInvalidError, RequestTooLargeError, OverloadedError or PredictionFailedError.
        """
        started_s = time.perf_counter()
        self._admission.arrive()
        try:
            body = encode_request(rows, top_k=top_k, context=context)
            request = self._predictor.variant.decoder.decode(body)
            identity = str(uuid.uuid4())
            if request_id is not None:
                identity = check_request_id(request_id, "request_id")
            response = await self._predictor.answer(request, identity, started_s=started_s)
        except REFUSALS as exc:
            self._reject(int(refusal(exc, retry_after_s=1).status))
            raise
        finally:
            self._admission.leave()
        answer: dict[str, Any] = msgspec.to_builtins(response)
        return answer

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply `user_config`; Ray Serve calls this before the first request and on changes.

        A first one that is wrong ends the replica. A later one is refused, with a warning, and the
        one before stays: Ray Serve would stop the replica, and with it the service.
        """
        try:
            config = UserConfig.model_validate(user_config)
            config.traffic.require_loaded(self._settings.variants)
            manifests = [bundle.manifest for bundle in self._bundles.values()]
            sampling = sampling_options(config.sampling, manifests, self._settings.masking)
            await self._agents.configure(sampling)
            self._versions.apply(config.traffic)
        except (TreelineError, ValueError) as exc:
            if not self._configured:
                raise
            said = complaint(exc) if isinstance(exc, ValidationError) else str(exc)
            self._refused_config = f"`user_config` was refused, the one before stays: {said}"
            logger.error("%s", self._refused_config)
            return
        self._configured, self._refused_config = True, None
        logger.info("user_config applied: %s", config.model_dump(exclude_defaults=True))

    def _read_scaling(self) -> ScalingRecord | None:
        return read_scaling(self._deployment.app_name, self._deployment.name)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray Serve once a second; what the latency policy judges by."""
        return self._signals.stats()

    async def _keep_up(self) -> None:
        """Follow the split's clock and tell the agent the counters.

        A missed report is made up by the next.
        """
        if self._versions.router is not None:
            self._versions.router.follow_clock()
        await self._send_report()

    async def _send_report(self, *, closed: bool = False) -> None:
        shard = shard_of(self._replica, self._agents.shards)
        report = msgspec.structs.replace(self._report(), closed=closed)
        try:
            await self._agents.call(shard, "report", msgspec.msgpack.encode(report))
        except AgentsUnavailableError as exc:
            logger.debug("counters not reported: %s", exc)

    def _report(self) -> ReplicaReport:
        return ReplicaReport(
            replica=self._replica,
            variants=self._versions.counts(),
            captures=tuple(capture.counts() for capture in self._versions.captures),
            ongoing=self._admission.requests,
            rejected=dict(self._rejected),
            node=self._node,
            journals=tuple(capture.producer for capture in self._captures()),
            warnings=tuple(self._warnings()),
            disk=self._disk,
        )

    def _warnings(self) -> list[str]:
        refused = [self._refused_config] if self._refused_config else []
        return refused + [each for capture in self._captures() for each in capture.warnings()]

    def _captures(self) -> list[StreamCapture]:
        return [*self._versions.captures, *([self._feedback] if self._feedback else [])]

    def _reject(self, status: int) -> None:
        self._rejected[status] += 1

    async def _stop(self) -> None:
        """Hand over the last events and counters and have them stored; Ray Serve waits for this.

        Whatever is not done in time waits on disk for the next start.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(each.stop(SHADOW_TIMEOUT_S) for each in self._versions.shadows()))
        captures = self._captures()
        closed = await asyncio.gather(*(capture.close(FLUSH_TIMEOUT_S) for capture in captures))
        if not all(closed):
            logger.warning("not all events were handed over; the next replica takes the rest")
        await self._send_report(closed=all(closed))
        try:
            await self._agents.call_all("flush", STORE_TIMEOUT_S)
        except AgentsUnavailableError as exc:
            logger.warning("the agent's last files wait in its spool: %s", exc)
        logger.info("replica stopped: %s", msgspec.to_builtins(self._report(), str_keys=True))
