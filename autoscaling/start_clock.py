"""How long replicas take to start, seen from outside."""

from collections import deque


class StartClock:
    """Measures how long replicas take from being ordered to running; first in, first out."""

    def __init__(self) -> None:
        self._ordered_s: deque[float] = deque()
        self._running = 0

    def observe(self, target: int, running: int, now_s: float) -> tuple[float, ...]:
        """Durations in seconds of the starts that ended since the last call."""
        started = min(max(running - self._running, 0), len(self._ordered_s))
        ended = [now_s - self._ordered_s.popleft() for _ in range(started)]
        self._running = running
        while len(self._ordered_s) > max(target - running, 0):
            self._ordered_s.pop()  # cancelled before it ran
        while len(self._ordered_s) < max(target - running, 0):
            self._ordered_s.append(now_s)
        return tuple(ended)
