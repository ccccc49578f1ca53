import hashlib
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from serve_app.model.build import Identity, LabelledData, build_bundle
from serve_app.model.bundle import load_bundle, store_bundle
from serve_app.model.estimator import unpickle_model
from serve_app.model.loading import load_served
from serve_app.model.pipeline import Scorer, compile_scorer
from serve_app.model.storage import BundleFolder
from serve_app.model.stored_scorer import ScorerStore


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(3)
    table = pd.DataFrame(
        {
            "size": rng.normal(size=200),
            "weight": np.where(rng.random(200) < 0.1, np.nan, rng.normal(size=200)),
            "colour": rng.choice(["red", "green", "blue"], 200),
        }
    )
    label = np.where(table["size"] + (table["colour"] == "red") > 0.3, "yes", "no")
    numbers = Pipeline(
        [("fill", SimpleImputer()), ("scale", StandardScaler()), ("range", MinMaxScaler())]
    )
    prepare = ColumnTransformer(
        [
            ("numbers", numbers, ["size", "weight"]),
            ("texts", OneHotEncoder(sparse_output=False), ["colour"]),
        ]
    )
    model = Pipeline(
        [("prepare", prepare), ("forest", RandomForestClassifier(10, random_state=0))]
    ).fit(table, label)
    folder = tmp_path_factory.mktemp("models")
    joblib.dump(model, folder / "m.joblib")
    data = (folder / "m.joblib").read_bytes()
    staged = build_bundle(
        Identity(name="m", version="1"),
        model_bytes=data,
        unpickled=unpickle_model(data, source="m"),
        train=LabelledData(frame=table.assign(label=label), label="label"),
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    store_bundle(folder, staged)
    return folder


ROWS: list[list[Any]] = [[0.1, None, "red"], [-3.0, 2.5, "blue"], [1e-9, 0.0, "green"]]


def never(rows: Any) -> Any:
    raise AssertionError("scikit-learn was asked")


def kept(root: Path, folder: Path) -> tuple[ScorerStore, Any, Scorer]:
    bundle = load_bundle(root, "m", "1")
    scorer = compile_scorer(bundle.model, bundle.manifest.logged_features(), check_rows=ROWS)
    assert scorer.reason is None
    store = ScorerStore(folder, user_id=os.getuid())
    store.save(bundle.manifest, scorer, ROWS)
    return store, bundle.manifest, scorer


def test_a_kept_scorer_answers_with_the_same_bits(root: Path, tmp_path: Path) -> None:
    store, manifest, scorer = kept(root, tmp_path / "compiled")
    loaded = store.load(manifest, never)
    assert loaded is not None
    assert loaded.score(ROWS).tobytes() == scorer.score(ROWS).tobytes()
    assert (loaded.classes, loaded.reason) == (("no", "yes"), None)


def test_nothing_is_loaded_where_nothing_was_kept(root: Path, tmp_path: Path) -> None:
    _, manifest, _ = kept(root, tmp_path / "compiled")
    assert ScorerStore(tmp_path / "other", user_id=os.getuid()).load(manifest, never) is None


@pytest.mark.parametrize("suffix", [".npz", ".msgpack"])
def test_a_changed_byte_makes_it_absent(root: Path, tmp_path: Path, suffix: str) -> None:
    store, manifest, _ = kept(root, tmp_path / "compiled")
    (path,) = (tmp_path / "compiled").glob(f"*{suffix}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert store.load(manifest, never) is None


def test_answers_that_differ_make_it_absent(root: Path, tmp_path: Path) -> None:
    store, manifest, _ = kept(root, tmp_path / "compiled")
    (path,) = (tmp_path / "compiled").glob("*.msgpack")
    body = path.read_bytes()[32:]
    scores = store.load(manifest, never).score(ROWS).tobytes()  # type: ignore[union-attr]
    changed = body.replace(scores, scores[::-1])
    path.write_bytes(hashlib.sha256(changed).digest() + changed)
    assert store.load(manifest, never) is None


def test_a_folder_that_others_can_write_is_not_read(root: Path, tmp_path: Path) -> None:
    store, manifest, _ = kept(root, tmp_path / "compiled")
    (tmp_path / "compiled").chmod(0o770)
    assert store.load(manifest, never) is None
    (tmp_path / "compiled").chmod(0o700)
    stranger = ScorerStore(tmp_path / "compiled", user_id=os.getuid() + 1)
    assert stranger.load(manifest, never) is None


def test_the_second_replica_loads_no_scikit_learn_until_a_row_needs_it(
    root: Path, tmp_path: Path
) -> None:
    first = load_served(BundleFolder(root, "m", "1"), tmp_path)
    code = f"""
import sys
from pathlib import Path
from serve_app.model.loading import load_served
from serve_app.model.storage import BundleFolder
scorer = load_served(BundleFolder({str(root)!r}, "m", "1"), Path({str(tmp_path)!r})).scorer
print(scorer.score({ROWS!r}).tobytes().hex(), "sklearn" in sys.modules)
try:
    scorer.score([[0.1, 0.2, "a colour that training never saw"]])
except ValueError as error:
    print("unknown categories" in str(error), "sklearn" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    bits = first.scorer.score(ROWS).tobytes().hex()
    assert done.stdout.split() == [bits, "False", "True", "True"]
