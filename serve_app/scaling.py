"""What the latency policy decided, as replicas read it from Ray's key-value store."""

from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from autoscaling.cluster_store import ClusterStore, scaling_key


class ScalingRecord(msgspec.Struct, frozen=True):
    """The objective and the newest decisions, oldest first; see docs/autoscaling.md."""

    slo_ms: float
    quantile: float
    decisions: list[dict[str, Any]]


def read_scaling(app_name: str, deployment: str) -> ScalingRecord | None:
    """Read the decisions of a deployment; None where no latency policy runs. May block briefly."""
    value = ClusterStore().get(scaling_key(app_name, deployment))
    return None if value is None else msgspec.json.decode(value, type=ScalingRecord)


#: Gauge, what it means, and where the newest decision has it.
GAUGES: Final = (
    ("target_replicas", "Replicas the policy wants.", "target"),
    ("running_replicas", "Replicas that serve.", "running"),
    ("arrivals_per_second", "Requests a second now.", "arrivals_rps"),
    ("peak_arrivals_per_second", "Requests a second to be ready for.", "peak_rps"),
    ("capacity_per_second", "Requests a second the wanted replicas take.", "capacity_rps"),
    ("backlog_requests", "Requests that will wait when new replicas are up.", "backlog"),
    ("late_ratio", "Late share expected.", "late_share"),
    ("decision_timestamp_seconds", "When the newest decision was made, Unix time.", "ts"),
)


def scaling_exposition(record: ScalingRecord | None) -> bytes:
    """The newest decision as Prometheus text; nothing where there is none.

    A value that the policy does not know, just after a start, has no sample.
    """
    if record is None or not record.decisions:
        return b""
    newest = record.decisions[-1]
    registry = CollectorRegistry()
    for name, meaning, key in GAUGES:
        if newest.get(key) is not None:
            Gauge(f"treeline_scaling_{name}", meaning, registry=registry).set(newest[key])
    objective = Gauge("treeline_scaling_objective_seconds", "The objective.", registry=registry)
    objective.set(record.slo_ms / 1e3)
    term = Gauge(
        "treeline_scaling_decision",
        "1 for the part of the policy that had the last word; see docs/autoscaling.md.",
        ["term"],
        registry=registry,
    )
    term.labels(newest["term"]).set(1)
    text: bytes = generate_latest(registry)
    return text
