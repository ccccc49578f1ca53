import numpy as np

from benchmarks.drift.rivals import Found


def test_tools_are_compared_where_at_most_one_in_twenty_quiet_windows_alarms():
    quiet = np.column_stack([np.ones(100), np.arange(100.0)])
    moved = np.column_stack([np.zeros(4), [10.0, 95.0, 96.0, 200.0]])
    found = Found(verdicts={"none": quiet, "moved": moved}, cpu_s={}, above_mb={})
    assert (found.alarms("none"), found.alarms("moved")) == (1.0, 0.0)
    assert found.at_equal_rate("none", "none") == 0.04
    assert found.at_equal_rate("moved", "none") == 0.5
