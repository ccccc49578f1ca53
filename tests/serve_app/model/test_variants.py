from datetime import UTC, datetime
from typing import Any

import pytest

from serve_app.errors import BundleUnfit
from serve_app.model.manifest import FeatureSpec, Manifest
from serve_app.model.variants import columns_for

AGE = FeatureSpec(name="age", dtype="int64", nullable=False)
CITY = FeatureSpec(name="city", dtype="string", nullable=True)


def manifest(*features: FeatureSpec, **changes: Any) -> Manifest:
    given: dict[str, Any] = {
        "name": "credit",
        "version": "2.0.0",
        "feature_set_version": "2",
        "task": "classification",
        "features": features,
        "classes": ("bad", "good"),
        "sklearn_version": "1.9.1",
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "training_metrics": {},
        "sha256": {"model.joblib": "0" * 64, "baseline.parquet": "0" * 64},
    }
    return Manifest(**given | changes)


CHAMPION = manifest(AGE, CITY, version="1.0.0")


def test_the_same_features_need_no_reordering() -> None:
    assert columns_for(CHAMPION, manifest(AGE, CITY)) is None


def test_fewer_features_or_another_order_are_picked() -> None:
    assert columns_for(CHAMPION, manifest(CITY, AGE)) == (1, 0)
    assert columns_for(CHAMPION, manifest(CITY)) == (1,)
    assert columns_for(CHAMPION, manifest(AGE)) == (0,)


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (manifest(AGE, FeatureSpec(name="job", dtype="string", nullable=False)), "'job' is none"),
        (manifest(FeatureSpec(name="age", dtype="float64", nullable=False)), "float64, not int64"),
        (manifest(FeatureSpec(name="city", dtype="string", nullable=False)), "'city' may be null"),
        (manifest(AGE, classes=("good", "bad")), r"classes are \['good', 'bad'\]"),
        (manifest(AGE, task="regression", classes=()), "it is a regression"),
    ],
)
def test_what_cannot_answer_is_refused_by_name(other: Manifest, problem: str) -> None:
    with pytest.raises(BundleUnfit, match=rf"2\.0\.0 cannot answer.*1\.0\.0.*{problem}"):
        columns_for(CHAMPION, other)
