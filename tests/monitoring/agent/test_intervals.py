import itertools

from hypothesis import given
from hypothesis import strategies as st

from monitoring.agent.intervals import Intervals

RANGES = st.lists(
    st.tuples(st.integers(1, 60), st.integers(0, 12)).map(lambda r: (r[0], r[0] + r[1])),
    max_size=12,
)


@given(RANGES, st.integers(1, 70), st.integers(0, 20))
def test_it_is_a_set_of_numbers(ranges, first, length):
    members = {n for low, high in ranges for n in range(low, high + 1)}
    intervals = Intervals(ranges)
    asked = set(range(first, first + length + 1))

    def numbers(parts):
        return [n for low, high in parts for n in range(low, high + 1)]

    assert numbers(intervals) == sorted(members)
    assert numbers(intervals.missing(first, first + length)) == sorted(asked - members)
    assert numbers(intervals.common(first, first + length)) == sorted(asked & members)
    through = next(n for n in range(1, 100) if n not in members) - 1
    assert intervals.through == through
    intervals.remove(first, first + length)
    assert numbers(intervals) == sorted(members - asked)


@given(RANGES)
def test_ranges_stay_disjoint_sorted_and_apart(ranges):
    kept = list(Intervals(ranges))
    assert all(left[1] + 1 < right[0] for left, right in itertools.pairwise(kept))


def test_an_empty_range_changes_nothing():
    intervals = Intervals([(3, 4)])
    intervals.add(9, 8)
    assert list(intervals) == [(3, 4)]
