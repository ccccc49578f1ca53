"""Data quality: rules learned from training, edited in the bundle, held against windows."""

import msgspec
import pytest

from monitoring.agent.settings import SinkSettings
from monitoring.live.expectations import read_expectation
from monitoring.live.figures import FeatureCounts, WindowFigures
from monitoring.live.judging import Judging
from monitoring.live.rules import Rule, findings, learned
from tests.monitoring.agent.conftest import delivery, rows_of
from tests.monitoring.live.test_client import bundle
from tests.monitoring.live.test_judging import DRIFT_WINDOW_S, SETTINGS, START_S
from tests.monitoring.live.worlds import EXPECTED, World

NONE_OPEN: frozenset[tuple[str, str]] = frozenset()


def figures(events: int, **counts: int) -> WindowFigures:
    return WindowFigures(events=events, rows=events, features={"age": FeatureCounts(**counts)})


def broken(found) -> list[str]:
    return [finding.kind for finding in found if finding.broken]


def test_a_share_is_broken_beyond_chance_and_stays_so_until_it_is_back():
    rules = {"age": learned(0.0)}
    assert broken(findings(figures(1_000, missing=15), rules, NONE_OPEN)) == []
    assert broken(findings(figures(1_000, missing=40), rules, NONE_OPEN)) == ["missing"]
    still = frozenset({("age", "missing")})
    assert broken(findings(figures(1_000, missing=15), rules, still)) == ["missing"]
    assert broken(findings(figures(1_000, missing=10), rules, still)) == []


def test_few_events_many_rows_and_rules_turned_off():
    rules = {"age": learned(0.0)}
    assert findings(figures(29, missing=29), rules, NONE_OPEN) == []
    one_request = WindowFigures(events=40, rows=4_000, features={"age": FeatureCounts(unseen=200)})
    assert broken(findings(one_request, rules, NONE_OPEN)) == []  # as sure as 40 rows are
    off = {"age": Rule(missing=None, outside=None, unseen=None)}
    assert findings(figures(1_000, missing=900), off, NONE_OPEN) == []


def test_rules_are_learned_from_the_baseline_and_edited_in_the_bundle(tmp_path):
    bundle(tmp_path)
    path = tmp_path / "credit" / "1.0.0" / "manifest.json"
    manifest = msgspec.json.decode(path.read_bytes())
    places = (SinkSettings(url=str(tmp_path)), "credit", "1.0.0")
    plain = read_expectation(*places, frozenset())
    assert plain.rules["age"] == learned(0.0)
    assert [column.name for column in plain.profile.layout.columns] == ["age", "job"]
    manifest["quality"] = {"age": {"missing": 0.5, "outside": None}}
    path.write_bytes(msgspec.json.encode(manifest))
    edited = read_expectation(*places, frozenset({"job"}))
    assert edited.rules["age"] == Rule(missing=0.5, outside=None)
    assert "job" not in edited.rules  # masking changes its values
    assert [column.name for column in edited.profile.layout.columns] == ["age"]


def test_an_impossible_limit_is_refused_by_name():
    with pytest.raises(ValueError, match="allows missing 2"):
        Rule(missing=2.0)


def test_a_broken_rule_is_a_cause_until_a_window_is_well(tmp_path):
    expected = type(EXPECTED)(
        profile=EXPECTED.profile, reason=None, limits=EXPECTED.limits, rules={"age": learned(0.0)}
    )
    world = World(tmp_path, expected=expected)
    judging = Judging(world.store, world.counting._expectations, SETTINGS, world.agent.clock)
    for window, age in enumerate((500.0, 40.0)):
        ts_us = (START_S + window * DRIFT_WINDOW_S) * 1_000_000
        first = window * 100 + 1

        def events(seq, ts_us=ts_us, age=age):
            return [row | {"x_age": age} for row in rows_of(seq, ts_us=ts_us)]

        world.agent.take(delivery(first, first + 59, events=events))
        world.agent.now_s = START_S + (window + 1) * DRIFT_WINDOW_S + SETTINGS.late_s
        world.count()
        causes = judging.causes({})
        (name,) = causes or (None,)
        assert name == (None if window else "data:credit/1.0.0/champion/age/outside")
        if causes:
            assert "100.00% of `age` is out of range, 1.00% allowed" in causes[name].text
    world.die()
