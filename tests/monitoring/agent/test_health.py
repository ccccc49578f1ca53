"""What is said, and what is not said, about an agent that copes or does not."""

import msgspec
import pytest

from monitoring.agent.health import DROPS_OPEN_S, Observed, SinkHealth, SpoolHealth, judge
from monitoring.agent.nodes import NodeHealth
from tests.monitoring.agent.test_metrics import report

WELL = SinkHealth(last_success_s=90.0, failing_since_s=None, last_error=None)
ROOMY = SpoolHealth(bytes=10, max_bytes=100, segments=1, lag_s=1.0, foreign_epochs=0)


def seen(**changes):
    fine = {
        "shard": "0",
        "now_s": 100.0,
        "troubles": (),
        "dead_threads": (),
        "sink": WELL,
        "spool": ROOMY,
        "dead_letters": (),
        "reports": (),
        "last_drops": {},
        "nodes": (),
    }
    return judge(Observed(**{**fine, **changes}))


def node(**changes):
    fine = {"node": "b", "alive": True, "replicas": 0, "silent_s": 0.0, "unacknowledged": 0}
    return NodeHealth(**{**fine, "problems": (), **changes})


def test_an_agent_that_works_says_nothing():
    health = seen()
    assert (health.ok, health.warnings) == (True, ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"sink": SinkHealth(last_success_s=1.0, failing_since_s=40.0, last_error="refused")},
            "storage fails for 60 s: refused",
        ),
        ({"spool": msgspec.structs.replace(ROOMY, bytes=91)}, "91 of 100 bytes"),
        ({"spool": msgspec.structs.replace(ROOMY, bytes=100)}, "the spool is full"),
        ({"troubles": ("fsync fails: EIO",)}, "agent 0: fsync fails: EIO"),
        ({"dead_letters": ("a", "b")}, "2 files lie in the dead letters, the last b"),
        (
            {"nodes": (node(alive=False, replicas=2, silent_s=30.0, unacknowledged=7),)},
            "node b is gone for 30 s; journals of 2 replicas wait there for its return, with at "
            "least 7 events",
        ),
        ({"nodes": (node(problems=("no room",)),)}, "node b: no room"),
    ],
)
def test_what_asks_for_a_person_is_one_sentence(changes, words):
    health = seen(**changes)
    assert health.ok
    (warning,) = health.warnings
    assert words in warning


def test_a_node_that_will_be_looked_at_is_no_warning():
    assert seen(nodes=(node(replicas=1, silent_s=12.0),)).warnings == ()


def test_an_agent_without_its_threads_is_not_well():
    health = seen(dead_threads=("treeline-spool",))
    assert not health.ok
    assert "treeline-spool has ended" in health.warnings[0]


def test_living_replicas_are_heard_and_dead_ones_are_not():
    said = msgspec.structs.replace(report("r1"), node="n", warnings=("journal: full",))
    quiet = report("r2")
    health = seen(reports=((99.0, said), (99.0, quiet), (50.0, said)))
    assert health.warnings == ("journal: full",)
    assert [(r.replica, r.node) for r in health.replicas] == [("r1", "n")]


def test_alerts_open_for_one_cause_of_each_kind_and_for_storage_only_if_it_stays_away():
    away = SinkHealth(last_success_s=1.0, failing_since_s=41.0, last_error="refused")
    full = msgspec.structs.replace(ROOMY, bytes=100)
    health = seen(troubles=("a fails", "b fails"), sink=away, spool=full)
    assert list(health.causes) == ["spool", "agent"]
    assert health.causes["agent"] == "agent 0: a fails"
    later = seen(now_s=101.0, sink=away)
    assert list(later.causes) == ["storage"]


def test_lost_events_are_told_with_their_reasons_while_their_replica_lives():
    capture = msgspec.structs.replace(report("r").captures[0], dropped={"journal_full": 2})
    lossy = msgspec.structs.replace(report("r"), captures=(capture, capture))
    told = "replica r: 4 events were dropped (journal_full 4)"
    assert seen(reports=((99.0, lossy),)).warnings == (told,)
    assert seen(reports=((1.0, lossy),)).warnings == ()
    # What a refused delivery without events leaves among the reasons.
    capture = msgspec.structs.replace(report("r").captures[0], dropped={"rejected": 0})
    lossless = msgspec.structs.replace(report("r"), captures=(capture,))
    assert seen(reports=((99.0, lossless),)).warnings == ()


def test_an_alert_of_drops_is_resolved_when_none_came_for_a_while():
    def lossy(replica):
        capture = msgspec.structs.replace(report(replica).captures[0], dropped={"journal_full": 2})
        return msgspec.structs.replace(report(replica), captures=(capture,))

    now_s = 100.0 + DROPS_OPEN_S
    both = ((now_s, lossy("r1")), (now_s, lossy("r2")))
    health = seen(now_s=now_s, reports=both, last_drops={"r1": 99.0, "r2": 100.0})
    assert health.causes == {"drops": "replica r2: 2 events were dropped (journal_full 2)"}
    over = seen(now_s=now_s, reports=both, last_drops={"r1": 99.0, "r2": 99.0})
    assert over.causes == {}
    assert len(over.warnings) == 2  # they are lost all the same
