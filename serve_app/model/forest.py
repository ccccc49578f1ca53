"""Forests that answer as scikit-learn does, bit for bit, about a thousand times faster per row.

``compile_forest`` packs a fitted forest, proves on rows that its answers are the same bits, and
otherwise returns a forest that asks scikit-learn, with the reason. What makes the packed form exact
is written in ``packed``; the order of sums is scikit-learn's with ``n_jobs=1``: tree by tree from
0.0, divided once by the number of trees. (With more jobs its own sums depend on thread timing.)
"""

import copy
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from serve_app.model.kernels import KernelName, fastest_kernel, make_kernel
from serve_app.model.packed import Flaw, Float64s, ForestTooLarge, PackedForest, pack

logger = logging.getLogger(__name__)

Task = Literal["classification", "regression"]

ROWS_PER_THREAD: Final = 512  # about 2 ms of walking; waking a thread costs about 0.1 ms

_TASKS: Final[dict[str, Task]] = {
    "RandomForestClassifier": "classification",
    "ExtraTreesClassifier": "classification",
    "RandomForestRegressor": "regression",
    "ExtraTreesRegressor": "regression",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestDescription:
    """What a forest says about itself beside its nodes. ``classes`` has one array per output."""

    estimator: str
    task: Task
    classes: tuple[npt.NDArray[Any], ...]
    n_outputs: int
    feature_names: tuple[str, ...] | None


class CompiledForest:
    """A packed forest with its kernel; thread-safe.

    ``X`` is whatever NumPy turns into two dimensions; a C-contiguous float32 or float64 array is
    read where it lies. Raises ValueError, in scikit-learn's words, for infinity, for values beyond
    float32, for NaN where the forest refuses it, and for a wrong number or order of features.
    Unlike scikit-learn, an array without feature names gives no warning.
    """

    reason: str | None = None

    def __init__(
        self,
        packed: PackedForest,
        description: ForestDescription,
        *,
        kernel: KernelName | None = None,
        threads: int | None = None,
    ) -> None:
        self.packed = packed
        self.description = description
        self.n_features_in_ = packed.n_features
        self.threads = threads or len(os.sched_getaffinity(0))
        self._kernel = make_kernel(kernel or fastest_kernel(), packed)
        self._width = packed.width

    @property
    def task(self) -> Task:
        return self.description.task

    @property
    def kernel(self) -> KernelName:
        return self._kernel.name

    @property
    def classes_(self) -> Any:
        """Labels in the order of the columns; a list of arrays for several outputs.

        Raises AttributeError for regressors, as scikit-learn does.
        """
        classes = self.description.classes
        if not classes:
            raise AttributeError(f"{self.description.estimator} has no attribute 'classes_'")
        return classes[0] if self.description.n_outputs == 1 else list(classes)

    def warm(self) -> None:
        """Run both code paths for both types of input, so that the first request meets hot code."""
        for n_rows in (1, 16):
            for dtype in (np.float32, np.float64):
                self._means(np.zeros((n_rows, self.n_features_in_), dtype=dtype))

    def predict_proba(self, X: Any) -> Any:
        """Class probabilities (rows x classes); a list with one such array per output if several.

        Raises AttributeError for regressors, as scikit-learn does.
        """
        if self.description.task == "regression":
            raise AttributeError(f"{self.description.estimator} has no attribute 'predict_proba'")
        means = self._means(X)
        if self.description.n_outputs == 1:
            return means
        per_output = means.reshape(len(means), self.description.n_outputs, -1)
        return [
            np.ascontiguousarray(per_output[:, output, : len(classes)])
            for output, classes in enumerate(self.description.classes)
        ]

    def predict(self, X: Any) -> Any:
        """Labels, or regression values; (rows,) for one output, else (rows x outputs)."""
        if self.description.task == "regression":
            means = self._means(X)
            return means[:, 0] if self.description.n_outputs == 1 else means
        probabilities = self.predict_proba(X)
        if self.description.n_outputs == 1:
            return self.classes_.take(probabilities.argmax(axis=1))
        columns = [
            classes.take(output.argmax(axis=1))
            for classes, output in zip(self.description.classes, probabilities, strict=True)
        ]
        return np.column_stack(columns).astype(self.description.classes[0].dtype)

    def _means(self, X: Any) -> Float64s:
        if (
            type(X) is not np.ndarray
            or X.ndim != 2
            or X.dtype.char not in "fd"
            or not X.flags.c_contiguous
        ):
            X = self._as_rows(X)
        n_rows, n_features = X.shape
        if n_features != self.n_features_in_:
            raise ValueError(
                f"X has {n_features} features, but {self.description.estimator} is expecting "
                f"{self.n_features_in_} features as input"
            )
        out: Float64s = np.empty((n_rows, self._width))
        if n_rows < 2 * ROWS_PER_THREAD or self.threads == 1:
            flaw = self._kernel.mean(X, out)
        else:
            flaw = self._mean_in_threads(X, out)
        if flaw or not n_rows:
            raise ValueError(_complaint(flaw, self.description.estimator, n_features))
        return out

    def _mean_in_threads(self, X: npt.NDArray[Any], out: Float64s) -> int:
        parts = min(self.threads, len(X) // ROWS_PER_THREAD)
        edges = np.linspace(0, len(X), parts + 1).astype(int)
        jobs = [
            _threads(self.threads).submit(self._kernel.mean, X[begin:end], out[begin:end])
            for begin, end in pairwise(edges)
        ]
        return next((flaw for flaw in [job.result() for job in jobs] if flaw), Flaw.NONE)

    def _as_rows(self, X: Any) -> npt.NDArray[Any]:
        """Convert what is not a plain float array; the type of numbers changes only once."""
        names = self.description.feature_names
        columns = getattr(X, "columns", None)
        if columns is not None and names is not None and tuple(columns) != names:
            raise ValueError(
                "The feature names should match those that were passed during fit: expected "
                f"{list(names)}, got {list(columns)}"
            )
        if hasattr(X, "toarray"):
            raise ValueError("sparse input is not supported by the compiled forest; pass an array")
        X = X if isinstance(X, np.ndarray) and X.dtype == np.float64 else _to_float32(X)
        if X.ndim != 2:
            raise ValueError(f"Expected 2D array, got {X.ndim}D array instead")
        return np.ascontiguousarray(X)


class SklearnForest:
    """The original forest on one core, for what cannot be compiled; ``reason`` says why."""

    def __init__(self, model: Any, reason: str) -> None:
        self._model = on_one_core(model)
        self.reason: str | None = reason
        self.task: Task = "classification" if hasattr(model, "classes_") else "regression"
        self.predict: Callable[[Any], Any] = self._model.predict

    @property
    def classes_(self) -> Any:
        return self._model.classes_

    def warm(self) -> None:
        """Nothing to prepare."""

    def predict_proba(self, X: Any) -> Any:
        return self._model.predict_proba(X)


Forest = CompiledForest | SklearnForest


def compile_forest(
    model: Any,
    *,
    check_rows: Any = None,
    kernel: KernelName | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> Forest:
    """Compile a fitted forest if it provably answers alike, else wrap it as it is.

    ``check_rows`` (n x features, as the forest takes them) join the rows that are made from the
    forest's own thresholds. Never raises for a fitted estimator; ``reason`` tells what stood in the
    way. The model itself is not changed.
    """
    # Imported here: a replica that loads a stored forest starts without pandas.
    from serve_app.model.proof import first_difference

    try:
        compiled = _pack_forest(model, kernel=kernel, threads=threads)
    except _NotCompilable as error:
        return _fall_back(model, str(error))
    difference = first_difference(on_one_core(model), compiled, check_rows=check_rows, seed=seed)
    if difference:
        return _fall_back(model, difference)
    return compiled


def on_one_core(model: Any) -> Any:
    """Copy an estimator, sharing its trees, with ``n_jobs=1``.

    An artifact saved with ``n_jobs=2`` is three times slower for one row.
    """
    alone = copy.copy(model)
    for parameter, value in (("n_jobs", 1), ("verbose", 0)):
        if hasattr(alone, parameter):
            setattr(alone, parameter, value)
    return alone


class _NotCompilable(Exception):
    """Carries the reason."""


def _fall_back(model: Any, reason: str) -> SklearnForest:
    logger.warning("scikit-learn serves %s: %s", type(model).__name__, reason)
    return SklearnForest(model, reason)


def _pack_forest(model: Any, *, kernel: KernelName | None, threads: int | None) -> CompiledForest:
    name = type(model).__name__
    task = _TASKS.get(name)
    if task is None or not type(model).__module__.startswith("sklearn."):
        raise _NotCompilable(f"{name} is not one of scikit-learn's {', '.join(sorted(_TASKS))}")
    trees = [estimator.tree_ for estimator in model.estimators_]
    allow_nan = bool(model.estimators_[0].__sklearn_tags__().input_tags.allow_nan)
    try:
        packed = pack(trees, n_features=int(model.n_features_in_), allow_nan=allow_nan)
    except ForestTooLarge as error:
        raise _NotCompilable(str(error)) from error
    classes: tuple[Any, ...] = ()
    n_outputs = int(model.n_outputs_)
    if task == "classification":
        classes = (model.classes_,) if n_outputs == 1 else tuple(model.classes_)
    names = getattr(model, "feature_names_in_", None)
    description = ForestDescription(
        estimator=name,
        task=task,
        classes=classes,
        n_outputs=n_outputs,
        feature_names=None if names is None else tuple(names),
    )
    return CompiledForest(packed, description, kernel=kernel, threads=threads)


def _to_float32(X: Any) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        try:
            return np.asarray(X, dtype=np.float32)
        except TypeError as error:
            raise ValueError(f"X cannot be read as numbers: {error}") from error


def _complaint(flaw: int, estimator: str, n_features: int) -> str:
    match Flaw(flaw):
        case Flaw.INFINITE:
            return "Input X contains infinity or a value too large for dtype('float32')."
        case Flaw.MISSING:
            return f"Input X contains NaN. This {estimator} does not accept missing values."
        case Flaw.NONE:
            return f"Found array with 0 sample(s) (shape=(0, {n_features}))"


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="forest")
