"""Bundles from a fitted model to a loaded one, and what must be refused on the way."""

import hashlib
import io
import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import joblib
import msgspec
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from serve_app.errors import (
    BundleExists,
    BundleInvalid,
    BundleNameInvalid,
    BundleNotFound,
    BundleStorageFailed,
    BundleTampered,
    BundleUnbuildable,
)
from serve_app.model.baseline import baseline_inputs
from serve_app.model.build import Identity, LabelledData, build_bundle
from serve_app.model.bundle import Bundle, StagedBundle, load_bundle, store_bundle
from serve_app.model.columns import model_frame
from serve_app.model.estimator import predict, unpickle_model
from serve_app.model.storage import BundleFolder
from serve_app.model.verify import verify_bundle

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
ROWS = 60
OLDER = "1.7.0"


def numbers() -> pd.DataFrame:
    random = np.random.default_rng(7)
    frame = pd.DataFrame({"b": random.normal(size=ROWS), "a": random.integers(0, 9, ROWS)})
    frame["target"] = np.where(frame.b + frame.a / 4 > 1, "yes", "no")
    return frame


def mixed() -> pd.DataFrame:
    """Texts, bools and numbers, each with missing values."""
    random = np.random.default_rng(8)
    frame = pd.DataFrame(
        {
            "age": random.normal(40, 9, ROWS),
            "town": random.choice(["Bonn", "Köln"], ROWS),
            "member": random.choice([True, False], ROWS),
            "flag": pd.array(random.choice([True, False], ROWS), dtype="boolean"),
        }
    )
    frame["target"] = np.where(frame.age > 40, "old", "young")
    frame.loc[::7, "age"] = np.nan
    frame.loc[::5, "town"] = None
    frame.loc[::6, "flag"] = pd.NA
    return frame


def small_forest(**options) -> RandomForestClassifier:
    return RandomForestClassifier(**{"n_estimators": 5, "random_state": 0} | options)


def fitted_pipeline(frame: pd.DataFrame) -> Pipeline:
    prepare = ColumnTransformer(
        [
            ("texts", OneHotEncoder(handle_unknown="ignore"), ["town"]),
            ("numbers", SimpleImputer(), ["age", "member"]),
        ]
    )
    X = frame[["age", "town", "member"]]
    return Pipeline([("prepare", prepare), ("forest", small_forest())]).fit(X, frame.target)


def dumped(model) -> bytes:
    buffer = io.BytesIO()
    joblib.dump(model, buffer)
    return buffer.getvalue()


def stage(model, frame: pd.DataFrame, *, label="target", test=None, version="1") -> StagedBundle:
    data = dumped(model)
    return build_bundle(
        Identity(name="m", version=version, feature_set_version="f2"),
        model_bytes=data,
        unpickled=unpickle_model(data, source="m"),
        train=LabelledData(frame=frame, label=label),
        test=test,
        created_at=NOW,
    )


def stored(root: Path, model, frame: pd.DataFrame, **options) -> Bundle:
    store_bundle(root, stage(model, frame, **options))
    return load_bundle(root, "m", "1")


def with_file(staged: StagedBundle, file: str, data: bytes) -> StagedBundle:
    """Swap a file and its hash, as somebody who may write to the root could."""
    hashes = staged.manifest.sha256 | {file: hashlib.sha256(data).hexdigest()}
    return StagedBundle(
        manifest=msgspec.structs.replace(staged.manifest, sha256=hashes),
        contents=dict(staged.contents) | {file: data},
    )


def classifier(frame: pd.DataFrame, **options) -> RandomForestClassifier:
    return small_forest(**options).fit(frame[["b", "a"]], frame.target)


def test_bare_classifier_comes_back_whole(tmp_path):
    frame = numbers()
    model = classifier(frame, n_jobs=2, oob_score=True, n_estimators=40)
    bundle = stored(tmp_path, model, frame, test=frame.iloc[:20])
    manifest = bundle.manifest
    assert [(f.name, f.dtype, f.nullable) for f in manifest.features] == [
        ("b", "float64", False),
        ("a", "int64", False),
    ]
    assert manifest.features[1].min == frame.a.min()
    assert manifest.features[1].max == frame.a.max()
    assert manifest.classes == ("no", "yes")
    assert manifest.task == "classification"
    assert manifest.feature_set_version == "f2"
    assert manifest.sklearn_version == sklearn.__version__
    assert manifest.created_at == NOW
    assert set(manifest.training_metrics) == {
        *(f"{part}_{key}" for part in ("train", "test") for key in ("rows", "accuracy")),
        *(f"{part}_{key}" for part in ("train", "test") for key in ("log_loss", "roc_auc")),
        "oob_score",
    }
    assert bundle.model.n_jobs == 1
    expected = model.predict_proba(frame[["b", "a"]])
    assert np.array_equal(bundle.model.predict_proba(frame[["b", "a"]]), expected)
    assert bundle.baseline["label"].to_pylist() == frame.target.tolist()
    assert bundle.baseline["predicted"].to_pylist() == model.predict(frame[["b", "a"]]).tolist()
    assert np.array_equal(bundle.baseline["score"].to_numpy(), expected.max(axis=1))
    probabilities = np.array(bundle.baseline["probabilities"].to_pylist(), dtype=np.float32)
    assert np.array_equal(probabilities, expected.astype(np.float32))


def test_a_regressors_errors_out_of_bag_are_known_where_the_rows_are_those_it_was_fitted_on():
    frame = numbers()
    frame["target"] = 3.0 * frame.b + frame.a
    model = RandomForestRegressor(60, oob_score=True, random_state=0)
    model.fit(frame[["b", "a"]], frame.target)
    metrics = stage(model, frame).manifest.training_metrics
    errors = model.oob_prediction_ - frame.target
    assert metrics["oob_rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))
    assert (metrics["oob_r2"], metrics["oob_rows"]) == (
        pytest.approx(model.oob_score_),
        len(frame),
    )
    shuffled = frame.sample(frac=1.0, random_state=1)
    assert "oob_rmse" not in stage(model, shuffled).manifest.training_metrics
    assert "oob_rmse" not in stage(model, frame.iloc[1:]).manifest.training_metrics


def test_manifest_and_hashes_are_plain_json(tmp_path):
    frame = numbers()
    stored(tmp_path, classifier(frame), frame)
    folder = tmp_path / "m" / "1"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["sha256"]) == {"model.joblib", "baseline.parquet"}
    for file, digest in manifest["sha256"].items():
        assert hashlib.sha256((folder / file).read_bytes()).hexdigest() == digest
    assert {path.name for path in folder.iterdir()} == {*manifest["sha256"], "manifest.json"}


def test_regressor(tmp_path):
    frame = numbers().assign(target=lambda f: f.a * 2)
    model = RandomForestRegressor(n_estimators=5, random_state=0).fit(
        frame[["b", "a"]], frame.target
    )
    bundle = stored(tmp_path, model, frame)
    assert bundle.manifest.task == "regression"
    assert bundle.manifest.classes == ()
    assert set(bundle.manifest.training_metrics) == {
        "train_rows",
        "train_rmse",
        "train_mae",
        "train_r2",
    }
    assert bundle.baseline["label"].to_pylist() == frame.target.astype(float).tolist()
    assert bundle.baseline["predicted"].null_count == ROWS
    assert bundle.baseline["probabilities"].null_count == ROWS
    assert np.array_equal(bundle.baseline["score"].to_numpy(), model.predict(frame[["b", "a"]]))


def test_pipeline_with_texts_and_missing_values(tmp_path):
    frame = mixed()
    model = fitted_pipeline(frame)
    bundle = stored(tmp_path, model, frame)
    age, town, member = bundle.manifest.features
    assert (age.dtype, age.nullable) == ("float64", True)
    assert (town.dtype, town.nullable, town.categories) == ("string", True, ("Bonn", "Köln"))
    assert (member.dtype, member.nullable, member.min) == ("bool", False, None)
    expected = model.predict_proba(frame[["age", "town", "member"]])
    again = predict(bundle.model, model_frame(baseline_inputs(bundle.baseline)))
    assert np.array_equal(again.probabilities, expected)


def test_array_model_takes_the_columns_beside_the_label_and_bools_may_be_missing(tmp_path):
    frame = mixed()[["age", "flag", "target"]]
    X = frame[["age", "flag"]].astype("float64").to_numpy()
    model = small_forest().fit(X, frame.target)
    bundle = stored(tmp_path, model, frame)
    assert [(f.name, f.dtype, f.nullable) for f in bundle.manifest.features] == [
        ("age", "float64", True),
        ("flag", "bool", True),
    ]
    again = predict(bundle.model, model_frame(baseline_inputs(bundle.baseline)))
    assert np.array_equal(again.probabilities, model.predict_proba(X))


def test_classes_that_are_no_texts_are_named_by_their_text(tmp_path):
    frame = numbers().assign(target=lambda f: f.a > 4)
    bundle = stored(tmp_path, classifier(frame), frame)
    assert bundle.manifest.classes == ("False", "True")
    assert bundle.baseline["label"].to_pylist() == [str(value) for value in frame.target]


def test_one_class_forest_has_no_roc_auc(tmp_path):
    frame = numbers().assign(target="only")
    bundle = stored(tmp_path, classifier(frame), frame)
    assert bundle.manifest.classes == ("only",)
    assert bundle.manifest.training_metrics == {
        "train_rows": ROWS,
        "train_accuracy": 1.0,
        "train_log_loss": 0.0,
    }


class TouchesOnLoad:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_tampered_model_is_refused_before_it_is_unpickled(tmp_path):
    frame = numbers()
    stored(tmp_path, classifier(frame), frame)
    file, mark = tmp_path / "m/1/model.joblib", tmp_path / "mark"
    file.write_bytes(dumped(TouchesOnLoad(mark)))
    with pytest.raises(BundleTampered, match=r"model\.joblib") as refused:
        load_bundle(tmp_path, "m", "1")
    assert refused.value.found == hashlib.sha256(file.read_bytes()).hexdigest()
    assert refused.value.expected in str(refused.value)
    assert [p.kind for p in verify_bundle(tmp_path / "m/1")] == ["hash_mismatch"]
    assert not mark.exists()
    joblib.load(file)  # the mark does work
    assert mark.exists()


def test_tampered_baseline_keeps_the_model_from_being_unpickled(tmp_path):
    frame = numbers()
    mark = tmp_path / "mark"
    staged = stage(classifier(frame), frame)
    evil = dumped(TouchesOnLoad(mark))
    store_bundle(tmp_path, with_file(staged, "model.joblib", evil))
    (tmp_path / "m/1/baseline.parquet").write_bytes(b"other")
    with pytest.raises(BundleTampered, match=r"baseline\.parquet"):
        load_bundle(tmp_path, "m", "1")
    assert not mark.exists()


@pytest.mark.parametrize("bad", ["..", ".", "", "a/b", "../x", "a\\b", ".hidden", "a\n", "x" * 129])
def test_names_that_leave_the_root_are_refused(tmp_path, bad):
    with pytest.raises(BundleNameInvalid, match="not allowed"):
        load_bundle(tmp_path, bad, "1")
    with pytest.raises(BundleNameInvalid, match="not allowed"):
        load_bundle(tmp_path, "m", bad)
    with pytest.raises(BundleNameInvalid, match="not allowed"):
        Identity(name="m", version=bad)


def test_a_version_is_immutable_unless_forced(tmp_path):
    frame = numbers()
    first = stage(classifier(frame), frame)
    second = stage(classifier(frame, max_depth=1), frame)
    store_bundle(tmp_path, first)
    with pytest.raises(BundleExists, match="immutable"):
        store_bundle(tmp_path, second)
    assert load_bundle(tmp_path, "m", "1").manifest == first.manifest
    store_bundle(tmp_path, second, force=True)
    assert load_bundle(tmp_path, "m", "1").manifest == second.manifest


def test_what_an_interrupted_attempt_left_is_no_bundle_and_in_nobodys_way(tmp_path):
    frame = numbers()
    staged = stage(classifier(frame), frame)
    BundleFolder(tmp_path, "m", "1").write("model.joblib", b"half", mode="overwrite")
    with pytest.raises(BundleNotFound, match=r"manifest\.json"):
        load_bundle(tmp_path, "m", "1")
    assert [p.kind for p in verify_bundle(tmp_path / "m/1")] == ["missing"]
    store_bundle(tmp_path, staged)
    assert verify_bundle(tmp_path / "m/1") == []


def test_memory_root_works_like_any_fsspec_url():
    frame = numbers()
    url = store_bundle("memory://models", stage(classifier(frame), frame), force=True)
    assert verify_bundle(url) == []
    assert load_bundle("memory://models", "m", "1").manifest.name == "m"


def test_unknown_storage_is_a_storage_error():
    with pytest.raises(BundleStorageFailed, match="nosuch"):
        load_bundle("nosuch://models", "m", "1")


def test_verify_lists_every_problem(tmp_path):
    frame = numbers()
    stored(tmp_path, classifier(frame), frame)
    folder = tmp_path / "m/1"
    (folder / "model.joblib").unlink()
    (folder / "baseline.parquet").write_bytes(b"")
    (folder / "extra.bin").write_bytes(b"")
    (folder / ".DS_Store").write_bytes(b"")
    assert {(p.kind, p.file) for p in verify_bundle(folder)} == {
        ("missing", "model.joblib"),
        ("hash_mismatch", "baseline.parquet"),
        ("unlisted", "extra.bin"),
    }
    (folder / "manifest.json").write_text("{}")
    assert [p.kind for p in verify_bundle(folder)] == ["manifest_invalid"]
    with pytest.raises(BundleNotFound, match="nothing lies there"):
        verify_bundle(tmp_path / "m/2")


def test_manifest_of_another_folder_is_refused(tmp_path):
    frame = numbers()
    stored(tmp_path, classifier(frame), frame)
    (tmp_path / "m/1").rename(tmp_path / "m/2")
    with pytest.raises(BundleInvalid, match="m 1; the folder says m 2"):
        load_bundle(tmp_path, "m", "2")


def test_model_that_is_not_the_manifests_is_refused(tmp_path):
    frame = numbers()
    staged = stage(classifier(frame), frame)
    other = dumped(small_forest().fit(frame[["a", "b"]], frame.target))
    store_bundle(tmp_path, with_file(staged, "model.joblib", other))
    with pytest.raises(BundleInvalid, match="features is"):
        load_bundle(tmp_path, "m", "1")


def test_another_sklearn_version_is_logged_with_both(tmp_path, caplog):
    frame = numbers()
    staged = stage(classifier(frame), frame)
    # The pickle says so itself, and scikit-learn's own warning must not become an error. Padded,
    # because a pickle holds the length of each text.
    installed = sklearn.__version__.encode()
    older = staged.contents["model.joblib"].replace(
        installed, OLDER.ljust(len(installed), "0").encode()
    )
    changed = with_file(staged, "model.joblib", older)
    manifest = msgspec.structs.replace(changed.manifest, sklearn_version=OLDER)
    store_bundle(tmp_path, StagedBundle(manifest=manifest, contents=changed.contents))
    with caplog.at_level(logging.WARNING):
        load_bundle(tmp_path, "m", "1")
    (record,) = caplog.records
    assert OLDER in record.getMessage()
    assert sklearn.__version__ in record.getMessage()
    assert unpickle_model(older, source="m").sklearn_version == OLDER


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (LogisticRegression(), "LogisticRegression can't be bundled; allowed: RandomForest"),
        (ExtraTreesClassifier(), "ExtraTreesClassifier can't be bundled"),
        (
            Pipeline([("x", LogisticRegression())]),
            "LogisticRegression, the last step of a Pipeline",
        ),
        (small_forest(), "not fitted"),
        ({"no": "model"}, "builtins.dict can't be bundled"),
    ],
)
def test_other_estimators_are_named(model, said):
    with pytest.raises(BundleUnbuildable, match=said):
        stage(model, numbers())


def test_several_outputs_are_refused():
    frame = numbers()
    model = small_forest().fit(frame[["b", "a"]], np.column_stack([frame.target, frame.target]))
    with pytest.raises(BundleUnbuildable, match="2 outputs"):
        stage(model, frame)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop(columns="a"), "lacks the model's columns a"),
        (lambda f: f.drop(columns="target"), "label column 'target' is not in the data"),
        (lambda f: f.assign(target="maybe"), "holds 'maybe'; the model's classes are 'no', 'yes'"),
        (lambda f: f.assign(target=f.target.where(f.a > 3)), "rows have no label"),
        (lambda f: f.iloc[:0], "no rows"),
        (lambda f: f.assign(b="text"), "does not predict the training rows"),
        (lambda f: f.assign(b=np.inf), "'b' holds infinite values"),
        (lambda f: f.assign(b=pd.Timestamp("2025-01-01")), "'b' holds datetime64"),
        (lambda f: f.assign(b=[1, "x"] * (ROWS // 2)), "'b' holds mixed-integer"),
    ],
)
def test_data_that_does_not_fit_is_refused(change, said):
    frame = numbers()
    with pytest.raises(BundleUnbuildable, match=said):
        stage(classifier(frame), change(frame))


def test_label_among_the_inputs_is_refused():
    frame = numbers()
    with pytest.raises(BundleUnbuildable, match="one of the model's inputs"):
        stage(classifier(frame), frame, label="a")


def test_array_model_with_another_number_of_columns_is_refused():
    frame = numbers()
    model = small_forest().fit(frame[["b"]].to_numpy(), frame.target)
    with pytest.raises(BundleUnbuildable, match="takes 1 columns, the data has 2"):
        stage(model, frame)


def test_bytes_that_are_no_pickle_are_refused():
    with pytest.raises(BundleInvalid, match="x does not unpickle"):
        unpickle_model(b"no pickle", source="x")


def test_creating_a_file_twice_is_refused_unless_it_is_the_same(tmp_path):
    folder = BundleFolder(tmp_path, "m", "1")
    folder.write("manifest.json", b"one", mode="create")
    folder.write("manifest.json", b"one", mode="create")  # as after a lost answer
    with pytest.raises(BundleExists, match="exists already"):
        folder.write("manifest.json", b"two", mode="create")
    assert folder.read("manifest.json") == b"one"


def test_pipeline_whose_first_step_keeps_no_count(tmp_path):
    frame = numbers()
    model = Pipeline([("first", "passthrough"), ("forest", small_forest(n_jobs=2))])
    model.fit(frame[["b", "a"]].to_numpy(), frame.target)
    bundle = stored(tmp_path, model, frame)
    assert [feature.name for feature in bundle.manifest.features] == ["b", "a"]
    assert bundle.model[-1].n_jobs == 1
