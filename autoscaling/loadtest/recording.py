"""What happened to each planned request, as arrays of the plan's length."""

from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from autoscaling.loadtest.plan import Plan
from autoscaling.loadtest.profile import FloatArray

ALL: Final = slice(None)


class Outcome(IntEnum):
    NOT_SENT = 0  # the run was stopped before its turn came
    ANSWERED = 1  # a whole response came, whatever its status
    TIMED_OUT = 2
    FAILED = 3  # no connection, or it broke


@dataclass(slots=True, kw_only=True, eq=False)
class Recording:
    """Filled in place by the generator; times are seconds after the start, NaN when not reached.

    ``begun_s`` is when the generator got to the request, ``sent_s`` when it was written to a
    connection, ``done_s`` when its response was read whole or it failed. ``queued`` marks requests
    that waited for a connection because all were in use, ``mismatched`` answers that came back
    under another request's id. ``failures`` counts the errors by kind. ``started_at_s`` is the
    start in Unix time, ``cpu_s`` and ``wall_s`` what the sending took.
    """

    plan: Plan
    request_id_prefix: str
    begun_s: FloatArray
    sent_s: FloatArray
    done_s: FloatArray
    status: NDArray[np.int16]
    outcome: NDArray[np.uint8]
    queued: NDArray[np.bool_]
    mismatched: NDArray[np.bool_]
    failures: Counter[str] = field(default_factory=Counter)
    started_at_s: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0

    @classmethod
    def empty(cls, plan: Plan, request_id_prefix: str) -> Self:
        size = len(plan)
        return cls(
            plan=plan,
            request_id_prefix=request_id_prefix,
            begun_s=np.full(size, np.nan),
            sent_s=np.full(size, np.nan),
            done_s=np.full(size, np.nan),
            status=np.zeros(size, dtype=np.int16),
            outcome=np.zeros(size, dtype=np.uint8),
            queued=np.zeros(size, dtype=np.bool_),
            mismatched=np.zeros(size, dtype=np.bool_),
        )

    @property
    def latency_ms(self) -> FloatArray:
        """From the *planned* time to the end; NaN for what did not end."""
        return self.latency_ms_of(ALL)

    @property
    def lag_ms(self) -> FloatArray:
        """How late the generator itself was to begin; NaN for what it did not begin."""
        return (self.begun_s - self.plan.at_s) * 1e3

    @property
    def ok(self) -> NDArray[np.bool_]:
        """Answered with a 2xx status, under its own id."""
        return self.ok_of(ALL)

    def latency_ms_of(self, span: slice) -> FloatArray:
        return (self.done_s[span] - self.plan.at_s[span]) * 1e3

    def ok_of(self, span: slice) -> NDArray[np.bool_]:
        status = self.status[span]
        answered: NDArray[np.bool_] = self.outcome[span] == Outcome.ANSWERED
        return answered & (status >= 200) & (status < 300) & ~self.mismatched[span]

    def request_id(self, index: int) -> str:
        return f"{self.request_id_prefix}-{index:07d}"
