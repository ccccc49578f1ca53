import logging

import pytest

from monitoring.capture.quiet_log import QuietLog
from tests.monitoring.capture.streams import Clock


def test_one_line_a_minute_for_each_subject(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    quiet = QuietLog(logging.getLogger("quiet"), clock)
    for second in (0, 10, 59, 60, 61):
        clock.now_s = second
        quiet.warn("journal_full", "event %d dropped", second)
    quiet.warn("other", "something else")
    assert caplog.messages == [
        "journal_full: event 0 dropped (0 more since the last line)",
        "journal_full: event 60 dropped (2 more since the last line)",
        "other: something else (0 more since the last line)",
    ]
