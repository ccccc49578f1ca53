import json

import numpy as np
import pytest

from tests.monitoring.analysis.logs import answers, labels, write_log


@pytest.fixture
def sink(tmp_path):
    rng = np.random.default_rng(1)
    rows = answers("1.0.0", rng, 3_000)
    write_log(tmp_path, rows, labels(rows, rng, rows["score"].to_numpy()))
    return tmp_path


def run(treeline, sink, *more):
    return treeline("quality", "--sink", sink, "--models", sink / "none", *more)


def test_figures_come_as_json_even_without_a_bundle(treeline, sink) -> None:
    code, out, err = run(treeline, sink, "--json")
    (version,) = json.loads(out)["versions"]
    assert code == 0
    assert "no training figures" in err
    assert version["measures"][0]["measure"]["name"] == "accuracy"
    assert version["estimate"]["applies"] == "yes"
    assert version["maturity"]["coverage"] == 1.0


def test_later_feedback_is_ignored_as_of_then(treeline, sink) -> None:
    _, out, _ = run(treeline, sink, "--as-of", "2026-09-21T04:00", "--json")
    (version,) = json.loads(out)["versions"]
    assert version["rows"] == 1_440  # four hours, one answer in ten seconds
    assert version["maturity"]["labelled_rows"] == 1_081  # labels take an hour


def test_people_get_a_table(treeline, sink) -> None:
    code, out, _ = run(treeline, sink)
    assert code == 0
    assert "accuracy" in out
    assert "came true" in out


def test_without_labels_a_sentence_stands_for_the_table(treeline, tmp_path) -> None:
    rng = np.random.default_rng(1)
    rows = answers("1.0.0", rng, 300)
    write_log(tmp_path, rows, labels(rows, rng, rows["score"].to_numpy()))
    _, out, _ = run(treeline, tmp_path, "--as-of", "2026-09-21T00:30")
    assert "0.0% of them labelled so far; no figure can be measured yet" in out
    assert "95% interval" not in out


def test_a_version_that_is_not_there_is_misuse(treeline, sink) -> None:
    code, _, err = run(treeline, sink, "--version", "9")
    assert code == 2
    assert "no answers of credit 9 at this time" in err
