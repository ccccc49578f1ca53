import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from monitoring.analysis.drift.errors import DriftError
from serve_app.cli.drift import app


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


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


def test_two_tables_are_compared_and_the_exit_code_says_what_was_found(tables):
    train, same, moved = tables
    good = run("--baseline", train, "--window", same, "--json")
    assert good.exit_code == 0
    assert not json.loads(good.stdout)["alarm"]
    found = run("--baseline", train, "--window", moved, "--json")
    assert found.exit_code == 1
    document = json.loads(found.stdout)
    assert document["alarm"]
    assert document["alpha"] == 0.01
    assert {f["name"]: f["alarm"] for f in document["features"]} == {"age": True, "city": False}
    assert document["multivariate"]["alarm"] is False


def test_people_get_a_table_and_a_page(tables, tmp_path):
    pytest.importorskip("matplotlib")
    train, _, moved = tables
    shown = run("--baseline", train, "--window", moved, "--html", tmp_path / "report.html")
    assert shown.exit_code == 1
    assert "age" in shown.stdout
    assert "<h1>Drift" in (tmp_path / "report.html").read_text()


def test_the_log_is_judged_under_a_budget(tables, tmp_path):
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
    result = run("--sink", tmp_path / "sink", "--model", "credit", "--baseline", baseline, "--json")
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert document["windows"][0]["version"] == "1.0.0"
    assert document["budget"]["threshold"] == 30


@pytest.mark.parametrize(
    ("metadata", "compared"),
    [({}, ["age"]), ({"treeline.predictions": "out-of-bag"}, ["age", "predicted label", "score"])],
)
def test_a_bundles_predictions_count_only_if_they_are_out_of_bag(tmp_path, metadata, compared):
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
    result = run("--sink", tmp_path / "sink", "--model", "credit", "--models", models, "--json")
    [window] = json.loads(result.stdout)["windows"]
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
def test_misuse_exits_with_two(arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["--baseline", "absent.parquet", "--window", "absent.parquet"],
        ["--sink", "absent", "--model", "credit", "--window", "sometime"],
        ["--sink", "absent", "--model", "credit"],
    ],
)
def test_what_cannot_be_read_is_an_error_of_ours(arguments):
    assert isinstance(run(*arguments).exception, DriftError)
