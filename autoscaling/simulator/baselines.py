"""Autoscalers that are used today, as their sources describe them.

Each is a class whose keyword arguments are its settings; ``None`` as an answer of ``_want`` means
that nothing is known yet. All see the same stale telemetry. Fixed facts of the service that an
operator would know, such as the mean work per request, come from the scenario.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable

import numpy as np

from autoscaling.policy import buckets
from autoscaling.simulator.metrics import Meter, Tick
from autoscaling.simulator.run import View
from autoscaling.simulator.scenario import Scenario


class _Baseline(ABC):
    """Reads the meter once per decision and applies bounds."""

    reason = "rule"

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._meter = Meter()

    def wanted(self, view: View) -> int:
        """Return the wanted number of replicas within the scenario's bounds."""
        low = max(self._scenario.min_replicas, 1)
        wanted = self._want(view, self._meter.read(view.telemetry))
        return min(max(wanted, low), self._scenario.max_replicas)

    @abstractmethod
    def _want(self, view: View, tick: Tick) -> int: ...


class RayDefault(_Baseline):
    """Ray Serve's default policy (``ray/serve/autoscaling_policy.py``, 2.60).

    desired = total ongoing and queued requests / target per replica, from the mean over the
    look-back; it must ask for the same direction for the whole delay.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        target_ongoing: float = 2.0,
        look_back_s: float = 30.0,
        upscale_delay_s: float = 30.0,
        downscale_delay_s: float = 600.0,
        upscaling_factor: float = 1.0,
        downscaling_factor: float = 1.0,
    ) -> None:
        super().__init__(scenario)
        self._target_ongoing = target_ongoing
        self._up_s, self._down_s = upscale_delay_s, downscale_delay_s
        self._up_factor, self._down_factor = upscaling_factor, downscaling_factor
        self._seen: deque[float] = deque(maxlen=max(round(look_back_s / scenario.interval_s), 1))
        self._direction_s = 0.0

    def _want(self, view: View, tick: Tick) -> int:
        self._seen.append(tick.in_house)
        if view.running == 0:
            return view.target
        ongoing = sum(self._seen) / len(self._seen)
        error = ongoing / view.running / self._target_ongoing
        factor = self._up_factor if error >= 1 else self._down_factor
        desired = math.ceil(view.running * (1 + (error - 1) * factor))
        desired = min(max(desired, 1), self._scenario.max_replicas)
        step = float(self._scenario.interval_s)
        if desired > view.target:
            self._direction_s = max(self._direction_s, 0.0) + step
            if self._direction_s > self._up_s:
                self._direction_s = 0.0
                return desired
        elif desired < view.target:
            self._direction_s = min(self._direction_s, 0.0) - step
            if -self._direction_s > self._down_s:
                self._direction_s = 0.0
                return desired
        else:
            self._direction_s = 0.0
        return view.target


class _Hpa(_Baseline):
    """Kubernetes HPA v2: every 15 s, ceil(current x metric / target) with a tolerance of 10 %.

    Up by at most the larger of +4 pods and x2 per 15 s; down to the highest recommendation of the
    stabilisation window. Metrics are means of the last 15 s; replicas that start count as current.
    """

    PERIOD_S = 15
    TARGET: float

    def __init__(
        self,
        scenario: Scenario,
        *,
        target: float | None = None,
        stabilisation_s: float = 300.0,
    ) -> None:
        super().__init__(scenario)
        self._target = self.TARGET if target is None else target
        self._ticks: deque[Tick] = deque(maxlen=self.PERIOD_S)
        self._recommended: deque[int] = deque(maxlen=max(round(stabilisation_s / self.PERIOD_S), 1))

    @abstractmethod
    def _ratio(self, view: View) -> float | None:
        """Metric over its target; None if there is no data."""

    def _want(self, view: View, tick: Tick) -> int:
        self._ticks.append(tick)
        if int(view.now_s) % self.PERIOD_S or view.running == 0:
            return view.target
        ratio = self._ratio(view)
        current = view.target
        desired = current
        if ratio is not None and abs(ratio - 1.0) > 0.1:
            desired = math.ceil(view.running * ratio)
        self._recommended.append(min(desired, self._scenario.max_replicas))
        if desired > current:
            return min(desired, max(current + 4, current * 2))
        return min(current, max(self._recommended))


class HpaCpu(_Hpa):
    """HPA on CPU utilisation; every replica requests the one CPU it can use."""

    TARGET = 0.8

    def _ratio(self, view: View) -> float | None:
        busy = sum(t.busy for t in self._ticks) / len(self._ticks)
        return busy / view.running / self._target


class HpaRequests(_Hpa):
    """HPA on requests per second and replica; the target is a share of one replica's capacity."""

    TARGET = 0.7

    def _ratio(self, view: View) -> float | None:
        rps = sum(t.rps for t in self._ticks) / len(self._ticks)
        return rps / view.running / (self._target / self._scenario.mean_service_s)


class HpaP95(_Hpa):
    """HPA on latency at the objective's quantile; the target is a share of the objective."""

    TARGET = 1.0

    def _ratio(self, view: View) -> float | None:
        latency_s = _latency_s(self._ticks, self._scenario.quantile)
        return None if latency_s is None else latency_s / (self._target * self._scenario.slo_s)


class KnativeKpa(_Baseline):
    """Knative's pod autoscaler (``pkg/autoscaler/scaling/autoscaler.go``), every 2 s.

    Concurrency over a stable window of 60 s and a panic window of 6 s, against ``utilisation``
    of the container's concurrency.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        utilisation: float = 0.7,
        concurrency: float | None = None,
        stable_s: int = 60,
        panic_share: float = 0.1,
        panic_threshold: float = 2.0,
        max_up: float = 1000.0,
        max_down: float = 2.0,
        scale_down_delay_s: int = 0,
    ) -> None:
        super().__init__(scenario)
        self._per_pod = utilisation * (concurrency or scenario.max_ongoing)
        self._stable: deque[float] = deque(maxlen=stable_s)
        self._panic: deque[float] = deque(maxlen=max(round(stable_s * panic_share), 1))
        self._stable_s = stable_s
        self._threshold, self._max_up, self._max_down = panic_threshold, max_up, max_down
        self._delayed: deque[int] = deque(maxlen=max(scale_down_delay_s // 2, 1))
        self._panic_since: float | None = None
        self._panic_pods = 0

    def _want(self, view: View, tick: Tick) -> int:
        self._stable.append(tick.in_house)
        self._panic.append(tick.in_house)
        if int(view.now_s) % 2:
            return view.target
        ready = max(view.running, 1)
        most, least = math.ceil(self._max_up * ready), math.floor(ready / self._max_down)
        stable = sum(self._stable) / len(self._stable)
        panic = sum(self._panic) / len(self._panic)
        desired = min(max(math.ceil(stable / self._per_pod), least), most)
        urgent = min(max(math.ceil(panic / self._per_pod), least), most)
        if math.ceil(panic / self._per_pod) / ready >= self._threshold:
            self._panic_since = view.now_s
        elif self._panic_since is not None and view.now_s - self._panic_since > self._stable_s:
            self._panic_since, self._panic_pods = None, 0
        if self._panic_since is not None:
            self._panic_pods = max(self._panic_pods, urgent)
            desired = max(self._panic_pods, desired)
        self._delayed.append(desired)
        return max(self._delayed)


class SageMaker(_Baseline):
    """AWS target tracking on invocations per instance and minute.

    An alarm goes up after 3 minutes above the target and down after 15 minutes below 90 % of it;
    cool-downs after each. The target is a share of one replica's capacity.
    """

    def __init__(
        self,
        scenario: Scenario,
        *,
        target: float = 0.7,
        up_minutes: int = 3,
        down_minutes: int = 15,
        cooldown_s: float = 300.0,
    ) -> None:
        super().__init__(scenario)
        self._target_rps = target / scenario.mean_service_s
        self._up, self._down, self._cooldown_s = up_minutes, down_minutes, cooldown_s
        self._minute: list[float] = []
        self._minutes: deque[float] = deque(maxlen=max(up_minutes, down_minutes))
        self._changed_s = -math.inf

    def _want(self, view: View, tick: Tick) -> int:
        self._minute.append(tick.rps)
        if len(self._minute) * self._scenario.interval_s < 60:
            return view.target
        self._minutes.append(sum(self._minute) / len(self._minute))
        self._minute.clear()
        if view.now_s - self._changed_s < self._cooldown_s:
            return view.target
        per_replica = [rps / max(view.target, 1) for rps in self._minutes]
        need = math.ceil(self._minutes[-1] / self._target_rps)
        above = per_replica[-self._up :]
        below = per_replica[-self._down :]
        up = len(above) == self._up and min(above) > self._target_rps and need > view.target
        down = len(below) == self._down and max(below) < 0.9 * self._target_rps
        if up or (down and need < view.target):
            self._changed_s = view.now_s
            return need
        return view.target


class InferLine(_Baseline):
    """InferLine's tuner (Crankshaw et al., 2020): a traffic envelope at several time scales.

    For windows from the service time doubling up to 60 s, the highest arrival rate seen in the
    last minute asks for rate / (mu x rho) replicas; down only after 15 s, to the need of the
    last 30 s measured over 5-s windows. Windows below the telemetry's second are not seen here.
    """

    WINDOWS_S = (1, 2, 4, 8, 16, 32, 60)

    def __init__(self, scenario: Scenario, *, rho: float = 0.6, down_delay_s: float = 15.0) -> None:
        super().__init__(scenario)
        self._replica_rps = rho / scenario.mean_service_s
        self._down_delay_s = down_delay_s
        self._rates: deque[float] = deque(maxlen=90)
        self._changed_s = -math.inf

    def _want(self, view: View, tick: Tick) -> int:
        self._rates.append(tick.rps)
        rates = np.array(self._rates)
        recent = rates[-10:]
        envelope = max(
            float(np.convolve(recent, np.ones(w) / w, mode="valid").max())
            for w in self.WINDOWS_S
            if w <= len(recent)
        )
        need = math.ceil(envelope / self._replica_rps)
        if need > view.target:
            self._changed_s = view.now_s
            return need
        if view.now_s - self._changed_s < self._down_delay_s or len(rates) < 30:
            return view.target
        calm = float(np.convolve(rates[-30:], np.ones(5) / 5, mode="valid").max())
        need = math.ceil(calm / self._replica_rps)
        return min(need, view.target)


class NaiveThreshold(_Baseline):
    """One more when p95 is above a share of the objective, one less when below another."""

    def __init__(
        self, scenario: Scenario, *, up: float = 1.0, down: float = 0.5, interval_s: int = 10
    ) -> None:
        super().__init__(scenario)
        self._up_s, self._down_s = up * scenario.slo_s, down * scenario.slo_s
        self._interval_s = interval_s
        self._ticks: deque[Tick] = deque(maxlen=interval_s)

    def _want(self, view: View, tick: Tick) -> int:
        self._ticks.append(tick)
        if int(view.now_s) % self._interval_s:
            return view.target
        latency_s = _latency_s(self._ticks, self._scenario.quantile)
        if latency_s is None:
            return view.target
        return view.target + int(latency_s > self._up_s) - int(latency_s < self._down_s)


def _latency_s(ticks: Iterable[Tick], quantile: float) -> float | None:
    """A quantile of the latencies in some ticks; None if nothing was answered in them."""
    return buckets.quantile_s(np.sum([tick.latency_counts for tick in ticks], axis=0), quantile)
