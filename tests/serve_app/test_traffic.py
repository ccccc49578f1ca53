"""The split: shares as asked, sticky, and nobody moves who need not."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from monitoring.agent.sampling import uniform
from serve_app.traffic import (
    SHADOW,
    Split,
    canary_share,
    canary_steps,
    lay_out,
    point,
    promoted,
    rolled_back,
    shares_at,
    unit_id,
)
from serve_app.traffic_settings import Canary, Traffic

START = datetime(2026, 9, 21, 12, tzinfo=UTC)
START_S = START.timestamp()
IDS = [f"session-{n}" for n in range(20_000)]


def split_of(shares: dict[str, float], canary: str | None = None) -> Split:
    rest = 1.0 - sum(shares.values())
    return lay_out({"1.0.0": rest, **shares}, "1.0.0", canary)


def chosen(split: Split, salt: bytes = b"") -> dict[str, str]:
    return {each: split.version_at(point(each, salt)) for each in IDS}


def test_units_arrive_in_the_shares_asked_for() -> None:
    found = list(chosen(split_of({"2": 0.2, "3": 0.05}), b"salt").values())
    for version, share in (("1.0.0", 0.75), ("2", 0.2), ("3", 0.05)):
        assert binomtest(found.count(version), len(found), share).pvalue > 1e-3


def test_split_sampling_and_shadows_are_independent() -> None:
    """With no salt too, which would else be the very hash that sampling uses."""
    numbers = np.array([[point(i, b""), uniform(i), point(i, b"", SHADOW)] for i in IDS])
    correlations = np.corrcoef(numbers.T)[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 4 / np.sqrt(len(IDS))


def test_another_salt_deals_anew() -> None:
    split = split_of({"2": 0.5})
    one, other = chosen(split, b"a"), chosen(split, b"b")
    moved = sum(one[i] != other[i] for i in IDS)
    assert binomtest(moved, len(IDS), 0.5).pvalue > 1e-3


@given(
    st.lists(st.floats(0, 0.3), min_size=2, max_size=3),
    st.floats(0, 0.05),
    st.floats(0, 0.05),
)
def test_a_growing_canary_takes_from_the_champion_alone(
    fixed: list[float], before: float, growth: float
) -> None:
    shares = {f"f{n}": share for n, share in enumerate(fixed)}
    small = split_of({**shares, "new": before}, canary="new")
    large = split_of({**shares, "new": before + growth}, canary="new")
    for at in np.linspace(0, 1, 201)[:-1]:
        was, now = small.version_at(float(at)), large.version_at(float(at))
        assert was == now or (was, now) == ("1.0.0", "new")


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=5), st.booleans())
def test_every_part_has_its_length(weights: list[float], with_canary: bool) -> None:
    shares = {f"v{n}": w / sum(weights) for n, w in enumerate(weights)}
    champion, *others = shares
    split = lay_out(shares, champion, others[0] if others and with_canary else None)
    edges = [0.0, *split.bounds, 1.0]
    assert edges == sorted(edges)
    lengths = dict(zip(split.versions, np.diff(edges), strict=True))
    assert lengths == pytest.approx(shares)


def test_who_has_no_session_stands_for_the_request() -> None:
    context = {"session_id": None, "user_id": "u", "request_id": "r"}
    assert unit_id("session", **context) == "r"
    assert unit_id("user", **context) == "u"
    assert unit_id("request", **{**context, "session_id": "s"}) == "r"
    assert unit_id("session", **{**context, "session_id": "s"}) == "s"


def canary(*steps: dict[str, float]) -> Canary:
    return Canary.model_validate({"version": "2", "start": START, "steps": list(steps)})


def test_a_canary_follows_the_clock() -> None:
    steps = canary({"share": 0.01, "hold_s": 60}, {"share": 0.1, "hold_s": 600}, {"share": 0.5})
    at = [canary_share(steps, START_S + s) for s in (-1, 0, 59, 60, 659, 660, 1e9)]
    assert at == [0.0, 0.01, 0.01, 0.1, 0.1, 0.5, 0.5]
    assert [step.until_s for step in canary_steps(steps)] == [START_S + 60, START_S + 660, None]


def test_the_last_share_lasts_after_its_hold() -> None:
    assert canary_share(canary({"share": 0.3, "hold_s": 60}), START_S + 3600) == 0.3


def test_the_rest_is_the_champions() -> None:
    traffic = Traffic(shares={"3": 0.2}, canary=canary({"share": 0.1}))
    assert shares_at(traffic, "1", START_S - 1) == pytest.approx({"1": 0.8, "3": 0.2, "2": 0.0})
    assert shares_at(traffic, "1", START_S) == pytest.approx({"1": 0.7, "3": 0.2, "2": 0.1})


def test_all_for_a_challenger_leaves_the_champion_nothing() -> None:
    assert set(chosen(split_of({"2": 1.0})).values()) == {"2"}
    assert set(chosen(split_of({"2": 1.0}, canary="2")).values()) == {"2"}


def test_promotion_and_rollback_leave_the_rest_alone() -> None:
    both = Traffic(
        shares={"3": 0.2},
        canary=canary({"share": 0.1}),
        shadows={"2": 1.0, "3": 0.5},
        salt="x",
    )
    won = promoted(both, "2", "why")
    assert (won.shares, won.canary, won.shadows) == ({"2": 1.0}, None, {"3": 0.5})
    lost = rolled_back(both, "2", "why")
    assert (lost.shares, lost.canary, lost.shadows) == ({"3": 0.2}, None, both.shadows)
    other = rolled_back(both, "3", "why")
    assert (other.shares, other.canary) == ({}, both.canary)
    assert (won.salt, lost.salt, won.reason) == ("x", "x", "why")
