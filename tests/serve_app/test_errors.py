"""Errors survive pickling: Ray carries them from replicas and build tasks to people."""

import pickle

import pytest

from serve_app.errors import BundleTampered, TreelineError
from serve_app.schema import RequestInvalidError


@pytest.mark.parametrize(
    "error",
    [
        BundleTampered("s3://m/credit/1/model.joblib", "aa", "bb"),
        RequestInvalidError("does not fit"),
    ],
)
def test_round_trip(error: TreelineError) -> None:
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
