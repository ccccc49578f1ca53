import json

import numpy as np
import pyarrow as pa
import pytest

from tests.monitoring.analysis.logs import answers, labels, write_log


@pytest.fixture
def sink(tmp_path):
    rng = np.random.default_rng(1)
    old = answers("1.0", rng, 4_000)
    new = answers("1.10", rng, 4_000, first=4_000, variant="challenger")
    write_log(
        tmp_path,
        pa.concat_tables([old, new]),
        pa.concat_tables([labels(old, rng, 0.85), labels(new, rng, 0.75)]),
    )
    return tmp_path


def test_a_worse_version_is_a_finding(treeline, sink) -> None:
    code, out, _ = treeline(
        "compare", "--sink", sink, "--metric", "accuracy", "--plan-units", 4000, "--json"
    )
    found = json.loads(out)
    comparison = found["comparisons"][0]["comparison"]
    assert code == 1
    assert (found["control"], comparison["treatment"]) == ("1.0", "1.10")
    assert comparison["verdict"] == "worse"
    assert comparison["interval"]["low"] < -0.1 < comparison["interval"]["high"] < 0
    assert found["feedback"]["label"]["used"] == 8_000


def test_people_get_a_table(treeline, sink) -> None:
    code, out, _ = treeline("compare", "--sink", sink, "--split", "1.0=1,1.10=1")
    assert code == 1
    assert "accuracy" in out
    assert "as intended" in out


def test_a_span_leaves_the_rest_out(treeline, sink) -> None:
    code, _, err = treeline("compare", "--sink", sink, "--to", "2026-09-21T06:00")
    assert code == 2
    assert "1 version in the log" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--metric", "nonsense"), "allowed: accuracy"),
        (("--alpha", "2"), "--alpha is 2.0"),
        (("--unit", "planet"), "'session', 'request', 'user'"),
        (("--split", "1.0"), "allowed: as 1.0.0=0.9"),
        (("--window", "7"), "allowed: a number"),
        (("--from", "2026-09-22", "--to", "2026-09-21"), "before --to"),
    ],
)
def test_misuse_says_what_is_allowed(treeline, sink, arguments, said) -> None:
    code, _, err = treeline("compare", "--sink", sink, *arguments)
    assert code == 2
    assert said in err


def test_no_log_is_misuse(treeline, tmp_path) -> None:
    code, _, err = treeline("compare", "--sink", tmp_path / "none")
    assert code == 2
    assert "none" in err
