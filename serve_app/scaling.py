"""What the latency policy decided, as replicas read it from Ray's key-value store."""

from typing import Any

import msgspec
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from autoscaling.serve_policy import KV_NAMESPACE, scaling_key


class ScalingRecord(msgspec.Struct, frozen=True):
    """The objective and the newest decisions, oldest first; see docs/autoscaling.md."""

    slo_ms: float
    quantile: float
    decisions: list[dict[str, Any]]


def read_scaling(app_name: str, deployment: str) -> ScalingRecord | None:
    """Read the decisions of a deployment; None where no latency policy runs. May block briefly."""
    from ray.experimental.internal_kv import _internal_kv_get

    key = scaling_key(app_name, deployment).encode()
    value = _internal_kv_get(key, namespace=KV_NAMESPACE)
    return None if value is None else msgspec.json.decode(value, type=ScalingRecord)


def scaling_exposition(record: ScalingRecord | None) -> bytes:
    """The newest decision as Prometheus text; nothing where there is none."""
    if record is None or not record.decisions:
        return b""
    newest = record.decisions[-1]
    registry = CollectorRegistry()
    for name, meaning, value in (
        ("treeline_scaling_target_replicas", "Replicas the policy wants.", newest["target"]),
        ("treeline_scaling_running_replicas", "Replicas that serve.", newest["running"]),
        ("treeline_scaling_objective_seconds", "The objective.", record.slo_ms / 1e3),
        ("treeline_scaling_arrival_rate", "Requests a second now.", newest["arrivals_rps"]),
        ("treeline_scaling_late_ratio", "Late share expected.", newest["late_share"]),
    ):
        if value is not None:
            Gauge(name, meaning, registry=registry).set(value)
    text: bytes = generate_latest(registry)
    return text
