"""Options of the monitoring agent. Every field has a unit in its name and a safe default."""

from typing import Any, Literal

import msgspec

from monitoring.events import VariantRole

FsyncMode = Literal["always", "interval", "never"]

MIB = 1024 * 1024
GIB = 1024 * MIB


class SinkSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the log goes: a local folder, ``s3://bucket/prefix`` or ``gs://bucket/prefix``.

    Credentials left empty come from the environment, as the storage's own client reads them.
    ``upload_timeout_s`` is for one upload as a whole, besides the time its bytes may take.
    """

    url: str = ".treeline/sink"
    endpoint_url: str | None = None
    key: str | None = None
    secret: str | None = None
    token: str | None = None
    region: str | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    upload_timeout_s: float = 120.0

    def __repr__(self) -> str:
        """Show where data goes; never who may write it."""
        credentials = "given" if self.key or self.secret or self.token else "from the environment"
        return (
            f"SinkSettings(url={self.url!r}, endpoint_url={self.endpoint_url!r}, "
            f"region={self.region!r}, credentials={credentials})"
        )


class InputLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one feature looked like in training; None is unlimited."""

    min: float | None = None
    max: float | None = None
    categories: tuple[str, ...] | None = None


class RuleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events that are always kept, whatever the rate and the budget say. None turns a rule off."""

    errors: bool = True
    low_confidence_below: float | None = None
    slow_above_ms: float | None = None
    out_of_range: dict[str, dict[str, InputLimits]] = {}  # by model version, by feature


class SamplingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which share of events is stored. ``rows_per_s`` None means no budget."""

    rates: dict[VariantRole, float] = {}
    rules: RuleSettings = RuleSettings()
    rows_per_s: float | None = None

    def __post_init__(self) -> None:
        for variant, rate in self.rates.items():
            if not 0.0 <= rate <= 1.0:
                raise ValueError(f"sampling.rates[{variant!r}] is {rate}; allowed: 0.0 to 1.0")
        if self.rows_per_s is not None and self.rows_per_s <= 0.0:
            raise ValueError(f"sampling.rows_per_s is {self.rows_per_s}; allowed: above 0, or null")


class SpoolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How deliveries are kept until they are on storage.

    ``fsync`` says when the disk is forced: before every acknowledgement, every
    ``fsync_interval_s``, or never. Killed processes lose nothing in any mode; power loss of the
    machine can lose what was not forced yet. Past ``max_bytes`` the agent takes nothing in, and
    the replicas' journals hold what comes. ``aside_bytes`` bounds the sampled-out rows that wait to
    be counted live.
    """

    fsync: FsyncMode = "interval"
    fsync_interval_s: float = 0.1
    file_bytes: int = 64 * MIB
    max_age_s: float = 3600.0
    hour_grace_s: float = 20.0
    max_bytes: int = 20 * GIB
    max_open_segments: int = 64
    max_waiting_bytes: int = 256 * MIB
    producer_retention_s: float = 30 * 86400.0
    dead_letter_bytes: int = GIB
    aside_bytes: int = 256 * MIB

    def __post_init__(self) -> None:
        for name in ("fsync_interval_s", "file_bytes", "max_age_s", "max_bytes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"spool.{name} is {getattr(self, name)}; allowed: above 0")
        if self.max_open_segments < 1:
            raise ValueError(
                f"spool.max_open_segments is {self.max_open_segments}; allowed: 1 and more"
            )


class RetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Waits between uploads that failed: doubled from the first to the last, with full jitter."""

    first_s: float = 0.5
    last_s: float = 60.0


class LiveSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is counted and judged while traffic flows.

    ``models`` is where bundles lie. Features in ``changed_by_masking`` are not compared with
    training. A drift window is judged ``late_s`` after its end; what arrives later still counts.
    The newest ``feedback_requests`` are remembered for feedback; 0 joins none. Alerts are posted to
    ``webhook_url``, which is a secret; their links begin with ``public_url``, if there is one.
    """

    models: SinkSettings = SinkSettings(url=".treeline/models")
    changed_by_masking: tuple[str, ...] = ()
    interval_s: float = 2.0
    drift_window_s: int = 3600
    late_s: float = 120.0
    false_alarms_per_month: float = 1.0
    feedback_requests: int = 500_000
    webhook_url: str | None = None
    public_url: str = ""

    def __repr__(self) -> str:
        """Show everything but where alerts go."""
        webhook = "given" if self.webhook_url else None
        return (
            f"LiveSettings(models={self.models!r}, drift_window_s={self.drift_window_s}, "
            f"late_s={self.late_s}, false_alarms_per_month={self.false_alarms_per_month}, "
            f"webhook_url={webhook})"
        )

    def __post_init__(self) -> None:
        divides = 60 % self.drift_window_s == 0 if self.drift_window_s > 0 else False
        if not divides and (self.drift_window_s <= 0 or self.drift_window_s % 60):
            raise ValueError(
                f"live.drift_window_s is {self.drift_window_s}; allowed: parts of a minute and "
                "whole minutes, in seconds"
            )


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything one shard of the monitoring agent needs to know.

    ``policy_ids`` are the masking policies it takes deliveries under. ``shards`` is how many agents
    run on this ``state_dir``: what shards with higher numbers have left is taken over. Without
    ``live`` nothing is counted live.
    """

    policy_ids: tuple[str, ...]
    state_dir: str = ".treeline/state"
    shard: str = "0"
    shards: int = 1
    sink: SinkSettings = SinkSettings()
    sampling: SamplingSettings = SamplingSettings()
    spool: SpoolSettings = SpoolSettings()
    retry: RetrySettings = RetrySettings()
    live: LiveSettings | None = None

    def __post_init__(self) -> None:
        if not self.shard.isalnum():
            raise ValueError(f"shard is {self.shard!r}; allowed: letters and digits")
        if self.shards < 1:
            raise ValueError(f"shards is {self.shards}; allowed: 1 and more")


def agent_settings(options: dict[str, Any]) -> AgentSettings:
    """Check plain options (from YAML or an actor's arguments) and make settings of them."""
    return msgspec.convert(options, AgentSettings)
