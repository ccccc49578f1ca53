"""A forest behind 20 ms of waiting, so that one replica's capacity is known and needs no CPU."""

import time
from itertools import chain
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline

WORK_S = 0.020
CAPACITY_RPS = 1 / WORK_S


class Wait(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Passes its input on after a while; at fitting it does not wait."""

    def fit(self, X: Any, y: Any = None) -> Self:
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        time.sleep(WORK_S)
        return X


def store(root: Path, scratch: Path) -> None:
    """Train it and bundle it as ``slow`` 1.0.0 under ``root``, with `treeline bundle create`."""
    from serve_app.cli.main import main

    chance = np.random.default_rng(0)
    table = pd.DataFrame(chance.normal(size=(200, 3)), columns=["a", "b", "c"])
    label = np.where(table["a"] > 0, "good", "bad")
    model = Pipeline([("wait", Wait()), ("forest", RandomForestClassifier(10, random_state=0))])
    model.fit(table.to_numpy(), label)
    joblib.dump(model, scratch / "slow.joblib")
    table.assign(label=label).to_parquet(scratch / "train.parquet")
    options = {
        "--train": str(scratch / "train.parquet"),
        "--label": "label",
        "--name": "slow",
        "--version": "1.0.0",
        "--out": str(root),
    }
    with pytest.raises(SystemExit) as done:
        main(["bundle", "create", str(scratch / "slow.joblib"), *chain(*options.items())])
    assert done.value.code == 0
