import json
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture
def run(treeline):
    return partial(treeline, "drift")


@pytest.fixture
def tables(tmp_path):
    rng = np.random.default_rng(1)

    def write(name, rows, shift):
        table = pa.table(
            {"age": rng.normal(40 + shift, 10, rows), "city": rng.choice(["a", "b"], rows)}
        )
        pq.write_table(table, tmp_path / name)
        return tmp_path / name

    return (
        write("train.parquet", 3_000, 0),
        write("same.parquet", 500, 0),
        write("moved.parquet", 500, 5),
    )


def test_two_tables_are_compared_and_the_exit_code_says_what_was_found(run, tables):
    train, same, moved = tables
    code, out, _ = run("--baseline", train, "--window", same, "--json")
    assert code == 0
    assert not json.loads(out)["alarm"]
    code, out, _ = run("--baseline", train, "--window", moved, "--json")
    assert code == 1
    document = json.loads(out)
    assert document["alarm"]
    assert document["alpha"] == 0.01
    assert {f["name"]: f["alarm"] for f in document["features"]} == {"age": True, "city": False}
    assert document["multivariate"]["alarm"] is False


def test_a_bundles_baseline_shows_no_drift_from_itself(run, tmp_path):
    rng = np.random.default_rng(3)
    table = pa.table(
        {
            "x_age": rng.normal(size=1_000),
            "label": rng.choice(["yes", "no"], 1_000, p=[0.3, 0.7]),
            "predicted": rng.choice(["yes", "no"], 1_000, p=[0.1, 0.9]),
            "score": rng.random(1_000),
        }
    )
    path = tmp_path / "baseline.parquet"
    pq.write_table(table, path)
    code, out, _ = run("--baseline", path, "--window", path, "--json")
    assert code == 0
    names = [feature["name"] for feature in json.loads(out)["features"]]
    assert names == ["age", "predicted label", "score"]


def test_people_get_a_table_and_a_page(run, tables, tmp_path):
    train, _, moved = tables
    code, out, _ = run("--baseline", train, "--window", moved, "--html", tmp_path / "report.html")
    assert code == 1
    assert "age" in out
    assert "<h1>Drift" in (tmp_path / "report.html").read_text()


def test_the_log_is_judged_under_a_budget(run, tables, tmp_path):
    train = pq.read_table(tables[0])
    baseline = tmp_path / "baseline.parquet"
    pq.write_table(train.rename_columns(["x_age", "x_city"]), baseline)
    rows = pq.read_table(tables[2]).rename_columns(["x_age", "x_city"])
    stamped = (
        rows.append_column("ts", pa.array(range(500), pa.timestamp("us", tz="UTC")))
        .append_column("status", pa.array([200] * 500, pa.int16()))
        .append_column("weight", pa.array([1.0] * 500))
    )
    folder = tmp_path / "sink/events/model=credit/version=1.0.0/date=1970-01-01/hour=00"
    folder.mkdir(parents=True)
    pq.write_table(stamped, folder / "0-1.parquet")
    code, out, _ = run(
        "--sink", tmp_path / "sink", "--model", "credit", "--baseline", baseline, "--json"
    )
    assert code == 1
    document = json.loads(out)
    assert document["windows"][0]["version"] == "1.0.0"
    assert document["budget"]["threshold"] == 30


@pytest.mark.parametrize(
    ("metadata", "compared"),
    [({}, ["age"]), ({"treeline.predictions": "out-of-bag"}, ["age", "predicted label", "score"])],
)
def test_a_bundles_predictions_count_only_if_they_are_out_of_bag(run, tmp_path, metadata, compared):
    rng = np.random.default_rng(2)

    def rows(count, answer):
        return pa.table(
            {
                "x_age": rng.normal(size=count),
                answer: rng.choice(["yes", "no"], count),
                "score": rng.random(count),
            }
        )

    bundle = tmp_path / "models/credit/1.0.0"
    bundle.mkdir(parents=True)
    baseline = rows(500, "predicted").replace_schema_metadata(metadata)
    pq.write_table(baseline, bundle / "baseline.parquet")
    log = (
        rows(100, "label")
        .append_column("ts", pa.array(range(100), pa.timestamp("us", tz="UTC")))
        .append_column("status", pa.array([200] * 100, pa.int16()))
        .append_column("weight", pa.array([1.0] * 100))
    )
    folder = tmp_path / "sink/events/model=credit/version=1.0.0/date=1970-01-01/hour=00"
    folder.mkdir(parents=True)
    pq.write_table(log, folder / "0-1.parquet")
    models = tmp_path / "models"
    _, out, _ = run("--sink", tmp_path / "sink", "--model", "credit", "--models", models, "--json")
    [window] = json.loads(out)["windows"]
    assert [feature["name"] for feature in window["features"]] == compared


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--baseline", "a.parquet"],
        ["--sink", "somewhere"],
        ["--baseline", "a", "--window", "b", "--alpha", "0"],
        ["--baseline", "a", "--window", "b", "--alpha", "0.9"],
        ["--baseline", "a", "--window", "b", "--cycles", "maybe"],
        ["--sink", "s", "--model", "m", "--per-month", "0"],
        ["--nonsense"],
    ],
)
def test_misuse_exits_with_two(run, arguments):
    code, _, err = run(*arguments)
    assert code == 2
    assert "internal error" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--baseline", "absent.parquet", "--window", "a.parquet"), "cannot read absent.parquet"),
        (("--sink", "absent", "--model", "credit"), "cannot list absent: it is not there"),
    ],
)
def test_what_cannot_be_read_is_named(run, arguments, said):
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith(f"treeline: {said}")


@pytest.mark.parametrize("text", ["1", "d", "0h", "1.5d", "-1d", "1d ", "123456w"])
def test_a_window_without_a_sensible_length_is_refused(run, text):
    code, _, err = run("--sink", "absent", "--model", "credit", f"--window={text}")
    assert code == 2
    assert "allowed: a number" in err
