"""A simulated Ray Serve deployment: starts and stops replicas, takes their telemetry."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.simulator import kernel
from autoscaling.simulator.kernel import DRAINING, FREE, RUNNING, STARTING, Requests
from autoscaling.simulator.scenario import Routing, Scenario

ROUTINGS: Final[dict[Routing, int]] = {
    Routing.TWO_CHOICES: kernel.TWO_CHOICES,
    Routing.LEAST_ONGOING: kernel.LEAST_ONGOING,
    Routing.RANDOM: kernel.RANDOM,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What could be measured at ``at_s``; arrays have one line per running replica.

    ``counters`` has the columns of ``kernel``: accepted, completed, within the objective, sum and
    sum of squares of service seconds; all counts are cumulative since the replica started.
    """

    at_s: float
    replica_ids: tuple[str, ...]
    counters: NDArray[np.float64]
    service_counts: NDArray[np.int64]
    latency_counts: NDArray[np.int64]
    ongoing: NDArray[np.int64]
    queued: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """A replica that came up: when it was asked for and when it accepted its first request."""

    replica_id: str
    requested_s: float
    running_s: float


class Cluster:
    """Replica slots over the kernel's fleet; time moves only by ``advance``."""

    def __init__(
        self, requests: Requests, scenario: Scenario, rng: np.random.Generator, initial: int
    ) -> None:
        slots = 4 * scenario.max_replicas + 8  # room for replicas that drain
        self._scenario = scenario
        self._requests = requests
        self._rng = rng
        self._routing = ROUTINGS[scenario.routing]
        self._fleet = kernel.new_fleet(slots, scenario.max_ongoing, scenario.max_queued)
        self._ids = [""] * slots
        self._requested_s = np.zeros(slots)
        self._made = 0
        self._unreported: list[int] = []
        self.now_s = 0.0
        self.target = 0
        self.scale(initial)
        self._fleet.ready_s[:] = 0.0
        kernel.promote(self._fleet, 0.0)
        self.replica_seconds: list[float] = []

    def count(self, status: int) -> int:
        """Number of replicas that are STARTING, RUNNING or DRAINING."""
        return int(np.count_nonzero(self._fleet.status == status))

    def scale(self, target: int) -> None:
        """Start or stop replicas so that starting and running ones add up to ``target``."""
        self.target = target
        status = self._fleet.status
        alive = np.flatnonzero((status == STARTING) | (status == RUNNING))
        for _ in range(target - len(alive)):
            self._start()
        if len(alive) > target:
            # First those that do not serve yet, then the youngest.
            order = np.lexsort((-self._requested_s[alive], status[alive]))
            for slot in alive[order][: len(alive) - target]:
                self._stop(int(slot))

    def advance(self, until_s: float) -> None:
        """Let time pass and add what was paid to ``replica_seconds``; replicas fail at its end."""
        fleet = self._fleet
        kernel.advance(
            fleet,
            self._requests,
            self.now_s,
            until_s,
            self._scenario.slo_s,
            self._scenario.max_queued,
            self._routing,
        )
        paid = np.count_nonzero(fleet.status != FREE) * (until_s - self.now_s)
        drained = np.flatnonzero((fleet.status == DRAINING) & (fleet.ongoing == 0))
        # A draining replica is paid for until its last request is done.
        paid -= float(np.sum(until_s - np.maximum(fleet.busy_until_s[drained], self.now_s)))
        fleet.status[drained] = FREE
        self.replica_seconds.append(float(paid))
        elapsed_h = (until_s - self.now_s) / 3600.0
        self.now_s = until_s
        self._fail(self._scenario.failures_per_replica_hour * elapsed_h)

    def snapshot(self) -> Snapshot:
        """Take the telemetry of this moment."""
        fleet = self._fleet
        slots = np.sort(fleet.running[: fleet.cursor[kernel.N_RUNNING]])
        waiting = int(np.searchsorted(self._requests.arrival_s, self.now_s))
        return Snapshot(
            at_s=self.now_s,
            replica_ids=tuple(self._ids[slot] for slot in slots),
            counters=fleet.counters[slots],
            service_counts=fleet.service_counts[slots],
            latency_counts=fleet.latency_counts[slots],
            ongoing=fleet.ongoing[slots],
            queued=max(waiting - int(fleet.cursor[kernel.NEXT]), 0),
        )

    def startups(self) -> tuple[Startup, ...]:
        """Replicas that came up since the last call."""
        up = [slot for slot in self._unreported if self._fleet.status[slot] == RUNNING]
        self._unreported = [s for s in self._unreported if self._fleet.status[s] == STARTING]
        return tuple(
            Startup(
                replica_id=self._ids[slot],
                requested_s=float(self._requested_s[slot]),
                running_s=float(self._fleet.ready_s[slot]),
            )
            for slot in up
        )

    def _start(self) -> None:
        fleet = self._fleet
        slot = int(np.flatnonzero(fleet.status == FREE)[0])
        spread = 1.0 + self._scenario.cold_start_cv * float(self._rng.standard_normal())
        fleet.status[slot] = STARTING
        fleet.ready_s[slot] = self.now_s + self._scenario.cold_start_s * max(spread, 0.1)
        fleet.busy_until_s[slot] = 0.0
        fleet.ongoing[slot] = 0
        fleet.counters[slot] = 0.0
        fleet.service_counts[slot] = 0
        fleet.latency_counts[slot] = 0
        self._made += 1
        self._ids[slot] = f"r{self._made}"
        self._requested_s[slot] = self.now_s
        self._unreported.append(slot)

    def _stop(self, slot: int) -> None:
        fleet = self._fleet
        if fleet.status[slot] == STARTING:
            fleet.status[slot] = FREE
            return
        self._take_out(slot)
        fleet.status[slot] = DRAINING if fleet.ongoing[slot] else FREE

    def _take_out(self, slot: int) -> None:
        """Let the router forget a running replica."""
        fleet = self._fleet
        n = int(fleet.cursor[kernel.N_RUNNING])
        kept = [int(s) for s in fleet.running[:n] if s != slot]
        fleet.running[: len(kept)] = kept
        fleet.cursor[kernel.N_RUNNING] = len(kept)

    def _fail(self, probability: float) -> None:
        if probability <= 0:
            return
        fleet = self._fleet
        for slot in np.flatnonzero(fleet.status == RUNNING):
            if self._rng.random() >= probability:
                continue
            size = fleet.ring_request.shape[1]
            for i in range(int(fleet.ongoing[slot])):
                lost = fleet.ring_request[slot, (fleet.head[slot] + i) % size]
                self._requests.latency_s[lost] = kernel.NEVER
            fleet.ongoing[slot] = 0
            self._take_out(int(slot))
            fleet.status[slot] = FREE
        self.scale(self.target)
