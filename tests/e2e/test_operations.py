"""What an operator relies on: a sampling rate with true weights, and a stop that loses nothing."""

import math
from pathlib import Path

import pytest

from tests.e2e.application import Application, quickstart
from tests.e2e.log import query, verify
from tests.e2e.started import started
from tests.e2e.traffic import load

pytestmark = pytest.mark.ray

REQUESTS = 5_000
RATE = 0.1


def test_a_tenth_is_stored_by_the_time_it_has_stopped(
    tmp_path: Path, demo_root: Path, body: bytes
) -> None:
    document = quickstart(
        # Files of an hour: only the stop itself can have written what is found afterwards.
        args={"model_root": str(demo_root), "agent": {"file_max_age_s": 3600}},
        user_config={"sampling": {"rate": RATE}},
    )
    with started(Application(tmp_path, document)) as application:
        url = f"{application.url}/predict"
        answers = load(url, body, requests=REQUESTS, concurrency=8, prefix="tenth")
        assert answers.statuses == {200: REQUESTS}
        assert query(application.sink, "from {log} limit 1") == []
    ((rows, weighted, lightest, heaviest),) = query(
        application.sink, "select count(*), sum(weight), min(weight), max(weight) from {log}"
    )
    assert lightest == heaviest == pytest.approx(1 / RATE)
    standard_error = math.sqrt(REQUESTS * RATE * (1 - RATE)) / RATE
    assert abs(weighted - REQUESTS) <= 3 * standard_error
    verdict = verify(str(application.sink))
    assert verdict["ok"], verdict["problems"]
    assert (verdict["received"], verdict["written"]) == (REQUESTS, rows)
    assert verdict["sampled_out"] == REQUESTS - rows
