"""``treeline simulate`` from the outside."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from serve_app.cli.simulate import app

CONTRACT = {
    "policy",
    "trace",
    "seed",
    "attainment",
    "violated_windows",
    "replica_hours",
    "oracle_replica_hours",
    "cost_ratio",
    "scale_events",
}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "short.csv"
    path.write_text("t_s,rps\n" + "".join(f"{t},{60}\n" for t in range(420)))
    return path


def run(*arguments: str):
    return CliRunner().invoke(app, arguments)


def test_json_has_the_contracts_keys(trace):
    result = run(
        *("--policy", "naive", "--policy", "oracle", "--trace", str(trace)),
        *("--seed", "3", "--max-replicas", "3", "--workers", "1", "--json"),
    )
    assert result.exit_code == 0, result.output
    records = json.loads(result.stdout)
    assert [r["policy"] for r in records] == ["naive", "oracle"]
    assert all(set(r) == CONTRACT for r in records)
    assert all(0 <= r["attainment"] <= 1 and r["trace"] == "short.csv" for r in records)


def test_a_missing_trace_is_misuse():
    result = run("--policy", "latency")
    assert result.exit_code == 2
    assert "--trace is missing" in result.output


def test_an_unknown_policy_is_misuse(trace):
    result = run("--policy", "magic", "--trace", str(trace))
    assert result.exit_code == 2
    assert "one of latency" in result.output


def test_too_short_a_trace_is_misuse(tmp_path):
    path = tmp_path / "tiny.csv"
    path.write_text("t_s,rps\n0,1\n")
    result = run("--trace", str(path))
    assert result.exit_code == 2
    assert "allowed: more than the 300 s" in result.output
