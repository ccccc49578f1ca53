"""Settings as people write them, turned into the options each part takes."""

import os
from collections.abc import Iterable, Sequence
from typing import Any

from monitoring.capture.journal import JournalLimits
from monitoring.capture.masking import FieldRule, MaskingPolicy, MaskingRules
from monitoring.events import Stream, VariantRole
from serve_app.model.manifest import Manifest
from serve_app.model.storage import BundleFolder
from serve_app.settings import Alerts, Journal, Masking, MaskingRule, Sampling, Settings, Storage


def bundle_folder(settings: Settings, version: str) -> BundleFolder:
    """Where a version of the served model lies."""
    return BundleFolder(
        settings.model_root,
        settings.model.name,
        version,
        storage_options=storage_options(settings.storage, settings.model_root),
    )


def storage_options(storage: Storage, url: str) -> dict[str, Any]:
    """Arguments of the fsspec filesystem behind ``url``; the environment supplies the rest."""
    if not url.startswith(("s3://", "s3a://")):
        return {}
    secret = storage.secret_access_key
    options = {
        "endpoint_url": storage.endpoint_url,
        "key": storage.access_key_id,
        "secret": secret.get_secret_value() if secret else None,
        "client_kwargs": {"region_name": storage.region} if storage.region else None,
    }
    return {key: value for key, value in options.items() if value is not None}


def masking_policy(masking: Masking, key: bytes) -> MaskingPolicy:
    """The policy of the settings; MaskingPolicyInvalid names the field that is wrong."""
    rules = MaskingRules(
        user_id=_rule(masking.user_id),
        session_id=_rule(masking.session_id),
        tags={name: _rule(rule) for name, rule in masking.tags.items()},
        features={name: _rule(rule) for name, rule in masking.features.items()},
    )
    return MaskingPolicy(rules, key=key)


def _rule(rule: MaskingRule) -> FieldRule:
    return FieldRule(rule.action, rule.length, rule.width)


def journal_limits(journal: Journal) -> JournalLimits:
    return JournalLimits(
        segment_bytes=journal.segment_bytes,
        quota_bytes=journal.quota_bytes,
        buffer_bytes=journal.memory_bytes,
    )


def variant_stream(manifest: Manifest, role: VariantRole) -> Stream:
    """The stream of a bundle in one of its roles, before masking."""
    return Stream(
        model=manifest.name,
        version=manifest.version,
        feature_set_version=manifest.feature_set_version,
        variant=role,
        task=manifest.task,
        features=manifest.logged_features(),
        classes=manifest.classes,
    )


def agent_options(settings: Settings, shard: int, policy_ids: Sequence[str]) -> dict[str, Any]:
    """Options of one monitoring agent, as its actor takes them."""
    return {
        "policy_ids": list(policy_ids),
        "state_dir": settings.state_dir,
        "shard": str(shard),
        "shards": settings.agent.shards,
        "sink": storage_of(settings.storage, settings.sink),
        "spool": {
            "fsync": settings.agent.fsync,
            "file_bytes": settings.agent.file_max_bytes,
            "max_age_s": settings.agent.file_max_age_s,
        },
        "live": live_options(settings) if settings.live.enabled else None,
    }


def live_options(settings: Settings) -> dict[str, Any]:
    """Options of what counts and judges live, beside an agent."""
    live = settings.live
    return {
        "models": storage_of(settings.storage, settings.model_root),
        "changed_by_masking": sorted(
            name for name, rule in settings.masking.features.items() if rule.action != "keep"
        ),
        "drift_window_s": live.drift_window_s,
        "late_s": live.late_s,
        "false_alarms_per_month": live.false_alarms_per_month,
        "feedback_requests": live.feedback_requests,
        "webhook_url": webhook_url(settings.alerts),
        "public_url": settings.alerts.public_url or "",
    }


def webhook_url(alerts: Alerts) -> str | None:
    """Where alerts go: from the settings, else from the environment."""
    if alerts.webhook_url is not None:
        return alerts.webhook_url.get_secret_value()
    return os.environ.get(alerts.webhook_env) or None


def storage_of(storage: Storage, url: str) -> dict[str, Any]:
    """A place on storage, as the agent takes it."""
    secret = storage.secret_access_key
    return {
        "url": url,
        "endpoint_url": storage.endpoint_url,
        "key": storage.access_key_id,
        "secret": secret.get_secret_value() if secret else None,
        "region": storage.region,
    }


def usual_inputs(manifest: Manifest, masking: Masking) -> dict[str, dict[str, Any]]:
    """By feature, what the training data held; the agent sees masked values, so none of those."""
    return {
        feature.name: {
            "min": feature.min,
            "max": feature.max,
            "categories": feature.categories,
        }
        for feature in manifest.features
        if masking.features.get(feature.name, MaskingRule(action="keep")).action == "keep"
        and (feature.categories is not None or feature.min is not None)
    }


def sampling_options(
    sampling: Sampling, manifests: Iterable[Manifest], masking: Masking
) -> dict[str, Any]:
    """What ``configure`` of an agent takes; ``manifests`` are those of all loaded versions."""
    by_version = {each.version: usual_inputs(each, masking) for each in manifests}
    limits = {version: each for version, each in by_version.items() if each}
    rates = dict.fromkeys(("champion", "challenger", "shadow"), sampling.rate) | sampling.rates
    return {
        "rates": rates,
        "rules": {
            "errors": sampling.keep.errors,
            "low_confidence_below": sampling.keep.score_below,
            "slow_above_ms": sampling.keep.slower_than_ms,
            "out_of_range": limits if sampling.keep.unusual_inputs else {},
        },
        "rows_per_s": sampling.max_rows_per_s,
    }
