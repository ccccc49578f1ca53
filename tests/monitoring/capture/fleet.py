"""A transport and an agent for the tests: dedupes like the real one, fails by script."""

import asyncio
from collections import deque
from collections.abc import Callable

import numpy as np

from monitoring.events import Ack, decode_delivery


class FakeAgent:
    """Stores numbers per producer. ``script`` holds what the next calls raise, None for nothing.

    ``lost_acks`` store the delivery and then fail, as a reply lost on the way does.
    """

    def __init__(self) -> None:
        self.script: deque[Exception | None] = deque()
        self.lost_acks = 0
        self.stored: dict[str, list[int]] = {}
        self.requests: list[str] = []
        self.dropped: dict[str, int] = {}
        self.through: dict[str, int] = {}
        self.ranges: list[tuple[int, int]] = []
        self.payloads: list[bytes] = []
        self.refuse: Callable[[bytes], None] = lambda payload: None

    async def ingest(self, payload: bytes) -> Ack:
        self.payloads.append(payload)
        failure = self.script.popleft() if self.script else None
        if failure is not None:
            raise failure
        self.refuse(payload)
        header, batch = decode_delivery(payload)
        assert header.last - header.first + 1 == header.events + sum(header.dropped.values())
        through = self.through.get(header.producer, 0)
        assert header.first <= through + 1, "a gap"
        self.ranges.append((header.first, header.last))
        seqs = np.unique(np.asarray(batch.column("seq")))
        assert len(seqs) == header.events
        new = [int(seq) for seq in seqs if seq > through]
        self.stored.setdefault(header.producer, []).extend(new)
        self.requests += [
            str(request)
            for request, seq in zip(
                batch.column("request_id").to_pylist(), batch.column("seq").to_pylist(), strict=True
            )
            if seq > through
        ]
        missing = max(0, header.last - through) - len(new)
        if missing:
            (reason,) = header.dropped
            self.dropped[reason] = self.dropped.get(reason, 0) + missing
        self.through[header.producer] = max(through, header.last)
        if self.lost_acks:
            self.lost_acks -= 1
            raise ConnectionError("the acknowledgement was lost")
        return Ack(header.producer, self.through[header.producer])


class Sleeper:
    """Stands in for ``asyncio.sleep``: notes the seconds and gives others a turn."""

    def __init__(self, stop_after: int = 10_000) -> None:
        self.slept_s: list[float] = []
        self._stop_after = stop_after

    async def __call__(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        if len(self.slept_s) >= self._stop_after:
            raise asyncio.CancelledError
        await asyncio.sleep(0)
