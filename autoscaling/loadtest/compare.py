"""Two saved runs side by side."""

from collections.abc import Callable
from typing import Final

import msgspec

from autoscaling.loadtest.results import Result


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of both; ``ratio`` is b over a, None when either is missing or a is 0."""

    measure: str
    a: float | None
    b: float | None
    ratio: float | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """``differences`` names what was asked differently, so that ratios are not read as effects.

    ``held`` says whether the second run held its own objective.
    """

    a: str
    b: str
    held: bool
    rows: tuple[Row, ...]
    differences: tuple[str, ...]
    warnings: tuple[str, ...]


MEASURES: Final[tuple[tuple[str, Callable[[Result], float | None]], ...]] = (
    ("requests judged", lambda r: r.counts.planned),
    ("answered per second", lambda r: _rate(r, r.counts.answered)),
    ("ok per second", lambda r: _rate(r, r.counts.ok)),
    ("share within the objective", lambda r: r.verdict.attained),
    ("error share", lambda r: _share(r, r.counts.planned - r.counts.ok)),
    ("lost", lambda r: r.counts.lost),
    ("mean ms", lambda r: r.latency.mean_ms),
    ("p50 ms", lambda r: r.latency.p50_ms),
    ("p90 ms", lambda r: r.latency.p90_ms),
    ("p95 ms", lambda r: r.latency.p95_ms),
    ("p99 ms", lambda r: r.latency.p99_ms),
    ("p99.9 ms", lambda r: r.latency.p999_ms),
    ("max ms", lambda r: r.latency.max_ms),
    ("generator lag p99 ms", lambda r: r.generator.lag_p99_ms),
)


def compare(a: Result, b: Result, *, names: tuple[str, str]) -> Comparison:
    """Set ``b`` against ``a``; kinds of request that both have are compared by their p95."""
    rows = [_row(measure, read(a), read(b)) for measure, read in MEASURES]
    of_b = {kind.kind.name: kind for kind in b.kinds}
    for kind in a.kinds:
        other = of_b.get(kind.kind.name)
        if other is not None:
            name = f"{kind.kind.name}: p95 ms"
            rows.append(_row(name, kind.latency.p95_ms, other.latency.p95_ms))
    return Comparison(
        a=names[0],
        b=names[1],
        held=b.verdict.held,
        rows=tuple(rows),
        differences=_differences(a, b),
        warnings=tuple(
            f"{name}: {trouble}"
            for name, result in zip(names, (a, b), strict=True)
            for trouble in result.generator.bottleneck
        ),
    )


def _row(measure: str, a: float | None, b: float | None) -> Row:
    ratio = None if a is None or b is None or a == 0 else b / a
    return Row(measure=measure, a=a, b=b, ratio=ratio)


def _rate(result: Result, count: int) -> float | None:
    return count / result.judged_s if result.judged_s else None


def _share(result: Result, count: int) -> float | None:
    return count / result.counts.planned if result.counts.planned else None


def _differences(a: Result, b: Result) -> tuple[str, ...]:
    found = []
    for part in ("target", "schedule", "objective"):
        left = msgspec.structs.asdict(getattr(a, part))
        right = msgspec.structs.asdict(getattr(b, part))
        found += [
            f"{part}.{key}: {_shown(left[key])} and {_shown(right[key])}"
            for key in left
            if left[key] != right[key]
        ]
    return tuple(found)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{kind.weight:.3g} x {kind.rows} rows" for kind in value)
    return str(value)
