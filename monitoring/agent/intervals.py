"""Sets of whole numbers kept as closed ranges: which sequence numbers have been received."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Intervals:
    """A set of positive whole numbers; memory and time follow the number of holes, not of members.

    Invariant: ranges are disjoint, sorted and never adjacent.

    >>> seen = Intervals([(1, 4), (9, 9)])
    >>> seen.missing(3, 10)
    [(5, 8), (10, 10)]
    >>> seen.add(5, 8)
    >>> list(seen), seen.through
    ([(1, 9)], 9)
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._firsts, self._lasts, strict=True)

    def __len__(self) -> int:
        """Count the ranges."""
        return len(self._firsts)

    @property
    def through(self) -> int:
        """Highest number below which nothing is missing; 0 when number 1 is."""
        return self._lasts[0] if self._firsts and self._firsts[0] <= 1 else 0

    def add(self, first: int, last: int) -> None:
        """Put a closed range in; an empty one (``last < first``) changes nothing."""
        if last < first:
            return
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def remove(self, first: int, last: int) -> None:
        """Take a closed range out, as far as it is in.

        >>> seen = Intervals([(1, 9)])
        >>> seen.remove(4, 6)
        >>> list(seen)
        [(1, 3), (7, 9)]
        """
        low = bisect_left(self._lasts, first)
        high = bisect_right(self._firsts, last)
        if last < first or low >= high:
            return
        ends = ((self._firsts[low], first - 1), (last + 1, self._lasts[high - 1]))
        kept = [(start, end) for start, end in ends if start <= end]
        self._firsts[low:high] = [start for start, _ in kept]
        self._lasts[low:high] = [end for _, end in kept]

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the parts of a closed range that are not in the set, in order."""
        gaps = []
        index = bisect_left(self._lasts, first)
        while first <= last:
            if index == len(self._firsts) or self._firsts[index] > last:
                gaps.append((first, last))
                break
            if first < self._firsts[index]:
                gaps.append((first, self._firsts[index] - 1))
            first = self._lasts[index] + 1
            index += 1
        return gaps

    def common(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the parts of a closed range that are in the set, in order."""
        low = bisect_left(self._lasts, first)
        high = bisect_right(self._firsts, last)
        return [(max(first, self._firsts[i]), min(last, self._lasts[i])) for i in range(low, high)]
