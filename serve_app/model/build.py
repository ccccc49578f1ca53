"""Make a bundle from a fitted model and the data it was trained on."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pandas as pd
import pyarrow as pa

from serve_app.errors import BundleUnbuildable
from serve_app.model.baseline import build_baseline, encode_baseline
from serve_app.model.bundle import StagedBundle
from serve_app.model.columns import convert_columns, infer_columns, model_frame
from serve_app.model.estimator import (
    Unpickled,
    class_names,
    class_values,
    final_forest,
    predict,
    task_of,
    trained_names,
    trained_width,
    use_one_thread,
)
from serve_app.model.manifest import (
    BASELINE_FILE,
    MODEL_FILE,
    FeatureSpec,
    Manifest,
    check_name,
)
from serve_app.model.predictions import Predictions, quality
from serve_app.model.verify import sha256_of

OOB_TOLERANCE: Final = 1e-6  # of R2: rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the person who makes a bundle calls it."""

    name: str
    version: str
    feature_set_version: str = "1"

    def __post_init__(self) -> None:
        check_name("name", self.name)
        check_name("version", self.version)
        check_name("feature_set_version", self.feature_set_version)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledData:
    """A table of inputs with the column that holds the true labels."""

    frame: pd.DataFrame
    label: str


def build_bundle(
    identity: Identity,
    *,
    model_bytes: bytes,
    unpickled: Unpickled,
    train: LabelledData,
    test: pd.DataFrame | None = None,
    created_at: datetime,
) -> StagedBundle:
    """Describe model and data, predict the training rows, and stage what a bundle holds.

    ``model_bytes`` are stored as they are; ``unpickled`` is the model in them. Metrics on the
    training data are named ``train_*``, those on ``test`` (held-out rows with the same columns)
    ``test_*``; ``oob_score`` is the forest's own, where it was asked to keep one, and ``oob_*`` a
    regressor's errors out of bag.

    BundleUnbuildable when the estimator is not allowed, columns or labels do not fit the model, or
    the model cannot predict its training rows.
    """
    model = unpickled.model
    forest = final_forest(model)
    use_one_thread(model)
    names = _feature_names(model, train)
    features, columns = infer_columns(train.frame, names)
    task, classes = task_of(model), class_names(model)
    predictions = _predict(model, columns, "training")
    labels = true_labels(train.frame, train.label, class_values(model))
    metrics = _named("train", quality(predictions, labels, classes))
    if hasattr(forest, "oob_score_"):
        metrics["oob_score"] = float(forest.oob_score_)
        metrics |= _named("oob", out_of_bag_quality(forest, labels))
    if test is not None:
        metrics |= _named("test", _held_out_quality(model, test, train.label, features))
    contents = {
        MODEL_FILE: model_bytes,
        BASELINE_FILE: encode_baseline(
            build_baseline(columns, labels, predictions, features, task)
        ),
    }
    manifest = Manifest(
        name=identity.name,
        version=identity.version,
        feature_set_version=identity.feature_set_version,
        task=task,
        features=features,
        classes=classes,
        sklearn_version=unpickled.sklearn_version,
        created_at=created_at,
        training_metrics=metrics,
        sha256={file: sha256_of(data) for file, data in contents.items()},
    )
    return StagedBundle(manifest=manifest, contents=contents)


def true_labels(frame: pd.DataFrame, label: str, classes: list[Any]) -> pa.Array:
    """Labels as the bundle stores them: text for the given classes, float64 when there are none.

    A label that is missing, or is no class of the model, raises BundleUnbuildable. ``1``, ``1.0``
    and ``True`` are one class, as they are to Python; the text is that of the model's class.
    """
    if label not in frame.columns:
        raise BundleUnbuildable(
            f"label column {label!r} is not in the data, which has {', '.join(map(str, frame))}"
        )
    values = frame[label]
    if values.isna().any():
        raise BundleUnbuildable(f"label column {label!r}: {values.isna().sum()} rows have no label")
    if not classes:
        try:
            return pa.array(values.astype("float64"), pa.float64())
        except (ValueError, TypeError) as exc:
            raise BundleUnbuildable(f"label column {label!r} is not numeric: {exc}") from exc
    texts = {value: str(value) for value in classes}
    unknown = sorted({repr(value) for value in values.unique().tolist() if value not in texts})
    if unknown:
        raise BundleUnbuildable(
            f"label column {label!r} holds {', '.join(unknown[:5])}; "
            f"the model's classes are {', '.join(map(repr, classes[:20]))}"
        )
    return pa.array([texts[value] for value in values.tolist()], pa.string())


def _feature_names(model: Any, train: LabelledData) -> tuple[str, ...]:
    if train.frame.empty:
        raise BundleUnbuildable("the training data has no rows")
    names = trained_names(model)
    if names is None:
        names = tuple(str(column) for column in train.frame.columns if column != train.label)
    if train.label in names:
        raise BundleUnbuildable(f"the label {train.label!r} is one of the model's inputs")
    missing = [name for name in names if name not in train.frame.columns]
    if missing:
        raise BundleUnbuildable(f"the data lacks the model's columns {', '.join(missing)}")
    width = trained_width(model)
    if width not in (None, len(names)):
        raise BundleUnbuildable(
            f"the model takes {width} columns, the data has {len(names)} "
            f"beside the label {train.label!r}"
        )
    return names


def _predict(model: Any, columns: pa.Table, which: str) -> Predictions:
    try:
        return predict(model, model_frame(columns))
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise BundleUnbuildable(f"the model does not predict the {which} rows: {exc}") from exc


def _held_out_quality(
    model: Any, test: pd.DataFrame, label: str, features: tuple[FeatureSpec, ...]
) -> dict[str, int | float]:
    if test.empty:
        raise BundleUnbuildable("the held-out data has no rows")
    columns = convert_columns(test, {feature.name: feature.dtype for feature in features})
    labels = true_labels(test, label, class_values(model))
    return quality(_predict(model, columns, "held-out"), labels, class_names(model))


def out_of_bag_quality(forest: Any, labels: pa.Array) -> dict[str, int | float]:
    """Measure a regressor's own out-of-bag predictions; nothing where they do not fit the labels.

    They do where both give the R2 that the forest has kept: else the labels are another table's, or
    the score another one.
    """
    predicted = getattr(forest, "oob_prediction_", None)
    if predicted is None or predicted.shape != (len(labels),):
        return {}
    measured = quality(Predictions(scores=predicted), labels, ())
    same = abs(measured.get("r2", math.nan) - float(forest.oob_score_)) < OOB_TOLERANCE
    return measured if same else {}


def _named(prefix: str, metrics: dict[str, int | float]) -> dict[str, int | float]:
    return {f"{prefix}_{key}": value for key, value in metrics.items()}
