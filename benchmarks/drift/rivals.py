"""The same windows given to Treeline, SciPy, Evidently and NannyML, each in its own process.

A tool's defaults alarm at a rate of their own. So powers are compared twice: by the defaults beside
the false alarms they cost, and with every tool's strongest statistic cut where 5% of the windows
without drift exceed it.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.drift.changes import Apply, decorrelate, missing, more_of, scale, shift
from benchmarks.drift.worlds import Columns, mixed_world, numbers_world, table
from benchmarks.serving.contenders import Contender
from benchmarks.serving.environments import NotInstallable, python_of, versions
from benchmarks.serving.measure import FOLDER

PEERS = Path(__file__).parent / "peers"
ROOT = Path(__file__).resolve().parents[2]
BASELINE_ROWS = 20_000
LARGE_BASELINE_ROWS = 50_000
LARGE_ROWS = 1_000_000
EQUAL_RATE = 0.05
# Columns of many categories make Evidently's defaults alarm in every report at 1,000 rows.
LEFT_OUT = ("zipf200", "zipf3000")
CHANGES: Mapping[int, Mapping[str, Apply]] = {
    1_000: {
        "mean +0.25 sigma": shift("normal", 0.25),
        "deviation x1.2": scale("normal", 1.2),
        "correlation 0.3 to 0": decorrelate("partner"),
        "missing 2% to 4%": missing("missing2", 0.04),
        "category of 10% +5 points": more_of("cat10", "c3", 0.1, 0.05),
    },
    10_000: {
        "mean +0.05 sigma": shift("normal", 0.05),
        "mean +0.1 sigma": shift("normal", 0.1),
        "deviation x1.1": scale("normal", 1.1),
        "correlation 0.3 to 0": decorrelate("partner"),
        "missing 2% to 4%": missing("missing2", 0.04),
        "category of 10% +2 points": more_of("cat10", "c3", 0.1, 0.02),
    },
}


def _peer(name: str, script: str, versions_of: str, *packages: str, **variables: str) -> Contender:
    return Contender(
        name=name,
        title=name,
        environment=f"drift-{name}" if packages else "",
        packages=packages,
        request="treeline",
        command=(script,),
        versions_of=(versions_of,),
        variables=variables,
    )


TOOLS = (
    _peer("treeline", "treeline_report.py", "numpy"),
    _peer("scipy", "scipy_tests.py", "scipy"),
    _peer(
        "evidently",
        "evidently_report.py",
        "evidently",
        *("evidently", "pyarrow", "pandas<3", "numpy<2.3", "scikit-learn"),
    ),
    _peer(
        "nannyml",
        "nannyml_univariate.py",
        "nannyml",
        *("nannyml", "pyarrow", "statsmodels", "scikit-learn"),
        NML_DISABLE_USAGE_LOGGING="1",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One tool's verdicts by condition: (windows, 2), whether it alarmed and its statistic."""

    verdicts: Mapping[str, np.ndarray]
    cpu_s: Mapping[str, float]
    above_mb: Mapping[str, float] = field(default_factory=dict)

    def alarms(self, condition: str) -> float:
        return float(self.verdicts[condition][:, 0].mean())

    def at_equal_rate(self, condition: str, quiet: str) -> float:
        cut = np.quantile(self.verdicts[quiet][:, 1], 1 - EQUAL_RATE, method="higher")
        return float((self.verdicts[condition][:, 1] > cut).mean())


def compare(runs: int, seed: int) -> Iterator[str]:
    """Judge ``runs`` windows of each change, three times as many without drift; then time one."""
    rng = np.random.default_rng(seed)
    pythons: dict[str, Path] = {}
    for tool in TOOLS:
        try:
            pythons[tool.name] = python_of(tool, ROOT / FOLDER, str(ROOT / ".uv/bin/uv"))
        except NotInstallable as exc:
            yield f"{tool.name}: left out, {exc}"
            continue
        yield f"{tool.name}: {versions(tool, pythons[tool.name])}"
    tools = [tool for tool in TOOLS if tool.name in pythons]
    with tempfile.TemporaryDirectory() as name:
        small, large = Path(name) / "small", Path(name) / "large"
        _write_windows(small, runs, rng)
        found = {tool.name: _judged(tool, pythons[tool.name], small) for tool in tools}
        yield from _power_lines(found, runs)
        large.mkdir()
        pq.write_table(table(numbers_world(rng, LARGE_BASELINE_ROWS)), large / "baseline.parquet")
        window = table(numbers_world(rng, LARGE_ROWS))
        pq.write_table(window, large / "windows-large.parquet", row_group_size=LARGE_ROWS)
        ours: Found | None = None
        for tool in tools:
            cost = _judged(tool, pythons[tool.name], large)
            ours = ours or cost
            yield _cost_line(tool.name, found, cost.cpu_s["large"] / ours.cpu_s["large"], cost)


def _write_windows(folder: Path, runs: int, rng: np.random.Generator) -> None:
    folder.mkdir()
    pq.write_table(table(_draw(rng, BASELINE_ROWS)), folder / "baseline.parquet")
    for rows, changes in CHANGES.items():
        _write(folder / f"windows-none, {rows} rows.parquet", 3 * runs, rows, None, rng)
        for name, change in changes.items():
            _write(folder / f"windows-{name}, {rows} rows.parquet", runs, rows, change, rng)


def _write(
    path: Path, windows: int, rows: int, change: Apply | None, rng: np.random.Generator
) -> None:
    schema = table(_draw(rng, 1)).schema
    with pq.ParquetWriter(path, schema) as writer:
        for _ in range(windows):
            columns = _draw(rng, rows)
            if change:
                change(rng, columns)
            writer.write_table(table(columns), row_group_size=rows)


def _draw(rng: np.random.Generator, rows: int) -> Columns:
    columns = mixed_world(rng, rows)
    return {name: columns[name] for name in columns if name not in LEFT_OUT}


def _judged(tool: Contender, python: Path, folder: Path) -> Found:
    """Run a peer's script over a folder; RuntimeError with its last words if it fails."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    environment = {**os.environ, **threads, **tool.variables}
    if not tool.packages:
        environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [str(python), "-W", "ignore", str(PEERS / tool.command[0]), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"{tool.name} ended with {done.returncode}: {done.stderr[-800:]}")
    windows = json.loads(done.stdout.splitlines()[-1])["windows"]
    return Found(
        verdicts={name: np.array(one["verdicts"], float) for name, one in windows.items()},
        cpu_s={name: one["cpu_s"] for name, one in windows.items()},
        above_mb={name: one["above_mb"] for name, one in windows.items()},
    )


def _power_lines(found: Mapping[str, Found], runs: int) -> Iterator[str]:
    yield (
        f"{runs} windows a change, {3 * runs} without; share found by the defaults / with the cut "
        f"at {EQUAL_RATE:.0%} false alarms"
    )
    yield f"{'':42}" + "".join(f"{name:>16}" for name in found)
    for rows, changes in CHANGES.items():
        for name in ("none", *changes):
            condition, quiet = f"{name}, {rows} rows", f"none, {rows} rows"
            cells = [
                f"{tool.alarms(condition):5.0%} / {tool.at_equal_rate(condition, quiet):4.0%}"
                for tool in found.values()
            ]
            yield f"{condition:42}" + "".join(f"{cell:>16}" for cell in cells)


def _cost_line(name: str, found: Mapping[str, Found], ratio: float, cost: Found) -> str:
    """Say what a report costs a tool, beside what it costs Treeline, the first of them."""
    condition = "none, 10000 rows"
    ours, small = next(iter(found.values())).cpu_s[condition], found[name].cpu_s[condition]
    return (
        f"{name}: 10,000 x 18 in {small:.3f} CPU s ({small / ours:.0f} times Treeline's); "
        f"1,000,000 x 20 in {cost.cpu_s['large']:.2f} CPU s ({ratio:.0f} times), "
        f"{cost.above_mb['large']:.0f} MB above the data"
    )
