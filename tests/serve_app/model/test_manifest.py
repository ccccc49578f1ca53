"""The manifest survives its file, and refuses what the contract does not allow."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import BundleInvalid
from serve_app.model.manifest import (
    FeatureSpec,
    Manifest,
    check_name,
    decode_manifest,
    encode_manifest,
)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)
finite = st.floats(allow_nan=False, allow_infinity=False)
int64 = st.integers(-(2**63), 2**63 - 1)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)


@st.composite
def features(draw, name: str) -> FeatureSpec:
    dtype = draw(st.sampled_from(["float64", "int64", "bool", "string"]))
    given = {"name": name, "dtype": dtype, "nullable": draw(st.booleans())}
    if dtype == "string":
        given["categories"] = draw(st.none() | st.lists(st.text(), unique=True).map(tuple))
    if dtype in ("float64", "int64"):
        pair = st.tuples(*[finite if dtype == "float64" else int64] * 2).map(sorted)
        given["min"], given["max"] = draw(pair | st.just([None, None]))
    return FeatureSpec(**given)


@st.composite
def manifests(draw) -> Manifest:
    inputs = draw(st.lists(st.text(min_size=1), unique=True, min_size=1, max_size=5))
    classes = draw(st.lists(st.text(), unique=True, max_size=4))
    return Manifest(
        name=draw(names),
        version=draw(names),
        feature_set_version=draw(names),
        task="classification" if classes else "regression",
        features=tuple(draw(features(name)) for name in inputs),
        classes=tuple(classes),
        sklearn_version=draw(st.text()),
        created_at=draw(st.datetimes(timezones=st.just(UTC))),
        training_metrics=draw(st.dictionaries(st.text(), finite | int64)),
        sha256={
            "model.joblib": draw(digests),
            "baseline.parquet": draw(digests),
            **draw(st.dictionaries(names, digests)),
        },
    )


@given(manifests())
def test_round_trip(manifest):
    assert decode_manifest(encode_manifest(manifest)) == manifest


def plain() -> dict:
    return {
        "name": "m",
        "version": "1",
        "feature_set_version": "1",
        "task": "classification",
        "features": [{"name": "a", "dtype": "float64", "nullable": False}],
        "classes": ["x", "y"],
        "sklearn_version": "1.7.0",
        "created_at": "2025-03-01T12:00:00Z",
        "training_metrics": {},
        "sha256": {"model.joblib": "0" * 64, "baseline.parquet": "1" * 64},
    }


def feature(**changes) -> list[dict]:
    return [{"name": "a", "dtype": "float64", "nullable": False} | changes]


def test_keys_of_a_newer_manifest_are_ignored():
    newer = msgspec.json.encode(plain() | {"signature": "..."})
    assert decode_manifest(newer).created_at == datetime(2025, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "../m"}, r"\$.name"),
        ({"version": ""}, r"\$.version"),
        ({"task": "ranking"}, r"\$.task"),
        ({"features": []}, "features: at least one"),
        ({"features": feature() * 2}, "named more than once: a"),
        ({"features": feature(dtype="date")}, r"\$.features\[0\].dtype"),
        ({"features": feature(categories=["x"])}, "only a string feature"),
        ({"features": feature(dtype="bool", min=0)}, "only a number feature"),
        ({"features": feature(min=2, max=1)}, "min 2 is above max 1"),
        ({"classes": []}, "0 given for a classification"),
        ({"classes": ["x", "x"]}, "only once"),
        ({"task": "regression"}, "2 given for a regression"),
        ({"created_at": "2025-03-01T12:00:00"}, r"\$.created_at"),
        ({"sha256": {"model.joblib": "0" * 64}}, "baseline.parquet is not listed"),
        ({"sha256": plain()["sha256"] | {"model.joblib": "short"}}, r"\$.sha256"),
        ({"sha256": plain()["sha256"] | {"../x": "0" * 64}}, "'../x' is not the bare name"),
        ({"sha256": plain()["sha256"] | {"manifest.json": "0" * 64}}, "not the bare name"),
    ],
)
def test_what_breaks_the_contract_is_named(change, said):
    with pytest.raises(BundleInvalid, match=said):
        decode_manifest(msgspec.json.encode(plain() | change))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe"])
def test_what_is_no_manifest_at_all(data):
    with pytest.raises(BundleInvalid, match=r"manifest\.json"):
        decode_manifest(data)


@given(st.text(max_size=12))
def test_an_allowed_name_is_one_folder(name):
    try:
        check_name("name", name)
    except BundleInvalid:
        return
    assert name not in ("", ".", "..")
    assert not set(name) & set("/\\\n\0")
