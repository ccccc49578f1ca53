from pathlib import Path

import numpy as np

from monitoring.capture.batches import to_batch
from monitoring.capture.journal import Journal, JournalLimits
from monitoring.capture.masking import FieldRule, MaskingPolicy, MaskingRules
from monitoring.capture.recorder import Recorder
from monitoring.capture.rowbytes import RowEvent
from tests.monitoring.capture.streams import (
    FEATURES,
    KEY,
    POLICY,
    Clock,
    describe,
    everything,
    open_journal,
    open_recorder,
    record,
)

ROOMY = JournalLimits()


def test_an_event_is_masked_before_it_touches_the_disk(tmp_path: Path) -> None:
    rules = MaskingRules(
        tags={"channel": FieldRule("keep")}, features={"purpose": FieldRule("hmac")}
    )
    policy = MaskingPolicy(rules, key=KEY)
    journal = open_journal(tmp_path, limits=ROOMY)
    recorder = Recorder(journal, policy, FEATURES)
    record(
        recorder,
        user_id="anna-secret",
        session_id="session-secret",
        inputs=[[30, 1.5, "purpose-secret", True]],
        context_tags={"channel": "web", "secret-key": "x", "note": "note-secret"},
    )
    content = b"".join(p.read_bytes() for p in journal.path.iterdir())
    assert b"secret" not in content
    found = everything(journal.backlog())
    assert found is not None
    (event,) = found.events
    assert event.user_id == policy.pseudonym("anna-secret")
    assert event.inputs == [[30, 1.5, policy.pseudonym("purpose-secret"), True]]
    assert event.tags == {"channel": "web"}
    journal.close()


def test_numpy_values_and_odd_ones_are_recorded(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, limits=ROOMY)
    recorder = open_recorder(journal)
    record(recorder, inputs=[[np.int64(3), np.float32(0.5), np.str_("car"), np.bool_(True)]])
    record(recorder, inputs=[[10**30, 10**400, "half \ud800", {"a": {1, 2}}]])
    record(recorder, request_id="\ud800", inputs=[[np.int64(3), object(), (1,), None]])
    record(recorder, inputs=[], labels=None, scores=None, status=500)
    found = everything(journal.backlog())
    assert found is not None
    assert [event.inputs for event in found.events] == [
        [[3, 0.5, "car", True]],
        [[1e30, None, "half ?", {"a": None}]],
        [[3, None, [1], None]],
        [[None] * 4],
    ]
    assert found.events[2].request_id == "?"
    assert recorder.counts().dropped == {}
    journal.close()


def test_an_answered_row_is_masked_and_read_back_as_columns(tmp_path: Path) -> None:
    rules = MaskingRules(tags={"channel": FieldRule("keep")}, features={"age": FieldRule("drop")})
    policy = MaskingPolicy(rules, key=KEY)
    journal = open_journal(tmp_path, limits=ROOMY)
    recorder = Recorder(journal, policy, FEATURES)
    for channel in ("web", None, "app"):
        tags = None if channel is None else {"channel": channel, "note": "secret"}
        outputs = np.array([[0.75, 0.25]]).tobytes()
        record(recorder, probabilities=outputs, context_tags=tags)
    found = everything(journal.backlog())
    assert found is not None
    assert {type(event) for event in found.events} == {RowEvent}
    assert (found.first, found.last, len(found.events)) == (1, 3, 3)
    columns = to_batch(journal.description.stream, found.events).rows.to_pydict()
    assert columns["seq"] == [1, 2, 3]
    assert columns["x_age"] == [None] * 3
    assert columns["x_purpose"] == ["car"] * 3
    assert columns["probabilities"] == [[0.75, 0.25]] * 3
    assert columns["tags"] == [[("channel", "web")], None, [("channel", "app")]]
    assert columns["user_id"] == [policy.pseudonym("anna")] * 3
    journal.close()


def test_record_never_raises(tmp_path: Path) -> None:
    class Broken(Journal):
        def append(self, seq: int, body: bytes) -> None:
            raise RuntimeError("a defect")

    journal = Broken(tmp_path, describe(), limits=ROOMY, monotonic=Clock())
    recorder = Recorder(journal, POLICY, FEATURES)
    record(recorder)
    record(recorder, inputs=None)
    assert recorder.counts().dropped == {"unencodable": 2}
    journal.close()


def test_a_defect_in_dropping_does_not_raise_either(tmp_path: Path) -> None:
    class Broken(Journal):
        def append(self, seq: int, body: bytes) -> None:
            raise RuntimeError("a defect")

        def drop(self, seq: int, reason: object) -> None:
            raise RuntimeError("another")

    journal = Broken(tmp_path, describe(), limits=ROOMY, monotonic=Clock())
    recorder = Recorder(journal, POLICY, FEATURES)
    record(recorder)
    assert recorder.counts().captured == 1
    journal.close()
