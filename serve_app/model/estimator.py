"""What Treeline needs to know about a scikit-learn model, and the only place that unpickles one."""

import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import pandas as pd
import sklearn
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline

from serve_app.errors import BundleInvalid, BundleUnbuildable
from serve_app.model.manifest import Task
from serve_app.model.predictions import Predictions

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpickled:
    """A model and the scikit-learn version that pickled it."""

    model: Any
    sklearn_version: str


def unpickle_model(data: bytes, *, source: str) -> Unpickled:
    """Unpickle exactly these bytes: this runs the code in them, so hash or trust them first.

    A model pickled by another scikit-learn version is loaded with one logged warning. BundleInvalid
    when the bytes are no pickle or need modules that are not installed.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = joblib.load(io.BytesIO(data))
        except Exception as exc:  # a pickle may raise anything
            raise BundleInvalid(f"{source} does not unpickle: {type(exc).__name__}: {exc}") from exc
    version = str(sklearn.__version__)
    for warning in caught:
        if isinstance(warning.message, InconsistentVersionWarning):
            version = warning.message.original_sklearn_version
        else:
            log.warning("%s: %s", source, warning.message)
    return Unpickled(model=model, sklearn_version=version)


def warn_of_other_sklearn(version: str, *, source: str) -> None:
    """Log both versions when the installed scikit-learn is not the one named."""
    if version != sklearn.__version__:
        log.warning(
            "%s was made with scikit-learn %s, %s is installed: predictions may differ",
            source,
            version,
            sklearn.__version__,
        )


def final_forest(model: Any) -> Any:
    """Return the fitted forest that a model is or ends in; BundleUnbuildable for anything else."""
    *_, last = _steps(model)
    if not isinstance(last, RandomForestClassifier | RandomForestRegressor):
        held = "" if last is model else f", the last step of a {type(model).__name__},"
        raise BundleUnbuildable(
            f"{type(last).__module__}.{type(last).__qualname__}{held} can't be bundled; allowed: "
            "RandomForestClassifier, RandomForestRegressor, or a Pipeline that ends in one"
        )
    if not hasattr(last, "estimators_"):
        raise BundleUnbuildable(f"the {type(last).__name__} is not fitted; call fit before dump")
    if last.n_outputs_ != 1:
        raise BundleUnbuildable(f"the forest has {last.n_outputs_} outputs; 1 is allowed")
    return last


def task_of(model: Any) -> Task:
    forest = final_forest(model)
    return "classification" if isinstance(forest, RandomForestClassifier) else "regression"


def class_names(model: Any) -> tuple[str, ...]:
    """Classes as text, in the order of ``predict_proba``'s columns; none for regression."""
    return tuple(str(label) for label in class_values(model))


def class_values(model: Any) -> list[Any]:
    """Classes as Python values, as they stand in the training data."""
    forest = final_forest(model)
    if not isinstance(forest, RandomForestClassifier):
        return []
    values: list[Any] = forest.classes_.tolist()
    return values


def trained_names(model: Any) -> tuple[str, ...] | None:
    """Columns the model was fitted on, or None when it was fitted on a bare array."""
    names = getattr(model, "feature_names_in_", None)
    return None if names is None else tuple(str(name) for name in names)


def trained_width(model: Any) -> int | None:
    """Count the columns the model was fitted on; None when its first step has not kept count."""
    width: int | None = getattr(model, "n_features_in_", None)
    return width


def use_one_thread(model: Any) -> None:
    """Set ``n_jobs=1`` throughout: threads cost a single row 3 times what they save."""
    for step in _steps(model):
        if hasattr(step, "n_jobs"):
            step.n_jobs = 1


def predict(model: Any, frame: pd.DataFrame) -> Predictions:
    """Predict the frame's rows; columns as ``columns.model_frame`` makes them."""
    X = frame if trained_names(model) is not None else frame.to_numpy()
    if task_of(model) == "regression":
        return Predictions(scores=np.asarray(model.predict(X), dtype=np.float64))
    probabilities = np.asarray(model.predict_proba(X), dtype=np.float64)
    best = probabilities.argmax(axis=1)
    names = class_names(model)
    return Predictions(
        scores=probabilities[np.arange(len(best)), best],
        labels=[names[index] for index in best],
        probabilities=probabilities,
    )


def _steps(model: Any) -> Iterator[Any]:
    """Yield the estimators of a model, in order, pipelines opened up."""
    if not isinstance(model, Pipeline):
        yield model
        return
    for _, step in model.steps:
        yield from _steps(step)
