"""``treeline bundle`` as it is typed: what it prints and how it exits."""

import json

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression


@pytest.fixture
def given(tmp_path):
    """A folder with a fitted model and its training data, as Parquet and as CSV."""
    random = np.random.default_rng(5)
    frame = pd.DataFrame({"a": random.normal(size=40), "b": random.integers(0, 5, 40)})
    frame["y"] = np.where(frame.a > 0, "up", "down")
    model = RandomForestClassifier(n_estimators=3, random_state=0).fit(frame[["a", "b"]], frame.y)
    joblib.dump(model, tmp_path / "model.joblib")
    joblib.dump(LogisticRegression(), tmp_path / "other.joblib")
    frame.to_parquet(tmp_path / "train.parquet")
    frame.to_csv(tmp_path / "train.csv", index=False)
    return tmp_path


def create(folder, *more, model="model.joblib", train="train.parquet", version="1.0.0"):
    named = ["--train", folder / train, "--label", "y", "--name", "m", "--version", version]
    return ["bundle", "create", folder / model, *named, "--out", folder / "root", *more]


@pytest.mark.parametrize("train", ["train.parquet", "train.csv"])
def test_create_verify_show(treeline, given, train):
    code, out, err = treeline(
        *create(given, "--json", "--test", given / train, "--feature-set-version", "7", train=train)
    )
    assert code == 0
    assert "unpickled" in err
    created = json.loads(out)
    path = given / "root/m/1.0.0"
    assert created["path"] == str(path)
    assert created["manifest"] == json.loads((path / "manifest.json").read_text())
    assert created["manifest"]["feature_set_version"] == "7"
    assert created["manifest"]["training_metrics"]["test_rows"] == 40

    code, out, _ = treeline("bundle", "verify", path, "--json")
    assert (code, json.loads(out)) == (0, {"ok": True, "path": str(path), "problems": []})
    code, out, _ = treeline("bundle", "show", path, "--json")
    assert (code, json.loads(out)) == (0, created["manifest"])
    code, out, _ = treeline("bundle", "show", path)
    assert code == 0
    assert "down, up" in out


def test_plain_output_says_where_it_went(treeline, given):
    assert treeline(*create(given))[:2] == (0, f"bundled m 1.0.0 at {given}/root/m/1.0.0\n")
    code, out, _ = treeline("bundle", "verify", given / "root/m/1.0.0")
    assert (code, out) == (0, f"{given}/root/m/1.0.0 is sound\n")


def test_findings_exit_1(treeline, given):
    treeline(*create(given))
    path = given / "root/m/1.0.0"
    with (path / "model.joblib").open("ab") as file:
        file.write(b"x")
    code, out, _ = treeline("bundle", "verify", path, "--json")
    report = json.loads(out)
    assert (code, report["ok"]) == (1, False)
    (problem,) = report["problems"]
    assert (problem["kind"], problem["file"]) == ("hash_mismatch", "model.joblib")
    assert problem["expected"] != problem["found"]
    code, out, _ = treeline("bundle", "verify", path)
    assert code == 1
    assert "hash_mismatch" in out

    (path / "manifest.json").write_text("{}")
    assert treeline("bundle", "verify", path)[0] == 1
    code, out, err = treeline("bundle", "show", path)
    assert (code, out) == (1, "")
    assert err.startswith("treeline: manifest.json: ")


def test_misuse_exits_2_with_one_line(treeline, given):
    treeline(*create(given))
    for arguments, said in [
        (create(given), "immutable"),
        (create(given, model="other.joblib"), "allowed: RandomForestClassifier"),
        (create(given, train="nowhere.csv"), "can't be read as CSV"),
        (create(given, train="model.joblib"), "can't be read as Parquet"),
        (create(given, version="../2"), "not allowed"),
        (["bundle", "verify", given / "root/m/9"], "nothing lies there"),
        (["bundle", "show", given / "root/m/9"], "no bundle at"),
    ]:
        code, out, err = treeline(*arguments)
        assert (code, out) == (2, ""), err
        assert said in err.splitlines()[-1]
        assert err.splitlines()[-1].startswith("treeline: ")
        assert "Traceback" not in err


def test_force_replaces(treeline, given):
    treeline(*create(given))
    assert treeline(*create(given, "--force"))[0] == 0
    assert treeline("bundle", "verify", given / "root/m/1.0.0")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["bundle", "create"],
        ["bundle", "create", "nowhere.joblib"],
        ["bundle", "verify", "x", "--storage-option", "novalue"],
        ["bundle", "nonsense"],
        ["nonsense"],
        ["--nonsense"],
    ],
)
def test_wrong_arguments_exit_2(treeline, arguments):
    code, out, err = treeline(*arguments)
    assert code == 2
    assert "Traceback" not in out + err
