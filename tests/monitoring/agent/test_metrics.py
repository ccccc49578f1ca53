import msgspec
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from monitoring.agent.fleet import (
    MAX_REPLICAS,
    AgentCounts,
    Fleet,
    FleetMemory,
    add_histograms,
    merge,
)
from monitoring.agent.metrics import exposition
from monitoring.events import CaptureCounts, HistogramCounts, ReplicaReport, VariantCounts


def report(replica="r1", *, ok=3, bad=1, ongoing=2, dropped=0):
    return ReplicaReport(
        replica=replica,
        variants=(
            VariantCounts(
                model="credit",
                version="1.0.0",
                variant="champion",
                requests={200: ok, 500: bad},
                rows=ok,
                latency_s=HistogramCounts(bounds=(0.01, 0.1), counts=(ok, bad, 0), sum=0.5),
            ),
        ),
        captures=(
            CaptureCounts(
                producer=f"{replica}-p",
                model="credit",
                version="1.0.0",
                variant="champion",
                captured=ok + bad,
                acknowledged=ok,
                dropped={"journal_full": dropped} if dropped else {},
                journal_bytes=100,
            ),
        ),
        ongoing=ongoing,
        rejected={429: 1},
    )


def samples(fleet, now_s=0.0, **counts):
    text = exposition(AgentCounts(fleet=fleet.totals(now_s), **counts)).decode()
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


LABELS = (("model", "credit"), ("variant", "champion"), ("version", "1.0.0"))


def test_replicas_add_up_and_the_last_report_counts():
    fleet = Fleet()
    fleet.note(report("r1", ok=1), 0.0)
    fleet.note(report("r1", ok=3), 1.0)
    fleet.note(report("r2", ok=10, dropped=4), 1.0)
    found = samples(
        fleet, 1.0, lost_events={"spool_corrupt": 2}, sink_lag_s=1.5, deliveries=7, dead_letters=1
    )
    code = ("code", "200")
    assert found["treeline_requests_total", (code, *LABELS)] == 13
    assert found["treeline_rejected_requests_total", (("code", "429"),)] == 2
    assert found["treeline_ongoing_requests", ()] == 4
    assert found["treeline_request_duration_seconds_count", LABELS] == 15
    assert found["treeline_request_duration_seconds_sum", LABELS] == 1.0
    assert found["treeline_request_duration_seconds_bucket", (("le", "0.01"), *LABELS)] == 13
    assert found["treeline_capture_events_total", LABELS] == 15
    assert found["treeline_capture_dropped_events_total", (("reason", "journal_full"),)] == 4
    assert found["treeline_capture_dropped_events_total", (("reason", "spool_corrupt"),)] == 2
    assert found["treeline_sink_lag_seconds", ()] == 1.5
    assert found["treeline_agent_deliveries_total", ()] == 7
    assert found["treeline_sink_dead_letters_total", ()] == 1


def test_health_of_capture_is_told_by_metrics():
    fleet = Fleet()
    for replica, used in (("r1", 50), ("r2", 90), ("dead", 100)):
        said = report(replica)
        capture = msgspec.structs.replace(
            said.captures[0],
            journal_bytes=used,
            journal_max_bytes=100,
            failed_deliveries=3,
            refused_deliveries=2,
            dead_letters=1,
        )
        said = msgspec.structs.replace(said, captures=(capture,), warnings=("w",))
        fleet.note(said, 0.0 if replica == "dead" else 60.0)
    found = samples(
        fleet, 60.0, sinks_failing=1, sink_last_success_s=9.0, spool_max_bytes=8, waiting_nodes=1
    )
    assert found["treeline_journal_fill_ratio", ()] == 0.9
    assert found["treeline_capture_warnings", ()] == 2
    assert found["treeline_capture_failed_deliveries_total", ()] == 9
    assert found["treeline_capture_refused_deliveries_total", ()] == 6
    assert found["treeline_capture_dead_letters_total", ()] == 3
    assert found["treeline_waiting_nodes", ()] == 1
    assert found["treeline_sinks_failing", ()] == 1
    assert found["treeline_sink_last_success_timestamp_seconds", ()] == 9.0
    assert found["treeline_spool_max_bytes", ()] == 8


def test_the_earliest_of_the_last_uploads_counts():
    parts = [AgentCounts(sink_last_success_s=s) for s in (0.0, 7.0, 5.0)]
    assert merge(parts).sink_last_success_s == 5.0
    assert merge([]).sink_last_success_s == 0.0


def test_a_dead_replica_keeps_its_counters_and_loses_its_gauges():
    fleet = Fleet()
    fleet.note(report(), 0.0)
    totals = fleet.totals(60.0)
    (variant,) = totals.variants.values()
    assert variant.requests == {200: 3, 500: 1}
    assert (totals.ongoing, totals.journal_bytes, totals.replicas) == (0, 0, 0)


def test_memory_is_bounded_and_sums_stay():
    fleet = Fleet()
    for number in range(MAX_REPLICAS + 50):
        fleet.note(report(f"r{number}"), 0.0)
    assert len(fleet._memory.latest) == len(fleet._noted) == MAX_REPLICAS
    (variant,) = fleet.totals(99.0).variants.values()
    assert variant.requests[200] == 3 * (MAX_REPLICAS + 50)


BOUNDS = st.lists(st.floats(0.001, 10), min_size=1, max_size=5, unique=True).map(sorted)


@given(BOUNDS, BOUNDS, st.data())
def test_histograms_of_different_bounds_lose_no_value(left, right, data):
    def histogram(bounds):
        counts = data.draw(
            st.lists(st.integers(0, 9), min_size=len(bounds) + 1, max_size=len(bounds) + 1)
        )
        return HistogramCounts(bounds=tuple(bounds), counts=tuple(counts), sum=1.0)

    one, two = histogram(left), histogram(right)
    both = add_histograms(one, two)
    assert sum(both.counts) == sum(one.counts) + sum(two.counts)
    assert (both.bounds, both.sum) == (one.bounds, 2.0)


def test_nothing_reported_is_a_valid_answer():
    assert b"treeline_sink_files_total 0.0" in exposition(merge([]))


def test_copies_that_a_shadow_dropped_are_counted_by_reason():
    fleet = Fleet()
    for replica in ("r1", "r2"):
        whole = report(replica)
        shadow = msgspec.structs.replace(
            whole.variants[0], variant="shadow", version="2", dropped={"queue_full": 3}
        )
        fleet.note(msgspec.structs.replace(whole, variants=(shadow,)), 0.0)
    labels = {"model": "credit", "variant": "shadow", "version": "2", "reason": "queue_full"}
    name = ("treeline_shadow_dropped_requests_total", tuple(sorted(labels.items())))
    assert samples(fleet)[name] == 6


def test_the_time_of_a_replicas_last_drop_is_known_while_the_replica_is():
    fleet = Fleet()
    for now_s, dropped in ((1.0, 0), (2.0, 3), (3.0, 3)):
        fleet.note(report("r1", dropped=dropped), now_s)
    assert fleet.last_drops() == {"r1": 2.0}
    fleet.note(report("r1", dropped=4), 4.0)
    assert fleet.last_drops() == {"r1": 4.0}
    stored = FleetMemory()
    fleet.learn(stored)
    fleet = Fleet()  # the next agent, which reads what the last one stored
    fleet.learn(stored)
    fleet.note(report("r1", dropped=4), 5.0)
    assert fleet.last_drops() == {"r1": 4.0}
    for n in range(MAX_REPLICAS):
        fleet.note(report(f"later-{n}"), 5.0)
    assert fleet.last_drops() == {}
