import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitoring.analysis.feedback import DELAY, NUMBER, OUTCOME, join_outcomes
from tests.monitoring.analysis.outcomes import answers, feedback, said


def outcomes(events: pa.Table, *lines: dict[str, object]) -> list[str | None]:
    return join_outcomes(events, feedback(*lines), "label").rows[OUTCOME].to_pylist()


def test_a_label_stands_beside_its_answer_with_its_delay() -> None:
    joined = join_outcomes(
        answers(("a", 0), ("b", 0)), feedback(said("b", "1", number=1.0, ts=61)), "label"
    )
    assert joined.rows[OUTCOME].to_pylist() == [None, "1"]
    assert joined.rows[NUMBER].to_pylist() == [None, 1.0]
    assert joined.rows[DELAY].to_pylist() == [None, 60.0]
    assert (joined.counts.rows, joined.counts.rows_with_outcome) == (2, 1)


def test_without_feedback_every_answer_stays() -> None:
    joined = join_outcomes(answers(("a", 0)), feedback(), "label")
    assert joined.rows[OUTCOME].to_pylist() == [None]
    assert joined.counts.received == 0


def test_without_answers_all_feedback_is_unknown() -> None:
    joined = join_outcomes(answers(), feedback(said("a", "good")), "label")
    assert joined.rows.num_rows == 0
    assert joined.counts.unknown == 1


def test_another_kind_is_left_alone() -> None:
    assert outcomes(answers(("a", 0)), said("a", "true", kind="click")) == [None]


def test_the_latest_outcome_wins_whatever_the_order_of_arrival() -> None:
    late_truth = said("a", "good", ts=50, outcome_ts=40)
    early_guess = said("a", "bad", ts=90, outcome_ts=10)
    for lines in ([late_truth, early_guess], [early_guess, late_truth]):
        assert outcomes(answers(("a", 0)), *lines) == ["good"]


def test_a_repetition_is_a_duplicate_and_a_change_a_correction() -> None:
    counts = join_outcomes(
        answers(("a", 0), ("b", 0)),
        feedback(
            said("a", "good", ts=1),
            said("a", "good", ts=2),
            said("b", "good", ts=1),
            said("b", "bad", ts=2),
        ),
        "label",
    ).counts
    assert (counts.used, counts.duplicates, counts.corrected) == (2, 1, 1)


def test_feedback_without_a_row_is_about_the_only_one() -> None:
    events = answers(("one", 0), ("two", 0), ("two", 1))
    joined = join_outcomes(events, feedback(said("one", "x"), said("two", "y")), "label")
    assert joined.rows[OUTCOME].to_pylist() == ["x", None, None]
    assert joined.counts.ambiguous == 1


def test_naming_the_only_row_and_leaving_it_out_are_one() -> None:
    lines = [said("a", "old", row=0, ts=1), said("a", "new", ts=2)]
    assert outcomes(answers(("a", 0)), *lines) == ["new"]


def test_a_row_that_was_never_answered_is_unknown() -> None:
    counts = join_outcomes(answers(("a", 0)), feedback(said("a", "x", row=7)), "label").counts
    assert (counts.used, counts.unknown) == (0, 1)


def test_champion_and_shadow_share_an_outcome() -> None:
    assert outcomes(answers(("a", 0), ("a", 0)), said("a", "x")) == ["x", "x"]


def test_an_outcome_before_its_answer_is_used_and_counted() -> None:
    counts = join_outcomes(
        answers(("a", 0)), feedback(said("a", "x", outcome_ts=-5)), "label"
    ).counts
    assert (counts.used, counts.early) == (1, 1)


lines = st.builds(
    said,
    st.sampled_from("abcd"),
    st.sampled_from(["good", "bad"]),
    row=st.sampled_from([None, 0, 1, 2]),
    ts=st.integers(0, 5),
    outcome_ts=st.none() | st.integers(0, 5),
    kind=st.sampled_from(["label", "click"]),
)


@given(
    st.lists(lines, max_size=12).flatmap(
        lambda given: st.tuples(st.just(given), st.permutations(given))
    )
)
def test_everything_is_accounted_for_and_order_does_not_matter(drawn) -> None:
    original, shuffled = drawn
    events = answers(("a", 0), ("b", 0), ("b", 1), ("c", 0))
    one = join_outcomes(events, feedback(*original), "label")
    c = one.counts
    assert c.received == c.used + c.duplicates + c.corrected + c.unknown + c.ambiguous
    assert one.rows.num_rows == events.num_rows
    other = join_outcomes(events, feedback(*shuffled), "label")
    ties = {(x["request_id"], x["outcome_ts"] or x["ts"], x["ts"]) for x in original}
    if len(ties) == len(original):  # among equal times the log's own order decides
        assert one.rows[OUTCOME].to_pylist() == other.rows[OUTCOME].to_pylist()


@pytest.mark.parametrize("rows", [1, 20_000])
def test_joins_of_any_size_keep_the_order_of_answers(rows: int) -> None:
    events = answers(*((f"r{i}", 0) for i in range(rows)))
    lines = [said(f"r{i}", str(i)) for i in range(0, rows, max(1, rows // 50))]
    joined = join_outcomes(events, feedback(*lines), "label").rows
    assert joined["request_id"].to_pylist() == events["request_id"].to_pylist()
    for line in lines:
        assert joined[OUTCOME][int(str(line["value"]))].as_py() == line["value"]
