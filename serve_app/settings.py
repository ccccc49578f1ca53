"""What operators write in a Serve config: `args` (structure) and `user_config` (live).

`args` shape the application and restart its replicas when they change. `user_config` is applied to
running replicas and agents. An unknown key is refused by name, with the keys that are allowed.

Errors name the key, the value and what is allowed. pydantic would print whole sections as they were
given, secrets included, so its inputs are hidden and ``Root`` writes the messages.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from serve_app.section import Name, Root, Section
from serve_app.traffic_settings import Traffic

MaskingAction = Literal["keep", "drop", "hmac", "truncate", "bucket"]


class Storage(Section):
    """How to reach object storage; what is left out comes from the environment (`AWS_…`)."""

    endpoint_url: str | None = Field(
        None, description="S3 endpoint, for servers other than AWS (`AWS_ENDPOINT_URL_S3`)."
    )
    access_key_id: str | None = Field(None, description="Better kept in `AWS_ACCESS_KEY_ID`.")
    secret_access_key: SecretStr | None = Field(
        None, description="Better kept in `AWS_SECRET_ACCESS_KEY`: Ray shows `args` to its admins."
    )
    region: str | None = Field(None, description="Region name (`AWS_DEFAULT_REGION`).")


class ModelRef(Section):
    """A bundle: the folder `<model_root>/<name>/<version>`."""

    name: Name = Field("credit", description="Model name.")
    version: Name = Field("1.0.0", description="Model version.")


class MaskingRule(Section):
    """What happens to one field before it leaves the request."""

    action: MaskingAction = Field(
        description="`keep`, `drop`, `hmac` (keyed pseudonym), `truncate` (text to `length`) or "
        "`bucket` (number to the lower edge of its `width`)."
    )
    length: int | None = Field(None, ge=0, description="Characters kept by `truncate`.")
    width: float | None = Field(None, gt=0, description="Width of a `bucket`.")


class Masking(Section):
    """Personal data in the log. Masking acts in the replica, before anything touches a disk.

    User and session ids become keyed pseudonyms. Tags and other context fields are dropped unless
    `tags` names them. Features are kept unless `features` names them.
    """

    user_id: MaskingRule = MaskingRule(action="hmac")
    session_id: MaskingRule = MaskingRule(action="hmac")
    features: dict[str, MaskingRule] = Field(default_factory=dict, description="By feature name.")
    tags: dict[str, MaskingRule] = Field(
        default_factory=dict,
        description="By name of a tag or other context field; all others are dropped.",
    )
    key_env: str = Field(
        "TREELINE_MASKING_KEY",
        description="Environment variable with the key for `hmac`. When it is not set, a key is "
        "made once and kept in `<state_dir>/masking.key`, readable by its owner only.",
    )


class Journal(Section):
    """The replica's log on disk, from which the agent is fed."""

    segment_bytes: int = Field(8 << 20, ge=1 << 12, description="Size at which a file is closed.")
    quota_bytes: int = Field(
        1 << 30, ge=1 << 16, description="Disk a replica may use; past it events are counted drops."
    )
    memory_bytes: int = Field(
        16 << 20, ge=0, description="Buffer that stands in while the folder cannot be written."
    )

    @model_validator(mode="after")
    def _room_for_two_segments(self) -> Self:
        # One acknowledged segment that is still written to could use up the quota for ever.
        if self.quota_bytes < 2 * self.segment_bytes:
            raise ValueError(
                f"quota_bytes is {self.quota_bytes}; allowed: at least twice segment_bytes, "
                f"{2 * self.segment_bytes}"
            )
        return self


class Capture(Section):
    """From the request to the agent."""

    enabled: bool = Field(True, description="Log predictions at all.")
    flush_interval_s: float = Field(1.0, gt=0, le=60, description="Hand over this often.")
    batch_rows: int = Field(1_000, ge=1, le=100_000, description="Hand over at most so many rows.")
    journal: Journal = Journal()


class Agent(Section):
    """The monitoring agent: from received batches to Parquet on storage."""

    shards: int = Field(1, ge=1, le=64, description="Number of agents; replicas spread over them.")
    file_max_age_s: float = Field(
        3600, gt=0, le=3600, description="A file is closed after this long, and at the full hour."
    )
    file_max_bytes: int = Field(
        64 << 20, ge=1 << 10, description="A file is closed at about this size."
    )
    fsync: Literal["always", "interval", "never"] = Field(
        "interval", description="When the spool is forced to disk before events are acknowledged."
    )


class Live(Section):
    """What is counted and judged while traffic flows."""

    enabled: bool = Field(True, description="Count and judge live.")
    drift_window_s: int = Field(
        3600,
        gt=0,
        le=86_400,
        description="Length of the windows that drift is judged on: whole minutes, or part of one.",
    )
    late_s: float = Field(
        120,
        ge=0,
        description="A window is judged so long after its end; later events count, and are not "
        "judged.",
    )
    false_alarms_per_month: float = Field(
        1, gt=0, description="Drift alarms to be expected of a model that does not drift."
    )
    feedback_requests: int = Field(
        500_000,
        ge=0,
        description="Newest requests that feedback is joined to live, on each node; 0 for none.",
    )

    @field_validator("drift_window_s")
    @classmethod
    def _fits_minutes(cls, value: int) -> int:
        if value % 60 and 60 % value:
            raise ValueError("allowed: whole minutes, or a part of one, in seconds")
        return value


class Alerts(Section):
    """Who is told when something is wrong, besides Prometheus."""

    webhook_url: SecretStr | None = Field(
        None,
        description="Alerts are posted here as JSON. Better kept in the environment: Ray shows "
        "`args` to its admins.",
    )
    public_url: str | None = Field(
        None, description="Where people reach the application; links in alerts begin with it."
    )
    webhook_env: str = Field(
        "TREELINE_ALERT_WEBHOOK",
        description="Environment variable with the URL, read where the application is built.",
    )

    @field_validator("webhook_url", "public_url")
    @classmethod
    def _is_http(cls, value: SecretStr | str | None) -> SecretStr | str | None:
        url = value.get_secret_value() if isinstance(value, SecretStr) else value
        if url is not None and not url.startswith(("http://", "https://")):
            raise ValueError("allowed: a URL that begins with http:// or https://")
        return value


class Serving(Section):
    """Limits of the request path."""

    max_body_bytes: int = Field(32 << 20, ge=1 << 10, description="A larger body is answered 413.")
    max_rows: int = Field(100_000, ge=1, description="More rows in one request are answered 413.")
    max_pending_rows: int = Field(
        400_000, ge=1, description="Rows admitted and unanswered in a replica; past it 429."
    )
    max_waiting_requests: int = Field(
        500, ge=1, description="Requests in a replica, read or not; past it 429."
    )
    inline_rows: int = Field(
        64,
        ge=0,
        description="Requests of up to so many rows are scored on the event loop; larger ones, and "
        "all that take scikit-learn, in a thread, so that they do not hold up others.",
    )
    fast_path: bool = Field(
        True,
        description="Answer requests with a body of up to 16 KiB ahead of Ray Serve's own request "
        "handling, as long as its access log is off.",
    )
    retry_after_s: int = Field(1, ge=1, description="`Retry-After` of an overload answer.")
    max_ongoing_requests: int = Field(
        1_000, ge=1, description="Requests a replica takes at once before Ray Serve queues them."
    )
    max_queued_requests: int = Field(
        2_000, ge=-1, description="Requests Ray Serve queues beyond that before it answers 429."
    )
    num_replicas: int = Field(1, ge=1, description="Replicas, where no autoscaling is configured.")
    num_cpus: float = Field(1, ge=0, description="CPUs Ray reserves for each replica.")
    max_shadow_rows: int = Field(
        20_000,
        ge=1,
        description="Rows that wait in a replica for each shadow; copies beyond are dropped.",
    )


class Settings(Root):
    """`args` of `serve_app.app:build`."""

    model: ModelRef = ModelRef()
    variants: list[Name] = Field(
        default_factory=list,
        description="Further versions of the model that every replica loads; "
        "`user_config.traffic` says what each gets.",
    )
    model_root: str = Field(".treeline/models", description="Folder or URL that holds bundles.")
    sink: str = Field(".treeline/sink", description="Folder or URL the log is written to.")
    state_dir: str = Field(
        ".treeline/state", description="Local folder for journals, spool and keys, on every node."
    )
    env: str = Field("production", description="Stored with every event in the column `env`.")
    storage: Storage = Storage()
    serving: Serving = Serving()
    capture: Capture = Capture()
    masking: Masking = Masking()
    agent: Agent = Agent()
    live: Live = Live()
    alerts: Alerts = Alerts()

    @model_validator(mode="after")
    def _versions_differ(self) -> Self:
        loaded = [self.model.version, *self.variants]
        twice = sorted({version for version in loaded if loaded.count(version) > 1})
        if twice:
            raise ValueError(f"variants: {', '.join(twice)} is given twice; allowed: once")
        return self

    @field_validator("state_dir")
    @classmethod
    def _state_is_local(cls, value: str) -> str:
        if "://" in value:
            raise ValueError("allowed: a local folder, on a disk that knows file locks")
        return value

    def resolved(self) -> Self:
        """Make local paths absolute, so that every process of the cluster means the same folder."""
        return self.model_copy(
            update={
                key: value if "://" in value else str(Path(value).expanduser().absolute())
                for key, value in (
                    ("model_root", self.model_root),
                    ("sink", self.sink),
                    ("state_dir", self.state_dir),
                )
            }
        )


class KeepRules(Section):
    """Events that are kept whatever the rate says."""

    errors: bool = Field(True, description="Keep every failed request.")
    score_below: float | None = Field(
        None, ge=0, le=1, description="Keep requests with a row of lower confidence."
    )
    slower_than_ms: float | None = Field(None, gt=0, description="Keep slower requests.")
    unusual_inputs: bool = Field(
        False,
        description="Keep requests with a number outside the training data's range or a category "
        "it did not have. Features whose masking changes their values are not looked at.",
    )


class Sampling(Section):
    """Which events are stored. Whatever is not stored still counts in metrics and windows."""

    rate: float = Field(1.0, ge=0, le=1, description="Share of requests kept, by hash of their id.")
    rates: dict[
        Literal["champion", "challenger", "shadow"], Annotated[float, Field(ge=0, le=1)]
    ] = Field(default_factory=dict, description="The rate by variant, where it differs.")
    keep: KeepRules = KeepRules()
    max_rows_per_s: float | None = Field(
        None, gt=0, description="Budget per agent; above it the rate is lowered, the weights rise."
    )


class UserConfig(Root):
    """`user_config` of the deployment `ModelServer`: takes effect while it runs."""

    sampling: Sampling = Sampling()
    traffic: Traffic = Traffic()
