from autoscaling.start_clock import StartClock


def test_starts_are_measured_first_in_first_out() -> None:
    starts = StartClock()
    assert starts.observe(1, 1, 0.0) == ()
    assert starts.observe(3, 1, 10.0) == ()
    assert starts.observe(3, 2, 18.0) == (8.0,)
    assert starts.observe(2, 2, 19.0) == ()  # the second order was cancelled
    assert starts.observe(3, 2, 20.0) == ()
    assert starts.observe(3, 3, 25.0) == (5.0,)
