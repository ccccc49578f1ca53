"""The live view draws on a terminal and is silent elsewhere."""

import io

from rich.console import Console

from autoscaling.loadtest.live import LiveView, live_table
from autoscaling.loadtest.recording import Outcome


def test_table_of_the_last_seconds_and_of_all(recorded):
    recording = recorded([10.0] * 50 + [20.0] * 50)
    recording.status[99] = 500
    recording.outcome[98] = Outcome.NOT_SENT
    console = Console(file=io.StringIO(), width=120)
    console.print(live_table(recording, now_s=9.95))
    recent, whole = (
        line.replace("│", " ").split()
        for line in console.file.getvalue().splitlines()
        if "last 5 s" in line or " all " in line
    )
    assert recent[-8:] == ["50", "49", "48", "1", "1", "20.0", "20.0", "20.0"]
    assert whole[1:] == ["100", "99", "98", "1", "1"]


def test_nothing_yet_is_shown_as_nothing(recorded):
    console = Console(file=io.StringIO(), width=120)
    console.print(live_table(recorded([10.0]), now_s=-0.1))
    assert "–" in console.file.getvalue()


def test_a_terminal_sees_it_and_a_pipe_does_not(recorded):
    recording = recorded([10.0] * 5)
    for terminal in (True, False):
        file = io.StringIO()
        with LiveView(Console(file=file, force_terminal=terminal, width=120)) as view:
            view.show(recording)
        assert ("planned" in file.getvalue()) is terminal
