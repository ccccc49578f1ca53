"""The deployment that answers requests: one replica's parts, started and stopped in order."""

import asyncio
import logging
import time
import uuid
from collections import Counter
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray import serve
from ray.exceptions import RayError

from monitoring.capture.folder import StreamDescription
from monitoring.capture.journal import Journal
from monitoring.capture.recorder import Recorder
from monitoring.capture.sender import AgentTransport, Sender
from monitoring.events import ReplicaReport
from serve_app.admission import Admission
from serve_app.agents import Agents, AgentsUnavailableError, shard_of
from serve_app.http.asgi import Application, predict_route
from serve_app.http.monitor import monitor_routes
from serve_app.logs import share_handlers
from serve_app.model.bundle import load_bundle
from serve_app.model.pipeline import compile_scorer
from serve_app.prediction import Predictor, Variant
from serve_app.schema import RequestDecoder, RequestInvalidError, encode_rows, read_context
from serve_app.settings import Settings, UserConfig
from serve_app.telemetry import VariantTelemetry
from serve_app.wiring import (
    champion_stream,
    journal_limits,
    masking_policy,
    sampling_options,
    storage_options,
)

logger = logging.getLogger(__name__)

REPORT_INTERVAL_S = 1.0
FLUSH_TIMEOUT_S = 10.0
PROOF_ROWS = 256
"""Rows of the baseline that the compiled forest has to prove itself equal on."""


class ModelServer:
    """Serves one bundle over HTTP and handles, and hands every event to its monitoring agent."""

    async def __init__(self, arguments: dict[str, Any], key: bytes) -> None:
        """``arguments`` are checked settings; ``key`` is the masking key."""
        share_handlers()
        settings = Settings.model_validate(arguments)
        self._settings = settings
        self._replica = serve.get_replica_context().replica_id.unique_id
        self._agents = Agents(settings.agent.shards)
        self._rejected: Counter[int] = Counter()
        self._admission = Admission(settings.serving.max_pending_rows)
        policy = masking_policy(settings.masking, key)
        bundle = load_bundle(
            settings.model_root,
            settings.model.name,
            settings.model.version,
            storage_options=storage_options(settings.storage, settings.model_root),
        )
        manifest = bundle.manifest
        policy.require_known([feature.name for feature in manifest.features])
        names = [f"x_{feature.name}" for feature in manifest.features]
        columns = [bundle.baseline[name].to_pylist()[:PROOF_ROWS] for name in names]
        scorer = compile_scorer(
            bundle.model,
            manifest.logged_features(),
            check_rows=[list(row) for row in zip(*columns, strict=True)],
        )
        scorer.warm()
        if scorer.reason:
            logger.warning("scikit-learn serves this model: %s", scorer.reason)
        stream = champion_stream(manifest, policy)
        self._recorder: Recorder | None = None
        self._sender: Sender | None = None
        if settings.capture.enabled:
            producer = f"{self._replica}-{uuid.uuid4().hex[:8]}-0"
            description = StreamDescription(
                producer=producer,
                stream=stream,
                policy_id=policy.policy_id,
                node=ray.get_runtime_context().get_node_id(),
                env=settings.env,
            )
            journal = Journal(
                Path(settings.state_dir) / "journal",
                description,
                limits=journal_limits(settings.capture.journal),
                monotonic=time.monotonic,
            )
            self._recorder = Recorder(journal, policy, manifest.logged_features())
            self._shard = shard_of(producer, settings.agent.shards)
            self._sender = Sender(
                journal,
                AgentTransport(lambda: self._agents.lookup(self._shard)),
            )
        self._telemetry = VariantTelemetry(stream)
        variant = Variant(
            stream=stream,
            decoder=RequestDecoder(manifest.features, classes=len(manifest.classes)),
            scorer=scorer,
            recorder=self._recorder,
            telemetry=self._telemetry,
        )
        self._predictor = Predictor(
            variant, self._admission, inline_rows=settings.serving.inline_rows
        )
        self._reporting = asyncio.create_task(self._report_for_ever())
