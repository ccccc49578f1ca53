"""Ray's own key-value store: where the policy tells what it decided, and keeps what it knows."""

from typing import Final

KV_NAMESPACE: Final = b"treeline"


class ClusterStore:
    """Values that outlive the controller. A call may block briefly."""

    def put(self, key: str, value: bytes) -> None:
        from ray.experimental.internal_kv import _internal_kv_put

        _internal_kv_put(key.encode(), value, overwrite=True, namespace=KV_NAMESPACE)

    def get(self, key: str) -> bytes | None:
        from ray.experimental.internal_kv import _internal_kv_get

        value: bytes | None = _internal_kv_get(key.encode(), namespace=KV_NAMESPACE)
        return value


def scaling_key(app_name: str, deployment: str) -> str:
    """Where the decisions of a deployment are told."""
    return f"scaling/{app_name}/{deployment}"


def memory_key(app_name: str, deployment: str) -> str:
    """Where the policy keeps what it knows of a deployment."""
    return f"scaling-memory/{app_name}/{deployment}"
