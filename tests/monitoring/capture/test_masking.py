import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitoring.capture.masking import (
    FieldRule,
    MaskingPolicy,
    MaskingRules,
    lower_edge,
    mask_rows,
)
from monitoring.errors import MaskingPolicyInvalid
from monitoring.events import Feature
from tests.monitoring.capture.streams import FEATURES, KEY

numbers = st.one_of(st.integers(-(10**12), 10**12), st.floats())
widths = st.one_of(st.integers(1, 1000).map(float), st.floats(1e-6, 1e6))


def policy(**rules: object) -> MaskingPolicy:
    return MaskingPolicy(MaskingRules(**rules), key=KEY)  # type: ignore[arg-type]


@settings(deadline=None)
@given(numbers, widths)
def test_a_bucket_is_idempotent_and_its_edge_is_at_or_below(value: float, width: float) -> None:
    edge = lower_edge(value, width)
    again = lower_edge(edge, width)
    assert again == edge or (math.isnan(again) and math.isnan(edge))
    if math.isfinite(value):
        assert edge <= value
        assert value - edge <= width * (1 + 1e-9)


@settings(deadline=None)
@given(st.lists(st.lists(st.one_of(st.none(), st.text(), numbers), min_size=4, max_size=4)))
def test_drop_truncate_and_bucket_are_idempotent(rows: list[list[object]]) -> None:
    masks = policy(
        features={
            "age": FieldRule("bucket", width=10),
            "amount": FieldRule("drop"),
            "purpose": FieldRule("truncate", length=2),
            "owner": FieldRule("keep"),
        }
    ).row_masks(FEATURES)
    once = mask_rows(rows, masks)
    assert repr(mask_rows(once, masks)) == repr(once)


def test_rows_are_copied_and_the_rest_is_kept() -> None:
    masks = policy(features={"purpose": FieldRule("hmac")}).row_masks(FEATURES)
    rows = [[30, 1.5, "car", True], [31, None, None, False]]
    masked = mask_rows(rows, masks)
    assert rows[0][2] == "car"
    assert masked[0][:2] == [30, 1.5]
    assert len(masked[0][2]) == 32
    assert masked[1] == [31, None, None, False]
    assert mask_rows(rows, ()) is rows


def test_tags_are_denied_by_default_with_their_keys() -> None:
    masked = policy(
        tags={
            "channel": FieldRule("keep"),
            "customer": FieldRule("hmac"),
            "zip": FieldRule("truncate", length=2),
            "income": FieldRule("bucket", width=1000),
            "note": FieldRule("drop"),
            "deep": FieldRule("keep"),
        }
    )
    tags = {"anna@example.org": "x", "channel": True, "customer": "anna", "zip": 94110}
    tags |= {"income": "12345", "note": "secret", "deep": {"a": 1}}
    assert masked.mask_tags(tags) == {
        "channel": "true",
        "customer": masked.pseudonym("anna"),
        "zip": "94",
        "income": "12000.0",
    }
    assert policy().mask_tags({"a": "b"}) is None
    assert masked.mask_tags(None) is None


def test_ids_are_pseudonyms_unless_told_otherwise() -> None:
    default = policy()
    assert default.mask_user_id("anna") == default.mask_session_id("anna")
    assert "anna" not in default.mask_user_id("anna")
    assert policy(user_id=FieldRule("keep")).mask_user_id("anna") == "anna"
    assert policy(user_id=FieldRule("drop")).mask_user_id("anna") is None
    assert policy().mask_user_id("\ud800") is not None


def test_pseudonyms_depend_on_the_key_and_nothing_shows_it() -> None:
    other = MaskingPolicy(MaskingRules(), key=b"another key, long enough")
    assert other.pseudonym("anna") != policy().pseudonym("anna")
    assert other.policy_id != policy().policy_id
    assert policy().policy_id == policy().policy_id
    assert policy().policy_id != policy(user_id=FieldRule("drop")).policy_id
    assert KEY.decode() not in repr(policy())
    assert KEY.hex() not in repr(policy()) + policy().policy_id
    assert MaskingPolicy(MaskingRules(), key=b"k" * 100).pseudonym("a")


def test_logged_types_follow_the_rules() -> None:
    logged = policy(
        features={
            "age": FieldRule("bucket", width=5),
            "amount": FieldRule("hmac"),
            "owner": FieldRule("drop"),
        }
    ).logged_features(FEATURES)
    assert [f.dtype for f in logged] == ["int64", "string", "string", "bool"]


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"features": {"a": FieldRule("truncate")}}, r"features\.a, action truncate.*length"),
        ({"features": {"a": FieldRule("keep", length=3)}}, r"features\.a, action keep.*length"),
        ({"tags": {"a": FieldRule("bucket", width=-1)}}, r"tags\.a.*above 0, not -1"),
        ({"tags": {"a": FieldRule("truncate", length=0)}}, r"tags\.a.*1 or more, not 0"),
        ({"user_id": FieldRule("bucket", width=2)}, r"user_id.*keep, drop, hmac or truncate"),
    ],
)
def test_unsound_rules_name_field_action_and_what_is_allowed(rules: dict, says: str) -> None:
    with pytest.raises(MaskingPolicyInvalid, match=says):
        policy(**rules)


def test_rules_are_checked_against_the_features() -> None:
    with pytest.raises(MaskingPolicyInvalid, match=r"features\.agee.*known are \['age'"):
        policy(features={"agee": FieldRule("drop")}).require_known([f.name for f in FEATURES])
    with pytest.raises(MaskingPolicyInvalid, match=r"purpose.*string values"):
        policy(features={"purpose": FieldRule("bucket", width=2)}).row_masks(FEATURES)
    with pytest.raises(MaskingPolicyInvalid, match="whole width"):
        policy(features={"n": FieldRule("bucket", width=2.5)}).row_masks([Feature("n", "int64")])
    with pytest.raises(MaskingPolicyInvalid, match="at least 16"):
        MaskingPolicy(MaskingRules(), key=b"short")
