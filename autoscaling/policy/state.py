"""Everything the policy remembers, and how it is written as a plain dict.

The dict holds only JSON types: NaN becomes None, arrays become lists. Curves that can be computed
again are left out, and so is a run of the capacity fit that is not finished: it begins again.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from autoscaling.errors import AutoscalingError
from autoscaling.policy.burst import BurstState
from autoscaling.policy.capacity import CapacityState
from autoscaling.policy.feedback import FeedbackState
from autoscaling.policy.fitting import Fit
from autoscaling.policy.forecast import ForecastState, new_state
from autoscaling.policy.hold import HoldState
from autoscaling.policy.service import ServiceState
from autoscaling.policy.starts import StartsState
from autoscaling.policy.telemetry import TelemetryState

VERSION: Final = 2


class StateError(AutoscalingError, ValueError):
    """A dict is not a state that this version wrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Memory of ``decide``. A fresh one is always valid: the policy then holds and learns.

    ``now_s`` is the last observation's clock, ``target`` its target: what that rises by is ordered,
    which may be less than was wanted (see ``budget``). ``steady_s`` adds up elapsed time and never
    jumps.
    ``seconds`` of load have been seen. ``idle_s`` is the time without any request.
    ``recent_needs`` are the last seconds' needs, bursts included.
    """

    now_s: float | None = None
    target: int | None = None
    steady_s: float = 0.0
    seconds: int = 0
    idle_s: float = 0.0
    recent_needs: tuple[int, ...] = ()
    telemetry: TelemetryState = field(default_factory=TelemetryState)
    service: ServiceState = field(default_factory=ServiceState)
    capacity: CapacityState = field(default_factory=CapacityState)
    forecast: ForecastState = field(default_factory=new_state)
    burst: BurstState = field(default_factory=BurstState)
    starts: StartsState = field(default_factory=StartsState)
    hold: HoldState = field(default_factory=HoldState)
    feedback: FeedbackState = field(default_factory=FeedbackState)


def to_dict(state: State) -> dict[str, Any]:
    """Write a state as JSON types."""
    fitted = state.capacity
    unfinished = () if fitted.run is None else (fitted.run.replicas,)
    kept = dataclasses.replace(
        state,
        capacity=dataclasses.replace(
            fitted, run=None, pending=(*unfinished, *fitted.pending), curves=[], limits={}
        ),
    )
    return {"version": VERSION, **_plain(kept)}


def from_dict(written: dict[str, Any]) -> State:
    """Read a state back; raises ``StateError`` for anything ``to_dict`` did not write."""
    if not isinstance(written, dict) or written.get("version") != VERSION:
        found = written.get("version") if isinstance(written, dict) else type(written).__name__
        raise StateError(f"version = {found!r} is not allowed: {VERSION}")
    parts: dict[str, Any] = {
        "telemetry": TelemetryState,
        "service": ServiceState,
        "capacity": CapacityState,
        "forecast": ForecastState,
        "burst": BurstState,
        "starts": StartsState,
        "hold": HoldState,
        "feedback": FeedbackState,
    }
    try:
        values = {k: v for k, v in written.items() if k != "version"}
        for key, kind in parts.items():
            values[key] = _read(kind, values[key])
        values["recent_needs"] = tuple(values["recent_needs"])
        return State(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"not a state of version {VERSION}: {error!r}") from error


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        plain = value.astype(object)
        plain[~np.isfinite(value)] = None
        return plain.tolist()
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _read(kind: Any, written: dict[str, Any]) -> Any:
    """Build one part; arrays take the shape and type of a fresh part's, which they must have.

    Arrays that are empty in a fresh part have one line for each of the part's ``ids``.
    """
    fresh = new_state() if kind is ForecastState else kind()
    lines = len(written.get("ids", ()))
    values: dict[str, Any] = {}
    for spec in dataclasses.fields(kind):
        value, usual = written[spec.name], getattr(fresh, spec.name)
        if spec.name == "fits":
            values[spec.name] = tuple(
                Fit(**{k: _tuples(v) for k, v in fit.items()}) for fit in value
            )
        elif dataclasses.is_dataclass(usual):
            values[spec.name] = _read(type(usual), value)
        elif isinstance(usual, np.ndarray):
            array = np.array(value, dtype=np.float64).astype(usual.dtype)
            shape = usual.shape if usual.size else (lines, *usual.shape[1:])
            if array.size == 0 == lines:
                array = array.reshape(shape)
            if array.shape != shape:
                raise ValueError(f"{spec.name}: shape {array.shape}, expected {shape}")
            values[spec.name] = array
        elif isinstance(usual, list | dict):
            values[spec.name] = usual  # a memory of results: see CapacityState
        else:
            values[spec.name] = _tuples(value)
    return kind(**values)
