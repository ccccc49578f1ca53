"""The compiled forest beside scikit-learn: microseconds per row, and bits that differ.

    .venv/bin/python -m benchmarks.forest [--rows 1000000] [--cpu-time] [--json]

Times: a credit-like forest (200 trees, depth 14, 20 features), all contenders in turn within each
round, so that a busy machine hurts them alike; medians over rounds, every call on other rows. One
core unless the column says otherwise. Equality: forests of many kinds, half of the rows drawn
around thresholds, half moved to, just below and just above a split they meet; NaN among them.
``--cpu-time`` counts only time on a core, for a machine that is busy with other work; it says
nothing about "all cores".
"""

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from serve_app.model.forest import CompiledForest, compile_forest
from serve_app.model.proof import answer, draw_rows, reference_answer, threshold_rows

Clock = Callable[[], float]

BATCHES = (1, 32, 4_096, 100_000)
ROWS_PER_QUESTION = 20_000
SECONDS_PER_BATCH = 10.0
TURN_S = 0.005  # about one call of scikit-learn's


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    batch: int
    us_per_row: dict[str, float]
    times_scikit_learn: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Equality:
    forest: str
    rows: int
    differing: int


def training_data(n_rows: int, n_features: int, missing: float, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features))
    X[:, ::3] = X[:, ::3].round(1)
    signal = X[:, 0] + X[:, 1] * X[:, 2] + np.abs(X[:, 3]) + rng.normal(size=n_rows)
    X[rng.random(X.shape) < missing] = np.nan
    return X, signal


def fit_kind(kind: type, *, n_classes: int = 2, missing: float = 0.0, **options: Any) -> Any:
    X, signal = training_data(3_000, 12, missing, seed=1)
    y = signal
    if hasattr(kind, "predict_proba"):
        y = np.digitize(signal, np.quantile(signal, np.linspace(0, 1, n_classes + 1)[1:-1]))
        y = np.array([f"class {number}" for number in y])
    weights = options.pop("sample_weight", None)
    transform = options.pop("transform", np.asarray)
    model = kind(n_estimators=60, random_state=0, **options)
    return model.fit(X, transform(y), sample_weight=weights)


def forests() -> dict[str, Callable[[], Any]]:
    weights = np.random.default_rng(2).random(3_000)
    classifier, regressor = RandomForestClassifier, RandomForestRegressor
    return {
        "binary": lambda: fit_kind(classifier),
        "seven classes": lambda: fit_kind(classifier, n_classes=7),
        "missing values": lambda: fit_kind(classifier, missing=0.15),
        "class weights": lambda: fit_kind(classifier, class_weight="balanced_subsample"),
        "sample weights": lambda: fit_kind(classifier, sample_weight=weights),
        "one class": lambda: fit_kind(classifier, n_classes=1),
        "stumps": lambda: fit_kind(classifier, max_depth=1),
        "monotonic": lambda: fit_kind(classifier, monotonic_cst=[1] + [0] * 11),
        "entropy, leaf limit": lambda: fit_kind(classifier, criterion="entropy", max_leaf_nodes=50),
        "extra trees": lambda: fit_kind(ExtraTreesClassifier, n_classes=3, missing=0.1),
        "regression": lambda: fit_kind(regressor),
        "regression, missing values": lambda: fit_kind(regressor, missing=0.15),
        "regression, absolute error": lambda: fit_kind(
            regressor, criterion="absolute_error", max_depth=5
        ),
        "regression, Poisson": lambda: fit_kind(regressor, criterion="poisson", transform=np.exp),
        "regression, extra trees": lambda: fit_kind(ExtraTreesRegressor),
        "regression, two values": lambda: fit_kind(
            regressor, transform=lambda y: np.column_stack([y, -y])
        ),
    }


def credit_forest() -> Any:
    X, signal = training_data(30_000, 20, 0.0, seed=0)
    model = RandomForestClassifier(200, max_depth=14, n_jobs=-1, random_state=0)
    model.fit(X, signal > np.median(signal))
    model.n_jobs = 1
    return model


def compiled_as(model: Any, kernel: Any, threads: int) -> CompiledForest:
    compiled = compile_forest(model, kernel=kernel, threads=threads)
    if compiled.reason:
        raise RuntimeError(f"scikit-learn would serve: {compiled.reason}")
    return compiled


def measure_times(clock: Clock) -> list[Timing]:
    model = credit_forest()
    contenders: dict[str, Any] = {
        "scikit-learn": model,
        "numba": compiled_as(model, "numba", 1),
        "numba, all cores": compiled_as(model, "numba", len(os.sched_getaffinity(0))),
        "numpy": compiled_as(model, "numpy", 1),
    }
    rows = np.random.default_rng(5).normal(size=(2 * BATCHES[-1], 20))
    return [measure_batch(contenders, rows, batch, clock) for batch in BATCHES]


def measure_batch(contenders: dict[str, Any], rows: Any, batch: int, clock: Clock) -> Timing:
    """Median microseconds per row in turns of one length: a quick contender gets more calls.

    In short turns each would find its forest pushed out of the caches by the others.
    """
    rng = np.random.default_rng(batch)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    began = time.perf_counter()
    rounds = 0
    while rounds < 3 or (time.perf_counter() - began < SECONDS_PER_BATCH and rounds < 400):
        rounds += 1
        for name, forest in contenders.items():
            turn_ends = time.perf_counter() + TURN_S
            while True:
                begin = rng.integers(len(rows) - batch)
                part = rows[begin : begin + batch]
                start = clock()
                forest.predict_proba(part)
                seconds[name].append(clock() - start)
                if time.perf_counter() >= turn_ends:
                    break
    us = {name: float(np.median(times)) * 1e6 / batch for name, times in seconds.items()}
    base = us["scikit-learn"]
    return Timing(
        batch=batch, us_per_row=us, times_scikit_learn={n: base / u for n, u in us.items()}
    )


def measure_equality(total_rows: int) -> list[Equality]:
    kinds = forests()
    results = []
    for seed, (name, fit) in enumerate(kinds.items()):
        results.append(compare(name, fit(), -(-total_rows // len(kinds)), seed))
    return results


def compare(name: str, model: Any, n_rows: int, seed: int) -> Equality:
    rng = np.random.default_rng(seed)
    compiled = compiled_as(model, None, 1)
    asked = differing = 0
    while asked < n_rows:
        drawn = draw_rows(model, ROWS_PER_QUESTION // 2, rng, missing_share=0.03)
        placed = threshold_rows(model, drawn[: ROWS_PER_QUESTION // 6], rng)
        rows = np.concatenate([drawn, placed])[: n_rows - asked]
        expected = reference_answer(model, rows).view(np.uint64)
        differs = answer(compiled, rows).view(np.uint64) != expected
        asked += len(rows)
        differing += int(differs.any(axis=1).sum())
    return Equality(forest=name, rows=asked, differing=differing)


def print_report(timings: list[Timing], equalities: list[Equality]) -> None:
    versions = {
        name: importlib.metadata.version(name) for name in ("scikit-learn", "numpy", "numba")
    }
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {versions}\n"
    )
    names = list(timings[0].us_per_row)
    print("| rows a call | " + " | ".join(f"{name}, µs a row" for name in names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for timing in timings:
        cells = [
            f"{timing.us_per_row[name]:,.1f} ({timing.times_scikit_learn[name]:,.1f}x)"
            for name in names
        ]
        print(f"| {timing.batch:,} | " + " | ".join(cells) + " |")
    print("\n| forest | rows | rows that differ in any bit |\n|---|---|---|")
    for entry in equalities:
        print(f"| {entry.forest} | {entry.rows:,} | {entry.differing} |")
    rows, differing = sum(e.rows for e in equalities), sum(e.differing for e in equalities)
    print(f"| all {len(equalities)} | {rows:,} | {differing} |")


def main() -> int:
    """Return 1 if any bit differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows compared in all")
    parser.add_argument("--cpu-time", action="store_true", help="count only time on a core")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    equalities = measure_equality(options.rows)
    timings = measure_times(time.process_time if options.cpu_time else time.perf_counter)
    if options.json:
        entries = {"times": timings, "equality": equalities}
        print(json.dumps({name: [asdict(e) for e in found] for name, found in entries.items()}))
    else:
        print_report(timings, equalities)
    return 1 if any(entry.differing for entry in equalities) else 0


if __name__ == "__main__":
    raise SystemExit(main())
