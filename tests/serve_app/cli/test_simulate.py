"""``treeline simulate`` from the outside."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.autoscaling.simulator.test_recorded import keep, run_of_a_service

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


@pytest.fixture
def run(treeline):
    return partial(treeline, "simulate")


def test_json_has_the_contracts_keys(run, trace):
    code, out, err = run(
        *("--policy", "naive", "--policy", "oracle", "--trace", trace),
        *("--seed", "3", "--max-replicas", "3", "--workers", "1", "--json"),
    )
    assert code == 0, err
    records = json.loads(out)
    assert [r["policy"] for r in records] == ["naive", "oracle"]
    assert all(set(r) == CONTRACT for r in records)
    assert all(0 <= r["attainment"] <= 1 and r["trace"] == "short.csv" for r in records)


def test_a_missing_trace_is_misuse(run):
    code, _, err = run("--policy", "latency")
    assert code == 2
    assert "--trace is missing" in err


def test_an_unknown_policy_is_misuse(run, trace):
    code, _, err = run("--policy", "magic", "--trace", trace)
    assert code == 2
    assert "one of latency" in err


def test_too_short_a_trace_is_misuse(run, tmp_path):
    path = tmp_path / "tiny.csv"
    path.write_text("t_s,rps\n0,1\n")
    code, _, err = run("--trace", path)
    assert code == 2
    assert "allowed: more than the 300 s" in err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "the first line is 'nothing', allowed: t_s,rps"),
        ("0,5\n1,6\n", "the first line is '0,5', allowed: t_s,rps"),
        ("t_s,rps\n", "no lines after the header"),
        ("t_s,rps\n0,5\n2,5\n1,5\n", "bad.csv:4: t_s = 1 after 2, allowed: t_s increases"),
        ("t_s,rps\n0,5\n\n1,nan\n", "bad.csv:4: '1,nan', allowed: 2 finite numbers"),
        ("t_s,rps\n0,5\n1,-5\n", "bad.csv:3: rps = -5, allowed: 0 to"),
        ("t_s,rps\n0,5\n1,many\n", "bad.csv:3: '1,many' are not numbers"),
        ("t_s\n5\n1e12\n", "allowed: 2678400 s in all"),
        ("t_s\n5\n6,7\n", "bad.csv:3: '6,7', allowed: 1 finite numbers"),
    ],
)
def test_bad_traces_are_misuse_and_named(run, tmp_path, text, complaint):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    code, out, err = run("--trace", path, "--json")
    assert code == 2
    assert complaint in err
    assert out == ""


def test_timestamps_in_any_order_are_replayed(run, tmp_path):
    path = tmp_path / "times.csv"
    path.write_text("t_s\n" + "".join(f"{1.6e9 + t / 10}\n" for t in reversed(range(3300))))
    code, out, err = run(
        *("--policy", "oracle", "--trace", path, "--max-replicas", "2", "--workers", "1"),
        "--json",
    )
    assert code == 0, err
    (record,) = json.loads(out)
    assert record["attainment"] > 0.99
    assert record["replica_hours"] == pytest.approx(30 / 3600, rel=0.1)


@pytest.mark.parametrize("option", [("--quantile", "1.5"), ("--slo-ms", "-1"), ("--seed", "x")])
def test_options_out_of_range_are_misuse(run, trace, option):
    code, _, _ = run("--trace", trace, *option)
    assert code == 2


def test_a_run_is_simulated_again_and_compared(run, tmp_path):
    keep(run_of_a_service(), tmp_path / "before")
    code, out, err = run("--run", tmp_path / "before", "--max-replicas", "3", "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["run"] == "before"
    assert figures["live"]["most_replicas"] == figures["simulated"]["most_replicas"] == 3
    assert figures["measured"]["work_ms"] == 20.0


@pytest.mark.parametrize("option", [("--slo-ms", "100"), ("--policy", "latency"), ("--grid",)])
def test_what_the_recording_answers_is_not_asked_for(run, tmp_path, option):
    keep(run_of_a_service(), tmp_path / "before")
    code, _, err = run("--run", tmp_path / "before", *option)
    assert code == 2
    assert f"{option[0]} has no meaning with --run" in err


@pytest.mark.parametrize("options", [(), ("--policy", "latency")])
def test_a_folder_without_a_run_is_misuse(run, tmp_path, options):
    code, _, err = run("--run", tmp_path, *options)
    assert code == 2
    assert err.startswith("treeline: ")
