import time

from serve_app.startup import StageClock, process_started_s


def test_this_process_began_a_while_ago() -> None:
    now_s = time.time()
    assert now_s - 24 * 3600 < process_started_s() < now_s


def test_stages_are_told_in_order() -> None:
    times = iter([3.0, 4.25])
    stages = StageClock(1.0, clock=lambda: next(times))
    stages.mark("imported")
    stages.mark("model")
    assert str(stages) == "imported 2.00, model 3.25"
