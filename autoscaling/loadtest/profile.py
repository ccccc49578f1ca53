"""A request rate over time, piecewise constant, and the arrivals drawn from it."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, assert_never

import numpy as np
from numpy.typing import NDArray

from autoscaling.errors import in_words
from autoscaling.loadtest.errors import PlanInvalid

Arrivals = Literal["poisson", "even"]
FloatArray = NDArray[np.float64]

TRACE_HEADER = ["t_s", "rps"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RateProfile:
    """``rates_rps[i]`` requests per second from ``edges_s[i]`` up to ``edges_s[i + 1]``.

    Edges begin at 0 and rise; there is one more edge than rates; rates are finite and not negative.
    """

    edges_s: FloatArray
    rates_rps: FloatArray

    @property
    def duration_s(self) -> float:
        return float(self.edges_s[-1])

    @property
    def expected_requests(self) -> float:
        return float(np.sum(np.diff(self.edges_s) * self.rates_rps))

    @classmethod
    def constant(cls, rate_rps: float, duration_s: float) -> Self:
        _check_positive("--rate", rate_rps, "requests per second")
        _check_positive("--duration", duration_s, "seconds")
        return cls(edges_s=np.array([0.0, duration_s]), rates_rps=np.array([rate_rps]))

    def changed(self, *, speed: float = 1.0, scale: float = 1.0) -> Self:
        """Play ``speed`` times as fast, at ``scale`` times the rate.

        Speed alone shortens the time and leaves the rates, so it sends fewer requests.
        """
        _check_positive("--speed", speed, "a factor")
        _check_positive("--scale", scale, "a factor")
        return type(self)(edges_s=self.edges_s / speed, rates_rps=self.rates_rps * scale)

    def first(self, duration_s: float) -> Self:
        """The first ``duration_s`` seconds; the whole profile when it is shorter."""
        _check_positive("--duration", duration_s, "seconds")
        if duration_s >= self.duration_s:
            return self
        kept = self.edges_s[:-1] < duration_s
        edges = np.append(self.edges_s[:-1][kept], duration_s)
        return type(self)(edges_s=edges, rates_rps=self.rates_rps[kept])

    def draw(self, arrivals: Arrivals, rng: np.random.Generator) -> FloatArray:
        """Draw arrival times in seconds, ascending, within the profile.

        ``poisson`` is the inhomogeneous process of these rates: its number of arrivals is Poisson,
        and given that number they are uniform in operational time, the integral of the rate.
        ``even`` puts one arrival in the middle of every unit of operational time.
        """
        passed = np.concatenate([[0.0], np.cumsum(np.diff(self.edges_s) * self.rates_rps)])
        match arrivals:
            case "poisson":
                count = int(rng.poisson(passed[-1]))
                operational = np.sort(rng.random(count)) * passed[-1]
            case "even":
                operational = np.arange(0.5, passed[-1], 1.0)
            case _:
                assert_never(arrivals)
        at_s: FloatArray = np.interp(operational, passed, self.edges_s)
        return at_s


def read_trace(path: Path) -> RateProfile:
    """Read a CSV with the columns ``t_s,rps``; each rate holds until the next line's time.

    The last line holds for as long as the line before it. Raises PlanInvalid with the line.
    """
    try:
        with path.open(newline="") as file:
            return _parse_trace(csv.reader(file), str(path))
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise PlanInvalid(f"--trace {path}: {in_words(exc)}") from exc


def _parse_trace(lines: Iterable[list[str]], source: str) -> RateProfile:
    rows = iter(lines)
    header = [name.strip() for name in next(rows, [])]
    if header != TRACE_HEADER:
        raise PlanInvalid(f"--trace {source}: the first line is {header}; t_s,rps is needed")
    times: list[float] = []
    rates: list[float] = []
    for number, row in enumerate(rows, start=2):
        if not row:
            continue
        try:
            t_s, rps = (float(cell) for cell in row)
        except ValueError as exc:
            raise PlanInvalid(f"--trace {source}:{number}: {row}: two numbers are needed") from exc
        if not (math.isfinite(t_s) and math.isfinite(rps) and rps >= 0):
            raise PlanInvalid(f"--trace {source}:{number}: {row}: finite, and rps at least 0")
        if times and t_s <= times[-1]:
            raise PlanInvalid(
                f"--trace {source}:{number}: t_s {t_s:g} does not follow {times[-1]:g}"
            )
        times.append(t_s)
        rates.append(rps)
    if len(times) < 2:
        raise PlanInvalid(f"--trace {source}: {len(times)} lines of data; at least 2 are needed")
    edges = np.array([*times, times[-1] + (times[-1] - times[-2])]) - times[0]
    return RateProfile(edges_s=edges, rates_rps=np.array(rates))


def _check_positive(option: str, value: float, unit: str) -> None:
    if not (math.isfinite(value) and value > 0):
        raise PlanInvalid(f"{option} {value:g}: {unit} above 0 is needed")
