"""Two feature-set versions in one sink read as one table, with each of the tools people use."""

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from monitoring.events import Feature, Stream
from tests.monitoring.agent.conftest import STREAM, Agent, delivery, rows_of

NEXT = Stream(
    model="credit",
    version="2.0.0",
    feature_set_version="2",
    variant="challenger",
    task="classification",
    features=(Feature("age", "float64"), Feature("income", "float64")),
    classes=("bad", "good"),
)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log")
    agent = Agent(folder)
    agent.take(delivery(1, 3, stream=STREAM))
    agent.take(
        delivery(
            1,
            2,
            producer="p2",
            stream=NEXT,
            events=lambda seq: [{**rows_of(seq)[0], "x_income": 1000.0 * seq}],
        )
    )
    agent.drain()
    agent.die()
    return folder / "sink" / "events"


def test_duckdb(events):
    found = duckdb.sql(
        f"SELECT event_id, feature_set_version, x_age, x_job, x_income, probabilities, tags, weight"
        f" FROM read_parquet('{events}/**/*.parquet', union_by_name = true,"
        " hive_partitioning = false) ORDER BY producer, seq"
    ).fetchall()
    assert [row[:5] for row in found] == [
        ("p1-1-0", "1", 1.0, "clerk", None),
        ("p1-2-0", "1", 2.0, "clerk", None),
        ("p1-3-0", "1", 3.0, "clerk", None),
        ("p2-1-0", "2", 1.0, None, 1000.0),
        ("p2-2-0", "2", 2.0, None, 2000.0),
    ]
    assert found[0][5] == pytest.approx([0.1, 0.9])
    assert found[0][6:] == ({"a": "b"}, 1.0)


def test_duckdb_with_hive_partitions(events):
    found = duckdb.sql(
        f"SELECT model, version, count(*) FROM read_parquet('{events}/**/*.parquet',"
        " union_by_name = true, hive_partitioning = true, hive_types_autocast = false)"
        " GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    assert found == [("credit", "1.0.0", 3), ("credit", "2.0.0", 2)]


def test_polars(events):
    table = pl.scan_parquet(
        f"{events}/**/*.parquet",
        hive_partitioning=False,
        missing_columns="insert",
        extra_columns="ignore",
        schema=pl.concat(
            [
                pl.read_parquet(p, hive_partitioning=False).clear()
                for p in events.rglob("*.parquet")
            ],
            how="diagonal",
        ).schema,
    ).collect()
    assert table.sort("producer", "seq")["x_income"].to_list() == [None, None, None, 1e3, 2e3]
    assert table.sort("producer", "seq")["x_job"].to_list() == ["clerk"] * 3 + [None] * 2
    diagonal = pl.concat(
        [pl.read_parquet(p, hive_partitioning=False) for p in events.rglob("*.parquet")],
        how="diagonal",
    )
    assert diagonal.shape == table.shape


def test_pyarrow_dataset(events):
    paths = sorted(str(p) for p in events.rglob("*.parquet"))
    schema = pa.unify_schemas(
        [ds.dataset(p).schema.remove_metadata() for p in paths], promote_options="permissive"
    )
    table = ds.dataset(paths, schema=schema).to_table().sort_by([("producer", "ascending")])
    assert table["x_income"].to_pylist()[:3] == [None] * 3
    assert table["feature_set_version"].to_pylist() == ["1", "1", "1", "2", "2"]
    assert table.schema.field("ts").type == pa.timestamp("us", tz="UTC")
