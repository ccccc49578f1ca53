"""Settings reach each part in the form that part takes."""

from datetime import UTC, datetime

import msgspec

from monitoring.agent.settings import SamplingSettings, agent_settings
from monitoring.events import Feature
from serve_app.model.manifest import FeatureSpec, Manifest
from serve_app.settings import Masking, Sampling, Settings, Storage
from serve_app.wiring import agent_options, masking_policy, sampling_options, storage_options

MANIFEST = Manifest(
    name="credit",
    version="2.0.0",
    feature_set_version="1",
    task="classification",
    features=(
        FeatureSpec(name="age", dtype="int64", nullable=False, min=18, max=75),
        FeatureSpec(name="city", dtype="string", nullable=False, categories=("a", "b")),
        FeatureSpec(name="note", dtype="string", nullable=True),
    ),
    classes=("bad", "good"),
    sklearn_version="1.9.1",
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    training_metrics={},
    sha256={"model.joblib": "0" * 64, "baseline.parquet": "0" * 64},
)


def sampling(**options: object) -> SamplingSettings:
    masking = Masking.model_validate({"features": {"city": {"action": "hmac"}}})
    given = sampling_options(Sampling.model_validate(options), [MANIFEST], masking)
    return msgspec.convert(given, SamplingSettings)


def test_a_rate_by_variant_wins_over_the_rate() -> None:
    settings = sampling(rate=0.1, rates={"shadow": 0.5}, max_rows_per_s=100)
    assert settings.rates == {"champion": 0.1, "challenger": 0.1, "shadow": 0.5}
    assert settings.rows_per_s == 100


def test_unusual_inputs_are_those_outside_the_training_data_and_not_masked() -> None:
    assert sampling().rules.out_of_range == {}
    limits = sampling(keep={"unusual_inputs": True}).rules.out_of_range["2.0.0"]
    assert list(limits) == ["age"]
    assert (limits["age"].min, limits["age"].max) == (18, 75)


def test_agents_take_their_options_and_show_no_secret() -> None:
    settings = Settings.model_validate(
        {"sink": "s3://log", "storage": {"secret_access_key": "hunter2", "region": "eu-1"}}
    )
    agent = agent_settings(agent_options(settings, 3, ["policy"]))
    assert (agent.shard, agent.sink.secret, agent.sink.region) == ("3", "hunter2", "eu-1")
    assert agent.spool.max_age_s == 3600
    assert "hunter2" not in repr(agent)


def test_storage_options_are_for_s3_only() -> None:
    storage = Storage(endpoint_url="http://127.0.0.1:1", region="eu-1")
    assert storage_options(storage, "/a/folder") == {}
    assert storage_options(storage, "s3://bucket") == {
        "endpoint_url": "http://127.0.0.1:1",
        "client_kwargs": {"region_name": "eu-1"},
    }


def test_masking_rules_become_a_policy() -> None:
    masking = Masking.model_validate(
        {"tags": {"channel": {"action": "keep"}}, "features": {"age": {"action": "drop"}}}
    )
    policy = masking_policy(masking, bytes(32))
    assert policy.mask_tags({"channel": "web", "email": "a@b.c"}) == {"channel": "web"}
    assert policy.mask_user_id("alice") != "alice"
    assert policy.logged_features((Feature("age", "int64"),)) == (Feature("age", "int64"),)
