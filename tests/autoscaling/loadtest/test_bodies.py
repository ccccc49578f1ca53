"""Bodies are valid, of the asked size, and differ."""

import json

import pytest

from autoscaling.loadtest.bodies import MAX_BYTES_PER_KIND, encode_bodies, read_sample
from autoscaling.loadtest.errors import BodyInvalid
from autoscaling.loadtest.plan import Kind

SAMPLE = {"instances": [{"a": 1}, {"a": 2}, [3]], "top_k": 2}


def kind(rows):
    return Kind(name="k", rows=rows, weight=1.0)


def test_rows_go_round_and_the_rest_stays():
    bodies = [json.loads(body) for body in encode_bodies(SAMPLE, kind(2))]
    assert bodies == [
        {"instances": [{"a": 1}, {"a": 2}], "top_k": 2},
        {"instances": [[3], {"a": 1}], "top_k": 2},
        {"instances": [{"a": 2}, [3]], "top_k": 2},
    ]
    assert len(json.loads(encode_bodies(SAMPLE, kind(2_000))[0])["instances"]) == 2_000


def test_memory_is_bounded_but_one_body_always_fits():
    big = {"instances": [["x" * 1_000_000]] * 20}
    assert sum(map(len, encode_bodies(big, kind(1)))) <= MAX_BYTES_PER_KIND
    assert len(encode_bodies(big, kind(9))) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "JSON object"),
        ("{", "body.json"),
        ("{}", "at least one row"),
        ('{"instances": []}', "at least one row"),
        ('{"instances": 3}', "at least one row"),
    ],
)
def test_bad_bodies_are_refused(tmp_path, text, complaint):
    path = tmp_path / "body.json"
    path.write_text(text)
    with pytest.raises(BodyInvalid, match=complaint):
        read_sample(path)


def test_missing_body_is_refused(tmp_path):
    with pytest.raises(BodyInvalid, match="No such file"):
        read_sample(tmp_path / "none.json")
