"""Read traces and draw the requests of a run from them."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autoscaling.errors import TraceError, in_words
from autoscaling.simulator.kernel import NEVER, Requests
from autoscaling.simulator.scenario import Scenario

#: A month, second by second, is as much as can be held and replayed in reasonable time.
LONGEST_S: Final = 31 * 86_400
HIGHEST_RPS: Final = 1e6


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
    shifted so that the first second of the trace holds the first of them. Blank lines are skipped.
    Raises ``TraceError`` that names the file, the line, what stands there and what is allowed.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.reader(lines)
            rows = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TraceError(f"{path}: cannot be read: {in_words(error)}") from error
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    if header not in (["t_s", "rps"], ["t_s"]):
        found = ",".join(header) or "nothing"
        raise TraceError(
            f"{path}: the first line is {found!r}, allowed: t_s,rps (rates) or t_s (requests)"
        )
    values = np.array([_numbers(path, line, row, len(header)) for line, row in rows[1:]])
    if len(values) == 0:
        raise TraceError(f"{path}: no lines after the header")
    first_s, last_s = float(values[:, 0].min()), float(values[:, 0].max())
    if last_s - first_s > LONGEST_S:
        raise TraceError(
            f"{path}: t_s goes from {first_s:g} to {last_s:g}, allowed: {LONGEST_S} s in all"
        )
    if len(header) == 1:
        times = np.sort(values[:, 0])
        times -= math.floor(times[0])
        rps = np.bincount(times.astype(np.int64)).astype(np.float64)
        return Trace(name=path.name, rps=rps, timestamps_s=times)
    _check_rates(path, values, [line for line, _ in rows[1:]])
    times, rates = values[:, 0], values[:, 1]
    seconds = np.arange(times[0], math.floor(times[-1]) + 1)
    held = np.searchsorted(times, seconds, side="right") - 1
    return Trace(name=path.name, rps=rates[held])


def _check_rates(path: Path, values: NDArray[np.float64], lines: list[int]) -> None:
    """Raise for times that do not increase and for rates that no simulation could bear."""
    back = np.flatnonzero(np.diff(values[:, 0]) <= 0)
    if len(back):
        at = int(back[0]) + 1
        raise TraceError(
            f"{path}:{lines[at]}: t_s = {values[at, 0]:g} after {values[at - 1, 0]:g}, "
            "allowed: t_s increases from line to line"
        )
    wrong = np.flatnonzero((values[:, 1] < 0) | (values[:, 1] > HIGHEST_RPS))
    if len(wrong):
        at = int(wrong[0])
        raise TraceError(
            f"{path}:{lines[at]}: rps = {values[at, 1]:g}, allowed: 0 to {HIGHEST_RPS:g}"
        )


def _numbers(path: Path, line: int, row: list[str], columns: int) -> list[float]:
    try:
        numbers = [float(cell) for cell in row]
    except ValueError as error:
        raise TraceError(f"{path}:{line}: {','.join(row)!r} are not numbers") from error
    if len(numbers) != columns or not all(math.isfinite(n) for n in numbers):
        raise TraceError(f"{path}:{line}: {','.join(row)!r}, allowed: {columns} finite numbers")
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
