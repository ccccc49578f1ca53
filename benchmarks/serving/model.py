"""What every contender serves: FOREST.md's credit-like forest, and the request they all get.

200 trees, depth 14, 20 numeric features, about 393,000 nodes. Trained once, into a bundle for
Treeline and a bare `forest.joblib` for everybody else: the same bytes.
"""

import io
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import joblib
import msgspec
import numpy as np
import pandas as pd

from serve_app.model.build import Identity, LabelledData, build_bundle
from serve_app.model.bundle import store_bundle
from serve_app.model.estimator import unpickle_model
from serve_app.schema import Prediction, PredictResponse

NAME: Final = "bench"
VERSION: Final = "1.0.0"
FEATURES: Final = tuple(f"feature_{number:02d}" for number in range(20))
TRAINING_ROWS: Final = 30_000
BODIES: Final = 500  # distinct requests, so that no contender lives off one hot row


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """Where the model lies, and the rows that are asked about."""

    root: Path
    artifact: Path
    rows: list[dict[str, float]]

    @property
    def response_bytes(self) -> int:
        """Length of Treeline's answer, which the no-ops send too."""
        return len(treeline_answer())


def prepare_model(folder: Path) -> ServedModel:
    """Train and bundle the forest, unless an earlier run has left it in ``folder``."""
    root, artifact = folder / "models", folder / "forest.joblib"
    table = training_table()
    if not (root / NAME / VERSION / "manifest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = fitted(table)
        artifact.write_bytes(data)
        staged = build_bundle(
            Identity(name=NAME, version=VERSION),
            model_bytes=data,
            unpickled=unpickle_model(data, source=str(artifact)),
            train=LabelledData(frame=table, label="label"),
            created_at=datetime.now(UTC),
        )
        store_bundle(root, staged, force=True)
    asked = table.drop(columns="label").head(BODIES).to_dict("records")
    rows = [{str(name): float(value) for name, value in row.items()} for row in asked]
    return ServedModel(root=root, artifact=artifact, rows=rows)


def training_table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(TRAINING_ROWS, len(FEATURES)))
    X[:, ::3] = X[:, ::3].round(1)
    signal = X[:, 0] + X[:, 1] * X[:, 2] + np.abs(X[:, 3]) + rng.normal(size=TRAINING_ROWS)
    table = pd.DataFrame(X, columns=list(FEATURES))
    return table.assign(label=np.where(signal > np.median(signal), "bad", "good"))


def fitted(table: pd.DataFrame) -> bytes:
    from sklearn.ensemble import RandomForestClassifier

    forest: Any = RandomForestClassifier(200, max_depth=14, n_jobs=-1, random_state=0)
    forest.fit(table.drop(columns="label").to_numpy(), table["label"])
    forest.n_jobs = 1
    buffer = io.BytesIO()
    joblib.dump(forest, buffer)
    return buffer.getvalue()


def treeline_answer() -> bytes:
    """An answer of the usual length: two 64-bit probabilities take 17 to 19 digits each."""
    third = 1 / 3
    answer = PredictResponse(
        str(uuid.UUID(int=0)),
        NAME,
        VERSION,
        "1",
        ["bad", "good"],
        [Prediction("good", 1 - third, [third, 1 - third])],
    )
    return msgspec.json.encode(answer)
