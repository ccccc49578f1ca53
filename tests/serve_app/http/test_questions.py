"""What a caller may ask of live windows and drift."""

import pytest

from monitoring.live.wire import Question
from serve_app.http.monitor import asked
from serve_app.http.problems import Problem


def test_a_question_names_stream_step_and_span() -> None:
    query = b"model=credit&step=hour&from=2026-09-21T14:00Z&to=1790000000.5"
    assert asked("windows", query) == Question(
        "windows",
        level_s=3600,
        start_s=1789999200.0,
        end_s=1790000000.5,
        model="credit",
    )
    assert asked("drift", b"step=30").level_s == 30


@pytest.mark.parametrize(
    ("query", "named"),
    [(b"step=week", "minute, hour, day"), (b"from=soon", "soon"), (b"modle=credit", "modle")],
)
def test_a_wrong_question_is_refused_by_name(query: bytes, named: str) -> None:
    with pytest.raises(Problem) as refused:
        asked("windows", query)
    assert named in refused.value.detail
