"""Read traces and draw the requests of a run from them."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoscaling.errors import TraceError
from autoscaling.simulator.kernel import NEVER, Requests
from autoscaling.simulator.scenario import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A load to replay: a rate for every second, or the exact times of the requests."""

    name: str
    rps: NDArray[np.float64]
    timestamps_s: NDArray[np.float64] | None = None

    @property
    def duration_s(self) -> int:
        """Length in whole seconds."""
        return len(self.rps)


def read_trace(path: Path) -> Trace:
    """Read a CSV with the header ``t_s,rps``, or with one column ``t_s`` of request timestamps.

    Rates hold from their time until the next line's; timestamps may come in any order and are
    shifted so that the first second of the trace holds the first of them.
    """
    try:
        with path.open(newline="") as lines:
            rows = list(csv.reader(lines))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"{path}: cannot be read: {error}") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if header not in (["t_s", "rps"], ["t_s"]):
        raise TraceError(f"{path}: header is {header}, allowed: t_s,rps (rates) or t_s (requests)")
    values = np.array([_numbers(path, i, row, len(header)) for i, row in enumerate(rows[1:], 2)])
    if len(values) == 0:
        raise TraceError(f"{path}: no lines after the header")
    if len(header) == 1:
        times = np.sort(values[:, 0])
        times -= math.floor(times[0])
        rps = np.bincount(times.astype(np.int64)).astype(np.float64)
        return Trace(name=path.name, rps=rps, timestamps_s=times)
    times, rates = values[:, 0], values[:, 1]
    if np.any(np.diff(times) <= 0) or np.any(rates < 0):
        raise TraceError(f"{path}: t_s must increase from line to line and rps must be 0 or more")
    seconds = np.arange(times[0], math.floor(times[-1]) + 1)
    held = np.searchsorted(times, seconds, side="right") - 1
    return Trace(name=path.name, rps=rates[held])


def _numbers(path: Path, line: int, row: list[str], columns: int) -> list[float]:
    try:
        numbers = [float(cell) for cell in row]
    except ValueError as error:
        raise TraceError(f"{path}:{line}: {row} are not numbers") from error
    if len(numbers) != columns or not all(math.isfinite(n) for n in numbers):
        raise TraceError(f"{path}:{line}: {row}, allowed: {columns} finite numbers")
    return numbers


def draw_requests(trace: Trace, scenario: Scenario, seed: int) -> Requests:
    """Draw arrivals (Poisson within each second), service times and routing choices.

    The same trace, scenario and seed give the same requests, whatever the policy does.
    """
    rng = np.random.default_rng(seed)
    if trace.timestamps_s is None:
        per_second = rng.poisson(trace.rps)
        second = np.repeat(np.arange(len(per_second), dtype=np.float64), per_second)
        arrival_s = np.sort(second + rng.random(len(second)))
    else:
        arrival_s = trace.timestamps_s
    service_s = draw_service(scenario, len(arrival_s), rng)
    if scenario.drift:
        at, factor = zip(*scenario.drift, strict=True)
        service_s *= np.interp(arrival_s, at, factor)
    return Requests(
        arrival_s=arrival_s,
        service_s=service_s,
        draw=rng.random(len(arrival_s)),
        latency_s=np.full(len(arrival_s), NEVER),
    )


def draw_service(scenario: Scenario, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw ``n`` service times in seconds from the scenario's mix of lognormal classes."""
    weights = np.array([w.weight for w in scenario.work])
    kind = np.searchsorted(np.cumsum(weights / weights.sum())[:-1], rng.random(n), side="right")
    sigma = np.sqrt(np.log1p(np.array([w.cv for w in scenario.work]) ** 2))
    mu = np.log([w.mean_s for w in scenario.work]) - sigma**2 / 2
    return np.asarray(np.exp(mu[kind] + sigma[kind] * rng.standard_normal(n)))
